"""Webhooks, and the deliveries of events to them.

Writer of ``webhooks``, ``webhook_deliveries`` and ``webhook_attempts``.  A trigger on ``outbox``
adds a delivery for each event and each webhook that is active when the event is stored, in the
transaction of the event: so there is exactly one, and none is lost.

One process at a time sends to a webhook: ``claim`` postpones its next run for as long as a batch
may take, which also limits how many requests its receiver gets at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement, enum_column
from shop.primitives.statuses import DeliveryState, DisabledBy, WebhookState

if TYPE_CHECKING:
    from collections.abc import Iterable

WEBHOOKS_MAX = 50
URL_LENGTH_MAX = 500
# Events of orders but for those that request work of the shop; a test compares with their classes.
EVENT_TYPES = (
    "order.paid",
    "order.cancelling",
    "order.cancelled",
    "order.refunded",
    "payment.captured",
    "payment.declined",
    "refund.succeeded",
    "refund.rejected",
    "shipment.created",
    "shipment.shipped",
    "shipment.delivered",
    "return.requested",
    "return.approved",
    "return.rejected",
    "return.received",
)
# How long after an attempt the next one is due; the last value is repeated until GIVE_UP_SECONDS
# after the event, or after it was scheduled again.
RETRY_SECONDS = (60, 300, 1800, 7200, 18_000, 36_000)
GIVE_UP_SECONDS = 3 * 24 * 3600
# While nothing reaches a receiver, it is tried with one delivery at a time, at these intervals.
PAUSE_SECONDS = (60, 120, 240, 480, 900)
# longer than a batch takes at most
LEASE_SECONDS = 60
REDELIVERED_MAX = 10_000
# raised when the shop disables a webhook, closed when an administrator changes or deletes it
DISABLED_ALERT = "webhook_disabled"


class Webhook(Row):
    """A webhook as administrators see it."""

    webhook_id: UUID
    url: str
    event_types: list[str]
    state: WebhookState = enum_column(WebhookState)
    disabled_by: str | None
    secret_number: int
    previous_secret_until: datetime | None
    created_at: datetime
    failing_since: datetime | None


class Count(Row):
    """A number of rows."""

    rows: int


class DueWebhook(Row):
    """The id of a webhook with a delivery that is due."""

    id: str


class ClaimedWebhook(Row):
    """A webhook to which this process sends; ``failed_runs`` is 0 unless its receiver fails."""

    webhook_id: UUID
    url: str
    secret_number: int
    has_previous_secret: bool
    failed_runs: int


class DueDelivery(Row):
    """An event that is to be sent now; without a source it has been deleted since."""

    event_id: UUID
    type: str
    source: str
    subject: str
    data: str
    occurred_at: datetime
    order_id: UUID
    tries: int
    age_seconds: int


class Delivery(Row):
    """The delivery of one event to one webhook."""

    event_id: UUID
    type: str
    state: DeliveryState = enum_column(DeliveryState)
    created_at: datetime
    next_try_at: datetime
    delivered_at: datetime | None
    attempts: int


class Attempt(Row):
    """One request; without a status, ``error`` says why there was no response."""

    number: int
    at: datetime
    milliseconds: int
    status: int | None
    error: str | None
    request_head: str
    response_head: str


class EndedRun(Row):
    """The state of a webhook after a run."""

    state: WebhookState = enum_column(WebhookState)


class Redelivered(Row):
    """How many deliveries were scheduled again, and when the last of their events happened."""

    deliveries: int
    last_at: datetime | None


LIST = Query(
    Webhook,
    """
select webhook_id, url, event_types, state, disabled_by, secret_number, previous_secret_until,
  created_at, failing_since
from shop.webhooks where state <> 'DELETED' order by webhook_id limit 50
""",
)

READ = Query(
    Webhook,
    """
select webhook_id, url, event_types, state, disabled_by, secret_number, previous_secret_until,
  created_at, failing_since
from shop.webhooks where webhook_id = %(webhook_id)s::uuid and state <> 'DELETED'
""",
)

LOCK = Query(
    Webhook,
    """
select webhook_id, url, event_types, state, disabled_by, secret_number, previous_secret_until,
  created_at, failing_since
from shop.webhooks where webhook_id = %(webhook_id)s::uuid and state <> 'DELETED' for update
""",
)

COUNT = Query(Count, "select count(*) as rows from shop.webhooks where state <> 'DELETED'")

CREATE = Query(
    Row,
    """
insert into shop.webhooks (webhook_id, url, event_types)
values (%(webhook_id)s::uuid, %(url)s, %(event_types)s::text[])
on conflict (url) where state <> 'DELETED' do nothing
returning webhook_id
""",
)

# An event that is stored while this is committed may or may not be delivered.
CHANGE = Query(
    Row,
    """
update shop.webhooks w set url = %(url)s, event_types = %(event_types)s::text[],
  state = %(state)s, disabled_by = %(disabled_by)s, active_since = now(),
  failing_since = null, failed_runs = 0, next_run_at = now()
where webhook_id = %(webhook_id)s::uuid and not exists (select from shop.webhooks o
  where o.url = %(url)s and o.state <> 'DELETED' and o.webhook_id <> w.webhook_id)
returning webhook_id
""",
)

ROTATE = Command(
    """
update shop.webhooks set secret_number = secret_number + 1,
  previous_secret_until = now() + make_interval(hours => %(hours)s::int)
where webhook_id = %(webhook_id)s::uuid
"""
)

DELETE = Command(
    """
update shop.webhooks set state = 'DELETED', disabled_by = null
where webhook_id = %(webhook_id)s::uuid
"""
)

DUE = Query(
    DueWebhook,
    """
select id from shop.due_work where kind = 'webhook' and due_at <= now() order by due_at limit 50
""",
)

CLAIM = Query(
    ClaimedWebhook,
    """
update shop.webhooks set next_run_at = now() + make_interval(secs => %(lease_seconds)s)
where webhook_id = %(webhook_id)s::uuid and state = 'ACTIVE' and next_run_at <= now()
returning webhook_id, url, secret_number,
  coalesce(previous_secret_until > now(), false) as has_previous_secret, failed_runs
""",
)

TAKE = Query(
    DueDelivery,
    """
select d.event_id, d.type, coalesce(o.source, '') as source, o.subject, o.data::text as data,
  o.created_at as occurred_at, o.order_id, d.tries,
  extract(epoch from now() - d.scheduled_at)::int as age_seconds
from shop.webhook_deliveries d left join shop.outbox o using (event_id)
where d.webhook_id = %(webhook_id)s::uuid and d.state = 'PENDING' and d.next_try_at <= now()
order by d.next_try_at limit %(batch)s
""",
)

# Of an event that was deleted while its webhook was disabled.
ABANDON = Command(
    """
update shop.webhook_deliveries set state = 'FAILED'
where webhook_id = %(webhook_id)s::uuid and event_id = any(%(event_ids)s::uuid[])
  and state = 'PENDING'
"""
)

# What another process has delivered since is not recorded again.  Deliveries are locked in
# ascending event id, as by a redelivery.
RECORD = Command(
    """
with outcome as (select * from jsonb_to_recordset(%(outcomes)s::jsonb) as o(event_id uuid,
    state text, retry_seconds int, milliseconds int, status smallint, error text,
    request_head text, response_head text)),
locked as materialized (select d.event_id from shop.webhook_deliveries d
  where d.webhook_id = %(webhook_id)s::uuid and d.event_id in (select event_id from outcome)
    and d.state = 'PENDING'
  order by d.event_id for update),
recorded as (update shop.webhook_deliveries d set state = o.state, tries = d.tries + 1,
    attempts = d.attempts + 1, next_try_at = now() + make_interval(secs => o.retry_seconds),
    delivered_at = case when o.state = 'DELIVERED' then now() end
  from outcome o join locked using (event_id)
  where d.webhook_id = %(webhook_id)s::uuid and d.event_id = o.event_id
  returning d.event_id, d.attempts)
insert into shop.webhook_attempts (webhook_id, event_id, number, milliseconds, status, error,
  request_head, response_head)
select %(webhook_id)s::uuid, r.event_id, r.attempts, o.milliseconds, o.status, o.error,
  o.request_head, o.response_head
from recorded r join outcome o using (event_id)
"""
)

# A receiver that works again gets at once what waits for another try.
HURRY = Command(
    """
with waiting as materialized (select event_id from shop.webhook_deliveries
  where webhook_id = %(webhook_id)s::uuid and state = 'PENDING' and next_try_at > now()
  order by event_id for update)
update shop.webhook_deliveries d set next_try_at = now() from waiting
where d.webhook_id = %(webhook_id)s::uuid and d.event_id = waiting.event_id
"""
)

SUCCEED = Command(
    """
update shop.webhooks set failing_since = null, failed_runs = 0,
  next_run_at = now() + make_interval(secs => %(seconds)s)
where webhook_id = %(webhook_id)s::uuid and state = 'ACTIVE'
"""
)

FAIL = Query(
    EndedRun,
    """
update shop.webhooks set failing_since = coalesce(failing_since, now()),
  failed_runs = failed_runs + 1, next_run_at = now() + make_interval(secs => %(seconds)s),
  state = case when failing_since <= now() - make_interval(hours => %(hours_max)s::int)
    then 'DISABLED' else state end,
  disabled_by = case when failing_since <= now() - make_interval(hours => %(hours_max)s::int)
    then 'FAILING' end
where webhook_id = %(webhook_id)s::uuid and state = 'ACTIVE'
returning state
""",
)

DISABLE = Query(
    Row,
    """
update shop.webhooks set state = 'DISABLED', disabled_by = %(disabled_by)s
where webhook_id = %(webhook_id)s::uuid and state = 'ACTIVE'
returning webhook_id
""",
)

DELIVERIES = Query(
    Delivery,
    """
select event_id, type, state, created_at, next_try_at, delivered_at, attempts
from shop.webhook_deliveries
where webhook_id = %(webhook_id)s::uuid and (%(state)s::text is null or state = %(state)s)
  and (%(before)s::uuid is null or event_id < %(before)s)
order by event_id desc limit %(limit)s::int
""",
)

DELIVERY = Query(
    Delivery,
    """
select event_id, type, state, created_at, next_try_at, delivered_at, attempts
from shop.webhook_deliveries
where webhook_id = %(webhook_id)s::uuid and event_id = %(event_id)s::uuid
""",
)

ATTEMPTS = Query(
    Attempt,
    """
select number, at, milliseconds, status, error, request_head, response_head
from shop.webhook_attempts
where webhook_id = %(webhook_id)s::uuid and event_id = %(event_id)s::uuid
order by number desc limit 100
""",
)

REDELIVER = Query(
    Row,
    """
update shop.webhook_deliveries set state = 'PENDING', scheduled_at = now(), next_try_at = now(),
  delivered_at = null, tries = 0
where webhook_id = %(webhook_id)s::uuid and event_id = %(event_id)s::uuid
returning event_id
""",
)

# Also the events of the range that were stored while the webhook was not active.
REDELIVER_RANGE = Query(
    Redelivered,
    """
with chosen as (
  select o.event_id, o.type, o.created_at
  from shop.webhooks w join shop.outbox o on o.type = any(w.event_types)
  left join shop.webhook_deliveries d
    on d.webhook_id = w.webhook_id and d.event_id = o.event_id
  where w.webhook_id = %(webhook_id)s::uuid
    and o.event_id >= %(first_id)s::uuid and o.event_id < %(end_id)s::uuid
    and (d.state is null or d.state = 'FAILED' or d.state = 'DELIVERED' and %(with_delivered)s)
  order by o.event_id limit %(limit)s),
scheduled as (
  insert into shop.webhook_deliveries as d (webhook_id, event_id, type)
  select %(webhook_id)s::uuid, event_id, type from chosen
  on conflict (webhook_id, event_id) do update
    set state = 'PENDING', scheduled_at = now(), next_try_at = now(), delivered_at = null,
      tries = 0)
select count(*)::int as deliveries, max(created_at) as last_at from chosen
""",
)

# Skips what is being sent again or recorded at the moment.
DELETE_OLD = Command(
    """
delete from shop.webhook_deliveries where (webhook_id, event_id) in (
  select webhook_id, event_id from shop.webhook_deliveries
  where created_at < now() - shop.retention('webhook_deliveries')
  for update skip locked limit %(batch)s)
"""
)


def list_all() -> Statement[Webhook]:
    """Every webhook that is not deleted, oldest first."""
    return LIST()


def read(webhook_id: UUID) -> Statement[Webhook]:
    """One webhook; no row when it is deleted."""
    return READ(webhook_id=webhook_id)


def lock(webhook_id: UUID) -> Statement[Webhook]:
    """One webhook, locked until the end of the transaction."""
    return LOCK(webhook_id=webhook_id)


def count() -> Statement[Count]:
    """The number of webhooks that are not deleted."""
    return COUNT()


def create(webhook_id: UUID, *, url: str, event_types: Sequence[str]) -> Statement[Row]:
    """Adds a webhook; no row when there is one with this address."""
    return CREATE(webhook_id=webhook_id, url=url, event_types=list(event_types))


def change(
    webhook_id: UUID, *, url: str, event_types: Sequence[str], state: WebhookState
) -> Statement[Row]:
    """Changes a webhook; no row when another one has this address."""
    is_disabled = state == WebhookState.DISABLED
    return CHANGE(
        webhook_id=webhook_id,
        url=url,
        event_types=list(event_types),
        state=state,
        disabled_by=DisabledBy.ADMINISTRATOR if is_disabled else None,
    )


def rotate(webhook_id: UUID, *, overlap_hours: int) -> Statement[Row]:
    """Makes the next secret valid; the one before stays valid for a time."""
    return ROTATE(webhook_id=webhook_id, hours=overlap_hours)


def delete(webhook_id: UUID) -> Statement[Row]:
    """Deletes a webhook; what was delivered to it stays for its time."""
    return DELETE(webhook_id=webhook_id)


def due() -> Statement[DueWebhook]:
    """The webhooks with deliveries that are due, those that wait longest first."""
    return DUE()


def claim(webhook_id: UUID) -> Statement[ClaimedWebhook]:
    """Keeps other processes from sending to a webhook; no row when one does, or it is not due."""
    return CLAIM(webhook_id=webhook_id, lease_seconds=LEASE_SECONDS)


def take(webhook_id: UUID, batch: int) -> Statement[DueDelivery]:
    """At most ``batch`` deliveries of a claimed webhook that are due, oldest first."""
    return TAKE(webhook_id=webhook_id, batch=batch)


def abandon(webhook_id: UUID, event_ids: list[UUID]) -> Statement[Row]:
    """Gives up deliveries without an attempt: their events have been deleted."""
    return ABANDON(webhook_id=webhook_id, event_ids=event_ids)


def record(webhook_id: UUID, outcomes: Iterable[Mapping[str, Any]]) -> Statement[Row]:
    """Records attempts and what becomes of their deliveries.

    An outcome has the names of the record in ``RECORD``; ``retry_seconds`` counts from now.
    """
    return RECORD(webhook_id=webhook_id, outcomes=json.dumps(list(outcomes)))


def hurry(webhook_id: UUID) -> Statement[Row]:
    """Makes every delivery that waits for another try due now."""
    return HURRY(webhook_id=webhook_id)


def succeed(webhook_id: UUID, *, has_more: bool) -> Statement[Row]:
    """Records that the receiver works; the claim is kept when the run has more to send."""
    return SUCCEED(webhook_id=webhook_id, seconds=LEASE_SECONDS if has_more else 0)


def fail(webhook_id: UUID, *, failed_runs: int, hours_max: int) -> Statement[EndedRun]:
    """Pauses a webhook to which nothing could be delivered; disables it after ``hours_max``."""
    pause = PAUSE_SECONDS[min(failed_runs, len(PAUSE_SECONDS) - 1)]
    return FAIL(webhook_id=webhook_id, seconds=pause, hours_max=hours_max)


def disable(webhook_id: UUID, *, by: DisabledBy) -> Statement[Row]:
    """Disables an active webhook; no row when it is not active."""
    return DISABLE(webhook_id=webhook_id, disabled_by=by)


def deliveries(
    webhook_id: UUID, *, state: DeliveryState | None, before: UUID | None, limit: int
) -> Statement[Delivery]:
    """Deliveries to a webhook, newest event first; those before an event."""
    return DELIVERIES(webhook_id=webhook_id, state=state, before=before, limit=limit)


def delivery(webhook_id: UUID, event_id: UUID) -> Statement[Delivery]:
    """The delivery of one event."""
    return DELIVERY(webhook_id=webhook_id, event_id=event_id)


def attempts(webhook_id: UUID, event_id: UUID) -> Statement[Attempt]:
    """The newest hundred attempts to deliver an event, newest first."""
    return ATTEMPTS(webhook_id=webhook_id, event_id=event_id)


def redeliver(webhook_id: UUID, event_id: UUID) -> Statement[Row]:
    """Schedules a delivery once more; no row when there is none."""
    return REDELIVER(webhook_id=webhook_id, event_id=event_id)


def redeliver_range(
    webhook_id: UUID, *, first_id: UUID, end_id: UUID, with_delivered: bool
) -> Statement[Redelivered]:
    """Schedules failed and missed deliveries of a range of events, and delivered ones if wanted.

    At most ``REDELIVERED_MAX``, oldest first.
    """
    return REDELIVER_RANGE(
        webhook_id=webhook_id,
        first_id=first_id,
        end_id=end_id,
        with_delivered=with_delivered,
        limit=REDELIVERED_MAX,
    )


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` deliveries that are past their retention."""
    return DELETE_OLD(batch=batch)


def retry_seconds(tries: int, age_seconds: int) -> int | None:
    """When to try again after ``tries`` failures; None when that would be too late."""
    delay = RETRY_SECONDS[min(tries, len(RETRY_SECONDS)) - 1]
    return delay if age_seconds + delay <= GIVE_UP_SECONDS else None
