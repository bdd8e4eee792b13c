"""Invalid input on every route: the expected error, no rows written, no internals shown.

The cases for a field are generated from its schema, so that new fields are tested too.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest

from shop.primitives.spec import Route
from shop.registry import all_specs
from tests.harness import MakeShop, Person, Response, ShopHarness, shop_of_module
from tests.sample_requests import ROUTES, Samples, sample_request

# the functions of the harness run in this process
CPU_SECONDS_MAX = 1.0
INTERNALS = re.compile(
    rb"Traceback|File \\?\"|psycopg|pydantic|granian|python|select |insert |\.py\b|Exception"
    rb"|errors\.pydantic|line \d+|0x[0-9a-f]{6}",
    re.IGNORECASE,
)
MODULE_OF = {
    (route.method, route.path): f"functions.{spec.name}.schema"
    for spec in all_specs()
    for route in spec.routes
}
WITH_BODY = [route for route in ROUTES.values() if route.body]

BROKEN: dict[str, bytes] = {
    "brace": b"{",
    "trailing comma": b'{"a":1,}',
    "two documents": b"{}{}",
    "something after": b"{} x",
    "a NUL": b"\x00",
    "NUL in a string": b'{"name":"\x00"}',
    "byte-order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "invalid UTF-8": b'{"name":"\xff"}',
    "overlong UTF-8": b'{"name":"\xc0\xaf"}',
    "surrogate in UTF-8": b'{"name":"\xed\xa0\x80"}',
    "lone surrogate escaped": b'{"name":"\\ud800"}',
    "lone surrogate as a key": b'{"\\udfff":1}',
    "duplicate keys": b'{"quantity":1,"quantity":100}',
    "duplicate keys in spellings": b'{"quantity":1,"qu\\u0061ntity":100}',
    "duplicate keys below": b'{"items":[{"productId":1,"productId":2}]}',
    "deep arrays": b"[" * 10_000 + b"]" * 10_000,
    "deep objects": b'{"a":' * 8_000 + b"1" + b"}" * 8_000,
    "33 deep": b"[" * 33 + b"]" * 33,
    "a number of 60,000 digits": b'{"quantity":' + b"9" * 60_000 + b"}",
    "1e400": b'{"quantity":1e400}',
    "-1e400": b'{"quantity":-1e400}',
    "NaN": b'{"quantity":NaN}',
    "Infinity": b'{"quantity":Infinity}',
    "-Infinity": b'{"quantity":-Infinity}',
    "single quotes": b"{'a':1}",
    "a comment": b"{}//x",
    "a line break in a string": b'{"name":"a\nb"}',
    "leading zero": b'{"quantity":01}',
    "plus sign": b'{"quantity":+1}',
    "white space of Unicode": b"\xc2\xa0{}",
}
NO_OBJECTS: dict[str, bytes] = {
    "array": b"[]",
    "string": b'"x"',
    "number": b"1",
    "null": b"null",
    "true": b"true",
    "array of objects": b"[{}]",
    "thousands of keys": json.dumps(dict.fromkeys(map(str, range(4000)))).encode(),
}
SMUGGLED = (
    "status", "total_minor", "totalAmount", "unitPrice", "unit_price", "user_id", "userId", "role",
    "paid", "refund_reserved_minor", "is_admin", "isAdmin", "__proto__", "constructor", "id",
    "createdAt", "emailVerified", "$where", "",
)  # fmt: skip
MEDIA_TYPES = (
    "text/plain", "application/xml", "application/json; charset=utf-16", "multipart/form-data",
    "application/x-www-form-urlencoded", "application/json-patch+json", "json", "",
    "application/json; charset=latin-1", "text/json", "*/*",
)  # fmt: skip
ENCODINGS = ("gzip", "br", "deflate", "zstd", "identity, gzip", "GZIP", "x")
INJECTIONS = (
    "' OR 1=1--", '"; DROP TABLE orders;--', "\\'); select pg_sleep(10)--",
    "%' AND 1=CAST((SELECT version()) AS int)--", "$$", "$1", "%(name)s", "%s%s%s%n", "{{7*7}}",
    "${jndi:ldap://127.0.0.1:9/x}", "<script>alert(1)</script>", "../../etc/passwd",
    "a\r\nX-Injected: 1", "a\nb", "\x00", "\u202eevil", "a\u200bb", "e" + "\u0301" * 40, "\ufffe",
    "\ufeff", "İ", "ß", "👩‍👩‍👧", "   ", "\t", "cafe\u0301", "café", "\u2028", "null", "-1", "=1+1",
)  # fmt: skip


def schema_of(route: Route) -> dict[str, Any]:
    model = getattr(import_module(MODULE_OF[route.method, route.path]), str(route.body))
    schema: dict[str, Any] = model.model_json_schema(by_alias=True)
    return schema


OPERATORS = "select user_id, role from shop.users where role <> 'customer' order by user_id"
CREATES_OPERATORS = ("/admin/users", "/admin/service-accounts")
# that prove an account by its password, of which failures are counted
WITH_PASSWORD = [
    route
    for route in WITH_BODY
    if route.path.startswith("/auth/")
    and {"email", "password"} <= set(schema_of(route)["properties"])
]


def rules_of(route: Route) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Name, rule and whether null is allowed, of each property of the body."""
    schema = schema_of(route)
    for name, rule in schema["properties"].items():
        options = rule.get("anyOf", [rule])
        plain = [option for option in options if option.get("type") != "null"]
        named = plain[0].get("$ref", "").removeprefix("#/$defs/")
        yield name, schema["$defs"][named] if named else plain[0], len(plain) != len(options)


def wrong_values(rule: dict[str, Any], *, null_is_fine: bool) -> Iterator[Any]:
    """Values that the schema rejects; raw JSON text where Python has no such value."""
    others: dict[str, tuple[Any, ...]] = {
        "integer": (
            "1",
            1.0,
            1.5,
            True,
            False,
            [1],
            {"$gt": 0},
            {},
            "",
            -(2**63),
            2**63,
            2**64,
            1e3,
        ),
        "string": (1, 1.5, True, [], ["x"], {}, {"$ne": None}),
        "boolean": ("true", 1, 0, [], {}),
        "array": ({}, "x", 1, True, [1], [None], [[]], [{}]),
        "object": ([], "x", 1, True, [{}], {"$ne": None}),
    }
    yield from others[rule["type"]]
    if not null_is_fine:
        yield None
    if "minimum" in rule:
        yield rule["minimum"] - 1
    if "maximum" in rule:
        yield rule["maximum"] + 1
    if rule.get("minLength"):
        yield "x" * (rule["minLength"] - 1)
    if "maxLength" in rule:
        yield from ("x" * (rule["maxLength"] + 1), "가" * (rule["maxLength"] + 1))
    if rule.get("minItems"):
        yield []


class Attempts:
    """Sends invalid requests to one route and collects unexpected responses."""

    def __init__(self, samples: Samples, route: Route) -> None:
        self.samples, self.route = samples, route
        self.person = samples.person_for(route)
        self.good = sample_request(samples, route)
        self.wrong: list[str] = []
        self.before = samples.rows()

    def expect(self, status: int, case: str, **options: Any) -> Response:
        began = time.process_time()
        headers = self.good.headers | options.pop("headers", {})
        answer = self.samples.shop.call(
            self.route.method,
            options.pop("path", self.good.path),
            token=self.person.token if self.person else None,
            headers=headers,
            **options,
        )
        took = time.process_time() - began
        if answer.status != status:
            self.wrong.append(f"{case}: {answer.status} instead of {status}: {answer.body[:200]!r}")
        if took > CPU_SECONDS_MAX:
            self.wrong.append(f"{case}: took {took:.1f} s of CPU")
        self.wrong += [f"{case}: {flaw}" for flaw in flaws_of(answer)]
        return answer

    def finish(self) -> None:
        assert self.wrong == []
        assert self.samples.rows() == self.before


def flaws_of(answer: Response) -> Iterator[str]:
    """Each deviation of an error response from the documented form."""
    if answer.status < 400:
        return
    if answer.headers.get("content-type") != "application/problem+json":
        yield "is no problem document"
    if answer.headers.get("cache-control") != "no-store":
        yield "may be cached"
    if answer.headers.get("x-content-type-options") != "nosniff":
        yield "may be sniffed"
    said = json.dumps({**answer.json, "instance": ""}).encode()
    if INTERNALS.search(said):
        yield f"shows internals: {said[:300]!r}"
    missing = {"type", "title", "status", "detail", "instance", "error", "message"} - set(
        answer.json
    )
    if missing or answer.json["status"] != answer.status:
        yield f"lacks {missing}"


@pytest.fixture(scope="module")
def samples(request: pytest.FixtureRequest) -> Iterator[Samples]:
    """One shop for all cases, which write nothing or only their own rows."""
    with shop_of_module(request) as shop:
        yield Samples(shop)


# ---------------------------------------------------------------- bodies


def test_every_route_rejects_bodies_that_are_not_one_json_document(samples: Samples) -> None:
    for route in WITH_BODY:
        attempts = Attempts(samples, route)
        name = f"{route.method} {route.path}: "
        for case, raw in BROKEN.items():
            attempts.expect(400, name + case, raw=raw)
        for case, raw in NO_OBJECTS.items():
            attempts.expect(422, name + case, raw=raw)
        if not route.body_is_optional:
            attempts.expect(400, name + "empty", raw=b"", headers=JSON)
            attempts.expect(400, name + "blank", raw=b"  \n ", headers=JSON)
        attempts.finish()


JSON = {"content-type": "application/json"}


def test_every_route_rejects_unknown_properties(samples: Samples) -> None:
    for route in WITH_BODY:
        attempts = Attempts(samples, route)
        known = set(schema_of(route)["properties"])
        for name in sorted(set(SMUGGLED) - known):
            for value in (1, "PAID", None):
                body = {**(attempts.good.body or dict[str, Any]()), name: value}
                attempts.expect(422, f"{route.path}: {name}={value}", json_body=body)
        for name in known:
            snake = re.sub(r"([A-Z])", lambda m: f"_{m[1].lower()}", name)
            if snake != name and snake not in known:
                body = {**(attempts.good.body or dict[str, Any]()), snake: 1}
                attempts.expect(422, f"{route.path}: {snake}", json_body=body)
        attempts.finish()


def test_every_route_rejects_values_outside_the_schema(samples: Samples) -> None:
    cases = 0
    for route in WITH_BODY:
        attempts = Attempts(samples, route)
        for name, rule, null_is_fine in rules_of(route):
            for value in wrong_values(rule, null_is_fine=null_is_fine):
                body = {**(attempts.good.body or dict[str, Any]()), name: value}
                attempts.expect(422, f"{route.path}: {name}={str(value)[:40]!r}", json_body=body)
                cases += 1
        for name in schema_of(route).get("required", ()):
            body = {k: v for k, v in (attempts.good.body or dict[str, Any]()).items() if k != name}
            attempts.expect(422, f"{route.path}: without {name}", json_body=body)
        attempts.finish()
    assert cases > 150


def test_unusual_number_literal_is_no_valid_quantity(samples: Samples) -> None:
    attempts = Attempts(samples, ROUTES["POST", "/orders"])
    for text in ("-0", "0", "1e3", "1E0", "1.0", "10e-1", "0x10", "1_000"):
        raw = f'{{"productId":{samples.product},"quantity":{text},"paymentMethod":"CARD"}}'.encode()
        attempts.expect(400 if text in ("0x10", "1_000") else 422, text, raw=raw)
    attempts.finish()


def test_every_route_rejects_other_media_types_and_compressed_bodies(samples: Samples) -> None:
    for route in WITH_BODY:
        attempts = Attempts(samples, route)
        for media_type in MEDIA_TYPES:
            headers = {"content-type": media_type}
            attempts.expect(
                415,
                f"{route.path}: {media_type}",
                json_body=attempts.good.body or {},
                headers=headers,
            )
        for encoding in ENCODINGS:
            headers = {"content-encoding": encoding}
            raw = b"\x1f\x8b" + b"\0" * 1000
            attempts.expect(415, f"{route.path}: {encoding}", raw=raw, headers=headers)
        attempts.finish()


def test_charset_utf_8_is_accepted(samples: Samples) -> None:
    sent = sample_request(samples, ROUTES["POST", "/orders"])
    for media_type in (
        'application/json; charset="utf-8"',
        "Application/JSON;charset=UTF-8",
        "application/json; charset=utf8",
        'application/json;Charset="UTF8"',
    ):
        answer = samples.owner.post(sent.path, sent.body, headers={"content-type": media_type})
        assert answer.status == 201, media_type


def test_body_above_64_kib_gets_413(samples: Samples) -> None:
    for route in WITH_BODY:
        attempts = Attempts(samples, route)
        attempts.expect(413, route.path, raw=b" " * 65_537, headers=JSON)
        attempts.finish()
    sent = sample_request(samples, ROUTES["POST", "/orders"])
    full = json.dumps(sent.body).encode().ljust(65_536)

    assert samples.owner.post("/orders", raw=full).status == 201


@pytest.mark.parametrize("length", [196, 197, 198, 199])
def test_long_path_of_a_problem_is_cut_between_escapes(samples: Samples, length: int) -> None:
    path = "/".ljust(length, "x")

    answer = samples.shop.call("GET", f"{path}%ED%95%9C", function="cart")

    shown = answer.json["instance"]
    assert answer.status == 404
    assert re.fullmatch(r"(?:[^%]|%[0-9A-F]{2})*", shown), shown
    assert 197 <= len(shown) <= 200


def test_injections_are_stored_literally_or_rejected(samples: Samples) -> None:
    fine = {200, 201, 202, 204, 401, 403, 404, 409, 422}  # 403: not the present password
    sent = 0
    for route in WITH_BODY:
        attempts = Attempts(samples, route)
        operators = samples.shop.sql(OPERATORS)
        token = attempts.person.token if attempts.person else None
        for name, rule, _ in rules_of(route):
            for text in INJECTIONS if rule["type"] == "string" else ():
                body = {**(attempts.good.body or dict[str, Any]()), name: text}
                takes_password = route.path.startswith("/users/me") and "assword" in name
                if takes_password:  # so are those of a session, or one change
                    token = samples.shop.person().token
                headers = dict(attempts.good.headers)
                if route in WITH_PASSWORD:  # some guesses at an account, or of a network, are all
                    headers["x-forwarded-for"] = f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::1"
                    if name != "email":
                        body["email"] = f"{uuid4().hex}@x.kr"
                answer = samples.shop.call(
                    route.method,
                    attempts.good.path,
                    json_body=body,
                    headers=headers,
                    token=token,
                )
                sent += 1
                assert answer.status in fine, (route.path, name, text, answer.body)
                assert "x-injected" not in answer.headers
                assert all("\n" not in v and "\r" not in v for v in answer.headers.values())
        if route.path not in CREATES_OPERATORS:
            assert samples.shop.sql(OPERATORS) == operators, route.path
    assert sent > 10 * len(INJECTIONS)


def test_accepted_text_reads_back_composed_and_otherwise_unchanged(samples: Samples) -> None:
    staff = samples.people["staff"]
    samples.product  # noqa: B018 (brings its category)
    kept = 0
    for text in INJECTIONS:
        body = {"name": text, "category": "시험", "price": 100, "stockQuantity": 1}
        answer = staff.post("/products", body)
        assert answer.status in (201, 422), (text, answer.body)
        if answer.status == 201:
            kept += 1
            shown = samples.shop.call("GET", f"/products/{answer.json['id']}")
            composed = unicodedata.normalize("NFC", text)
            assert shown.json["name"] == answer.json["name"] == composed
    assert 10 < kept < len(INJECTIONS)


# ---------------------------------------------------------------- methods, paths, queries, headers


def functions_paths() -> Iterator[tuple[str, str, set[str]]]:
    for spec in all_specs():
        for path in sorted({route.path for route in spec.routes}):
            yield spec.name, path, {r.method for r in spec.routes if r.path == path}


def test_unsupported_method_gets_405_and_options_lists_the_methods(samples: Samples) -> None:
    for function, template, methods in functions_paths():
        path = re.sub(r"\{\w+\}", str(uuid4()), template)
        allow = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW", "get"):
            if method in methods:
                continue
            answer = samples.shop.call(method, path, function=function, token=samples.owner.token)
            assert (answer.status, answer.headers.get("allow")) == (405, allow), (method, template)
            assert list(flaws_of(answer)) == []
        options = samples.shop.call("OPTIONS", path, function=function)
        assert (options.status, options.headers["allow"], options.body) == (204, allow, b"")


def test_method_override_header_is_ignored(samples: Samples) -> None:
    samples.fill_cart(samples.owner)
    for header in ("x-http-method-override", "x-http-method", "x-method-override"):
        answer = samples.owner.get("/cart", headers={header: "DELETE"})
        assert answer.status == 200
    assert len(samples.owner.get("/cart").json) == 1


def is_public_read(route: Route) -> bool:
    return (route.auth, route.method) == ("public", "GET")


def test_every_write_and_private_read_rejects_unknown_query_parameters(samples: Samples) -> None:
    for route in ROUTES.values():
        attempts = Attempts(samples, route)
        attempts.good.path = attempts.good.path.partition("?")[0]
        if is_public_read(route) or route.path in ("/auth/logout", "/payments/webhook"):
            continue
        path = f"{attempts.good.path}?debug=1"
        attempts.expect(400, route.path, path=path, json_body=attempts.good.body)
        attempts.finish()


# as trackers, advertisers and cache busters add them, also twice and in the encoding of the page
TRACKERS = "fbclid=IwAR0x&utm_source=a&utm_source=b&utm_campaign=%C7%D1%B1%DB&_=1&gclid&=&&debug=1"


def test_every_public_read_ignores_unknown_query_parameters(samples: Samples) -> None:
    for route in filter(is_public_read, ROUTES.values()):
        good = sample_request(samples, route)
        path, headers = good.path, good.headers
        plain = samples.shop.call("GET", path, headers=headers)

        more = f"{path}{'&' if '?' in path else '?'}{TRACKERS}"
        answer = samples.shop.call("GET", more, headers=headers)

        assert answer.status in (200, 302), (path, answer.body)
        assert (answer.status, answer.body) == (plain.status, plain.body), path


def test_public_reads_reject_unknown_query_parameters_when_the_setting_is_off(
    make_shop: MakeShop,
) -> None:
    shop = make_shop(unknown_query_parameters_ignored=False)

    for path in ("/products?fbclid=x", "/categories?utm_source=x", "/products?min_price=1"):
        answer = shop.call("GET", path)
        assert (answer.status, answer.error) == (400, "BAD_QUERY"), path


@pytest.mark.parametrize(
    "path",
    [
        "/products?limit=1&limit=999", "/products?limit=-1", "/products?limit=0",
        "/products?limit=101", "/products?limit=1e9", "/products?limit=1_0", "/products?limit=",
        "/products?limit=%20" "1", "/products?limit=1.0", "/products?limit=" + "9" * 400,
        "/products?cursor=garbage", "/products?cursor=", "/products?cursor=AAAA",
        "/products?cursor=" + "A" * 1500, "/products?minPrice=-1", "/products?minPrice=x",
        "/products?sort=price%3Bdrop", "/products?sort=PRICE", "/products?name=%00",
        "/products?name=%ff", "/products?name=" + "a" * 65,
        "/products?category=%0a", "/products?limit=1;limit=2", "/products?fbclid=x&limit=0",
        "/products?%6Cimit=0",
        "/orders/me?limit=0", "/orders/me?limit=101", "/orders/me?limit=abc", "/orders/me?cursor=x",
        "/orders/me?cursor=" + "-" * 36, "/orders/me?limit=1&limit=2", "/orders/me?limit=1.5",
        "/orders/me?limit=1_0", "/orders/me?limit=%2B1", "/orders/me?limit=1.0",
        "/settlements/daily?date=2026-02-30", "/settlements/daily?date=9999-12-31",
        "/settlements/daily?date=' or 1", "/settlements/daily?date=0", "/settlements/daily?date=",
        "/settlements/daily?date=2026-1-1", "/settlements/daily?date=2026-W01-1",
        "/settlements/daily?date=20260101", "/settlements/daily?date=2026-01-01T00:00:00",
        "/settlements/daily?date=1767225600", "/settlements/daily?date=%D9%A2%D9%A0-01-01",
        "/settlements/monthly?yearMonth=2026-13", "/settlements/monthly?yearMonth=2026-00",
        "/settlements/monthly?yearMonth=2026", "/settlements/monthly?yearMonth=2026-01%0a",
        "/settlements/monthly?yearMonth=2026-01&yearMonth=2026-02", "/settlements/monthly?year=1",
    ],
)  # fmt: skip
def test_invalid_query_gets_400(samples: Samples, path: str) -> None:
    answer = samples.people["finance"].get(path)

    assert answer.status == 400, answer.body
    assert list(flaws_of(answer)) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/products/{text}")
        for text in ("0", "-1", "abc", "9e99", str(2**63), "1.0", "+1", "01x", "%31", "1%00", "١")
    ]
    + [("DELETE", f"/cart/items/{text}") for text in ("0", "1.5", "abc", "%31")]
    + [("GET", "/products/" + "1" * 201)],
)
def test_invalid_product_id_gets_404(samples: Samples, method: str, path: str) -> None:
    answer = samples.shop.call(method, path, token=samples.owner.token)

    assert answer.status == 404
    assert list(flaws_of(answer)) == []


def test_long_path_and_large_headers_get_an_error_first(
    samples: Samples,
) -> None:
    long_ones = ["/" + "a" * 2048, "/orders/" + "1" * 3000, "/products?name=" + "a" * 2100]
    for path in long_ones:
        answer = samples.owner.get(path)
        assert (answer.status, answer.error) == (414, "URI_TOO_LONG"), path[:20]
        assert len(answer.body) < 1000
    for headers in ({"x-a": "a" * 16_400}, {f"x-{i}": "a" * 100 for i in range(200)}):
        assert samples.owner.get("/users/me", headers=headers).status == 431


def test_unacceptable_accept_header_gets_406(samples: Samples) -> None:
    for accept in (
        "text/html",
        "image/*",
        "application/json;q=0",
        "application/json; q=0.000",
        "application/xml, text/*",
    ):
        assert samples.owner.get("/users/me", headers={"accept": accept}).status == 406, accept
    for accept in ("*/*", "application/*", "application/json", "text/html, */*;q=0.1"):
        assert samples.owner.get("/users/me", headers={"accept": accept}).status == 200, accept


# ---------------------------------------------------------------- header and network trust (6c)

IDENTITY_HEADERS = (
    "x-user-id", "x-forwarded-user", "x-role", "x-user-role", "forwarded", "x-original-url",
    "x-rewrite-url", "x-authenticated-userid", "x-remote-user", "remote-user", "x-jwt-claims",
    "x-auth-request-user", "cookie", "x-api-key",
)  # fmt: skip


def forged(person: Person) -> dict[str, str]:
    values = dict.fromkeys(IDENTITY_HEADERS, str(person.user_id))
    return values | {
        "x-role": "admin", "x-user-role": "staff", "x-original-url": "/internal/orders",
        "forwarded": f"for={person.user_id}", "cookie": f"accessToken={person.token}",
    }  # fmt: skip


def test_identity_headers_are_ignored(samples: Samples) -> None:
    victim, somebody = samples.owner, samples.shop.person()
    samples.fill_cart(victim)
    before = samples.rows()
    order = {"productId": samples.product, "quantity": 1, "paymentMethod": "CARD"}

    for method, path, body in (
        ("POST", "/orders", order), ("GET", "/cart", None), ("DELETE", "/cart", None),
        ("GET", "/users/me", None), ("GET", "/orders/me", None),
    ):  # fmt: skip
        answer = samples.shop.call(method, path, json_body=body, headers=forged(victim))
        assert answer.status == 401, path

    me = somebody.get("/users/me", headers=forged(victim))
    assert me.json["id"] == somebody.user_id
    assert somebody.get("/cart", headers=forged(victim)).json == []
    assert somebody.post("/categories", {"name": "x"}, headers=forged(victim)).status == 403
    assert samples.rows() == before


@pytest.mark.parametrize(
    "path",
    [
        "/products/../internal/x", "/products/../orders", "//orders", "/orders/", "/orders;x=1",
        "/%6frders", "/orders%2fme", "/orders%2Fme", "/ORDERS", "/Orders/me", "/orders/me/",
        "/orders//me", "/orders/./me", "/orders/me%00", "/orders/me%20", "/orders/me;a=b",
        "/orders/me.json", "\\orders\\me", "/./orders/me", "/cart/../users/me", "/users/me/..",
        "*", "", "orders", "http://shop/orders/me",
    ],
)  # fmt: skip
def test_other_spelling_of_a_path_reaches_no_route(samples: Samples, path: str) -> None:
    for spec in all_specs():
        for method in ("GET", "POST", "DELETE"):
            for token in (None, samples.owner.token):
                answer = samples.shop.call(method, path, function=spec.name, token=token)
                assert answer.status in (400, 401, 404, 405), (spec.name, method, answer.status)
                if token:
                    # as an id it may be asked for, and is none
                    assert answer.status == 404 or (method != "GET" and answer.status == 405)


@pytest.mark.parametrize(
    "path",
    [
        "/metrics", "/docs", "/openapi.json", "/redoc", "/debug", "/debug/pprof/", "/.git/config",
        "/actuator/health", "/actuator/env", "/actuator/prometheus", "/h2-console",
        "/internal/stocks",
        "/internal/stocks/reserve", "/payments", "/admin", "/server-status", "/.env", "/health",
        "/_/functions", "/api-docs/../spec.py", "/api-docs/..%2fspec.py", "/api-docs/start.py",
        "/v3/api-docs/..", "/schemas/..", "/schemas/order.placed", "/wp-login.php",
    ],
)  # fmt: skip
def test_path_outside_the_routes_gets_404(samples: Samples, path: str) -> None:
    for spec in all_specs():
        answer = samples.shop.call("GET", path, function=spec.name, token=samples.owner.token)
        assert answer.status == 404 and list(flaws_of(answer)) == [], (spec.name, path)


def test_host_header_changes_nothing(samples: Samples) -> None:
    for host in ("settle.shop.svc.cluster.local", "localhost", "evil.test", "", "a" * 300):
        assert samples.shop.call("GET", "/orders/me", headers={"host": host}).status == 401
        created = samples.owner.post(
            "/orders",
            {"productId": samples.product, "quantity": 1, "paymentMethod": "CARD"},
            headers={"host": host, "x-forwarded-host": "evil.test"},
        )
        assert created.headers["location"].startswith("/orders/")


def test_forged_address_headers_do_not_evade_the_rate_limit(
    make_shop: Callable[..., ShopHarness],
) -> None:
    shop = make_shop(rate_limit_per_minute=5)
    client = f"198.51.100.{uuid4().int % 250}"
    answers: list[int] = []
    for i in range(30):
        body = {"email": f"{uuid4().hex}@x.kr", "password": "wrong password"}
        headers = {
            "x-forwarded-for": f"10.0.{i}.1, {client}", "x-real-ip": f"10.1.{i}.1",
            "forwarded": f"for=10.2.{i}.1", "true-client-ip": f"10.3.{i}.1",
            "x-client-ip": f"10.4.{i}.1", "cf-connecting-ip": f"10.5.{i}.1",
        }  # fmt: skip
        answers.append(shop.call("POST", "/auth/login", json_body=body, headers=headers).status)

    assert 429 in answers
    assert 401 not in answers[answers.index(429) :]
    assert answers.count(401) <= 10  # five a minute, over at most two windows


def test_internal_paths_get_404(samples: Samples) -> None:
    """Stock and money change through routes and signed events only."""
    for path in ("/internal/stocks/reserve", "/internal/stocks/release", "/payments/1/cancel"):
        for spec in all_specs():
            answer = samples.shop.call("POST", path, json_body={}, function=spec.name)
            assert answer.status == 404
    assert not [r for r in ROUTES.values() if r.path.startswith("/internal")]


def test_internal_error_gets_500_without_its_cause(samples: Samples) -> None:
    """The response to an internal error does not show its cause."""
    samples.shop.sql("alter table shop.cart_items rename to elsewhere")

    answer = samples.owner.get("/cart")

    assert (answer.status, answer.error) == (500, "INTERNAL")
    assert not re.search(rb"elsewhere|cart_items|psycopg|Undefined|Traceback|relation", answer.body)


def test_taken_email_wrong_password_and_unknown_product_get_their_own_statuses(
    samples: Samples,
) -> None:
    """A taken email gets 409, a wrong password 401, an unknown product 404."""
    taken = {**samples.account, "name": "Kim"}

    answers = {
        "taken": samples.shop.call("POST", "/users", json_body=taken).status,
        "wrong": samples.shop.call(
            "POST", "/auth/login", json_body={**samples.account, "password": "wrong one"}
        ).status,
        "unknown": samples.shop.call("GET", "/products/999999999").status,
    }

    assert answers == {"taken": 409, "wrong": 401, "unknown": 404}
