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
from tests.harness import AUDIENCE, ISSUER, ShopUnderTest
from tests.security.stage import PASSWORD, ROUTES, Stage, sample
from tests.security.test_endpoint_input import at_once

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9"
MakeShop = Callable[..., ShopUnderTest]


@pytest.fixture
def stage(shop: ShopUnderTest) -> Stage:
    return Stage(shop)


def stock_of(stage: Stage, product: int) -> tuple[int, int]:
    (row,) = stage.shop.sql(
        "select on_hand, reserved from shop.stock where product_id = %s", product
    )
    return row["on_hand"], row["reserved"]


def body_of(product: int, quantity: int = 1) -> dict[str, Any]:
    return {"productId": product, "quantity": quantity, "paymentMethod": "CARD"}


# ---------------------------------------------------------------- correctness


def test_seed_h_01_does_not_happen_here(stage: Stage) -> None:
    """A retried order, payment event and cancel have one effect each."""
    key = uuid4().hex
    placed = [stage.owner.post("/orders", body_of(stage.product), key=key) for _ in range(3)]
    (event,) = stage.shop.outbox()
    for _ in range(3):
        stage.shop.deliver(event, "charge")
    order = placed[0].json["id"]
    cancelled = [stage.owner.patch(f"/orders/{order}/cancel", key=key[::-1]) for _ in range(3)]
    stage.shop.deliver_all()

    assert len({a.body for a in placed}) == len({a.body for a in cancelled}) == 1
    kinds = [row["kind"] for row in stage.shop.sql("select kind from shop.ledger order by seq")]
    assert kinds == ["CAPTURE", "REFUND"]
    assert stock_of(stage, stage.product) == (100_000, 0)


def test_seed_h_02_does_not_happen_here(stage: Stage) -> None:
    """Two cancels at once give the stock back once."""
    order = stage.owner.paid_order(stage.product, 3)["id"]

    answers = at_once(6, lambda _: stage.owner.patch(f"/orders/{order}/cancel"))
    stage.shop.deliver_all()

    assert sorted(a.status for a in answers) == [200] + [409] * 5
    assert stock_of(stage, stage.product) == (100_000, 0)


def test_seed_h_03_does_not_happen_here(stage: Stage) -> None:
    """Twelve buyers of the last five units: five succeed."""
    product = stage.shop.product(stock=5)
    buyers = [stage.shop.person() for _ in range(12)]

    answers = at_once(12, lambda i: buyers[i].post("/orders", body_of(product)))

    assert sorted(a.status for a in answers) == [201] * 5 + [409] * 7
    assert stock_of(stage, product) == (5, 5)


def test_seed_h_04_does_not_happen_here(make_shop: MakeShop) -> None:
    """A reservation is a row with an owner and an end; nobody has to remember to release it."""
    stage = Stage(make_shop(order_soft_expiry_seconds=0, payment_provider_url=NOWHERE))
    order = stage.order()
    (held,) = stage.shop.sql("select order_id::text, status from shop.reservations")
    assert held == {"order_id": order, "status": "HELD"}

    assert stage.shop.tick("sweep").status == 204

    assert stage.owner.get(f"/orders/{order}").json["status"] == "CANCELLED"
    assert stock_of(stage, stage.product) == (100_000, 0)


def test_seed_h_05_does_not_happen_here(make_shop: MakeShop) -> None:
    """Before the provider is asked for money, order and intent are committed rows."""
    stage = Stage(make_shop(payment_provider_url=NOWHERE))
    order = stage.order()
    (placed,) = stage.shop.outbox()

    assert stage.shop.deliver(placed, "charge").status == 204

    (payment,) = stage.shop.sql("select order_id::text, status, provider_key from shop.payments")
    assert (payment["order_id"], payment["status"] in ("INTENT", "UNKNOWN")) == (order, True)
    assert payment["provider_key"]


def test_seed_h_06_does_not_happen_here(stage: Stage) -> None:
    """From the cart comes one order or none, and none leaves the cart as it was."""
    scarce = stage.shop.product(stock=0)
    stage.fill_cart(stage.owner)
    stage.shop.sql(
        "insert into shop.cart_items (user_id, product_id, qty) values (%s, %s, 1)",
        stage.owner.user_id,
        scarce,
    )
    before = stage.rows()

    answer = stage.owner.post("/orders/from-cart", {"paymentMethod": "CARD"})

    assert (answer.status, answer.error) == (409, "OUT_OF_STOCK")
    assert stage.rows() == before
    assert stock_of(stage, stage.product) == (100_000, 0)


def test_seed_h_07_does_not_happen_here(make_shop: MakeShop) -> None:
    """An outcome nobody knows is not a failure: the stock stays held, the order stays pending."""
    stage = Stage(make_shop(payment_provider_url=NOWHERE))
    order = stage.order()
    (placed,) = stage.shop.outbox()
    stage.shop.deliver(placed, "charge")

    assert stage.owner.get(f"/orders/{order}").json["status"] == "PENDING"
    assert stock_of(stage, stage.product) == (100_000, 1)
    idle = (
        "select 1 from pg_stat_activity where state = 'idle in transaction' "
        "and datname = current_database()"
    )
    assert stage.shop.sql(idle) == []


def test_seed_h_08_does_not_happen_here(stage: Stage) -> None:
    """An order rolled back announced nothing; one that was committed did, broker or not."""
    scarce = stage.shop.product(stock=1)
    assert stage.owner.post("/orders", body_of(scarce, 2)).status == 409
    assert stage.shop.outbox() == []

    order = stage.owner.order(scarce)

    (event,) = stage.shop.outbox()
    assert (event["type"], event["subject"], event["sent_at"]) == (
        "order.placed",
        order["id"],
        None,
    )


def test_seed_h_09_and_h_10_do_not_happen_here(stage: Stage) -> None:
    """A cancelled payment leaves the settlement; a repeated event does not enter it twice."""
    kept = stage.owner.paid_order(stage.product, 2)
    gone = stage.owner.paid_order(stage.product, 1)
    stage.owner.patch(f"/orders/{gone['id']}/cancel")
    stage.shop.deliver_all()
    for event in stage.shop.outbox(undone=False):
        for spec in all_specs():
            if any(s.event == event["type"] for s in spec.subscriptions):
                stage.shop.deliver(event, spec.name)

    (today,) = [d for d in stage.people["finance"].get("/settlements/daily").json][:1]

    assert kept["totalAmount"] == 2000
    assert (today["capturedAmount"], today["refundedAmount"], today["totalAmount"]) == (
        3000,
        1000,
        2000,
    )
    assert (today["paymentCount"], today["refundCount"]) == (2, 1)


def test_seed_h_11_does_not_happen_here(make_shop: MakeShop) -> None:
    """What failed once is tried again: the outbox row stays due until its consumers have it."""
    stage = Stage(make_shop(broker_url=NOWHERE))
    stage.order()
    for _ in range(3):
        stage.shop.sql("update shop.outbox set next_try_at = now()")
        assert stage.shop.tick("sweep").status == 204

    (row,) = [r for r in stage.shop.outbox(undone=False) if r["type"] == "order.placed"]
    assert row["parked_at"] is None
    if row["done_at"] is None:
        assert row["next_try_at"] > datetime.now(UTC) - timedelta(minutes=1)


def test_seed_h_12_does_not_happen_here(make_shop: MakeShop) -> None:
    """A cancel commits order and intent to refund together; the provider comes afterwards."""
    shop = make_shop()
    stage = Stage(shop)
    order = stage.owner.paid_order(stage.product)["id"]

    answer = stage.owner.patch(f"/orders/{order}/cancel")

    assert answer.json["status"] == "CANCELLING"
    (refund,) = shop.sql("select status from shop.refunds")
    assert refund["status"] == "INTENT"
    assert stock_of(stage, stage.product) == (100_000, 0)
    shop.deliver_all()
    assert stage.owner.get(f"/orders/{order}").json["status"] == "CANCELLED"


def test_seed_h_13_does_not_happen_here(stage: Stage) -> None:
    """A decline is a decline, seen on the order, and no 502."""
    order = stage.owner.order(stage.product, method="CARD_DECLINED")["id"]

    stage.shop.deliver_all()

    shown = stage.owner.get(f"/orders/{order}").json
    assert (shown["status"], shown["payment"]) == (
        "PENDING",
        {"status": "DECLINED", "attempt": 1},
    )
    again = stage.owner.post(f"/orders/{order}/payments", {"paymentMethod": "CARD"})
    assert again.status == 201


def test_seed_h_14_does_not_happen_here(stage: Stage) -> None:
    """Quantities have a bound, totals too, and nothing overflows on the way to it."""
    product = stage.shop.product(price=1_000_000_000, stock=1_000_000)

    assert stage.owner.post("/orders", body_of(product, 429_497)).status == 422
    answer = stage.owner.post("/orders", body_of(product, 1000))
    assert (answer.status, answer.error) == (422, "TOTAL_TOO_LARGE")
    (columns,) = stage.shop.sql(
        "select count(*) from information_schema.columns where table_schema = 'shop' "
        "and right(column_name, 6) = '_minor' and data_type <> 'bigint'"
    )
    assert columns["count"] == 0


def test_seed_h_15_and_h_16_do_not_happen_here(stage: Stage) -> None:
    """Closing runs in every replica, as often as one likes, in the business's own time zone."""
    stage.owner.paid_order(stage.product)
    stage.shop.sql("alter table shop.ledger disable trigger user")
    # the last minute of yesterday in Seoul is three in the afternoon in UTC
    stage.shop.sql(
        "update shop.ledger set posted_at = "
        "((now() at time zone 'Asia/Seoul')::date - interval '1 minute') at time zone 'Asia/Seoul'"
    )
    stage.shop.sql("alter table shop.ledger enable trigger user")
    (day,) = stage.shop.sql("select (now() at time zone 'Asia/Seoul')::date - 1 as yesterday")

    answers = at_once(4, lambda _: stage.shop.tick("settle"))
    again = stage.shop.tick("settle")

    assert {a.status for a in [*answers, again]} <= {204, 503} and again.status == 204
    asked = stage.people["finance"].get(f"/settlements/daily?date={day['yesterday']}").json
    assert (asked["closed"], asked["totalAmount"], asked["paymentCount"]) == (True, 1000, 1)
    (closed,) = stage.shop.sql("select count(*) from shop.settlements")
    assert closed["count"] == 1


def test_seed_h_17_does_not_happen_here(stage: Stage) -> None:
    """A price that changed is the price that is charged and shown, cached list or not."""
    staff, product = stage.people["staff"], stage.shop.product(price=1000, name="비싼 물건")
    where = "/products?name=%EB%B9%84%EC%8B%BC"
    assert [p["price"] for p in stage.shop.call("GET", where).json] == [1000]

    changed = staff.patch(f"/products/{product}", {"price": 2000}, headers={"if-match": "*"})

    assert changed.status == 200
    assert [p["price"] for p in stage.shop.call("GET", where).json] == [2000]
    assert stage.owner.order(product)["totalAmount"] == 2000


def test_seed_h_18_does_not_happen_here(stage: Stage) -> None:
    """Lists have pages, and a page has an end."""
    stage.shop.sql(
        "insert into shop.products (name, category, price_minor, currency) "
        "select 'hole-18', name, 1, 'KRW' from shop.categories, generate_series(1, 300) limit 300"
    )
    stage.shop.sql(
        "insert into shop.stock (product_id, on_hand) "
        "select product_id, 1 from shop.products where name = 'hole-18'"
    )
    for _ in range(25):
        stage.order()

    products = stage.shop.call("GET", "/products?name=hole-18&limit=100")
    by_default = stage.shop.call("GET", "/products?name=hole-18")
    orders = stage.owner.get("/orders/me")

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


def test_seed_h_20_does_not_happen_here(stage: Stage) -> None:
    """A refusal has its status: taken 409, wrong password 401, unknown product 404."""
    taken = {**stage.account, "name": "Kim"}

    answers = {
        "taken": stage.shop.call("POST", "/users", json_body=taken).status,
        "wrong": stage.shop.call(
            "POST", "/auth/login", json_body={**stage.account, "password": "wrong one"}
        ).status,
        "unknown": stage.shop.call("GET", "/products/999999999").status,
    }

    assert answers == {"taken": 409, "wrong": 401, "unknown": 404}


# ---------------------------------------------------------------- security


def test_seed_s_01_and_s_02_do_not_happen_here(stage: Stage) -> None:
    """X-User-Id is nobody: on every protected route and any spelling of it, no token is 401."""
    before = stage.rows()
    for route in ROUTES.values():
        if route.auth in ("public", "provider"):
            continue
        path = re.sub(r"\{\w+\}", "1", route.path)
        for header in ("x-user-id", "X-User-ID", "x_user_id", "x-userid"):
            answer = stage.shop.call(route.method, path, headers={header: "1"})
            assert answer.status == 401, (route, header)
    assert stage.rows() == before


def test_seed_s_03_does_not_happen_here(stage: Stage) -> None:
    """Orders have owners, ids cannot be counted through, and the database checks it once more."""
    order = stage.order()

    assert stage.shop.person().get(f"/orders/{order}").status == 404
    assert stage.shop.call("GET", f"/orders/{order}").status == 401
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", order
    )
    forced = stage.shop.sql(
        "select relname from pg_class where relnamespace = 'shop'::regnamespace "
        "and relrowsecurity and relforcerowsecurity"
    )
    assert {"orders", "order_lines", "payments", "cart_items"} <= {r["relname"] for r in forced}


def test_seed_s_04_does_not_happen_here(stage: Stage) -> None:
    """There is no internal HTTP: stock and money move by handlers and signed events only."""
    for path in ("/internal/stocks/reserve", "/internal/stocks/release", "/payments/1/cancel"):
        for spec in all_specs():
            answer = stage.shop.call("POST", path, json_body={}, function=spec.name)
            assert answer.status == 404
    assert not [r for r in ROUTES.values() if r.path.startswith("/internal")]


def test_seed_s_05_does_not_happen_here(stage: Stage, make_shop: MakeShop) -> None:
    """Revenue is for finance, unless the operator decides otherwise in so many words."""
    from shop.runtime.config import Settings

    assert Settings().settlements_auth == "finance"
    assert stage.shop.call("GET", "/settlements/daily").status == 401
    assert stage.owner.get("/settlements/daily").status == 403
    assert stage.people["finance"].get("/settlements/monthly").status == 200


def test_seed_s_06_does_not_happen_here(stage: Stage) -> None:
    """Verifiers hold public keys only; a token says who issued it, to whom, and until when."""
    pair = stage.shop.call("POST", "/auth/login", json_body=stage.account).json
    import jwt

    claims = jwt.decode(pair["accessToken"], options={"verify_signature": False})
    header = jwt.get_unverified_header(pair["accessToken"])

    assert set(header) == {"alg", "typ", "kid"} and header["alg"] == "EdDSA"
    assert {"iss", "aud", "sub", "jti", "nbf", "iat", "exp"} <= set(claims)
    assert claims["exp"] - claims["iat"] <= 600 and "@" not in json.dumps(claims)
    keys = stage.shop.call("GET", "/.well-known/jwks.json").json["keys"]
    assert all("d" not in key for key in keys)
    assert TokenVerifier(stage.shop.secrets.jwks, ISSUER, AUDIENCE)
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


def test_seed_s_08_does_not_happen_here(stage: Stage) -> None:
    """Accounts have input rules, a slow hash for unknown mails too, and a bound on guesses."""
    empty = {"email": "", "password": "", "name": ""}
    assert stage.shop.call("POST", "/users", json_body=empty).status == 422
    (row,) = stage.shop.sql(
        "select password_hash from shop.users where email = %s", stage.account["email"]
    )
    assert row["password_hash"].startswith("$argon2id$v=19$m=19456,t=2,p=1$")

    wrong = {**stage.account, "password": "wrong one"}
    guesses = [stage.shop.call("POST", "/auth/login", json_body=wrong).status for _ in range(7)]
    right = stage.shop.call("POST", "/auth/login", json_body=stage.account)

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


def test_seed_s_10_does_not_happen_here(stage: Stage) -> None:
    """The documents' page takes scripts from its own origin only, and may not be framed."""
    page = stage.shop.call("GET", "/api-docs")

    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(rb"""(?:src|href)=["'](?:https?:)?//""", page.body)
    for path in ("/h2-console", "/actuator/prometheus", "/metrics"):
        assert stage.shop.call("GET", path, function="api_docs").status == 404


def test_seed_s_11_does_not_happen_here(stage: Stage) -> None:
    """A fault of ours is 500 in our words, nothing of its cause in them."""
    stage.shop.sql("alter table shop.cart_items rename to elsewhere")

    answer = stage.owner.get("/cart")

    assert (answer.status, answer.error) == (500, "INTERNAL")
    assert not re.search(rb"elsewhere|cart_items|psycopg|Undefined|Traceback|relation", answer.body)


def test_seed_s_12_does_not_happen_here(stage: Stage) -> None:
    """An event without its function's signature is no event, whoever delivers it."""
    stage.order()
    (row,) = stage.shop.outbox()
    from events.vocabulary import class_of

    unsigned = envelope.wrap(
        class_of(row["type"]).from_data(row["data"]),
        id=str(row["event_id"]),
        source=row["source"],
        time=row["created_at"],
    )

    answer = stage.shop.post_event("charge", *envelope.to_binary(unsigned))

    assert answer.status == 401
    assert stage.shop.sql("select 1 from shop.payments") == []


def test_seed_s_13_does_not_happen_here(stage: Stage) -> None:
    """Functions' database roles own nothing, create nothing, and rewrite no history."""
    roles = stage.shop.sql(
        "select rolname from pg_roles where rolname like 'shop\\_%' "
        "and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb)"
    )
    owned = stage.shop.sql(
        "select relname from pg_class c join pg_roles r on r.oid = c.relowner "
        "where r.rolname like 'shop\\_%' and c.relnamespace = 'shop'::regnamespace "
        "and r.rolname in (select usename from pg_user)"
    )
    rewriting = stage.shop.sql(
        "select grantee, table_name from information_schema.role_table_grants "
        "where table_schema = 'shop' and grantee like 'shop\\_%' "
        "and privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE') "
        "and table_name in ('ledger', 'transitions', 'stock_moves')"
    )
    assert (roles, rewriting) == ([], [])
    assert [r for r in owned if r["relname"] in ("orders", "ledger")] == []


def test_a_password_is_in_no_log_and_no_answer(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Besides the list: what people type in secret stays there (ASVS 16.2.5)."""
    pair = stage.shop.call("POST", "/auth/login", json_body=stage.account)
    stage.shop.call("POST", "/auth/login", json_body={**stage.account, "password": PASSWORD + "x"})
    stage.shop.call("POST", "/users", json_body={"password": PASSWORD, "email": 1, "name": 2})
    sent = sample(stage, ROUTES["POST", "/orders"])
    stage.send(ROUTES["POST", "/orders"], sent, token=pair.json["accessToken"])

    logged = capsys.readouterr().out

    assert '"status": 401' in logged
    for secret in (PASSWORD, pair.json["accessToken"], pair.json["refreshToken"], stage.email):
        assert secret not in logged
