"""Payments that require an action: every end of what a customer does, or does not do."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.harness import (
    PAID,
    REFUNDED,
    FlowHarness,
    MakeShop,
    Outcome,
    Person,
    assert_idle_and_consistent,
)
from tools.payment_simulator.actions import BRIEF_SECONDS

PRICE = 1000
WAITING: Outcome = ("PENDING", ["REQUIRES_ACTION"], [], ["HELD"])
EXPIRED: Outcome = ("CANCELLED", ["VOIDED"], [], ["RELEASED"])


@pytest.fixture
def buyer(flow: FlowHarness) -> Person:
    return flow.shop.person()


def _ordered(flow: FlowHarness, buyer: Person, method: str) -> Any:
    """An order whose payment waits for the customer, as the customer reads it."""
    order = buyer.order(flow.shop.product(price=PRICE), method=method)
    flow.run_until_idle()
    assert flow.outcome(order) == WAITING
    return buyer.get(f"/orders/{order['id']}").json


def _ordered_from_cart(flow: FlowHarness, buyer: Person, method: str) -> Any:
    """As ``_ordered``, from a cart of one product."""
    buyer.post("/cart/items", {"productId": flow.shop.product(price=PRICE), "quantity": 1})
    order = buyer.post("/orders/from-cart", {"paymentMethod": method}).json
    flow.run_until_idle()
    assert flow.outcome(order) == WAITING
    return buyer.get(f"/orders/{order['id']}").json


def _act(flow: FlowHarness, order: Any, step: str = "finish") -> Any:
    """The customer's part at the provider; returns the token and the amount."""
    (row,) = flow.shop.sql(
        "select provider_key from shop.payments where payment_id = %s", order["payment"]["id"]
    )
    intents = flow.simulator.records()["intents"]
    ref = next(i["provider_ref"] for i in intents if i["key"] == row["provider_key"])
    return flow.simulator.request("POST", f"/pay/{ref}/{step}", api_key="")


def _confirm(
    buyer: Person, order: Any, token: str, amount: int = PRICE, **options: Any
) -> tuple[int, str]:
    path = f"/orders/{order['id']}/payments/{order['payment']['id']}/confirm"
    response = buyer.post(path, {"token": token, "amount": amount}, **options)
    return response.status, "" if response.status < 300 else response.error


def _end_time_to_act(flow: FlowHarness, order: Any) -> None:
    flow.shop.sql(
        "update shop.payments set act_until = now() - interval '1 second', next_try_at = now() "
        "where payment_id = %s",
        order["payment"]["id"],
    )


def _end_of_abandoned(flow: FlowHarness, order: Any) -> None:
    """The deadline, then the expiry of the order, by timers alone."""
    _end_time_to_act(flow, order)
    flow.expire_order(order["id"])
    flow.run_timers_only()
    flow.sweep_all()


def test_next_action_of_a_redirect_is_shown_to_the_customer_only(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered(flow, buyer, "CARD_REDIRECT")

    action = order["payment"]["nextAction"]
    assert (action["type"], sorted(action)) == ("redirect", ["type", "until", "url"])
    assert action["url"].startswith(flow.simulator.url)
    support = flow.shop.person("support").get(f"/orders/{order['id']}")
    assert (support.status, "nextAction" in support.json["payment"]) == (200, False)
    assert flow.shop.person().get(f"/orders/{order['id']}").status == 404


def test_payment_without_an_action_has_none(flow: FlowHarness, buyer: Person) -> None:
    order = buyer.paid_order(flow.shop.product())

    assert sorted(order["payment"]) == ["attempt", "id", "status"]


def test_customer_who_finishes_a_redirect_pays_by_webhook_or_reconciliation(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered(flow, buyer, "CARD_REDIRECT")

    status, _ = _act(flow, order)
    flow.reconcile()

    assert (status, flow.outcome(order)) == (200, PAID)
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("by_events", [True, False], ids=["events", "timers"])
def test_widget_is_collected_only_once_the_return_is_confirmed(
    flow: FlowHarness, buyer: Person, by_events: bool
) -> None:
    order = _ordered(flow, buyer, "CARD_WIDGET")
    _, acted = _act(flow, order)
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 0

    assert _confirm(buyer, order, acted["token"]) == (202, "")
    assert "nextAction" not in buyer.get(f"/orders/{order['id']}").json["payment"]
    if by_events:
        flow.deliver()
    else:
        flow.discard_events()
        assert flow.shop.tick("sweep").status == 204

    assert flow.outcome(order) == PAID
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 1
    assert_idle_and_consistent(flow)


def test_doubled_returns_are_confirmed_once(flow: FlowHarness, buyer: Person) -> None:
    order = _ordered(flow, buyer, "CARD_WIDGET")
    _, acted = _act(flow, order)

    answers = [_confirm(buyer, order, acted["token"]) for _ in range(2)]
    answers.append(_confirm(buyer, order, "another-token"))
    flow.deliver(times=3)
    answers.append(_confirm(buyer, order, acted["token"]))
    flow.run_until_idle()

    accepted = (202, "")
    assert answers == [accepted, accepted, (409, "PAYMENT_IN_PROGRESS"), accepted]
    assert flow.outcome(order) == PAID
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 1
    assert_idle_and_consistent(flow)


def test_repeated_key_of_a_return_has_the_same_response(flow: FlowHarness, buyer: Person) -> None:
    order = _ordered(flow, buyer, "CARD_WIDGET")
    _, acted = _act(flow, order)
    path = f"/orders/{order['id']}/payments/{order['payment']['id']}/confirm"
    body = {"token": acted["token"], "amount": PRICE}

    first, again = (buyer.post(path, body, key="key-of-a-return-to-the-shop") for _ in "ab")

    assert (first.status, again.status, again.body) == (202, 202, first.body)


@pytest.mark.parametrize("amount", [1, PRICE + 1])
def test_return_with_another_amount_confirms_nothing(
    flow: FlowHarness, buyer: Person, amount: int
) -> None:
    order = _ordered(flow, buyer, "CARD_WIDGET")
    _, acted = _act(flow, order)

    assert _confirm(buyer, order, acted["token"], amount) == (409, "AMOUNT_MISMATCH")

    assert flow.outcome(order) == WAITING
    assert flow.shop.outbox() == []
    assert _confirm(buyer, order, acted["token"]) == (202, "")


def test_return_for_another_order_is_not_found(flow: FlowHarness, buyer: Person) -> None:
    order, other = (_ordered(flow, buyer, "CARD_WIDGET") for _ in range(2))
    foreign = _ordered(flow, flow.shop.person(), "CARD_WIDGET")

    mixed = {**order, "payment": other["payment"]}
    unknown = {**order, "payment": {"id": str(uuid4())}}
    answers = [_confirm(buyer, each, "t") for each in (mixed, unknown, foreign)]

    assert answers == [(404, "NOT_FOUND")] * 3
    assert flow.outcome(order) == flow.outcome(other) == flow.outcome(foreign) == WAITING


def test_token_that_is_no_good_lets_the_customer_act_until_the_same_deadline(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered(flow, buyer, "CARD_WIDGET")

    assert _confirm(buyer, order, "forged") == (202, "")
    flow.run_until_idle()

    again = buyer.get(f"/orders/{order['id']}").json
    assert flow.outcome(order) == WAITING
    assert again["payment"]["nextAction"] == order["payment"]["nextAction"]
    _, acted = _act(flow, order)
    assert _confirm(buyer, order, acted["token"]) == (202, "")
    flow.run_until_idle()
    assert flow.outcome(order) == PAID


@pytest.mark.parametrize("method", ["CARD_REDIRECT", "CARD_WIDGET", "VIRTUAL_ACCOUNT"])
def test_abandoned_payment_ends_at_its_deadline_and_frees_the_stock(
    flow: FlowHarness, buyer: Person, method: str
) -> None:
    order = _ordered(flow, buyer, method)
    flow.expire_order(order["id"], hard=True)
    flow.sweep_all()
    assert flow.outcome(order) == WAITING, "the order waits for the deadline of the payment"

    _end_of_abandoned(flow, order)

    assert flow.outcome(order) == EXPIRED
    assert _act(flow, order)[0] == 409
    assert_idle_and_consistent(flow)


def test_late_return_confirms_nothing(flow: FlowHarness, buyer: Person) -> None:
    order = _ordered(flow, buyer, "CARD_WIDGET")
    _, acted = _act(flow, order)
    _end_time_to_act(flow, order)

    assert _confirm(buyer, order, acted["token"]) == (409, "ACTION_EXPIRED")
    _end_of_abandoned(flow, order)

    assert _confirm(buyer, order, acted["token"]) == (409, "NOT_PAYABLE")
    assert flow.outcome(order) == EXPIRED
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 0
    assert_idle_and_consistent(flow)


def test_money_that_arrives_after_the_deadline_is_refunded(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered(flow, buyer, "CARD_REDIRECT_LATE")
    _end_of_abandoned(flow, order)
    assert flow.outcome(order) == EXPIRED

    assert _act(flow, order)[0] == 200
    flow.reconcile()
    flow.run_until_idle()

    assert flow.outcome(order) == ("CANCELLED", ["CAPTURED late"], ["SUCCEEDED"], ["RELEASED"])
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("acts_first", [True, False])
def test_return_after_the_order_was_cancelled_takes_no_money(
    flow: FlowHarness, buyer: Person, acts_first: bool
) -> None:
    order = _ordered(flow, buyer, "CARD_WIDGET")
    token = _act(flow, order)[1]["token"] if acts_first else "t"

    assert buyer.patch(f"/orders/{order['id']}/cancel").json["status"] == "CANCELLING"
    assert _confirm(buyer, order, token) == (409, "NOT_PAYABLE")
    flow.run_until_idle()

    assert flow.outcome(order) == EXPIRED
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 0
    assert_idle_and_consistent(flow)


def test_redirect_that_is_finished_while_the_order_is_cancelled_is_refunded(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered(flow, buyer, "CARD_REDIRECT")
    buyer.patch(f"/orders/{order['id']}/cancel")

    _act(flow, order)
    flow.run_until_idle()

    assert flow.outcome(order) == ("CANCELLED", ["CAPTURED"], ["SUCCEEDED"], ["RELEASED"])
    assert_idle_and_consistent(flow)


def test_customer_who_fails_may_pay_again(flow: FlowHarness, buyer: Person) -> None:
    order = _ordered(flow, buyer, "CARD_REDIRECT")
    _act(flow, order, "fail")
    flow.send_webhook("charge.declined", flow.payment_key(order["id"]), PRICE)

    assert buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"}).status == 201
    flow.run_until_idle()

    assert flow.outcome(order) == ("PAID", ["DECLINED", "CAPTURED"], [], ["COMMITTED"])
    assert_idle_and_consistent(flow)


def test_customer_may_pay_in_another_way_instead_of_acting(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered(flow, buyer, "CARD_REDIRECT")

    assert buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"}).status == 201
    flow.run_until_idle()

    assert flow.outcome(order) == ("PAID", ["VOIDED", "CAPTURED"], [], ["COMMITTED"])
    assert _act(flow, order)[0] == 409
    assert_idle_and_consistent(flow)


def test_virtual_account_is_paid_hours_later_beyond_the_expiry_of_the_order(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered(flow, buyer, "VIRTUAL_ACCOUNT")
    _, acted = _act(flow, order)
    _confirm(buyer, order, acted["token"])
    flow.run_until_idle()

    action = buyer.get(f"/orders/{order['id']}").json["payment"]["nextAction"]
    assert (action["type"], action["amount"], action["currency"]) == ("transfer", PRICE, "KRW")
    assert action["until"] > order["payment"]["nextAction"]["until"]
    flow.expire_order(order["id"], hard=True)
    flow.sweep_all()
    assert flow.outcome(order) == WAITING
    _act(flow, order, "deposit")
    flow.reconcile()

    assert flow.outcome(order) == PAID
    assert_idle_and_consistent(flow)


def test_paid_order_whose_payment_required_an_action_can_be_cancelled(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered(flow, buyer, "CARD_REDIRECT")
    _act(flow, order)
    flow.reconcile()

    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_until_idle()

    assert flow.outcome(order) == REFUNDED
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("method", ["CARD_REDIRECT", "CARD_WIDGET", "VIRTUAL_ACCOUNT"])
def test_order_from_the_cart_requires_and_is_paid_like_an_order_of_lines(
    flow: FlowHarness, buyer: Person, method: str
) -> None:
    of_lines = _ordered(flow, buyer, method)
    buyer.patch(f"/orders/{of_lines['id']}/cancel")
    order = _ordered_from_cart(flow, buyer, method)

    same, action = (each["payment"]["nextAction"] for each in (of_lines, order))
    assert (action["type"], action.keys()) == (same["type"], same.keys())
    _, acted = _act(flow, order)
    if action["type"] == "widget":
        assert _confirm(buyer, order, acted["token"]) == (202, "")
        flow.run_until_idle()
    if method == "VIRTUAL_ACCOUNT":
        _act(flow, order, "deposit")
    flow.reconcile()

    assert flow.outcome(order) == PAID
    assert buyer.get("/cart").json == []
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("method", ["CARD_REDIRECT", "CARD_WIDGET", "VIRTUAL_ACCOUNT"])
def test_abandoned_payment_of_an_order_from_the_cart_returns_its_lines(
    flow: FlowHarness, buyer: Person, method: str
) -> None:
    order = _ordered_from_cart(flow, buyer, method)
    assert buyer.get("/cart").json == [], "the lines are the order's while its customer may act"

    _end_of_abandoned(flow, order)

    assert flow.outcome(order) == EXPIRED
    (line,) = buyer.get("/cart").json
    assert (line["productId"], line["quantity"]) == (order["productId"], 1)
    assert_idle_and_consistent(flow)


def test_late_return_for_an_order_from_the_cart_leaves_its_lines_in_the_cart(
    flow: FlowHarness, buyer: Person
) -> None:
    order = _ordered_from_cart(flow, buyer, "CARD_REDIRECT_LATE")
    _end_of_abandoned(flow, order)

    _act(flow, order)
    flow.reconcile()
    flow.run_until_idle()

    assert flow.outcome(order) == ("CANCELLED", ["CAPTURED late"], ["SUCCEEDED"], ["RELEASED"])
    assert len(buyer.get("/cart").json) == 1
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("method", ["CARD_REDIRECT", "CARD_WIDGET"])
@pytest.mark.parametrize("order_of", [_ordered, _ordered_from_cart])
def test_next_attempt_may_require_an_action_too(
    flow: FlowHarness, buyer: Person, order_of: Any, method: str
) -> None:
    """Instead of the first action; the first payment can no longer be confirmed."""
    first = order_of(flow, buyer, "CARD_WIDGET")
    _, acted_first = _act(flow, first)

    path = f"/orders/{first['id']}/payments"
    assert buyer.post(path, {"paymentMethod": method}).status == 201
    flow.run_until_idle()

    order = buyer.get(f"/orders/{first['id']}").json
    assert (order["payment"]["attempt"], order["payment"]["status"]) == (2, "REQUIRES_ACTION")
    assert _confirm(buyer, first, acted_first["token"]) == (409, "NOT_PAYABLE")
    _, acted = _act(flow, order)
    if method == "CARD_WIDGET":
        assert _confirm(buyer, order, acted["token"]) == (202, "")
    flow.run_until_idle()
    flow.reconcile()
    assert flow.outcome(order) == ("PAID", ["VOIDED", "CAPTURED"], [], ["COMMITTED"])
    assert buyer.get("/cart").json == []
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("order_of", [_ordered, _ordered_from_cart])
def test_last_attempt_that_is_abandoned_cancels_the_order(
    flow: FlowHarness, buyer: Person, order_of: Any
) -> None:
    """A fourth attempt cannot replace the action of the third, whose deadline ends the order."""
    order = order_of(flow, buyer, "CARD_WIDGET")
    path = f"/orders/{order['id']}/payments"
    for _ in range(2):
        assert buyer.post(path, {"paymentMethod": "CARD_WIDGET"}).status == 201
        flow.run_until_idle()
    assert buyer.post(path, {"paymentMethod": "CARD"}).error == "PAYMENT_IN_PROGRESS"

    _end_time_to_act(flow, buyer.get(f"/orders/{order['id']}").json)
    flow.run_timers_only()
    flow.sweep_all()

    expected: Outcome = ("CANCELLED", ["VOIDED"] * 3, [], ["RELEASED"])
    assert flow.outcome(order) == expected
    assert len(buyer.get("/cart").json) == (order_of is _ordered_from_cart)
    assert_idle_and_consistent(flow)


def test_action_that_the_provider_ends_sooner_has_the_provider_s_deadline(
    flow: FlowHarness, buyer: Person
) -> None:
    usual, brief = (_ordered(flow, buyer, m) for m in ("CARD_WIDGET", "CARD_WIDGET_BRIEF"))

    rows = flow.shop.sql(
        "select order_id, extract(epoch from act_until - updated_at)::int as seconds "
        "from shop.payments"
    )

    seconds = {str(row["order_id"]): row["seconds"] for row in rows}
    assert (seconds[usual["id"]], seconds[brief["id"]]) == (900, BRIEF_SECONDS)


@pytest.mark.parametrize("method", ["CARD_REDIRECT", "CARD_WIDGET"])
def test_payment_that_needs_its_customer_stays_unknown_where_no_action_is_offered(
    make_shop: MakeShop, method: str
) -> None:
    """As in version 0.1.0, until its order expires; nothing that release cannot read is stored."""
    shop = make_shop(payment_action_seconds=0, payment_transfer_seconds=0)
    buyer = shop.person()
    order = buyer.order(shop.product(price=PRICE), method=method)
    shop.deliver_all()

    payment = buyer.get(f"/orders/{order['id']}").json["payment"]
    assert (payment["status"], "nextAction" in payment) == ("UNKNOWN", False)
    shop.sql(
        "update shop.orders set expires_at = now(), hard_expires_at = now() where order_id = %s",
        order["id"],
    )
    for _ in range(3):
        shop.sql("update shop.payments set next_try_at = now() where status = 'UNKNOWN'")
        assert shop.tick("sweep").status == 204
        shop.deliver_all()

    final = buyer.get(f"/orders/{order['id']}").json
    assert (final["status"], final["payment"]["status"]) == ("CANCELLED", "VOIDED")
    history = shop.sql("select to_status from shop.transitions where entity = 'payment'")
    assert [row["to_status"] for row in history] == ["INTENT", "UNKNOWN", "VOIDED"]
