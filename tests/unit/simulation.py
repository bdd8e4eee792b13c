"""Days of a shop in seconds: many orders on one thread, in simulated time, from one seed.

What the exhaustive model and the state machine do not have is time itself: backoff and expiry, a
sweeper that is away for a day and a half, a worker that sleeps for hours with a charge in its hand,
a provider that forgets its idempotency keys.  Every decision is the shipped ``decide()``'s, every
guard is the order world's, and every step is followed by the safety rules of its order.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from shop.orders import decide
from shop.orders.decide import Effects, OrderState, Payment, Refund
from shop.orders.payments import CHARGE_WINDOW_SECONDS
from tests import order_model
from tests.order_model import World

HOUR = 3600.0
DAY = 24 * HOUR
# Stripe's, and what the shop's window of 20 hours has to stay below with every delay.
KEY_LIFE = DAY
CHARGE_TIMER, FIRST_TRY = 5.0, 10.0
SOFT_EXPIRY, HARD_EXPIRY = 900.0, 3600.0
BACKOFF_FIRST, BACKOFF_MAX = 10.0, 300.0
CALL_TIMEOUT = 30.0
RECONCILED_EVERY = DAY
ORDERS_WITHIN = 2 * DAY
CALM_AFTER = 4 * DAY

Decide = Callable[[OrderState, Any], Effects]


@dataclass(frozen=True)
class Chances:
    """How often what goes wrong; until the simulation calms down."""

    lost: float = 0.2
    doubled: float = 0.3
    dies: float = 0.15
    unanswered: float = 0.3
    sleeps: float = 0.05
    tombstone_ignored: float = 0.1
    declined: float = 0.2
    rejected: float = 0.05
    cancelled: float = 0.25
    refunded: float = 0.25
    outages: int = 3


@dataclass(frozen=True)
class Rules:
    """The rules under test, and what a careless shop around them would do."""

    decision: Decide = decide.decide
    step: Callable[[OrderState, Payment], str] = decide.provider_step
    charge_window: float = CHARGE_WINDOW_SECONDS
    asks_again: bool = True
    looks_first: bool = True


@dataclass
class Charge:
    """What the provider has under one payment: outcome, executions, when its key is forgotten."""

    outcome: str
    key_dies_at: float
    captures: int = 0


@dataclass
class Books:
    """The provider's books of one order.  They last; idempotency keys do not."""

    charges: dict[Any, Charge] = field(default_factory=dict)
    refunds: dict[Any, str] = field(default_factory=dict)
    refund_keys_die_at: dict[Any, float] = field(default_factory=dict)
    times_given_back: Counter[Any] = field(default_factory=Counter)
    given_back: int = 0

    def confirm(
        self, payment_id: Any, now: float, *, approves: bool, ignores_tombstone: bool
    ) -> str:
        """Executes a key once for as long as it is remembered, and again after that."""
        charge = self.charges.get(payment_id)
        is_dead = charge is not None and charge.outcome == "voided"
        if charge is not None and now < charge.key_dies_at and not (is_dead and ignores_tombstone):
            return charge.outcome
        outcome = "captured" if approves else "declined"
        captures = (charge.captures if charge else 0) + approves
        self.charges[payment_id] = Charge(outcome, now + KEY_LIFE, captures)
        return outcome

    def cancel(self, payment_id: Any) -> str:
        """What the charge had become, else a tombstone that few confirmations get past."""
        charge = self.charges.setdefault(payment_id, Charge("voided", float("inf")))
        return charge.outcome

    def refund(self, refund: Refund, now: float, *, accepts: bool) -> str:
        """Executes a key once for as long as it is remembered, and again after that."""
        key = refund.refund_id
        if now >= self.refund_keys_die_at.get(key, 0.0):
            self.refund_keys_die_at[key] = now + KEY_LIFE
            self.refunds[key] = "succeeded" if accepts else "rejected"
            self.given_back += refund.amount_minor if accepts else 0
            self.times_given_back[key] += accepts
        return self.refunds[key]


@dataclass
class Purchase:
    """One order: its rows, the times that its rows would have, the provider's books of it."""

    number: int
    world: World
    placed_at: float
    books: Books = field(default_factory=Books)
    charge_at: float = 0.0
    charge_not_after: dict[Any, float] = field(default_factory=dict)
    next_try: dict[Any, float] = field(default_factory=dict)
    tries: dict[Any, int] = field(default_factory=dict)
    timer: int = 0

    @property
    def held(self) -> int:
        """The money that the provider holds for it."""
        total = self.world.story.order.total_minor
        return total * sum(c.captures for c in self.books.charges.values()) - self.books.given_back

    def faults(self) -> list[str]:
        """Every safety rule that is broken now, the provider's books among them."""
        found = order_model.violations(self.world)
        announced = {payment.payment_id for payment in self.world.story.payments}
        if not self.books.charges.keys() <= announced:
            found.append("I-11 a charge that no row announced")
        if any(charge.captures > 1 for charge in self.books.charges.values()):
            found.append("I-11 a payment was charged twice")
        if any(times > 1 for times in self.books.times_given_back.values()):
            found.append("a refund was given back twice")
        return found


class Simulation:
    """``run`` lives through it all; raises AssertionError at the first broken rule.

    ``steps`` counts what happened; ``now`` is the simulated second.  A seed tells one story.
    """

    def __init__(self, seed: int, orders: int, rules: Rules | None = None) -> None:
        self.seed, self.rules = seed, rules or Rules()
        self.dice = Random(seed)
        self.chances = Chances()
        self.now, self.steps, self._number = 0.0, 0, 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self.outages = sorted(self._outage() for _ in range(self.chances.outages))
        self.purchases = [self._purchase(number) for number in range(orders)]

    def run(self) -> None:
        """Until nothing is left to happen; then the books of both sides are compared."""
        for purchase in self.purchases:
            self._later(purchase.placed_at, lambda p=purchase: self._placed(p))
        days = round((CALM_AFTER + DAY) / RECONCILED_EVERY)
        for day in range(1, days + 1):
            self._later(day * RECONCILED_EVERY, self._reconcile)
        while self._queue:
            self.now, _, act = heapq.heappop(self._queue)
            self.steps += 1
            act()
        for purchase in self.purchases:
            self._assert_none(purchase, order_model.faults_at_rest(purchase.world, purchase.held))

    # ------------------------------------------------------------ the stage

    def _outage(self) -> tuple[float, float]:
        """The clock ticks for nobody, at the longest for longer than any key lives."""
        begins = self.dice.uniform(0, CALM_AFTER - 1.5 * DAY)
        return begins, begins + self.dice.choice((60.0, HOUR, 12 * HOUR, 1.5 * DAY))

    def _purchase(self, number: int) -> Purchase:
        lines = [
            (self.dice.randint(1, 3), self.dice.randint(1, 5))
            for _ in range(self.dice.randint(1, 3))
        ]
        at = self.dice.uniform(0, ORDERS_WITHIN)
        return Purchase(number, order_model.placed(lines), at, charge_at=at + CHARGE_TIMER)

    def _later(self, at: float, act: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (max(at, self.now), self._number, act))

    def _chance(self, share: float) -> bool:
        """Nothing goes wrong any more once it is calm."""
        return self.now < CALM_AFTER and self.dice.random() < share

    def _assert_none(self, purchase: Purchase, faults: list[str]) -> None:
        assert not faults, f"seed {self.seed}, order {purchase.number}, {self.now:.0f} s: {faults}"

    def _send(self, purchase: Purchase, message: Any) -> None:
        """An event or a webhook: lost, once or twice, soon or in hours."""
        if self._chance(self.chances.lost):
            return
        for _ in range(1 + self._chance(self.chances.doubled)):
            delay = self.dice.expovariate(0.5)
            if self._chance(self.chances.sleeps):
                delay = self.dice.uniform(0, 12 * HOUR)
            self._later(self.now + delay, lambda: self._told(purchase, message))

    # ------------------------------------------------------------ one order

    def _placed(self, purchase: Purchase) -> None:
        self._send(purchase, decide.ChargeDue())
        self._set_timer(purchase)
        if self._chance(self.chances.cancelled):
            at = self.now + self.dice.choice((0.05, 5.0, HOUR, DAY)) * self.dice.random()
            self._later(at, lambda: self._told(purchase, decide.CancelAsked("USER")))
        if self._chance(self.chances.refunded):
            for _ in range(self.dice.randint(1, 3)):
                asked = decide.RefundAsked(self.dice.randint(1, 10), "support")
                at = self.now + self.dice.uniform(0, DAY)
                self._later(at, lambda m=asked: self._told(purchase, m))

    def _told(self, purchase: Purchase, message: Any) -> None:
        """One transaction; a worker that dies before its commit has done nothing."""
        if self._chance(self.chances.dies):
            return
        before = purchase.world.story
        world = replace(purchase.world, story=self._story_now(purchase))
        purchase.world = order_model.apply_message(world, message, self.rules.decision)
        story = purchase.world.story
        for payment in story.payments[len(before.payments) :]:
            purchase.charge_not_after[payment.payment_id] = self.now + self.rules.charge_window
            purchase.next_try[payment.payment_id] = self.now + FIRST_TRY
        for refund in story.refunds[len(before.refunds) :]:
            purchase.next_try[refund.refund_id] = self.now + FIRST_TRY
        if story.order.charge_wanted and not before.order.charge_wanted:
            purchase.charge_at = self.now
        self._assert_none(purchase, purchase.faults())
        self._go_on(purchase, before, message)
        self._set_timer(purchase)

    def _story_now(self, purchase: Purchase) -> OrderState:
        """The rows as PostgreSQL would read them: it compares the times."""
        story, placed_at = purchase.world.story, purchase.placed_at
        payments = tuple(
            replace(p, may_charge=self.now < purchase.charge_not_after[p.payment_id])
            for p in story.payments
        )
        order = replace(
            story.order,
            is_soft_expired=self.now >= placed_at + SOFT_EXPIRY,
            is_hard_expired=self.now >= placed_at + HARD_EXPIRY,
        )
        return replace(story, order=order, payments=payments)

    def _go_on(self, purchase: Purchase, before: OrderState, message: Any) -> None:
        """What follows the commit, unless the worker dies in between."""
        story = purchase.world.story
        if isinstance(message, decide.Declined) and story.order.status == "PENDING":
            at = self.now + self.dice.uniform(0, HARD_EXPIRY)
            self._later(at, lambda: self._told(purchase, decide.PayAgainAsked("CARD")))
        if self._chance(self.chances.dies):
            return
        for payment in story.payments[len(before.payments) :]:
            self._ask(purchase, payment)
        for refund in story.refunds[len(before.refunds) :]:
            self._give_back(purchase, refund)
        if story.live is not None and story.order.status in decide.CLOSED_ORDER:
            self._ask(purchase, story.live)

    # ------------------------------------------------------------ the provider

    def _ask(self, purchase: Purchase, payment: Payment) -> None:
        """A worker decides now what it asks; it may sleep for hours before it sends it."""
        story = self._story_now(purchase)
        wanted = self.rules.step(story, story.payment(payment.payment_id) or payment)
        delay = self.dice.uniform(0.05, 1.0)
        if self._chance(self.chances.sleeps):
            delay = self.dice.uniform(0, 3.9 * HOUR)
        self._later(self.now + delay, lambda: self._arrives(purchase, payment.payment_id, wanted))

    def _arrives(self, purchase: Purchase, payment_id: Any, wanted: str) -> None:
        if self._chance(self.chances.unanswered):  # it never came as far
            self._unclear(purchase, payment_id)
            return
        if wanted == "confirm":
            approves = not self._chance(self.chances.declined)
            leaks = self._chance(self.chances.tombstone_ignored)
            word = purchase.books.confirm(
                payment_id, self.now, approves=approves, ignores_tombstone=leaks
            )
        else:
            word = purchase.books.cancel(payment_id)
        self._assert_none(purchase, purchase.faults())
        self._send(purchase, self._word_on(purchase, payment_id, word))  # the webhook
        if self._chance(self.chances.unanswered):
            self._unclear(purchase, payment_id)
        else:
            self._told(purchase, self._word_on(purchase, payment_id, word))

    def _unclear(self, purchase: Purchase, payment_id: Any) -> None:
        at = self.now + CALL_TIMEOUT
        self._later(at, lambda: self._told(purchase, decide.Unclear(payment_id)))

    def _word_on(self, purchase: Purchase, payment_id: Any, word: str) -> Any:
        if word == "captured":
            order = purchase.world.story.order
            return decide.Captured(payment_id, order.total_minor, order.currency)
        if word == "declined":
            return decide.Declined(payment_id)
        return decide.Voided(payment_id)

    def _give_back(self, purchase: Purchase, refund: Refund) -> None:
        at = self.now + self.dice.uniform(0.05, 1.0)
        self._later(at, lambda: self._refund_arrives(purchase, refund))

    def _refund_arrives(self, purchase: Purchase, refund: Refund) -> None:
        if self._chance(self.chances.unanswered):
            self._told(purchase, decide.RefundUnclear(refund.refund_id))
            return
        accepts = not self._chance(self.chances.rejected)
        known = purchase.books.refunds.get(refund.refund_id) if self.rules.looks_first else None
        word = known or purchase.books.refund(refund, self.now, accepts=accepts)
        if self._chance(self.chances.unanswered):
            self._told(purchase, decide.RefundUnclear(refund.refund_id))
        elif word == "succeeded":
            self._told(purchase, decide.Refunded(refund.refund_id))
        else:
            self._told(purchase, decide.RefundRejected(refund.refund_id))

    # ------------------------------------------------------------ timers

    def _set_timer(self, purchase: Purchase) -> None:
        """The one timer of an order is its earliest due row; an older timer is void."""
        due = [at for at, _ in self._rows(purchase)]
        purchase.timer += 1
        if due:
            number = purchase.timer
            self._later(min(due), lambda: self._swept(purchase, number))

    def _rows(self, purchase: Purchase) -> list[tuple[float, Any]]:
        """What ``shop.due_work`` would show of this order, with its time."""
        story = purchase.world.story
        rows: list[tuple[float, Any]] = []
        if story.order.status == "PENDING":
            if story.order.charge_wanted:
                rows.append((purchase.charge_at, decide.ChargeDue()))
            expiry = HARD_EXPIRY if story.live else SOFT_EXPIRY
            rows.append((purchase.placed_at + expiry, decide.ExpiryDue()))
        if story.order.status == "CANCELLING" and story.is_settled:
            rows.append((self.now, decide.FinishDue()))
        live: list[Any] = [p for p in story.payments if p.status in decide.LIVE]
        live += [r for r in story.refunds if r.status in decide.LIVE]
        ids = [getattr(row, "refund_id", row.payment_id) for row in live]
        rows += [(purchase.next_try[i], row) for i, row in zip(ids, live, strict=True)]
        return rows if self.rules.asks_again else [row for row in rows if row[1] not in live]

    def _swept(self, purchase: Purchase, number: int) -> None:
        if number != purchase.timer:
            return
        if (ends := self._outage_ends()) is not None:
            self._later(ends, lambda: self._swept(purchase, number))
            return
        due = [row for at, row in self._rows(purchase) if at <= self.now]
        self.dice.shuffle(due)  # sweepers are several, and each has its own order
        for row in due:
            self._take_up(purchase, row)
        self._set_timer(purchase)

    def _outage_ends(self) -> float | None:
        """When the clock ticks again, if it does not now."""
        return max(
            (ends for begins, ends in self.outages if begins <= self.now < ends), default=None
        )

    def _take_up(self, purchase: Purchase, row: Any) -> None:
        if isinstance(row, Payment | Refund):
            row_id = row.refund_id if isinstance(row, Refund) else row.payment_id
            tries = purchase.tries[row_id] = purchase.tries.get(row_id, 0) + 1
            wait = min(BACKOFF_FIRST * 2 ** min(tries, 6), BACKOFF_MAX)
            purchase.next_try[row_id] = self.now + CALL_TIMEOUT + wait
            ask: Any = self._give_back if isinstance(row, Refund) else self._ask
            ask(purchase, row)
            return
        self._told(purchase, row)
        if isinstance(row, decide.ChargeDue) and self.now >= purchase.charge_at:
            purchase.charge_at = self.now + CHARGE_TIMER

    def _reconcile(self) -> None:
        """The provider's list of movements, told again: what every webhook and answer lost."""
        if (ends := self._outage_ends()) is not None:
            self._later(ends + self.dice.uniform(0, HOUR), self._reconcile)
            return
        for purchase in self.purchases:
            for payment_id, charge in list(purchase.books.charges.items()):
                if charge.captures:
                    self._told(purchase, self._word_on(purchase, payment_id, "captured"))
            for refund_id, word in list(purchase.books.refunds.items()):
                if word == "succeeded":
                    self._told(purchase, decide.Refunded(refund_id))
