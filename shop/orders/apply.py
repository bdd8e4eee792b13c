"""The order's saga: one message, one lock, one decision, one write.

``apply_message`` is the only way in which an order, its payments, its refunds or its reservations
change after they were placed.  It locks the order's row (the aggregate's only mutex), reads the
rows, lets ``decide.decide`` decide and writes the effects through their owners: two round trips.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from events.records import frozen
from events.vocabulary import class_of
from shop import inventory, ledger, operator_alerts, status_history
from shop.messaging import outbox
from shop.orders import decide, orders, payments, refunds
from shop.orders.decide import OrderState
from shop.primitives.errors import ClientError
from shop.primitives.ids import new_uuid
from shop.status_history import StatusChange

if TYPE_CHECKING:
    from events.event import ShopEvent
    from shop.adapters.db import Statement, Transaction

ANNOUNCED_AS = {
    ("order", "PAID"): "order.paid",
    ("order", "CANCELLING"): "order.cancelling",
    ("order", "CANCELLED"): "order.cancelled",
    ("payment", "CAPTURED"): "payment.captured",
    ("payment", "DECLINED"): "payment.declined",
    ("refund", "INTENT"): "refund.requested",
    ("refund", "SUCCEEDED"): "refund.succeeded",
    ("refund", "REJECTED"): "refund.rejected",
}

CONFLICT = 409

LOCK_OR_SKIP: LiteralString = """
select order_id from shop.orders where order_id = %(order_id)s::uuid for update skip locked
"""

# At most this many are ended in one request: it must stay short.
HOLDERS_MAX = 20
EXPIRY_ROLE = "expiry"

ACT_AS: LiteralString = """
select set_config('shop.role', %(role)s, true) as role
"""

# Locks without waiting: whoever holds one of these orders is about to move it.
EXPIRED_HOLDERS: LiteralString = """
select o.order_id from shop.orders o
where o.status = 'PENDING' and o.expires_at <= now()
  and exists (select from shop.reservations r where r.order_id = o.order_id
    and r.status = 'HELD' and r.product_id = any(%(product_ids)s::bigint[]))
  and not exists (select from shop.payments p where p.order_id = o.order_id
    and p.status in ('INTENT', 'UNKNOWN'))
order by o.expires_at limit %(limit)s
for update of o skip locked
"""


class UnknownOrder(ClientError):
    """A message about an order that is not there: for an event that means the dead letters."""

    def __init__(self) -> None:
        super().__init__(422, "UNKNOWN_ORDER", "there is no such order")


@frozen
class ApplyResult:
    """What became of a message: the rows it met, the effects it had, and a new attempt's row."""

    order: Any
    story: OrderState
    payments: tuple[Any, ...]
    refunds: tuple[Any, ...]
    effects: decide.Effects = ()
    opened_payment: Any = None


@dataclass
class _Writing:
    """The statements of one decision, collected so that they travel together."""

    tx: Transaction
    order_id: UUID
    requested_by: int | None
    statements: list[Statement] = field(default_factory=list)
    must_touch: list[bool] = field(default_factory=list)
    moves: list[StatusChange] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    event_of_move: list[int | None] = field(default_factory=list)
    stock_moves: list[tuple[str, str]] = field(default_factory=list)
    opened_at: int | None = None

    def write(self, statement: Statement, *, must_touch: bool = True) -> None:
        self.statements.append(statement)
        self.must_touch.append(must_touch)

    def announce(self, name: str, **ids: UUID) -> None:
        announced: Callable[..., ShopEvent] = class_of(name)
        self.events.append(announced(order_id=self.order_id, **ids))

    def move(
        self, entity: str, entity_id: UUID, from_status: str, to_status: str, **ids: UUID
    ) -> None:
        name = ANNOUNCED_AS.get((entity, to_status))
        self.event_of_move.append(len(self.events) if name else None)
        if name:
            self.announce(name, **ids)
        self.moves.append(StatusChange(entity, entity_id, from_status, to_status))


def apply_message(
    tx: Transaction, order_id: UUID, message: Any, *, requested_by: int | None = None
) -> ApplyResult:
    """Tells the order's story a message and writes what it calls for.

    Raises ``UnknownOrder`` (422) when the order is not there (or not visible to this role), and
    ``ClientError`` (409) when the lifecycle refuses; then nothing was written.
    """
    telling = read(tx, order_id)
    effects = decide.decide(telling.story, message)
    for effect in effects:
        if isinstance(effect, decide.Refuse):
            raise ClientError(CONFLICT, effect.code, effect.message, stored=True)
    opened = _write(tx, order_id, effects, requested_by) if effects else None
    return ApplyResult(
        telling.order, telling.story, telling.payments, telling.refunds, effects, opened
    )


def read(tx: Transaction, order_id: UUID) -> ApplyResult:
    """Locks the order and reads its rows; one round trip."""
    who = {"order_id": order_id}
    found, attempts, given_back = tx.together(
        (orders.LOCK, who), (payments.OF_ORDER, who), (refunds.OF_ORDER, who)
    )
    if not found:
        raise UnknownOrder()
    return ApplyResult(
        found[0], _story(found[0], attempts, given_back), tuple(attempts), tuple(given_back)
    )


def lock_or_skip(tx: Transaction, order_id: UUID) -> bool:
    """False when somebody else is working on this order now; timers then leave it to them."""
    return tx.one(LOCK_OR_SKIP, order_id=order_id) is not None


def expire_holders(tx: Transaction, product_ids: list[int], *, role: str) -> int:
    """Ends orders past their soft expiry that still hold these products; answers how many.

    They may be anybody's, so the transaction acts as ``expiry`` meanwhile and as ``role`` again
    afterwards.  Locks in the order of all: orders first, without waiting, then every stock row they
    share in ascending product id.  The caller must hold no stock row yet.
    """
    who, actor = {"product_ids": product_ids, "limit": HOLDERS_MAX}, tx.actor
    _, holders = tx.together((ACT_AS, {"role": EXPIRY_ROLE}), (EXPIRED_HOLDERS, who))
    order_ids = [row.order_id for row in holders]
    if order_ids:
        tx.together(inventory.lock_stock_of(order_ids, product_ids))
        tx.actor = EXPIRY_ROLE
        for order_id in order_ids:
            apply_message(tx, order_id, decide.ExpiryDue())
        tx.actor = actor
    tx.together((ACT_AS, {"role": role}))
    return len(order_ids)


def _story(order: Any, attempts: list[Any], given_back: list[Any]) -> OrderState:
    return OrderState(
        decide.Order(
            status=order.status,
            total_minor=order.total_minor,
            currency=order.currency,
            reason=order.reason,
            charge_wanted=order.charge_wanted,
            is_soft_expired=order.is_soft_expired,
            is_hard_expired=order.is_hard_expired,
        ),
        tuple(
            decide.Payment(
                payment_id=row.payment_id,
                attempt=row.attempt,
                status=row.status,
                amount_minor=row.amount_minor,
                currency=row.currency,
                late=row.late,
                refund_reserved_minor=row.refund_reserved_minor,
                may_charge=row.may_charge,
            )
            for row in attempts
        ),
        tuple(
            decide.Refund(row.refund_id, row.payment_id, row.amount_minor, row.status)
            for row in given_back
        ),
    )


def _write(
    tx: Transaction, order_id: UUID, effects: decide.Effects, requested_by: int | None
) -> Any:
    writing = _Writing(tx, order_id, requested_by)
    for effect in effects:
        _WRITERS[type(effect)](writing, effect)
    changes = len(writing.statements)
    _log_and_announce(writing)
    results = tx.together(*writing.statements)
    for rows, must_touch, statement in zip(
        results[:changes], writing.must_touch, writing.statements, strict=False
    ):
        assert rows or not must_touch, f"a guarded write under the lock met no row: {statement}"
    return results[writing.opened_at][0] if writing.opened_at is not None else None


def _log_and_announce(writing: _Writing) -> None:
    event_ids: list[UUID] = []
    if writing.events:
        statement, event_ids = outbox.emit(writing.tx, *writing.events)
        writing.statements.append(statement)
    if writing.moves:
        moves = [
            StatusChange(
                move.entity,
                move.entity_id,
                move.from_status,
                move.to_status,
                None if index is None else event_ids[index],
            )
            for move, index in zip(writing.moves, writing.event_of_move, strict=True)
        ]
        writing.statements.append(status_history.record(writing.tx, writing.order_id, moves))
    for from_status, to_status in writing.stock_moves:
        writing.statements.append(
            status_history.record_reservations(
                writing.tx, writing.order_id, from_status=from_status, to_status=to_status
            )
        )


# ---------------------------------------------------------------- one writer per effect


def _write_order(writing: _Writing, move: decide.MoveOrder) -> None:
    writing.write(
        orders.move(
            writing.order_id,
            from_status=move.from_status,
            to_status=move.to_status,
            reason=move.reason,
        )
    )
    writing.move("order", writing.order_id, move.from_status, move.to_status)
    if move.to_status == "CANCELLING":
        writing.write((payments.HURRY, {"order_id": writing.order_id}), must_touch=False)


def _write_stock(writing: _Writing, move: decide.MoveStock) -> None:
    writing.write(
        inventory.move(writing.order_id, from_status=move.from_status, to_status=move.to_status)
    )
    writing.stock_moves.append((move.from_status, move.to_status))


def _write_new_payment(writing: _Writing, opened: decide.OpenPayment) -> None:
    payment_id = new_uuid()
    writing.opened_at = len(writing.statements)
    writing.write(
        payments.open_attempt(
            payment_id=payment_id, order_id=writing.order_id, attempt=opened.attempt
        )
    )
    writing.write((orders.CHARGE_STARTED, {"order_id": writing.order_id}))
    writing.move("payment", payment_id, "-", "INTENT")


def _write_payment(writing: _Writing, move: decide.MovePayment) -> None:
    writing.write(
        payments.move(
            move.payment_id,
            from_status=move.from_status,
            to_status=move.to_status,
            late=move.late,
            provider_ref=move.provider_ref,
        )
    )
    writing.move(
        "payment",
        move.payment_id,
        move.from_status,
        move.to_status,
        payment_id=move.payment_id,
    )


def _write_payment_retry(writing: _Writing, retry: decide.RetryPayment) -> None:
    writing.write((payments.RETRY, {"payment_id": retry.payment_id}))


def _write_new_refund(writing: _Writing, opened: decide.OpenRefund) -> None:
    refund_id = opened.refund_id or new_uuid()
    writing.write(payments.reserve_refund(opened.payment_id, opened.amount_minor))
    writing.write(
        refunds.open_refund(
            refund_id=refund_id,
            payment_id=opened.payment_id,
            amount_minor=opened.amount_minor,
            reason=opened.reason,
            requested_by=writing.requested_by,
        )
    )
    writing.move(
        "refund", refund_id, "-", "INTENT", payment_id=opened.payment_id, refund_id=refund_id
    )


def _write_refund(writing: _Writing, move: decide.MoveRefund) -> None:
    writing.write(
        refunds.move(move.refund_id, from_status=move.from_status, to_status=move.to_status)
    )
    if move.to_status == "REJECTED":
        writing.write(payments.reserve_refund(move.payment_id, -move.amount_minor))
    writing.move(
        "refund",
        move.refund_id,
        move.from_status,
        move.to_status,
        payment_id=move.payment_id,
        refund_id=move.refund_id,
    )


def _write_refund_retry(writing: _Writing, retry: decide.RetryRefund) -> None:
    writing.write((refunds.RETRY, {"refund_id": retry.refund_id}))


def _write_posting(writing: _Writing, posting: decide.Post) -> None:
    writing.write(
        ledger.post(
            kind=posting.kind,
            source_id=posting.source_id,
            order_id=writing.order_id,
            amount_minor=posting.amount_minor,
            currency=posting.currency,
        )
    )


def _write_want(writing: _Writing, want: decide.WantCharge) -> None:
    writing.write(
        (
            orders.WANT_CHARGE,
            {"order_id": writing.order_id, "payment_method": want.payment_method},
        )
    )
    writing.announce("payment.retry-requested")


def _write_alarm(writing: _Writing, alarm: decide.OperatorAlert) -> None:
    writing.write(
        operator_alerts.raise_alert(
            kind=alarm.kind, subject=str(alarm.subject), detail=alarm.detail
        ),
        must_touch=False,
    )


_WRITERS: dict[type, Callable[[_Writing, Any], None]] = {
    decide.MoveOrder: _write_order,
    decide.MoveStock: _write_stock,
    decide.OpenPayment: _write_new_payment,
    decide.MovePayment: _write_payment,
    decide.RetryPayment: _write_payment_retry,
    decide.OpenRefund: _write_new_refund,
    decide.MoveRefund: _write_refund,
    decide.RetryRefund: _write_refund_retry,
    decide.Post: _write_posting,
    decide.WantCharge: _write_want,
    decide.OperatorAlert: _write_alarm,
}
