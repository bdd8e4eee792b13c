"""Bad input: every mistake has its status, and none leaves a trace."""

from __future__ import annotations

import json
from typing import Any

from tools.e2e.accounts import Account
from tools.e2e.client import Call, new_key
from tools.e2e.harness import Stage
from tools.e2e.scenario import Scenario

JSON = "application/json"
BODY_BYTES_MAX = 65_536


def refuse_what_is_not_json(stage: Stage) -> None:
    """Bytes that are not one JSON document: 400."""
    buyer = stage.customer(1)
    bodies = {
        "an empty body": b"",
        "half an object": b"{",
        "a trailing comma": b'{"productId": 1,}',
        "two documents": b"{}{}",
        "the same name twice": b'{"productId": 1, "quantity": 1, "quantity": 9}',
        "bytes that are not UTF-8": b'{"paymentMethod": "\xff"}',
        "a number that is none": b'{"productId": NaN}',
        "a very deep document": b"[" * 10_000,
    }
    for name, content in bodies.items():
        answer = stage.send(_order_of(content), buyer)
        stage.check.problem(f"{name}: 400", answer, 400)


def refuse_other_content(stage: Stage) -> None:
    """JSON it must be, and not too much of it."""
    buyer = stage.customer(1)
    content = json.dumps({"productId": 1, "quantity": 1, "paymentMethod": "CARD"}).encode()
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded"):
        answer = stage.send(_order_of(content, kind), buyer)
        stage.check.problem(f"{kind}: 415", answer, 415)
    packed = Call(
        "POST",
        "/orders",
        content=content,
        key=new_key(),
        headers={"Content-Type": JSON, "Content-Encoding": "gzip"},
    )
    stage.check.problem("a packed body: 415", stage.send(packed, buyer), 415)
    large = b'{"paymentMethod": "' + b"x" * BODY_BYTES_MAX + b'"}'
    stage.check.problem("more than 64 KiB: 413", stage.send(_order_of(large), buyer), 413)


def refuse_other_shapes(stage: Stage) -> None:
    """Well-formed, but not what an order is: 422."""
    buyer, product = stage.customer(1), stage.product(stock=5)
    good = {"productId": product["id"], "quantity": 1, "paymentMethod": "CARD"}
    item = {"productId": product["id"], "quantity": 1}
    bodies: dict[str, Any] = {
        "an array": [good],
        "null": None,
        "an unknown property": {**good, "surprise": 1},
        "a price of one's own": {**good, "unitPrice": 1},
        "a total of one's own": {**good, "totalAmount": 1},
        "a status of one's own": {**good, "status": "PAID"},
        "another's user id": {**good, "userId": 1},
        "one product and a list": {**good, "items": [item]},
        "neither product nor list": {"paymentMethod": "CARD"},
        "no payment method": item,
        "no lines": {"items": [], "paymentMethod": "CARD"},
        "an unknown product": {**good, "productId": 2**40},
    }
    for quantity in (0, -1, 1.5, "1", True, None, [1], 2**31, 2**63):
        bodies[f"a quantity of {quantity!r}"] = {**good, "quantity": quantity}
    for name, body in bodies.items():
        answer = stage.send(_order_of(json.dumps(body).encode()), buyer)
        stage.check.problem(f"{name}: 422", answer, 422)
    stage.check.equal("no stock was taken by any of them", stage.stock(product["id"]), 5)


def decline_cards(stage: Stage) -> None:
    """A card without money pays nothing, and the buyer sees why the order waits."""
    buyer, product = stage.customer(2), stage.product(stock=5)
    order = stage.placed(buyer, (product["id"], 1), method="CARD_INSUFFICIENT_FUNDS")
    seen = stage.declined(buyer, order["id"])
    shown = (seen["status"], (seen["payment"] or {}).get("status"), seen["refundedAmount"])
    stage.check.equal("declined: waiting, nothing taken", shown, ("PENDING", "DECLINED", 0))
    story = stage.moves(buyer, order["id"], "payment")
    stage.check.equal(
        "the timeline shows the decline last", story[-1:], [(story[-1][0], "DECLINED")]
    )
    stage.write("PATCH", f"/orders/{order['id']}/cancel", None, buyer)
    stage.check.equal("given up, the stock is back", stage.stock(product["id"]), 5)


def leave_no_trace(stage: Stage) -> None:
    """After refusals of every kind the buyer has no order and no line in the cart."""
    buyer, product = stage.new_customer(), stage.product(stock=1)
    line = {"productId": product["id"], "quantity": 2}
    refused = [
        stage.post("/orders", {**line, "paymentMethod": "CARD"}, buyer),
        stage.post("/orders", {**line, "quantity": 0, "paymentMethod": "CARD"}, buyer),
        stage.post("/cart/items", line, buyer),
        stage.post("/orders/from-cart", {"paymentMethod": "CARD"}, buyer),
    ]
    statuses = [answer.status_code for answer in refused]
    stage.check.equal("four refusals", statuses, [409, 422, 409, 400])
    stage.check.equal("no order", _json(stage, "/orders/me", buyer), [])
    stage.check.equal("no line", _json(stage, "/cart", buyer)["items"], [])
    stage.check.equal("no stock", stage.stock(product["id"]), 1)


def take_words_literally(stage: Stage) -> None:
    """Text that means something elsewhere is only text here."""
    words = ("' OR 1=1--", '"; DROP TABLE orders;--', "{{7*7}}", "<script>", "../../etc/passwd")
    for word in words:
        made = stage.product(name=word, stock=1)
        seen = stage.get(f"/products/{made['id']}", stage.customer(1)).json()["name"]
        stage.check.equal(f"{word} reads back as it was written", seen, made["name"])


def _order_of(content: bytes, content_type: str = JSON) -> Call:
    headers = {"Content-Type": content_type}
    return Call("POST", "/orders", content=content, key=new_key(), headers=headers)


def _json(stage: Stage, path: str, by: Account) -> Any:
    return stage.get(path, by).json()


STAFF = ("staff",)
SCENARIOS = (
    Scenario(refuse_what_is_not_json),
    Scenario(refuse_other_content),
    Scenario(refuse_other_shapes, STAFF),
    Scenario(decline_cards, STAFF),
    Scenario(leave_no_trace, STAFF),
    Scenario(take_words_literally, STAFF),
)
