"""The inbox: each consumer claims an event once, in the transaction of the event's effect."""

from __future__ import annotations

from shop.adapters.statements import Query, Row, Statement

CLAIM = Query(
    Row,
    """
insert into shop.inbox (consumer, source, event_id, outcome)
values (%(consumer)s, %(source)s, %(event_id)s, 'taken')
on conflict do nothing
returning event_id
""",
)


def claim(*, consumer: str, source: str, event_id: str) -> Statement[Row]:
    """Claims an event for a consumer; no row means that the consumer has claimed it before."""
    return CLAIM(consumer=consumer, source=source, event_id=event_id)
