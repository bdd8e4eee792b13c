"""The cart: adding, changing and removing lines, and ordering all of them."""

from __future__ import annotations

from tools.e2e.accounts import Account
from tools.e2e.client import JsonObject
from tools.e2e.context import ScenarioContext, expect
from tools.e2e.scenario import Scenario


def cart_quantities_are_limited_by_stock(context: ScenarioContext) -> None:
    """Quantities of a product add up, at most to its stock."""
    customer = context.new_customer()
    product, other = (
        context.create_product(price=1500, stock=5),
        context.create_product(price=200, stock=5),
    )
    context.check.equal("a new cart is empty", _lines(context, customer), {})
    added = context.post("/cart/items", {"productId": product["id"], "quantity": 2}, customer)
    context.check.status("adding answers 201", added, 201)
    expect(context.post("/cart/items", {"productId": product["id"], "quantity": 1}, customer), 201)
    expect(context.post("/cart/items", {"productId": other["id"], "quantity": 1}, customer), 201)
    expected = {product["id"]: 3, other["id"]: 1}
    context.check.equal(
        "quantities of the same product add up", _lines(context, customer), expected
    )
    over = context.post("/cart/items", {"productId": product["id"], "quantity": 3}, customer)
    context.check.problem("more than is in stock: 409", over, 409)
    context.check.equal(
        "a rejected quantity leaves the cart unchanged", _lines(context, customer), expected
    )
    path = f"/cart/items/{product['id']}"
    changed = context.write("PATCH", path, {"quantity": 5}, customer)
    context.check.status("changing a quantity answers 200", changed, 200)
    over = context.write("PATCH", path, {"quantity": 6}, customer)
    context.check.problem("changing it to more than is in stock: 409", over, 409)
    context.check.equal(
        "the cart has the changed quantity", _lines(context, customer)[product["id"]], 5
    )
    context.check.equal("a cart reserves no stock", context.stock(product["id"]), 5)


def removed_lines_leave_the_cart(context: ScenarioContext) -> None:
    """The quantity 0 and DELETE both remove a line."""
    customer = context.new_customer()
    first, second, third = (context.create_product(stock=5) for _ in range(3))
    for product in (first, second, third):
        body = {"productId": product["id"], "quantity": 1}
        expect(context.post("/cart/items", body, customer), 201)
    zero = context.write("PATCH", f"/cart/items/{first['id']}", {"quantity": 0}, customer)
    context.check.status("a quantity of 0 answers 204", zero, 204)
    context.check.equal("204 has no body", zero.content, b"")
    deleted = context.write("DELETE", f"/cart/items/{second['id']}", None, customer)
    context.check.status("deleting a line answers 204", deleted, 204)
    context.check.equal("only the third line is left", _lines(context, customer), {third["id"]: 1})
    emptied = context.write("DELETE", "/cart", None, customer)
    context.check.status("emptying the cart answers 204", emptied, 204)
    context.check.equal("the emptied cart has no lines", _lines(context, customer), {})
    missing = context.write("PATCH", f"/cart/items/{first['id']}", {"quantity": 1}, customer)
    context.check.problem("changing a missing line: 404", missing, 404)


def ordering_the_cart_empties_it(context: ScenarioContext) -> None:
    """Ordering the cart places one order with all lines and empties the cart."""
    customer = context.new_customer()
    products = [
        context.create_product(price=1000, stock=5),
        context.create_product(price=300, stock=5),
    ]
    for product in products:
        body = {"productId": product["id"], "quantity": 2}
        expect(context.post("/cart/items", body, customer), 201)
    response = context.post("/orders/from-cart", {"paymentMethod": "CARD"}, customer)
    context.check.status("ordering the cart answers 201", response, 201)
    order = response.json()
    bought = {item["productId"]: item["quantity"] for item in order["items"]}
    context.check.equal("one order has all lines", bought, {p["id"]: 2 for p in products})
    context.check.equal("its total is their sum", order["totalAmount"], 2600)
    context.check.equal("the cart is empty", _lines(context, customer), {})
    mine = expect(context.get("/orders/me", customer), 200).json()
    context.check.equal("there is one order", [one["id"] for one in mine], [order["id"]])
    left = [context.stock(product["id"]) for product in products]
    context.check.equal("each product's stock decreased once", left, [3, 3])
    context.check.equal(
        "its final status is PAID",
        context.wait_for_final_status(customer, order["id"])["status"],
        "PAID",
    )
    again = context.post("/orders/from-cart", {"paymentMethod": "CARD"}, customer)
    context.check.problem("ordering an empty cart: 400", again, 400)


def failed_order_keeps_the_cart(context: ScenarioContext) -> None:
    """A rejected order does not change the cart."""
    customer, other, product = (
        context.new_customer(),
        context.customer(1),
        context.create_product(stock=2),
    )
    expect(context.post("/cart/items", {"productId": product["id"], "quantity": 2}, customer), 201)
    context.place_order(other, (product["id"], 1))
    response = context.post("/orders/from-cart", {"paymentMethod": "CARD"}, customer)
    context.check.problem(
        "the stock was sold meanwhile: 409 OUT_OF_STOCK", response, 409, "OUT_OF_STOCK"
    )
    context.check.equal("the cart is unchanged", _lines(context, customer), {product["id"]: 2})
    context.check.equal("no stock was reserved", context.stock(product["id"]), 1)


def carts_are_private(context: ScenarioContext) -> None:
    """A customer cannot read or change the cart of another."""
    customer, other, product = (
        context.new_customer(),
        context.customer(2),
        context.create_product(stock=5),
    )
    expect(context.post("/cart/items", {"productId": product["id"], "quantity": 1}, customer), 201)
    forged = context.get("/cart", other, x_user_id=str(customer.user_id))
    seen = [line["productId"] for line in forged.json()]
    context.check.that(
        "X-User-Id does not select another cart", product["id"] not in seen, forged.text
    )
    context.write("DELETE", "/cart", None, other, x_user_id=str(customer.user_id))
    context.check.equal(
        "X-User-Id does not empty another cart", _lines(context, customer), {product["id"]: 1}
    )
    context.check.problem("without a token: 401", context.get("/cart"), 401)


def invalid_cart_lines_are_rejected(context: ScenarioContext) -> None:
    """Quantities must be positive integers and products must exist."""
    customer, product = context.customer(1), context.create_product(stock=5)
    for quantity in (0, -1, 1001, 1.5, "1", None):
        response = context.post(
            "/cart/items", {"productId": product["id"], "quantity": quantity}, customer
        )
        context.check.problem(f"adding a quantity of {quantity!r}: 422", response, 422)
    unknown = context.post("/cart/items", {"productId": 2**40, "quantity": 1}, customer)
    context.check.problem("adding an unknown product: 404", unknown, 404)


def _lines(context: ScenarioContext, by: Account) -> dict[int, int]:
    lines: list[JsonObject] = expect(context.get("/cart", by), 200).json()
    return {line["productId"]: line["quantity"] for line in lines}


STAFF = ("staff",)
SCENARIOS = (
    Scenario(cart_quantities_are_limited_by_stock, STAFF),
    Scenario(removed_lines_leave_the_cart, STAFF),
    Scenario(ordering_the_cart_empties_it, STAFF),
    Scenario(failed_order_keeps_the_cart, STAFF),
    Scenario(carts_are_private, STAFF),
    Scenario(invalid_cart_lines_are_rejected, STAFF),
)
