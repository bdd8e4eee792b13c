"""The cart: adding up, changing, emptying, and one order out of all of it."""

from __future__ import annotations

from typing import Any

from tools.e2e.accounts import Account
from tools.e2e.harness import Stage, expect
from tools.e2e.scenario import Scenario


def fill_and_change(stage: Stage) -> None:
    """Quantities add up to what is in stock and no further."""
    buyer = stage.new_customer()
    product, other = stage.product(price=1500, stock=5), stage.product(price=200, stock=5)
    stage.check.equal("a new cart is empty", _lines(stage, buyer), {})
    added = stage.post("/cart/items", {"productId": product["id"], "quantity": 2}, buyer)
    stage.check.status("adding answers 201", added, 201)
    expect(stage.post("/cart/items", {"productId": product["id"], "quantity": 1}, buyer), 201)
    expect(stage.post("/cart/items", {"productId": other["id"], "quantity": 1}, buyer), 201)
    wanted = {product["id"]: 3, other["id"]: 1}
    stage.check.equal("the same product adds up", _lines(stage, buyer), wanted)
    over = stage.post("/cart/items", {"productId": product["id"], "quantity": 3}, buyer)
    stage.check.problem("more than is in stock: 409", over, 409)
    stage.check.equal("and the cart is as it was", _lines(stage, buyer), wanted)
    path = f"/cart/items/{product['id']}"
    changed = stage.write("PATCH", path, {"quantity": 5}, buyer)
    stage.check.status("changing a quantity answers 200", changed, 200)
    over = stage.write("PATCH", path, {"quantity": 6}, buyer)
    stage.check.problem("changing it to more than is in stock: 409", over, 409)
    stage.check.equal("the quantity is the changed one", _lines(stage, buyer)[product["id"]], 5)
    stage.check.equal("a cart takes no stock", stage.stock(product["id"]), 5)


def take_out_again(stage: Stage) -> None:
    """A quantity of nothing and DELETE both take a line out."""
    buyer = stage.new_customer()
    first, second, third = (stage.product(stock=5) for _ in range(3))
    for product in (first, second, third):
        body = {"productId": product["id"], "quantity": 1}
        expect(stage.post("/cart/items", body, buyer), 201)
    zero = stage.write("PATCH", f"/cart/items/{first['id']}", {"quantity": 0}, buyer)
    stage.check.status("a quantity of 0 answers 204", zero, 204)
    stage.check.equal("204 has no body", zero.content, b"")
    gone = stage.write("DELETE", f"/cart/items/{second['id']}", None, buyer)
    stage.check.status("deleting a line answers 204", gone, 204)
    stage.check.equal("only the third line is left", _lines(stage, buyer), {third["id"]: 1})
    emptied = stage.write("DELETE", "/cart", None, buyer)
    stage.check.status("emptying the cart answers 204", emptied, 204)
    stage.check.equal("then it is empty", _lines(stage, buyer), {})
    missing = stage.write("PATCH", f"/cart/items/{first['id']}", {"quantity": 1}, buyer)
    stage.check.problem("changing a line that is not there: 404", missing, 404)


def order_the_cart(stage: Stage) -> None:
    """One order out of all lines, and the cart is empty in the same moment."""
    buyer = stage.new_customer()
    products = [stage.product(price=1000, stock=5), stage.product(price=300, stock=5)]
    for product in products:
        body = {"productId": product["id"], "quantity": 2}
        expect(stage.post("/cart/items", body, buyer), 201)
    answer = stage.post("/orders/from-cart", {"paymentMethod": "CARD"}, buyer)
    stage.check.status("ordering the cart answers 201", answer, 201)
    order = answer.json()
    bought = {item["productId"]: item["quantity"] for item in order["items"]}
    stage.check.equal("one order has all lines", bought, {p["id"]: 2 for p in products})
    stage.check.equal("it costs their sum", order["totalAmount"], 2600)
    stage.check.equal("the cart is empty", _lines(stage, buyer), {})
    mine = expect(stage.get("/orders/me", buyer), 200).json()
    stage.check.equal("there is one order", [one["id"] for one in mine], [order["id"]])
    left = [stage.stock(product["id"]) for product in products]
    stage.check.equal("each product's stock went down once", left, [3, 3])
    stage.check.equal("it ends PAID", stage.at_rest(buyer, order["id"])["status"], "PAID")
    again = stage.post("/orders/from-cart", {"paymentMethod": "CARD"}, buyer)
    stage.check.problem("an empty cart: 400", again, 400)


def keep_the_cart_when_refused(stage: Stage) -> None:
    """An order that cannot be leaves the cart as it was."""
    buyer, rival, product = stage.new_customer(), stage.customer(1), stage.product(stock=2)
    expect(stage.post("/cart/items", {"productId": product["id"], "quantity": 2}, buyer), 201)
    stage.placed(rival, (product["id"], 1))
    answer = stage.post("/orders/from-cart", {"paymentMethod": "CARD"}, buyer)
    stage.check.problem("someone was faster: 409 OUT_OF_STOCK", answer, 409, "OUT_OF_STOCK")
    stage.check.equal("the cart is as it was", _lines(stage, buyer), {product["id"]: 2})
    stage.check.equal("nothing was taken", stage.stock(product["id"]), 1)


def belong_to_one(stage: Stage) -> None:
    """Nobody sees or touches another's cart."""
    buyer, stranger, product = stage.new_customer(), stage.customer(2), stage.product(stock=5)
    expect(stage.post("/cart/items", {"productId": product["id"], "quantity": 1}, buyer), 201)
    forged = stage.get("/cart", stranger, x_user_id=str(buyer.user_id))
    seen = [line["productId"] for line in forged.json()["items"]]
    stage.check.that("X-User-Id shows no other cart", product["id"] not in seen, forged.text)
    stage.write("DELETE", "/cart", None, stranger, x_user_id=str(buyer.user_id))
    stage.check.equal("nor empties it", _lines(stage, buyer), {product["id"]: 1})
    stage.check.problem("without a token: 401", stage.get("/cart"), 401)


def refuse_nonsense(stage: Stage) -> None:
    """Quantities are whole and positive, products exist."""
    buyer, product = stage.customer(1), stage.product(stock=5)
    for quantity in (0, -1, 1001, 1.5, "1", None):
        answer = stage.post(
            "/cart/items", {"productId": product["id"], "quantity": quantity}, buyer
        )
        stage.check.problem(f"adding a quantity of {quantity!r}: 422", answer, 422)
    unknown = stage.post("/cart/items", {"productId": 2**40, "quantity": 1}, buyer)
    stage.check.problem("adding an unknown product: 404", unknown, 404)


def _lines(stage: Stage, by: Account) -> dict[int, int]:
    cart: dict[str, Any] = expect(stage.get("/cart", by), 200).json()
    return {line["productId"]: line["quantity"] for line in cart["items"]}


STAFF = ("staff",)
SCENARIOS = (
    Scenario(fill_and_change, STAFF),
    Scenario(take_out_again, STAFF),
    Scenario(order_the_cart, STAFF),
    Scenario(keep_the_cart_when_refused, STAFF),
    Scenario(belong_to_one, STAFF),
    Scenario(refuse_nonsense, STAFF),
)
