"""Charge orders at the payment provider."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Scale, Subscription

SPEC = FunctionSpec(
    name="charge",
    summary="Charge an order at the payment provider.",
    database_role="payment",
    cold_start_budget=1.3,
    needs=("postgres", "provider"),
    emits=(
        "payment.captured",
        "payment.declined",
        "order.paid",
        "order.cancelling",
        "order.cancelled",
        "refund.requested",
    ),
    scale=Scale(concurrency=4, max_scale=10),
    timeout_seconds=40,
    subscriptions=(
        Subscription(
            event="order.placed",
            handler="charge",
            summary="Charge a new order.",
        ),
        Subscription(
            event="payment.retry-requested",
            handler="charge",
            summary="Charge an order again after a decline.",
        ),
        Subscription(
            event="payment.confirm-requested",
            handler="confirm",
            summary="Confirm a payment whose customer has done what it required.",
        ),
    ),
)
