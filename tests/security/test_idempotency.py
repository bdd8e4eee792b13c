"""Idempotency keys: requests with one key have one effect and one response."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shop.primitives.spec import Route
from shop.runtime.rate_limit import WINDOW_SECONDS
from tests.harness import ShopHarness, run_concurrently, shop_of_module
from tests.sample_requests import PASSWORD, ROUTES, Samples, sample_request

KEY = "a-key-of-this-test_01"
BAD_KEYS = (
    "", "x" * 15, "x" * 65, "with a space in it.", "käy-with-an-umlaut-in", 'half-"quoted-key-here',
    '"half-quoted-key-here', "a-key-of-this-test_01,a-key-of-this-test_01", '""', "x" * 16 + "\x00",
    "😀" * 16, "x" * 16 + "\n", "../../../etc/passwd", "'; drop table orders", "x" * 16 + " ",
)  # fmt: skip
IDEMPOTENT = [route for route in ROUTES.values() if route.idempotent]


@pytest.fixture(scope="module")
def common(request: pytest.FixtureRequest) -> Iterator[Samples]:
    """One for all routes that are tried with keys of their own."""
    with shop_of_module(request) as shop:
        yield Samples(shop)


def order_body(samples: Samples, quantity: int = 1) -> dict[str, Any]:
    return {"productId": samples.product, "quantity": quantity, "paymentMethod": "CARD"}


def orders_of(samples: Samples) -> int:
    (row,) = samples.shop.sql("select count(*) from shop.orders")
    return int(row["count"])


def keys_of(samples: Samples) -> int:
    return samples.rows()["idempotency"]


def test_replay_has_the_same_bytes_and_a_replay_header(samples: Samples) -> None:
    first = samples.owner.post("/orders", order_body(samples), key=KEY)
    samples.shop.deliver_all()  # the order is paid by now; the answer stays what it was

    again = samples.owner.post("/orders", order_body(samples), key=KEY)

    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (
        None,
        "true",
    )
    assert orders_of(samples) == 1


def test_replay_is_in_the_language_of_the_first_response(samples: Samples) -> None:
    body = {**order_body(samples), "expectedTotalAmount": 1}
    korean, english = {"accept-language": "ko"}, {"accept-language": "en"}

    first = samples.owner.post("/orders", body, key=KEY, headers=korean)
    again = samples.owner.post("/orders", body, key=KEY, headers=english)

    assert (first.status, first.error) == (409, "PRICE_CHANGED")
    assert first.json["detail"] == "총액이 예상한 금액과 다릅니다"
    assert (first.headers["content-language"], again.headers["content-language"]) == ("ko", "ko")
    assert (again.body, again.headers["idempotent-replayed"]) == (first.body, "true")
    assert again.headers["vary"] == "Accept-Language"


def test_quoted_key_and_reordered_body_are_the_same_request(
    samples: Samples,
) -> None:
    samples.owner.post("/orders", order_body(samples), key=KEY)
    spelled = (
        f'{{ "paymentMethod":"CARD" , "quantity":1,"productId":{samples.product},'
        '"expectedTotalAmount":null}'
    )

    again = samples.owner.post("/orders", raw=spelled.encode(), key=f'"{KEY}"')

    assert again.headers["idempotent-replayed"] == "true"
    assert orders_of(samples) == 1


def test_invalid_key_gets_400_on_every_route_with_keys(samples: Samples) -> None:
    for route in IDEMPOTENT:
        who = samples.person_for(route)
        sent = sample_request(samples, route)
        before = samples.rows()
        for key in BAD_KEYS:
            headers = {"idempotency-key": key}
            answer = samples.send(route, sent, token=who.token if who else None, headers=headers)
            assert (answer.status, answer.error) == (400, "BAD_IDEMPOTENCY_KEY"), (route.path, key)
        assert samples.rows() == before, route.path


@pytest.mark.parametrize("route", IDEMPOTENT, ids=lambda r: f"{r.method} {r.path}")
def test_every_route_with_keys_has_one_effect_per_key(common: Samples, route: Route) -> None:
    who = common.person_for(route)
    token = who.token if who else None
    key = uuid4().hex
    sent = sample_request(common, route)

    first = common.send(route, sent, token=token, key=key)
    after = common.rows()
    again = common.send(route, sent, token=token, key=key)

    assert first.status in (200, 201, 202, 204, 409), first.body
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert common.rows() == after


def test_key_reused_for_another_request_gets_422(samples: Samples) -> None:
    samples.owner.post("/orders", order_body(samples), key=KEY)
    before = samples.rows()

    other = samples.owner.post("/orders", order_body(samples, 2), key=KEY)

    assert (other.status, other.error) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert samples.rows() == before


def test_path_parameters_are_part_of_the_request(samples: Samples) -> None:
    first, second = samples.order(), samples.order()
    assert samples.owner.patch(f"/orders/{first}/cancel", key=KEY).status == 200

    answer = samples.owner.patch(f"/orders/{second}/cancel", key=KEY)

    assert (answer.status, answer.error) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert samples.owner.get(f"/orders/{second}").json["status"] == "PENDING"


def test_keys_are_scoped_to_user_and_route(samples: Samples) -> None:
    other = samples.shop.person()
    samples.fill_cart(samples.owner)

    answers = [
        samples.owner.post("/orders", order_body(samples), key=KEY),
        other.post("/orders", order_body(samples), key=KEY),
        samples.owner.post("/orders/from-cart", {"paymentMethod": "CARD"}, key=KEY),
    ]

    assert [a.status for a in answers] == [201] * 3
    assert len({a.json["id"] for a in answers}) == 3
    assert answers[1].json["userId"] == other.user_id


def test_business_error_is_replayed(samples: Samples) -> None:
    scarce = samples.shop.product(stock=1)
    body = {"productId": scarce, "quantity": 2, "paymentMethod": "CARD"}
    first = samples.owner.post("/orders", body, key=KEY)
    samples.shop.sql("update shop.stock set on_hand = 100 where product_id = %s", scarce)

    again = samples.owner.post("/orders", body, key=KEY)

    assert (first.status, first.error) == (409, "OUT_OF_STOCK")
    assert (again.status, again.body) == (409, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == "application/problem+json"
    assert (orders_of(samples), samples.rows()["outbox"]) == (0, 0)


def test_other_errors_leave_the_key_free(
    make_shop: Callable[..., ShopHarness],
) -> None:
    samples = Samples(make_shop(open_orders_max=1))
    body = order_body(samples)
    refused = [
        samples.owner.post("/orders", {**body, "quantity": 0}, key=KEY),  # schema
        samples.shop.call("POST", "/orders", json_body=body, key=KEY),  # no token
        samples.owner.post("/orders", raw=b"{", key=KEY),  # no JSON
        samples.owner.post("/orders", raw=b"x", headers={"content-type": "text/plain"}, key=KEY),
    ]
    samples.order()
    refused.append(samples.owner.post("/orders", body, key=KEY))  # too many open orders

    assert [a.status for a in refused] == [422, 401, 400, 415, 429]
    assert keys_of(samples) == 0

    samples.shop.sql("update shop.orders set status = 'CANCELLED', reason = 'USER'")
    fresh = samples.owner.post("/orders", body, key=KEY)
    assert (fresh.status, fresh.headers.get("idempotent-replayed")) == (201, None)


def test_internal_error_leaves_the_key_free(samples: Samples) -> None:
    body = order_body(samples)
    samples.shop.sql("alter table shop.order_lines rename to elsewhere")
    broken = samples.owner.post("/orders", body, key=KEY)
    samples.shop.sql("alter table shop.elsewhere rename to order_lines")

    assert broken.status == 500
    assert b"elsewhere" not in broken.body and b"order_lines" not in broken.body
    assert keys_of(samples) == 0
    assert samples.owner.post("/orders", body, key=KEY).status == 201


# their samples send requests before, without a key
PREPARED_WITHOUT_A_KEY = ("{orderId}", "/orders/from-cart", "/api-keys", "{groupId}")


def test_missing_key_gets_400_when_keys_are_required(make_shop: Callable[..., ShopHarness]) -> None:
    samples = Samples(make_shop(idempotency_key_required=True))
    for route in IDEMPOTENT:
        who = samples.person_for(route)
        if any(part in route.path for part in PREPARED_WITHOUT_A_KEY):
            continue
        answer = samples.send(
            route, sample_request(samples, route), token=who.token if who else None
        )
        assert (answer.status, answer.error) == (400, "IDEMPOTENCY_KEY_REQUIRED"), route.path
    assert samples.owner.get("/cart").status == 200
    assert samples.owner.post("/orders", order_body(samples), key=KEY).status == 201


def test_expired_key_returns_its_order_and_creates_no_second(samples: Samples) -> None:
    first = samples.owner.post("/orders", order_body(samples), key=KEY)
    samples.shop.deliver_all()
    samples.shop.sql("delete from shop.idempotency")

    again = samples.owner.post("/orders", order_body(samples), key=KEY)

    assert (again.status, again.json["id"]) == (201, first.json["id"])
    assert again.json["status"] == "PAID"
    assert again.headers["location"] == first.headers["location"]
    assert orders_of(samples) == 1
    (stock,) = samples.shop.sql(
        "select on_hand, reserved from shop.stock where product_id = %s", samples.product
    )
    assert stock == {"on_hand": 99_999, "reserved": 0}
    third = samples.owner.post("/orders", order_body(samples), key=KEY)
    assert third.body == again.body


def test_expired_key_does_not_order_the_cart_twice(samples: Samples) -> None:
    samples.fill_cart(samples.owner)
    pay = {"paymentMethod": "CARD"}
    first = samples.owner.post("/orders/from-cart", pay, key=KEY)
    samples.shop.sql("delete from shop.idempotency")
    samples.fill_cart(samples.owner)

    again = samples.owner.post("/orders/from-cart", pay, key=KEY)

    assert (again.status, again.json["id"]) == (201, first.json["id"])
    assert len(samples.owner.get("/cart").json) == 1


def test_second_request_during_the_first_gets_409(samples: Samples) -> None:
    body = order_body(samples)
    claim = (
        "insert into shop.idempotency (user_id, scope, key, fingerprint, state) "
        "values (%s, 'POST /orders', %s, '', 'STARTED')"
    )
    with psycopg.connect(samples.shop.admin_url) as other:
        other.execute(claim, (samples.owner.user_id, KEY))
        waiting = samples.owner.post("/orders", body, key=KEY)
        other.rollback()

    assert (waiting.status, waiting.error) == (409, "REQUEST_IN_PROGRESS")
    assert waiting.headers["retry-after"] == "1"
    assert samples.owner.post("/orders", body, key=KEY).status == 201


def test_lock_wait_on_another_row_gets_503_not_409(samples: Samples) -> None:
    body = order_body(samples)
    with psycopg.connect(samples.shop.admin_url) as other:
        other.execute("select from shop.stock where product_id = %s for update", (samples.product,))
        waiting = samples.owner.post("/orders", body, key=KEY)
        other.rollback()

    assert (waiting.status, waiting.error) == (503, "UNAVAILABLE")
    assert waiting.headers["retry-after"] == "1"
    assert samples.owner.post("/orders", body, key=KEY).status == 201


def test_ten_concurrent_requests_with_one_key_create_one_order(samples: Samples) -> None:
    body = order_body(samples)

    answers = run_concurrently(*[lambda: samples.owner.post("/orders", body, key=KEY)] * 10)

    placed = [a for a in answers if a.status == 201]
    assert len({a.body for a in placed}) == 1
    assert {a.status for a in answers} <= {201, 409}
    assert all(a.error == "REQUEST_IN_PROGRESS" for a in answers if a.status == 409)
    assert orders_of(samples) == 1


def test_replay_needs_a_valid_session(samples: Samples) -> None:
    samples.owner.post("/orders", order_body(samples), key=KEY)
    samples.shop.sql("update shop.sessions set revoked_at = now()")

    assert samples.owner.post("/orders", order_body(samples), key=KEY).status == 401


def test_key_of_a_registration_stores_no_password(samples: Samples) -> None:
    body = {"email": f"{uuid4().hex}@test.kr", "password": PASSWORD, "name": "Kim"}
    first = samples.shop.call("POST", "/users", json_body=body, key=KEY)
    again = samples.shop.call("POST", "/users", json_body=body, key=KEY)

    assert (first.status, again.body) == (201, first.body)
    (row,) = samples.shop.sql("select idempotency::text as kept from shop.idempotency")
    assert PASSWORD not in row["kept"] and PASSWORD.encode().hex() not in row["kept"]


def test_replays_count_against_the_rate_limit(make_shop: Callable[..., ShopHarness]) -> None:
    samples = Samples(make_shop(rate_limit_per_minute=3))
    answers = [samples.owner.post("/orders", order_body(samples), key=KEY) for _ in range(8)]

    assert {a.status for a in answers} == {201, 429}
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 2 * WINDOW_SECONDS
