"""Collecting an order's money."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Scale, Subscription

SPEC = FunctionSpec(
    name="charge",
    summary="Collect an order's money from the payment provider",
    database_role="payment",
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
            summary="A new order wants its money collected",
        ),
        Subscription(
            event="payment.retry-requested",
            handler="charge",
            summary="The buyer tries again after a decline",
        ),
    ),
)
