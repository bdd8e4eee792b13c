"""The JSON of the back office: rows in, documents of the HTTP contract out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shop.messaging import dead_letters

if TYPE_CHECKING:
    from shop.accounts import ManagedAccount, OpenSession
    from shop.messaging.dead_letters import Summary, Whole
    from shop.notes import Note
    from shop.operator_alerts import Alert
    from shop.orders.records import (
        DeliveryRecord,
        DisputeRecord,
        EventRecord,
        LineRecord,
        OrderRecord,
        PaymentRecord,
        PostingRecord,
        PriceLineRecord,
        RefundRecord,
        StatusChangeRecord,
    )
    from shop.orders.search import FoundOrder

Document = dict[str, object]


def found_order(row: FoundOrder) -> Document:
    """An order as it is listed."""
    return {
        "id": str(row.order_id),
        "userId": row.user_id,
        "status": row.status,
        "reason": row.reason,
        "totalAmount": row.total_minor,
        "currency": row.currency,
        "createdAt": _time(row.created_at),
    }


def order(row: OrderRecord) -> Document:
    """An order without what refers to it."""
    return {
        "id": str(row.order_id),
        "userId": row.user_id,
        "status": row.status,
        "reason": row.reason,
        "totalAmount": row.total_minor,
        "currency": row.currency,
        "paymentMethod": row.payment_method,
        "createdAt": _time(row.created_at),
        "updatedAt": _time(row.updated_at),
        "expiresAt": _time(row.expires_at),
    }


def line(row: LineRecord) -> Document:
    """A line at the price at which it was ordered, with the product's present name."""
    return {
        "productId": row.product_id,
        "productName": row.name,
        "quantity": row.qty,
        "unitPrice": row.unit_price_minor,
        "lineAmount": row.qty * row.unit_price_minor,
    }


def price_line(row: PriceLineRecord) -> Document:
    """A part of the total."""
    return {
        "kind": row.kind,
        "productId": row.product_id,
        "amount": row.amount_minor,
        "vatAmount": row.vat_minor,
        "vatPercent": row.vat_basis_points / 100,
    }


def payment(row: PaymentRecord) -> Document:
    """An attempt to collect the total."""
    return {
        "id": str(row.payment_id),
        "attempt": row.attempt,
        "status": row.status,
        "amount": row.amount_minor,
        "currency": row.currency,
        "paymentMethod": row.payment_method,
        "late": row.late,
        "providerKey": row.provider_key,
        "providerReference": row.provider_ref,
        "reservedForRefunds": row.refund_reserved_minor,
        "createdAt": _time(row.created_at),
        "updatedAt": _time(row.updated_at),
    }


def refund(row: RefundRecord) -> Document:
    """A refund; ``requestedBy`` is an operator's account."""
    return {
        "id": str(row.refund_id),
        "paymentId": str(row.payment_id),
        "status": row.status,
        "amount": row.amount_minor,
        "currency": row.currency,
        "reason": row.reason,
        "requestedBy": row.requested_by,
        "origin": row.origin,
        "means": row.means,
        "reference": row.reference,
        "restock": row.restock,
        "providerKey": row.provider_key,
        "createdAt": _time(row.created_at),
        "updatedAt": _time(row.updated_at),
    }


def dispute(row: DisputeRecord) -> Document:
    """A dispute about a payment."""
    return {
        "id": str(row.dispute_id),
        "paymentId": str(row.payment_id),
        "status": row.status,
        "amount": row.amount_minor,
        "currency": row.currency,
        "providerReference": row.provider_ref,
        "createdAt": _time(row.created_at),
        "updatedAt": _time(row.updated_at),
    }


def status_change(row: StatusChangeRecord) -> Document:
    """A status change, with the account or function that made it."""
    return {
        "at": _time(row.at),
        "entity": row.entity,
        "id": str(row.entity_id),
        "from": row.from_status,
        "to": row.to_status,
        "actor": row.actor,
        "eventId": None if row.event_id is None else str(row.event_id),
    }


def posting(row: PostingRecord) -> Document:
    """A posting of the ledger."""
    return {
        "seq": row.seq,
        "kind": row.kind,
        "sourceId": str(row.source_id),
        "debit": row.debit,
        "credit": row.credit,
        "amount": row.amount_minor,
        "currency": row.currency,
        "postedAt": _time(row.posted_at),
        "settledOn": None if row.settled_on is None else row.settled_on.isoformat(),
    }


def event(row: EventRecord, deliveries: Sequence[DeliveryRecord]) -> Document:
    """An event with its consumers, and when each consumed it."""
    return {
        "id": str(row.event_id),
        "type": row.type,
        "source": row.source,
        "traceparent": row.traceparent,
        "createdAt": _time(row.created_at),
        "sentAt": _time_or_none(row.sent_at),
        "doneAt": _time_or_none(row.done_at),
        "quarantinedAt": _time_or_none(row.parked_at),
        "deliveries": [
            {"consumer": each.consumer, "receivedAt": _time_or_none(each.received_at)}
            for each in deliveries
            if each.event_id == row.event_id
        ],
    }


def note(row: Note) -> Document:
    """A note, and the account of its author."""
    return {
        "id": str(row.note_id),
        "authorId": row.author_id,
        "text": row.text,
        "createdAt": _time(row.at),
    }


def customer(row: ManagedAccount) -> Document:
    """An account as support sees it."""
    return {
        "id": row.user_id,
        "email": row.email,
        "name": row.name,
        "role": row.role,
        "state": row.state,
        "language": row.language,
        "createdAt": _time(row.created_at),
    }


def session(row: OpenSession) -> Document:
    """An open session; ``renewedAt`` is when it last got a refresh token."""
    return {
        "id": str(row.session_id),
        "createdAt": _time(row.created_at),
        "renewedAt": _time(row.renewed_at),
        "expiresAt": _time(row.expires_at),
    }


def alert(row: Alert) -> Document:
    """An operator alert; ``note`` is what a person wrote who resolved it."""
    return {
        "id": str(row.alarm_id),
        "kind": row.kind,
        "subject": row.subject,
        "detail": row.detail,
        "raisedAt": _time(row.raised_at),
        "resolvedAt": _time_or_none(row.resolved_at),
        "note": row.note,
    }


def dead_letter(row: Summary) -> Document:
    """A dead letter without its event."""
    return {
        "id": str(row.dead_letter_id),
        "type": row.type,
        "subject": row.subject,
        "destination": row.destination,
        "errorCode": row.error_code,
        "receivedAt": _time(row.received_at),
        "replayedAt": _time_or_none(row.replayed_at),
        "droppedAt": _time_or_none(row.dropped_at),
    }


def whole_dead_letter(row: Whole) -> Document:
    """A dead letter with its event, whose bytes may be of no valid text."""
    response = dead_letters.response_of(row.error_data)
    return {
        **dead_letter(row),
        "eventId": row.event_id,
        "source": row.source,
        "response": response if isinstance(response, str) else json.dumps(response),
        "headers": row.headers,
        "body": row.body.decode("utf-8", "backslashreplace"),
        "droppedReason": row.dropped_reason,
    }


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()


def _time_or_none(time: datetime | None) -> str | None:
    return None if time is None else _time(time)
