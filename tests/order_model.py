"""One order's rows as a value, and the effects of the shipped rules written into it.

The counterpart of ``shop.orders.apply`` without a database: each guard of its SQL raises
``IllegalWrite`` here, so the model and the state machine see what PostgreSQL would refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from shop.orders import decide
from shop.orders.decide import Effects, Order, OrderState, Payment, Refund

Decide = Callable[[OrderState, Any], Effects]

HELD, COMMITTED, RELEASED, RETURNED = "HELD", "COMMITTED", "RELEASED", "RETURNED"


class IllegalWrite(AssertionError):
    """An effect whose guard met no row, or that a constraint refuses."""


SHELF = 1_000
PUT_BACK = {(HELD, RELEASED), (COMMITTED, RETURNED)}


@dataclass(frozen=True)
class Line:
    """One line of the order, its reservation and its product's shelf, which is only its own."""

    qty: int = 1
    unit_price_minor: int = 1
    status: str = HELD
    on_hand: int = SHELF
    reserved: int = 1
    moves: tuple[tuple[str, int], ...] = ()
    times_given_back: int = 0


@dataclass(frozen=True)
class World:
    """The rows of one order, its lines and their stock, the ledger and the alarms."""

    story: OrderState
    lines: tuple[Line, ...] = (Line(),)
    ledger: tuple[tuple[str, Any, int], ...] = ()
    alarms: frozenset[tuple[str, Any]] = frozenset()

    def posted(self, kind: str, source_id: Any) -> int:
        """How often this source was posted."""
        return sum(1 for k, s, _ in self.ledger if (k, s) == (kind, source_id))

    def balance(self) -> int:
        """The money that the ledger says we hold for this order."""
        return sum(amount if kind == "CAPTURE" else -amount for kind, _, amount in self.ledger)


def placed(lines: Iterable[tuple[int, int]] = ((1, 1),)) -> World:
    """An order as ``place_order`` leaves it; ``lines`` are quantities and unit prices."""
    held = tuple(Line(qty, price, reserved=qty) for qty, price in lines)
    total_minor = sum(line.qty * line.unit_price_minor for line in held)
    return World(OrderState(Order("PENDING", total_minor, "KRW")), held)


def apply_message(world: World, message: Any, decision: Decide = decide.decide) -> World:
    """The world after a message; the same object when the rules refuse it or find nothing to do."""
    effects = decision(world.story, message)
    if any(isinstance(effect, decide.Refuse) for effect in effects):
        assert len(effects) == 1, "a refusal is always alone"
        return world
    for effect in effects:
        world = _WRITE[type(effect)](world, effect)
    return world


def with_expiry(world: World, *, hard: bool) -> World:
    """The same world once its soft, or also its hard, expiry has passed."""
    order = replace(world.story.order, is_soft_expired=True, is_hard_expired=hard)
    return replace(world, story=replace(world.story, order=order))


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise IllegalWrite(what)


def _with_payment(world: World, payment: Payment) -> World:
    payments = tuple(
        payment if p.payment_id == payment.payment_id else p for p in world.story.payments
    )
    return replace(world, story=replace(world.story, payments=payments))


def _move_order(world: World, move: decide.MoveOrder) -> World:
    order = world.story.order
    _require(order.status == move.from_status, f"order is {order.status}: {move}")
    is_closed = move.to_status in ("CANCELLING", "CANCELLED")
    reason = move.reason or order.reason
    _require((reason is not None) == is_closed, f"reason iff cancelled: {move}")
    moved = replace(order, status=move.to_status, reason=reason, charge_wanted=False)
    return replace(world, story=replace(world.story, order=moved))


def _move_stock(world: World, move: decide.MoveStock) -> World:
    """All lines together, as the saga's one statement moves them."""
    return replace(world, lines=tuple(_moved(line, move) for line in world.lines))


def _moved(line: Line, move: decide.MoveStock) -> Line:
    _require(line.status == move.from_status, f"reservation is {line.status}: {move}")
    _require((line.status, move.to_status) in {*PUT_BACK, (HELD, COMMITTED)}, f"{move}")
    on_hand, reserved, moves = line.on_hand, line.reserved, line.moves
    if move.from_status == HELD:
        reserved -= line.qty
    if move.to_status == COMMITTED:
        on_hand, moves = on_hand - line.qty, (*moves, ("COMMIT", -line.qty))
    if move.to_status == RETURNED:
        on_hand, moves = on_hand + line.qty, (*moves, ("RETURN", line.qty))
    return replace(
        line,
        status=move.to_status,
        on_hand=on_hand,
        reserved=reserved,
        moves=moves,
        times_given_back=line.times_given_back + (move.to_status in (RELEASED, RETURNED)),
    )


def _open_payment(world: World, opened: decide.OpenPayment) -> World:
    story = world.story
    _require(story.live is None, "one_live_payment")
    _require(all(p.attempt != opened.attempt for p in story.payments), "one_attempt")
    order = story.order
    payment = Payment(opened.attempt, opened.attempt, "INTENT", order.total_minor, order.currency)
    story = replace(
        story,
        order=replace(order, charge_wanted=False),
        payments=(*story.payments, payment),
    )
    return replace(world, story=story)


def _move_payment(world: World, move: decide.MovePayment) -> World:
    payment = world.story.payment(move.payment_id)
    _require(payment is not None and payment.status == move.from_status, f"{payment}: {move}")
    assert payment is not None
    if move.to_status == "CAPTURED" and not move.late:
        _require(world.story.kept is None, "one_kept_capture")
    return _with_payment(world, replace(payment, status=move.to_status, late=move.late))


def _open_refund(world: World, opened: decide.OpenRefund) -> World:
    world = _reserve(world, opened.payment_id, opened.amount_minor)
    number = sum(1 for r in world.story.refunds if r.payment_id == opened.payment_id) + 1
    refund_id = opened.refund_id or (opened.payment_id, number)
    refund = Refund(refund_id, opened.payment_id, opened.amount_minor, "INTENT")
    refunds = (*world.story.refunds, refund)
    return replace(world, story=replace(world.story, refunds=refunds))


def _reserve(world: World, payment_id: Any, amount_minor: int) -> World:
    payment = world.story.payment(payment_id)
    _require(payment is not None and payment.status == "CAPTURED", "only a capture is refunded")
    assert payment is not None
    reserved = payment.refund_reserved_minor + amount_minor
    _require(0 <= reserved <= payment.amount_minor, "refunds_le_capture")
    return _with_payment(world, replace(payment, refund_reserved_minor=reserved))


def _move_refund(world: World, move: decide.MoveRefund) -> World:
    refund = world.story.refund(move.refund_id)
    _require(refund is not None and refund.status == move.from_status, f"{refund}: {move}")
    if move.to_status == "REJECTED":
        world = _reserve(world, move.payment_id, -move.amount_minor)
    refunds = tuple(
        replace(r, status=move.to_status) if r.refund_id == move.refund_id else r
        for r in world.story.refunds
    )
    return replace(world, story=replace(world.story, refunds=refunds))


def _post(world: World, posting: decide.Post) -> World:
    _require(world.posted(posting.kind, posting.source_id) == 0, "one_posting_per_source")
    row = (posting.kind, posting.source_id, posting.amount_minor)
    return replace(world, ledger=(*world.ledger, row))


def _want(world: World, _: decide.WantCharge) -> World:
    order = world.story.order
    _require(order.status == "PENDING" and not order.charge_wanted, "charge_at is null")
    story = replace(world.story, order=replace(order, charge_wanted=True))
    return replace(world, story=story)


def _alarm(world: World, alarm: decide.OperatorAlert) -> World:
    return replace(world, alarms=world.alarms | {(alarm.kind, alarm.subject)})


def _unchanged(world: World, _: Any) -> World:
    return world


_WRITE: dict[type, Callable[[World, Any], World]] = {
    decide.MoveOrder: _move_order,
    decide.MoveStock: _move_stock,
    decide.OpenPayment: _open_payment,
    decide.MovePayment: _move_payment,
    decide.RetryPayment: _unchanged,
    decide.OpenRefund: _open_refund,
    decide.MoveRefund: _move_refund,
    decide.RetryRefund: _unchanged,
    decide.Post: _post,
    decide.WantCharge: _want,
    decide.OperatorAlert: _alarm,
}

# ---------------------------------------------------------------- the safety rules of 5.9
#
# They are also the twins of those I-queries of tools/checker whose tables a world has; each says
# which.  I-16's is the machine's, which sees every step; the others are about what a world lacks:
# settlements, events, idempotency keys, hash chains, carts.


def violations(world: World) -> list[str]:
    """Every safety rule that this world breaks; empty at every moment of a correct shop."""
    return [what for what, holds in _SAFETY.items() if not holds(world)]


def _payments_of(world: World, *statuses: str) -> list[Payment]:
    return [p for p in world.story.payments if p.status in statuses]


def _refunds_of(world: World, payment: Payment) -> list[Refund]:
    return [r for r in world.story.refunds if r.payment_id == payment.payment_id]


def _stock_fits(world: World) -> bool:
    status = world.story.order.status
    allowed = {"PENDING": (HELD,), "PAID": (COMMITTED,)}.get(status, (RELEASED, RETURNED))
    return all(line.status in allowed for line in world.lines)


def _counters_fit(line: Line) -> bool:
    """Reserved is what is held, on hand is what the moves left, and neither is less than none."""
    held = line.qty if line.status == HELD else 0
    is_conserved = line.on_hand == SHELF + sum(qty for _, qty in line.moves)
    return line.reserved == held and is_conserved and 0 <= line.reserved <= line.on_hand


def _moves_fit(line: Line) -> bool:
    committed, returned = ("COMMIT", -line.qty), ("RETURN", line.qty)
    wanted = {COMMITTED: (committed,), RETURNED: (committed, returned)}.get(line.status, ())
    return line.moves == wanted


def _total_fits(world: World) -> bool:
    total = sum(line.qty * line.unit_price_minor for line in world.lines)
    return bool(world.lines) and total == world.story.order.total_minor


def _money_fits(world: World) -> bool:
    status, kept = world.story.order.status, _kept(world)
    return not (status == "PAID" and kept != 1) and not (status == "PENDING" and kept)


def _kept(world: World) -> int:
    return sum(1 for p in _payments_of(world, "CAPTURED") if not p.late)


def _ledger_mirrors(world: World) -> bool:
    captured = sorted(
        ("CAPTURE", p.payment_id, p.amount_minor) for p in _payments_of(world, "CAPTURED")
    )
    refunded = sorted(
        ("REFUND", r.refund_id, r.amount_minor)
        for r in world.story.refunds
        if r.status == "SUCCEEDED"
    )
    posted = sorted(world.ledger, key=str)
    return posted == sorted([*captured, *refunded], key=str)


def _late_is_refunded(world: World) -> bool:
    """Late money is on its way back in full, or a person was called because it was refused."""
    for payment in _payments_of(world, "CAPTURED"):
        refunds = _refunds_of(world, payment)
        if payment.late and sum(r.amount_minor for r in refunds) < payment.amount_minor:
            return False
    return all(not p.late for p in world.story.payments if p.status != "CAPTURED")


def _reserved_is_sum(world: World) -> bool:
    return all(
        p.refund_reserved_minor
        == sum(r.amount_minor for r in _refunds_of(world, p) if r.status != "REJECTED")
        <= (p.amount_minor if p.status == "CAPTURED" else 0)
        for p in world.story.payments
    )


_SAFETY: dict[str, Callable[[World], bool]] = {
    "stock was given back at most once": lambda w: all(
        line.times_given_back <= 1 for line in w.lines
    ),
    "I-01 I-02 I-03 stock's counters are their sums": lambda w: all(map(_counters_fit, w.lines)),
    "I-05 a reservation has the moves of its status": lambda w: all(map(_moves_fit, w.lines)),
    "I-06 stock is where the order's status says": _stock_fits,
    "I-07 the total is the sum of the lines": _total_fits,
    "I-09 at most one live payment": lambda w: len(_payments_of(w, *decide.LIVE)) <= 1,
    "I-09 at most one kept capture": lambda w: _kept(w) <= 1,
    "I-10 PAID iff one kept capture, PENDING has none": _money_fits,
    "I-08 payments are of the order's total": lambda w: all(
        (p.amount_minor, p.currency) == (w.story.order.total_minor, w.story.order.currency)
        for p in w.story.payments
    ),
    "I-12 refund_reserved is the sum of the refunds, and within the capture": _reserved_is_sum,
    "I-09 late money is on its way back": _late_is_refunded,
    "I-13 the ledger mirrors captures and refunds": _ledger_mirrors,
    "I-14 the ledger never gives back more than came": lambda w: w.balance() >= 0,
    "a reason iff cancelled": lambda w: (
        (w.story.order.reason is not None) == (w.story.order.status in decide.CLOSED_ORDER)
    ),
    "CANCELLED waits for nothing that could keep money": lambda w: (
        w.story.order.status != "CANCELLED" or w.story.live is None
    ),
}


def faults_at_rest(world: World, held_by_provider: int) -> list[str]:
    """What is wrong with a world in which nothing is left to do."""
    story = world.story
    status = story.order.status
    faults = violations(world)
    is_for_a_person = any(r.status == "REJECTED" for r in story.refunds)
    if status not in ("PAID", "CANCELLED") and not is_for_a_person:
        faults.append(f"the order does not rest: {status}")
    if story.live is not None:
        faults.append("a payment is open")
    if any(r.status in decide.LIVE for r in story.refunds):
        faults.append("a refund is open")
    if world.balance() != held_by_provider:
        faults.append(f"ledger {world.balance()}, provider {held_by_provider}")
    if status == "CANCELLED" and held_by_provider and not is_for_a_person:
        faults.append(f"CANCELLED, yet the provider holds {held_by_provider}")
    if status == "PAID" and story.kept is None:
        faults.append("PAID without a capture")
    return faults
