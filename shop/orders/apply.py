"""Applies a message to an order: lock, read, decide, write.

``apply_message`` is the only way in which an order, its payments, its refunds or its reservations
change after the order was placed.  It locks the order's row (the aggregate's only mutex) and reads
the rows in one round trip, calls ``decide.decide``, and writes the effects through the table
owners in a second one.

A handler that makes further checks before the write calls ``lock``, ``decide_on`` and ``write``
itself, in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, assert_never
from uuid import UUID

from events.records import frozen
from events.vocabulary import class_of
from shop import carts, coupons, inventory, ledger, operator_alerts, status_history
from shop.adapters import db
from shop.adapters.statements import Query, Row, Statement
from shop.messaging import outbox
from shop.orders import decide, disputes, effects, orders, payments, refunds, returns, shipments
from shop.orders.disputes import DisputeRow
from shop.orders.effects import Effect, Effects
from shop.orders.lines import Line
from shop.orders.messages import ExpiryDue, Message, OrderReplaced
from shop.orders.orders import LockedOrder
from shop.orders.payments import PaymentRow
from shop.orders.refunds import RefundRow
from shop.orders.returns import ReturnRow
from shop.orders.shipments import ShipmentRow
from shop.orders.states import (
    Dispute,
    Order,
    OrderedLine,
    OrderState,
    Payment,
    Refund,
    Return,
    Shipment,
)
from shop.primitives.errors import ClientError, not_found
from shop.primitives.ids import new_uuid
from shop.primitives.statuses import (
    CREATED,
    ActionType,
    CancelReason,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    RefundStatus,
    ReservationStatus,
    ReturnStatus,
    ShipmentStatus,
    Status,
)
from shop.status_history import Entity, StatusChange

if TYPE_CHECKING:
    from events.event import ShopEvent
    from shop.adapters.db import Transaction

ANNOUNCED_AS: dict[tuple[Entity, Status], str] = {
    ("order", OrderStatus.PAID): "order.paid",
    ("order", OrderStatus.REFUNDED): "order.refunded",
    ("order", OrderStatus.CANCELLING): "order.cancelling",
    ("order", OrderStatus.CANCELLED): "order.cancelled",
    ("payment", PaymentStatus.CAPTURED): "payment.captured",
    ("payment", PaymentStatus.DECLINED): "payment.declined",
    ("refund", RefundStatus.INTENT): "refund.requested",
    ("refund", RefundStatus.SUCCEEDED): "refund.succeeded",
    ("refund", RefundStatus.REJECTED): "refund.rejected",
    ("refund", RefundStatus.REVERSED): "refund.rejected",
    ("return", ReturnStatus.REQUESTED): "return.requested",
    ("return", ReturnStatus.APPROVED): "return.approved",
    ("return", ReturnStatus.REJECTED): "return.rejected",
    ("return", ReturnStatus.RECEIVED): "return.received",
    ("shipment", ShipmentStatus.PREPARING): "shipment.created",
    ("shipment", ShipmentStatus.SHIPPED): "shipment.shipped",
    ("shipment", ShipmentStatus.DELIVERED): "shipment.delivered",
}

CONFLICT = 409
# Ids that the provider assigns, and rows whose id is made of one: the rules see one order, so only
# the database notices that another order has them.
REFERENCE_CONSTRAINTS = (
    "one_provider_ref",
    "one_refund_key",
    "refunds_pkey",
    "one_dispute_ref",
    "disputes_pkey",
)

# These change lines of the customer's cart.
CART_EFFECTS = (effects.RequestCharge, effects.ReturnCart)

# At most this many expired orders are cancelled in one request, which must stay short.
HOLDERS_MAX = 20
EXPIRY_ROLE = "expiry"

SET_ROLE = Query(
    Row,
    """
select set_config('shop.role', %(role)s, true) as role
""",
)


class UnknownOrder(ClientError):
    """There is no such order, or it is not visible to this role."""

    def __init__(self) -> None:
        super().__init__(422, "UNKNOWN_ORDER", "there is no such order")


@frozen
class OrderRows:
    """The rows of one order under its lock."""

    order: LockedOrder
    payments: list[PaymentRow]
    refunds: list[RefundRow]
    disputes: list[DisputeRow]
    shipments: list[ShipmentRow]
    returns: list[ReturnRow]
    state: OrderState


@frozen
class ApplyResult:
    """What a message changed, and the row of the payment that it opened."""

    effects: Effects
    opened_payment: PaymentRow | None = None


def apply_message(tx: Transaction, order_id: UUID, message: Message) -> ApplyResult:
    """Applies a message to an order.

    Raises ``UnknownOrder`` (422), or ``ClientError`` (409) when the order's rules reject the
    message; then nothing was written.  A message that names what belongs to another order changes
    nothing but raises an operator alert.
    """
    rows = lock(tx, order_id)
    decided = decide_on(rows, message)
    try:
        return ApplyResult(decided, write(tx, rows, decided))
    except db.UniqueViolation as error:
        if error.diag.constraint_name not in REFERENCE_CONSTRAINTS:
            raise
    tx.rollback_to_savepoint()
    alert = _reference_conflict(decided)
    return ApplyResult((alert,), write(tx, rows, (alert,)))


def lock(tx: Transaction, order_id: UUID) -> OrderRows:
    """Locks the order and reads its rows; one round trip."""
    found, attempts, refunded, disputed, shipped, returned = tx.pipeline(
        orders.lock(order_id),
        payments.of_order(order_id),
        refunds.of_order(order_id),
        disputes.of_order(order_id),
        shipments.of_order(order_id),
        returns.of_order(order_id),
    )
    if not found:
        raise UnknownOrder()
    state = _state(found[0], attempts, refunded, disputed, shipped, returned)
    return OrderRows(found[0], attempts, refunded, disputed, shipped, returned, state)


def lock_any(tx: Transaction, order_id: UUID) -> OrderRows:
    """As ``lock``, for an operator's request: 404 when there is no such order."""
    try:
        return lock(tx, order_id)
    except UnknownOrder as error:
        raise not_found("the order") from error


def lock_own(tx: Transaction, order_id: UUID, user_id: int) -> OrderRows:
    """Locks an order of this user and reads its rows; 404 when the user has no such order."""
    rows = lock_any(tx, order_id)
    if rows.order.user_id != user_id:
        raise not_found("the order")
    return rows


def decide_on(rows: OrderRows, message: Message) -> Effects:
    """The effects of a message; ``ClientError`` (409) when the order's rules reject it."""
    decided = decide.decide(rows.state, message)
    for effect in decided:
        if isinstance(effect, effects.Reject):
            raise ClientError(CONFLICT, effect.code, effect.message, stored=True)
    return decided


def write(
    tx: Transaction,
    rows: OrderRows,
    decided: Effects,
    *,
    requested_by: int | None = None,
    audit: Statement[Row] | None = None,
) -> PaymentRow | None:
    """Writes effects in one round trip; returns the payment that they open.

    ``audit`` is the entry of the audit log about an operator's request.
    """
    if not decided:
        return None
    batch = _Batch(tx, rows.order.order_id, requested_by)
    if any(map(_reference_in, decided)):
        batch.open_with(db.SAVEPOINT())
    if any(isinstance(effect, CART_EFFECTS) for effect in decided):
        batch.open_with(carts.lock(rows.order.user_id))
    if audit is not None:
        batch.add_unguarded(audit)
    for effect in decided:
        _add(batch, effect)
    return batch.send()


def _reference_in(effect: Effect) -> str | None:
    """The provider's reference that an effect stores; the database holds each once."""
    match effect:
        case effects.ChangePaymentStatus():
            return effect.provider_ref
        case effects.RecordRefund():
            return effect.provider_key
        case effects.OpenDispute():
            return effect.provider_ref
        case _:
            return None


def _reference_conflict(decided: Effects) -> effects.RaiseAlert:
    reference = next(filter(None, map(_reference_in, decided)))
    detail = "the provider names it for two payments; the second is not booked"
    return effects.RaiseAlert("reference_conflict", reference, detail)


def lock_or_skip(tx: Transaction, order_id: UUID) -> bool:
    """Locks an order; False when another transaction has locked it, so that timers skip it."""
    return tx.fetch_one(orders.lock_or_skip(order_id)) is not None


def cancel_unpaid_holders(
    tx: Transaction, product_ids: list[int], codes: Sequence[str], *, user_id: int, role: str
) -> int:
    """Cancels unpaid orders that still hold these products: expired ones, and the user's declined.

    Returns how many.  Expired ones may belong to other customers, so the transaction has the role
    ``expiry`` meanwhile and ``role`` afterwards.  Locks are taken in the order of every
    transaction: the cart of the user, then orders and carts of others, without waiting, then all
    their stock rows in ascending product id, then their coupons and those of ``codes``, which the
    caller is about to use.  The caller must not have locked any stock or coupon yet.
    """
    _, _, holders = tx.pipeline(
        SET_ROLE(role=EXPIRY_ROLE),
        carts.lock(user_id),
        orders.lock_unpaid_holders(product_ids, user_id=user_id, limit=HOLDERS_MAX),
    )
    order_ids = [row.order_id for row in holders]
    if order_ids:
        tx.pipeline(
            inventory.lock_stock_of(order_ids, product_ids),
            coupons.lock_of_orders(order_ids, codes),
        )
        actor = tx.actor
        for holder in holders:
            tx.actor = actor if holder.is_own else EXPIRY_ROLE
            message = OrderReplaced() if holder.is_own else ExpiryDue()
            apply_message(tx, holder.order_id, message)
        tx.actor = actor
    tx.execute(SET_ROLE(role=role))
    return len(order_ids)


def _state(
    order: LockedOrder,
    attempts: list[PaymentRow],
    refunded: list[RefundRow],
    disputed: list[DisputeRow],
    shipped: list[ShipmentRow],
    returned: list[ReturnRow],
) -> OrderState:
    return OrderState(
        Order(
            status=order.status,
            total_minor=order.total_minor,
            currency=order.currency,
            reason=CancelReason(order.reason) if order.reason else None,
            charge_requested=order.charge_requested,
            is_soft_expired=order.is_soft_expired,
            is_hard_expired=order.is_hard_expired,
            has_cart_lines=order.has_cart_lines,
        ),
        tuple(map(_payment, attempts)),
        tuple(
            Refund(
                row.refund_id,
                row.payment_id,
                row.amount_minor,
                row.status,
                row.means,
                row.restock,
            )
            for row in refunded
        ),
        tuple(map(_dispute, disputed)),
        tuple(OrderedLine(**line) for line in order.lines),
        tuple(Shipment(row.shipment_id, row.status, _lines(row.lines)) for row in shipped),
        tuple(Return(row.return_id, row.status, _lines(row.lines)) for row in returned),
    )


def _payment(row: PaymentRow) -> Payment:
    return Payment(
        payment_id=row.payment_id,
        attempt=row.attempt,
        status=row.status,
        amount_minor=row.amount_minor,
        currency=row.currency,
        late_capture=row.late,
        refund_reserved_minor=row.refund_reserved_minor,
        may_charge=row.may_charge,
        action=ActionType(row.action) if row.action else None,
        token=row.action_token,
        may_act=row.may_act,
    )


def _lines(rows: Sequence[Mapping[str, int | None]]) -> tuple[Line, ...]:
    return tuple(Line(row["product_id"] or 0, row["qty"] or 0) for row in rows)


def _dispute(row: DisputeRow) -> Dispute:
    return Dispute(
        row.dispute_id,
        row.payment_id,
        row.status,
        row.withdrawn_minor,
        row.reinstated_minor,
        row.fee_minor,
        row.fee_reversed_minor,
    )


class _Batch:
    """The statements of one decision, collected so that they are sent in one pipeline."""

    def __init__(self, tx: Transaction, order_id: UUID, requested_by: int | None) -> None:
        self.tx = tx
        self.order_id = order_id
        self.requested_by = requested_by
        self._opening: list[Statement[Row]] = []
        self._guarded: list[Statement[Row]] = []
        self._unguarded: list[Statement[Row]] = []
        self._changes: list[tuple[StatusChange, int | None]] = []
        self._events: list[ShopEvent] = []

    def add(self, statement: Statement[Row]) -> None:
        """Adds a guarded statement: one that must return a row, since the order is locked."""
        self._guarded.append(statement)

    def open_with(self, statement: Statement[Row]) -> None:
        """Sends a statement before all others."""
        self._opening.append(statement)

    def add_unguarded(self, statement: Statement[Row]) -> None:
        """Adds a statement that may find nothing to do."""
        self._unguarded.append(statement)

    def announce(self, name: str, **ids: UUID) -> None:
        """Adds an event about the order."""
        self._events.append(_event_class(name)(order_id=self.order_id, **ids))

    def record(self, change: StatusChange, **ids: UUID) -> None:
        """Adds a status change to the history, and the event that announces it."""
        name = ANNOUNCED_AS.get((change.entity, change.to_status))
        self._changes.append((change, len(self._events) if name else None))
        if name:
            self.announce(name, **ids)

    def send(self) -> PaymentRow | None:
        """Sends everything in one round trip; returns the payment that was opened."""
        statements = [*self._guarded, *self._announcements(), *self._unguarded]
        results = self.tx.pipeline(*self._opening, *statements)[len(self._opening) :]
        for statement, rows in zip(self._guarded, results, strict=False):
            assert rows, f"a guarded statement returned no row: {statement}"
        opened = (row for rows in results for row in rows if isinstance(row, PaymentRow))
        return next(opened, None)

    def _announcements(self) -> list[Statement[Row]]:
        statements: list[Statement[Row]] = []
        event_ids: list[UUID] = []
        if self._events:
            statement, event_ids = outbox.emit(self.tx, *self._events)
            statements.append(statement)
        if self._changes:
            changes = [
                change if index is None else change.announced_by(event_ids[index])
                for change, index in self._changes
            ]
            statements.append(status_history.record(self.tx, self.order_id, changes))
        return statements


def _event_class(name: str) -> Callable[..., ShopEvent]:
    # the fields of ShopEvent differ by class, so the ids are checked when an event is created
    return class_of(name)


# ---------------------------------------------------------------- one function per effect


# C901: one case for each member of the union
def _add(batch: _Batch, effect: Effect) -> None:  # noqa: C901
    match effect:
        case effects.ChangeOrderStatus():
            _change_order(batch, effect)
        case effects.ChangeReservations():
            _change_reservations(batch, effect)
        case effects.OpenPayment():
            _open_payment(batch, effect)
        case effects.ChangePaymentStatus():
            _change_payment(batch, effect)
        case effects.AwaitAction():
            _await_action(batch, effect)
        case effects.ConfirmAction():
            batch.add(payments.confirm_action(effect.payment_id, token=effect.token))
            batch.announce("payment.confirm-requested", payment_id=effect.payment_id)
        case effects.AbandonAction():
            batch.add(payments.abandon_action(effect.payment_id))
        case effects.PostponePayment():
            batch.add(payments.postpone(effect.payment_id))
        case effects.OpenRefund():
            _open_refund(batch, effect)
        case effects.RecordRefund():
            _record_refund(batch, effect)
        case effects.ChangeRefundStatus():
            _change_refund(batch, effect)
        case effects.PostponeRefund():
            batch.add(refunds.postpone(effect.refund_id))
        case effects.OpenDispute():
            _open_dispute(batch, effect)
        case effects.ChangeDisputeStatus():
            _change_dispute(batch, effect)
        case effects.PostToLedger():
            _post(batch, effect)
        case effects.RequestCharge():
            batch.add(orders.request_charge(batch.order_id, payment_method=effect.payment_method))
            batch.add_unguarded(carts.take_again(batch.order_id))
            batch.announce("payment.retry-requested")
        case effects.ReturnCart():
            batch.add(orders.cart_returned(batch.order_id))
            batch.add_unguarded(carts.return_lines(batch.order_id))
        case effects.RaiseAlert():
            _raise_alert(batch, effect)
        case effects.Reject():
            raise AssertionError("a rejected message has no effects to write")
        case _:  # the rest is a GoodsEffect, by its type
            _add_goods(batch, effect)


def _add_goods(batch: _Batch, effect: effects.GoodsEffect) -> None:
    match effect:
        case effects.OpenShipment():
            _open_shipment(batch, effect)
        case effects.ChangeShipmentStatus():
            _change_shipment(batch, effect)
        case effects.OpenReturn():
            _open_return(batch, effect)
        case effects.ChangeReturnStatus():
            _change_return(batch, effect)
        case effects.GiveBack():
            _give_back(batch, effect)
        case _:
            assert_never(effect)


def _change_order(batch: _Batch, change: effects.ChangeOrderStatus) -> None:
    batch.add(
        orders.change_status(
            batch.order_id,
            from_status=change.from_status,
            to_status=change.to_status,
            reason=change.reason,
        )
    )
    batch.record(StatusChange("order", batch.order_id, change.from_status, change.to_status))
    if change.to_status == OrderStatus.CANCELLING:
        batch.add_unguarded(payments.make_due(batch.order_id))


def _change_reservations(batch: _Batch, change: effects.ChangeReservations) -> None:
    batch.add(
        inventory.change_reservations(
            batch.order_id, from_status=change.from_status, to_status=change.to_status
        )
    )
    batch.add_unguarded(
        status_history.record_reservations(
            batch.tx, batch.order_id, from_status=change.from_status, to_status=change.to_status
        )
    )
    if change.to_status == ReservationStatus.RELEASED:
        batch.add_unguarded(coupons.give_back(batch.order_id))


def _open_payment(batch: _Batch, opened: effects.OpenPayment) -> None:
    payment_id = new_uuid()
    batch.add(
        payments.open_attempt(
            payment_id=payment_id, order_id=batch.order_id, attempt=opened.attempt
        )
    )
    batch.add(orders.charge_started(batch.order_id))
    batch.record(StatusChange("payment", payment_id, CREATED, PaymentStatus.INTENT))


def _change_payment(batch: _Batch, change: effects.ChangePaymentStatus) -> None:
    batch.add(
        payments.change_status(
            change.payment_id,
            from_status=change.from_status,
            to_status=change.to_status,
            late=change.late_capture,
            provider_ref=change.provider_ref,
        )
    )
    batch.record(
        StatusChange("payment", change.payment_id, change.from_status, change.to_status),
        payment_id=change.payment_id,
    )


def _await_action(batch: _Batch, awaited: effects.AwaitAction) -> None:
    from_status, to_status = awaited.from_status, PaymentStatus.REQUIRES_ACTION
    batch.add(
        payments.await_action(awaited.payment_id, from_status=from_status, action=awaited.action)
    )
    if from_status != to_status:
        batch.record(StatusChange("payment", awaited.payment_id, from_status, to_status))


def _open_refund(batch: _Batch, opened: effects.OpenRefund) -> None:
    refund_id = new_uuid()
    batch.add(payments.reserve_refund(opened.payment_id, opened.amount_minor))
    batch.add(
        refunds.open_refund(
            refund_id=refund_id,
            payment_id=opened.payment_id,
            amount_minor=opened.amount_minor,
            reason=opened.reason,
            requested_by=batch.requested_by,
            means=opened.means,
            reference=opened.reference,
            restock=opened.restock,
        )
    )
    batch.record(
        StatusChange("refund", refund_id, CREATED, RefundStatus.INTENT),
        payment_id=opened.payment_id,
        refund_id=refund_id,
    )


def _record_refund(batch: _Batch, executed: effects.RecordRefund) -> None:
    batch.add(payments.reserve_refund(executed.payment_id, executed.amount_minor))
    batch.add(
        refunds.record_executed(
            refund_id=executed.refund_id,
            payment_id=executed.payment_id,
            amount_minor=executed.amount_minor,
            provider_key=executed.provider_key,
            origin=executed.origin,
        )
    )
    batch.record(
        StatusChange("refund", executed.refund_id, CREATED, RefundStatus.SUCCEEDED),
        payment_id=executed.payment_id,
        refund_id=executed.refund_id,
    )


def _change_refund(batch: _Batch, change: effects.ChangeRefundStatus) -> None:
    batch.add(
        refunds.change_status(
            change.refund_id, from_status=change.from_status, to_status=change.to_status
        )
    )
    if added_minor := decide.reserved_by(change):
        batch.add(payments.reserve_refund(change.payment_id, added_minor))
    batch.record(
        StatusChange("refund", change.refund_id, change.from_status, change.to_status),
        payment_id=change.payment_id,
        refund_id=change.refund_id,
    )


def _open_dispute(batch: _Batch, opened: effects.OpenDispute) -> None:
    batch.add(
        disputes.open_dispute(
            dispute_id=opened.dispute_id,
            payment_id=opened.payment_id,
            provider_ref=opened.provider_ref,
            amount_minor=opened.amount_minor,
            currency=opened.currency,
        )
    )
    batch.record(StatusChange("dispute", opened.dispute_id, CREATED, DisputeStatus.OPEN))


def _change_dispute(batch: _Batch, change: effects.ChangeDisputeStatus) -> None:
    batch.add(
        disputes.change_status(
            change.dispute_id, from_status=change.from_status, to_status=change.to_status
        )
    )
    batch.record(StatusChange("dispute", change.dispute_id, change.from_status, change.to_status))


def _open_shipment(batch: _Batch, opened: effects.OpenShipment) -> None:
    batch.add(
        shipments.open_shipment(
            shipment_id=opened.shipment_id,
            order_id=batch.order_id,
            lines=[(line.product_id, line.qty) for line in opened.lines],
        )
    )
    batch.record(
        StatusChange("shipment", opened.shipment_id, CREATED, ShipmentStatus.PREPARING),
        shipment_id=opened.shipment_id,
    )


def _change_shipment(batch: _Batch, change: effects.ChangeShipmentStatus) -> None:
    batch.add(
        shipments.change_status(
            change.shipment_id,
            from_status=change.from_status,
            to_status=change.to_status,
            carrier=change.carrier,
            tracking_number=change.tracking_number,
        )
    )
    batch.record(
        StatusChange("shipment", change.shipment_id, change.from_status, change.to_status),
        shipment_id=change.shipment_id,
    )


def _open_return(batch: _Batch, opened: effects.OpenReturn) -> None:
    batch.add(
        returns.open_return(
            return_id=opened.return_id,
            order_id=batch.order_id,
            status=opened.status,
            reason=opened.reason,
            lines=[(line.product_id, line.qty) for line in opened.lines],
        )
    )
    batch.record(
        StatusChange("return", opened.return_id, CREATED, opened.status),
        return_id=opened.return_id,
    )


def _change_return(batch: _Batch, change: effects.ChangeReturnStatus) -> None:
    batch.add(
        returns.change_status(
            change.return_id, from_status=change.from_status, to_status=change.to_status
        )
    )
    batch.record(
        StatusChange("return", change.return_id, change.from_status, change.to_status),
        return_id=change.return_id,
    )


def _give_back(batch: _Batch, given: effects.GiveBack) -> None:
    batch.add(
        returns.give_back(
            given.return_id,
            given.product_id,
            restocked=given.restocked,
            amount_minor=given.amount_minor,
        )
    )
    if given.restocked:
        batch.add(inventory.return_units(batch.order_id, given.product_id, given.restocked))


def _post(batch: _Batch, posting: effects.PostToLedger) -> None:
    batch.add(
        ledger.post(
            kind=posting.kind,
            source_id=posting.source_id,
            order_id=batch.order_id,
            amount_minor=posting.amount_minor,
            currency=posting.currency,
        )
    )


def _raise_alert(batch: _Batch, alert: effects.RaiseAlert) -> None:
    batch.add_unguarded(
        operator_alerts.raise_alert(
            kind=alert.kind, subject=str(alert.subject), detail=alert.detail
        )
    )
