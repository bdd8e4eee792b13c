"""A hold that is past its time does not count, whether or not anything has swept it."""

from __future__ import annotations

import psycopg
import pytest

from tests.harness import (
    FlowHarness,
    assert_idle_and_consistent,
    assert_invariants,
    run_concurrently,
)

BODY = {"quantity": 1, "paymentMethod": "CARD"}
KEYS = [None, "a-key-of-the-next-buyer"]


@pytest.mark.parametrize("key", KEYS)
def test_the_last_unit_goes_to_the_next_buyer(flow: FlowHarness, key: str | None) -> None:
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
    assert row["actor"] == "expiry", "the first buyer must not learn who came next"
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("key", KEYS)
def test_a_whole_cart_takes_the_place_of_several_expired_orders(
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
    assert buyer.get("/cart").json["items"] == []
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("key", KEYS)
def test_not_enough_even_then_changes_nothing(flow: FlowHarness, key: str | None) -> None:
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


def test_a_hold_with_an_open_payment_counts(flow: FlowHarness) -> None:
    product = flow.shop.product(stock=1)
    paying = flow.shop.person().order(product, method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    flow.expire_order(paying["id"])

    answer = flow.shop.person().post("/orders", {"productId": product, **BODY})

    assert answer.status == 409
    assert_idle_and_consistent(flow)
    assert flow.order_state(paying["id"])["status"] == "PAID"


def test_one_of_many_gets_the_expired_unit(flow: FlowHarness) -> None:
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


def test_crossed_baskets_of_expired_orders_do_not_deadlock(flow: FlowHarness) -> None:
    """Two buyers, each in need of what the other's basket and two expired ones hold."""
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


def test_outside_of_the_expiry_a_function_sees_only_its_callers_rows(flow: FlowHarness) -> None:
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
