"""manage_products: staff adjust stock up and down, never below what orders have reserved."""

from __future__ import annotations

import threading
from random import Random
from typing import Any

import pytest

from shop.primitives.statuses import STOCK_DECREASES, StockMove
from tests.harness import FlowHarness, Person, Response, ShopHarness, assert_invariants

KEY = "a-key-of-this-test-01"
NOT_BY_STAFF = ("INITIAL", "COMMIT", "RETURN", "LINE_RETURN")
REASONS = tuple(kind for kind in StockMove if kind not in NOT_BY_STAFF)


def adjust(staff: Person, product: int, quantity: int, reason: str, **options: Any) -> Response:
    body = {"quantity": quantity, "reason": reason}
    return staff.post(f"/products/{product}/stock", body, **options)


def moves(shop: ShopHarness, product: int) -> list[tuple[str, int]]:
    rows = shop.sql(
        "select kind, qty from shop.stock_moves where product_id = %s order by seq", product
    )
    return [(row["kind"], row["qty"]) for row in rows]


@pytest.mark.parametrize("reason", REASONS)
def test_adjustment_has_a_move_of_its_reason_an_event_and_an_entry(
    shop: ShopHarness, reason: StockMove
) -> None:
    staff, product = shop.person("staff"), shop.product(stock=10)
    quantity = -4 if reason in STOCK_DECREASES else 4

    answer = adjust(staff, product, quantity, reason, key=KEY)
    again = adjust(staff, product, quantity, reason, key=KEY)

    assert (answer.status, answer.json["stockQuantity"]) == (200, 10 + quantity), answer.body
    assert answer.headers["etag"] == f'"1.{10 + quantity}"'
    assert again.body == answer.body
    assert moves(shop, product) == [("INITIAL", 10), (reason, quantity)]
    assert [row["type"] for row in shop.outbox()] == ["product.changed"]
    (entry,) = shop.sql("select * from shop.audit_log where object_kind = 'product'")
    assert entry["after"]["quantity"] == quantity
    if reason != StockMove.RESTOCK:
        assert entry["action"] == "product.stock_adjusted"
        assert entry["before"] == {"stockQuantity": 10}
        assert entry["after"]["reason"] == reason


def test_count_may_correct_the_stock_downwards(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product(stock=10)

    assert adjust(staff, product, -10, "COUNT").json["stockQuantity"] == 0


def test_more_than_is_available_is_409_and_changes_nothing(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product(stock=10)
    shop.person().order(product, 3)

    refused = adjust(staff, product, -8, "DAMAGE")

    assert (refused.status, refused.error) == (409, "STOCK_RESERVED")
    assert refused.json["available"] == 7
    assert shop.stock_of(product) == (10, 3)
    assert moves(shop, product) == [("INITIAL", 10)]
    assert shop.sql("select seq from shop.audit_log where object_kind = 'product'") == []
    assert adjust(staff, product, -7, "DAMAGE").json["stockQuantity"] == 0


@pytest.mark.parametrize(
    ("quantity", "reason"),
    [
        (0, "COUNT"),
        (1, "DAMAGE"),
        (1, "LOSS"),
        (1, "SUPPLIER_RETURN"),
        (-1, "CUSTOMER_RETURN"),
        (-1, "RESTOCK"),
        (-1_000_001, "COUNT"),
        (1_000_001, "COUNT"),
        (1, "COMMIT"),
        (1, "RETURN"),
        (1, "INITIAL"),
        (1, "count"),
        (1, ""),
        (1, None),
        (1, ["COUNT"]),
        (1.0, "COUNT"),
    ],
)
def test_invalid_adjustment_is_422(shop: ShopHarness, quantity: Any, reason: Any) -> None:
    staff, product = shop.person("staff"), shop.product(stock=10)

    answer = adjust(staff, product, quantity, reason)

    assert answer.status == 422, answer.body
    assert answer.json["errors"]
    assert moves(shop, product) == [("INITIAL", 10)]


def test_concurrent_orders_and_losses_take_each_unit_once(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product(stock=4)
    buyers, start = [shop.person() for _ in range(4)], threading.Barrier(8)
    taken: list[bool] = []

    def take(number: int) -> None:
        start.wait()
        if number < len(buyers):
            body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
            taken.append(buyers[number].post("/orders", body).status == 201)
        else:
            taken.append(adjust(staff, product, -1, "LOSS").status == 200)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    on_hand, reserved = shop.stock_of(product)
    assert sum(taken) == 4
    assert on_hand == reserved == 4 + sum(qty for _, qty in moves(shop, product)[1:])


@pytest.mark.parametrize("seed", range(3))
def test_random_adjustments_orders_and_cancellations_follow_the_model(
    flow: FlowHarness, seed: int
) -> None:
    shop, random = flow.shop, Random(seed)
    staff, buyer, product = shop.person("staff"), shop.person(), shop.product(stock=5)
    on_hand, open_orders = 5, dict[str, int]()

    for _ in range(30):
        action, quantity = random.choice(("adjust", "order", "cancel", "pay")), random.randint(1, 4)
        available = on_hand - sum(open_orders.values())
        if action == "adjust":
            reason = random.choice(REASONS)
            change = quantity if reason not in STOCK_DECREASES else -quantity
            is_accepted = adjust(staff, product, change, reason).status == 200
            assert is_accepted == (available + change >= 0)
            on_hand += change * is_accepted
        elif action == "order":
            body = {"productId": product, "quantity": quantity, "paymentMethod": "CARD"}
            answer = buyer.post("/orders", body)
            assert (answer.status == 201) == (available >= quantity), answer.body
            if answer.status == 201:
                open_orders[answer.json["id"]] = quantity
        elif action == "cancel" and open_orders:
            order, _ = open_orders.popitem()
            assert buyer.patch(f"/orders/{order}/cancel").status == 200
        elif action == "pay" and open_orders:
            flow.run_until_idle()
            on_hand -= sum(open_orders.values())
            open_orders.clear()
        assert shop.stock_of(product) == (on_hand, sum(open_orders.values()))
    flow.run_until_idle()
    assert_invariants(flow)


# ---------------------------------------------------------------- history


@pytest.mark.parametrize("role", ["staff", "support", "finance"])
def test_history_has_each_change_once_and_the_order_of_a_sale(flow: FlowHarness, role: str) -> None:
    shop = flow.shop
    staff, reader, product = shop.person("staff"), shop.person(role), shop.product(stock=10)
    adjust(staff, product, -1, "LOSS")
    order = shop.person().order(product, 2)["id"]
    flow.run_until_idle()
    adjust(staff, product, 5, "RESTOCK")
    path = f"/admin/products/{product}/stock-moves"

    first = reader.get(f"{path}?limit=3")
    second = reader.get(first.headers["link"].partition("<")[2].partition(">")[0])

    assert (first.json["onHand"], first.json["reserved"]) == (12, 0)
    assert "link" not in second.headers
    rows = [*first.json["moves"], *second.json["moves"]]
    assert [(row["kind"], row["quantity"], row["orderId"]) for row in rows] == [
        ("RESTOCK", 5, None),
        ("COMMIT", -2, order),
        ("LOSS", -1, None),
        ("INITIAL", 10, None),
    ]


@pytest.mark.parametrize("path", ["999999", "x", "0"])
def test_history_of_a_missing_product_is_404(shop: ShopHarness, path: str) -> None:
    answer = shop.person("staff").get(f"/admin/products/{path}/stock-moves")

    assert (answer.status, answer.error) == (404, "NOT_FOUND")


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "cursor=0", "cursor=x", "colour=red"])
def test_invalid_parameter_of_a_history_is_400(shop: ShopHarness, query: str) -> None:
    product = shop.product()

    answer = shop.person("staff").get(f"/admin/products/{product}/stock-moves?{query}")

    assert (answer.status, answer.error) == (400, "BAD_QUERY")
    assert [error["field"] for error in answer.json["errors"]] == [query.partition("=")[0]]
