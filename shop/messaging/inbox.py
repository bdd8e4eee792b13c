"""The inbox: each consumer claims an event once, in the transaction of the event's effect.

A row is kept for longer than its event can be accepted again: an event whose time is more than 24
hours ago is accepted only while it is a row of the outbox, and a provider sends its webhooks again
for at most 30 days.
"""

from __future__ import annotations

from shop.adapters.statements import Command, Query, Row, Statement

CLAIM = Query(
    Row,
    """
insert into shop.inbox (consumer, source, event_id, outcome)
values (%(consumer)s, %(source)s, %(event_id)s, 'taken')
on conflict do nothing
returning event_id
""",
)

# The ids of the provider's webhooks are not UUIDs, and so in no month's partition; a month is
# dropped as a whole (shop/partitions.py).
DELETE_OLD = Command(
    """
delete from shop.inbox where (consumer, source, event_id) in (
  select i.consumer, i.source, i.event_id from shop.inbox i
  where i.received_at < now() - interval '60 days'
    and (i.event_id < shop.uuid_at((select min(starts_at) from shop.months
        where table_name = 'inbox'))::text
      or i.event_id >= shop.uuid_at((select max(ends_at) from shop.months
        where table_name = 'inbox'))::text)
    and not exists (select from shop.outbox o where o.source = i.source and o.event_id =
      case when i.event_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
        then i.event_id::uuid end)
  limit %(batch)s)
"""
)


def claim(*, consumer: str, source: str, event_id: str) -> Statement[Row]:
    """Claims an event for a consumer; no row means that the consumer has claimed it before."""
    return CLAIM(consumer=consumer, source=source, event_id=event_id)


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` claims that are in no month's partition.

    They are of 60 days ago, and their events are in the outbox no more.
    """
    return DELETE_OLD(batch=batch)
