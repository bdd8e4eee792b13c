"""Every interleaving of one order, driven through the shipped ``decide()`` (correctness.md 5.9).

One order, one line, full refunds; events lost, repeated, late; workers dying between any two steps;
up to two charge and two refund requests in flight per attempt; cancel and expiry at any moment; as
many attempts to pay as the shop allows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from shop.orders import decide
from shop.orders.decide import Effects, OrderState, Payment, Refund
from tests import order_model
from tests.order_model import IllegalWrite, World

ATTEMPTS = decide.ATTEMPTS_MAX
ATTEMPTS_OF_A_MUTANT = 2
IN_FLIGHT = 2
UNSEEN, HELD, REFUSED, TOMBSTONE, GIVEN_BACK, GIVEN_BACK_TWICE = "-KDTFG"

Decide = Callable[[OrderState, Any], Effects]


@dataclass(frozen=True)
class Rules:
    """The rules under test, and what a careless shop around them would do."""

    decision: Decide = decide.decide
    asks_to_void: bool = True
    reconciles: bool = True
    believes_404: bool = False
    gives_up_on_timeout: bool = False
    new_attempt_after_timeout: bool = False
    fresh_refund_keys: bool = False


@dataclass(frozen=True)
class Attempt:
    """What is outside of the shop, per attempt: the provider's book and requests in flight."""

    book: str = UNSEEN
    charges: int = 0
    voids: int = 0
    refunds: int = 0


@dataclass(frozen=True)
class State:
    world: World
    attempts: tuple[Attempt, ...]

    def at(self, number: int) -> Attempt:
        return self.attempts[number - 1]

    def put(self, number: int, **changes: Any) -> State:
        changed = replace(self.at(number), **changes)
        attempts = (*self.attempts[: number - 1], changed, *self.attempts[number:])
        return replace(self, attempts=attempts)


Step = tuple[str, State]


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Everything that may happen next."""
    yield from _told(state, rules)
    for payment in state.world.story.payments:
        yield from _charging(state, payment)
        yield from _voiding(state, payment, rules)
        yield from _results(state, payment, rules)
    for refund in state.world.story.refunds:
        yield from _refunding(state, refund, rules)


def _tell(state: State, message: Any, rules: Rules) -> State:
    return replace(state, world=order_model.apply_message(state.world, message, rules.decision))


def _told(state: State, rules: Rules) -> Iterator[Step]:
    story = state.world.story
    if story.order.charge_wanted or len(story.payments) < len(state.attempts):
        yield "charge", _tell(state, decide.ChargeDue(), rules)
    if len(story.payments) < len(state.attempts):
        yield "pay again", _tell(state, decide.PayAgainAsked("CARD"), rules)
    yield "cancel", _tell(state, decide.CancelAsked("USER"), rules)
    yield "finish", _tell(state, decide.FinishDue(), rules)
    for hard in (False, True):
        late = replace(state, world=order_model.with_expiry(state.world, hard=hard))
        after = _tell(late, decide.ExpiryDue(), rules)
        order = replace(after.world.story.order, is_soft_expired=False, is_hard_expired=False)
        world = replace(after.world, story=replace(after.world.story, order=order))
        yield "expire", replace(after, world=world)


def _charging(state: State, payment: Payment) -> Iterator[Step]:
    """A worker that was allowed to charge may be asleep for any time before it sends."""
    number = payment.attempt
    attempt = state.at(number)
    if attempt.charges < IN_FLIGHT:
        yield f"send charge {number}", state.put(number, charges=attempt.charges + 1)
    if attempt.charges:
        arrived = state.put(number, charges=attempt.charges - 1)
        yield f"lose charge {number}", arrived
        if attempt.book == UNSEEN:
            yield f"provider captures {number}", arrived.put(number, book=HELD)
            yield f"provider declines {number}", arrived.put(number, book=REFUSED)


def _voiding(state: State, payment: Payment, rules: Rules) -> Iterator[Step]:
    number = payment.attempt
    attempt = state.at(number)
    wanted = decide.provider_step(state.world.story, payment) == "cancel"
    is_open = payment.status in decide.LIVE
    if is_open and wanted and not attempt.voids and rules.asks_to_void:
        yield f"send void {number}", state.put(number, voids=1)
    if not attempt.voids:
        return
    arrived = state.put(number, voids=0)
    yield f"lose void {number}", arrived
    if attempt.book == UNSEEN and rules.believes_404:
        yield f"believe 404 {number}", _tell(arrived, decide.Voided(number), rules)
    elif attempt.book == UNSEEN:
        yield f"provider voids {number}", arrived.put(number, book=TOMBSTONE)


def _results(state: State, payment: Payment, rules: Rules) -> Iterator[Step]:
    """The provider's truth, as answer, webhook, poll or reconciliation: any number of times."""
    number = payment.attempt
    is_open = payment.status in decide.LIVE
    book = state.at(number).book
    if book in (HELD, GIVEN_BACK) and (is_open or rules.reconciles):
        captured = decide.Captured(number, payment.amount_minor, payment.currency)
        yield f"captured {number}", _tell(state, captured, rules)
    if book == REFUSED:
        yield f"declined {number}", _tell(state, decide.Declined(number), rules)
    if book == TOMBSTONE:
        yield f"voided {number}", _tell(state, decide.Voided(number), rules)
    if not is_open:
        return
    is_pending = state.world.story.order.status == "PENDING"
    given_up = _tell(state, decide.Declined(number), rules)
    if rules.gives_up_on_timeout and is_pending:
        yield f"timeout {number}", _tell(given_up, decide.CancelAsked("USER"), rules)
    elif rules.new_attempt_after_timeout and is_pending and number < len(state.attempts):
        again = _tell(given_up, decide.PayAgainAsked("CARD"), rules)
        yield f"timeout {number}", _tell(again, decide.ChargeDue(), rules)
    else:
        yield f"unclear {number}", _tell(state, decide.Unclear(number), rules)


def _refunding(state: State, refund: Refund, rules: Rules) -> Iterator[Step]:
    number = refund.payment_id
    attempt = state.at(number)
    if attempt.refunds < IN_FLIGHT:
        yield f"send refund {number}", state.put(number, refunds=attempt.refunds + 1)
    if attempt.refunds:
        arrived = state.put(number, refunds=attempt.refunds - 1)
        yield f"lose refund {number}", arrived
        if attempt.book == HELD:
            yield f"provider refunds {number}", arrived.put(number, book=GIVEN_BACK)
        if attempt.book == GIVEN_BACK and rules.fresh_refund_keys:
            yield f"provider refunds {number}", arrived.put(number, book=GIVEN_BACK_TWICE)
    if attempt.book == GIVEN_BACK:
        yield f"refunded {number}", _tell(state, decide.Refunded(refund.refund_id), rules)
    if refund.status in decide.LIVE:
        yield (
            f"unclear refund {number}",
            _tell(state, decide.RefundUnclear(refund.refund_id), rules),
        )


def timer_steps(state: State, rules: Rules) -> Iterator[Step]:
    """What the timers alone do; nothing is lost and nobody asks for anything."""
    story = state.world.story
    for name, after in steps(state, rules):
        verb, _, number = name.rpartition(" ")
        if name in ("cancel", "pay again") or verb.startswith(("lose", "unclear")):
            continue
        if name == "charge" and not story.order.charge_wanted:
            continue
        if verb == "send charge" and not _is_charged_by_timer(state, int(number)):
            continue
        if verb == "send refund" and not _is_refunded_by_timer(state, int(number)):
            continue
        yield name, after


def _is_charged_by_timer(state: State, number: int) -> bool:
    story = state.world.story
    payment = story.payment(number)
    return (
        payment is not None
        and payment.status in decide.LIVE
        and decide.provider_step(story, payment) == "confirm"
        and state.at(number).charges == 0
    )


def _is_refunded_by_timer(state: State, number: int) -> bool:
    is_open = any(
        r.payment_id == number and r.status in decide.LIVE for r in state.world.story.refunds
    )
    return is_open and state.at(number).refunds == 0


# ---------------------------------------------------------------- exploration


@dataclass(frozen=True)
class Found:
    """How many states and steps there are, and the shortest story to a violation, if any."""

    states: int
    steps: int
    story: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def explore(rules: Rules, attempts: int) -> Found:
    """Breadth first through everything that can happen, then the timers' way to rest."""
    first = State(order_model.placed(), (Attempt(),) * attempts)
    came_from: dict[State, Step | None] = {first: None}
    queue = deque([first])
    taken = 0
    while queue:
        state = queue.popleft()
        if faults := _unsafe(state):
            return Found(len(came_from), taken, _story_of(came_from, state), tuple(faults))
        try:
            for name, after in steps(state, rules):
                taken += 1
                if after not in came_from:
                    came_from[after] = (name, state)
                    queue.append(after)
        except IllegalWrite as error:
            return Found(len(came_from), taken, _story_of(came_from, state), (str(error),))
    restless, faults = _restless(came_from, rules)
    if restless is not None:
        return Found(len(came_from), taken, _story_of(came_from, restless), tuple(faults))
    return Found(len(came_from), taken)


def _unsafe(state: State) -> list[str]:
    faults = order_model.violations(state.world)
    if any(attempt.book == GIVEN_BACK_TWICE for attempt in state.attempts):
        faults.append("the provider refunded twice")
    return faults


def _restless(came_from: dict[State, Step | None], rules: Rules) -> tuple[State | None, list[str]]:
    """A state from which the timers never come to rest, or a rest that is wrong."""
    before: dict[State, list[State]] = {}
    resting: list[State] = []
    for state in came_from:
        following = {after for _, after in timer_steps(state, rules) if after != state}
        for after in following:
            before.setdefault(after, []).append(state)
        if not following:
            resting.append(state)
            held = sum(attempt.book == HELD for attempt in state.attempts)
            if faults := order_model.faults_at_rest(state.world, held):
                return state, [f"at rest: {fault}" for fault in faults]
    comes_to_rest, queue = set(resting), deque(resting)
    while queue:
        for state in before.get(queue.popleft(), ()):
            if state not in comes_to_rest:
                comes_to_rest.add(state)
                queue.append(state)
    lost = next((state for state in came_from if state not in comes_to_rest), None)
    return lost, ["the timers never come to rest"]


def _story_of(came_from: dict[State, Step | None], state: State) -> tuple[str, ...]:
    story: list[str] = []
    step = came_from.get(state)
    while step is not None:
        name, state = step
        story.append(name)
        step = came_from[state]
    return tuple(reversed(story))


# ---------------------------------------------------------------- the shipped rules


def test_no_interleaving_breaks_a_rule_and_the_timers_always_come_to_rest() -> None:
    found = explore(Rules(), ATTEMPTS)

    assert (found.story, found.faults) == ((), ())
    assert found.states > 4_000 and found.steps > 50_000, "the model must not be vacuous"


@pytest.mark.parametrize("ignored", ["book after 404", "timeout is failure"])
def test_late_captures_that_are_booked_and_refunded_make_even_these_safe(ignored: str) -> None:
    rules = Rules(
        believes_404=ignored == "book after 404",
        gives_up_on_timeout=ignored == "timeout is failure",
    )

    found = explore(rules, ATTEMPTS_OF_A_MUTANT)

    assert (found.story, found.faults) == ((), ())


# ---------------------------------------------------------------- mutants


def ignores_late_captures(story: OrderState, message: Any) -> Effects:
    """Money that comes after a payment was closed is nobody's."""
    if isinstance(message, decide.Captured):
        payment = story.payment(message.payment_id)
        if payment is not None and payment.status not in decide.LIVE:
            return ()
    return decide.decide(story, message)


def ignores_captures_once_cancelled(story: OrderState, message: Any) -> Effects:
    effects = decide.decide(story, message)
    is_closed = story.order.status in decide.CLOSED_ORDER
    if isinstance(message, decide.Captured) and is_closed:
        return tuple(e for e in effects if not isinstance(e, decide.OpenRefund))
    return effects


def releases_without_asking_the_status(story: OrderState, message: Any) -> Effects:
    is_closed = story.order.status in decide.CLOSED_ORDER
    if isinstance(message, decide.CancelAsked) and is_closed:
        return (decide.MoveStock("HELD", "RELEASED"),)
    return decide.decide(story, message)


def charges_beside_a_live_payment(story: OrderState, message: Any) -> Effects:
    if isinstance(message, decide.ChargeDue) and story.order.status == "PENDING":
        return (decide.OpenPayment(len(story.payments) + 1),)
    return decide.decide(story, message)


def posts_every_message(story: OrderState, message: Any) -> Effects:
    effects = decide.decide(story, message)
    if isinstance(message, decide.Captured) and not effects:
        payment = story.payment(message.payment_id)
        assert payment is not None
        money = (payment.amount_minor, payment.currency)
        return (decide.Post("CAPTURE", payment.payment_id, *money),)
    return effects


def declines_the_order_not_the_payment(story: OrderState, message: Any) -> Effects:
    if isinstance(message, decide.Declined) and story.order.status == "PAID":
        return (
            decide.MoveStock("COMMITTED", "RETURNED"),
            decide.MoveOrder("PAID", "CANCELLED", "DECLINED"),
        )
    return decide.decide(story, message)


MUTANTS = {
    "timeout taken as failure, late result ignored": Rules(
        decision=ignores_late_captures, gives_up_on_timeout=True
    ),
    "a new key after a timeout": Rules(
        decision=ignores_late_captures, new_attempt_after_timeout=True
    ),
    "captured ignored once cancelled": Rules(decision=ignores_captures_once_cancelled),
    "404 believed final": Rules(believes_404=True, reconciles=False),
    "404 believed final and late capture ignored": Rules(
        decision=ignores_late_captures, believes_404=True
    ),
    "no void for cancelled orders": Rules(asks_to_void=False),
    "release without a status guard": Rules(decision=releases_without_asking_the_status),
    "no one-live-payment rule": Rules(decision=charges_beside_a_live_payment),
    "no posting key": Rules(decision=posts_every_message),
    "decline applied by order, not by payment": Rules(decision=declines_the_order_not_the_payment),
    "refund with a fresh key per try": Rules(fresh_refund_keys=True),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_careless_shop_is_caught_with_the_shortest_story(name: str) -> None:
    found = explore(MUTANTS[name], ATTEMPTS_OF_A_MUTANT)

    assert found.faults, f"{name}: {found.states} states and nothing found"
    assert found.story
