"""One delivery of an event: the policies between ``POST /events`` and its 204, in this order.

1. body limit and CloudEvents parsing (``http_messages``, ``events.envelope``)
2. signature, age and source of the event (``_authenticate``, ``_check_source``); a dead letter may
   be of any age
3. a dead letter is stored; a clock tick runs its schedule; other events continue
4. one transaction per consumer: claim the event in the inbox, run the handler, commit
5. publication of what that transaction emitted (``EventContext``)

A 2xx response with a body is a failed delivery on Knative, and 404, 408, 409 and 429 are retried
(docs/adr), so success is 204 and permanent failures are 400, 401, 403, 413, 415 or 422, which make
the event a dead letter.  503 is delivered again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from events import envelope, vocabulary
from events.errors import Malformed
from shop.adapters import db
from shop.adapters.signatures import CLOCK
from shop.adapters.statements import Query, Row
from shop.adapters.two_phase_call import TwoPhaseCall
from shop.messaging import inbox, outbox
from shop.primitives import failpoints
from shop.primitives.clock import utc_now
from shop.primitives.errors import ClientError
from shop.primitives.failpoints import Failpoint
from shop.primitives.ids import parse_uuid
from shop.primitives.messages import DeadLetter, Event
from shop.registry import spec_of
from shop.runtime.event_context import EventContext
from shop.runtime.http_messages import HttpRequest, HttpResponse, read_body
from shop.runtime.message_context import DUPLICATE, NOOP, TAKEN, MessageContext, Outcome

if TYPE_CHECKING:
    from events.envelope import CloudEvent
    from events.event import ShopEvent
    from shop.primitives.spec import FunctionSpec, Schedule, Subscription
    from shop.runtime.services import Services

# Any: the types of a two-phase call, which its module names.
EventHandler = Callable[[Event, EventContext], None] | TwoPhaseCall[Any, Any, Any, Any]

NO_CONTENT = 204
CLOCK_TICKED = "clock.ticked"
DEAD_LETTER = "dead letter"
EVENT_ID_LENGTH_MAX = 64
EVENT_HEADERS = ("content-type", "traceparent", "tracestate")
FAILED_DESTINATION = "knativeerrordest"
RETRIED_BY_BROKERS = (404, 408, 409, 429)
TICK_AGE_MAX = timedelta(minutes=10)

KNOWN_TO_OUTBOX = Query(
    Row,
    """
select event_id from shop.outbox where event_id = %(event_id)s::uuid and source = %(source)s
""",
)


def handle_delivery(
    services: Services,
    specs: tuple[FunctionSpec, ...],
    http_request: HttpRequest,
    message_context: MessageContext,
) -> HttpResponse:
    """The response to one delivery; raises ``ClientError`` and ``Unavailable``.

    Records the event's type and each consumer's outcome in ``message_context``.
    """
    body = read_body(http_request)
    try:
        event = envelope.parse(http_request.headers, body)
        message_context.event_id = event.id[:EVENT_ID_LENGTH_MAX]
        for spec in specs:
            if spec.receives_dead_letters and (
                len(specs) == 1 or FAILED_DESTINATION in event.extensions
            ):
                return _store_dead_letter(
                    services, spec, event, http_request, body, message_context
                )
        _authenticate(services, event)
        if event.type == vocabulary.CLOCK_TICKED:
            return _run_schedule(services, specs, event, message_context)
        return _consume(services, specs, event, message_context)
    except Malformed as error:
        raise ClientError(error.status, "BAD_EVENT", error.reason) from error
    except db.UNAVAILABLE_ERRORS as error:
        raise db.unavailable() from error
    except ClientError as error:
        if error.status in RETRIED_BY_BROKERS:
            raise ClientError(422, error.code, error.message) from error
        raise


def _authenticate(services: Services, event: CloudEvent) -> None:
    """Verifies signature and age; an old event passes if it is a row of the outbox."""
    try:
        services.events.verify(event, utc_now())
    except ClientError as error:
        if error.code != "STALE_EVENT" or not _is_in_outbox(services, event):
            raise
        services.events.verify(event, utc_now(), known_to_outbox=True)


def _is_in_outbox(services: Services, event: CloudEvent) -> bool:
    event_id = parse_uuid(event.id)
    if event_id is None:
        return False
    (rows,) = services.database.run_now(KNOWN_TO_OUTBOX(event_id=event_id, source=event.source))
    return bool(rows)


# Any: a handler's type depends on the message, which the spec declares.
def _handler(spec: FunctionSpec, name: str) -> Any:
    return getattr(import_module(f"functions.{spec.name}.handler"), name)


# ---------------------------------------------------------------- events


def _consume(
    services: Services,
    specs: tuple[FunctionSpec, ...],
    cloud_event: CloudEvent,
    message_context: MessageContext,
) -> HttpResponse:
    """Passes the event to every consumer in this process; 422 when there is none."""
    shop_event = vocabulary.unwrap(cloud_event)
    name = shop_event.name
    message_context.continue_trace(name, cloud_event.extensions.get("traceparent", ""))
    _check_source(cloud_event.source, name)
    subscriptions = [(spec, s) for spec in specs for s in spec.subscriptions if s.event == name]
    if not subscriptions:
        raise ClientError(422, "NOT_SUBSCRIBED", f"no function of this process consumes {name}")
    for spec, subscription in subscriptions:
        message_context.function = spec.name
        event = _to_event(cloud_event, shop_event, message_context.traceparent)
        message_context.outcomes[spec.name] = _deliver(services, spec, subscription, event)
    return HttpResponse(NO_CONTENT)


def _check_source(source: str, name: str) -> None:
    """403 unless the function named by ``source`` declares that it emits such events."""
    function = source.removeprefix("/shop/")
    try:
        emits = spec_of(function).emits if function.isidentifier() else ()
    except LookupError:
        emits = ()
    if name not in emits:
        raise ClientError(403, "SOURCE_NOT_ALLOWED", f"this source does not announce {name}")


def _to_event(cloud_event: CloudEvent, shop_event: ShopEvent, traceparent: str) -> Event:
    if parse_uuid(cloud_event.id) is None:
        raise ClientError(422, "BAD_EVENT", "an event's id is its outbox row's")
    return Event(
        id=cloud_event.id,
        source=cloud_event.source,
        type=cloud_event.type,
        name=shop_event.name,
        subject=shop_event.subject,
        data=shop_event.data(),
        traceparent=traceparent,
    )


def _deliver(
    services: Services, spec: FunctionSpec, subscription: Subscription, event: Event
) -> Outcome:
    """Claims the event in the inbox and runs the handler in the same transaction; the outcome."""
    failpoints.hit(Failpoint.MESSAGE_READ)
    handler: EventHandler = _handler(spec, subscription.handler)
    context = EventContext(services, spec, traceparent=event.traceparent)
    claim = inbox.claim(consumer=spec.name, source=event.source, event_id=event.id)
    call = None
    with context.session((claim, outbox.mark_consumed(event.id, spec.name))) as session:
        is_duplicate = not session.rows_of(claim)
        if not is_duplicate:
            failpoints.hit(Failpoint.CLAIMED)
            if isinstance(handler, TwoPhaseCall):
                call = handler.prepare(session.tx, handler.subject(event))
            else:
                handler(event, context)
    if is_duplicate:
        return DUPLICATE
    if not isinstance(handler, TwoPhaseCall):
        return TAKEN
    if call is None:
        return NOOP
    context.execute_and_record(handler, call)
    return TAKEN


# ---------------------------------------------------------------- clock


def _run_schedule(
    services: Services,
    specs: tuple[FunctionSpec, ...],
    event: CloudEvent,
    message_context: MessageContext,
) -> HttpResponse:
    """Runs the schedule that a tick names; a repeated tick finds nothing due.

    The tick's trace is not continued: its events continue the traces of their orders (outbox).
    """
    if event.source != CLOCK:
        raise ClientError(403, "SOURCE_NOT_ALLOWED", "only the clock ticks")
    if event.time is not None and abs(utc_now() - event.time) > TICK_AGE_MAX:
        raise ClientError(401, "STALE_EVENT", "the tick is too old")
    spec, schedule = _find_schedule(specs, event.subject or "")
    handler: Callable[[EventContext], None] = _handler(spec, schedule.handler)
    message_context.function, message_context.event_type = spec.name, CLOCK_TICKED
    failpoints.hit(Failpoint.MESSAGE_READ)
    handler(EventContext(services, spec))
    message_context.outcomes[spec.name] = TAKEN
    return HttpResponse(NO_CONTENT)


def _find_schedule(specs: tuple[FunctionSpec, ...], name: str) -> tuple[FunctionSpec, Schedule]:
    for spec in specs:
        for schedule in spec.schedules:
            if schedule.name == name:
                return spec, schedule
    raise ClientError(422, "NOT_SUBSCRIBED", "there is no such schedule here")


# ---------------------------------------------------------------- dead letters


def event_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that are part of an event; credentials and cookies of its sender are not."""
    return {
        name: text
        for name, text in headers.items()
        if name.startswith("ce-") or name in EVENT_HEADERS
    }


def _store_dead_letter(
    services: Services,
    spec: FunctionSpec,
    event: CloudEvent,
    http_request: HttpRequest,
    body: bytes,
    message_context: MessageContext,
) -> HttpResponse:
    """Stores an event that one of our functions signed, whatever else is wrong with it.

    Others are rejected before the database is used: this path can be reached by more than the
    broker.  None of ours is lost, because the outbox publishes it until it is consumed.
    """
    services.events.verify(event, utc_now(), known_to_outbox=True)
    message_context.function, message_context.event_type = spec.name, DEAD_LETTER
    letter = DeadLetter(
        event_id=event.id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        destination=event.extensions.get(FAILED_DESTINATION, ""),
        error_code=event.extensions.get("knativeerrorcode"),
        error_data=event.extensions.get("knativeerrordata"),
        headers=event_headers(http_request.headers),
        body=body,
    )
    failpoints.hit(Failpoint.MESSAGE_READ)
    context = EventContext(services, spec)
    with context.session():
        _handler(spec, "store")(letter, context)
    message_context.outcomes[spec.name] = TAKEN
    return HttpResponse(NO_CONTENT)
