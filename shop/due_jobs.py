"""Runs due jobs: the rows of the view ``due_work``.

Every state that is not final has a row in that view, so these jobs complete it even when its events
are lost; then it takes longer.  Each row is handled in its own transactions; a row that another
process has locked is skipped, and a row that cannot be handled raises an operator alert and does
not stop the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Literal, assert_never
from uuid import UUID

from shop import (
    accounts,
    login_failures,
    mails,
    notes,
    one_time_links,
    operator_alerts,
    partitions,
    reconciliation,
    unmatched_charges,
    webhooks,
)
from shop.adapters import db
from shop.adapters.statements import Query, Row, Statement, enum_column
from shop.messaging import dead_letters, idempotency, inbox, outbox
from shop.messaging.outbox import DueEvent
from shop.orders import (
    addresses,
    apply,
    charge,
    disputes,
    messages,
    payments,
    provider_records,
    refund,
    refunds,
)
from shop.orders.messages import Message
from shop.primitives.errors import Unavailable
from shop.primitives.messages import OutboxRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import (
        DisputeReport,
        ProviderTransaction,
        ProviderTransactionPage,
    )
    from shop.primitives.statuses import DisputeStatus
    from shop.runtime.event_context import EventContext
    from shop.runtime.publisher import Publication

BATCH = 100
TICK_SECONDS = 25.0
RELAY_BATCH = 1000
RELAY_SECONDS = 5.0
PAGE = 200
# A tick that outlasts its request is sent a second time, so the next tick reads the rest.
RECONCILE_SECONDS = 15.0
DELETE_BATCH = 1000
STUCK_RECONCILE = "stuck_reconcile"


class JobKind(StrEnum):
    """The values of ``due_work.kind``; others run ``close_day``, ``mail`` and ``webhook``."""

    OUTBOX = "outbox"
    CHARGE = "charge"
    PAYMENT = "payment"
    REFUND = "refund"
    EXPIRE = "expire"
    FINISH = "finish"
    PRICE = "price"
    RECONCILE = "reconcile"
    RETENTION = "retention"
    AGE_LIMIT = "age_limit"
    PARTITIONS = "partitions"
    DEAD_LETTER = "dead_letter"
    ERASE = "erase"


# Jobs that keep the tables in order; the others complete what an order or a provider began.
Maintenance = Literal[
    JobKind.RETENTION, JobKind.AGE_LIMIT, JobKind.PARTITIONS, JobKind.DEAD_LETTER, JobKind.ERASE
]


class DueRow(Row):
    """One due job; ``id`` is that of the event, order, payment or refund, or a name."""

    kind: JobKind = enum_column(JobKind)
    id: str


TAKE = Query(
    DueRow,
    """
select kind, id from shop.due_work
where due_at <= now() and kind = any(%(kinds)s)
order by due_at limit %(batch)s
""",
)


def run_due_jobs(context: EventContext) -> None:
    """Runs jobs until none is due, only failed ones are left, or the time of one tick is over."""
    deadline = time.monotonic() + TICK_SECONDS
    seen: set[DueRow] = set()
    while time.monotonic() < deadline:
        with context.transaction() as tx:
            # rows that stay due must not hide those behind them
            rows = tx.fetch_all(TAKE(kinds=list(JobKind), batch=BATCH + len(seen)))
        new = [row for row in rows if row not in seen]
        if not new:
            return
        for kind, subject in _once_per_batch(new):
            if time.monotonic() > deadline:
                return
            _try(context, kind, subject)
        seen.update(new)


def _once_per_batch(rows: list[DueRow]) -> list[tuple[JobKind, str]]:
    """The jobs of a batch; all rows of the outbox are one job, since it is relayed in batches."""
    jobs = [(row.kind, row.id) for row in rows if row.kind != JobKind.OUTBOX]
    return jobs if len(jobs) == len(rows) else [(JobKind.OUTBOX, ""), *jobs]


def _try(context: EventContext, kind: JobKind, subject: str) -> None:
    """Handles one row; a row that fails stays due and does not stop the rows after it.

    When the row itself is the cause, an operator is alerted.
    """
    name = f"{kind} {subject}"
    try:
        failure = context.attempt(name, lambda: _run(context, kind, subject))
        if isinstance(failure, Exception):
            _save(context, operator_alerts.about_failure(f"stuck_{kind}", subject, failure))
    except (Unavailable, *db.UNAVAILABLE_ERRORS) as error:
        context.log_postponed(name, error)


def _run(context: EventContext, kind: JobKind, subject: str) -> None:
    match kind:
        case JobKind.OUTBOX:
            _relay_outbox(context)
        case JobKind.CHARGE:
            context.run(charge.CHARGE, UUID(subject))
        case JobKind.PAYMENT:
            context.run(charge.RESOLVE, UUID(subject))
        case JobKind.REFUND:
            context.run(refund.REFUND, UUID(subject))
        case JobKind.EXPIRE | JobKind.FINISH:
            message = messages.ExpiryDue() if kind == JobKind.EXPIRE else messages.FinishDue()
            _apply_unless_locked(context, UUID(subject), message)
        case JobKind.PRICE:
            _carry_out_price_schedules(context, int(subject))
        case JobKind.RECONCILE:
            _reconcile(context, subject)
        case (
            JobKind.RETENTION
            | JobKind.AGE_LIMIT
            | JobKind.PARTITIONS
            | JobKind.DEAD_LETTER
            | JobKind.ERASE
        ):
            _maintain(context, kind, subject)
        case _:
            assert_never(kind)


def _maintain(context: EventContext, kind: Maintenance, subject: str) -> None:
    match kind:
        case JobKind.RETENTION:
            _delete_old(context, subject)
        case JobKind.AGE_LIMIT:
            with context.transaction() as tx:
                tx.pipeline(*operator_alerts.check_age_limit(subject, BATCH))
        case JobKind.PARTITIONS:
            _maintain_partitions(context, subject)
        case JobKind.DEAD_LETTER:
            _close_dead_letter(context, UUID(subject))
        case JobKind.ERASE:
            _save(context, accounts.erase(int(subject)))
        case _:
            assert_never(kind)


def _apply_unless_locked(context: EventContext, order_id: UUID, message: Message) -> None:
    with context.transaction() as tx:
        if apply.lock_or_skip(tx, order_id):
            apply.apply_message(tx, order_id, message)


def _carry_out_price_schedules(context: EventContext, product_id: int) -> None:
    """Ends and begins the schedules of a product that are due, each in a transaction of its own."""
    # imported here: most ticks have no such job, and the catalogue has many statements
    from shop import price_schedules

    is_done = True
    while is_done:
        with context.transaction() as tx:
            is_done = price_schedules.carry_out_next(tx, product_id)


# ---------------------------------------------------------------- events


def _relay_outbox(context: EventContext) -> None:
    """Relays due events in batches, for a time that leaves enough for the other jobs."""
    deadline = time.monotonic() + RELAY_SECONDS
    while _relay_batch(context) and time.monotonic() < deadline:
        pass


def _relay_batch(context: EventContext) -> bool:
    """Leases due events, then sends them outside any transaction.

    Those that are too old or no event of this version are quarantined.  Returns whether more may
    be due and the broker takes them.
    """
    with context.transaction() as tx:
        rows = tx.fetch_all(outbox.take_due(RELAY_BATCH))
        done = [row.event_id for row in rows if row.consumed]
        too_old = [row for row in rows if row.too_old and not row.consumed]
        due = [row for row in rows if not row.consumed and not row.too_old]
        tx.pipeline(
            outbox.mark_done(done),
            outbox.quarantine([row.event_id for row in too_old]),
            outbox.lease([row.event_id for row in due]),
            *(_quarantine_alert(row.event_id, "not consumed within a day") for row in too_old),
        )
    result = context.relay([_as_outbox_row(row) for row in due])
    if result.invalid or result.rejected:
        _quarantine_invalid(context, result)
    return len(rows) == RELAY_BATCH and sum(map(len, result)) == len(due)


def _quarantine_invalid(context: EventContext, result: Publication) -> None:
    """Rejected events stay due, since a fault of the broker's can reject every event."""
    with context.transaction() as tx:
        tx.pipeline(
            outbox.quarantine([row.event_id for row in result.invalid]),
            *(
                _quarantine_alert(row.event_id, "no event of this version")
                for row in result.invalid
            ),
            *(_rejection_alert(row) for row in result.rejected),
        )


def _quarantine_alert(event_id: UUID, detail: str) -> Statement[Row]:
    return operator_alerts.raise_alert(
        kind=outbox.QUARANTINED, subject=str(event_id), detail=detail
    )


def _rejection_alert(row: OutboxRow) -> Statement[Row]:
    """One alert for each type of event, for the same reason."""
    detail = f"the broker rejects event {row.event_id}"
    return operator_alerts.raise_alert(kind="event_rejected", subject=row.name, detail=detail)


def _as_outbox_row(row: DueEvent) -> OutboxRow:
    return OutboxRow(
        event_id=row.event_id,
        source=row.source,
        name=row.type,
        subject=row.subject,
        data=row.data,
        traceparent=row.traceparent,
        created_at=row.created_at,
    )


# ---------------------------------------------------------------- reconciliation


def _reconcile(context: EventContext, provider: str) -> None:
    """Reads the provider's new transactions and applies those that the orders lack.

    The position is saved after every page, so that a crash does not lose what was read.  Ends when
    a later run was claimed or everything is to be read again.
    """
    deadline = time.monotonic() + RECONCILE_SECONDS
    with context.transaction() as tx:
        position = tx.fetch_one(reconciliation.take(provider))
    if position is None:
        return
    run = (provider, position.run_number)
    cursor, found, has_more = position.cursor, False, True
    while has_more:
        if time.monotonic() >= deadline:
            _save(context, reconciliation.continue_now(*run))
            return
        page = context.provider.list_since(cursor, PAGE)
        _compare_page(context, page)
        # disputes are listed again for months, which is no reason to look again soon
        found = found or any(entry.kind != "dispute" for entry in page.entries)
        cursor, has_more = page.next_cursor, page.has_more
        if has_more and not _is_saved(context, reconciliation.save_position(*run, cursor)):
            return
    _save(context, reconciliation.finish(*run, cursor, found=found))


def _compare_page(context: EventContext, page: ProviderTransactionPage) -> None:
    """Applies what the orders lack; a transaction that cannot be applied does not stop the rest."""
    for entry in _unrecorded(context, page.entries):
        failure = context.attempt(f"transaction {entry.key}", partial(_compare, context, entry))
        if isinstance(failure, Exception):
            _save(context, operator_alerts.about_failure(STUCK_RECONCILE, entry.key, failure))
    for name in page.invalid:
        detail = "the provider lists it without a valid key or amount"
        _save(
            context,
            operator_alerts.raise_alert(kind=STUCK_RECONCILE, subject=name, detail=detail),
        )


def _save(context: EventContext, statement: Statement[Row]) -> None:
    with context.transaction() as tx:
        tx.execute(statement)


def _is_saved(context: EventContext, statement: Statement[Row]) -> bool:
    with context.transaction() as tx:
        return tx.fetch_one(statement) is not None


def _unrecorded(
    context: EventContext, entries: Sequence[ProviderTransaction]
) -> list[ProviderTransaction]:
    """Drops the transactions that are recorded already, which are nearly all, in one round trip."""
    keys = [entry.key for entry in entries]
    with context.transaction() as tx:
        captured, refunded, disputed = tx.pipeline(
            payments.captured_keys(keys), refunds.succeeded_keys(keys), disputes.recorded(keys)
        )
    known = {row.provider_key for row in (*captured, *refunded)}
    reported = {row.provider_ref: (row.status, row.postings) for row in disputed}
    return [
        entry
        for entry in entries
        if (entry.key not in known or entry.kind == "failed_refund")
        and (entry.dispute is None or reported.get(entry.key) != _extent(entry.dispute))
    ]


def _extent(report: DisputeReport) -> tuple[DisputeStatus, int]:
    """What tells a report about a dispute from an earlier one."""
    return report.status, len(report.transactions)


def _compare(context: EventContext, entry: ProviderTransaction) -> None:
    """Applies an entry to its order; one of another shop on the same account is ignored."""
    with context.transaction() as tx:
        found = provider_records.message_of(tx, entry)
        if found is not None:
            apply.apply_message(tx, found.order_id, found.message)
        elif entry.kind != "failed_refund" and provider_records.has_key_of_shop(entry):
            _alert_unmatched(tx, entry)


def _alert_unmatched(tx: Transaction, entry: ProviderTransaction) -> None:
    """Alerts an operator, unless the charge was closed as unmatched or this is its refund."""
    if entry.key.startswith(unmatched_charges.REFUND_PREFIX):
        return
    if tx.fetch_one(unmatched_charges.is_closed(entry.charge_key)) is None:
        tx.execute(
            operator_alerts.raise_alert(
                kind=f"ghost_{entry.kind}",
                subject=entry.key,
                detail="only the provider has this transaction",
            )
        )


# ---------------------------------------------------------------- retention


def _delete_old(context: EventContext, what: str) -> None:
    """Deletes in batches, each in its own transaction, so that no lock is held for long."""
    deleted = DELETE_BATCH
    while deleted == DELETE_BATCH:
        with context.transaction() as tx:
            deleted = tx.execute(_RETENTION[what](DELETE_BATCH))


def _maintain_partitions(context: EventContext, table: str) -> None:
    """Three transactions, because all lock tables, which they could do in different orders."""
    _save(context, partitions.create_months(table))
    _save(context, partitions.drop_past_months(table))
    _save(context, partitions.analyze(table))


def _close_dead_letter(context: EventContext, dead_letter_id: UUID) -> None:
    with context.transaction() as tx:
        if (closed := tx.fetch_one(dead_letters.close_consumed(dead_letter_id))) is not None:
            tx.execute(operator_alerts.resolve_closed([closed.name]))


_RETENTION: dict[str, Callable[[int], Statement[Row]]] = {
    "alarms": operator_alerts.delete_old,
    "dead_letters": dead_letters.delete_old,
    "idempotency": idempotency.delete_old,
    "inbox": inbox.delete_old,
    "login_failures": login_failures.delete_old,
    "mails": mails.delete_old,
    "notes": notes.delete_old,
    "order_addresses": addresses.delete_old,
    "one_time_links": one_time_links.delete_old,
    "outbox": outbox.delete_old,
    "quarantined": outbox.delete_quarantined,
    "sessions": accounts.delete_old_sessions,
    "webhook_deliveries": webhooks.delete_old,
}
