"""Close finished business days from the ledger."""

from shop.primitives.spec import FunctionSpec, Scale, Schedule

SPEC = FunctionSpec(
    name="settle",
    summary="Close finished business days with what was captured and refunded, from the ledger.",
    database_role="settlement",
    cold_start_budget=1.2,
    schedules=(
        Schedule(
            name="close-days",
            # two minutes after a day ends in any time zone of a whole or half hour
            cron="3,33 * * * *",
            poll_seconds=900,
            handler="close_days",
            summary="Close every finished business day with unsettled postings.",
            due_kinds=("close_day",),
        ),
    ),
    emits=("settlement.closed",),
    needs=("postgres",),
    scale=Scale(concurrency=1, max_scale=2),
    timeout_seconds=60,
)
