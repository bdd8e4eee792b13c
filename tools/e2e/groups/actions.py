"""Payments that need their customer: every end of what the customer does, or does not do."""

from __future__ import annotations

import httpx

from tools.e2e.accounts import Account
from tools.e2e.client import JsonObject
from tools.e2e.context import ScenarioContext, expect, payment_of, run_simultaneously
from tools.e2e.scenario import Scenario

PRICE = 3_300
NEEDS = ("staff", "payment simulator")
# What a return after the deadline answers: before and after the payment is voided.
CLOSED = ("ACTION_EXPIRED", "NOT_PAYABLE")


def redirect_is_paid_once_its_customer_finishes(context: ScenarioContext) -> None:
    """Only the customer sees the link; finishing it again changes nothing."""
    customer = context.customer(1)
    order = _ordered(context, customer, "CARD_REDIRECT")
    action = payment_of(order)["nextAction"]
    context.check.equal("it says where to go, until when", sorted(action), ["type", "until", "url"])
    context.check.equal("the payment waits", payment_of(order)["status"], "REQUIRES_ACTION")
    context.check.equal("and so does the order", order["status"], "PENDING")
    by_support = context.read_order(context.support(), order["id"])
    context.check.that("support does not see it", "nextAction" not in payment_of(by_support))
    foreign = context.get(f"/orders/{order['id']}", context.customer(2))
    context.check.problem("another customer sees no order: 404", foreign, 404)
    finished = [context.act(order)[0] for _ in range(2)]
    context.check.equal("the customer finishes it, twice", finished, [200, 200])
    _check_paid(context, customer, order)


def widget_is_paid_once_by_repeated_returns(context: ScenarioContext) -> None:
    """Nothing is collected before the return; simultaneous returns confirm it once."""
    by, order = _ordered_from_cart(context, "CARD_WIDGET")
    _, token = context.act(order)
    context.check.equal(
        "finishing the widget pays nothing yet",
        payment_of(context.read_order(by, order["id"]))["status"],
        "REQUIRES_ACTION",
    )
    foreign = context.confirm(context.customer(1), order, token)
    context.check.problem("another customer's return: 404", foreign, 404)
    returns = run_simultaneously([lambda: context.confirm(by, order, token)] * 3)
    statuses = [response.status_code for response in returns]
    context.check.equal("three returns at once: 202 each", statuses, [202] * 3)
    _check_paid(context, by, order)
    again = context.confirm(by, order, token)
    context.check.status("a return after that: 202", again, 202)
    captures = context.status_changes(by, order["id"], "payment").count(
        ("REQUIRES_ACTION", "CAPTURED")
    )
    context.check.equal("it was captured once", captures, 1)


def return_that_does_not_fit_confirms_nothing(context: ScenarioContext) -> None:
    """Another amount, another order's payment, a forged token; then the right return pays."""
    customer = context.customer(1)
    order = _ordered(context, customer, "CARD_WIDGET")
    other = _ordered(context, customer, "CARD_WIDGET")
    _, token = context.act(order)
    for amount in (1, PRICE + 1):
        answer = context.confirm(customer, order, token, amount)
        context.check.problem(f"{amount} instead of the total", answer, 409, "AMOUNT_MISMATCH")
    mixed = {**order, "payment": other["payment"]}
    answer = context.confirm(customer, mixed, token)
    context.check.problem("the payment of another order", answer, 404)
    forged = context.confirm(customer, order, "forged")
    context.check.status("a forged token is accepted for a try: 202", forged, 202)
    waiting = context.wait_for_action(customer, order["id"], "widget")
    same = payment_of(waiting)["nextAction"] == payment_of(order)["nextAction"]
    context.check.that("the same action is required, until the same time", same, waiting)
    context.check.status("the right return: 202", context.confirm(customer, order, token), 202)
    _check_paid(context, customer, order)
    _cancel(context, customer, other)


def customer_who_fails_pays_in_another_way(context: ScenarioContext) -> None:
    """A failed redirect is declined; the next attempt may require an action too."""
    customer = context.customer(1)
    order = _ordered(context, customer, "CARD_REDIRECT")
    context.act(order, "fail")
    declined = context.wait_for_decline(customer, order["id"])
    context.check.equal("it is declined", payment_of(declined)["status"], "DECLINED")
    expect(_pay_again(context, customer, order, "CARD_WIDGET"), 201)
    second = context.wait_for_action(customer, order["id"], "widget")
    context.check.equal("the second attempt waits", payment_of(second)["attempt"], 2)
    expect(_pay_again(context, customer, order, "CARD_REDIRECT"), 201)
    third = context.poll(
        lambda: context.wait_for_action(customer, order["id"], "widget", "redirect"),
        lambda seen: payment_of(seen)["attempt"] == 3,
    )
    _, token = context.act(third)
    late = context.confirm(customer, second, token)
    context.check.problem("the attempt given up: 409", late, 409, "NOT_PAYABLE")
    _check_paid(context, customer, third)


def abandoned_payment_ends_at_its_deadline(context: ScenarioContext) -> None:
    """It is voided; a late return confirms nothing, and the customer may pay in another way."""
    customer, product = context.customer(1), context.create_product(price=PRICE, stock=1)
    placed = context.place_order(customer, (product["id"], 1), method="CARD_WIDGET_BRIEF")
    order = context.wait_for_action(customer, placed["id"], "widget")
    context.act(order)
    over = context.poll(
        lambda: context.read_order(customer, order["id"]),
        lambda seen: payment_of(seen)["status"] == "VOIDED",
    )
    context.check.equal("it is voided", payment_of(over)["status"], "VOIDED")
    context.check.that("and requires nothing", "nextAction" not in payment_of(over), over)
    status, token = context.act(order)
    context.check.equal("the widget is closed", (status, token), (409, ""))
    late = context.confirm(customer, order, "late")
    context.check.problem("a late return: 409", late, 409)
    context.check.that("and says why", late.json()["error"] in CLOSED, late.text)
    context.check.equal("the order keeps its stock", context.stock(product["id"]), 0)
    expect(_pay_again(context, customer, order, "CARD"), 201)
    _check_paid(context, customer, order)


def return_after_a_cancellation_takes_no_money(context: ScenarioContext) -> None:
    """The widget's token confirms nothing; what a redirect collected nevertheless goes back."""
    customer, product = context.customer(1), context.create_product(price=PRICE, stock=1)
    placed = context.place_order(customer, (product["id"], 1), method="CARD_WIDGET")
    order = context.wait_for_action(customer, placed["id"], "widget")
    _, token = context.act(order)
    _cancel(context, customer, order)
    context.check.equal("the goods are in stock", context.stock(product["id"]), 1)
    late = context.confirm(customer, order, token)
    context.check.problem("the return: 409", late, 409, "NOT_PAYABLE")
    paid_late = _ordered(context, customer, "CARD_REDIRECT_LATE")
    _cancel(context, customer, paid_late)
    context.check.equal("its customer pays after that", context.act(paid_late)[0], 200)
    returned = context.poll(
        lambda: context.read_order(customer, paid_late["id"]),
        lambda seen: seen["refundedAmount"] == PRICE,
    )
    context.check.equal("all of it is returned", returned["refundedAmount"], PRICE)
    context.check.equal("the order stays cancelled", returned["status"], "CANCELLED")


def transfer_is_paid_when_the_deposit_arrives(context: ScenarioContext) -> None:
    """The widget gives an account, with a deadline of its own."""
    customer = context.customer(1)
    order = _ordered(context, customer, "VIRTUAL_ACCOUNT")
    expect(context.confirm(customer, order, context.act(order)[1]), 202)
    waiting = context.wait_for_action(customer, order["id"], "transfer")
    action = payment_of(waiting)["nextAction"]
    context.check.equal("it says how much", (action["amount"], action["currency"]), (PRICE, "KRW"))
    context.check.that("and to which account", action["bank"] and action["accountNumber"], action)
    context.check.that(
        "with more time", action["until"] > payment_of(order)["nextAction"]["until"], action
    )
    context.check.equal("the customer transfers it", context.act(waiting, "deposit")[0], 200)
    _check_paid(context, customer, order)


def _ordered(context: ScenarioContext, by: Account, method: str) -> JsonObject:
    """An order of one unit whose payment waits for its customer."""
    product = context.create_product(price=PRICE, stock=2)
    placed = context.place_order(by, (product["id"], 1), method=method)
    return context.wait_for_action(by, placed["id"], "redirect", "widget")


def _ordered_from_cart(context: ScenarioContext, method: str) -> tuple[Account, JsonObject]:
    """As ``_ordered``, from the cart of a new customer."""
    by, product = context.new_customer(), context.create_product(price=PRICE, stock=2)
    expect(context.post("/cart/items", {"productId": product["id"], "quantity": 1}, by), 201)
    placed = expect(context.post("/orders/from-cart", {"paymentMethod": method}, by), 201).json()
    return by, context.wait_for_action(by, placed["id"], "redirect", "widget")


def _check_paid(context: ScenarioContext, by: Account, order: JsonObject) -> None:
    final = context.wait_for_final_status(by, order["id"])
    context.check.equal("the order is paid", final["status"], "PAID")
    payment = payment_of(final)
    context.check.equal("the payment is captured", payment["status"], "CAPTURED")
    context.check.that("and requires nothing more", "nextAction" not in payment, payment)


def _pay_again(
    context: ScenarioContext, by: Account, order: JsonObject, method: str
) -> httpx.Response:
    return context.post(f"/orders/{order['id']}/payments", {"paymentMethod": method}, by)


def _cancel(context: ScenarioContext, by: Account, order: JsonObject) -> None:
    expect(context.write("PATCH", f"/orders/{order['id']}/cancel", None, by), 200)
    final = context.wait_for_final_status(by, order["id"])
    context.check.equal("the order is cancelled", final["status"], "CANCELLED")
    context.check.equal("no money was taken", final["refundedAmount"], 0)


SCENARIOS = (
    Scenario(redirect_is_paid_once_its_customer_finishes, needs=(*NEEDS, "support")),
    Scenario(widget_is_paid_once_by_repeated_returns, needs=NEEDS),
    Scenario(return_that_does_not_fit_confirms_nothing, needs=NEEDS),
    Scenario(customer_who_fails_pays_in_another_way, needs=NEEDS),
    Scenario(abandoned_payment_ends_at_its_deadline, needs=NEEDS),
    Scenario(return_after_a_cancellation_takes_no_money, needs=NEEDS),
    Scenario(transfer_is_paid_when_the_deposit_arrives, needs=NEEDS),
)
