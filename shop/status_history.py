"""The history of every status change: from, to, by which actor and with which event.

Writer of ``transitions``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from events.records import frozen
from shop.adapters.statements import Command, Row, Statement

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.primitives.statuses import ReservationStatus, Status

Entity = Literal["order", "payment", "refund", "dispute", "shipment", "return"]

RECORD = Command(
    """
insert into shop.transitions
  (entity, entity_id, order_id, from_status, to_status, event_id, actor)
select entity, entity_id, %(order_id)s::uuid, from_status, to_status, event_id, %(actor)s
from unnest(%(entities)s::text[], %(entity_ids)s::uuid[], %(froms)s::text[], %(tos)s::text[],
  %(event_ids)s::uuid[]) as t(entity, entity_id, from_status, to_status, event_id)
"""
)

RECORD_RESERVATIONS = Command(
    """
insert into shop.transitions (entity, entity_id, order_id, from_status, to_status, actor)
select 'reservation', reservation_id, order_id, %(from_status)s, %(to_status)s, %(actor)s
from shop.reservations where order_id = %(order_id)s::uuid and status = %(to_status)s
order by product_id
"""
)


@frozen
class StatusChange:
    """One status change of a row of an order, and the event that announces it."""

    entity: Entity
    entity_id: UUID
    from_status: Status | Literal["-"]
    to_status: Status
    event_id: UUID | None = None

    def announced_by(self, event_id: UUID) -> StatusChange:
        """The same change with the event that announces it."""
        return replace(self, event_id=event_id)


def record(tx: Transaction, order_id: UUID, changes: list[StatusChange]) -> Statement[Row]:
    """Records status changes of one order's rows, in order."""
    return RECORD(
        order_id=order_id,
        actor=tx.actor,
        entities=[change.entity for change in changes],
        entity_ids=[change.entity_id for change in changes],
        froms=[change.from_status for change in changes],
        tos=[change.to_status for change in changes],
        event_ids=[change.event_id for change in changes],
    )


def record_reservations(
    tx: Transaction,
    order_id: UUID,
    *,
    from_status: ReservationStatus | Literal["-"],
    to_status: ReservationStatus,
) -> Statement[Row]:
    """Records the change of all reservations of an order, which change together."""
    return RECORD_RESERVATIONS(
        order_id=order_id, actor=tx.actor, from_status=from_status, to_status=to_status
    )
