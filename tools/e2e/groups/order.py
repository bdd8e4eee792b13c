"""Orders: placing, paying, paying again, looking up, cancelling, refunding, and whose they are."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import uuid4

import httpx

from tools.e2e.accounts import Account
from tools.e2e.harness import Stage, expect, side_by_side
from tools.e2e.scenario import Scenario

PAID_STORY = [("-", "PENDING"), ("PENDING", "PAID")]
CANCELLED_STORY = [*PAID_STORY, ("PAID", "CANCELLING"), ("CANCELLING", "CANCELLED")]
PATIENT = 2


def place_and_pay(stage: Stage) -> None:
    """An order is accepted at once as PENDING and paid by an event."""
    buyer, product = stage.customer(1), stage.product(price=12_300, stock=10)
    answer = stage.order(buyer, (product["id"], 3))
    stage.check.status("placing answers 201", answer, 201)
    order = answer.json()
    _check_placed(stage, buyer, product, answer)
    stage.check.equal("stock goes down by exactly the quantity", stage.stock(product["id"]), 7)
    paid = stage.at_rest(buyer, order["id"])
    stage.check.equal("it ends PAID", paid["status"], "PAID")
    payment = paid["payment"] or {}
    shown = (payment.get("status"), payment.get("attempt"), paid["refundedAmount"])
    stage.check.equal("one capture, nothing given back", shown, ("CAPTURED", 1, 0))
    stage.check.equal("being paid takes no more stock", stage.stock(product["id"]), 7)
    story = stage.moves(buyer, order["id"], "order")
    stage.check.equal("the timeline tells PENDING, then PAID", story, PAID_STORY)


def _check_placed(
    stage: Stage, buyer: Account, product: dict[str, Any], answer: httpx.Response
) -> None:
    order = answer.json()
    line = {"productId": product["id"], "quantity": 3, "unitPrice": 12_300, "lineAmount": 36_900}
    stage.check.equal("it is PENDING", order["status"], "PENDING")
    stage.check.equal("it is the buyer's", order["userId"], buyer.user_id)
    stage.check.equal("it has the line with the price read now", order["items"], [line])
    amount = (order["totalAmount"], order["currency"], order["paymentMethod"])
    stage.check.equal("it has amount, currency and method", amount, (36_900, "KRW", "CARD"))
    location = answer.headers.get("Location")
    stage.check.equal("Location is where it can be looked up", location, f"/orders/{order['id']}")


def place_many_lines(stage: Stage) -> None:
    """One order, many products, one amount."""
    buyer = stage.customer(1)
    products = [stage.product(price=1000 * n, stock=10) for n in (1, 2, 3)]
    lines = [(product["id"], n) for n, product in enumerate(products, start=1)]
    answer = stage.order(buyer, *reversed(lines), expectedTotalAmount=14_000)
    stage.check.status("three lines and the right expectedTotalAmount answer 201", answer, 201)
    order = answer.json()
    stage.check.equal("the amount is the sum of the lines", order["totalAmount"], 14_000)
    bought = sorted((item["productId"], item["quantity"]) for item in order["items"])
    stage.check.equal("every line is there once", bought, sorted(lines))
    left = [stage.stock(product["id"]) for product in products]
    stage.check.equal("each product's stock goes down by its own quantity", left, [9, 8, 7])
    stage.check.equal("it ends PAID", stage.at_rest(buyer, order["id"])["status"], "PAID")
    twice = stage.order(buyer, lines[0], lines[0])
    stage.check.problem("the same product on two lines is refused with 422", twice, 422)


def refuse_what_is_not_there(stage: Stage) -> None:
    """An order is taken whole or not at all."""
    buyer = stage.customer(1)
    scarce, plenty = stage.product(stock=2), stage.product(stock=50)
    answer = stage.order(buyer, (plenty["id"], 1), (scarce["id"], 3))
    stage.check.problem("more than there is: 409 OUT_OF_STOCK", answer, 409, "OUT_OF_STOCK")
    wanted = [{"productId": scarce["id"], "requested": 3, "available": 2}]
    stage.check.equal("it names the product and what there is", answer.json()["products"], wanted)
    left = [stage.stock(scarce["id"]), stage.stock(plenty["id"])]
    stage.check.equal("nothing was taken of any line", left, [2, 50])
    last = stage.order(buyer, (scarce["id"], 2))
    stage.check.status("exactly what there is can be ordered", last, 201)
    stage.check.equal("then nothing is left", stage.stock(scarce["id"]), 0)


def refuse_another_price(stage: Stage) -> None:
    """Who says what it should cost is asked again when it costs something else."""
    buyer, product = stage.customer(1), stage.product(price=5000, stock=5)
    answer = stage.order(buyer, (product["id"], 2), expectedTotalAmount=9_999)
    stage.check.problem(
        "another expectedTotalAmount: 409 PRICE_CHANGED", answer, 409, "PRICE_CHANGED"
    )
    stage.check.equal("nothing was taken", stage.stock(product["id"]), 5)


def pay_again_after_a_decline(stage: Stage) -> None:
    """A declined card leaves the order waiting; another card pays it."""
    buyer, product = stage.customer(1), stage.product(price=700, stock=5)
    order = stage.placed(buyer, (product["id"], 1), method="CARD_DECLINED")
    seen = stage.declined(buyer, order["id"])
    shown = (seen["status"], (seen["payment"] or {}).get("status"))
    stage.check.equal("declined: the order still waits", shown, ("PENDING", "DECLINED"))
    stage.check.equal("and keeps its stock", stage.stock(product["id"]), 4)
    path = f"/orders/{order['id']}/payments"
    again = stage.post(path, {"paymentMethod": "CARD"}, buyer)
    stage.check.status("paying again answers 201", again, 201)
    paid = stage.at_rest(buyer, order["id"])
    payment = paid["payment"] or {}
    ended = (paid["status"], payment.get("status"), payment.get("attempt"))
    stage.check.equal("it ends PAID by the second attempt", ended, ("PAID", "CAPTURED", 2))
    stage.check.equal("stock was taken once", stage.stock(product["id"]), 4)
    third = stage.post(path, {"paymentMethod": "CARD"}, buyer)
    stage.check.problem("a paid order cannot be paid again: 409", third, 409)


def survive_the_provider(stage: Stage) -> None:
    """The provider takes the money and its answer is lost: the order ends PAID, exactly once."""
    buyer = stage.customer(2)
    methods = ("CARD_TIMEOUT_AFTER", "CARD_TIMEOUT_BEFORE", "CARD_ERROR_AFTER", "CARD_ERROR_BEFORE")
    products = [stage.product(price=900, stock=5) for _ in methods]
    orders = [
        stage.placed(buyer, (product["id"], 1), method=method)
        for product, method in zip(products, methods, strict=True)
    ]
    ends = side_by_side([partial(stage.at_rest, buyer, order["id"]) for order in orders], PATIENT)
    for method, product, end in zip(methods, products, ends, strict=True):
        payment = end["payment"] or {}
        shown = (
            end["status"],
            payment.get("status"),
            payment.get("attempt"),
            end["refundedAmount"],
        )
        stage.check.equal(
            f"{method}: it ends PAID by one capture", shown, ("PAID", "CAPTURED", 1, 0)
        )
        captures = [to for _, to in stage.moves(buyer, end["id"], "payment") if to == "CAPTURED"]
        stage.check.equal(f"{method}: money came once", len(captures), 1)
        stage.check.equal(f"{method}: stock was taken once", stage.stock(product["id"]), 4)


def cancel_before_money(stage: Stage) -> None:
    """An order that waits for money is cancelled on the spot."""
    buyer, product = stage.customer(1), stage.product(stock=5)
    order = stage.placed(buyer, (product["id"], 2), method="CARD_DECLINED")
    stage.declined(buyer, order["id"])
    path = f"/orders/{order['id']}/cancel"
    answer = stage.write("PATCH", path, None, buyer)
    stage.check.status("cancelling answers 200", answer, 200)
    shown = (answer.json()["status"], answer.json().get("reason"))
    stage.check.equal("it is CANCELLED by the buyer", shown, ("CANCELLED", "USER"))
    stage.check.equal("the stock is back", stage.stock(product["id"]), 5)
    again = stage.write("PATCH", path, None, buyer)
    stage.check.problem("a further cancel: 409 NOT_CANCELLABLE", again, 409, "NOT_CANCELLABLE")
    pay = stage.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"}, buyer)
    stage.check.problem("a cancelled order cannot be paid: 409", pay, 409)
    stage.check.equal("the stock is still back once", stage.stock(product["id"]), 5)


def cancel_after_money(stage: Stage) -> None:
    """A paid order is cancelled, its money goes back, its stock too."""
    buyer, product = stage.customer(1), stage.product(price=2500, stock=5)
    order = stage.paid(buyer, (product["id"], 2))
    path = f"/orders/{order['id']}/cancel"
    answer = stage.write("PATCH", path, None, buyer)
    stage.check.status("cancelling a paid order answers 200", answer, 200)
    status = answer.json()["status"]
    stage.check.that("it is on its way", status in ("CANCELLING", "CANCELLED"), answer.text)
    end = stage.at_rest(buyer, order["id"])
    shown = (end["status"], end.get("reason"), end["refundedAmount"])
    stage.check.equal("it ends CANCELLED, all money back", shown, ("CANCELLED", "USER", 5000))
    stage.check.equal("the stock is back exactly", stage.stock(product["id"]), 5)
    story = stage.moves(buyer, order["id"], "order")
    stage.check.equal("the timeline tells the whole story in order", story, CANCELLED_STORY)
    refunds = [to for _, to in stage.moves(buyer, order["id"], "refund") if to == "SUCCEEDED"]
    stage.check.equal("one refund", len(refunds), 1)
    again = stage.write("PATCH", path, None, buyer)
    stage.check.problem("a further cancel: 409 NOT_CANCELLABLE", again, 409, "NOT_CANCELLABLE")


def refund_in_parts(stage: Stage) -> None:
    """Support gives part of the money back, never more than came; a cancel gives the rest."""
    buyer, support, product = stage.customer(1), stage.support(), stage.product(price=3000, stock=5)
    order = stage.paid(buyer, (product["id"], 1))
    path = f"/orders/{order['id']}/refunds"
    part = {"amount": 1000, "reason": "scratched"}
    stage.check.problem("a customer may not refund: 403", stage.post(path, part, buyer), 403)
    answer = stage.post(path, part, support)
    stage.check.status("support may: 201", answer, 201)
    seen = _refunded(stage, buyer, order["id"], 1000)
    stage.check.equal("the part is back, the order stays PAID", seen, ("PAID", 1000))
    over = stage.post(path, {**part, "amount": 2001}, support)
    stage.check.problem("more than the rest: 409", over, 409)
    for amount in (0, -1):
        none = stage.post(path, {**part, "amount": amount}, support)
        stage.check.problem(f"an amount of {amount}: 422", none, 422)
    expect(stage.write("PATCH", f"/orders/{order['id']}/cancel", None, buyer), 200)
    end = stage.at_rest(buyer, order["id"])
    shown = (end["status"], end["refundedAmount"])
    stage.check.equal("cancelling gives exactly the rest", shown, ("CANCELLED", 3000))
    stage.check.equal("the stock is back", stage.stock(product["id"]), 5)


def _refunded(stage: Stage, by: Account, order_id: str, amount: int) -> tuple[str, int]:
    seen = stage.eventually(
        lambda: stage.look_up(by, order_id), lambda order: order["refundedAmount"] >= amount
    )
    return seen["status"], seen["refundedAmount"]


def hide_other_peoples_orders(stage: Stage) -> None:
    """Another's order and one that never was are answered with the same bytes."""
    owner, stranger = stage.customer(1), stage.customer(2)
    order_id = stage.paid(owner, (stage.product()["id"], 1))["id"]
    missing = str(uuid4())
    body = {"paymentMethod": "CARD"}
    calls = (
        ("GET", "", None),
        ("GET", "/timeline", None),
        ("PATCH", "/cancel", None),
        ("POST", "/payments", body),
    )
    for method, what, sent in calls:
        theirs = stage.write(method, f"/orders/{order_id}{what}", sent, stranger)
        never = stage.write(method, f"/orders/{missing}{what}", sent, stranger)
        name = f"{method} /orders/{{id}}{what}"
        stage.check.problem(f"{name} of another: 404", theirs, 404, "NOT_FOUND")
        same = theirs.content.replace(order_id.encode(), missing.encode()) == never.content
        stage.check.that(f"{name}: the same bytes as a missing one", same, theirs.text + never.text)
    forged = stage.get(f"/orders/{order_id}", stranger, x_user_id=str(owner.user_id))
    stage.check.problem("X-User-Id of the owner does not help", forged, 404)
    nobody = stage.get(f"/orders/{order_id}")
    stage.check.problem("without a token: 401", nobody, 401)
    seen = stage.look_up(owner, order_id)
    stage.check.equal("the order was not touched", seen["status"], "PAID")


def list_own_orders(stage: Stage) -> None:
    """``GET /orders/me``: one's own, newest first, page by page."""
    buyer, product = stage.new_customer(), stage.product(stock=20)
    placed = [stage.placed(buyer, (product["id"], 1))["id"] for _ in range(5)]
    pages: list[list[str]] = []
    path = "/orders/me?limit=2"
    while path and len(pages) < 10:
        page = expect(stage.get(path, buyer), 200)
        pages.append([order["id"] for order in page.json()])
        path = next_link(page)
    stage.check.equal("pages of two, two and one", [len(page) for page in pages], [2, 2, 1])
    walked = [order_id for page in pages for order_id in page]
    stage.check.equal("all of them, newest first", walked, placed[::-1])
    stage.check.problem("limit 0: 400", stage.get("/orders/me?limit=0", buyer), 400)
    stage.check.problem("limit 101: 400", stage.get("/orders/me?limit=101", buyer), 400)
    stage.check.problem("a forged cursor: 400", stage.get("/orders/me?cursor=x", buyer), 400)


def next_link(response: httpx.Response) -> str:
    """The path of the next page (RFC 8288), empty on the last one."""
    return response.links.get("next", {}).get("url", "")


STAFF = ("staff",)
SCENARIOS = (
    Scenario(place_and_pay, STAFF),
    Scenario(place_many_lines, STAFF),
    Scenario(refuse_what_is_not_there, STAFF),
    Scenario(refuse_another_price, STAFF),
    Scenario(pay_again_after_a_decline, STAFF),
    Scenario(survive_the_provider, STAFF),
    Scenario(cancel_before_money, STAFF),
    Scenario(cancel_after_money, STAFF),
    Scenario(refund_in_parts, ("staff", "support")),
    Scenario(hide_other_peoples_orders, STAFF),
    Scenario(list_own_orders, STAFF),
)
