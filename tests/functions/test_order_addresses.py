"""Addresses of orders: given when an order is placed, shown to its customer and to operators."""

from __future__ import annotations

from typing import Any

import pytest

from tests.harness import PASSWORD, MakeShop, Person, ShopHarness

KOREAN: dict[str, Any] = {
    "recipient": "김보람",
    "phone": "010-1234-5678",
    "postcode": "04524",
    "line1": "서울특별시 중구 세종대로 110",
    "line2": "3층",
}
ABROAD: dict[str, Any] = {
    "recipient": "Kim Bo-ram",
    "phone": "+1 212 555 0100",
    "country": "US",
    "postcode": "10001",
    "region": "NY",
    "city": "New York",
    "line1": "1 Main Street",
}


def place(buyer: Person, address: dict[str, Any] | None, **fields: Any) -> Any:
    body = {"productId": buyer.shop.product(), "quantity": 1, "paymentMethod": "CARD", **fields}
    return buyer.post("/orders", body if address is None else body | {"shippingAddress": address})


def test_address_is_kept_with_the_order_and_shown_to_its_customer_and_operators(
    shop: ShopHarness,
) -> None:
    buyer = shop.person()

    placed = place(buyer, KOREAN)

    assert placed.status == 201, placed.body
    assert "shippingAddress" not in placed.json
    path = placed.json["id"]
    wanted = KOREAN | {"country": "KR"}
    assert buyer.get(f"/orders/{path}").json["shippingAddress"] == wanted
    page = shop.person("staff").get(f"/admin/orders/{path}").json
    assert page["shippingAddress"] == wanted
    assert shop.person("finance").get(f"/admin/orders/{path}").json["shippingAddress"] is None
    assert shop.person().get(f"/orders/{path}").status == 404
    (row,) = buyer.post("/users/me/export").json["orderAddresses"]
    assert (row["recipient"], row["line1"]) == (KOREAN["recipient"], KOREAN["line1"])


def test_order_without_an_address_is_placed_and_shown_as_before(shop: ShopHarness) -> None:
    buyer = shop.person()

    placed = place(buyer, None)

    assert placed.status == 201
    assert "shippingAddress" not in buyer.get(f"/orders/{placed.json['id']}").json
    assert shop.sql("select order_id from shop.order_addresses") == []


def test_address_of_an_order_from_the_cart_is_kept(shop: ShopHarness) -> None:
    buyer = shop.person()
    buyer.post("/cart/items", {"productId": shop.product(), "quantity": 1})

    placed = buyer.post("/orders/from-cart", {"shippingAddress": KOREAN})

    assert placed.status == 201, placed.body
    seen = buyer.get(f"/orders/{placed.json['id']}").json
    assert seen["shippingAddress"]["postcode"] == "04524"


def test_missing_address_is_rejected_where_orders_need_one(make_shop: MakeShop) -> None:
    shop = make_shop(shipping_address="required")
    buyer = shop.person()

    answer = place(buyer, None)

    assert answer.status == 422
    assert [error["field"] for error in answer.json["errors"]] == ["shippingAddress"]
    assert shop.sql("select order_id from shop.orders") == []
    assert place(buyer, KOREAN).status == 201


def test_country_to_which_the_shop_does_not_send_is_rejected(make_shop: MakeShop) -> None:
    shop = make_shop(shipping_countries="KR, JP")

    answer = place(shop.person(), ABROAD)

    assert answer.status == 422
    assert [error["field"] for error in answer.json["errors"]] == ["shippingAddress.country"]
    abroad = make_shop(shipping_countries="KR, US")
    assert place(abroad.person(), ABROAD).status == 201


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipient", ""),
        ("recipient", "x" * 101),
        ("recipient", "a\u202eb"),
        ("phone", "call me"),
        ("phone", "1"),
        ("country", "Korea"),
        ("postcode", "4524"),
        ("postcode", "045-24"),
        ("postcode", None),
        ("line1", " "),
        ("line1", "x" * 201),
        ("line2", "a\nb"),
        ("city", "서울"),
        ("colour", "red"),
    ],
)
def test_invalid_address_names_the_field_and_writes_nothing(
    shop: ShopHarness, field: str, value: object
) -> None:
    answer = place(shop.person(), KOREAN | {field: value})

    assert answer.status == 422
    assert field in str(answer.json["errors"])
    assert shop.sql("select order_id from shop.orders") == []


def test_account_is_closed_after_the_delivery_and_its_address_erased(shop: ShopHarness) -> None:
    buyer = shop.person()
    order = place(buyer, KOREAN).json["id"]
    shop.deliver_all()
    early = buyer.delete("/users/me", {"password": PASSWORD})
    assert (early.status, early.error) == (409, "OPEN_ORDERS")
    staff, path = shop.person("staff"), f"/admin/orders/{order}/shipments"
    shipment = staff.post(path, {}).json["id"]
    for body in (
        {"status": "SHIPPED", "carrier": "cj", "trackingNumber": "6892-0000-1234"},
        {"status": "DELIVERED"},
    ):
        assert staff.patch(f"{path}/{shipment}", body).status == 200

    assert buyer.delete("/users/me", {"password": PASSWORD}).status == 204

    assert shop.sql("select order_id from shop.order_addresses") == []
