"""Everything that is due although nobody asks."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Scale, Schedule

SPEC = FunctionSpec(
    name="sweep",
    summary="Do whatever is due: unsent events, open payments and refunds, expiries, retention",
    database_role="relay",
    needs=("postgres", "provider"),
    emits=(
        "order.paid",
        "order.cancelling",
        "order.cancelled",
        "payment.captured",
        "payment.declined",
        "refund.requested",
        "refund.succeeded",
        "refund.rejected",
    ),
    scale=Scale(concurrency=1, max_scale=2, memory_mib=256),
    timeout_seconds=60,
    schedules=(
        Schedule(
            name="sweep",
            cron="* * * * *",
            handler="sweep",
            summary="Drain due_work",
            due_kinds=(
                "outbox",
                "charge",
                "payment",
                "refund",
                "expire",
                "finish",
                "reconcile",
                "retention",
            ),
        ),
    ),
)
