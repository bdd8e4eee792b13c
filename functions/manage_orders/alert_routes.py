"""Operator alerts and dead letters: routes of ``handler.py``.

Operators resolve alerts with a note of what was done; administrators drop events that will never be
processed.  Each write has an entry in the audit log.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from functions.manage_orders import representation as represent
from shop import audit_log, operator_alerts
from shop.audit_log import Action, actor_of
from shop.messaging import dead_letters
from shop.primitives.errors import ClientError, not_found
from shop.primitives.ids import parse_uuid
from shop.primitives.messages import Request, Response
from shop.primitives.paging import next_page

if TYPE_CHECKING:
    from functions.manage_orders.schema import DropReason, ListAlerts, ListDeadLetters, Resolution
    from shop.runtime.request_context import RequestContext


def list_alerts(request: Request[None, ListAlerts], context: RequestContext) -> Response:
    """200 with a page of alerts: open ones, newest first, or those resolved last."""
    query = request.query
    before = parse_uuid(query.cursor) if query.cursor else None
    is_open = query.state == "OPEN"
    rows = context.tx.fetch_all(
        operator_alerts.page(is_open=is_open, before=before, limit=query.limit + 1)
    )
    body = [represent.alert(row) for row in rows[: query.limit]]
    if len(rows) <= query.limit:
        return Response(200, body)
    last = rows[query.limit - 1].alarm_id
    parameters = {"state": query.state, "limit": query.limit, "cursor": last}
    return Response(200, body, next_page("/admin/alerts", parameters))


def resolve_alert(request: Request[Resolution, None], context: RequestContext) -> Response:
    """200 with the alert, resolved; 404 when there is none, 409 ALERT_RESOLVED repeatedly.

    Afterwards an alert of the same kind and subject can be raised again.
    """
    tx, alert_id = context.tx, _id_of(request.path, "alertId", "the alert")
    resolved = tx.fetch_one(operator_alerts.resolve_with_note(alert_id, request.body.note))
    if resolved is None:
        if tx.fetch_one(operator_alerts.read(alert_id)) is None:
            raise not_found("the alert")
        raise ClientError(409, "ALERT_RESOLVED", "the alert is resolved already")
    after = {"kind": resolved.kind, "subject": resolved.subject}
    tx.execute(audit_log.record(actor_of(request), Action.ALERT_RESOLVED, alert_id, after=after))
    return Response(200, represent.alert(resolved))


def list_dead_letters(request: Request[None, ListDeadLetters], context: RequestContext) -> Response:
    """200 with a page of dead letters, newest first."""
    query = request.query
    before = parse_uuid(query.cursor) if query.cursor else None
    is_open = query.state == "OPEN"
    rows = context.tx.fetch_all(
        dead_letters.page(is_open=is_open, before=before, limit=query.limit + 1)
    )
    body = [represent.dead_letter(row) for row in rows[: query.limit]]
    if len(rows) <= query.limit:
        return Response(200, body)
    last = rows[query.limit - 1].dead_letter_id
    parameters = {"state": query.state, "limit": query.limit, "cursor": last}
    return Response(200, body, next_page("/admin/dead-letters", parameters))


def read_dead_letter(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the event as it was received, and what its consumer responded."""
    letter_id = _id_of(request.path, "deadLetterId", "the dead letter")
    letter = context.tx.fetch_one(dead_letters.read(letter_id))
    if letter is None:
        raise not_found("the dead letter")
    return Response(200, represent.whole_dead_letter(letter))


def drop_dead_letter(request: Request[DropReason, None], context: RequestContext) -> Response:
    """200 with the dead letter, closed; 404 when there is none, 409 DEAD_LETTER_CLOSED repeatedly.

    The alert about its event is resolved with the last open letter.
    """
    tx, letter_id = context.tx, _id_of(request.path, "deadLetterId", "the dead letter")
    closed = tx.fetch_one(dead_letters.drop([letter_id], request.body.reason))
    letter = tx.fetch_one(dead_letters.read(letter_id))
    if letter is None:
        raise not_found("the dead letter")
    if closed is None:
        message = "the dead letter was replayed or dropped"
        raise ClientError(409, "DEAD_LETTER_CLOSED", message)
    after = {"type": letter.type, "eventId": letter.event_id}
    tx.pipeline(
        operator_alerts.resolve_closed([closed.name]),
        audit_log.record(actor_of(request), Action.DEAD_LETTER_DROPPED, letter_id, after=after),
    )
    return Response(200, represent.whole_dead_letter(letter))


def _id_of(path: Mapping[str, str], name: str, thing: str) -> UUID:
    found = parse_uuid(path[name])
    if found is None:
        raise not_found(thing)
    return found
