"""cart: a customer's own cart, limited by stock and by 50 lines, under concurrent requests too."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from shop import carts
from shop.adapters.db import Database
from shop.adapters.statements import Query, Row
from tests.harness import Person, Response, ShopHarness, run_concurrently
from tests.sample_requests import Samples

KEY = "a-key-of-this-test-01"
SET_USER = Query(Row, "select set_config('shop.user_id', %(id)s, true)")


@pytest.fixture
def buyer(shop: ShopHarness) -> Person:
    return shop.person()


def add(buyer: Person, product: Any, quantity: Any = 1, **options: Any) -> Response:
    return buyer.post("/cart/items", {"productId": product, "quantity": quantity}, **options)


def quantities(buyer: Person) -> dict[int, int]:
    answer = buyer.get("/cart")
    assert answer.status == 200
    return {line["productId"]: line["quantity"] for line in answer.json}


def statuses_of(*calls: Callable[[], Response]) -> list[int]:
    """Makes the calls concurrently; returns their statuses in ascending order."""
    return sorted(response.status for response in run_concurrently(*calls))


# ---------------------------------------------------------------- reading


def test_new_cart_is_an_empty_array_to_the_byte(buyer: Person) -> None:
    assert buyer.get("/cart").body == b"[]"
    assert buyer.get("/cart/summary").json == {"lines": 0, "totals": []}


def test_summary_has_one_total_per_currency(shop: ShopHarness, buyer: Person) -> None:
    won, other, dollars = shop.product(price=20_000), shop.product(price=300), shop.product()
    shop.sql(
        "update shop.products set price_minor = 999, currency = 'USD' where product_id = %s",
        dollars,
    )
    for product, quantity in ((won, 1), (other, 2), (dollars, 1)):
        add(buyer, product, quantity)

    summary = buyer.get("/cart/summary").json
    assert summary["lines"] == 3
    assert [(total["currency"], total["totalAmount"]) for total in summary["totals"]] == [
        ("KRW", 20_600),
        ("USD", 999),
    ]


def test_cart_shows_the_current_prices(shop: ShopHarness, buyer: Person) -> None:
    first, second = shop.product(price=1000, stock=5, name="첫째"), shop.product(price=300)
    add(buyer, first, 2)
    add(buyer, second, 1)
    shop.sql("update shop.products set price_minor = 1500 where product_id = %s", first)
    shop.sql("update shop.stock set reserved = 4 where product_id = %s", first)

    cart = buyer.get("/cart").json

    assert cart[0] == {
        "productId": first,
        "name": "첫째",
        "price": 1500,
        "currency": "KRW",
        "quantity": 2,
        "lineAmount": 3000,
        "stockQuantity": 1,
        "available": False,
    }
    assert cart[1]["available"] is True
    (total,) = buyer.get("/cart/summary").json["totals"]
    assert total == {
        "currency": "KRW",
        "totalAmount": 3300,
        "priceLines": [
            {
                "kind": "GOODS",
                "productId": product,
                "amount": amount,
                "vatAmount": vat,
                "vatPercent": 10,
            }
            for product, amount, vat in ((first, 3000, 273), (second, 300, 27))
        ],
        "coupons": [],
    }


def test_order_of_a_cart_has_the_price_lines_of_its_summary(
    shop: ShopHarness, buyer: Person
) -> None:
    staff, book = shop.person("staff"), shop.product(price=1_005)
    category = {"name": "책", "vatPercent": 5, "vatIncluded": False}
    assert staff.post("/categories", category).json == category
    shop.sql("update shop.products set category = '책' where product_id = %s", book)
    add(buyer, book, 3)
    add(buyer, shop.product(price=999), 2)
    cart = buyer.get("/cart").json
    (total,) = buyer.get("/cart/summary").json["totals"]

    body = {"paymentMethod": "CARD", "expectedTotalAmount": total["totalAmount"]}
    order = buyer.post("/orders/from-cart", body)

    assert order.status == 201, order.body
    assert (cart[0]["price"], cart[0]["lineAmount"]) == (1_055, 3_165)
    lines = order.json["priceLines"]
    assert lines == total["priceLines"]
    assert [(line["amount"], line["vatAmount"], line["vatPercent"]) for line in lines] == [
        (3_165, 151, 5),
        (1_998, 182, 10),
    ]
    assert order.json["totalAmount"] == 5_163
    assert order.json["items"][0]["unitPrice"] == 1_055


def test_withdrawn_product_is_shown_as_unavailable(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product(stock=5)
    add(buyer, product)
    shop.sql("update shop.products set active = false where product_id = %s", product)

    (line,) = buyer.get("/cart").json

    assert line["available"] is False
    assert buyer.patch(f"/cart/items/{product}", {"quantity": 2}).status == 409
    assert quantities(buyer) == {product: 1}


def test_cart_is_visible_to_its_owner_only(shop: ShopHarness, buyer: Person) -> None:
    product, other = shop.product(), shop.person()
    add(buyer, product, 3)

    assert quantities(other) == {}
    assert other.patch(f"/cart/items/{product}", {"quantity": 1}).status == 404
    assert other.delete(f"/cart/items/{product}").status == 204
    assert other.delete("/cart").status == 204
    assert quantities(buyer) == {product: 3}


def test_row_policies_separate_the_carts_of_two_customers(shop: ShopHarness, buyer: Person) -> None:
    product, other = shop.product(), shop.person()
    add(buyer, product, 3)

    with psycopg.connect(shop.role_url("ordering")) as connection:
        connection.execute("select set_config('shop.user_id', %s, true)", [str(other.user_id)])
        seen = connection.execute("select * from shop.cart_items").fetchall()
        taken = connection.execute(carts.EMPTY.sql, {"user_id": buyer.user_id}).fetchall()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "insert into shop.cart_items (user_id, product_id, qty) values (%s, %s, 1)",
                [buyer.user_id, product],
            )

    assert (seen, taken) == ([], [])
    assert quantities(buyer) == {product: 3}


def test_request_without_a_token_gets_401(shop: ShopHarness) -> None:
    for method, path, body in [
        ("GET", "/cart", None),
        ("GET", "/cart/summary", None),
        ("POST", "/cart/items", {"productId": 1, "quantity": 1}),
        ("PATCH", "/cart/items/1", {"quantity": 1}),
        ("DELETE", "/cart/items/1", None),
        ("DELETE", "/cart", None),
    ]:
        assert shop.call(method, path, json_body=body).status == 401


# ---------------------------------------------------------------- adding


def test_added_quantities_of_one_product_are_summed(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product(price=1000, stock=5)

    first = add(buyer, product, 2)
    second = add(buyer, product, 3)

    assert (first.status, first.json["quantity"], first.json["lineAmount"]) == (201, 2, 2000)
    assert (second.status, second.json["quantity"], second.json["available"]) == (201, 5, True)
    assert quantities(buyer) == {product: 5}


def test_quantity_above_the_stock_gets_an_error_and_changes_nothing(
    shop: ShopHarness, buyer: Person
) -> None:
    product = shop.product(stock=5)
    assert add(buyer, product, 6).status == 409
    assert quantities(buyer) == {}
    add(buyer, product, 3)

    refused = add(buyer, product, 3)

    assert (refused.status, refused.error) == (409, "OUT_OF_STOCK")
    assert refused.json["products"] == [{"productId": product, "available": 5}]
    assert quantities(buyer) == {product: 3}


def test_reserved_stock_is_not_available(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product(stock=5)
    shop.person().order(product, 4)

    assert add(buyer, product, 2).status == 409
    assert add(buyer, product, 1).status == 201


def test_line_of_more_than_1000_gets_422(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product(stock=5000)

    assert add(buyer, product, 1000).status == 201
    assert add(buyer, product, 1).status == 422
    assert quantities(buyer) == {product: 1000}


def test_cart_holds_at_most_50_lines(shop: ShopHarness, buyer: Person) -> None:
    products = [shop.product() for _ in range(51)]
    assert {add(buyer, product).status for product in products[:50]} == {201}

    assert add(buyer, products[50]).status == 422
    assert add(buyer, products[0]).status == 201, "a line that is there may still grow"
    assert len(quantities(buyer)) == 50


def test_product_that_is_not_for_sale_gets_404(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product()
    shop.sql("update shop.products set active = false where product_id = %s", product)

    for odd in (product, 999_999, 2**63 - 1):
        answer = add(buyer, odd)
        assert (answer.status, answer.error) == (404, "NOT_FOUND")


def test_invalid_item_gets_422(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product(stock=5000)
    odd: list[Any] = [0, -1, 1001, 1.5, 1.0, "1", True, None, [1], 2**31, 2**63, {}]

    for quantity in odd:
        assert add(buyer, product, quantity).status == 422, quantity
    for product_id in (0, -1, 2**63, "1", 1.0, True, None):
        assert add(buyer, product_id).status == 422, product_id
    bodies: list[Any] = [{}, {"productId": product}, {"quantity": 1}, [], "x"]
    for body in bodies:
        assert buyer.post("/cart/items", body).status == 422, body
    extra = {"productId": product, "quantity": 1, "userId": 1}
    assert buyer.post("/cart/items", extra).status == 422
    assert quantities(buyer) == {}


def test_repeated_key_adds_once(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product()

    first, again = add(buyer, product, 2, key=KEY), add(buyer, product, 2, key=KEY)

    assert (again.status, again.body) == (201, first.body)
    assert quantities(buyer) == {product: 2}


# ---------------------------------------------------------------- changing and removing


def test_patch_sets_the_quantity(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product(price=1000, stock=5)
    add(buyer, product, 2)

    answer = buyer.patch(f"/cart/items/{product}", {"quantity": 5})

    assert (answer.status, answer.json["quantity"], answer.json["lineAmount"]) == (200, 5, 5000)
    refused = buyer.patch(f"/cart/items/{product}", {"quantity": 6})
    assert (refused.status, refused.error) == (409, "OUT_OF_STOCK")
    assert quantities(buyer) == {product: 5}


@pytest.mark.parametrize("quantity", [0, -1, -1000, -(2**31)])
def test_quantity_of_zero_or_less_removes_the_line(
    shop: ShopHarness, buyer: Person, quantity: int
) -> None:
    product = shop.product()
    add(buyer, product, 2)

    answer = buyer.patch(f"/cart/items/{product}", {"quantity": quantity})

    assert (answer.status, answer.body) == (204, b"")
    assert quantities(buyer) == {}
    assert buyer.patch(f"/cart/items/{product}", {"quantity": quantity}).status == 404


def test_patch_of_a_missing_line_gets_404(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product()

    for odd in (product, 999_999, 0, "abc", "-1", "9" * 30):
        for quantity in (1, 0):
            answer = buyer.patch(f"/cart/items/{odd}", {"quantity": quantity})
            assert (answer.status, answer.error) == (404, "NOT_FOUND"), odd
    impossible: list[Any] = [1001, 1.5, "1", None, True]
    for quantity in impossible:
        assert buyer.patch(f"/cart/items/{product}", {"quantity": quantity}).status == 422


def test_delete_of_a_line_is_idempotent(shop: ShopHarness, buyer: Person) -> None:
    product, other = shop.product(), shop.product()
    add(buyer, product)
    add(buyer, other)

    for odd in (product, product, 999_999):
        answer = buyer.delete(f"/cart/items/{odd}")
        assert (answer.status, answer.body) == (204, b"")
    assert buyer.delete("/cart/items/abc").status == 404
    assert quantities(buyer) == {other: 1}


def test_delete_of_the_cart_removes_every_line(shop: ShopHarness, buyer: Person) -> None:
    add(buyer, shop.product())
    add(buyer, shop.product())

    assert buyer.delete("/cart").status == 204
    assert buyer.delete("/cart").status == 204
    assert quantities(buyer) == {}


# ---------------------------------------------------------------- at once


def test_concurrent_additions_are_all_counted(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product(stock=100)

    statuses = statuses_of(*[lambda: add(buyer, product, 2)] * 8)

    assert statuses == [201] * 8
    assert quantities(buyer) == {product: 16}


def test_concurrent_additions_do_not_exceed_the_stock(shop: ShopHarness, buyer: Person) -> None:
    product = shop.product(stock=5)

    statuses = statuses_of(*[lambda: add(buyer, product, 2)] * 6)

    assert statuses == [201, 201, 409, 409, 409, 409]
    assert quantities(buyer) == {product: 4}


def test_concurrent_fiftieth_lines_add_one(shop: ShopHarness, buyer: Person) -> None:
    for _ in range(49):
        add(buyer, shop.product())
    last = [shop.product() for _ in range(4)]

    statuses = statuses_of(*[lambda p=product: add(buyer, p) for product in last])

    assert statuses == [201, 422, 422, 422]
    assert len(quantities(buyer)) == 50


def test_concurrent_orders_take_the_cart_once(shop: ShopHarness, buyer: Person) -> None:
    products = [shop.product(), shop.product()]
    for product in reversed(products):
        add(buyer, product, 2)
    taken: list[list[tuple[int, int]]] = []
    start = threading.Barrier(4)

    def take() -> None:
        database = Database(shop.role_url("ordering"), source="test")
        with database.transaction(opening=(SET_USER(id=str(buyer.user_id)),)) as session:
            start.wait()
            rows = session.tx.fetch_all(carts.empty(buyer.user_id))
            taken.append(sorted((row.product_id, row.qty) for row in rows))
            session.commit()
        database.close()

    takers = [threading.Thread(target=take) for _ in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()

    assert sorted(taken) == [[], [], [], [(products[0], 2), (products[1], 2)]]
    assert quantities(buyer) == {}


def test_invalid_cart_item_gets_an_error_and_writes_nothing(samples: Samples) -> None:
    line, before = f"/cart/items/{samples.product}", samples.rows()
    assert samples.owner.patch(line, {"quantity": 1}).status == 404
    for quantity in (0, -1, 1001, 1.5, "1", True, None):
        body = {"productId": samples.product, "quantity": quantity}
        assert samples.owner.post("/cart/items", body).status == 422, quantity
    for product_id in (0, -1, 2**63, "1", 1.0, None):
        body = {"productId": product_id, "quantity": 1}
        assert samples.owner.post("/cart/items", body).status == 422, product_id
    unknown = samples.owner.post("/cart/items", {"productId": 2**62, "quantity": 1})
    assert (unknown.status, samples.rows()) == (404, before)
    full = {"productId": samples.product, "quantity": 1000}
    assert samples.owner.post("/cart/items", full).status == 201
    assert samples.owner.post("/cart/items", {**full, "quantity": 1}).status == 422


def test_fifty_first_line_gets_422(samples: Samples) -> None:
    products = [samples.shop.product() for _ in range(51)]

    answers = [samples.owner.post("/cart/items", {"productId": p, "quantity": 1}) for p in products]

    assert [a.status for a in answers] == [201] * 50 + [422]
