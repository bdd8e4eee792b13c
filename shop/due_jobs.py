"""What to do with each kind of ``due_work``.

Every state that is not at rest has a row in that view and is moved on from here with no event at
all: delete every event and the shop is slower, not wrong.  Each row is worked on in transactions of
its own; a row somebody else holds is left to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from shop import accounts, operator_alerts, reconciliation, unmatched_charges
from shop.adapters import db
from shop.messaging import idempotency, outbox
from shop.messaging.outbox import OutboxRow
from shop.orders import apply, charge, decide, payments, refund, refunds
from shop.primitives.errors import ClientError, Unavailable

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import ProviderTransaction
    from shop.runtime.event_context import EventContext

BATCH = 100
DRAIN_SECONDS = 25.0
PAGE = 200
# Long books are read on in the next tick: a tick that outlasts its request is sent a second time.
BOOKS_SECONDS = 15.0
FORGOTTEN_AT_ONCE = 1000

TAKE: LiteralString = """
select kind, id from shop.due_work
where due_at <= now() and kind = any(%(kinds)s)
order by due_at limit %(batch)s
"""


def run_due_jobs(context: EventContext) -> None:
    """Works until nothing is due, nothing moves any more, or the time of one tick is over."""
    deadline = time.monotonic() + DRAIN_SECONDS
    seen: set[tuple[str, str]] = set()
    while time.monotonic() < deadline:
        with context.transaction() as tx:
            # rows that stay due must not hide those behind them
            rows = tx.all(TAKE, kinds=list(_DO), batch=BATCH + len(seen))
        fresh = [(row.kind, row.id) for row in rows if (row.kind, row.id) not in seen]
        if not fresh:
            return
        for kind, subject in _once_per_kind(fresh):
            if time.monotonic() > deadline:
                return
            _do(context, kind, subject)
        seen.update(fresh)


def _once_per_kind(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Kinds that drain in batches are done once however many of their rows are due."""
    batched = {kind for kind, _ in rows if kind in _IN_BATCHES}
    single = [(kind, subject) for kind, subject in rows if kind not in _IN_BATCHES]
    return [(kind, "") for kind in sorted(batched)] + single


def _do(context: EventContext, kind: str, subject: str) -> None:
    """One row; whatever becomes of it, its neighbours do not wait: it stays due and comes again."""
    try:
        _DO[kind](context, subject)
    except (ClientError, Unavailable, *db.NOT_NOW) as error:
        context.log_postponed(f"{kind} {subject}: {type(error).__name__}")
    except (db.DatabaseError, AssertionError) as error:
        # what a constraint or a guard refuses is a bug of ours, for a person to look at
        context.log_postponed(f"{kind} {subject}: {error!r}")
        with context.transaction() as tx:
            statement, parameters = operator_alerts.raise_alert(
                kind=f"stuck_{kind}", subject=subject, detail=type(error).__name__
            )
            tx.run(statement, **parameters)


# ---------------------------------------------------------------- events


def _relay(context: EventContext, _: str) -> None:
    """Unsent or unconsumed rows: leased, then sent outside any transaction."""
    with context.transaction() as tx:
        rows = tx.all(outbox.TAKE_DUE, batch=BATCH)
        done = [row.event_id for row in rows if row.consumed]
        late = [row for row in rows if row.too_old and not row.consumed]
        due = [row for row in rows if not row.consumed and not row.too_old]
        tx.together(
            (outbox.MARK_DONE, {"event_ids": done}),
            (outbox.PARK, {"event_ids": [row.event_id for row in late]}),
            (outbox.LEASE, {"event_ids": [row.event_id for row in due]}),
            *(_parked(row) for row in late),
        )
    context.relay([_as_outbox_row(row) for row in due])


def _parked(row: Any) -> db.Statement:
    detail = f"{row.type} was not consumed within a day"
    return operator_alerts.raise_alert(
        kind="event_parked", subject=str(row.event_id), detail=detail
    )


def _as_outbox_row(row: Any) -> OutboxRow:
    return OutboxRow(
        event_id=row.event_id,
        source=row.source,
        name=row.type,
        subject=row.subject,
        data=row.data,
        traceparent=row.traceparent,
        created_at=row.created_at,
    )


# ---------------------------------------------------------------- money


def _charge(context: EventContext, order_id: str) -> None:
    context.run(charge.CHARGE, UUID(order_id))


def _resolve(context: EventContext, payment_id: str) -> None:
    context.run(charge.RESOLVE, UUID(payment_id))


def _refund(context: EventContext, refund_id: str) -> None:
    context.run(refund.REFUND, UUID(refund_id))


def _reconcile(context: EventContext, provider: str) -> None:
    """Reads on in the provider's books and tells our stories what they do not know yet.

    The place is kept after every page: whoever dies in long books has not read them for nothing.
    """
    deadline = time.monotonic() + BOOKS_SECONDS
    with context.transaction() as tx:
        position = tx.one(reconciliation.TAKE, provider=provider)
    if position is None:
        return
    cursor, found, has_more = position.cursor, False, True
    while has_more:
        if time.monotonic() >= deadline:
            with context.transaction() as tx:
                tx.run(reconciliation.GO_ON, provider=provider)
            return
        page = context.provider.list_since(cursor, PAGE)
        for entry in _news(context, page.entries):
            _compare(context, entry)
        found = found or bool(page.entries)
        cursor, has_more = page.next_cursor, page.has_more
        if has_more:
            with context.transaction() as tx:
                tx.run(reconciliation.KEEP_PLACE, provider=provider, cursor=cursor)
    with context.transaction() as tx:
        tx.run(reconciliation.ADVANCE, provider=provider, cursor=cursor, found=found)


def _news(
    context: EventContext, entries: Sequence[ProviderTransaction]
) -> list[ProviderTransaction]:
    """Entries without those that our stories end with, which are nearly all, in one question."""
    keys = [entry.key for entry in entries]
    with context.transaction() as tx:
        charges, givings_back = tx.together(
            (payments.CAPTURED_KEYS, {"provider_keys": keys}),
            (refunds.SUCCEEDED_KEYS, {"provider_keys": keys}),
        )
    known = {row.provider_key for row in (*charges, *givings_back)}
    return [entry for entry in entries if entry.key not in known]


def _compare(context: EventContext, entry: ProviderTransaction) -> None:
    question = refunds.ORDER_OF_KEY if entry.kind == "refund" else payments.ORDER_OF_KEY
    with context.transaction() as tx:
        row = tx.one(question, provider_key=entry.key)
        if row is None:
            _meet_unknown(tx, entry)
        elif entry.kind == "refund":
            refunded = decide.Refunded(row.refund_id, entry.amount_minor, entry.currency)
            apply.apply_message(tx, row.order_id, refunded)
        else:
            captured = decide.Captured(
                row.payment_id, entry.amount_minor, entry.currency, entry.provider_ref
            )
            apply.apply_message(tx, row.order_id, captured)


def _meet_unknown(tx: Transaction, entry: ProviderTransaction) -> None:
    """A restore took our row away: a refund of ours gets it again, all else wants a person."""
    refund_id = refunds.id_of_key(entry.key) if entry.kind == "refund" else None
    payment = tx.one(payments.ORDER_OF_KEY, provider_key=entry.charge_key) if refund_id else None
    if refund_id is not None and payment is not None:
        amount = (entry.amount_minor, entry.currency)
        found = decide.RefundFound(refund_id, payment.payment_id, *amount)
        apply.apply_message(tx, payment.order_id, found)
        apply.apply_message(tx, payment.order_id, decide.Refunded(refund_id, *amount))
        return
    if entry.key.startswith(unmatched_charges.REFUND_PREFIX):
        return
    if tx.one(unmatched_charges.KNOWN, provider_key=entry.charge_key) is None:
        statement, parameters = operator_alerts.raise_alert(
            kind=f"ghost_{entry.kind}", subject=entry.key, detail="only the provider knows it"
        )
        tx.run(statement, **parameters)


# ---------------------------------------------------------------- orders


def _expire(context: EventContext, order_id: str) -> None:
    _tell_if_free(context, order_id, decide.ExpiryDue())


def _finish(context: EventContext, order_id: str) -> None:
    _tell_if_free(context, order_id, decide.FinishDue())


def _tell_if_free(context: EventContext, order_id: str, message: Any) -> None:
    with context.transaction() as tx:
        if apply.lock_or_skip(tx, UUID(order_id)):
            apply.apply_message(tx, UUID(order_id), message)


# ---------------------------------------------------------------- retention


def _forget(context: EventContext, what: str) -> None:
    """Batches of 1,000, each in a transaction of its own, so that no lock is held for long."""
    forgotten = FORGOTTEN_AT_ONCE
    while forgotten == FORGOTTEN_AT_ONCE:
        with context.transaction() as tx:
            forgotten = tx.run(_FORGET[what], batch=FORGOTTEN_AT_ONCE)


_FORGET: dict[str, LiteralString] = {
    "idempotency": idempotency.FORGET,
    "outbox": outbox.FORGET,
    "sessions": accounts.FORGET_SESSIONS,
}

_IN_BATCHES = ("outbox",)

_DO: dict[str, Callable[[EventContext, str], None]] = {
    "outbox": _relay,
    "charge": _charge,
    "payment": _resolve,
    "refund": _refund,
    "expire": _expire,
    "finish": _finish,
    "reconcile": _reconcile,
    "retention": _forget,
}
