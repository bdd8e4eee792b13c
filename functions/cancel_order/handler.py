"""Cancels an order, also for its customer by support, or returns money of it.

The operations only change rows.  The functions ``charge`` and ``refund`` call the provider
afterwards, when they consume the events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop import audit_log, notes
from shop.audit_log import Action
from shop.orders import apply, decide, queries, returns
from shop.orders.lines import Line
from shop.orders.messages import (
    CancelRequested,
    LinesCancelled,
    RefundRequested,
    ReturnRequested,
)
from shop.primitives.errors import ClientError
from shop.primitives.ids import new_uuid
from shop.primitives.messages import Request, Response
from shop.primitives.statuses import CancelReason, RefundStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from functions.cancel_order.schema import (
        CancelForCustomer,
        CancelLines,
        RefundOrder,
        RequestReturn,
    )
    from functions.cancel_order.schema import Line as RequestedLine
    from shop.runtime.request_context import RequestContext


def cancel_order(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the order, CANCELLED or CANCELLING; 409 NOT_CANCELLABLE when it already is.

    409 IN_PREPARATION once staff pack a part of it, ALREADY_SHIPPED once a part was sent.
    """
    tx = context.tx
    order_id = queries.id_in(request.path)
    if request.raw_body.strip() not in (b"", b"{}"):
        raise ClientError(422, "INVALID", "cancelling takes no body")
    rows = apply.lock_own(tx, order_id, request.user_id)
    decided = apply.decide_on(rows, CancelRequested(CancelReason.USER))
    apply.write(tx, rows, decided)
    order = tx.fetch_one(queries.order(order_id))
    assert order is not None, "the order is locked"
    return Response(200, queries.represent(order))


def cancel_lines(request: Request[CancelLines, None], context: RequestContext) -> Response:
    """200 with the order: units that are in no shipment are cancelled, and their money returned.

    The last units of an order cancel it as a whole.  409 NOT_CANCELLABLE unless it is paid,
    ALREADY_SHIPPED, IN_PREPARATION or EXCEEDS_ORDER for more than can be cancelled.
    """
    tx, return_id = context.tx, new_uuid()
    order_id = queries.id_in(request.path)
    rows = apply.lock_own(tx, order_id, request.user_id)
    message = LinesCancelled(return_id, _lines(request.body.items), request.body.reason)
    apply.write(tx, rows, apply.decide_on(rows, message))
    order = tx.fetch_one(queries.order(order_id))
    assert order is not None, "the order is locked"
    return Response(200, queries.represent(order))


def request_return(request: Request[RequestReturn, None], context: RequestContext) -> Response:
    """201 with the return, which support approves or rejects.

    409 NOT_RETURNABLE for more than was sent and not returned, RETURN_WINDOW_CLOSED afterwards.
    """
    tx, return_id = context.tx, new_uuid()
    order_id = queries.id_in(request.path)
    rows = apply.lock_own(tx, order_id, request.user_id)
    settings = context.settings
    window = returns.returnable(
        order_id, days=settings.return_window_days, window_start=settings.return_window_start
    )
    returnable = frozenset(row.shipment_id for row in tx.fetch_all(window))
    lines, reason = _lines(request.body.items), request.body.reason
    message = ReturnRequested(return_id, lines, reason, returnable)
    apply.write(tx, rows, apply.decide_on(rows, message))
    written = next(
        row for row in tx.fetch_all(returns.of_order(order_id)) if row.return_id == return_id
    )
    location = {"Location": f"/orders/{order_id}"}
    return Response(201, returns.represent(written), location)


def cancel_for_customer(
    request: Request[CancelForCustomer, None], context: RequestContext
) -> Response:
    """200 with the order, CANCELLED or CANCELLING; 409 NOT_CANCELLABLE when it already is.

    Shipments in preparation are stopped; 409 ALREADY_SHIPPED once a part was sent.  Its customer
    sees that the reason is OPERATOR; what the operator gives as reason becomes a note
    about the order, which the audit log names.
    """
    tx = context.tx
    order_id = queries.id_in(request.path)
    rows = apply.lock_any(tx, order_id)
    decided = apply.decide_on(rows, CancelRequested(CancelReason.OPERATOR))
    note_id = new_uuid()
    status = decide.after_effects(rows.state, decided).order.status
    entry = audit_log.record(
        audit_log.actor_of(request),
        Action.ORDER_CANCELLED,
        order_id,
        before={"status": rows.order.status},
        after={"status": status, "noteId": str(note_id)},
    )
    apply.write(tx, rows, decided, audit=entry)
    _, (order,) = tx.pipeline(
        notes.record(
            note_id, order_id=order_id, author_id=request.user_id, text=request.body.reason
        ),
        queries.order(order_id),
    )
    return Response(200, queries.represent(order))


def refund_order(request: Request[RefundOrder, None], context: RequestContext) -> Response:
    """201 with the accepted refund; 422 for another currency, 403 for an order of one's own.

    409 EXCEEDS_CAPTURE, NOT_REFUNDABLE or RESTOCK_NEEDS_FULL_REFUND.
    """
    tx = context.tx
    order_id = queries.id_in(request.path)
    body = request.body
    rows = apply.lock_any(tx, order_id)
    requested = RefundRequested(
        body.amount, body.reason, body.means, body.reference, restock=body.restock
    )
    decided = apply.decide_on(rows, requested)
    if body.currency not in (None, rows.order.currency):
        raise ClientError(422, "OTHER_CURRENCY", "the order was paid in another currency")
    if rows.order.user_id == request.user_id:
        raise ClientError(403, "FORBIDDEN", "an account cannot refund its own order")
    refund: dict[str, object] = {
        "orderId": str(order_id),
        "amount": body.amount,
        "currency": rows.order.currency,
        "status": RefundStatus.INTENT,
        "reason": body.reason,
        "means": body.means,
        "restock": body.restock,
    }
    if body.reference is not None:
        refund["reference"] = body.reference
    # texts of support, which may name a person, are in the refund's row only
    recorded = {name: refund[name] for name in refund if name not in ("reason", "reference")}
    entry = audit_log.record(
        audit_log.actor_of(request), Action.ORDER_REFUNDED, order_id, after=recorded
    )
    apply.write(tx, rows, decided, requested_by=request.user_id, audit=entry)
    return Response(201, refund, {"Location": f"/orders/{order_id}/timeline"})


def _lines(items: Sequence[RequestedLine]) -> tuple[Line, ...]:
    return tuple(Line(item.product_id, item.quantity) for item in items)
