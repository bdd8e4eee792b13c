"""Sends events to webhooks: what is due, to all webhooks at once, each independent of the others.

Each webhook has a task of its own with at most ``CONCURRENCY`` open requests, so that a receiver
that does not respond delays nothing but its own deliveries.  A delivery may arrive twice: after a
crash between a response and its record it is sent again with the same ``webhook-id``.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

from events import envelope, strict_json
from events.vocabulary import class_of
from shop import operator_alerts, webhooks
from shop.adapters import db
from shop.orders import queries
from shop.primitives.errors import Unavailable
from shop.primitives.ids import new_uuid
from shop.primitives.statuses import DeliveryState, DisabledBy, WebhookState
from shop.primitives.webhook_signatures import headers_of, secret_of
from shop.runtime import webhook_client
from shop.runtime.webhook_client import DeliveryError, NotReachable, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shop.adapters.db import Transaction
    from shop.adapters.statements import Row, Statement
    from shop.orders.queries import OrderView
    from shop.runtime.config import Settings
    from shop.runtime.event_context import EventContext
    from shop.webhooks import ClaimedWebhook, DueDelivery, Webhook

TICK_SECONDS = 15.0
BATCH = 16
CONCURRENCY = 8
GONE = 410
STUCK = "stuck_webhook"
USER_AGENT = "msa-shop-webhooks/1"
TEST_TYPE = "com.msashop.webhook.test.v1"
SOURCE = "/shop/manage_webhooks"
# of the order as its owner sees it, what says who the owner is or how they pay
LEFT_OUT = ("userId", "paymentMethod")

Outcome = dict[str, object]


def send_due(context: EventContext) -> None:
    """Sends what is due until nothing is, or the time of one tick is over."""
    with context.transaction() as tx:
        due = tx.fetch_all(webhooks.due())
    if not due:
        return
    sender = _Sender(context, ends_by=time.monotonic() + TICK_SECONDS)
    ids = [UUID(row.id) for row in due]
    executor = ThreadPoolExecutor(len(ids))
    try:
        failures = asyncio.run(sender.send_to_all(ids, executor))
    finally:
        # a resolver that does not respond keeps its thread and delays no tick
        executor.shutdown(wait=False, cancel_futures=True)
    for webhook_id, failure in failures:
        _report(context, webhook_id, failure)


async def send_test(webhook: Webhook, settings: Settings) -> tuple[str, Reply]:
    """Sends one message of the type ``TEST_TYPE``, which no event causes; the request's head too.

    It is signed as events are, and neither stored nor repeated.
    """
    message_id, data = str(new_uuid()), {"webhookId": str(webhook.webhook_id)}
    document = {
        "specversion": "1.0",
        "id": message_id,
        "source": SOURCE,
        "type": TEST_TYPE,
        "datacontenttype": envelope.JSON,
        "data": data,
    }
    key = settings.webhook_key.reveal()
    secrets = [secret_of(webhook.webhook_id, webhook.secret_number, key)]
    executor = ThreadPoolExecutor(1)
    try:
        receiver = await _Receiver.find(webhook.url, secrets, settings, executor)
        return await receiver.post(message_id, strict_json.write(document))
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def represent(order: OrderView) -> dict[str, object]:
    """The order as its owner sees it, without what is personal."""
    return {name: value for name, value in queries.represent(order).items() if name not in LEFT_OUT}


def document_of(delivery: DueDelivery, order: dict[str, object]) -> bytes:
    """The event in CloudEvents' JSON format; to its data the order is added, as it is now."""
    event = envelope.CloudEvent(
        id=str(delivery.event_id),
        source=delivery.source,
        type=class_of(delivery.type).type,
        subject=delivery.subject,
        time=delivery.occurred_at,
        data=strict_json.write({**json.loads(delivery.data), "order": order}),
    )
    return envelope.to_structured(event)[1]


class _Receiver:
    """Where a webhook's messages go in this run, and what signs them."""

    def __init__(
        self, url: str, secrets: Sequence[bytes], found: Sequence[str] | DeliveryError
    ) -> None:
        self._url = url
        self._secrets = secrets
        self._found = found
        self._tls = ssl.create_default_context() if url.startswith("https:") else None
        self._free = asyncio.Semaphore(CONCURRENCY)

    @classmethod
    async def find(
        cls,
        url: str,
        secrets: Sequence[bytes],
        settings: Settings,
        executor: ThreadPoolExecutor,
    ) -> _Receiver:
        """Resolves the name, once for all messages of the run."""
        networks = webhook_client.parse_networks(settings.webhook_networks_allowed)
        try:
            return cls(url, secrets, await webhook_client.resolve(url, networks, executor))
        except NotReachable as error:
            return cls(url, secrets, error.reason)

    async def post(self, message_id: str, body: bytes) -> tuple[str, Reply]:
        """Sends one message when a request may be opened; the head to log, and the reply."""
        async with self._free:
            signed = headers_of(message_id, int(time.time()), body, self._secrets)
            headers = {
                "content-type": envelope.STRUCTURED,
                "user-agent": USER_AGENT,
                **signed,
            }
            head = webhook_client.head_of(self._url, headers, body)
            # who reads the log could send the message again while its time is accepted
            logged = head.replace(signed["webhook-signature"], "v1,***")
            if isinstance(self._found, DeliveryError):
                return logged, Reply(error=self._found)
            reply = await webhook_client.post(self._url, self._found, head, body, context=self._tls)
            return logged, reply


class _Sender:
    """The tasks of one tick."""

    def __init__(self, context: EventContext, *, ends_by: float) -> None:
        self._context = context
        self._ends_by = ends_by

    async def send_to_all(
        self, ids: list[UUID], executor: ThreadPoolExecutor
    ) -> list[tuple[UUID, Exception]]:
        """Sends to these webhooks at once; the failures that are not their receivers'."""
        tasks = (self._send_to(webhook_id, executor) for webhook_id in ids)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [
            (webhook_id, result)
            for webhook_id, result in zip(ids, results, strict=True)
            if isinstance(result, Exception)
        ]

    async def _send_to(self, webhook_id: UUID, executor: ThreadPoolExecutor) -> None:
        with self._context.transaction() as tx:
            webhook = tx.fetch_one(webhooks.claim(webhook_id))
        if webhook is None:
            return
        settings = self._context.settings
        receiver = await _Receiver.find(
            webhook.url, _secrets(webhook, settings), settings, executor
        )
        # a receiver that failed gets one message, and the others once it responds well
        failed_runs, has_more = webhook.failed_runs, True
        while has_more and time.monotonic() < self._ends_by:
            has_more = await self._send_batch(webhook, receiver, failed_runs)
            failed_runs = 0

    async def _send_batch(
        self, webhook: ClaimedWebhook, receiver: _Receiver, failed_runs: int
    ) -> bool:
        """Sends a batch and records what became of it; whether there may be more to send now."""
        batch = 1 if failed_runs else BATCH
        with self._context.transaction() as tx:
            taken = tx.fetch_all(webhooks.take(webhook.webhook_id, batch))
            due = [row for row in taken if row.source]
            found = tx.fetch_all(queries.orders_by_id([row.order_id for row in due]))
            if len(due) < len(taken):
                deleted = [row.event_id for row in taken if not row.source]
                tx.execute(webhooks.abandon(webhook.webhook_id, deleted))
        orders = {order.order_id: represent(order) for order in found}
        posts = (
            receiver.post(str(row.event_id), document_of(row, orders[row.order_id])) for row in due
        )
        replies = await asyncio.gather(*posts)
        outcomes = [_outcome(row, *reply) for row, reply in zip(due, replies, strict=True)]
        is_gone = any(reply.status == GONE for _, reply in replies)
        has_more = len(taken) == batch and time.monotonic() < self._ends_by
        with self._context.transaction() as tx:
            tx.execute(webhooks.record(webhook.webhook_id, outcomes))
            if is_gone:
                _disable(tx, webhook.webhook_id)
            elif due and not any(reply.is_success for _, reply in replies):
                has_more = False
                hours_max = self._context.settings.webhook_failing_hours_max
                _fail(tx, webhook.webhook_id, failed_runs, hours_max)
            else:
                _succeed(tx, webhook.webhook_id, failed_runs, has_more=has_more)
        return has_more and not is_gone


def _disable(tx: Transaction, webhook_id: UUID) -> None:
    tx.pipeline(
        webhooks.disable(webhook_id, by=DisabledBy.GONE),
        _alert(webhook_id, "its receiver responds 410 Gone"),
    )


def _fail(tx: Transaction, webhook_id: UUID, failed_runs: int, hours_max: int) -> None:
    ended = tx.fetch_one(webhooks.fail(webhook_id, failed_runs=failed_runs, hours_max=hours_max))
    if ended is not None and ended.state == WebhookState.DISABLED:
        tx.execute(_alert(webhook_id, f"nothing was delivered for {hours_max} hours"))


def _succeed(tx: Transaction, webhook_id: UUID, failed_runs: int, *, has_more: bool) -> None:
    if failed_runs:
        tx.execute(webhooks.hurry(webhook_id))
    tx.execute(webhooks.succeed(webhook_id, has_more=has_more or bool(failed_runs)))


def _secrets(webhook: ClaimedWebhook, settings: Settings) -> list[bytes]:
    """The present secret, and until the end of a rotation also the one before."""
    key = settings.webhook_key.reveal()
    numbers = [webhook.secret_number]
    if webhook.has_previous_secret:
        numbers.append(webhook.secret_number - 1)
    return [secret_of(webhook.webhook_id, number, key) for number in numbers]


def _outcome(delivery: DueDelivery, head: str, reply: Reply) -> Outcome:
    """What is recorded: delivered with a 2xx, failed after 410 or three days, else tried again."""
    retry = webhooks.retry_seconds(delivery.tries + 1, delivery.age_seconds)
    state = DeliveryState.PENDING
    if reply.is_success:
        state = DeliveryState.DELIVERED
    elif retry is None or reply.status == GONE:
        state = DeliveryState.FAILED
    return {
        "event_id": str(delivery.event_id),
        "state": state,
        "retry_seconds": retry or 0,
        "milliseconds": reply.milliseconds,
        "status": reply.status,
        "error": reply.error,
        "request_head": head[: webhook_client.LOGGED_CHARACTERS_MAX],
        "response_head": reply.head,
    }


def _alert(webhook_id: UUID, detail: str) -> Statement[Row]:
    return operator_alerts.raise_alert(
        kind=webhooks.DISABLED_ALERT, subject=str(webhook_id), detail=detail
    )


def _report(context: EventContext, webhook_id: UUID, failure: Exception) -> None:
    """Logs a failure that no receiver caused; an operator is alerted when a row is its cause."""
    name = f"webhook {webhook_id}"

    def fail() -> None:
        raise failure

    try:
        if isinstance(found := context.attempt(name, fail), Exception):
            with context.transaction() as tx:
                tx.execute(operator_alerts.about_failure(STUCK, str(webhook_id), found))
    except (Unavailable, *db.UNAVAILABLE_ERRORS) as error:
        context.log_postponed(name, error)
