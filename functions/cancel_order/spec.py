"""Withdrawing an order, and giving a part of its money back."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="cancel_order",
    summary="Cancel an order, or refund a part of it",
    database_role="ordering",
    needs=("postgres",),
    emits=("order.cancelled", "order.cancelling", "refund.requested"),
    scale=Scale(concurrency=8, max_scale=5),
    routes=(
        Route(
            method="PATCH",
            path="/orders/{orderId}/cancel",
            handler="cancel_order",
            auth="customer",
            group="orders",
            summary="Withdraw an order: stock goes back now, money as soon as the provider says so",
            response="Order",
            error_statuses=(404, 409),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="POST",
            path="/orders/{orderId}/refunds",
            handler="refund_order",
            auth="support",
            group="orders",
            summary="Give a part of a paid order's money back",
            body="RefundOrder",
            response="Refund",
            status=201,
            error_statuses=(404, 409, 422),
            idempotent=True,
            writes=True,
        ),
    ),
)
