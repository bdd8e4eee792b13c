"""place_order: reserves stock and emits order.placed in one transaction; responds 201 PENDING."""

from __future__ import annotations

import os
from collections import Counter
from functools import partial
from typing import Any

import psycopg
import pytest

from shop.primitives.ids import new_uuid
from tests.harness import (
    PAID,
    UNREACHABLE,
    FlowHarness,
    MakeShop,
    Person,
    ShopHarness,
    assert_idle_and_consistent,
    assert_invariants,
    order_body,
    run_concurrently,
)
from tests.sample_requests import Samples

KEY = "a-key-of-this-test-01"


def _order(product_id: int, quantity: int = 1, **more: Any) -> dict[str, Any]:
    return {"productId": product_id, "quantity": quantity, "paymentMethod": "CARD", **more}


def test_order_is_pending_reserves_stock_and_emits_order_placed(shop: ShopHarness) -> None:
    buyer, product = shop.person(), shop.product(price=2500, stock=4)

    answer = buyer.post("/orders", _order(product, 3), key=KEY)

    assert answer.status == 201
    order = answer.json
    assert answer.headers["location"] == f"/orders/{order['id']}"
    assert order | {"id": "", "createdAt": ""} == {
        "id": "",
        "userId": buyer.user_id,
        "productId": product,
        "quantity": 3,
        "status": "PENDING",
        "totalAmount": 7500,
        "currency": "KRW",
        "paymentMethod": "CARD",
        "createdAt": "",
        "items": [{"productId": product, "quantity": 3, "unitPrice": 2500, "lineAmount": 7500}],
        "priceLines": [
            {
                "kind": "GOODS",
                "productId": product,
                "amount": 7500,
                "vatAmount": 682,
                "vatPercent": 10.0,
            }
        ],
        "payment": None,
        "refundedAmount": 0,
    }
    (stock,) = shop.sql("select on_hand, reserved from shop.stock where product_id = %s", product)
    assert stock == {"on_hand": 4, "reserved": 3}
    (event,) = shop.outbox()
    assert (event["type"], event["data"]) == ("order.placed", {"orderId": order["id"]})


def test_invalid_order_gets_an_error_and_writes_nothing(samples: Samples) -> None:
    product, dear = samples.product, samples.shop.product(price=1_000_000_000, stock=1_000_000)
    inactive = samples.shop.product()
    samples.shop.sql("update shop.products set active = false where product_id = %s", inactive)
    line = {"productId": product, "quantity": 1}
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({}, 422, "INVALID"),
        ({"items": []}, 422, "INVALID"),
        ({"items": [{"productId": i, "quantity": 1} for i in range(1, 52)]}, 422, "INVALID"),
        ({"items": [line, line]}, 422, "INVALID"),
        ({"items": [line], **line}, 422, "INVALID"),
        ({"items": [line], "quantity": 1}, 422, "INVALID"),
        ({"productId": product}, 422, "INVALID"),
        ({"quantity": 1}, 422, "INVALID"),
        ({"items": [{**line, "unitPrice": 1}]}, 422, "INVALID"),
        ({"items": [{**line, "price": 0}]}, 422, "INVALID"),
        ({"items": [{"productId": product, "quantity": 0}]}, 422, "INVALID"),
        ({"items": [{"productId": product, "quantity": -1}]}, 422, "INVALID"),
        ({"items": [{"productId": product, "quantity": 1001}]}, 422, "INVALID"),
        ({"items": [{"productId": str(product), "quantity": 1}]}, 422, "INVALID"),
        ({"items": [None]}, 422, "INVALID"),
        ({"items": [[product, 1]]}, 422, "INVALID"),
        ({**line, "totalAmount": 1}, 422, "INVALID"),
        ({**line, "unitPrice": 1}, 422, "INVALID"),
        ({**line, "expectedTotalAmount": 0}, 422, "INVALID"),
        ({**line, "paymentMethod": ""}, 422, "INVALID"),
        ({**line, "paymentMethod": "4111 1111 1111 1111"}, 422, "INVALID"),
        ({**line, "paymentMethod": "CARD4111111111111111"}, 422, "INVALID"),
        ({**line, "cardNumber": "4111111111111111"}, 422, "INVALID"),
        ({"productId": 2**62, "quantity": 1}, 422, "UNKNOWN_PRODUCT"),
        ({"productId": inactive, "quantity": 1}, 422, "UNKNOWN_PRODUCT"),
        ({"items": [line, {"productId": 2**62, "quantity": 1}]}, 422, "UNKNOWN_PRODUCT"),
        ({"productId": dear, "quantity": 1000}, 422, "TOTAL_TOO_LARGE"),
        ({**line, "expectedTotalAmount": 999}, 409, "PRICE_CHANGED"),
        ({"productId": product, "quantity": 1000}, 409, "OUT_OF_STOCK"),
    ]
    samples.shop.sql("update shop.stock set on_hand = 999 where product_id = %s", product)
    before = samples.rows()
    for body, status, code in cases:
        answer = samples.owner.post("/orders", {"paymentMethod": "CARD", **body})
        assert (answer.status, answer.error) == (status, code), (body, answer.body)
    assert samples.rows() == before
    (stock,) = samples.shop.sql("select reserved from shop.stock where product_id = %s", product)
    assert stock["reserved"] == 0


def test_lines_of_two_currencies_get_422(samples: Samples) -> None:
    foreign = samples.shop.product()
    samples.shop.sql("update shop.products set currency = 'USD' where product_id = %s", foreign)
    items = [{"productId": p, "quantity": 1} for p in (samples.product, foreign)]

    answer = samples.owner.post("/orders", {"items": items, "paymentMethod": "CARD"})

    assert (answer.status, answer.error) == (422, "MIXED_CURRENCIES")


def test_card_number_as_payment_method_gets_422_and_is_not_logged(
    samples: Samples, capsys: pytest.CaptureFixture[str]
) -> None:
    order = samples.order()
    number = "4111-1111-1111-1111"

    for path in ("/orders", "/orders/from-cart", f"/orders/{order}/payments"):
        body = {"productId": samples.product, "quantity": 1} if path == "/orders" else {}
        answer = samples.owner.post(path, {**body, "paymentMethod": number})
        assert answer.status == 422 and number.encode() not in answer.body

    assert number not in capsys.readouterr().out


def test_eleventh_open_order_gets_429_until_the_first_of_the_others_expires(
    make_shop: MakeShop,
) -> None:
    samples = Samples(make_shop(open_orders_max=10))
    for _ in range(10):
        samples.order()
    before = samples.rows()

    body = {"productId": samples.product, "quantity": 1, "paymentMethod": "CARD"}
    answer = samples.owner.post("/orders", body)

    assert (answer.status, answer.error) == (429, "TOO_MANY_OPEN_ORDERS")
    (first,) = samples.shop.sql(
        "select extract(epoch from min(expires_at) - now())::int as seconds from shop.orders"
        " where user_id = (select user_id from shop.orders order by order_id desc limit 1)"
    )
    assert 0 <= int(answer.headers["retry-after"]) - first["seconds"] <= 2
    assert samples.rows() == before


def test_parallel_orders_of_one_account_do_not_exceed_the_open_order_limit(
    make_shop: MakeShop,
) -> None:
    samples = Samples(make_shop(open_orders_max=3))
    body = {"productId": samples.product, "quantity": 1, "paymentMethod": "CARD"}

    answers = run_concurrently(*[lambda: samples.owner.post("/orders", body)] * 8)

    assert sorted(a.status for a in answers) == [201] * 3 + [429] * 5
    (count,) = samples.shop.sql("select count(*) as n from shop.orders where status = 'PENDING'")
    assert count["n"] == 3


def test_third_unpaid_order_of_a_flash_product_gets_429(make_shop: MakeShop) -> None:
    samples = Samples(make_shop())
    staff, other = samples.people["staff"], samples.shop.person()
    samples.shop.sql("insert into shop.categories (name) values ('flash') on conflict do nothing")
    product = {"name": "A", "category": "flash", "price": 900, "stockQuantity": 50}
    flash = staff.post("/products", {**product, "flashSale": True}).json["id"]
    calm = staff.post("/products", product).json["id"]
    orders = [samples.owner.post("/orders", order_body(flash)) for _ in range(3)]

    assert [order.status for order in orders] == [201, 201, 429]
    assert orders[2].error == "TOO_MANY_OPEN_ORDERS"
    assert orders[2].json["products"] == [{"productId": flash}]
    assert 0 < int(orders[2].headers["retry-after"]) <= 900
    assert other.post("/orders", order_body(flash)).status == 201
    assert [samples.owner.post("/orders", order_body(calm)).status for _ in range(3)] == [201] * 3
    assert samples.shop.stock_of(flash) == (50, 3)
    samples.owner.patch(f"/orders/{orders[0].json['id']}/cancel")
    assert samples.owner.post("/orders", order_body(flash)).status == 201


@pytest.mark.parametrize(
    ("stock", "quantities", "statuses"),
    [
        (10, [10], [201]),
        (100, [50], [201]),
        (100, [51], [429]),
        (100, [20, 30, 1], [201, 201, 429]),
        (21, [10, 1, 1], [201, 201, 429]),
    ],
)
def test_account_holds_at_most_its_share_of_a_products_stock_unpaid(
    make_shop: MakeShop, stock: int, quantities: list[int], statuses: list[int]
) -> None:
    shop = make_shop(unpaid_stock_percent=50)
    buyer, product = shop.person(), shop.product(stock=stock)

    answers = [buyer.post("/orders", order_body(product, quantity)) for quantity in quantities]

    assert [answer.status for answer in answers] == statuses
    held = sum(q for q, status in zip(quantities, statuses, strict=True) if status == 201)
    assert shop.stock_of(product) == (stock, held)
    for answer in answers:
        if answer.status == 429:
            assert answer.error == "TOO_MUCH_UNPAID"
            assert answer.json["products"] == [{"productId": product}]
            assert ("retry-after" in answer.headers) == (len(answers) > 1)


def test_new_payment_while_one_is_open_or_after_the_end_gets_409(samples: Samples) -> None:
    pay = {"paymentMethod": "CARD"}
    pending, cancelled = samples.order(), samples.order()
    samples.owner.patch(f"/orders/{cancelled}/cancel")
    before = samples.rows()

    codes = [
        samples.owner.post(f"/orders/{order}/payments", pay).error
        for order in (pending, cancelled, str(new_uuid()))
    ]

    assert codes == ["PAYMENT_IN_PROGRESS", "NOT_PAYABLE", "NOT_FOUND"]
    assert samples.rows() == before
    assert samples.owner.post(f"/orders/{samples.paid}/payments", pay).error == "NOT_PAYABLE"


def test_quantity_and_total_above_their_limits_get_422(samples: Samples) -> None:
    """Quantities and totals have limits that fit into bigint columns."""
    product = samples.shop.product(price=1_000_000_000, stock=1_000_000)

    assert samples.owner.post("/orders", order_body(product, 429_497)).status == 422
    answer = samples.owner.post("/orders", order_body(product, 1000))
    assert (answer.status, answer.error) == (422, "TOTAL_TOO_LARGE")
    (columns,) = samples.shop.sql(
        "select count(*) from information_schema.columns where table_schema = 'shop' "
        "and right(column_name, 6) = '_minor' and data_type <> 'bigint'"
    )
    assert columns["count"] == 0


def test_cart_order_without_stock_for_one_line_changes_nothing(samples: Samples) -> None:
    """An order from the cart takes all lines or none."""
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
    assert samples.shop.stock_of(samples.product) == (100_000, 0)


def test_rolled_back_order_emits_no_event_and_committed_order_emits_one(samples: Samples) -> None:
    """Events are rows of the order's own transaction, whatever the broker does."""
    scarce = samples.shop.product(stock=1)
    assert samples.owner.post("/orders", order_body(scarce, 2)).status == 409
    assert samples.shop.outbox() == []

    order = samples.owner.order(scarce)

    (event,) = samples.shop.outbox()
    assert (event["type"], event["subject"], event["sent_at"]) == (
        "order.placed",
        order["id"],
        None,
    )


def test_unexpected_error_while_publishing_does_not_change_the_response_of_a_committed_order(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without memory fails to import ``encodings.idna``: a LookupError from then on."""
    samples = Samples(make_shop(broker_url=UNREACHABLE))
    product = samples.shop.product()

    def fail(*_: object, **__: object) -> None:
        raise LookupError("unknown encoding: idna")

    monkeypatch.setattr("shop.runtime.publisher.Publisher._connection", fail)
    response = samples.owner.post("/orders", order_body(product))

    assert response.status == 201
    (event,) = samples.shop.outbox()
    assert (event["type"], event["sent_at"]) == ("order.placed", None)


def test_concurrent_orders_for_the_last_units_reserve_no_more_than_the_stock(
    samples: Samples,
) -> None:
    """Twelve buyers of the last five units: five succeed."""
    product = samples.shop.product(stock=5)
    buyers = [samples.shop.person() for _ in range(12)]

    answers = run_concurrently(*(partial(b.post, "/orders", order_body(product)) for b in buyers))

    assert sorted(a.status for a in answers) == [201] * 5 + [409] * 7
    assert samples.shop.stock_of(product) == (5, 5)


def test_idempotency_key_past_its_retention_returns_the_first_order(flow: FlowHarness) -> None:
    """Stored responses are deleted after a week; a key never creates a second order."""
    buyer, product = flow.shop.person(), flow.shop.product(stock=5)
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    first = buyer.post("/orders", body, key="an-old-key-000001").json
    flow.deliver()
    flow.shop.sql("update shop.idempotency set created_at = now() - interval '8 days'")
    flow.shop.tick("sweep")
    assert flow.shop.sql("select 1 from shop.idempotency") == []

    again = buyer.post("/orders", body, key="an-old-key-000001")

    assert (again.status, again.json["id"], again.json["status"]) == (201, first["id"], "PAID")
    assert len(flow.shop.sql("select 1 from shop.orders")) == 1
    assert_idle_and_consistent(flow)


def test_out_of_stock_response_is_replayed_after_a_restock(flow: FlowHarness) -> None:
    buyer, staff, product = flow.shop.person(), flow.shop.person("staff"), flow.shop.product()
    body = {"productId": product, "quantity": 11, "paymentMethod": "CARD"}
    refused = buyer.post("/orders", body, key="a-refused-key-0001")
    assert (refused.status, refused.error) == (409, "OUT_OF_STOCK")
    restocked = staff.post(f"/products/{product}/stock", {"quantity": 5})
    assert restocked.status in (200, 201), restocked

    again = buyer.post("/orders", body, key="a-refused-key-0001")

    assert (again.status, again.body) == (refused.status, refused.body)
    assert_idle_and_consistent(flow)


def test_second_payment_after_a_decline_pays_the_order(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product()
    order = buyer.order(product, method="CARD_DECLINED")
    flow.deliver()
    assert flow.outcome(order) == ("PENDING", ["DECLINED"], [], ["HELD"])

    answer = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    assert answer.status == 201
    flow.deliver()

    assert flow.outcome(order) == ("PAID", ["DECLINED", "CAPTURED"], [], ["COMMITTED"])
    assert_idle_and_consistent(flow)


ROUNDS = int(os.environ.get("RACE_ROUNDS", "20"))


@pytest.mark.parametrize("stock", [1, 3])
def test_concurrent_buyers_get_the_last_units_once_each(flow: FlowHarness, stock: int) -> None:
    buyers = [flow.shop.person() for _ in range(10)]
    for _ in range(max(ROUNDS // 4, 3)):
        product = flow.shop.product(stock=stock)
        body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}

        answers = run_concurrently(*(partial(b.post, "/orders", body) for b in buyers))

        assert Counter(a.status for a in answers) == {201: stock, 409: len(buyers) - stock}
        assert {a.error for a in answers if a.status == 409} == {"OUT_OF_STOCK"}
    assert_idle_and_consistent(flow)


def test_concurrent_carts_with_the_same_products_do_not_deadlock(flow: FlowHarness) -> None:
    """Rows are locked in ascending order, whatever the order of the cart's lines."""
    products = [flow.shop.product(stock=ROUNDS * 4) for _ in range(2)]
    buyers = [flow.shop.person() for _ in range(4)]
    for _ in range(ROUNDS):
        for number, buyer in enumerate(buyers):
            for product in products if number % 2 else reversed(products):
                buyer.post("/cart/items", {"productId": product, "quantity": 1})

        answers = run_concurrently(
            *(lambda b=b: b.post("/orders/from-cart", {"paymentMethod": "CARD"}) for b in buyers)
        )

        assert [a.status for a in answers] == [201] * len(buyers)
    assert_idle_and_consistent(flow)


def test_cart_ordered_concurrently_becomes_one_order(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    for _ in range(ROUNDS):
        buyer.post("/cart/items", {"productId": product, "quantity": 1})

        answers = run_concurrently(
            *[lambda: buyer.post("/orders/from-cart", {"paymentMethod": "CARD"})] * 3
        )

        assert sorted(a.status for a in answers) == [201, 400, 400]
    assert_idle_and_consistent(flow)


def test_concurrent_requests_with_one_key_place_one_order(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    for number in range(ROUNDS):
        key = f"the-key-of-round-{number:04}"

        answers = run_concurrently(*[lambda k=key: buyer.post("/orders", body, key=k)] * 10)

        placed = [a for a in answers if a.status == 201]
        assert placed and len({a.body for a in placed}) == 1
        others = [(a.status, a.error) for a in answers if a.status != 201]
        assert set(others) <= {(409, "REQUEST_IN_PROGRESS")}
        orders = flow.shop.sql("select 1 from shop.orders where idem_key = %s", key)
        assert len(orders) == 1
    assert_idle_and_consistent(flow)


def _cancel(buyer: Person, order_id: str) -> Any:
    return lambda: buyer.patch(f"/orders/{order_id}/cancel")


def test_concurrent_payment_retries_and_cancel_end_cancelled(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=1)
    for _ in range(ROUNDS):
        order = buyer.order(product, method="CARD_DECLINED")
        flow.deliver()
        pay = {"paymentMethod": "CARD"}

        *paid, cancelled = run_concurrently(
            *[partial(buyer.post, f"/orders/{order['id']}/payments", pay)] * 2,
            _cancel(buyer, order["id"]),
        )

        assert cancelled.status == 200
        assert sorted(a.status for a in paid) in ([201, 409], [409, 409])
        flow.run_until_idle()
        assert flow.order_state(order["id"])["status"] == "CANCELLED"
    assert_idle_and_consistent(flow)


BODY = {"quantity": 1, "paymentMethod": "CARD"}


KEYS = [None, "a-key-of-the-next-buyer"]


@pytest.mark.parametrize("key", KEYS)
def test_expired_reservation_is_released_for_the_next_buyer(
    flow: FlowHarness, key: str | None
) -> None:
    product = flow.shop.product(stock=1)
    first = flow.shop.person().order(product, method="CARD_DECLINED")
    flow.deliver()
    flow.expire_order(first["id"])

    answer = flow.shop.person().post("/orders", {"productId": product, **BODY}, key=key)

    assert answer.status == 201
    ended = flow.order_state(first["id"])
    assert (ended["status"], ended["reason"], ended["stock"]) == (
        "CANCELLED",
        "EXPIRED",
        ["RELEASED"],
    )
    (row,) = flow.shop.sql(
        "select actor from shop.transitions where entity_id = %s and to_status = 'CANCELLED'",
        first["id"],
    )
    assert row["actor"] == "expiry", "the history must not name the next buyer"
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("body", [None, {}], ids=["no body", "empty object"])
def test_cart_is_ordered_by_card_when_nothing_else_is_given(
    shop: ShopHarness, body: dict[str, object] | None
) -> None:
    buyer = shop.person()
    buyer.post("/cart/items", {"productId": shop.product(), "quantity": 2})

    answer = buyer.post("/orders/from-cart", body)

    assert (answer.status, answer.json["paymentMethod"]) == (201, "CARD")
    assert buyer.get("/cart").body == b"[]"


def test_order_of_several_lines_has_no_product_at_the_top(shop: ShopHarness) -> None:
    buyer = shop.person()
    items = [{"productId": shop.product(), "quantity": 1} for _ in range(2)]

    order = buyer.post("/orders", {"items": items, "paymentMethod": "CARD"}).json

    assert {"productId", "quantity"} & order.keys() == set()


@pytest.mark.parametrize("key", KEYS)
def test_cart_order_releases_several_expired_reservations(
    flow: FlowHarness, key: str | None
) -> None:
    products = [flow.shop.product(stock=1) for _ in range(3)]
    holder, buyer = flow.shop.person(), flow.shop.person()
    for product in reversed(products):
        buyer.post("/cart/items", {"productId": product, "quantity": 1})
    for pair in (products[:2], products[2:]):
        for product in pair:
            holder.post("/cart/items", {"productId": product, "quantity": 1})
        order = holder.post("/orders/from-cart", {"paymentMethod": "CARD"}).json
        flow.expire_order(order["id"])
    flow.discard_events()

    answer = buyer.post("/orders/from-cart", {"paymentMethod": "CARD"}, key=key)

    assert answer.status == 201, answer.body
    assert len(answer.json["items"]) == 3
    assert buyer.get("/cart").json == []
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("key", KEYS)
def test_too_little_stock_after_expiry_gets_409_and_changes_nothing(
    flow: FlowHarness, key: str | None
) -> None:
    product = flow.shop.product(stock=2)
    expired, kept = flow.shop.person().order(product), flow.shop.person().order(product)
    flow.expire_order(expired["id"])

    answer = flow.shop.person().post(
        "/orders", {"productId": product, "quantity": 2, "paymentMethod": "CARD"}, key=key
    )

    assert (answer.status, answer.error) == (409, "OUT_OF_STOCK")
    assert answer.json["products"] == [{"productId": product, "requested": 2, "available": 1}]
    assert flow.order_state(expired["id"])["status"] == "PENDING"
    assert_invariants(flow, at_rest=False)
    assert flow.order_state(kept["id"])["status"] == "PENDING"


def test_expired_order_with_an_open_payment_keeps_its_reservation(flow: FlowHarness) -> None:
    product = flow.shop.product(stock=1)
    paying = flow.shop.person().order(product, method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    flow.expire_order(paying["id"])

    answer = flow.shop.person().post("/orders", {"productId": product, **BODY})

    assert answer.status == 409
    assert_idle_and_consistent(flow)
    assert flow.order_state(paying["id"])["status"] == "PAID"


def test_concurrent_buyers_get_an_expired_unit_once(flow: FlowHarness) -> None:
    product = flow.shop.product(stock=1)
    first = flow.shop.person().order(product)
    flow.discard_events()
    flow.expire_order(first["id"])
    buyers = [flow.shop.person() for _ in range(6)]

    answers = run_concurrently(
        *(lambda b=b: b.post("/orders", {"productId": product, **BODY}) for b in buyers)
    )

    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert_idle_and_consistent(flow)


def test_concurrent_carts_over_expired_orders_do_not_deadlock(flow: FlowHarness) -> None:
    """Two carts with the same products, whose stock two expired orders reserve."""
    for _ in range(5):
        low, high = flow.shop.product(stock=1), flow.shop.product(stock=1)
        buyers = [flow.shop.person() for _ in range(2)]
        for buyer, products in zip(buyers, ((low, high), (high, low)), strict=True):
            for product in products:
                buyer.post("/cart/items", {"productId": product, "quantity": 1})
        for product in (low, high):
            flow.expire_order(flow.shop.person().order(product)["id"])

        answers = run_concurrently(
            *(lambda b=b: b.post("/orders/from-cart", {"paymentMethod": "CARD"}) for b in buyers)
        )

        assert sorted(answer.status for answer in answers) == [201, 409]
    assert_idle_and_consistent(flow)


def test_lines_of_an_expired_order_return_to_the_cart_of_its_customer(flow: FlowHarness) -> None:
    """Also when another customer's order cancels it, who can see neither order nor cart."""
    shop, slow, fast = flow.shop, flow.shop.person(), flow.shop.person()
    scarce, other = shop.product(stock=1), shop.product(stock=9)
    for product, quantity in ((scarce, 1), (other, 3)):
        slow.post("/cart/items", {"productId": product, "quantity": quantity})
    expired = slow.post("/orders/from-cart", {"paymentMethod": "CARD_DECLINED"}).json
    flow.expire_order(expired["id"])

    answer = fast.post("/orders", {"productId": scarce, **BODY})

    assert answer.status == 201
    assert flow.order_state(expired["id"])["reason"] == "EXPIRED"
    lines = {line["productId"]: line["quantity"] for line in slow.get("/cart").json}
    assert lines == {scarce: 1, other: 3}
    assert fast.get("/cart").json == []
    assert shop.sql("select cart_taken from shop.orders where order_id = %s", expired["id"]) == [
        {"cart_taken": False}
    ]


def test_customer_who_expires_orders_of_others_reaches_no_other_cart(flow: FlowHarness) -> None:
    owner, product = flow.shop.person(), flow.shop.product()
    owner.post("/cart/items", {"productId": product, "quantity": 2})
    order = owner.post("/orders/from-cart", {"paymentMethod": "CARD"}).json
    flow.expire_order(order["id"])
    line = "insert into shop.cart_items (user_id, product_id, qty) values (%s, %s, %s)"
    with psycopg.connect(flow.shop.role_url("ordering")) as connection:
        connection.execute("select set_config('shop.role', 'expiry', false)")
        connection.commit()
        for qty, product_id in ((3, product), (2, flow.shop.product())):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(line, (owner.user_id, product_id, qty))
            connection.rollback()
        assert connection.execute("select * from shop.cart_items").fetchall() == []


def test_row_policies_show_expired_orders_to_the_expiry_role_only(flow: FlowHarness) -> None:
    owner = flow.shop.person()
    fresh, expired = (owner.order(flow.shop.product()) for _ in range(2))
    flow.expire_order(expired["id"])
    with psycopg.connect(flow.shop.role_url("ordering")) as connection:
        seen = {}
        for role in ("customer", "expiry"):
            connection.execute("select set_config('shop.user_id', '1', true)")
            connection.execute("select set_config('shop.role', %s, true)", (role,))
            rows = connection.execute("select order_id::text from shop.orders").fetchall()
            seen[role] = [order_id for (order_id,) in rows]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("update shop.orders set status = 'PAID'")

    assert seen == {"customer": [], "expiry": [expired["id"]]}
    assert fresh["id"] not in seen["expiry"]


def test_declined_cart_order_returns_the_lines_and_its_stock_to_the_customer(
    flow: FlowHarness,
) -> None:
    """The last unit, which the declined order holds, can be put into the cart and ordered."""
    buyer, product = flow.shop.person(), flow.shop.product(stock=1)
    buyer.post("/cart/items", {"productId": product, "quantity": 1})
    first = buyer.post("/orders/from-cart", {"paymentMethod": "CARD_DECLINED"}).json
    assert buyer.get("/cart").json == []
    flow.deliver()

    (line,) = buyer.get("/cart").json
    seen_by_others = flow.shop.person().post("/cart/items", {"productId": product, "quantity": 1})
    second = buyer.post("/orders/from-cart", {"paymentMethod": "CARD"})
    assert_idle_and_consistent(flow)

    assert (line["productId"], line["quantity"], line["available"]) == (product, 1, True)
    assert (seen_by_others.status, seen_by_others.error) == (409, "OUT_OF_STOCK")
    assert second.status == 201
    assert buyer.get("/cart").json == []
    assert flow.outcome(first) == ("CANCELLED", ["DECLINED"], [], ["RELEASED"])
    assert flow.order_state(first["id"])["reason"] == "DECLINED"
    assert flow.outcome(second.json) == PAID


def test_own_declined_order_does_not_block_the_next_order(flow: FlowHarness) -> None:
    buyer, other, product = flow.shop.person(), flow.shop.person(), flow.shop.product(stock=1)
    first = buyer.order(product, method="CARD_DECLINED")
    flow.deliver()

    refused = other.post("/orders", order_body(product))
    second = buyer.post("/orders", order_body(product))
    actors = flow.shop.sql(
        "select actor from shop.transitions where entity_id = %s and to_status = 'CANCELLED'",
        first["id"],
    )
    assert_idle_and_consistent(flow)

    assert (refused.status, refused.error) == (409, "OUT_OF_STOCK")
    assert second.status == 201
    assert actors == [{"actor": f"user:{buyer.user_id}"}]
    assert flow.outcome(second.json) == PAID


def test_own_order_that_may_still_be_paid_is_not_replaced(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=1)
    untried = buyer.order(product)

    second = buyer.post("/orders", order_body(product))

    assert (second.status, second.error) == (409, "OUT_OF_STOCK")
    assert_idle_and_consistent(flow)
    assert flow.outcome(untried) == PAID


def test_paying_a_declined_cart_order_takes_its_lines_again(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    kept, taken = flow.shop.product(), flow.shop.product()
    buyer.post("/cart/items", {"productId": taken, "quantity": 2})
    order = buyer.post("/orders/from-cart", {"paymentMethod": "CARD_DECLINED"}).json
    flow.deliver()
    buyer.post("/cart/items", {"productId": kept, "quantity": 1})
    assert [line["productId"] for line in buyer.get("/cart").json] == [taken, kept]

    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})

    assert [line["productId"] for line in buyer.get("/cart").json] == [kept]
    assert_idle_and_consistent(flow)
    assert flow.order_state(order["id"])["status"] == "PAID"
    assert [line["productId"] for line in buyer.get("/cart").json] == [kept]
