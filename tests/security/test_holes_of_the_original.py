"""The holes of the Spring system, each as a test that it is not here ("seed-H-03 does not happen").

Not as tests of this file, with the reason:

* H-01b (retry on a self-call is dead code) and H-13's stub: there is no proxy and no mock to be
  fooled by; retries are tested where they happen (tests/tools/payment_simulator,
  tests/unit/test_lifecycle.py).
* H-19 on the manifest side (probe delays), S-09's published ports, S-10's H2 console, S-13 (users,
  tags, volumes of pods) and S-15 (Ingress): these are about manifests; the tests of the rendered
  manifests and of the chart hold them.
* S-14 (images pushed before tests, actions by tag): about workflows; the tests of CI hold them.
* H-21 (tests that tolerate any outcome): tests/contract/test_style.py holds the tests themselves.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from events import envelope
from shop.adapters.tokens import TokenVerifier
from shop.registry import all_specs
from shop.runtime.config import Secret
from tests.harness import AUDIENCE, ISSUER, ShopHarness
from tests.sample_requests import PASSWORD, ROUTES, Samples, sample_request
from tests.security.test_endpoint_input import at_once

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9"
MakeShop = Callable[..., ShopHarness]


@pytest.fixture
def samples(shop: ShopHarness) -> Samples:
    return Samples(shop)


def stock_of(samples: Samples, product: int) -> tuple[int, int]:
    (row,) = samples.shop.sql(
        "select on_hand, reserved from shop.stock where product_id = %s", product
    )
    return row["on_hand"], row["reserved"]


def body_of(product: int, quantity: int = 1) -> dict[str, Any]:
    return {"productId": product, "quantity": quantity, "paymentMethod": "CARD"}


# ---------------------------------------------------------------- correctness


def test_seed_h_01_does_not_happen_here(samples: Samples) -> None:
    """A retried order, payment event and cancel have one effect each."""
    key = uuid4().hex
    placed = [samples.owner.post("/orders", body_of(samples.product), key=key) for _ in range(3)]
    (event,) = samples.shop.outbox()
    for _ in range(3):
        samples.shop.deliver(event, "charge")
    order = placed[0].json["id"]
    cancelled = [samples.owner.patch(f"/orders/{order}/cancel", key=key[::-1]) for _ in range(3)]
    samples.shop.deliver_all()

    assert len({a.body for a in placed}) == len({a.body for a in cancelled}) == 1
    kinds = [row["kind"] for row in samples.shop.sql("select kind from shop.ledger order by seq")]
    assert kinds == ["CAPTURE", "REFUND"]
    assert stock_of(samples, samples.product) == (100_000, 0)


def test_seed_h_02_does_not_happen_here(samples: Samples) -> None:
    """Two cancels at once give the stock back once."""
    order = samples.owner.paid_order(samples.product, 3)["id"]

    answers = at_once(6, lambda _: samples.owner.patch(f"/orders/{order}/cancel"))
    samples.shop.deliver_all()

    assert sorted(a.status for a in answers) == [200] + [409] * 5
    assert stock_of(samples, samples.product) == (100_000, 0)


def test_seed_h_03_does_not_happen_here(samples: Samples) -> None:
    """Twelve buyers of the last five units: five succeed."""
    product = samples.shop.product(stock=5)
    buyers = [samples.shop.person() for _ in range(12)]

    answers = at_once(12, lambda i: buyers[i].post("/orders", body_of(product)))

    assert sorted(a.status for a in answers) == [201] * 5 + [409] * 7
    assert stock_of(samples, product) == (5, 5)


def test_seed_h_04_does_not_happen_here(make_shop: MakeShop) -> None:
    """A reservation is a row with an owner and an end; nobody has to remember to release it."""
    samples = Samples(make_shop(order_soft_expiry_seconds=0, payment_provider_url=NOWHERE))
    order = samples.order()
    (held,) = samples.shop.sql("select order_id::text, status from shop.reservations")
    assert held == {"order_id": order, "status": "HELD"}

    assert samples.shop.tick("sweep").status == 204

    assert samples.owner.get(f"/orders/{order}").json["status"] == "CANCELLED"
    assert stock_of(samples, samples.product) == (100_000, 0)


def test_seed_h_05_does_not_happen_here(make_shop: MakeShop) -> None:
    """Before the provider is asked for money, order and intent are committed rows."""
    samples = Samples(make_shop(payment_provider_url=NOWHERE))
    order = samples.order()
    (placed,) = samples.shop.outbox()

    assert samples.shop.deliver(placed, "charge").status == 204

    (payment,) = samples.shop.sql("select order_id::text, status, provider_key from shop.payments")
    assert (payment["order_id"], payment["status"] in ("INTENT", "UNKNOWN")) == (order, True)
    assert payment["provider_key"]


def test_seed_h_06_does_not_happen_here(samples: Samples) -> None:
    """From the cart comes one order or none, and none leaves the cart as it was."""
    scarce = samples.shop.product(stock=0)
    samples.fill_cart(samples.owner)
    samples.shop.sql(
        "insert into shop.cart_items (user_id, product_id, qty) values (%s, %s, 1)",
        samples.owner.user_id,
        scarce,
    )
    before = samples.rows()

    answer = samples.owner.post("/orders/from-cart", {"paymentMethod": "CARD"})

    assert (answer.status, answer.error) == (409, "OUT_OF_STOCK")
    assert samples.rows() == before
    assert stock_of(samples, samples.product) == (100_000, 0)


def test_seed_h_07_does_not_happen_here(make_shop: MakeShop) -> None:
    """An outcome nobody knows is not a failure: the stock stays held, the order stays pending."""
    samples = Samples(make_shop(payment_provider_url=NOWHERE))
    order = samples.order()
    (placed,) = samples.shop.outbox()
    samples.shop.deliver(placed, "charge")

    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"
    assert stock_of(samples, samples.product) == (100_000, 1)
    idle = (
        "select 1 from pg_stat_activity where state = 'idle in transaction' "
        "and datname = current_database()"
    )
    assert samples.shop.sql(idle) == []


def test_seed_h_08_does_not_happen_here(samples: Samples) -> None:
    """An order rolled back announced nothing; one that was committed did, broker or not."""
    scarce = samples.shop.product(stock=1)
    assert samples.owner.post("/orders", body_of(scarce, 2)).status == 409
    assert samples.shop.outbox() == []

    order = samples.owner.order(scarce)

    (event,) = samples.shop.outbox()
    assert (event["type"], event["subject"], event["sent_at"]) == (
        "order.placed",
        order["id"],
        None,
    )


def test_seed_h_09_and_h_10_do_not_happen_here(samples: Samples) -> None:
    """A cancelled payment leaves the settlement; a repeated event does not enter it twice."""
    kept = samples.owner.paid_order(samples.product, 2)
    gone = samples.owner.paid_order(samples.product, 1)
    samples.owner.patch(f"/orders/{gone['id']}/cancel")
    samples.shop.deliver_all()
    for event in samples.shop.outbox(undone=False):
        for spec in all_specs():
            if any(s.event == event["type"] for s in spec.subscriptions):
                samples.shop.deliver(event, spec.name)

    (today,) = [d for d in samples.people["finance"].get("/settlements/daily").json][:1]

    assert kept["totalAmount"] == 2000
    assert (today["capturedAmount"], today["refundedAmount"], today["totalAmount"]) == (
        3000,
        1000,
        2000,
    )
    assert (today["paymentCount"], today["refundCount"]) == (2, 1)


def test_seed_h_11_does_not_happen_here(make_shop: MakeShop) -> None:
    """What failed once is tried again: the outbox row stays due until its consumers have it."""
    samples = Samples(make_shop(broker_url=NOWHERE))
    samples.order()
    for _ in range(3):
        samples.shop.sql("update shop.outbox set next_try_at = now()")
        assert samples.shop.tick("sweep").status == 204

    (row,) = [r for r in samples.shop.outbox(undone=False) if r["type"] == "order.placed"]
    assert row["parked_at"] is None
    if row["done_at"] is None:
        assert row["next_try_at"] > datetime.now(UTC) - timedelta(minutes=1)


def test_seed_h_12_does_not_happen_here(make_shop: MakeShop) -> None:
    """A cancel commits order and intent to refund together; the provider comes afterwards."""
    shop = make_shop()
    samples = Samples(shop)
    order = samples.owner.paid_order(samples.product)["id"]

    answer = samples.owner.patch(f"/orders/{order}/cancel")

    assert answer.json["status"] == "CANCELLING"
    (refund,) = shop.sql("select status from shop.refunds")
    assert refund["status"] == "INTENT"
    assert stock_of(samples, samples.product) == (100_000, 0)
    shop.deliver_all()
    assert samples.owner.get(f"/orders/{order}").json["status"] == "CANCELLED"


def test_seed_h_13_does_not_happen_here(samples: Samples) -> None:
    """A decline is a decline, seen on the order, and no 502."""
    order = samples.owner.order(samples.product, method="CARD_DECLINED")["id"]

    samples.shop.deliver_all()

    shown = samples.owner.get(f"/orders/{order}").json
    assert (shown["status"], shown["payment"]) == (
        "PENDING",
        {"status": "DECLINED", "attempt": 1},
    )
    again = samples.owner.post(f"/orders/{order}/payments", {"paymentMethod": "CARD"})
    assert again.status == 201


def test_seed_h_14_does_not_happen_here(samples: Samples) -> None:
    """Quantities have a bound, totals too, and nothing overflows on the way to it."""
    product = samples.shop.product(price=1_000_000_000, stock=1_000_000)

    assert samples.owner.post("/orders", body_of(product, 429_497)).status == 422
    answer = samples.owner.post("/orders", body_of(product, 1000))
    assert (answer.status, answer.error) == (422, "TOTAL_TOO_LARGE")
    (columns,) = samples.shop.sql(
        "select count(*) from information_schema.columns where table_schema = 'shop' "
        "and right(column_name, 6) = '_minor' and data_type <> 'bigint'"
    )
    assert columns["count"] == 0


def test_seed_h_15_and_h_16_do_not_happen_here(samples: Samples) -> None:
    """Closing runs in every replica, as often as one likes, in the business's own time zone."""
    samples.owner.paid_order(samples.product)
    samples.shop.sql("alter table shop.ledger disable trigger user")
    # the last minute of yesterday in Seoul is three in the afternoon in UTC
    samples.shop.sql(
        "update shop.ledger set posted_at = "
        "((now() at time zone 'Asia/Seoul')::date - interval '1 minute') at time zone 'Asia/Seoul'"
    )
    samples.shop.sql("alter table shop.ledger enable trigger user")
    (day,) = samples.shop.sql("select (now() at time zone 'Asia/Seoul')::date - 1 as yesterday")

    answers = at_once(4, lambda _: samples.shop.tick("settle"))
    again = samples.shop.tick("settle")

    assert {a.status for a in [*answers, again]} <= {204, 503} and again.status == 204
    asked = samples.people["finance"].get(f"/settlements/daily?date={day['yesterday']}").json
    assert (asked["closed"], asked["totalAmount"], asked["paymentCount"]) == (True, 1000, 1)
    (closed,) = samples.shop.sql("select count(*) from shop.settlements")
    assert closed["count"] == 1


def test_seed_h_17_does_not_happen_here(samples: Samples) -> None:
    """A price that changed is the price that is charged and shown, cached list or not."""
    staff, product = samples.people["staff"], samples.shop.product(price=1000, name="비싼 물건")
    where = "/products?name=%EB%B9%84%EC%8B%BC"
    assert [p["price"] for p in samples.shop.call("GET", where).json] == [1000]

    changed = staff.patch(f"/products/{product}", {"price": 2000}, headers={"if-match": "*"})

    assert changed.status == 200
    assert [p["price"] for p in samples.shop.call("GET", where).json] == [2000]
    assert samples.owner.order(product)["totalAmount"] == 2000


def test_seed_h_18_does_not_happen_here(samples: Samples) -> None:
    """Lists have pages, and a page has an end."""
    samples.shop.sql(
        "insert into shop.products (name, category, price_minor, currency) "
        "select 'hole-18', name, 1, 'KRW' from shop.categories, generate_series(1, 300) limit 300"
    )
    samples.shop.sql(
        "insert into shop.stock (product_id, on_hand) "
        "select product_id, 1 from shop.products where name = 'hole-18'"
    )
    for _ in range(25):
        samples.order()

    products = samples.shop.call("GET", "/products?name=hole-18&limit=100")
    by_default = samples.shop.call("GET", "/products?name=hole-18")
    orders = samples.owner.get("/orders/me")

    assert (len(products.json), len(by_default.json)) == (100, 20)
    assert (len(orders.json), 'rel="next"' in orders.headers["link"]) == (20, True)
    assert 'rel="next"' in products.headers["link"]


def test_seed_h_19_does_not_happen_here(make_shop: MakeShop) -> None:
    """Health asks no database: a blip there restarts nobody."""
    away = Secret("postgresql://shop_ordering@127.0.0.1:9/shop")
    shop = make_shop(database_url=away, redis_url=Secret("redis://127.0.0.1:9/0"))

    for spec in all_specs():
        for path in ("/health/liveness", "/health/readiness", "/_/health", "/_/ready"):
            assert shop.call("GET", path, function=spec.name).status == 200


def test_seed_h_20_does_not_happen_here(samples: Samples) -> None:
    """A refusal has its status: taken 409, wrong password 401, unknown product 404."""
    taken = {**samples.account, "name": "Kim"}

    answers = {
        "taken": samples.shop.call("POST", "/users", json_body=taken).status,
        "wrong": samples.shop.call(
            "POST", "/auth/login", json_body={**samples.account, "password": "wrong one"}
        ).status,
        "unknown": samples.shop.call("GET", "/products/999999999").status,
    }

    assert answers == {"taken": 409, "wrong": 401, "unknown": 404}


# ---------------------------------------------------------------- security


def test_seed_s_01_and_s_02_do_not_happen_here(samples: Samples) -> None:
    """X-User-Id is nobody: on every protected route and any spelling of it, no token is 401."""
    before = samples.rows()
    for route in ROUTES.values():
        if route.auth in ("public", "provider"):
            continue
        path = re.sub(r"\{\w+\}", "1", route.path)
        for header in ("x-user-id", "X-User-ID", "x_user_id", "x-userid"):
            answer = samples.shop.call(route.method, path, headers={header: "1"})
            assert answer.status == 401, (route, header)
    assert samples.rows() == before


def test_seed_s_03_does_not_happen_here(samples: Samples) -> None:
    """Orders have owners, ids cannot be counted through, and the database checks it once more."""
    order = samples.order()

    assert samples.shop.person().get(f"/orders/{order}").status == 404
    assert samples.shop.call("GET", f"/orders/{order}").status == 401
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", order
    )
    forced = samples.shop.sql(
        "select relname from pg_class where relnamespace = 'shop'::regnamespace "
        "and relrowsecurity and relforcerowsecurity"
    )
    assert {"orders", "order_lines", "payments", "cart_items"} <= {r["relname"] for r in forced}


def test_seed_s_04_does_not_happen_here(samples: Samples) -> None:
    """There is no internal HTTP: stock and money move by handlers and signed events only."""
    for path in ("/internal/stocks/reserve", "/internal/stocks/release", "/payments/1/cancel"):
        for spec in all_specs():
            answer = samples.shop.call("POST", path, json_body={}, function=spec.name)
            assert answer.status == 404
    assert not [r for r in ROUTES.values() if r.path.startswith("/internal")]


def test_seed_s_05_does_not_happen_here(samples: Samples, make_shop: MakeShop) -> None:
    """Revenue is for finance, unless the operator decides otherwise in so many words."""
    from shop.runtime.config import Settings

    assert Settings().settlements_auth == "finance"
    assert samples.shop.call("GET", "/settlements/daily").status == 401
    assert samples.owner.get("/settlements/daily").status == 403
    assert samples.people["finance"].get("/settlements/monthly").status == 200


def test_seed_s_06_does_not_happen_here(samples: Samples) -> None:
    """Verifiers hold public keys only; a token says who issued it, to whom, and until when."""
    pair = samples.shop.call("POST", "/auth/login", json_body=samples.account).json
    import jwt

    claims = jwt.decode(pair["accessToken"], options={"verify_signature": False})
    header = jwt.get_unverified_header(pair["accessToken"])

    assert set(header) == {"alg", "typ", "kid"} and header["alg"] == "EdDSA"
    assert {"iss", "aud", "sub", "jti", "nbf", "iat", "exp"} <= set(claims)
    assert claims["exp"] - claims["iat"] <= 600 and "@" not in json.dumps(claims)
    keys = samples.shop.call("GET", "/.well-known/jwks.json").json["keys"]
    assert all("d" not in key for key in keys)
    assert TokenVerifier(samples.shop.secrets.jwks, ISSUER, AUDIENCE)
    holders = [spec.name for spec in all_specs() if spec.issues_tokens]
    assert holders == ["login"]


def test_seed_s_07_does_not_happen_here(make_shop: MakeShop) -> None:
    """Limits are shared, keyed by what a trusted hop saw, slide, and say when to come back."""
    one, two = make_shop(rate_limit_per_minute=4), make_shop(rate_limit_per_minute=4)
    client = f"198.51.{uuid4().int % 250}.{uuid4().int % 250}"
    answers = []
    for i in range(8):
        for shop in (one, two):
            headers = {"x-forwarded-for": f"10.0.0.{i}, {client}"}
            answers.append(shop.call("GET", "/categories", headers=headers))

    refused = [a for a in answers if a.status == 429]
    assert len(refused) >= 8
    assert all({"retry-after", "ratelimit", "ratelimit-policy"} <= set(a.headers) for a in refused)


def test_seed_s_08_does_not_happen_here(samples: Samples) -> None:
    """Accounts have input rules, a slow hash for unknown mails too, and a bound on guesses."""
    empty = {"email": "", "password": "", "name": ""}
    assert samples.shop.call("POST", "/users", json_body=empty).status == 422
    (row,) = samples.shop.sql(
        "select password_hash from shop.users where email = %s", samples.account["email"]
    )
    assert row["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    wrong = {**samples.account, "password": "wrong one"}
    guesses = [samples.shop.call("POST", "/auth/login", json_body=wrong).status for _ in range(7)]
    right = samples.shop.call("POST", "/auth/login", json_body=samples.account)

    assert guesses == [401] * 5 + [429] * 2
    assert (right.status, "retry-after" in right.headers) == (429, True)


def test_seed_s_09_does_not_happen_here() -> None:
    """No secret has a default, in code or in a tracked file."""
    from shop.runtime.config import Settings

    assert all(len(v) == 0 for v in vars(Settings()).values() if isinstance(v, Secret))
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "shop",
            "functions",
            "events",
            "infra",
            "helm",
            "stack.yml",
            "tools",
            "scripts",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(listed) > 50
    private = re.compile(
        rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}|sk_live_\w{8}"
    )
    assert [f for f in listed if private.search((ROOT / f).read_bytes())] == []


def test_seed_s_10_does_not_happen_here(samples: Samples) -> None:
    """The documents' page takes scripts from its own origin only, and may not be framed."""
    page = samples.shop.call("GET", "/api-docs")

    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(rb"""(?:src|href)=["'](?:https?:)?//""", page.body)
    for path in ("/h2-console", "/actuator/prometheus", "/metrics"):
        assert samples.shop.call("GET", path, function="api_docs").status == 404


def test_seed_s_11_does_not_happen_here(samples: Samples) -> None:
    """A fault of ours is 500 in our words, nothing of its cause in them."""
    samples.shop.sql("alter table shop.cart_items rename to elsewhere")

    answer = samples.owner.get("/cart")

    assert (answer.status, answer.error) == (500, "INTERNAL")
    assert not re.search(rb"elsewhere|cart_items|psycopg|Undefined|Traceback|relation", answer.body)


def test_seed_s_12_does_not_happen_here(samples: Samples) -> None:
    """An event without its function's signature is no event, whoever delivers it."""
    samples.order()
    (row,) = samples.shop.outbox()
    from events.vocabulary import class_of

    unsigned = envelope.wrap(
        class_of(row["type"]).from_data(row["data"]),
        id=str(row["event_id"]),
        source=row["source"],
        time=row["created_at"],
    )

    answer = samples.shop.post_event("charge", *envelope.to_binary(unsigned))

    assert answer.status == 401
    assert samples.shop.sql("select 1 from shop.payments") == []


def test_seed_s_13_does_not_happen_here(samples: Samples) -> None:
    """Functions' database roles own nothing, create nothing, and rewrite no history."""
    roles = samples.shop.sql(
        "select rolname from pg_roles where rolname like 'shop\\_%' "
        "and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb)"
    )
    owned = samples.shop.sql(
        "select relname from pg_class c join pg_roles r on r.oid = c.relowner "
        "where r.rolname like 'shop\\_%' and c.relnamespace = 'shop'::regnamespace "
        "and r.rolname in (select usename from pg_user)"
    )
    rewriting = samples.shop.sql(
        "select grantee, table_name from information_schema.role_table_grants "
        "where table_schema = 'shop' and grantee like 'shop\\_%' "
        "and privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE') "
        "and table_name in ('ledger', 'transitions', 'stock_moves')"
    )
    assert (roles, rewriting) == ([], [])
    assert [r for r in owned if r["relname"] in ("orders", "ledger")] == []


def test_a_password_is_in_no_log_and_no_answer(
    samples: Samples, capsys: pytest.CaptureFixture[str]
) -> None:
    """Besides the list: what people type in secret stays there (ASVS 16.2.5)."""
    pair = samples.shop.call("POST", "/auth/login", json_body=samples.account)
    samples.shop.call(
        "POST", "/auth/login", json_body={**samples.account, "password": PASSWORD + "x"}
    )
    samples.shop.call("POST", "/users", json_body={"password": PASSWORD, "email": 1, "name": 2})
    sent = sample_request(samples, ROUTES["POST", "/orders"])
    samples.send(ROUTES["POST", "/orders"], sent, token=pair.json["accessToken"])

    logged = capsys.readouterr().out

    assert '"status": 401' in logged
    for secret in (PASSWORD, pair.json["accessToken"], pair.json["refreshToken"], samples.email):
        assert secret not in logged
