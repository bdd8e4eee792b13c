"""The provider's own word on payments and refunds."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="payment_webhook",
    summary="Take the payment provider's signed notices",
    database_role="payment",
    needs=("postgres",),
    emits=(
        "payment.captured",
        "payment.declined",
        "order.paid",
        "order.cancelling",
        "order.cancelled",
        "refund.requested",
        "refund.succeeded",
        "refund.rejected",
    ),
    scale=Scale(concurrency=8, max_scale=5),
    routes=(
        Route(
            method="POST",
            path="/payments/webhook",
            handler="handle_webhook",
            auth="provider",
            group="payments",
            summary="A notice signed by the provider; the same one again changes nothing",
            status=204,
            error_statuses=(400, 401, 422),
            writes=True,
            transaction=False,
        ),
    ),
)
