"""Orders: placing, paying, reading, cancelling, refunding, and access by other customers."""

from __future__ import annotations

from functools import partial
from uuid import uuid4

import httpx

from tools.e2e.accounts import Account
from tools.e2e.client import JsonObject
from tools.e2e.context import ScenarioContext, expect, payment_of, run_in_parallel
from tools.e2e.scenario import Scenario

PAID_CHANGES = [("-", "PENDING"), ("PENDING", "PAID")]
CANCELLED_CHANGES = [*PAID_CHANGES, ("PAID", "CANCELLING"), ("CANCELLING", "CANCELLED")]
PARALLEL_READS = 2


def placed_order_is_paid(context: ScenarioContext) -> None:
    """An order is accepted as PENDING and paid asynchronously."""
    customer, product = context.customer(1), context.create_product(price=12_300, stock=10)
    response = context.post_order(customer, (product["id"], 3))
    context.check.status("placing answers 201", response, 201)
    order = response.json()
    _check_placed(context, customer, product, response)
    context.check.equal("the stock decreases by the quantity", context.stock(product["id"]), 7)
    paid = context.wait_for_final_status(customer, order["id"])
    context.check.equal("its final status is PAID", paid["status"], "PAID")
    payment = payment_of(paid)
    shown = (payment.get("status"), payment.get("attempt"), paid["refundedAmount"])
    context.check.equal("one capture, nothing refunded", shown, ("CAPTURED", 1, 0))
    context.check.equal("the payment does not change the stock", context.stock(product["id"]), 7)
    changes = context.status_changes(customer, order["id"], "order")
    context.check.equal("the timeline has PENDING, then PAID", changes, PAID_CHANGES)


def _check_placed(
    context: ScenarioContext, customer: Account, product: JsonObject, response: httpx.Response
) -> None:
    order = response.json()
    line = {"productId": product["id"], "quantity": 3, "unitPrice": 12_300, "lineAmount": 36_900}
    context.check.equal("it is PENDING", order["status"], "PENDING")
    context.check.equal("it belongs to the customer", order["userId"], customer.user_id)
    context.check.equal("it has the line with the current price", order["items"], [line])
    amount = (order["totalAmount"], order["currency"], order["paymentMethod"])
    expected = (36_900, product["currency"], "CARD")
    context.check.equal("it has amount, currency and method", amount, expected)
    location = response.headers.get("Location")
    context.check.equal("Location is its path", location, f"/orders/{order['id']}")


def order_of_many_lines_has_one_total(context: ScenarioContext) -> None:
    """The total of an order is the sum of its lines."""
    customer = context.customer(1)
    products = [context.create_product(price=1000 * n, stock=10) for n in (1, 2, 3)]
    lines = [(product["id"], n) for n, product in enumerate(products, start=1)]
    response = context.post_order(customer, *reversed(lines), expectedTotalAmount=14_000)
    context.check.status("three lines and the right expectedTotalAmount answer 201", response, 201)
    order = response.json()
    context.check.equal("the total is the sum of the lines", order["totalAmount"], 14_000)
    bought = sorted((item["productId"], item["quantity"]) for item in order["items"])
    context.check.equal("every line is present once", bought, sorted(lines))
    left = [context.stock(product["id"]) for product in products]
    context.check.equal("each product's stock decreases by its quantity", left, [9, 8, 7])
    context.check.equal(
        "its final status is PAID",
        context.wait_for_final_status(customer, order["id"])["status"],
        "PAID",
    )
    twice = context.post_order(customer, lines[0], lines[0])
    context.check.problem("the same product on two lines answers 422", twice, 422)


def insufficient_stock_rejects_the_whole_order(context: ScenarioContext) -> None:
    """If one line exceeds the stock, no line is reserved."""
    customer = context.customer(1)
    scarce, ample = context.create_product(stock=2), context.create_product(stock=50)
    response = context.post_order(customer, (ample["id"], 1), (scarce["id"], 3))
    context.check.problem("more than the stock: 409 OUT_OF_STOCK", response, 409, "OUT_OF_STOCK")
    expected = [{"productId": scarce["id"], "requested": 3, "available": 2}]
    context.check.equal(
        "the error has product, requested and available quantity",
        response.json()["products"],
        expected,
    )
    left = [context.stock(scarce["id"]), context.stock(ample["id"])]
    context.check.equal("no line reserved stock", left, [2, 50])
    last = context.post_order(customer, (scarce["id"], 2))
    context.check.status("the whole stock can be ordered", last, 201)
    context.check.equal("after ordering the whole stock it is 0", context.stock(scarce["id"]), 0)


def changed_price_answers_409(context: ScenarioContext) -> None:
    """A wrong expectedTotalAmount rejects the order."""
    customer, product = context.customer(1), context.create_product(price=5000, stock=5)
    response = context.post_order(customer, (product["id"], 2), expectedTotalAmount=9_999)
    context.check.problem(
        "a wrong expectedTotalAmount: 409 PRICE_CHANGED", response, 409, "PRICE_CHANGED"
    )
    context.check.equal("no stock was reserved", context.stock(product["id"]), 5)


def declined_order_can_be_paid_again(context: ScenarioContext) -> None:
    """An order with a declined payment can be paid with another card."""
    customer, product = context.customer(1), context.create_product(price=700, stock=5)
    order = context.place_order(customer, (product["id"], 1), method="CARD_DECLINED")
    seen = context.wait_for_decline(customer, order["id"])
    shown = (seen["status"], payment_of(seen).get("status"))
    context.check.equal("after the decline the order is PENDING", shown, ("PENDING", "DECLINED"))
    context.check.equal(
        "an order with a declined payment keeps its reservation", context.stock(product["id"]), 4
    )
    path = f"/orders/{order['id']}/payments"
    again = context.post(path, {"paymentMethod": "CARD"}, customer)
    context.check.status("paying again answers 201", again, 201)
    paid = context.wait_for_final_status(customer, order["id"])
    payment = payment_of(paid)
    ended = (paid["status"], payment.get("status"), payment.get("attempt"))
    context.check.equal("the second attempt pays it", ended, ("PAID", "CAPTURED", 2))
    context.check.equal("the stock decreased once", context.stock(product["id"]), 4)
    third = context.post(path, {"paymentMethod": "CARD"}, customer)
    context.check.problem("a paid order cannot be paid again: 409", third, 409)


def provider_failures_end_in_one_capture(context: ScenarioContext) -> None:
    """Timeouts and errors of the provider, before and after the charge, end in one capture."""
    customer = context.customer(2)
    methods = ("CARD_TIMEOUT_AFTER", "CARD_TIMEOUT_BEFORE", "CARD_ERROR_AFTER", "CARD_ERROR_BEFORE")
    products = [context.create_product(price=900, stock=5) for _ in methods]
    orders = [
        context.place_order(customer, (product["id"], 1), method=method)
        for product, method in zip(products, methods, strict=True)
    ]
    ends = run_in_parallel(
        [partial(context.wait_for_final_status, customer, order["id"]) for order in orders],
        PARALLEL_READS,
    )
    for method, product, end in zip(methods, products, ends, strict=True):
        payment = payment_of(end)
        shown = (
            end["status"],
            payment.get("status"),
            payment.get("attempt"),
            end["refundedAmount"],
        )
        context.check.equal(
            f"{method}: the order is PAID by the first attempt", shown, ("PAID", "CAPTURED", 1, 0)
        )
        captures = [
            to
            for _, to in context.status_changes(customer, end["id"], "payment")
            if to == "CAPTURED"
        ]
        context.check.equal(f"{method}: there is one capture", len(captures), 1)
        context.check.equal(f"{method}: the stock decreased once", context.stock(product["id"]), 4)


def cancel_before_payment_returns_stock(context: ScenarioContext) -> None:
    """Cancelling an unpaid order returns its stock immediately."""
    customer, product = context.customer(1), context.create_product(stock=5)
    order = context.place_order(customer, (product["id"], 2), method="CARD_DECLINED")
    context.wait_for_decline(customer, order["id"])
    path = f"/orders/{order['id']}/cancel"
    response = context.write("PATCH", path, None, customer)
    context.check.status("cancelling answers 200", response, 200)
    shown = (response.json()["status"], response.json().get("reason"))
    context.check.equal("it is CANCELLED with reason USER", shown, ("CANCELLED", "USER"))
    context.check.equal("the stock is available again", context.stock(product["id"]), 5)
    again = context.write("PATCH", path, None, customer)
    context.check.problem("a second cancel: 409 NOT_CANCELLABLE", again, 409, "NOT_CANCELLABLE")
    pay = context.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"}, customer)
    context.check.problem("a cancelled order cannot be paid: 409", pay, 409)
    context.check.equal(
        "rejected commands leave the stock unchanged", context.stock(product["id"]), 5
    )


def cancel_after_payment_refunds_and_returns_stock(context: ScenarioContext) -> None:
    """Cancelling a paid order refunds the whole amount and returns its stock."""
    customer, product = context.customer(1), context.create_product(price=2500, stock=5)
    order = context.place_paid_order(customer, (product["id"], 2))
    path = f"/orders/{order['id']}/cancel"
    response = context.write("PATCH", path, None, customer)
    context.check.status("cancelling a paid order answers 200", response, 200)
    status = response.json()["status"]
    context.check.that(
        "its status is CANCELLING or CANCELLED",
        status in ("CANCELLING", "CANCELLED"),
        response.text,
    )
    end = context.wait_for_final_status(customer, order["id"])
    shown = (end["status"], end.get("reason"), end["refundedAmount"])
    context.check.equal("it ends CANCELLED with a full refund", shown, ("CANCELLED", "USER", 5000))
    context.check.equal("the stock is available again", context.stock(product["id"]), 5)
    changes = context.status_changes(customer, order["id"], "order")
    context.check.equal("the timeline has every status change in order", changes, CANCELLED_CHANGES)
    refunds = [
        to for _, to in context.status_changes(customer, order["id"], "refund") if to == "SUCCEEDED"
    ]
    context.check.equal("there is one refund", len(refunds), 1)
    again = context.write("PATCH", path, None, customer)
    context.check.problem("a second cancel: 409 NOT_CANCELLABLE", again, 409, "NOT_CANCELLABLE")


def partial_refunds_never_exceed_the_capture(context: ScenarioContext) -> None:
    """Partial refunds never exceed the capture; a cancel refunds the rest."""
    customer, support, product = (
        context.customer(1),
        context.support(),
        context.create_product(price=3000, stock=5),
    )
    order = context.place_paid_order(customer, (product["id"], 1))
    path = f"/orders/{order['id']}/refunds"
    part = {"amount": 1000, "reason": "scratched"}
    context.check.problem("a refund by a customer: 403", context.post(path, part, customer), 403)
    response = context.post(path, part, support)
    context.check.status("a refund by support: 201", response, 201)
    seen = _refunded(context, customer, order["id"], 1000)
    context.check.equal("the part is refunded, the order stays PAID", seen, ("PAID", 1000))
    over = context.post(path, {**part, "amount": 2001}, support)
    context.check.problem("a refund over the rest: 409", over, 409)
    for amount in (0, -1):
        invalid = context.post(path, {**part, "amount": amount}, support)
        context.check.problem(f"a refund of {amount}: 422", invalid, 422)
    expect(context.write("PATCH", f"/orders/{order['id']}/cancel", None, customer), 200)
    end = context.wait_for_final_status(customer, order["id"])
    shown = (end["status"], end["refundedAmount"])
    context.check.equal("cancelling refunds the rest", shown, ("CANCELLED", 3000))
    context.check.equal("the stock is available again", context.stock(product["id"]), 5)


def _refunded(context: ScenarioContext, by: Account, order_id: str, amount: int) -> tuple[str, int]:
    seen = context.poll(
        lambda: context.read_order(by, order_id), lambda order: order["refundedAmount"] >= amount
    )
    return seen["status"], seen["refundedAmount"]


def orders_of_others_answer_404(context: ScenarioContext) -> None:
    """The order of another customer gets the same response as a missing order."""
    owner, other = context.customer(1), context.customer(2)
    order_id = context.place_paid_order(owner, (context.create_product()["id"], 1))["id"]
    missing = str(uuid4())
    body = {"paymentMethod": "CARD"}
    calls = (
        ("GET", "", None),
        ("GET", "/timeline", None),
        ("GET", "/receipt", None),
        ("PATCH", "/cancel", None),
        ("POST", "/payments", body),
    )
    for method, what, sent in calls:
        foreign = context.write(method, f"/orders/{order_id}{what}", sent, other)
        unknown = context.write(method, f"/orders/{missing}{what}", sent, other)
        name = f"{method} /orders/{{id}}{what}"
        context.check.problem(f"{name} of another customer: 404", foreign, 404, "NOT_FOUND")
        same = foreign.content.replace(order_id.encode(), missing.encode()) == unknown.content
        context.check.that(
            f"{name}: the same body as for a missing order", same, foreign.text + unknown.text
        )
    forged = context.get(f"/orders/{order_id}", other, x_user_id=str(owner.user_id))
    context.check.problem("X-User-Id of the owner: 404", forged, 404)
    anonymous = context.get(f"/orders/{order_id}")
    context.check.problem("without a token: 401", anonymous, 401)
    seen = context.read_order(owner, order_id)
    context.check.equal("the order is unchanged", seen["status"], "PAID")


def own_orders_are_listed_newest_first(context: ScenarioContext) -> None:
    """``GET /orders/me`` returns the customer's orders in pages, newest first."""
    customer, product = context.new_customer(), context.create_product(stock=20)
    placed = [context.place_order(customer, (product["id"], 1))["id"] for _ in range(5)]
    pages: list[list[str]] = []
    path = "/orders/me?limit=2"
    while path and len(pages) < 10:
        page = expect(context.get(path, customer), 200)
        pages.append([order["id"] for order in page.json()])
        path = next_link(page)
    context.check.equal("pages of two, two and one", [len(page) for page in pages], [2, 2, 1])
    walked = [order_id for page in pages for order_id in page]
    context.check.equal("all orders, newest first", walked, placed[::-1])
    context.check.problem("limit 0: 400", context.get("/orders/me?limit=0", customer), 400)
    context.check.problem("limit 101: 400", context.get("/orders/me?limit=101", customer), 400)
    context.check.problem("a forged cursor: 400", context.get("/orders/me?cursor=x", customer), 400)


def next_link(response: httpx.Response) -> str:
    """The path of the next page (RFC 8288), empty on the last one."""
    return response.links.get("next", {}).get("url", "")


STAFF = ("staff",)
SCENARIOS = (
    Scenario(placed_order_is_paid, STAFF),
    Scenario(order_of_many_lines_has_one_total, STAFF),
    Scenario(insufficient_stock_rejects_the_whole_order, STAFF),
    Scenario(changed_price_answers_409, STAFF),
    Scenario(declined_order_can_be_paid_again, STAFF),
    Scenario(provider_failures_end_in_one_capture, STAFF),
    Scenario(cancel_before_payment_returns_stock, STAFF),
    Scenario(cancel_after_payment_refunds_and_returns_stock, STAFF),
    Scenario(partial_refunds_never_exceed_the_capture, ("staff", "support")),
    Scenario(orders_of_others_answer_404, STAFF),
    Scenario(own_orders_are_listed_newest_first, STAFF),
)
