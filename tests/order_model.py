"""One order's rows as a value, and the effects of the shipped rules written to it.

The counterpart of ``shop.orders.apply`` without a database: each guard of its SQL raises
``IllegalWrite`` here, so that the model and the state machine see what PostgreSQL would reject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import assert_never
from uuid import UUID

from shop.ledger import ACCOUNTS
from shop.orders import decide, effects
from shop.orders.effects import Effect, Effects
from shop.orders.messages import Message
from shop.orders.states import Dispute, Order, OrderedLine, OrderState, Payment, Refund
from shop.primitives.price_lines import divide
from shop.primitives.statuses import (
    FAILED_REFUND,
    OPEN_PAYMENT,
    OPEN_REFUND,
    CancelReason,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundStatus,
    ReservationStatus,
    ReturnStatus,
    ShipmentStatus,
    StockMove,
)

Decide = Callable[[OrderState, Message], Effects]

HELD, COMMITTED = ReservationStatus.HELD, ReservationStatus.COMMITTED
RELEASED, RETURNED = ReservationStatus.RELEASED, ReservationStatus.RETURNED


def payment_id(attempt: int) -> UUID:
    """The id of the payment of an attempt: 1, 2 or 3."""
    return UUID(int=attempt)


def refund_id(attempt: int, number: int) -> UUID:
    """The id of a payment's first, second, … refund."""
    return UUID(int=attempt * 1000 + number)


def provider_refund_id(attempt: int) -> UUID:
    """The id of the refund that the provider made of a payment by itself."""
    return UUID(int=attempt * 1000 + 900)


def dispute_id(attempt: int) -> UUID:
    """The id of the dispute about a payment."""
    return UUID(int=attempt * 1000 + 800)


def shipment_id(number: int) -> UUID:
    """The id of the first, second, … shipment."""
    return UUID(int=9_000_000 + number)


def return_id(number: int) -> UUID:
    """The id of the first, second, … return."""
    return UUID(int=8_000_000 + number)


class IllegalWrite(AssertionError):
    """An effect whose guard finds no row, or that violates a constraint."""


INITIAL_STOCK = 1_000
FINAL = (OrderStatus.PAID, OrderStatus.REFUNDED, OrderStatus.CANCELLED)
FEES = (PostingKind.DISPUTE_FEE, PostingKind.DISPUTE_FEE_REVERSAL)
FREED = {(HELD, RELEASED), (COMMITTED, RETURNED)}


@dataclass(frozen=True)
class Line:
    """One line of the order, its reservation, and the stock of its product."""

    qty: int = 1
    unit_price_minor: int = 1
    status: ReservationStatus = HELD
    on_hand: int = INITIAL_STOCK
    reserved: int = 1
    moves: tuple[tuple[StockMove, int], ...] = ()
    times_freed: int = 0
    returned: int = 0


@dataclass(frozen=True)
class ModelOrder:
    """The rows of one order, its lines and their stock, the ledger and the operator alerts."""

    state: OrderState
    lines: tuple[Line, ...] = (Line(),)
    ledger: tuple[tuple[PostingKind, UUID, int], ...] = ()
    alerts: frozenset[tuple[str, UUID | str]] = frozenset()
    is_from_cart: bool = True
    shipping_minor: int = 0
    # return, product, units, those restocked, and the money for them
    given_back: tuple[tuple[UUID, int, int, int, int], ...] = ()

    def posted(self, kind: PostingKind, source_id: UUID) -> int:
        """How often this source was posted."""
        return sum(1 for k, s, _ in self.ledger if (k, s) == (kind, source_id))

    def balance(self) -> int:
        """What the order keeps according to the ledger."""
        return -self._account("order_escrow")

    def at_provider(self) -> int:
        """The provider's part in it: what is paid back or written off stays with the provider.

        Without the fees of disputes, which are not the order's money.
        """
        return self._account("psp_receivable")

    def _account(self, name: str) -> int:
        movements = ((ACCOUNTS[kind], minor) for kind, _, minor in self.ledger if kind not in FEES)
        return sum(
            minor * ((name == debit) - (name == credit)) for (debit, credit), minor in movements
        )


def placed(
    lines: Iterable[tuple[int, int]] = ((1, 1),),
    *,
    discount_minor: int = 0,
    shipping_minor: int = 0,
) -> ModelOrder:
    """An order as ``place_order`` leaves it; ``lines`` are quantities and unit prices.

    Its products have the numbers 1, 2, 3 …  The discount is less than the sum of the lines.
    """
    held = tuple(Line(qty, price, reserved=qty) for qty, price in lines)
    amounts = [line.qty * line.unit_price_minor for line in held]
    total_minor = sum(amounts) - discount_minor + shipping_minor
    order = Order(OrderStatus.PENDING, total_minor, "KRW", has_cart_lines=True)
    parts = zip(held, amounts, divide(discount_minor, amounts), strict=True)
    ordered = tuple(
        OrderedLine(number, line.qty, amount - discount)
        for number, (line, amount, discount) in enumerate(parts, 1)
    )
    return ModelOrder(OrderState(order, lines=ordered), held, shipping_minor=shipping_minor)


def apply_message(
    model: ModelOrder, message: Message, decision: Decide = decide.decide
) -> ModelOrder:
    """The order after a message; the same object when the rules reject it or it changes nothing."""
    decided = decision(model.state, message)
    if any(isinstance(effect, effects.Reject) for effect in decided):
        assert len(decided) == 1, "a rejection is the only effect"
        return model
    for effect in decided:
        model = _write(model, effect)
    return model


def with_expiry(model: ModelOrder, *, hard: bool) -> ModelOrder:
    """The same order after its soft, or also its hard, expiry."""
    order = replace(model.state.order, is_soft_expired=True, is_hard_expired=hard)
    return replace(model, state=replace(model.state, order=order))


def after_deadline(model: ModelOrder) -> ModelOrder:
    """The same order after the deadline of the action that its open payment requires."""
    payment = model.state.open_payment
    assert payment is not None
    return _with_payment(model, replace(payment, may_act=False))


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise IllegalWrite(what)


def _with_payment(model: ModelOrder, payment: Payment) -> ModelOrder:
    payments = tuple(
        payment if p.payment_id == payment.payment_id else p for p in model.state.payments
    )
    return replace(model, state=replace(model.state, payments=payments))


def _change_order(model: ModelOrder, change: effects.ChangeOrderStatus) -> ModelOrder:
    order = model.state.order
    _require(order.status == change.from_status, f"order is {order.status}: {change}")
    is_closed = change.to_status in decide.CLOSED_ORDER
    reason = change.reason or order.reason
    _require((reason is not None) == is_closed, f"reason iff cancelled: {change}")
    moved = replace(order, status=change.to_status, reason=reason, charge_requested=False)
    return replace(model, state=replace(model.state, order=moved))


def _change_reservations(model: ModelOrder, change: effects.ChangeReservations) -> ModelOrder:
    """All lines together, as one statement of ``apply`` changes them."""
    return replace(model, lines=tuple(_moved(line, change) for line in model.lines))


def _moved(line: Line, change: effects.ChangeReservations) -> Line:
    _require(line.status == change.from_status, f"reservation is {line.status}: {change}")
    _require((line.status, change.to_status) in {*FREED, (HELD, COMMITTED)}, f"{change}")
    on_hand, reserved, moves = line.on_hand, line.reserved, line.moves
    if change.from_status == HELD:
        reserved -= line.qty
    if change.to_status == COMMITTED:
        on_hand, moves = on_hand - line.qty, (*moves, (StockMove.COMMIT, -line.qty))
    if change.to_status == RETURNED:
        rest = line.qty - line.returned
        on_hand, moves = on_hand + rest, (*moves, (StockMove.RETURN, rest))
    return replace(
        line,
        status=change.to_status,
        on_hand=on_hand,
        reserved=reserved,
        moves=moves,
        times_freed=line.times_freed + (change.to_status in (RELEASED, RETURNED)),
    )


def _open_payment(model: ModelOrder, opened: effects.OpenPayment) -> ModelOrder:
    state = model.state
    _require(state.open_payment is None, "one_open_payment")
    _require(all(p.attempt != opened.attempt for p in state.payments), "one_attempt")
    order = state.order
    payment = Payment(
        payment_id(opened.attempt),
        opened.attempt,
        PaymentStatus.INTENT,
        order.total_minor,
        order.currency,
    )
    state = replace(
        state,
        order=replace(order, charge_requested=False),
        payments=(*state.payments, payment),
    )
    return replace(model, state=state)


def _change_payment(model: ModelOrder, change: effects.ChangePaymentStatus) -> ModelOrder:
    payment = model.state.payment(change.payment_id)
    _require(payment is not None and payment.status == change.from_status, f"{payment}: {change}")
    assert payment is not None
    if change.to_status == PaymentStatus.CAPTURED and not change.late_capture:
        _require(model.state.settling_payment is None, "one_kept_capture")
    changed = replace(payment, status=change.to_status, late_capture=change.late_capture)
    return _with_payment(model, replace(changed, action=None, token=None))


def _change_action(
    model: ModelOrder, effect: effects.AwaitAction | effects.ConfirmAction | effects.AbandonAction
) -> ModelOrder:
    payment = model.state.payment(effect.payment_id)
    assert payment is not None
    if isinstance(effect, effects.AwaitAction):
        _require(payment.status == effect.from_status, f"{payment}: {effect}")
        _require(bool(effect.action or payment.action), "action_iff_required")
    else:
        is_awaited = payment.status == PaymentStatus.REQUIRES_ACTION and payment.token is None
        _require(is_awaited, f"{payment}: {effect}")
    return _with_payment(model, decide.after_action(payment, effect))


def _open_refund(model: ModelOrder, opened: effects.OpenRefund) -> ModelOrder:
    payment = model.state.payment(opened.payment_id)
    _require(
        payment is not None and opened.amount_minor <= model.state.refundable_minor(payment),
        "the shop refunds nothing that a dispute has withdrawn",
    )
    number = sum(1 for r in model.state.refunds if r.payment_id == opened.payment_id) + 1
    new_id = refund_id(opened.payment_id.int, number)
    row = (new_id, opened.payment_id, opened.amount_minor, RefundStatus.INTENT)
    return _with_refund(model, Refund(*row, opened.means, opened.restock))


def _record_refund(model: ModelOrder, executed: effects.RecordRefund) -> ModelOrder:
    _require(model.state.refund(executed.refund_id) is None, "refunds_pkey")
    row = (executed.refund_id, executed.payment_id, executed.amount_minor)
    return _with_refund(model, Refund(*row, RefundStatus.SUCCEEDED))


def _with_refund(model: ModelOrder, refund: Refund) -> ModelOrder:
    model = _reserve(model, refund.payment_id, refund.amount_minor)
    refunds = (*model.state.refunds, refund)
    return replace(model, state=replace(model.state, refunds=refunds))


def _reserve(model: ModelOrder, payment_id: UUID, amount_minor: int) -> ModelOrder:
    payment = model.state.payment(payment_id)
    _require(
        payment is not None and payment.status == PaymentStatus.CAPTURED,
        "only a capture is refunded",
    )
    assert payment is not None
    reserved = payment.refund_reserved_minor + amount_minor
    _require(0 <= reserved <= payment.amount_minor, "refunds_le_capture")
    return _with_payment(model, replace(payment, refund_reserved_minor=reserved))


def _change_refund(model: ModelOrder, change: effects.ChangeRefundStatus) -> ModelOrder:
    refund = model.state.refund(change.refund_id)
    _require(refund is not None and refund.status == change.from_status, f"{refund}: {change}")
    model = _reserve(model, change.payment_id, decide.reserved_by(change))
    refunds = tuple(
        replace(r, status=change.to_status) if r.refund_id == change.refund_id else r
        for r in model.state.refunds
    )
    return replace(model, state=replace(model.state, refunds=refunds))


def _open_dispute(model: ModelOrder, opened: effects.OpenDispute) -> ModelOrder:
    _require(model.state.dispute(opened.dispute_id) is None, "disputes_pkey")
    row = Dispute(opened.dispute_id, opened.payment_id)
    disputes = (*model.state.disputes, row)
    return replace(model, state=replace(model.state, disputes=disputes))


def _change_dispute(model: ModelOrder, change: effects.ChangeDisputeStatus) -> ModelOrder:
    dispute = model.state.dispute(change.dispute_id)
    _require(dispute is not None and dispute.status == change.from_status, f"{dispute}: {change}")
    state = decide.with_dispute(model.state, change.dispute_id, status=change.to_status)
    return replace(model, state=state)


def _open_shipment(model: ModelOrder, opened: effects.OpenShipment) -> ModelOrder:
    _require(model.state.shipment(opened.shipment_id) is None, "shipments_pkey")
    _require(all(line.qty > 0 for line in opened.lines), "shipped_qty_is_positive")
    return replace(model, state=decide.after_effects(model.state, (opened,)))


def _change_shipment(model: ModelOrder, change: effects.ChangeShipmentStatus) -> ModelOrder:
    shipment = model.state.shipment(change.shipment_id)
    _require(
        shipment is not None and shipment.status == change.from_status, f"{shipment}: {change}"
    )
    is_sent = change.to_status == ShipmentStatus.SHIPPED
    _require(is_sent == (change.tracking_number is not None), "sent_iff_with_a_carrier")
    return replace(model, state=decide.after_effects(model.state, (change,)))


def _open_return(model: ModelOrder, opened: effects.OpenReturn) -> ModelOrder:
    _require(model.state.return_of(opened.return_id) is None, "returns_pkey")
    _require(all(line.qty > 0 for line in opened.lines), "returned_line_qty_is_positive")
    return replace(model, state=decide.after_effects(model.state, (opened,)))


def _change_return(model: ModelOrder, change: effects.ChangeReturnStatus) -> ModelOrder:
    row = model.state.return_of(change.return_id)
    _require(row is not None and row.status == change.from_status, f"{row}: {change}")
    return replace(model, state=decide.after_effects(model.state, (change,)))


def _give_back(model: ModelOrder, given: effects.GiveBack) -> ModelOrder:
    """The line's row, and the stock; an order's products have the numbers 1, 2, 3 …"""
    row = model.state.return_of(given.return_id)
    assert row is not None
    qty = next(line.qty for line in row.lines if line.product_id == given.product_id)
    known = {(return_id, product_id) for return_id, product_id, *_ in model.given_back}
    _require((given.return_id, given.product_id) not in known, "amount_minor is null")
    _require(0 <= given.restocked <= qty and given.amount_minor >= 0, f"{given}")
    index = given.product_id - 1
    lines = list(model.lines)
    if given.restocked:
        lines[index] = _restocked(lines[index], given.restocked)
    entry = (given.return_id, given.product_id, qty, given.restocked, given.amount_minor)
    return replace(model, lines=tuple(lines), given_back=(*model.given_back, entry))


def _restocked(line: Line, qty: int) -> Line:
    _require(line.status == COMMITTED, f"reservation is {line.status}, {qty} units return")
    _require(line.returned + qty <= line.qty, "returned_le_reserved")
    return replace(
        line,
        returned=line.returned + qty,
        on_hand=line.on_hand + qty,
        moves=(*line.moves, (StockMove.LINE_RETURN, qty)),
    )


def _post(model: ModelOrder, posting: effects.PostToLedger) -> ModelOrder:
    """A dispute's row is read with what is posted for it."""
    _require(model.posted(posting.kind, posting.source_id) == 0, "one_posting_per_source")
    row = (posting.kind, posting.source_id, posting.amount_minor)
    state = decide.after_effects(model.state, (posting,))
    return replace(model, ledger=(*model.ledger, row), state=state)


def _request_charge(model: ModelOrder, _: effects.RequestCharge) -> ModelOrder:
    order = model.state.order
    _require(
        order.status == OrderStatus.PENDING and not order.charge_requested, "charge_at is null"
    )
    order = replace(order, charge_requested=True, has_cart_lines=model.is_from_cart)
    return replace(model, state=replace(model.state, order=order))


def _return_cart(model: ModelOrder, _: effects.ReturnCart) -> ModelOrder:
    order = model.state.order
    _require(order.has_cart_lines, "the lines are in the cart already")
    order = replace(order, has_cart_lines=False)
    return replace(model, state=replace(model.state, order=order))


def _alert(model: ModelOrder, alert: effects.RaiseAlert) -> ModelOrder:
    return replace(model, alerts=model.alerts | {(alert.kind, alert.subject)})


# C901: one case for each member of the union
def _write(model: ModelOrder, effect: Effect) -> ModelOrder:  # noqa: C901
    match effect:
        case effects.ChangeOrderStatus():
            return _change_order(model, effect)
        case effects.ChangeReservations():
            return _change_reservations(model, effect)
        case effects.OpenPayment():
            return _open_payment(model, effect)
        case effects.ChangePaymentStatus():
            return _change_payment(model, effect)
        case effects.AwaitAction() | effects.ConfirmAction() | effects.AbandonAction():
            return _change_action(model, effect)
        case effects.OpenRefund():
            return _open_refund(model, effect)
        case effects.RecordRefund():
            return _record_refund(model, effect)
        case effects.ChangeRefundStatus():
            return _change_refund(model, effect)
        case effects.OpenDispute():
            return _open_dispute(model, effect)
        case effects.ChangeDisputeStatus():
            return _change_dispute(model, effect)
        case effects.OpenShipment():
            return _open_shipment(model, effect)
        case effects.ChangeShipmentStatus():
            return _change_shipment(model, effect)
        case effects.OpenReturn():
            return _open_return(model, effect)
        case effects.ChangeReturnStatus():
            return _change_return(model, effect)
        case effects.GiveBack():
            return _give_back(model, effect)
        case effects.PostToLedger():
            return _post(model, effect)
        case effects.RequestCharge():
            return _request_charge(model, effect)
        case effects.ReturnCart():
            return _return_cart(model, effect)
        case effects.RaiseAlert():
            return _alert(model, effect)
        case effects.PostponePayment() | effects.PostponeRefund() | effects.Reject():
            return model
        case _:
            assert_never(effect)


# ---------------------------------------------------------------- safety rules
#
# Each has the number of the invariant of tools/checker that checks the same in the database.


def violations(model: ModelOrder) -> list[str]:
    """Every safety rule that is violated; empty at every moment of a correct shop."""
    return [what for what, holds in _SAFETY.items() if not holds(model)]


def _payments_of(model: ModelOrder, *statuses: PaymentStatus) -> list[Payment]:
    return [p for p in model.state.payments if p.status in statuses]


def _captures(model: ModelOrder) -> list[Payment]:
    return _payments_of(model, PaymentStatus.CAPTURED)


def _refunds_of(model: ModelOrder, payment: Payment) -> list[Refund]:
    return [r for r in model.state.refunds if r.payment_id == payment.payment_id]


def _stock_fits(model: ModelOrder) -> bool:
    status = model.state.order.status
    allowed = {
        OrderStatus.PENDING: (HELD,),
        OrderStatus.PAID: (COMMITTED,),
        OrderStatus.REFUNDED: (COMMITTED, RETURNED),
    }.get(status, (RELEASED, RETURNED))
    return all(line.status in allowed for line in model.lines)


def _counters_fit(line: Line) -> bool:
    """Reserved is what is held, on hand is what the moves left, and neither is negative."""
    held = line.qty if line.status == HELD else 0
    is_conserved = line.on_hand == INITIAL_STOCK + sum(qty for _, qty in line.moves)
    return line.reserved == held and is_conserved and 0 <= line.reserved <= line.on_hand


def _moves_fit(line: Line) -> bool:
    rest = line.qty - line.returned
    committed, returned = (StockMove.COMMIT, -line.qty), (StockMove.RETURN, rest)
    wanted = {COMMITTED: (committed,), RETURNED: (committed, returned)}.get(line.status, ())
    in_parts = sum(qty for kind, qty in line.moves if kind == StockMove.LINE_RETURN)
    others = tuple(move for move in line.moves if move[0] != StockMove.LINE_RETURN)
    return others == wanted and in_parts == line.returned


def _total_fits(model: ModelOrder) -> bool:
    total = sum(line.paid_minor for line in model.state.lines) + model.shipping_minor
    return bool(model.lines) and total == model.state.order.total_minor


def _money_fits(model: ModelOrder) -> bool:
    status, settling = model.state.order.status, _settling(model)
    needs_capture = status in (OrderStatus.PAID, OrderStatus.REFUNDED)
    return not (needs_capture and settling != 1) and not (
        status == OrderStatus.PENDING and settling
    )


def _settling(model: ModelOrder) -> int:
    return sum(1 for p in _captures(model) if not p.late_capture)


def _ledger_mirrors(model: ModelOrder) -> bool:
    captured = sorted((PostingKind.CAPTURE, p.payment_id, p.amount_minor) for p in _captures(model))
    returned = [
        (decide.POSTED_AS[r.means], r.refund_id, r.amount_minor)
        for r in model.state.refunds
        if r.status in (RefundStatus.SUCCEEDED, RefundStatus.REVERSED)
    ]
    reversed_ = [
        (PostingKind.REFUND_REVERSED, r.refund_id, r.amount_minor)
        for r in model.state.refunds
        if r.status == RefundStatus.REVERSED
    ]
    disputes = {d.dispute_id for d in model.state.disputes}
    posted = sorted((row for row in model.ledger if row[1] not in disputes), key=str)
    return posted == sorted([*captured, *returned, *reversed_], key=str)


def _late_captures_are_refunded(model: ModelOrder) -> bool:
    """Every late capture is refunded in full, or its refund was rejected and raised an alert."""
    for payment in _captures(model):
        refunds = _refunds_of(model, payment)
        if payment.late_capture and sum(r.amount_minor for r in refunds) < payment.amount_minor:
            return False
    return all(
        not p.late_capture for p in model.state.payments if p.status != PaymentStatus.CAPTURED
    )


def _reserved_is_sum(model: ModelOrder) -> bool:
    return all(
        p.refund_reserved_minor
        == sum(r.amount_minor for r in _refunds_of(model, p) if r.status not in FAILED_REFUND)
        <= (p.amount_minor if p.status == PaymentStatus.CAPTURED else 0)
        for p in model.state.payments
    )


def _cart_is_kept(model: ModelOrder) -> bool:
    """An order that was not paid, and that nothing is about to pay, holds no lines of the cart."""
    order, may_be_paid = model.state.order, model.state.open_payment is not None
    if order.status == OrderStatus.PENDING:
        return not order.has_cart_lines or order.charge_requested or may_be_paid
    was_not_paid = order.reason in (CancelReason.DECLINED, CancelReason.EXPIRED)
    return not (order.has_cart_lines and was_not_paid)


def _shipped_is_ordered(model: ModelOrder) -> bool:
    """No line is in shipments more often than it was ordered, and no other product is in one."""
    products = {line.product_id for s in model.state.shipments for line in s.lines}
    ordered = {line.product_id for line in model.state.lines}
    return products <= ordered and all(model.state.unassigned(p) >= 0 for p in ordered)


def _returned_was_sent(model: ModelOrder) -> bool:
    """Of each line, units come back only if they were sent, and no unit is given back twice."""
    state = model.state
    return all(
        state.returned(line.product_id) <= state.sent(line.product_id)
        and state.given_back(line.product_id) <= line.qty
        for line in state.lines
    )


def _line_money_fits(model: ModelOrder) -> bool:
    """No more is given back for a line than was paid for it, and in all than refunds return."""
    by_line = {
        line.product_id: sum(e[4] for e in model.given_back if e[1] == line.product_id)
        for line in model.state.lines
    }
    paid = {line.product_id: line.paid_minor for line in model.state.lines}
    refunds_minor = sum(r.amount_minor for r in model.state.refunds)
    is_within = all(minor <= paid[product_id] for product_id, minor in by_line.items())
    return is_within and sum(by_line.values()) <= refunds_minor


def _given_back_as_decided(model: ModelOrder) -> bool:
    """Each line of a return that is closed is given back, and no other; stock has what it says."""
    closed = (ReturnStatus.RECEIVED, ReturnStatus.UNSENT)
    wanted = {
        (r.return_id, line.product_id)
        for r in model.state.returns
        if r.status in closed
        for line in r.lines
    }
    restocked = {
        number: sum(e[3] for e in model.given_back if e[1] == number)
        for number in range(1, len(model.lines) + 1)
    }
    return {entry[:2] for entry in model.given_back} == wanted and all(
        line.returned == restocked[number] for number, line in enumerate(model.lines, 1)
    )


def _shipments_fit(model: ModelOrder) -> bool:
    """Only a paid order is packed; what was sent is neither cancelled nor in the stock again."""
    status = model.state.order.status
    is_packed = bool(model.state.in_preparation)
    can_be_sent = status in (OrderStatus.PAID, OrderStatus.REFUNDED)
    is_away = all(line.status == COMMITTED for line in model.lines)
    return not (is_packed and status != OrderStatus.PAID) and not (
        model.state.is_sent and not (can_be_sent and is_away)
    )


_SAFETY: dict[str, Callable[[ModelOrder], bool]] = {
    "stock was given back at most once": lambda m: all(line.times_freed <= 1 for line in m.lines),
    "I-01 I-02 I-03 stock's counters are their sums": lambda m: all(map(_counters_fit, m.lines)),
    "I-05 a reservation has the moves of its status": lambda m: all(map(_moves_fit, m.lines)),
    "I-06 stock is where the order's status says": _stock_fits,
    "I-07 the total is the sum of the lines, less discounts": _total_fits,
    "I-09 at most one open payment": lambda m: len(_payments_of(m, *OPEN_PAYMENT)) <= 1,
    "I-09 at most one settling capture": lambda m: _settling(m) <= 1,
    "I-10 PAID iff one settling capture, PENDING has none": _money_fits,
    "I-08 payments are of the order's total": lambda m: all(
        (p.amount_minor, p.currency) == (m.state.order.total_minor, m.state.order.currency)
        for p in m.state.payments
    ),
    "I-36 a payment requires an action exactly while it waits for one": lambda m: all(
        (p.status == PaymentStatus.REQUIRES_ACTION) == (p.action is not None)
        and (p.token is None or p.action is not None)
        for p in m.state.payments
    ),
    "I-12 refund_reserved is the sum of the refunds, and within the capture": _reserved_is_sum,
    "I-09 every late capture is refunded": _late_captures_are_refunded,
    "I-13 the ledger mirrors captures and refunds": _ledger_mirrors,
    "I-14 the ledger never returns more than it received": lambda m: m.balance() >= 0,
    "the cart is kept until the order is paid or placed again": _cart_is_kept,
    "I-33 no more is shipped than was ordered": _shipped_is_ordered,
    "I-37 units come back once, and only if they were sent": _returned_was_sent,
    "I-38 a line gives back no more than was paid for it": _line_money_fits,
    "I-39 returned units are in the stock, or written off": _given_back_as_decided,
    "I-34 only what is paid is packed, and what was sent is not in the stock": _shipments_fit,
    "a reason iff cancelled": lambda m: (
        (m.state.order.reason is not None) == (m.state.order.status in decide.CLOSED_ORDER)
    ),
    "a CANCELLED order has no open payment": lambda m: (
        m.state.order.status != OrderStatus.CANCELLED or m.state.open_payment is None
    ),
}


def faults_when_final(model: ModelOrder, held_by_provider: int) -> list[str]:
    """What is wrong with an order for which nothing is left to do."""
    state = model.state
    status = state.order.status
    faults = violations(model)
    failed = {r.payment_id for r in state.refunds if r.status in FAILED_REFUND}
    needs_operator = any(p.payment_id in failed and p.rest_minor for p in state.payments)
    if status not in FINAL and not needs_operator:
        faults.append(f"the order's status is not final: {status}")
    if state.open_payment is not None:
        faults.append("a payment is open")
    if any(r.status in OPEN_REFUND for r in state.refunds):
        faults.append("a refund is open")
    if model.at_provider() != held_by_provider:
        faults.append(f"ledger {model.at_provider()}, provider {held_by_provider}")
    lost_minor = sum(d.withheld_minor for d in state.disputes if d.status == DisputeStatus.LOST)
    kept_minor = model.balance() - lost_minor
    if status not in (OrderStatus.PAID, OrderStatus.PENDING) and (
        kept_minor > 0 and not needs_operator
    ):
        faults.append(f"{status}, yet {kept_minor} are kept")
    if status == OrderStatus.PAID and not model.balance():
        faults.append("PAID, yet nothing is kept")
    if status == OrderStatus.PAID and state.settling_payment is None:
        faults.append("PAID without a capture")
    return faults
