"""Cancel an order, or refund a part of it: the rows change now, the provider is asked later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.orders import apply, decide, orders
from shop.primitives.errors import ClientError, not_found
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.cancel_order.schema import RefundOrder
    from shop.runtime.request_context import RequestContext


def cancel_order(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the order, CANCELLED or CANCELLING; 409 NOT_CANCELLABLE when it already is."""
    tx = context.tx
    order_id = orders.id_in(request.path)
    if request.raw_body.strip() not in (b"", b"{}"):
        raise ClientError(422, "INVALID", "cancelling takes no body")
    if tx.one(orders.OWNED, order_id=order_id, user_id=request.user_id) is None:
        raise not_found("the order")
    apply.apply_message(tx, order_id, decide.CancelAsked("USER"))
    row = tx.one(orders.VIEW, order_id=order_id)
    return Response(200, orders.represent(row))


def refund_order(request: Request[RefundOrder, None], context: RequestContext) -> Response:
    """201 with the accepted refund; 409 EXCEEDS_CAPTURE or NOT_REFUNDABLE; 422 another currency."""
    order_id = orders.id_in(request.path)
    asked = request.body
    try:
        telling = apply.apply_message(
            context.tx,
            order_id,
            decide.RefundAsked(asked.amount, asked.reason),
            requested_by=request.user_id,
        )
    except apply.UnknownOrder as error:
        raise not_found("the order") from error
    if asked.currency not in (None, telling.order.currency):
        raise ClientError(422, "OTHER_CURRENCY", "the order was paid in another currency")
    if telling.order.user_id == request.user_id:
        raise ClientError(403, "FORBIDDEN", "nobody refunds an order of their own")
    body = {
        "orderId": str(order_id),
        "amount": asked.amount,
        "currency": telling.order.currency,
        "status": "INTENT",
        "reason": asked.reason,
    }
    return Response(201, body, {"Location": f"/orders/{order_id}/timeline"})
