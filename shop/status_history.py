"""The log of every status change: who moved what from where to where, and with which event."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

from events.records import frozen

if TYPE_CHECKING:
    from shop.adapters.db import Statement, Transaction

RECORD: LiteralString = """
insert into shop.transitions
  (entity, entity_id, order_id, from_status, to_status, event_id, actor)
select entity, entity_id, %(order_id)s::uuid, from_status, to_status, event_id, %(actor)s
from unnest(%(entities)s::text[], %(entity_ids)s::uuid[], %(froms)s::text[], %(tos)s::text[],
  %(event_ids)s::uuid[]) as t(entity, entity_id, from_status, to_status, event_id)
"""

RECORD_RESERVATIONS: LiteralString = """
insert into shop.transitions (entity, entity_id, order_id, from_status, to_status, actor)
select 'reservation', reservation_id, order_id, %(from_status)s, %(to_status)s, %(actor)s
from shop.reservations where order_id = %(order_id)s::uuid and status = %(to_status)s
order by product_id
returning entity_id
"""


@frozen
class StatusChange:
    """One status change of an order, a payment or a refund; ``event_id`` is what announced it."""

    entity: str
    entity_id: UUID
    from_status: str
    to_status: str
    event_id: UUID | None = None


def record(tx: Transaction, order_id: UUID, moves: list[StatusChange]) -> Statement:
    """The statement that logs moves of one order's story, in order."""
    return RECORD, {
        "order_id": order_id,
        "actor": tx.actor,
        "entities": [move.entity for move in moves],
        "entity_ids": [move.entity_id for move in moves],
        "froms": [move.from_status for move in moves],
        "tos": [move.to_status for move in moves],
        "event_ids": [move.event_id for move in moves],
    }


def record_reservations(
    tx: Transaction, order_id: UUID, *, from_status: str, to_status: str
) -> Statement:
    """The statement that logs the move of all of an order's reservations; they move together."""
    return RECORD_RESERVATIONS, {
        "order_id": order_id,
        "actor": tx.actor,
        "from_status": from_status,
        "to_status": to_status,
    }
