"""The outbox: an event is stored in the transaction of the change that it announces.

A row is done when every subscriber's inbox holds it; until then the event is sent again, at growing
intervals.  Events may be reordered: they carry ids only, and consumers read the present rows.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement
from shop.primitives.ids import new_uuid
from shop.primitives.messages import OutboxRow

if TYPE_CHECKING:
    from events.event import ShopEvent
    from shop.adapters.db import Transaction


class DueEvent(Row):
    """A due event: done if ``consumed``, else to quarantine if ``too_old``, else to send."""

    event_id: UUID
    source: str
    type: str
    subject: str
    data: str
    traceparent: str
    created_at: datetime
    consumed: bool
    too_old: bool


class ReleasedEvent(Row):
    """An event that is no longer quarantined."""

    event_id: UUID


# The kind of the operator alert about a quarantined event; its subject is the event's id.
QUARANTINED = "event_parked"

# An event that no request caused, such as a timer's, continues the trace of its order.
INSERT = Command(
    """
insert into shop.outbox
  (event_id, source, type, subject, order_id, data, traceparent, next_try_at)
select event_id, %(source)s, type, subject, order_id, data,
  coalesce(nullif(%(traceparent)s, ''), (select o.traceparent from shop.outbox o
    where o.order_id = e.order_id order by o.created_at, o.event_id limit 1), ''),
  now() + interval '5 seconds'
from unnest(%(event_ids)s::uuid[], %(types)s::text[], %(subjects)s::text[],
  %(order_ids)s::uuid[], %(data)s::jsonb[]) as e(event_id, type, subject, order_id, data)
"""
)

# An event without subscribers is done once it is sent.
#
# In a prepared statement, an array selects no partition; its first and last id, in order, do.
MARK_SENT = Command(
    """
update shop.outbox o set sent_at = coalesce(sent_at, now()), tries = tries + 1,
  next_try_at =
    now() + least(interval '10 seconds' * power(2, least(tries, 5)), interval '5 minutes'),
  done_at = case when exists (select from shop.subscriptions s where s.type = o.type)
    then done_at else now() end
where event_id = any(%(event_ids)s::uuid[]) and done_at is null
  and event_id >= (%(event_ids)s::uuid[])[1]
  and event_id <= (%(event_ids)s::uuid[])[cardinality(%(event_ids)s::uuid[])]
"""
)

# Two subscribers that commit at once may not see each other's row; then the sweep marks it done.
# sent_at is set too, in case the publisher has not recorded it yet.
MARK_CONSUMED = Command(
    """
update shop.outbox o set done_at = now(), sent_at = coalesce(sent_at, now())
where event_id = %(event_id)s::uuid and done_at is null and not exists (
  select from shop.subscriptions s where s.type = o.type and s.consumer <> %(consumer)s
  and not exists (select from shop.inbox i where i.consumer = s.consumer
    and i.source = o.source and i.event_id = (%(event_id)s::uuid)::text))
"""
)

# An event that the broker never accepted is kept however old it is.
TAKE_DUE = Query(
    DueEvent,
    """
select event_id, source, type, subject, data::text as data, traceparent, created_at,
  not exists (select from shop.subscriptions s where s.type = o.type
    and not exists (select from shop.inbox i where i.consumer = s.consumer
      and i.source = o.source and i.event_id = o.event_id::text))
    and (sent_at is not null or exists (select from shop.subscriptions s where s.type = o.type))
    as consumed,
  tries > 0 and created_at < now() - interval '24 hours' as too_old
from shop.outbox o
where done_at is null and parked_at is null and next_try_at <= now()
order by next_try_at
for update skip locked
limit %(batch)s
""",
)

# While an event is being sent, other relays skip it; after a crash it becomes due again.
LEASE = Command(
    """
update shop.outbox set next_try_at = now() + interval '10 seconds'
where event_id = any(%(event_ids)s::uuid[])
  and event_id >= (%(event_ids)s::uuid[])[1]
  and event_id <= (%(event_ids)s::uuid[])[cardinality(%(event_ids)s::uuid[])]
"""
)

MARK_DONE = Command(
    """
update shop.outbox set done_at = now(), sent_at = coalesce(sent_at, now())
where event_id = any(%(event_ids)s::uuid[]) and done_at is null
  and event_id >= (%(event_ids)s::uuid[])[1]
  and event_id <= (%(event_ids)s::uuid[])[cardinality(%(event_ids)s::uuid[])]
"""
)

QUARANTINE = Command(
    """
update shop.outbox set parked_at = now()
where event_id = any(%(event_ids)s::uuid[]) and parked_at is null
"""
)

# tries is set back, so that an old event is published once more before it is quarantined again.
RELEASE = Query(
    ReleasedEvent,
    """
update shop.outbox set parked_at = null, tries = 0, next_try_at = now()
where event_id = any(%(event_ids)s::uuid[]) and parked_at is not null and done_at is null
returning event_id
""",
)

# Only rows that are in no month's partition: a month is dropped as a whole (shop/partitions.py).
DELETE_OLD = Command(
    """
delete from shop.outbox where event_id in (
  select event_id from shop.outbox where done_at < now() - interval '30 days'
    and (event_id < shop.uuid_at((select min(starts_at) from shop.months
        where table_name = 'outbox'))
      or event_id >= shop.uuid_at((select max(ends_at) from shop.months
        where table_name = 'outbox')))
  limit %(batch)s)
"""
)

DELETE_QUARANTINED = Command(
    """
delete from shop.outbox where event_id in (
  select event_id from shop.outbox where parked_at < now() - interval '30 days'
    and (event_id < shop.uuid_at((select min(starts_at) from shop.months
        where table_name = 'outbox'))
      or event_id >= shop.uuid_at((select max(ends_at) from shop.months
        where table_name = 'outbox')))
  limit %(batch)s)
"""
)


def emit(tx: Transaction, *events: ShopEvent) -> tuple[Statement[Row], list[UUID]]:
    """The statement that stores ``events`` in the outbox, and the ids they will have.

    Send it in the same pipeline as the change itself; the runtime publishes after the commit.
    """
    rows = [
        OutboxRow(
            event_id=new_uuid(),
            source=tx.source,
            name=event.name,
            subject=event.subject,
            data=json.dumps(event.data(), separators=(",", ":")),
            traceparent=tx.traceparent,
        )
        for event in events
    ]
    tx.announced.extend(rows)
    statement = INSERT(
        source=tx.source,
        traceparent=tx.traceparent,
        event_ids=[row.event_id for row in rows],
        types=[row.name for row in rows],
        subjects=[row.subject for row in rows],
        order_ids=[getattr(event, "order_id", None) for event in events],
        data=[row.data for row in rows],
    )
    return statement, [row.event_id for row in rows]


def take_due(batch: int) -> Statement[DueEvent]:
    """Locks and returns at most ``batch`` due events, oldest first."""
    return TAKE_DUE(batch=batch)


def lease(event_ids: list[UUID]) -> Statement[Row]:
    """Postpones events that are about to be sent, so that other relays skip them."""
    return LEASE(event_ids=sorted(event_ids))


def mark_sent(event_ids: list[UUID]) -> Statement[Row]:
    """Records that the broker accepted events, which does not mean that they were consumed."""
    return MARK_SENT(event_ids=sorted(event_ids))


def mark_consumed(event_id: str, consumer: str) -> Statement[Row]:
    """Marks an event done if ``consumer`` is its last subscriber, in the consumer's transaction."""
    return MARK_CONSUMED(event_id=event_id, consumer=consumer)


def mark_done(event_ids: list[UUID]) -> Statement[Row]:
    """Marks events done that every subscriber has consumed."""
    return MARK_DONE(event_ids=sorted(event_ids))


def quarantine(event_ids: list[UUID]) -> Statement[Row]:
    """Stops sending these events: not consumed within a day, or no valid events."""
    return QUARANTINE(event_ids=event_ids)


def release(event_ids: list[UUID]) -> Statement[ReleasedEvent]:
    """Makes quarantined events due now; returns those that were quarantined."""
    return RELEASE(event_ids=event_ids)


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` events of no month that were done more than 30 days ago."""
    return DELETE_OLD(batch=batch)


def delete_quarantined(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` events of no month that were quarantined over 30 days ago."""
    return DELETE_QUARANTINED(batch=batch)
