"""Run due jobs: everything that must happen at a time without a request."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Scale, Schedule

SPEC = FunctionSpec(
    name="sweep",
    summary="Run due jobs: unsent events, open payments and refunds, expiries, scheduled prices, "
    "reconciliation.",
    database_role="relay",
    cold_start_budget=1.45,
    needs=("postgres", "provider"),
    emits=(
        "order.paid",
        "order.cancelling",
        "order.cancelled",
        "order.refunded",
        "payment.captured",
        "payment.declined",
        "refund.requested",
        "refund.succeeded",
        "refund.rejected",
        "product.changed",
    ),
    scale=Scale(concurrency=1, max_scale=2),
    timeout_seconds=60,
    schedules=(
        Schedule(
            name="sweep",
            cron="*/5 * * * *",
            poll_seconds=90,
            handler="sweep",
            summary="Run every job that is due.",
            due_kinds=(
                "outbox",
                "charge",
                "payment",
                "refund",
                "expire",
                "finish",
                "price",
                "reconcile",
                "retention",
                "age_limit",
                "partitions",
                "dead_letter",
                "erase",
            ),
        ),
    ),
)
