"""A deterministic simulation of several days: many orders on one thread, from one seed.

It adds time to what the exhaustive model and the state machine cover: backoff and expiry, timers
that do not run for a day and a half, processes suspended for hours between a decision and its call,
a provider whose idempotency keys expire.  Every decision is made by the shipped ``decide()``,
every write is guarded by ``order_model``, and the safety rules are checked after every step.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any
from uuid import UUID

from shop.orders import decide, messages
from shop.orders.effects import Effects
from shop.orders.messages import Message
from shop.orders.payments import CHARGE_WINDOW_SECONDS
from shop.orders.states import OrderState, Payment, Refund
from shop.primitives.statuses import OPEN_PAYMENT, OPEN_REFUND, CancelReason, OrderStatus
from tests import order_model
from tests.order_model import ModelOrder

HOUR = 3600.0
DAY = 24 * HOUR
# Stripe's lifetime of keys; the shop's window of 20 hours plus all delays has to stay below it.
KEY_LIFETIME = DAY
CHARGE_TIMER, FIRST_TRY = 5.0, 10.0
SOFT_EXPIRY, HARD_EXPIRY = 900.0, 3600.0
BACKOFF_FIRST, BACKOFF_MAX = 10.0, 300.0
CALL_TIMEOUT = 30.0
RECONCILED_EVERY = DAY
ORDERS_WITHIN = 2 * DAY
FAULTS_END = 4 * DAY

Decide = Callable[[OrderState, Message], Effects]


@dataclass(frozen=True)
class Probabilities:
    """The probabilities of faults, until ``FAULTS_END``."""

    lost: float = 0.2
    duplicated: float = 0.3
    crash: float = 0.15
    timeout: float = 0.3
    suspended: float = 0.05
    void_ignored: float = 0.1
    declined: float = 0.2
    rejected: float = 0.05
    cancelled: float = 0.25
    refunded: float = 0.25
    outages: int = 3


@dataclass(frozen=True)
class Rules:
    """The rules under test, and faults in what calls them."""

    decision: Decide = decide.decide
    provider_call: Callable[[OrderState, Payment], str] = decide.provider_call
    charge_window: float = CHARGE_WINDOW_SECONDS
    has_timers: bool = True
    finds_refund_first: bool = True


@dataclass
class Charge:
    """The provider's record of one payment: outcome, executions, and when its key expires."""

    outcome: str
    key_expires_at: float
    captures: int = 0


@dataclass
class ProviderRecords:
    """The provider's transactions of one order; they outlive the idempotency keys."""

    charges: dict[UUID, Charge] = field(default_factory=dict)
    refunds: dict[UUID, str] = field(default_factory=dict)
    refund_keys_expire_at: dict[UUID, float] = field(default_factory=dict)
    times_refunded: Counter[UUID] = field(default_factory=Counter[UUID])
    refunded_minor: int = 0

    def confirm(self, payment_id: UUID, now: float, *, approves: bool, ignores_void: bool) -> str:
        """Executes a key once during its lifetime, and again after that."""
        charge = self.charges.get(payment_id)
        is_voided = charge is not None and charge.outcome == "voided"
        if charge is not None and now < charge.key_expires_at and not (is_voided and ignores_void):
            return charge.outcome
        outcome = "captured" if approves else "declined"
        captures = (charge.captures if charge else 0) + approves
        self.charges[payment_id] = Charge(outcome, now + KEY_LIFETIME, captures)
        return outcome

    def cancel(self, payment_id: UUID) -> str:
        """The outcome of the charge; without a charge the key is voided."""
        charge = self.charges.setdefault(payment_id, Charge("voided", float("inf")))
        return charge.outcome

    def refund(self, refund: Refund, now: float, *, accepts: bool) -> str:
        """Executes a key once during its lifetime, and again after that."""
        key = refund.refund_id
        if now >= self.refund_keys_expire_at.get(key, 0.0):
            self.refund_keys_expire_at[key] = now + KEY_LIFETIME
            self.refunds[key] = "succeeded" if accepts else "rejected"
            self.refunded_minor += refund.amount_minor if accepts else 0
            self.times_refunded[key] += accepts
        return self.refunds[key]


@dataclass
class SimulatedOrder:
    """One order: its rows, their times, and the provider's transactions."""

    number: int
    model: ModelOrder
    placed_at: float
    provider: ProviderRecords = field(default_factory=ProviderRecords)
    charge_at: float = 0.0
    charge_not_after: dict[UUID, float] = field(default_factory=dict)
    next_try: dict[UUID, float] = field(default_factory=dict)
    tries: dict[UUID, int] = field(default_factory=dict)
    timer: int = 0

    @property
    def held(self) -> int:
        """The money that the provider holds for this order."""
        total = self.model.state.order.total_minor
        return (
            total * sum(c.captures for c in self.provider.charges.values())
            - self.provider.refunded_minor
        )

    def faults(self) -> list[str]:
        """Every safety rule that is violated, those on the provider's transactions included."""
        found = order_model.violations(self.model)
        known = {payment.payment_id for payment in self.model.state.payments}
        if not self.provider.charges.keys() <= known:
            found.append("I-11 a charge without a row")
        if any(charge.captures > 1 for charge in self.provider.charges.values()):
            found.append("I-11 a payment was charged twice")
        if any(times > 1 for times in self.provider.times_refunded.values()):
            found.append("a refund was executed twice")
        return found


class Simulation:
    """``run`` simulates all orders; raises AssertionError at the first violated rule.

    ``steps`` counts the steps; ``now`` is the simulated second.  A seed determines the whole run.
    """

    def __init__(self, seed: int, count: int, rules: Rules | None = None) -> None:
        self.seed, self.rules = seed, rules or Rules()
        self.random = Random(seed)
        self.chances = Probabilities()
        self.now, self.steps, self._number = 0.0, 0, 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self.outages = sorted(self._outage() for _ in range(self.chances.outages))
        self.orders = [self._new_order(number) for number in range(count)]

    def run(self) -> None:
        """Runs until no step is left, then compares the orders with the provider."""
        for order in self.orders:
            self._schedule(order.placed_at, lambda p=order: self._placed(p))
        days = round((FAULTS_END + DAY) / RECONCILED_EVERY)
        for day in range(1, days + 1):
            self._schedule(day * RECONCILED_EVERY, self._reconcile)
        while self._queue:
            self.now, _, act = heapq.heappop(self._queue)
            self.steps += 1
            act()
        for order in self.orders:
            self._assert_none(order, order_model.faults_when_final(order.model, order.held))

    # ------------------------------------------------------------ the schedule

    def _outage(self) -> tuple[float, float]:
        """A time without ticks; the longest one is longer than the lifetime of a key."""
        begins = self.random.uniform(0, FAULTS_END - 1.5 * DAY)
        return begins, begins + self.random.choice((60.0, HOUR, 12 * HOUR, 1.5 * DAY))

    def _new_order(self, number: int) -> SimulatedOrder:
        lines = [
            (self.random.randint(1, 3), self.random.randint(1, 5))
            for _ in range(self.random.randint(1, 3))
        ]
        at = self.random.uniform(0, ORDERS_WITHIN)
        discount = min(number % 4, sum(qty * price for qty, price in lines) - 1)
        order = order_model.placed(lines, discount_minor=discount, shipping_minor=number % 3)
        return SimulatedOrder(number, order, at, charge_at=at + CHARGE_TIMER)

    def _schedule(self, at: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (max(at, self.now), self._number, act))

    def _chance(self, share: float) -> bool:
        """Whether a fault happens; never after ``FAULTS_END``."""
        return self.now < FAULTS_END and self.random.random() < share

    def _assert_none(self, order: SimulatedOrder, faults: list[str]) -> None:
        assert not faults, f"seed {self.seed}, order {order.number}, {self.now:.0f} s: {faults}"

    def _send(self, order: SimulatedOrder, message: Message) -> None:
        """Delivers an event or a webhook not at all, once or twice, soon or after hours."""
        if self._chance(self.chances.lost):
            return
        for _ in range(1 + self._chance(self.chances.duplicated)):
            delay = self.random.expovariate(0.5)
            if self._chance(self.chances.suspended):
                delay = self.random.uniform(0, 12 * HOUR)
            self._schedule(self.now + delay, lambda: self._apply(order, message))

    # ------------------------------------------------------------ one order

    def _placed(self, order: SimulatedOrder) -> None:
        self._send(order, messages.ChargeDue())
        self._set_timer(order)
        if self._chance(self.chances.cancelled):
            at = self.now + self.random.choice((0.05, 5.0, HOUR, DAY)) * self.random.random()
            self._schedule(
                at, lambda: self._apply(order, messages.CancelRequested(CancelReason.USER))
            )
        if self._chance(self.chances.refunded):
            for _ in range(self.random.randint(1, 3)):
                requested = messages.RefundRequested(self.random.randint(1, 10), "support")
                at = self.now + self.random.uniform(0, DAY)
                self._schedule(at, lambda m=requested: self._apply(order, m))

    def _apply(self, order: SimulatedOrder, message: Message) -> None:
        """One transaction; a crash before the commit leaves no change."""
        if self._chance(self.chances.crash):
            return
        before = order.model.state
        model = replace(order.model, state=self._current_state(order))
        order.model = order_model.apply_message(model, message, self.rules.decision)
        state = order.model.state
        for payment in state.payments[len(before.payments) :]:
            order.charge_not_after[payment.payment_id] = self.now + self.rules.charge_window
            order.next_try[payment.payment_id] = self.now + FIRST_TRY
        for refund in state.refunds[len(before.refunds) :]:
            order.next_try[refund.refund_id] = self.now + FIRST_TRY
        if state.order.charge_requested and not before.order.charge_requested:
            order.charge_at = self.now
        self._assert_none(order, order.faults())
        self._after_commit(order, before, message)
        self._set_timer(order)

    def _current_state(self, order: SimulatedOrder) -> OrderState:
        """The rows as PostgreSQL returns them, with its comparisons of times."""
        state, placed_at = order.model.state, order.placed_at
        payments = tuple(
            replace(p, may_charge=self.now < order.charge_not_after[p.payment_id])
            for p in state.payments
        )
        row = replace(
            state.order,
            is_soft_expired=self.now >= placed_at + SOFT_EXPIRY,
            is_hard_expired=self.now >= placed_at + HARD_EXPIRY,
        )
        return replace(state, order=row, payments=payments)

    def _after_commit(self, order: SimulatedOrder, before: OrderState, message: Message) -> None:
        """What follows the commit, unless the process crashes in between."""
        state = order.model.state
        if isinstance(message, messages.Declined) and state.order.status == OrderStatus.PENDING:
            at = self.now + self.random.uniform(0, HARD_EXPIRY)
            self._schedule(at, lambda: self._apply(order, messages.PayAgainRequested("CARD")))
        if self._chance(self.chances.crash):
            return
        for payment in state.payments[len(before.payments) :]:
            self._call_provider(order, payment)
        for refund in state.refunds[len(before.refunds) :]:
            self._send_refund(order, refund)
        if state.open_payment is not None and state.order.status in decide.CLOSED_ORDER:
            self._call_provider(order, state.open_payment)

    # ------------------------------------------------------------ the provider

    def _call_provider(self, order: SimulatedOrder, payment: Payment) -> None:
        """Decides on the call now; the process may be suspended for hours before it calls."""
        state = self._current_state(order)
        wanted = self.rules.provider_call(state, state.payment(payment.payment_id) or payment)
        delay = self.random.uniform(0.05, 1.0)
        if self._chance(self.chances.suspended):
            delay = self.random.uniform(0, 3.9 * HOUR)
        self._schedule(
            self.now + delay, lambda: self._reaches_provider(order, payment.payment_id, wanted)
        )

    def _reaches_provider(self, order: SimulatedOrder, payment_id: UUID, wanted: str) -> None:
        if self._chance(self.chances.timeout):  # the call is lost
            self._time_out(order, payment_id)
            return
        if wanted == "confirm":
            approves = not self._chance(self.chances.declined)
            ignores = self._chance(self.chances.void_ignored)
            outcome = order.provider.confirm(
                payment_id, self.now, approves=approves, ignores_void=ignores
            )
        else:
            outcome = order.provider.cancel(payment_id)
        self._assert_none(order, order.faults())
        self._send(order, self._message(order, payment_id, outcome))  # the webhook
        if self._chance(self.chances.timeout):
            self._time_out(order, payment_id)
        else:
            self._apply(order, self._message(order, payment_id, outcome))

    def _time_out(self, order: SimulatedOrder, payment_id: UUID) -> None:
        at = self.now + CALL_TIMEOUT
        self._schedule(at, lambda: self._apply(order, messages.PaymentUnknown(payment_id)))

    def _message(self, order: SimulatedOrder, payment_id: UUID, outcome: str) -> Message:
        if outcome == "captured":
            row = order.model.state.order
            return messages.Captured(payment_id, row.total_minor, row.currency)
        if outcome == "declined":
            return messages.Declined(payment_id)
        return messages.Voided(payment_id)

    def _send_refund(self, order: SimulatedOrder, refund: Refund) -> None:
        at = self.now + self.random.uniform(0.05, 1.0)
        self._schedule(at, lambda: self._refund_reaches_provider(order, refund))

    def _refund_reaches_provider(self, order: SimulatedOrder, refund: Refund) -> None:
        if self._chance(self.chances.timeout):
            self._apply(order, messages.RefundUnknown(refund.refund_id))
            return
        accepts = not self._chance(self.chances.rejected)
        known = (
            order.provider.refunds.get(refund.refund_id) if self.rules.finds_refund_first else None
        )
        outcome = known or order.provider.refund(refund, self.now, accepts=accepts)
        if self._chance(self.chances.timeout):
            self._apply(order, messages.RefundUnknown(refund.refund_id))
        elif outcome == "succeeded":
            self._apply(order, messages.Refunded(refund.refund_id))
        else:
            self._apply(order, messages.RefundRejected(refund.refund_id))

    # ------------------------------------------------------------ timers

    def _set_timer(self, order: SimulatedOrder) -> None:
        """Each order has one timer, for its earliest due row; older timers do nothing."""
        due = [at for at, _ in self._rows(order)]
        order.timer += 1
        if due:
            number = order.timer
            self._schedule(min(due), lambda: self._sweep(order, number))

    def _rows(self, order: SimulatedOrder) -> list[tuple[float, Any]]:
        """This order's rows of ``shop.due_work``, with their times."""
        state = order.model.state
        rows: list[tuple[float, Any]] = []
        if state.order.status == OrderStatus.PENDING:
            if state.order.charge_requested:
                rows.append((order.charge_at, messages.ChargeDue()))
            else:
                expiry = HARD_EXPIRY if state.open_payment else SOFT_EXPIRY
                rows.append((order.placed_at + expiry, messages.ExpiryDue()))
        if state.order.status == OrderStatus.CANCELLING and state.is_settled:
            rows.append((self.now, messages.FinishDue()))
        open_rows: list[Any] = [p for p in state.payments if p.status in OPEN_PAYMENT]
        open_rows += [r for r in state.refunds if r.status in OPEN_REFUND]
        ids = [getattr(row, "refund_id", row.payment_id) for row in open_rows]
        rows += [(order.next_try[i], row) for i, row in zip(ids, open_rows, strict=True)]
        return rows if self.rules.has_timers else [row for row in rows if row[1] not in open_rows]

    def _sweep(self, order: SimulatedOrder, number: int) -> None:
        if number != order.timer:
            return
        if (ends := self._outage_ends()) is not None:
            self._schedule(ends, lambda: self._sweep(order, number))
            return
        due = [row for at, row in self._rows(order) if at <= self.now]
        self.random.shuffle(due)  # several processes work on the same list
        for row in due:
            self._handle_due(order, row)
        self._set_timer(order)

    def _outage_ends(self) -> float | None:
        """The end of the present outage of the clock, or None."""
        return max(
            (ends for begins, ends in self.outages if begins <= self.now < ends), default=None
        )

    def _handle_due(self, order: SimulatedOrder, row: Any) -> None:
        if isinstance(row, Payment | Refund):
            row_id = row.refund_id if isinstance(row, Refund) else row.payment_id
            tries = order.tries[row_id] = order.tries.get(row_id, 0) + 1
            wait = min(BACKOFF_FIRST * 2 ** min(tries, 6), BACKOFF_MAX)
            order.next_try[row_id] = self.now + CALL_TIMEOUT + wait
            call: Any = self._send_refund if isinstance(row, Refund) else self._call_provider
            call(order, row)
            return
        self._apply(order, row)
        if isinstance(row, messages.ChargeDue) and self.now >= order.charge_at:
            order.charge_at = self.now + CHARGE_TIMER

    def _reconcile(self) -> None:
        """Applies the provider's list of transactions, which holds what webhooks have lost."""
        if (ends := self._outage_ends()) is not None:
            self._schedule(ends + self.random.uniform(0, HOUR), self._reconcile)
            return
        for order in self.orders:
            for payment_id, charge in list(order.provider.charges.items()):
                if charge.captures:
                    self._apply(order, self._message(order, payment_id, "captured"))
            for refund_id, outcome in list(order.provider.refunds.items()):
                if outcome == "succeeded":
                    self._apply(order, messages.Refunded(refund_id))
