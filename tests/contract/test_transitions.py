"""The table of legal transitions is exactly what the rules can do, and says what announces it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from shop.orders import apply, decide
from shop.orders.decide import OrderState
from shop.schema.triggers_and_views import ALLOWED_TRANSITIONS
from tests import order_model
from tests.order_model import IllegalWrite
from tests.unit import test_model as model

PLACED = {("order", "-", "PENDING"), ("reservation", "-", "HELD")}


def _reachable_stories() -> set[OrderState]:
    """All stories of two attempts, with a provider whose word on voiding may not last."""
    rules = model.Rules(believes_404=True)
    first = model.State(order_model.placed(), (model.Attempt(),) * 2)
    seen, queue = {first}, deque([first])
    while queue:
        for _, after in model.steps(queue.popleft(), rules):
            if after not in seen:
                seen.add(after)
                queue.append(after)
    return {state.world.story for state in seen}


def _messages(story: OrderState) -> Iterator[Any]:
    yield from (
        decide.ChargeDue(),
        decide.PayAgainAsked("CARD"),
        decide.CancelAsked("USER"),
        decide.ExpiryDue(),
        decide.RefundAsked(1, "x"),
        decide.FinishDue(),
    )
    for payment in story.payments:
        yield decide.Captured(payment.payment_id, payment.amount_minor, payment.currency)
        yield decide.Declined(payment.payment_id)
        yield decide.Voided(payment.payment_id)
        yield decide.Unclear(payment.payment_id)
    for refund in story.refunds:
        yield decide.Refunded(refund.refund_id)
        yield decide.RefundRejected(refund.refund_id)
        yield decide.RefundUnclear(refund.refund_id)


def _transition(effect: Any) -> tuple[str, str, str] | None:
    match effect:
        case decide.MoveOrder():
            return "order", effect.from_status, effect.to_status
        case decide.MoveStock():
            return "reservation", effect.from_status, effect.to_status
        case decide.MovePayment():
            return "payment", effect.from_status, effect.to_status
        case decide.MoveRefund():
            return "refund", effect.from_status, effect.to_status
        case decide.OpenPayment():
            return "payment", "-", "INTENT"
        case decide.OpenRefund():
            return "refund", "-", "INTENT"
    return None


def test_the_legal_transitions_are_exactly_those_that_the_rules_make() -> None:
    made = set(PLACED)
    for story in _reachable_stories():
        for message in _messages(story):
            made.update(filter(None, map(_transition, decide.decide(story, message))))

    assert made == {(entity, old, new) for entity, old, new, _ in ALLOWED_TRANSITIONS}


def test_what_announces_a_transition_is_what_the_saga_says() -> None:
    announced = {("order", "PENDING"): "order.placed", **apply.ANNOUNCED_AS}
    for entity, _, to_status, event in ALLOWED_TRANSITIONS:
        assert announced.get((entity, to_status)) == event, (entity, to_status)


def test_no_message_to_a_reachable_story_meets_a_constraint() -> None:
    """Whatever comes, to whatever can be: the effects can be written."""
    for story in _reachable_stories():
        stock = {"PENDING": "HELD", "PAID": "COMMITTED"}.get(story.order.status, "RELEASED")
        world = order_model.World(story, (order_model.Line(status=stock),))
        for message in _messages(story):
            try:
                order_model.apply_message(world, message)
            except IllegalWrite as error:
                raise AssertionError(f"{message} to {story}") from error
