"""The outbox: events that ride in the transaction which made them true.

A row is done when every subscriber's inbox holds it; until then it is due again and again.  Nothing
here is a queue: consumers read the rows of the order, an event only says "look".
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

from events.records import frozen
from shop.primitives.ids import new_uuid

if TYPE_CHECKING:
    from shop.adapters.db import Statement, Transaction

# What the clock moves on without a request tells the order's own story: its first trace.
INSERT: LiteralString = """
insert into shop.outbox
  (event_id, source, type, subject, order_id, data, traceparent, next_try_at)
select event_id, %(source)s, type, subject, order_id, data,
  coalesce(nullif(%(traceparent)s, ''), (select o.traceparent from shop.outbox o
    where o.order_id = e.order_id order by o.created_at, o.event_id limit 1), ''),
  now() + interval '5 seconds'
from unnest(%(event_ids)s::uuid[], %(types)s::text[], %(subjects)s::text[],
  %(order_ids)s::uuid[], %(data)s::jsonb[]) as e(event_id, type, subject, order_id, data)
returning event_id, created_at
"""

# A type without subscribers is done once it is sent.
MARK_SENT: LiteralString = """
update shop.outbox o set sent_at = coalesce(sent_at, now()), tries = tries + 1,
  next_try_at =
    now() + least(interval '10 seconds' * power(2, least(tries, 5)), interval '5 minutes'),
  done_at = case when exists (select from shop.subscriptions s where s.type = o.type)
    then done_at else now() end
where event_id = any(%(event_ids)s::uuid[]) and done_at is null
"""

# Two subscribers that commit at once may not see each other; the sweep then finds the row due.
# What was taken was sent, even when the publisher comes too late to say so.
MARK_CONSUMED: LiteralString = """
update shop.outbox o set done_at = now(), sent_at = coalesce(sent_at, now())
where event_id = %(event_id)s::uuid and done_at is null and not exists (
  select from shop.subscriptions s where s.type = o.type and s.consumer <> %(consumer)s
  and not exists (select from shop.inbox i where i.consumer = s.consumer
    and i.source = o.source and i.event_id = o.event_id::text))
"""

TAKE_DUE: LiteralString = """
select event_id, source, type, subject, order_id, data::text as data, traceparent, created_at,
  not exists (select from shop.subscriptions s where s.type = o.type
    and not exists (select from shop.inbox i where i.consumer = s.consumer
      and i.source = o.source and i.event_id = o.event_id::text))
    and (sent_at is not null or exists (select from shop.subscriptions s where s.type = o.type))
    as consumed,
  created_at < now() - interval '24 hours' as too_old
from shop.outbox o
where done_at is null and parked_at is null and next_try_at <= now()
order by next_try_at
for update skip locked
limit %(batch)s
"""

# Taken for sending: another relay leaves it alone for a while, a crash brings it back.
LEASE: LiteralString = """
update shop.outbox set next_try_at = now() + interval '10 seconds'
where event_id = any(%(event_ids)s::uuid[])
"""

MARK_DONE: LiteralString = """
update shop.outbox set done_at = now(), sent_at = coalesce(sent_at, now())
where event_id = any(%(event_ids)s::uuid[]) and done_at is null
"""

PARK: LiteralString = """
update shop.outbox set parked_at = now()
where event_id = any(%(event_ids)s::uuid[]) and parked_at is null
"""

FORGET: LiteralString = """
delete from shop.outbox where event_id in (
  select event_id from shop.outbox where done_at < now() - interval '30 days' limit %(batch)s)
"""


@frozen
class OutboxRow:
    """An announced event, as it will be published: id and time are the row's."""

    event_id: UUID
    source: str
    name: str
    subject: str
    data: str
    traceparent: str
    created_at: datetime | None = None


def emit(tx: Transaction, *events: Any) -> tuple[Statement, list[UUID]]:
    """The statement that announces ``events`` with this transaction, and the ids they will have.

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
    parameters = {
        "source": tx.source,
        "traceparent": tx.traceparent,
        "event_ids": [row.event_id for row in rows],
        "types": [row.name for row in rows],
        "subjects": [row.subject for row in rows],
        "order_ids": [getattr(event, "order_id", None) for event in events],
        "data": [row.data for row in rows],
    }
    return (INSERT, parameters), [row.event_id for row in rows]


def mark_sent(event_ids: list[UUID]) -> Statement:
    """The statement that notes a broker's acceptance; it says nothing about consumption."""
    return MARK_SENT, {"event_ids": event_ids}


def mark_consumed(event_id: str, consumer: str) -> Statement:
    """The statement that closes a row whose last subscriber is ``consumer``, in its transaction."""
    return MARK_CONSUMED, {"event_id": event_id, "consumer": consumer}
