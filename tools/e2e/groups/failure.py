"""Invalid input: each error has its status and changes nothing."""

from __future__ import annotations

import json

from tools.e2e.client import Call, JsonObject, new_key
from tools.e2e.context import ScenarioContext, payment_of
from tools.e2e.scenario import Scenario

JSON = "application/json"
BODY_BYTES_MAX = 65_536


def malformed_json_answers_400(context: ScenarioContext) -> None:
    """A body that is not one JSON document: 400."""
    customer = context.customer(1)
    bodies = {
        "an empty body": b"",
        "half an object": b"{",
        "a trailing comma": b'{"productId": 1,}',
        "two documents": b"{}{}",
        "the same name twice": b'{"productId": 1, "quantity": 1, "quantity": 9}',
        "bytes that are not UTF-8": b'{"paymentMethod": "\xff"}',
        "the number NaN": b'{"productId": NaN}',
        "a deeply nested document": b"[" * 10_000,
    }
    for name, content in bodies.items():
        response = context.send(_order_of(content), customer)
        context.check.problem(f"{name}: 400", response, 400)


def wrong_content_type_or_size_is_rejected(context: ScenarioContext) -> None:
    """Another content type or encoding: 415; a body over 64 KiB: 413."""
    customer = context.customer(1)
    content = json.dumps({"productId": 1, "quantity": 1, "paymentMethod": "CARD"}).encode()
    for content_type in ("text/plain", "application/xml", "application/x-www-form-urlencoded"):
        response = context.send(_order_of(content, content_type), customer)
        context.check.problem(f"{content_type}: 415", response, 415)
    compressed = Call(
        "POST",
        "/orders",
        content=content,
        key=new_key(),
        headers={"Content-Type": JSON, "Content-Encoding": "gzip"},
    )
    context.check.problem("a compressed body: 415", context.send(compressed, customer), 415)
    large = b'{"paymentMethod": "' + b"x" * BODY_BYTES_MAX + b'"}'
    context.check.problem("a body over 64 KiB: 413", context.send(_order_of(large), customer), 413)


def invalid_orders_answer_422(context: ScenarioContext) -> None:
    """Well-formed JSON that is not a valid order: 422."""
    customer, product = context.customer(1), context.create_product(stock=5)
    good = {"productId": product["id"], "quantity": 1, "paymentMethod": "CARD"}
    item = {"productId": product["id"], "quantity": 1}
    bodies: JsonObject = {
        "an array": [good],
        "null": None,
        "an unknown property": {**good, "unknown": 1},
        "a client-supplied price": {**good, "unitPrice": 1},
        "a client-supplied total": {**good, "totalAmount": 1},
        "a client-supplied status": {**good, "status": "PAID"},
        "a client-supplied user id": {**good, "userId": 1},
        "both productId and items": {**good, "items": [item]},
        "neither productId nor items": {"paymentMethod": "CARD"},
        "no payment method": item,
        "no lines": {"items": [], "paymentMethod": "CARD"},
        "an unknown product": {**good, "productId": 2**40},
    }
    for quantity in (0, -1, 1.5, "1", True, None, [1], 2**31, 2**63):
        bodies[f"a quantity of {quantity!r}"] = {**good, "quantity": quantity}
    for name, body in bodies.items():
        response = context.send(_order_of(json.dumps(body).encode()), customer)
        context.check.problem(f"{name}: 422", response, 422)
    context.check.equal("invalid orders reserve no stock", context.stock(product["id"]), 5)


def declined_card_leaves_the_order_pending(context: ScenarioContext) -> None:
    """After a decline the order stays PENDING and shows the declined payment."""
    customer, product = context.customer(2), context.create_product(stock=5)
    order = context.place_order(customer, (product["id"], 1), method="CARD_INSUFFICIENT_FUNDS")
    seen = context.wait_for_decline(customer, order["id"])
    shown = (seen["status"], payment_of(seen).get("status"), seen["refundedAmount"])
    context.check.equal(
        "the order is PENDING, its payment DECLINED", shown, ("PENDING", "DECLINED", 0)
    )
    changes = context.status_changes(customer, order["id"], "payment")
    context.check.equal(
        "the decline is the last change in the timeline",
        changes[-1:],
        [(changes[-1][0], "DECLINED")],
    )
    context.write("PATCH", f"/orders/{order['id']}/cancel", None, customer)
    context.check.equal(
        "after cancelling it the stock is available again", context.stock(product["id"]), 5
    )


def rejected_requests_change_nothing(context: ScenarioContext) -> None:
    """After rejected requests the customer has no order and no line in the cart."""
    customer, product = context.new_customer(), context.create_product(stock=1)
    line = {"productId": product["id"], "quantity": 2}
    rejected = [
        context.post("/orders", {**line, "paymentMethod": "CARD"}, customer),
        context.post("/orders", {**line, "quantity": 0, "paymentMethod": "CARD"}, customer),
        context.post("/cart/items", line, customer),
        context.post("/orders/from-cart", {"paymentMethod": "CARD"}, customer),
    ]
    statuses = [response.status_code for response in rejected]
    context.check.equal("four invalid requests are rejected", statuses, [409, 422, 409, 400])
    context.check.equal("there is no order", context.get("/orders/me", customer).json(), [])
    cart = context.get("/cart", customer).json()
    context.check.equal("the cart is empty", cart, [])
    context.check.equal("the stock is unchanged", context.stock(product["id"]), 1)


def text_is_stored_literally(context: ScenarioContext) -> None:
    """Text with a meaning in SQL, HTML or templates is stored as text."""
    texts = ("' OR 1=1--", '"; DROP TABLE orders;--', "{{7*7}}", "<script>", "../../etc/passwd")
    for text in texts:
        product = context.create_product(name=text, stock=1)
        seen = context.get(f"/products/{product['id']}", context.customer(1)).json()["name"]
        context.check.equal(f"{text} is read back unchanged", seen, product["name"])


def _order_of(content: bytes, content_type: str = JSON) -> Call:
    headers = {"Content-Type": content_type}
    return Call("POST", "/orders", content=content, key=new_key(), headers=headers)


STAFF = ("staff",)
SCENARIOS = (
    Scenario(malformed_json_answers_400),
    Scenario(wrong_content_type_or_size_is_rejected),
    Scenario(invalid_orders_answer_422, STAFF),
    Scenario(declined_card_leaves_the_order_pending, STAFF),
    Scenario(rejected_requests_change_nothing, STAFF),
    Scenario(text_is_stored_literally, STAFF),
)
