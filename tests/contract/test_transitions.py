"""The table of legal transitions holds exactly what the rules can do, with the events."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest

from shop.adapters.payment_provider.protocol import NextAction
from shop.orders import apply, decide, messages
from shop.orders.effects import Effects
from shop.orders.messages import Message
from shop.orders.states import OrderState
from shop.primitives.statuses import (
    CREATED,
    ActionType,
    CancelReason,
    DisputeStatus,
    OrderStatus,
    ReservationStatus,
)
from shop.schema.triggers_and_views import ALLOWED_TRANSITIONS
from tests import order_model
from tests.order_model import IllegalWrite
from tests.unit import test_decide_interleavings as interleavings
from tests.unit.test_decide_sequences import status_change_of

# As in the tests of the interleavings, whose states these are: minutes on a loaded machine.
pytestmark = [pytest.mark.no_cover, pytest.mark.timeout(600)]

PLACED = {("order", CREATED, OrderStatus.PENDING), ("reservation", CREATED, ReservationStatus.HELD)}


@cache
def _reachable_states() -> frozenset[OrderState]:
    """All states of two attempts, of one with a provider that acts without a request, and of one
    whose customer has to act.

    The provider does not remember a void.
    """
    rules = interleavings.Rules(treats_404_as_final=True)
    return (
        _states(2, rules)
        | _states(1, replace(rules, provider_acts=True))
        | _states(1, replace(rules, with_action=1, in_flight=1))
    )


def _states(attempts: int, rules: interleavings.Rules, units: int = 1) -> frozenset[OrderState]:
    placed = order_model.placed(((units, 1),))
    first = interleavings.State(placed, (interleavings.Attempt(),) * attempts)
    seen, queue = {first}, deque([first])
    while queue:
        for _, after in interleavings.steps(queue.popleft(), rules):
            if after not in seen:
                seen.add(after)
                queue.append(after)
    return frozenset(each.model.state for each in seen)


def _messages(state: OrderState) -> Iterator[Message]:
    yield from (
        messages.ChargeDue(),
        messages.PayAgainRequested("CARD"),
        messages.CancelRequested(CancelReason.USER),
        messages.ExpiryDue(),
        messages.RefundRequested(1, "x"),
        messages.FinishDue(),
    )
    for payment in state.payments:
        yield messages.Captured(payment.payment_id, payment.amount_minor, payment.currency)
        yield messages.Declined(payment.payment_id)
        yield messages.Voided(payment.payment_id)
        yield messages.PaymentUnknown(payment.payment_id)
        yield messages.ActionRequired(payment.payment_id, NextAction(ActionType.WIDGET, {}, 1))
        yield messages.ActionReturned(payment.payment_id, "token", payment.amount_minor)
        yield interleavings.found(payment)
        for status in DisputeStatus:
            yield from interleavings.reports(payment, status)
    for refund in state.refunds:
        yield messages.Refunded(refund.refund_id)
        yield messages.RefundRejected(refund.refund_id)
        yield messages.RefundUnknown(refund.refund_id)


def test_the_legal_transitions_are_exactly_those_that_the_rules_make() -> None:
    made: set[tuple[str, str, str]] = {*PLACED}

    def decide_and_note(state: OrderState, message: Message) -> Effects:
        decided = decide.decide(state, message)
        made.update(filter(None, map(status_change_of, decided)))
        return decided

    # of two units, so that one of them can be cancelled
    _states(1, interleavings.Rules(decide_and_note, staff_ship=True, in_flight=1), units=2)
    for state in _reachable_states():
        for message in _messages(state):
            made.update(filter(None, map(status_change_of, decide.decide(state, message))))

    assert made == {(entity, old, new) for entity, old, new, _ in ALLOWED_TRANSITIONS}


def test_each_transition_has_the_event_that_apply_announces() -> None:
    announced = {("order", "PENDING"): "order.placed", **apply.ANNOUNCED_AS}
    for entity, _, to_status, event in ALLOWED_TRANSITIONS:
        assert announced.get((entity, to_status)) == event, (entity, to_status)


def test_every_message_to_every_reachable_state_can_be_written() -> None:
    for state in _reachable_states():
        stock = {
            OrderStatus.PENDING: ReservationStatus.HELD,
            OrderStatus.PAID: ReservationStatus.COMMITTED,
            OrderStatus.REFUNDED: ReservationStatus.RETURNED,
        }.get(state.order.status, ReservationStatus.RELEASED)
        model = order_model.ModelOrder(state, (order_model.Line(status=stock),))
        for message in _messages(state):
            try:
                order_model.apply_message(model, message)
            except IllegalWrite as error:
                raise AssertionError(f"{message} to {state}") from error
