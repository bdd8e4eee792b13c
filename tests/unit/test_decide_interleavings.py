"""Every interleaving of one order, driven through the shipped ``decide()``.

One order, one line, full refunds; events lost, repeated and late; crashes between any two steps; up
to two charge and two refund requests in flight per attempt; cancellation and expiry at any time; as
many attempts to pay as the shop allows.  In a search of its own the provider also acts without a
request: it refunds, and a customer disputes the charge and wins or loses.  In another the customer
has to act: acts in time, late, twice, with a token that is no good, with another amount, or never.
In a third one staff pack, send and drop shipments, which carriers deliver and customers return.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from shop.adapters.payment_provider.protocol import NextAction
from shop.orders import decide, effects, messages
from shop.orders.effects import Effects
from shop.orders.lines import Line
from shop.orders.messages import Message
from shop.orders.states import OrderState, Payment, Refund
from shop.primitives.statuses import (
    OPEN_PAYMENT,
    OPEN_REFUND,
    ActionType,
    CancelReason,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundOrigin,
    RefundStatus,
    ReservationStatus,
)
from tests import order_model
from tests.order_model import IllegalWrite, ModelOrder

# Coverage would double the time of this search, and adds nothing to that of the other tests.
# The longest one visits 130,000 steps, which takes minutes on a loaded machine.
pytestmark = [pytest.mark.no_cover, pytest.mark.timeout(600)]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/design/correctness.md"
ATTEMPTS = decide.ATTEMPTS_MAX
ATTEMPTS_WITH_MUTANT = 2
IN_FLIGHT = 2
# a rejected refund may be requested again
REFUNDS_REQUESTED_MAX = 2
REQUESTS = ("cancel", "pay again", "replace", "request refund")
# an order of one unit: a shipment that was dropped is followed by another
SHIPMENTS_MAX = 2
STAFF = ("pack", "ship", "drop", "deliver", "operator", "request", "approve", "reject", "receive")
# one that is rejected is followed by another
RETURNS_MAX = 2
UNKNOWN_KEY, CAPTURED, DECLINED, VOIDED, REFUNDED, REFUNDED_TWICE = "-KDTFG"
# the customer has to act; has acted, and the shop has to confirm it; has a transfer to make
ACTION, AUTHORIZED, TRANSFER = "AZB"
TOKEN, BAD_TOKEN = "token", "bad token"
REFUNDED_BY_PROVIDER = "P"
ENVIRONMENT = (
    "refund without a request",
    "dispute",
    "customer acts",
    "customer pays",
    "return",
    "deposit",
)
NO_DISPUTE = ""
WITHHELD = (DisputeStatus.OPEN, DisputeStatus.LOST)

Decide = Callable[[OrderState, Message], Effects]


@dataclass(frozen=True)
class Rules:
    """The rules under test, and faults in what calls them."""

    decision: Decide = decide.decide
    voids_unwanted: bool = True
    reconciles: bool = True
    treats_404_as_final: bool = False
    declines_on_timeout: bool = False
    new_attempt_after_timeout: bool = False
    new_refund_keys: bool = False
    provider_acts: bool = False
    staff_ship: bool = False
    # how many of the first attempts let the customer act
    with_action: int = 0
    has_deadlines: bool = True
    in_flight: int = IN_FLIGHT


@dataclass(frozen=True)
class Attempt:
    """The provider's record of an attempt's charge, and the requests in flight."""

    charge: str = UNKNOWN_KEY
    dispute: str = NO_DISPUTE
    charges: int = 0
    voids: int = 0
    refunds: int = 0


@dataclass(frozen=True)
class State:
    model: ModelOrder
    attempts: tuple[Attempt, ...]

    def at(self, number: int) -> Attempt:
        return self.attempts[number - 1]

    def with_attempt(self, number: int, **changes: Any) -> State:
        changed = replace(self.at(number), **changes)
        attempts = (*self.attempts[: number - 1], changed, *self.attempts[number:])
        return replace(self, attempts=attempts)


Step = tuple[str, State]


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Every step that can happen next."""
    yield from _requests(state, rules)
    for payment in state.model.state.payments:
        yield from _charge_steps(state, payment, rules)
        yield from _void_steps(state, payment, rules)
        yield from _result_steps(state, payment, rules)
        if payment.attempt <= rules.with_action:
            yield from _action_steps(state, payment, rules)
        if rules.provider_acts:
            yield from _provider_steps(state, payment, rules)
    for refund in state.model.state.refunds:
        yield from _refund_steps(state, refund, rules)
    if rules.staff_ship:
        yield from _staff_steps(state, rules)


def _staff_steps(state: State, rules: Rules) -> Iterator[Step]:
    """Staff and carriers act at any time, repeatedly and in any order."""
    yield "operator cancels", _apply(state, messages.CancelRequested(CancelReason.OPERATOR), rules)
    known = state.model.state.shipments
    if len(known) < SHIPMENTS_MAX:
        new_id = order_model.shipment_id(len(known) + 1)
        requested = messages.ShipmentRequested(new_id, (Line(1, 1),))
        yield "pack all", _apply(state, requested, rules)
    for number, shipment in enumerate(known, 1):
        sent = messages.ShipmentSent(shipment.shipment_id, "cj", str(number))
        yield f"ship {number}", _apply(state, sent, rules)
        arrived = messages.ShipmentArrived(shipment.shipment_id)
        yield f"deliver {number}", _apply(state, arrived, rules)
        dropped = messages.ShipmentDropped(shipment.shipment_id)
        yield f"drop {number}", _apply(state, dropped, rules)
    yield from _return_steps(state, rules)


def _return_steps(state: State, rules: Rules) -> Iterator[Step]:
    """The customer cancels the unit or sends it back; support and staff answer, repeatedly."""
    known = state.model.state.returns
    unit = (Line(1, 1),)
    if len(known) < RETURNS_MAX:
        new_id = order_model.return_id(len(known) + 1)
        cancelled = messages.LinesCancelled(new_id, unit, "customer")
        yield "drop line", _apply(state, cancelled, rules)
        sent = frozenset(s.shipment_id for s in state.model.state.shipments)
        requested = messages.ReturnRequested(new_id, unit, "too small", sent)
        yield "request return", _apply(state, requested, rules)
    for number, row in enumerate(known, 1):
        yield f"approve {number}", _apply(state, messages.ReturnApproved(row.return_id), rules)
        yield f"reject {number}", _apply(state, messages.ReturnRejected(row.return_id), rules)
        for restocked in ((), unit):
            received = messages.ReturnReceived(row.return_id, restocked)
            yield f"receive {number}", _apply(state, received, rules)


def _apply(state: State, message: Message, rules: Rules) -> State:
    return replace(state, model=order_model.apply_message(state.model, message, rules.decision))


def _requests(state: State, rules: Rules) -> Iterator[Step]:
    order_state = state.model.state
    if order_state.order.charge_requested or len(order_state.payments) < len(state.attempts):
        yield "charge", _apply(state, messages.ChargeDue(), rules)
    if len(order_state.payments) < len(state.attempts):
        yield "pay again", _apply(state, messages.PayAgainRequested("CARD"), rules)
    yield "cancel", _apply(state, messages.CancelRequested(CancelReason.USER), rules)
    refund = messages.RefundRequested(order_state.order.total_minor, "support", restock=True)
    if len(order_state.refunds) < REFUNDS_REQUESTED_MAX:
        yield "request refund", _apply(state, refund, rules)
    yield "finish", _apply(state, messages.FinishDue(), rules)
    yield "replace", _apply(state, messages.OrderReplaced(), rules)
    for hard in (False, True):
        late = replace(state, model=order_model.with_expiry(state.model, hard=hard))
        after = _apply(late, messages.ExpiryDue(), rules)
        if order_state.order.charge_requested and after.model != late.model:
            raise IllegalWrite("a timer cancels an order whose accepted charge was not tried")
        payment = order_state.open_payment
        if payment is not None and payment.awaits_customer and after.model != late.model:
            raise IllegalWrite("a timer cancels an order whose customer has time to act")
        order = replace(after.model.state.order, is_soft_expired=False, is_hard_expired=False)
        model = replace(after.model, state=replace(after.model.state, order=order))
        yield "expire", replace(after, model=model)


def _charge_steps(state: State, payment: Payment, rules: Rules) -> Iterator[Step]:
    """A process may be suspended between the decision to charge and the call."""
    number = payment.attempt
    attempt = state.at(number)
    if attempt.charges < rules.in_flight:
        yield f"send charge {number}", state.with_attempt(number, charges=attempt.charges + 1)
    if attempt.charges:
        arrived = state.with_attempt(number, charges=attempt.charges - 1)
        yield f"lose charge {number}", arrived
        if number <= rules.with_action:
            yield from _confirmed_with_action(arrived, payment)
        elif attempt.charge == UNKNOWN_KEY:
            yield f"provider captures {number}", arrived.with_attempt(number, charge=CAPTURED)
            yield f"provider declines {number}", arrived.with_attempt(number, charge=DECLINED)


def _confirmed_with_action(arrived: State, payment: Payment) -> Iterator[Step]:
    """A request of the shop at a provider that lets the customer act first.

    Without the right token it collects nothing; with it, the money or, later, a transfer.
    """
    number = payment.attempt
    if arrived.at(number).charge == UNKNOWN_KEY:
        yield f"provider requires action {number}", arrived.with_attempt(number, charge=ACTION)
    if arrived.at(number).charge == AUTHORIZED and payment.token == TOKEN:
        yield f"provider captures {number}", arrived.with_attempt(number, charge=CAPTURED)
        yield f"provider declines {number}", arrived.with_attempt(number, charge=DECLINED)
        yield f"provider awaits transfer {number}", arrived.with_attempt(number, charge=TRANSFER)


def _action_steps(state: State, payment: Payment, rules: Rules) -> Iterator[Step]:
    """The customer acts, returns, transfers, or lets the time pass; the provider reports."""
    number = payment.attempt
    charge = state.at(number).charge
    if charge == ACTION:
        yield f"customer acts {number}", state.with_attempt(number, charge=AUTHORIZED)
        yield f"customer pays {number}", state.with_attempt(number, charge=CAPTURED)
    if charge == TRANSFER:
        yield f"deposit {number}", state.with_attempt(number, charge=CAPTURED)
    for token, amount_minor in ((TOKEN, 1), (BAD_TOKEN, 1), (TOKEN, 2)):
        returned = messages.ActionReturned(payment.payment_id, token, amount_minor)
        after = _apply(state, returned, rules)
        if amount_minor != payment.amount_minor and after != state:
            raise IllegalWrite("another amount is confirmed")
        yield f"return {number}", after
    if payment.awaits_customer and rules.has_deadlines:
        late = order_model.after_deadline(state.model)
        yield f"deadline {number}", replace(state, model=late)
    if charge in (ACTION, AUTHORIZED, TRANSFER):
        for token in {None, payment.token}:
            required = messages.ActionRequired(payment.payment_id, _action_at(charge), token)
            after = _apply(state, required, rules)
            if token != payment.token and after != state:
                raise IllegalWrite("an outdated response discards the customer's return")
            yield f"action required {number}", after


def _action_at(charge: str) -> NextAction:
    kind = ActionType.TRANSFER if charge == TRANSFER else ActionType.WIDGET
    return NextAction(kind, {}, 1)


def _void_steps(state: State, payment: Payment, rules: Rules) -> Iterator[Step]:
    number = payment.attempt
    attempt = state.at(number)
    wanted = decide.provider_call(state.model.state, payment) == "cancel"
    is_open = payment.status in OPEN_PAYMENT
    if is_open and wanted and not attempt.voids and rules.voids_unwanted:
        yield f"send void {number}", state.with_attempt(number, voids=1)
    if not attempt.voids:
        return
    arrived = state.with_attempt(number, voids=0)
    yield f"lose void {number}", arrived
    if attempt.charge == UNKNOWN_KEY and rules.treats_404_as_final:
        yield (
            f"treat 404 as final {number}",
            _apply(arrived, messages.Voided(payment.payment_id), rules),
        )
    elif attempt.charge in (UNKNOWN_KEY, ACTION, AUTHORIZED, TRANSFER):
        yield f"provider voids {number}", arrived.with_attempt(number, charge=VOIDED)


def _result_steps(state: State, payment: Payment, rules: Rules) -> Iterator[Step]:
    """The provider's record arrives as response, webhook, poll or reconciliation, repeatedly."""
    number = payment.attempt
    is_open = payment.status in OPEN_PAYMENT
    charge = state.at(number).charge
    is_captured = charge in (CAPTURED, REFUNDED, REFUNDED_BY_PROVIDER)
    if is_captured and (is_open or rules.reconciles):
        captured = messages.Captured(payment.payment_id, payment.amount_minor, payment.currency)
        yield f"captured {number}", _apply(state, captured, rules)
    if charge == DECLINED:
        yield f"declined {number}", _apply(state, messages.Declined(payment.payment_id), rules)
    if charge == VOIDED:
        yield f"voided {number}", _apply(state, messages.Voided(payment.payment_id), rules)
    if not is_open:
        return
    is_pending = state.model.state.order.status == OrderStatus.PENDING
    declined = _apply(state, messages.Declined(payment.payment_id), rules)
    if rules.declines_on_timeout and is_pending:
        yield (
            f"timeout {number}",
            _apply(declined, messages.CancelRequested(CancelReason.USER), rules),
        )
    elif rules.new_attempt_after_timeout and is_pending and number < len(state.attempts):
        again = _apply(declined, messages.PayAgainRequested("CARD"), rules)
        yield f"timeout {number}", _apply(again, messages.ChargeDue(), rules)
    else:
        yield f"unknown {number}", _apply(state, messages.PaymentUnknown(payment.payment_id), rules)


def _refund_steps(state: State, refund: Refund, rules: Rules) -> Iterator[Step]:
    number = refund.payment_id.int
    attempt = state.at(number)
    if attempt.refunds < rules.in_flight:
        yield f"send refund {number}", state.with_attempt(number, refunds=attempt.refunds + 1)
    if attempt.refunds:
        arrived = state.with_attempt(number, refunds=attempt.refunds - 1)
        yield f"lose refund {number}", arrived
        is_free = attempt.charge == CAPTURED and attempt.dispute not in WITHHELD
        if is_free and refund.status != RefundStatus.REJECTED:
            yield f"provider refunds {number}", arrived.with_attempt(number, charge=REFUNDED)
        if attempt.charge == REFUNDED and rules.new_refund_keys:
            yield f"provider refunds {number}", arrived.with_attempt(number, charge=REFUNDED_TWICE)
    if refund.refund_id == order_model.provider_refund_id(number):
        return
    if attempt.charge == REFUNDED and refund.status != RefundStatus.REJECTED:
        yield f"refunded {number}", _apply(state, messages.Refunded(refund.refund_id), rules)
    is_taken = attempt.charge == CAPTURED and attempt.dispute in WITHHELD
    if attempt.charge == REFUNDED_BY_PROVIDER or is_taken:
        yield f"rejected {number}", _apply(state, messages.RefundRejected(refund.refund_id), rules)
    if refund.status in OPEN_REFUND:
        yield (
            f"unknown refund {number}",
            _apply(state, messages.RefundUnknown(refund.refund_id), rules),
        )


def _provider_steps(state: State, payment: Payment, rules: Rules) -> Iterator[Step]:
    """What the provider does without a request, and its reports, in any order and repeatedly."""
    number = payment.attempt
    attempt = state.at(number)
    is_free = attempt.charge == CAPTURED and attempt.dispute not in WITHHELD
    if is_free:
        refunded = state.with_attempt(number, charge=REFUNDED_BY_PROVIDER)
        yield f"refund without a request {number}", refunded
    if attempt.charge in (CAPTURED, REFUNDED) and attempt.dispute == NO_DISPUTE:
        yield f"dispute {number}", state.with_attempt(number, dispute=DisputeStatus.OPEN)
    if attempt.dispute == DisputeStatus.OPEN:
        yield f"won {number}", state.with_attempt(number, dispute=DisputeStatus.WON)
        yield f"lost {number}", state.with_attempt(number, dispute=DisputeStatus.LOST)
    if payment.status != PaymentStatus.CAPTURED:
        return  # reports about it are early: they are repeated once it is captured
    if attempt.charge == REFUNDED_BY_PROVIDER:
        yield f"found {number}", _apply(state, found(payment), rules)
    if attempt.dispute != NO_DISPUTE:
        for message in reports(payment, DisputeStatus(attempt.dispute)):
            yield f"reported {message.status} {number}", _apply(state, message, rules)


def found(payment: Payment) -> messages.RefundFound:
    """The report about a refund that the provider made by itself."""
    refund_id = order_model.provider_refund_id(payment.attempt)
    amount = (payment.amount_minor, payment.currency)
    return messages.RefundFound(
        refund_id, payment.payment_id, *amount, f"re_{payment.attempt}", RefundOrigin.PROVIDER
    )


def reports(payment: Payment, status: DisputeStatus) -> Iterator[messages.DisputeReported]:
    """The present report about a dispute, and the one with which it began."""
    amount = (payment.amount_minor, payment.currency)
    withdrawn = messages.DisputeMovement(PostingKind.DISPUTE, *amount)
    reinstated = messages.DisputeMovement(PostingKind.DISPUTE_REVERSAL, *amount)
    first = messages.DisputeReported(
        order_model.dispute_id(payment.attempt),
        payment.payment_id,
        f"dp_{payment.attempt}",
        DisputeStatus.OPEN,
        *amount,
        (withdrawn,),
    )
    yield first
    if status != DisputeStatus.OPEN:
        is_won = status == DisputeStatus.WON
        movements = (withdrawn, reinstated) if is_won else (withdrawn,)
        yield replace(first, status=status, movements=movements)


def timer_steps(state: State, rules: Rules) -> Iterator[Step]:
    """The steps of the timers alone: nothing is lost and nothing is requested."""
    order_state = state.model.state
    for name, after in steps(state, rules):
        verb, _, number = name.rpartition(" ")
        if (
            name in REQUESTS
            or verb in (*ENVIRONMENT, *STAFF)
            or verb.startswith(("lose ", "unknown"))
        ):
            continue
        if name == "charge" and not order_state.order.charge_requested:
            continue
        if verb == "send charge" and not _is_charged_by_timer(state, int(number)):
            continue
        if verb == "send refund" and not _is_refunded_by_timer(state, int(number)):
            continue
        yield name, after


def _is_charged_by_timer(state: State, number: int) -> bool:
    order_state = state.model.state
    payment = order_state.payment(order_model.payment_id(number))
    return (
        payment is not None
        and payment.status in OPEN_PAYMENT
        and decide.provider_call(order_state, payment) == "confirm"
        and state.at(number).charges == 0
    )


def _is_refunded_by_timer(state: State, number: int) -> bool:
    is_open = any(
        r.payment_id.int == number and r.status in OPEN_REFUND for r in state.model.state.refunds
    )
    return is_open and state.at(number).refunds == 0


# ---------------------------------------------------------------- exploration


@dataclass(frozen=True)
class Found:
    """How many states and steps there are, and the shortest path to a violation."""

    states: int
    steps: int
    path: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def explore(rules: Rules, attempts: int) -> Found:
    """Explores all states breadth first, then checks that the timers reach a final state."""
    discounted = order_model.placed(((1, 2),), discount_minor=1)
    first = State(discounted, (Attempt(),) * attempts)
    predecessors: dict[State, Step | None] = {first: None}
    queue = deque([first])
    taken = 0
    while queue:
        state = queue.popleft()
        if faults := _unsafe(state):
            return Found(len(predecessors), taken, _path_to(predecessors, state), tuple(faults))
        try:
            for name, after in steps(state, rules):
                taken += 1
                if after not in predecessors:
                    predecessors[after] = (name, state)
                    queue.append(after)
        except IllegalWrite as error:
            return Found(len(predecessors), taken, _path_to(predecessors, state), (str(error),))
    never_final, faults = _never_final(predecessors, rules)
    if never_final is not None:
        return Found(len(predecessors), taken, _path_to(predecessors, never_final), tuple(faults))
    return Found(len(predecessors), taken)


def _unsafe(state: State) -> list[str]:
    faults = order_model.violations(state.model)
    if any(attempt.charge == REFUNDED_TWICE for attempt in state.attempts):
        faults.append("the provider refunded twice")
    return faults


def _never_final(
    predecessors: dict[State, Step | None], rules: Rules
) -> tuple[State | None, list[str]]:
    """A state from which the timers reach no final state, or a final state that is wrong."""
    before: dict[State, list[State]] = {}
    final: list[State] = []
    for state in predecessors:
        following = {after for _, after in timer_steps(state, rules) if after != state}
        for after in following:
            before.setdefault(after, []).append(state)
        if not following:
            final.append(state)
            held = sum(attempt.charge == CAPTURED for attempt in state.attempts)
            held -= sum(attempt.dispute in WITHHELD for attempt in state.attempts)
            faults = order_model.faults_when_final(state.model, held)
            if rules.provider_acts and not _is_closed(state):
                faults.append("waits for an operator, though the provider has settled everything")
            if faults:
                return state, [f"final: {fault}" for fault in faults]
    reaches_final, queue = set(final), deque(final)
    while queue:
        for state in before.get(queue.popleft(), ()):
            if state not in reaches_final:
                reaches_final.add(state)
                queue.append(state)
    lost = next((state for state in predecessors if state not in reaches_final), None)
    return lost, ["the timers never reach a final state"]


def _is_closed(state: State) -> bool:
    return state.model.state.order.status in order_model.FINAL


def _path_to(predecessors: dict[State, Step | None], state: State) -> tuple[str, ...]:
    path: list[str] = []
    step = predecessors.get(state)
    while step is not None:
        name, state = step
        path.append(name)
        step = predecessors[state]
    return tuple(reversed(path))


# ---------------------------------------------------------------- the shipped rules


def assert_explored(name: str, found: Found) -> None:
    """No rule is violated, and the bounds that the document states are exceeded."""
    assert (found.path, found.faults) == ((), ())
    states, steps = documented_bounds()[name]
    assert found.states > states and found.steps > steps, "the model explores too little"


def documented_bounds() -> dict[str, tuple[int, int]]:
    """How many states and steps the document says are explored, by the first column."""
    rows = re.findall(
        r"^\| (.+?) \| .+ \| ([\d,]+) \| ([\d,]+) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    return {name: (_number(states), _number(steps)) for name, states, steps in rows}


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def test_no_interleaving_violates_a_rule_and_timers_always_reach_a_final_state() -> None:
    assert_explored("payments and refunds", explore(Rules(), ATTEMPTS))


def test_what_the_provider_does_without_a_request_violates_no_rule_in_any_order() -> None:
    rules = Rules(provider_acts=True, treats_404_as_final=True)

    assert_explored("what the provider does", explore(rules, attempts=1))


def test_shipments_and_returns_violate_no_rule_in_any_order() -> None:
    assert_explored("shipments and returns", explore(Rules(staff_ship=True), attempts=2))


@pytest.mark.parametrize(
    ("name", "attempts", "in_flight"),
    [("one action", 1, 2), ("an action, then another attempt", 2, 1)],
)
def test_no_return_of_a_customer_violates_a_rule_and_every_action_ends_by_its_deadline(
    name: str, attempts: int, in_flight: int
) -> None:
    """The second attempt is also one that the customer prefers to acting."""
    assert_explored(name, explore(Rules(with_action=1, in_flight=in_flight), attempts))


@pytest.mark.parametrize("ignored", ["charge after 404", "timeout taken as decline"])
def test_refunding_late_captures_keeps_the_order_safe(ignored: str) -> None:
    rules = Rules(
        treats_404_as_final=ignored == "charge after 404",
        declines_on_timeout=ignored == "timeout taken as decline",
    )

    found = explore(rules, ATTEMPTS_WITH_MUTANT)

    assert (found.path, found.faults) == ((), ())


# ---------------------------------------------------------------- mutants


def ignores_late_captures(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.Captured):
        payment = order_state.payment(message.payment_id)
        if payment is not None and payment.status not in OPEN_PAYMENT:
            return ()
    return decide.decide(order_state, message)


def ignores_captures_once_cancelled(order_state: OrderState, message: Message) -> Effects:
    decided = decide.decide(order_state, message)
    is_closed = order_state.order.status in decide.CLOSED_ORDER
    if isinstance(message, messages.Captured) and is_closed:
        return tuple(e for e in decided if not isinstance(e, effects.OpenRefund))
    return decided


def releases_without_checking_the_status(order_state: OrderState, message: Message) -> Effects:
    is_closed = order_state.order.status in decide.CLOSED_ORDER
    if isinstance(message, messages.CancelRequested) and is_closed:
        return (effects.ChangeReservations(ReservationStatus.HELD, ReservationStatus.RELEASED),)
    return decide.decide(order_state, message)


def charges_beside_an_open_payment(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.ChargeDue) and order_state.order.status == OrderStatus.PENDING:
        return (effects.OpenPayment(len(order_state.payments) + 1),)
    return decide.decide(order_state, message)


def posts_every_message(order_state: OrderState, message: Message) -> Effects:
    decided = decide.decide(order_state, message)
    if isinstance(message, messages.Captured) and not decided:
        payment = order_state.payment(message.payment_id)
        assert payment is not None
        money = (payment.amount_minor, payment.currency)
        return (effects.PostToLedger(PostingKind.CAPTURE, payment.payment_id, *money),)
    return decided


def declines_the_order_not_the_payment(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.Declined) and order_state.order.status == OrderStatus.PAID:
        return (
            effects.ChangeReservations(ReservationStatus.COMMITTED, ReservationStatus.RETURNED),
            effects.ChangeOrderStatus(
                OrderStatus.PAID, OrderStatus.CANCELLED, CancelReason.DECLINED
            ),
        )
    return decide.decide(order_state, message)


def expires_before_the_requested_charge(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.ExpiryDue):
        order = replace(order_state.order, charge_requested=False)
        return decide.decide(replace(order_state, order=order), message)
    return decide.decide(order_state, message)


def keeps_the_cart_of_a_declined_order(order_state: OrderState, message: Message) -> Effects:
    decided = decide.decide(order_state, message)
    return tuple(e for e in decided if not isinstance(e, effects.ReturnCart))


def ignores_refunds_without_a_request(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.RefundFound):
        return ()
    return decide.decide(order_state, message)


def refunds_what_a_dispute_has_withdrawn(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.CancelRequested):
        return decide.decide(replace(order_state, disputes=()), message)
    return decide.decide(order_state, message)


def ignores_reinstatements(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.DisputeReported):
        message = replace(message, movements=message.movements[:1])
    return decide.decide(order_state, message)


def keeps_what_a_won_dispute_gives_back(order_state: OrderState, message: Message) -> Effects:
    decided = decide.decide(order_state, message)
    if isinstance(message, messages.DisputeReported):
        return tuple(e for e in decided if not isinstance(e, effects.OpenRefund))
    return decided


def confirms_any_amount(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.ActionReturned):
        message = replace(message, amount_minor=order_state.order.total_minor)
    return decide.decide(order_state, message)


def expires_while_the_customer_may_act(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.ExpiryDue):
        payments = tuple(replace(p, may_act=False) for p in order_state.payments)
        return decide.decide(replace(order_state, payments=payments), message)
    return decide.decide(order_state, message)


def takes_outdated_responses(order_state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.ActionRequired):
        payment = order_state.payment(message.payment_id)
        message = replace(message, token=payment.token if payment else None)
    return decide.decide(order_state, message)


MUTANTS = {
    "no deadline of an action": Rules(with_action=1, has_deadlines=False),
    "another amount confirmed": Rules(decision=confirms_any_amount, with_action=1),
    "expiry while the customer may act": Rules(
        decision=expires_while_the_customer_may_act, with_action=1
    ),
    "an outdated response discards the customer's return": Rules(
        decision=takes_outdated_responses, with_action=1
    ),
    "a declined order keeps the cart": Rules(decision=keeps_the_cart_of_a_declined_order),
    "expiry before a requested charge was tried": Rules(
        decision=expires_before_the_requested_charge
    ),
    "timeout taken as decline, late result ignored": Rules(
        decision=ignores_late_captures, declines_on_timeout=True
    ),
    "a new key after a timeout": Rules(
        decision=ignores_late_captures, new_attempt_after_timeout=True
    ),
    "captured ignored once cancelled": Rules(decision=ignores_captures_once_cancelled),
    "404 treated as final": Rules(treats_404_as_final=True, reconciles=False),
    "404 treated as final and late capture ignored": Rules(
        decision=ignores_late_captures, treats_404_as_final=True
    ),
    "no void for cancelled orders": Rules(voids_unwanted=False),
    "release without a status guard": Rules(decision=releases_without_checking_the_status),
    "no one-open-payment rule": Rules(decision=charges_beside_an_open_payment),
    "no posting key": Rules(decision=posts_every_message),
    "decline applied by order, not by payment": Rules(decision=declines_the_order_not_the_payment),
    "refund with a fresh key per try": Rules(new_refund_keys=True),
    "refunds without a request ignored": Rules(
        decision=ignores_refunds_without_a_request, provider_acts=True
    ),
    "refund of what a dispute has withdrawn": Rules(
        decision=refunds_what_a_dispute_has_withdrawn, provider_acts=True
    ),
    "reinstatements ignored": Rules(decision=ignores_reinstatements, provider_acts=True),
    "money of a won dispute kept": Rules(
        decision=keeps_what_a_won_dispute_gives_back, provider_acts=True
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_mutant_violates_a_rule(name: str) -> None:
    rules = MUTANTS[name]
    is_small = rules.provider_acts or rules.with_action
    found = explore(rules, 1 if is_small else ATTEMPTS_WITH_MUTANT)

    assert found.faults, f"{name}: {found.states} states and nothing found"
