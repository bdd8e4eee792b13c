"""Cancel an order or a part of it, also for its customer; ask for returns; return money.

``POST /orders/{orderId}/refunds`` is served here; the function ``refund`` sends refunds to the
payment provider.
"""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="cancel_order",
    summary="Cancel orders and lines, ask for returns; return money (POST …/refunds).",
    database_role="ordering",
    cold_start_budget=1.3,
    needs=("postgres",),
    emits=("order.cancelled", "order.cancelling", "refund.requested", "return.requested"),
    scale=Scale(concurrency=8, max_scale=5),
    routes=(
        Route(
            method="PATCH",
            path="/orders/{orderId}/cancel",
            handler="cancel_order",
            auth="customer",
            group="orders",
            summary="Cancel an order: the stock is released now, the refund is confirmed later.",
            response="Order",
            error_statuses=(404, 409),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="POST",
            path="/orders/{orderId}/cancellations",
            handler="cancel_lines",
            auth="customer",
            group="orders",
            summary="Cancel units of an order that are not being sent; their money is returned.",
            body="CancelLines",
            response="Order",
            error_statuses=(404, 409, 422),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="POST",
            path="/orders/{orderId}/returns",
            handler="request_return",
            auth="customer",
            group="orders",
            summary="Ask to return goods that were sent; support approves it.",
            body="RequestReturn",
            response="Return",
            status=201,
            error_statuses=(404, 409, 422),
            headers=("Location",),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="PATCH",
            path="/admin/orders/{orderId}/cancel",
            handler="cancel_for_customer",
            auth="support",
            group="admin",
            summary="Cancel an order for its customer, with a reason.",
            body="CancelForCustomer",
            response="Order",
            error_statuses=(404, 409, 422),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="POST",
            path="/orders/{orderId}/refunds",
            handler="refund_order",
            auth="support",
            group="orders",
            summary=(
                "Return money of an order: by the provider or by other means; or write it off."
            ),
            body="RefundOrder",
            response="Refund",
            status=201,
            error_statuses=(404, 409, 422),
            headers=("Location",),
            idempotent=True,
            writes=True,
        ),
    ),
)
