"""place_order: one transaction, 201 PENDING, never waits for money."""

from __future__ import annotations

from typing import Any

from tests.harness import ShopHarness

KEY = "a-key-of-this-test-01"


def _order(product_id: int, quantity: int = 1, **more: Any) -> dict[str, Any]:
    return {"productId": product_id, "quantity": quantity, "paymentMethod": "CARD", **more}


def test_an_order_is_pending_holds_its_stock_and_is_announced(shop: ShopHarness) -> None:
    buyer, product = shop.person(), shop.product(price=2500, stock=4)

    answer = buyer.post("/orders", _order(product, 3), key=KEY)

    assert answer.status == 201
    order = answer.json
    assert answer.headers["location"] == f"/orders/{order['id']}"
    assert order | {"id": "", "createdAt": ""} == {
        "id": "",
        "userId": buyer.user_id,
        "status": "PENDING",
        "totalAmount": 7500,
        "currency": "KRW",
        "paymentMethod": "CARD",
        "createdAt": "",
        "items": [{"productId": product, "quantity": 3, "unitPrice": 2500, "lineAmount": 7500}],
        "payment": None,
        "refundedAmount": 0,
    }
    (stock,) = shop.sql("select on_hand, reserved from shop.stock where product_id = %s", product)
    assert stock == {"on_hand": 4, "reserved": 3}
    (event,) = shop.outbox()
    assert (event["type"], event["data"]) == ("order.placed", {"orderId": order["id"]})


def test_the_whole_way_to_paid(shop: ShopHarness) -> None:
    buyer, product = shop.person(), shop.product(price=1000, stock=5)
    order = buyer.order(product, 2)

    shop.deliver_all()

    paid = buyer.get(f"/orders/{order['id']}").json
    assert (paid["status"], paid["payment"]) == ("PAID", {"status": "CAPTURED", "attempt": 1})
    (stock,) = shop.sql("select on_hand, reserved from shop.stock where product_id = %s", product)
    assert stock == {"on_hand": 3, "reserved": 0}
    (posting,) = shop.sql("select kind, amount_minor from shop.ledger")
    assert posting == {"kind": "CAPTURE", "amount_minor": 2000}
