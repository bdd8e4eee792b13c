"""Cancel an order, or refund a part of it: the rows change now, the provider is asked later."""

from __future__ import annotations

from shop import saga
from shop.db import Transaction
from shop.errors import Refused, not_found
from shop.message import Reply, Request
from shop.ordering import lifecycle, orders


def cancel_order(request: Request, tx: Transaction) -> Reply:
    """200 with the order, CANCELLED or CANCELLING; 409 NOT_CANCELLABLE when it already is."""
    order_id = orders.id_in(request.path)
    if request.raw_body.strip() not in (b"", b"{}"):
        raise Refused(422, "INVALID", "cancelling takes no body")
    if tx.one(orders.OWNED, order_id=order_id, user_id=request.user_id) is None:
        raise not_found("the order")
    saga.tell(tx, order_id, lifecycle.CancelAsked("USER"))
    row = tx.one(orders.VIEW, order_id=order_id)
    return Reply(200, orders.represent(row))


def refund_order(request: Request, tx: Transaction) -> Reply:
    """201 with the accepted refund; 409 EXCEEDS_CAPTURE or NOT_REFUNDABLE; 422 another currency."""
    order_id = orders.id_in(request.path)
    asked = request.body
    try:
        telling = saga.tell(
            tx,
            order_id,
            lifecycle.RefundAsked(asked.amount, asked.reason),
            requested_by=request.user_id,
        )
    except saga.UnknownOrder as error:
        raise not_found("the order") from error
    if asked.currency not in (None, telling.order.currency):
        raise Refused(422, "OTHER_CURRENCY", "the order was paid in another currency")
    if telling.order.user_id == request.user_id:
        raise Refused(403, "FORBIDDEN", "nobody refunds an order of their own")
    body = {
        "orderId": str(order_id),
        "amount": asked.amount,
        "currency": telling.order.currency,
        "status": "INTENT",
        "reason": asked.reason,
    }
    return Reply(201, body, {"Location": f"/orders/{order_id}/timeline"})
