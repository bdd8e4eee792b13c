"""The inbox: each consumer takes each event once, in the transaction of the effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from shop.adapters.db import Statement

CLAIM: LiteralString = """
insert into shop.inbox (consumer, source, event_id, outcome)
values (%(consumer)s, %(source)s, %(event_id)s, 'taken')
on conflict do nothing
returning event_id
"""


def claim(*, consumer: str, source: str, event_id: str) -> Statement:
    """The statement that takes an event; no row back means it was taken before."""
    return CLAIM, {"consumer": consumer, "source": source, "event_id": event_id}
