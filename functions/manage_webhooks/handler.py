"""Manages webhooks and their deliveries for administrators; a tick sends what is due."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit
from uuid import UUID

from shop import audit_log, operator_alerts, webhooks
from shop.audit_log import Action, actor_of
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import check_if_match, require_if_match, tag_of_bytes
from shop.primitives.ids import first_uuid_at, new_uuid, parse_uuid
from shop.primitives.languages import Phrase
from shop.primitives.messages import Request, Response
from shop.primitives.statuses import DeliveryState, WebhookState
from shop.primitives.webhook_signatures import secret_of, written
from shop.webhooks import REDELIVERED_MAX, WEBHOOKS_MAX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from functions.manage_webhooks.schema import (
        ListDeliveries,
        NewWebhook,
        Range,
        Rotation,
        WebhookChange,
    )
    from shop.adapters.db import Transaction
    from shop.adapters.statements import Row, Statement
    from shop.runtime.config import Settings
    from shop.runtime.event_context import EventContext
    from shop.runtime.request_context import RequestContext
    from shop.webhooks import Attempt, Delivery, Webhook


def send_due(context: EventContext) -> None:
    """Sends events to webhooks until none is due or the time of one tick is over."""
    # imported here: requests to administrators' routes send nothing but tests
    from shop import webhook_sending

    webhook_sending.send_due(context)


def list_webhooks(_request: Request[None, None], context: RequestContext) -> Response:
    """200 with every webhook, oldest first."""
    return Response(200, [_represent(row) for row in context.tx.fetch_all(webhooks.list_all())])


def create_webhook(request: Request[NewWebhook, None], context: RequestContext) -> Response:
    """201 with the webhook and its secret, which is not stored and not shown again.

    409 for an address that has a webhook, and for one webhook too many.  The response is not kept
    for its idempotency key, since it has a secret: a repetition is 409.
    """
    tx, body = context.tx, request.body
    _check_scheme(body.url, context.settings)
    webhook_id = new_uuid()
    (counted,), created = tx.pipeline(
        webhooks.count(),
        webhooks.create(webhook_id, url=body.url, event_types=body.event_types),
    )
    if not created:
        raise _taken()
    if counted.rows >= WEBHOOKS_MAX:
        raise ClientError(
            409,
            "TOO_MANY_WEBHOOKS",
            Phrase("there are {count} webhooks already", count=WEBHOOKS_MAX),
        )
    after = {"host": urlsplit(body.url).netloc, "eventTypes": list(body.event_types)}
    (webhook,), _ = tx.pipeline(
        webhooks.read(webhook_id),
        audit_log.record(actor_of(request), Action.WEBHOOK_CREATED, webhook_id, after=after),
    )
    shown = {**_represent(webhook), "secret": _secret(webhook_id, 1, context.settings)}
    headers = {"etag": _etag_of(webhook), "location": f"/admin/webhooks/{webhook_id}"}
    return Response(201, shown, headers)


def read_webhook(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the webhook and its ETag, which a change must name."""
    return _response(_read(context.tx, request.path))


def change_webhook(request: Request[WebhookChange, None], context: RequestContext) -> Response:
    """200 with the webhook; 428 without If-Match, 412 when it names another state of it.

    409 when another webhook has the new address.  What waits for another try is due at once, if the
    webhook is active.  Closes the alert that the shop disabled it.  Four round trips, with BEGIN
    and COMMIT.
    """
    tx, body = context.tx, request.body
    webhook = _lock(tx, request)
    url = body.url or webhook.url
    _check_scheme(url, context.settings)
    types = list(body.event_types or webhook.event_types)
    state = WebhookState(body.state) if body.state else webhook.state
    changed, now, *_ = tx.pipeline(
        webhooks.change(webhook.webhook_id, url=url, event_types=types, state=state),
        webhooks.read(webhook.webhook_id),
        webhooks.hurry(webhook.webhook_id),
        _close_alert(webhook.webhook_id),
        audit_log.record(
            actor_of(request),
            Action.WEBHOOK_CHANGED,
            webhook.webhook_id,
            before=_audited(webhook.url, webhook.event_types, webhook.state),
            after=_audited(url, types, state),
        ),
    )
    if not changed:
        raise _taken()
    return _response(now[0])


def delete_webhook(request: Request[None, None], context: RequestContext) -> Response:
    """204; the log of its deliveries is kept for its time, though no route shows it.

    Closes the alert that the shop disabled it.
    """
    webhook = _read(context.tx, request.path)
    context.tx.pipeline(
        webhooks.delete(webhook.webhook_id),
        _close_alert(webhook.webhook_id),
        audit_log.record(
            actor_of(request),
            Action.WEBHOOK_DELETED,
            webhook.webhook_id,
            before=_audited(webhook.url, webhook.event_types, webhook.state),
        ),
    )
    return Response(204, None)


def rotate_secret(request: Request[Rotation, None], context: RequestContext) -> Response:
    """200 with a new secret, which is not shown again; the one before is valid for some hours.

    428 without If-Match, 412 when it names another state: so a repetition makes no third secret.
    """
    tx = context.tx
    webhook = _lock(tx, request)
    _, (now,), _ = tx.pipeline(
        webhooks.rotate(webhook.webhook_id, overlap_hours=request.body.overlap_hours),
        webhooks.read(webhook.webhook_id),
        audit_log.record(
            actor_of(request),
            Action.WEBHOOK_KEY_ROTATED,
            webhook.webhook_id,
            after={"overlapHours": request.body.overlap_hours},
        ),
    )
    shown = {
        "secret": _secret(now.webhook_id, now.secret_number, context.settings),
        "previousSecretValidUntil": _time(now.previous_secret_until),
    }
    return Response(200, shown, {"etag": _etag_of(now)})


def send_test(request: Request[None, None], context: RequestContext) -> Response:
    """200 with what the receiver responded to one message; also for a disabled webhook."""
    # imported here: only this route and ticks send
    import asyncio

    from shop import webhook_sending

    with context.transaction() as tx:
        webhook = _read(tx, request.path)
    head, reply = asyncio.run(webhook_sending.send_test(webhook, context.settings))
    return Response(
        200,
        {
            "delivered": reply.is_success,
            "status": reply.status,
            "error": reply.error,
            "milliseconds": reply.milliseconds,
            "requestHead": head,
            "responseHead": reply.head,
        },
    )


def list_deliveries(request: Request[None, ListDeliveries], context: RequestContext) -> Response:
    """200 with a page of deliveries, newest event first, and the next page in ``Link``."""
    query, webhook_id = request.query, _webhook_id(request.path)
    found, rows = context.tx.pipeline(
        webhooks.read(webhook_id),
        webhooks.deliveries(
            webhook_id,
            state=DeliveryState(query.state) if query.state else None,
            before=parse_uuid(query.cursor) if query.cursor else None,
            limit=query.limit + 1,
        ),
    )
    if not found:
        raise not_found("the webhook")
    page = rows[: query.limit]
    headers: dict[str, str] = {}
    if len(rows) > query.limit:
        given = query.model_dump(mode="json", exclude_none=True)
        parameters = urlencode(given | {"cursor": str(page[-1].event_id)})
        headers["link"] = f'</admin/webhooks/{webhook_id}/deliveries?{parameters}>; rel="next"'
    return Response(200, [_represent_delivery(row) for row in page], headers)


def read_delivery(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the delivery and its newest hundred attempts."""
    webhook_id, event_id = _webhook_id(request.path), _event_id(request.path)
    found, deliveries, attempts = context.tx.pipeline(
        webhooks.read(webhook_id),
        webhooks.delivery(webhook_id, event_id),
        webhooks.attempts(webhook_id, event_id),
    )
    if not found or not deliveries:
        raise not_found("the delivery")
    log = [_represent_attempt(attempt) for attempt in attempts]
    return Response(200, {**_represent_delivery(deliveries[0]), "log": log})


def redeliver(request: Request[None, None], context: RequestContext) -> Response:
    """202: the event will be sent again, for three days like a new one."""
    tx, event_id = context.tx, _event_id(request.path)
    webhook = _read(tx, request.path)
    scheduled, _ = tx.pipeline(
        webhooks.redeliver(webhook.webhook_id, event_id),
        audit_log.record(
            actor_of(request),
            Action.WEBHOOK_REDELIVERED,
            webhook.webhook_id,
            after={"eventId": str(event_id)},
        ),
    )
    if not scheduled:
        raise not_found("the delivery")
    return Response(202, None)


def redeliver_range(request: Request[Range, None], context: RequestContext) -> Response:
    """202 with the number of events that will be sent again: the failed and the missed ones.

    Missed are those that were stored while the webhook was not active or had other event types.
    """
    tx, body = context.tx, request.body
    webhook = _read(tx, request.path)
    (scheduled,), _ = tx.pipeline(
        webhooks.redeliver_range(
            webhook.webhook_id,
            first_id=first_uuid_at(body.from_time),
            end_id=first_uuid_at(body.to_time),
            with_delivered=body.include_delivered,
        ),
        audit_log.record(
            actor_of(request),
            Action.WEBHOOK_REDELIVERED,
            webhook.webhook_id,
            after={"from": body.from_time.isoformat(), "to": body.to_time.isoformat()},
        ),
    )
    shown = {
        "deliveries": scheduled.deliveries,
        "complete": scheduled.deliveries < REDELIVERED_MAX,
        "lastEventAt": _time(scheduled.last_at),
    }
    return Response(202, shown)


def _lock(
    tx: Transaction, request: Request[WebhookChange, None] | Request[Rotation, None]
) -> Webhook:
    """The webhook, locked; 428 without If-Match, 404 without a webhook, 412 for another state."""
    webhook_id = _webhook_id(request.path)
    if_match = require_if_match(request.headers.get("if-match"), "webhook")
    webhook = tx.fetch_one(webhooks.lock(webhook_id))
    if webhook is None:
        raise not_found("the webhook")
    check_if_match(if_match, _etag_of(webhook))
    return webhook


def _read(tx: Transaction, path: Mapping[str, str]) -> Webhook:
    webhook = tx.fetch_one(webhooks.read(_webhook_id(path)))
    if webhook is None:
        raise not_found("the webhook")
    return webhook


def _webhook_id(path: Mapping[str, str]) -> UUID:
    webhook_id = parse_uuid(path["webhookId"])
    if webhook_id is None:
        raise not_found("the webhook")
    return webhook_id


def _event_id(path: Mapping[str, str]) -> UUID:
    event_id = parse_uuid(path["eventId"])
    if event_id is None:
        raise not_found("the delivery")
    return event_id


def _check_scheme(url: str, settings: Settings) -> None:
    """422 for http, which would send orders in clear text, but in the local profile."""
    if settings.profile != "local" and not url.startswith("https:"):
        errors = [{"field": "url", "message": "must begin with https"}]
        raise ClientError(422, "INVALID", "url: must begin with https", extra={"errors": errors})


def _close_alert(webhook_id: UUID) -> Statement[Row]:
    """Closes the alert that the shop disabled a webhook: an administrator has decided about it."""
    return operator_alerts.resolve_about(webhooks.DISABLED_ALERT, [str(webhook_id)])


def _taken() -> ClientError:
    return ClientError(409, "URL_TAKEN", "there is a webhook with this address")


def _etag_of(webhook: Webhook) -> str:
    """Changes with what administrators change, and with the secret; not with the receiver."""
    state = (webhook.url, webhook.event_types, webhook.state.value, webhook.secret_number)
    return tag_of_bytes(repr(state).encode())


def _secret(webhook_id: UUID, number: int, settings: Settings) -> str:
    return written(secret_of(webhook_id, number, settings.webhook_key.reveal()))


def _audited(url: str, event_types: list[str], state: WebhookState) -> dict[str, object]:
    """Without the path, which some receivers use as a secret."""
    return {"host": urlsplit(url).netloc, "eventTypes": event_types, "state": state}


def _response(webhook: Webhook) -> Response:
    return Response(200, _represent(webhook), {"etag": _etag_of(webhook)})


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None


def _represent(webhook: Webhook) -> dict[str, object]:
    return {
        "id": str(webhook.webhook_id),
        "url": webhook.url,
        "eventTypes": webhook.event_types,
        "state": webhook.state,
        "disabledBy": webhook.disabled_by,
        "failingSince": _time(webhook.failing_since),
        "previousSecretValidUntil": _time(webhook.previous_secret_until),
        "createdAt": _time(webhook.created_at),
    }


def _represent_delivery(delivery: Delivery) -> dict[str, object]:
    is_pending = delivery.state == DeliveryState.PENDING
    return {
        "eventId": str(delivery.event_id),
        "type": delivery.type,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "createdAt": _time(delivery.created_at),
        "nextTryAt": _time(delivery.next_try_at) if is_pending else None,
        "deliveredAt": _time(delivery.delivered_at),
    }


def _represent_attempt(attempt: Attempt) -> dict[str, object]:
    return {
        "number": attempt.number,
        "at": _time(attempt.at),
        "milliseconds": attempt.milliseconds,
        "status": attempt.status,
        "error": attempt.error,
        "requestHead": attempt.request_head,
        "responseHead": attempt.response_head,
    }
