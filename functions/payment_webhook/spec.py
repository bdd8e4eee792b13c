"""Webhooks of the payment provider."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="payment_webhook",
    summary="Receive the payment provider's signed webhooks.",
    database_role="payment",
    cold_start_budget=1.3,
    needs=("postgres",),
    emits=(
        "payment.captured",
        "payment.declined",
        "payment.confirm-requested",
        "order.paid",
        "order.cancelling",
        "order.cancelled",
        "order.refunded",
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
            summary="Process a webhook signed by the provider; a duplicate changes nothing.",
            status=204,
            other_statuses=(200, 202),
            error_statuses=(400, 401, 422),
            writes=True,
            transaction=False,
        ),
    ),
)
