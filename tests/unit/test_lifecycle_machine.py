"""Random long stories of one order: what the exhaustive model leaves out.

Through the shipped ``decide()``, with many lines, partial and rejected refunds, answers that name
another amount, a provider with and without tombstones.  Messages are lost, repeated and late;
workers die between any two steps, and before they commit.
CI tells 300 stories of 60 steps, which takes some 15 seconds of one processor;
``HYPOTHESIS_PROFILE=long`` tells 2,000 of 100.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shop.orders import decide
from shop.orders.decide import Effects, OrderState, Payment, Refund
from shop.schema.triggers_and_views import ALLOWED_TRANSITIONS
from tests import order_model
from tests.order_model import World

EXAMPLES, STEPS = (2_000, 100) if os.environ.get("HYPOTHESIS_PROFILE") == "long" else (300, 60)
TIMER_ROUNDS_MAX = 60
PICK = st.integers(min_value=0, max_value=1_000)
# quantities and unit prices
LINES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=4)
REFUND_MAX = 20
ENTITIES = {
    decide.MoveOrder: "order",
    decide.MoveStock: "reservation",
    decide.MovePayment: "payment",
    decide.OpenPayment: "payment",
    decide.MoveRefund: "refund",
    decide.OpenRefund: "refund",
}
LEGAL = {(entity, old, new) for entity, old, new, _ in ALLOWED_TRANSITIONS}


class Provider:
    """The provider's books: each key is executed at most once, however often it is asked."""

    def __init__(self, *, leaves_tombstones: bool) -> None:
        self.leaves_tombstones = leaves_tombstones
        self.total_minor = 0
        self.charges: dict[Any, str] = {}
        self.refunds: dict[Any, str] = {}
        self.amounts: dict[Any, int] = {}

    @property
    def held(self) -> int:
        captured = self.total_minor * list(self.charges.values()).count("captured")
        given_back = sum(
            self.amounts[key] for key, status in self.refunds.items() if status == "succeeded"
        )
        return captured - given_back

    def charge(self, payment_id: Any, *, approves: bool) -> None:
        self.charges.setdefault(payment_id, "captured" if approves else "declined")

    def cancel(self, payment_id: Any) -> str:
        """What the charge had become, else voided; only a tombstone makes that last."""
        if self.leaves_tombstones:
            return self.charges.setdefault(payment_id, "voided")
        return self.charges.get(payment_id, "voided")

    def refund(self, refund: Refund, *, accepts: bool) -> None:
        self.amounts[refund.refund_id] = refund.amount_minor
        self.refunds.setdefault(refund.refund_id, "succeeded" if accepts else "rejected")


def watched(story: OrderState, message: Any) -> Effects:
    """The shipped rules; whatever they do to a status is in the table of legal transitions."""
    effects = decide.decide(story, message)
    steps = {step for effect in effects if (step := step_of(effect))}
    assert steps <= LEGAL, steps - LEGAL
    return effects


def step_of(effect: Any) -> tuple[str, str, str] | None:
    """The row of ``transitions`` that an effect writes."""
    entity = ENTITIES.get(type(effect))
    if isinstance(effect, decide.OpenPayment | decide.OpenRefund):
        return (entity or "", "-", "INTENT")
    return (entity, effect.from_status, effect.to_status) if entity else None


class OneOrder(RuleBasedStateMachine):
    """Rules are everything that can happen; each ends in the shipped ``decide()``."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World = order_model.placed()
        self.provider = Provider(leaves_tombstones=True)
        self.charges_in_flight: list[Any] = []
        self.refunds_in_flight: list[Refund] = []
        self.messages: list[Any] = []

    @initialize(lines=LINES, leaves_tombstones=st.booleans(), is_paid=st.booleans())
    def begin(self, lines: list[tuple[int, int]], leaves_tombstones: bool, is_paid: bool) -> None:
        """Half of the orders are paid at once: chance alone seldom gets as far as a refund."""
        self.world = order_model.placed(lines)
        self.provider.leaves_tombstones = leaves_tombstones
        self.provider.total_minor = self.total
        if is_paid:
            self.apply_message(decide.ChargeDue())
            payment = self.world.story.live
            assert payment is not None
            self.resolve(payment)

    @property
    def total(self) -> int:
        return self.world.story.order.total_minor

    def apply_message(self, message: Any) -> None:
        """Every step that a status takes is in the table of legal transitions (I-16's twin)."""
        self.world = order_model.apply_message(self.world, message, watched)

    def pick(self, rows: list[Any] | tuple[Any, ...], number: int) -> Any:
        return rows[number % len(rows)]

    # ------------------------------------------------------------ what people do

    @rule()
    def charge_event(self) -> None:
        self.apply_message(decide.ChargeDue())

    @precondition(lambda self: self.world.story.payments and not self.world.story.live)
    @rule()
    def pay_again(self) -> None:
        self.apply_message(decide.PayAgainAsked("CARD"))

    @precondition(lambda self: self.world.story.payments)
    @rule(
        reason=st.sampled_from(["USER", "OPERATOR"]), is_meant=st.sampled_from([True] + 7 * [False])
    )
    def cancel(self, reason: str, is_meant: bool) -> None:
        """Seldom, since it ends the story."""
        if is_meant:
            self.apply_message(decide.CancelAsked(reason))

    @precondition(lambda self: self.world.story.kept)
    @rule(amount=st.integers(min_value=1, max_value=REFUND_MAX))
    def ask_for_a_refund(self, amount: int) -> None:
        self.apply_message(decide.RefundAsked(amount, "support"))

    @precondition(lambda self: len(self.world.story.payments) > 1)
    @rule(hard=st.booleans())
    def time_passes(self, hard: bool) -> None:
        self.world = order_model.with_expiry(self.world, hard=hard)
        self.apply_message(decide.ExpiryDue())

    # ------------------------------------------------------------ workers

    @precondition(lambda self: self.world.story.live)
    @rule()
    def a_worker_is_allowed_to_charge(self) -> None:
        payment = self.world.story.live
        assert payment is not None
        if decide.provider_step(self.world.story, payment) == "confirm":
            self.charges_in_flight.append(payment.payment_id)

    @precondition(lambda self: self.charges_in_flight)
    @rule(number=PICK, approves=st.booleans(), is_answered=st.booleans(), dies=st.booleans())
    def the_charge_arrives(
        self, number: int, approves: bool, is_answered: bool, dies: bool
    ) -> None:
        """Now or much later; a worker that died is followed by others with the same key."""
        payment_id = self.pick(self.charges_in_flight, number)
        if not dies:
            self.charges_in_flight.remove(payment_id)
        self.provider.charge(payment_id, approves=approves)
        if is_answered:
            self.messages.append(self.word_on(payment_id))
        else:
            self.messages.append(decide.Unclear(payment_id))

    @precondition(lambda self: self.charges_in_flight)
    @rule(number=PICK)
    def a_charge_is_lost(self, number: int) -> None:
        self.charges_in_flight.remove(self.pick(self.charges_in_flight, number))

    @precondition(lambda self: self.world.story.live)
    @rule(is_answered=st.booleans())
    def ask_to_void(self, is_answered: bool) -> None:
        payment = self.world.story.live
        assert payment is not None
        if decide.provider_step(self.world.story, payment) == "cancel":
            word = self.provider.cancel(payment.payment_id)
            if is_answered:
                self.messages.append(self.word_on(payment.payment_id, word))

    @precondition(lambda self: self.world.story.refunds)
    @rule(number=PICK)
    def a_worker_sends_a_refund(self, number: int) -> None:
        self.refunds_in_flight.append(self.pick(self.world.story.refunds, number))

    @precondition(lambda self: self.refunds_in_flight)
    @rule(number=PICK, is_refused=st.sampled_from([False] * 4 + [True]), is_answered=st.booleans())
    def the_refund_arrives(self, number: int, is_refused: bool, is_answered: bool) -> None:
        refund = self.pick(self.refunds_in_flight, number)
        self.refunds_in_flight.remove(refund)
        self.provider.refund(refund, accepts=not is_refused)
        if is_answered:
            self.messages.append(self.word_on_refund(refund))
        else:
            self.messages.append(decide.RefundUnclear(refund.refund_id))

    # ------------------------------------------------------------ messages

    @precondition(lambda self: self.messages)
    @rule(number=PICK, comes_again=st.booleans())
    def a_message_arrives(self, number: int, comes_again: bool) -> None:
        """Twice in a row is like once; much later, it finds whatever it then finds."""
        message = self.pick(self.messages, number)
        if not comes_again:
            self.messages.remove(message)
        self.apply_message(message)
        once = self.world
        self.apply_message(message)
        assert self.world == once

    @precondition(lambda self: self.messages)
    @rule(number=PICK)
    def a_worker_dies_before_it_commits(self, number: int) -> None:
        """Nothing is written, the message comes again, and is decided as if it had never been."""
        message = self.pick(self.messages, number)
        first = decide.decide(self.world.story, message)
        assert decide.decide(self.world.story, message) == first

    @precondition(lambda self: self.messages)
    @rule(number=PICK)
    def a_message_is_lost(self, number: int) -> None:
        self.messages.remove(self.pick(self.messages, number))

    @precondition(lambda self: self.world.story.payments)
    @rule(number=PICK)
    def a_lie_arrives(self, number: int) -> None:
        payment = self.pick(self.world.story.payments, number)
        before = self.world.story
        self.apply_message(decide.Captured(payment.payment_id, self.total + 1, "KRW"))
        self.apply_message(decide.Mismatched(payment.payment_id, "another amount"))
        assert self.world.story.order == before.order

    def word_on(self, payment_id: Any, word: str | None = None) -> Any:
        match word or self.provider.charges[payment_id]:
            case "captured":
                return decide.Captured(payment_id, self.total, "KRW")
            case "declined":
                return decide.Declined(payment_id)
            case _:
                return decide.Voided(payment_id)

    def word_on_refund(self, refund: Refund) -> Any:
        if self.provider.refunds[refund.refund_id] == "succeeded":
            return decide.Refunded(refund.refund_id)
        return decide.RefundRejected(refund.refund_id)

    # ------------------------------------------------------------ what always holds

    @invariant()
    def no_rule_is_broken(self) -> None:
        assert order_model.violations(self.world) == []

    @invariant()
    def what_we_booked_the_provider_has(self) -> None:
        """I-11's twin: and whatever the provider holds was announced by a row of ours."""
        announced = {p.payment_id for p in self.world.story.payments}
        assert self.provider.charges.keys() <= announced
        assert self.provider.refunds.keys() <= {r.refund_id for r in self.world.story.refunds}
        booked_back = sum(a for kind, _, a in self.world.ledger if kind == "REFUND")
        given_back = sum(
            self.provider.amounts[key]
            for key, status in self.provider.refunds.items()
            if status == "succeeded"
        )
        captures = sum(a for kind, _, a in self.world.ledger if kind == "CAPTURE")
        assert booked_back <= given_back
        assert captures <= self.total * list(self.provider.charges.values()).count("captured")

    def teardown(self) -> None:
        """The timers alone, nothing lost any more: rest, with equal books on both sides."""
        for payment_id in self.charges_in_flight:
            self.provider.charge(payment_id, approves=True)
        for _ in range(TIMER_ROUNDS_MAX):
            before = self.world
            self.timers()
            if self.world == before:
                break
        assert order_model.faults_at_rest(self.world, self.provider.held) == []

    def timers(self) -> None:
        self.apply_message(decide.ChargeDue())
        payment = self.world.story.live
        if payment is not None:
            self.resolve(payment)
        for refund in self.world.story.refunds:
            if refund.status in decide.LIVE:
                self.provider.refund(refund, accepts=True)
                self.apply_message(self.word_on_refund(refund))
        self.reconcile()
        self.world = order_model.with_expiry(self.world, hard=True)
        self.apply_message(decide.ExpiryDue())
        self.apply_message(decide.FinishDue())

    def resolve(self, payment: Payment) -> None:
        if decide.provider_step(self.world.story, payment) == "confirm":
            self.provider.charge(payment.payment_id, approves=True)
            self.apply_message(self.word_on(payment.payment_id))
        else:
            self.apply_message(
                self.word_on(payment.payment_id, self.provider.cancel(payment.payment_id))
            )

    def reconcile(self) -> None:
        for payment_id, status in self.provider.charges.items():
            if status == "captured":
                self.apply_message(self.word_on(payment_id))
        for refund in self.world.story.refunds:
            if self.provider.refunds.get(refund.refund_id) == "succeeded":
                self.apply_message(decide.Refunded(refund.refund_id))


OneOrder.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestOneOrder = OneOrder.TestCase


# ---------------------------------------------------------------- mutants

shipped = decide.decide


def gives_all_back_twice(story: OrderState, message: Any) -> Effects:
    """A cancelled order's refund forgets the partial refunds before it."""
    effects = shipped(story, message)
    if not isinstance(message, decide.CancelAsked):
        return effects
    total = story.order.total_minor
    return tuple(
        replace(e, amount_minor=total) if isinstance(e, decide.OpenRefund) else e for e in effects
    )


def refunds_more_than_is_left(story: OrderState, message: Any) -> Effects:
    effects = shipped(story, message)
    if isinstance(message, decide.RefundAsked) and story.order.status == "PAID" and story.kept:
        payment_id = story.kept.payment_id
        return (decide.OpenRefund(payment_id, message.amount_minor, message.reason),)
    return effects


def posts_the_whole_payment(story: OrderState, message: Any) -> Effects:
    """A partial refund is posted as if everything had gone back."""
    total = story.order.total_minor
    return tuple(
        replace(e, amount_minor=total) if isinstance(e, decide.Post) and e.kind == "REFUND" else e
        for e in shipped(story, message)
    )


def believes_any_amount(story: OrderState, message: Any) -> Effects:
    if isinstance(message, decide.Captured):
        message = replace(message, amount_minor=story.order.total_minor)
    return shipped(story, message)


@pytest.mark.parametrize(
    "mutant",
    [
        gives_all_back_twice,
        refunds_more_than_is_left,
        posts_the_whole_payment,
        believes_any_amount,
    ],
)
def test_careless_rules_are_caught(
    mutant: Callable[[OrderState, Any], Effects], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "decide", mutant)
    quick = settings(
        OneOrder.TestCase.settings,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        derandomize=True,
        database=None,
    )

    with pytest.raises(AssertionError):
        run_state_machine_as_test(OneOrder, settings=quick)
