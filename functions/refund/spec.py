"""Send requested refunds to the payment provider.

They are requested by ``cancel_order``, which serves ``POST /orders/{orderId}/refunds``.
"""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Scale, Subscription

SPEC = FunctionSpec(
    name="refund",
    summary="Send a refund to the payment provider.",
    database_role="payment",
    cold_start_budget=1.35,
    needs=("postgres", "provider"),
    emits=(
        "refund.succeeded",
        "refund.rejected",
        "order.cancelled",
        "order.refunded",
    ),
    scale=Scale(concurrency=4, max_scale=10),
    timeout_seconds=40,
    subscriptions=(
        Subscription(
            event="refund.requested",
            handler="refund",
            summary="Send a requested refund.",
        ),
    ),
)
