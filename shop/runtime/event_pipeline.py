"""Receiving events: authentic, once, in one transaction with the effect; 204 and nothing else.

A 2xx with a body would be a failed delivery on Knative, and 404, 408, 409 and 429 would be retried:
see ``docs/adr`` and design/platform.md 2.1.  What can never work answers 400, 401, 403, 413, 415 or
422 and becomes a dead letter; what does not work now answers 503 and is delivered again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any

from events import envelope, vocabulary
from events.errors import Malformed
from shop.adapters import db
from shop.messaging import inbox, outbox
from shop.primitives import failpoints
from shop.primitives.clock import utc_now
from shop.primitives.errors import ClientError
from shop.primitives.ids import parse_uuid
from shop.primitives.messages import DeadLetter, Event, TwoPhaseCall
from shop.registry import spec_of
from shop.runtime import log
from shop.runtime.event_context import EventContext
from shop.runtime.http_messages import HttpRequest, HttpResponse, read_body
from shop.runtime.message_context import DUPLICATE, NOOP, TAKEN, MessageContext

if TYPE_CHECKING:
    from events.envelope import CloudEvent
    from events.event import ShopEvent
    from shop.primitives.spec import FunctionSpec, Schedule, Subscription
    from shop.runtime.services import Services

DONE = 204
CLOCK = "/shop/clock"
CLOCK_TICKED = "clock.ticked"
DEAD_LETTER = "dead letter"
EVENT_ID_SHOWN = 64
FAILED_AT = "knativeerrordest"
RETRIED_BY_BROKERS = (404, 408, 409, 429)
TICK_AGE_MAX = timedelta(minutes=10)

KNOWN_TO_OUTBOX = """
select event_id from shop.outbox where event_id = %(event_id)s::uuid and source = %(source)s
"""


def handle_delivery(
    services: Services, specs: tuple[FunctionSpec, ...], wire: HttpRequest, handling: MessageContext
) -> HttpResponse:
    """Answers one delivery; raises ``ClientError`` and ``Unavailable`` for the app to write.

    Notes in ``handling`` whose event it was and what each consumer made of it.
    """
    body = read_body(wire)
    try:
        message = envelope.parse(wire.headers, body)
        handling.event_id = message.id[:EVENT_ID_SHOWN]
        for spec in specs:
            if spec.receives_dead_letters and (len(specs) == 1 or FAILED_AT in message.extensions):
                handling.function, handling.event_type = spec.name, DEAD_LETTER
                return _store_dead_letter(services, spec, message, wire, body, handling)
        return _handle_delivery(services, specs, message, handling)
    except Malformed as error:
        raise ClientError(error.status, "BAD_EVENT", error.reason) from error
    except db.NOT_NOW as error:
        log.write("database", error=type(error).__name__, route="/events")
        raise db.unavailable() from error
    except ClientError as refusal:
        if refusal.status in RETRIED_BY_BROKERS:
            raise ClientError(422, refusal.code, refusal.message) from refusal
        raise


def _handle_delivery(
    services: Services,
    specs: tuple[FunctionSpec, ...],
    message: CloudEvent,
    handling: MessageContext,
) -> HttpResponse:
    _authenticate(services, message)
    if message.type == vocabulary.CLOCK_TICKED:
        return _tick(services, specs, message, handling)
    event = vocabulary.unwrap(message)
    handling.take_event(event.name, message.extensions.get("traceparent", ""))
    _check_announcer(message.source, event.name)
    subscribed = [(spec, s) for spec in specs for s in spec.subscriptions if s.event == event.name]
    for spec, subscription in subscribed:
        handling.function = spec.name
        taken = _as_event(message, event, handling.traceparent)
        handling.outcomes[spec.name] = _take(services, spec, subscription, taken)
    if subscribed:
        return HttpResponse(DONE)
    raise ClientError(422, "NOT_SUBSCRIBED", f"nobody here consumes {event.name}")


def _authenticate(services: Services, message: CloudEvent) -> None:
    try:
        services.events.verify(message, utc_now())
    except ClientError as refusal:
        if refusal.code != "STALE_EVENT" or not _is_in_outbox(services, message):
            raise
        services.events.verify(message, utc_now(), known_to_outbox=True)


def _is_in_outbox(services: Services, message: CloudEvent) -> bool:
    event_id = parse_uuid(message.id)
    if event_id is None:
        return False
    (rows,) = services.database.run_now(
        (KNOWN_TO_OUTBOX, {"event_id": event_id, "source": message.source})
    )
    return bool(rows)


def _check_announcer(source: str, name: str) -> None:
    """403 unless the function behind ``source`` announces such events: no key is for all."""
    function = source.removeprefix("/shop/")
    try:
        announces = spec_of(function).emits if function.isidentifier() else ()
    except LookupError:
        announces = ()
    if name not in announces:
        raise ClientError(403, "SOURCE_NOT_ALLOWED", f"this source does not announce {name}")


def _as_event(message: CloudEvent, event: ShopEvent, traceparent: str) -> Event:
    if parse_uuid(message.id) is None:
        raise ClientError(422, "BAD_EVENT", "an event's id is its outbox row's")
    return Event(
        id=message.id,
        source=message.source,
        type=message.type,
        name=event.name,
        subject=event.subject,
        data=event.data(),
        traceparent=traceparent,
    )


def _handler(spec: FunctionSpec, name: str) -> Any:
    return getattr(import_module(f"functions.{spec.name}.handler"), name)


# ---------------------------------------------------------------- events


def _take(services: Services, spec: FunctionSpec, subscription: Subscription, event: Event) -> str:
    """What became of it: taken, a duplicate, or (in phases) nothing to do."""
    failpoints.point("W0")
    handler = _handler(spec, subscription.handler)
    work = EventContext(services, traceparent=event.traceparent, actor=spec.name)
    claim = (
        inbox.claim(consumer=spec.name, source=event.source, event_id=event.id),
        outbox.mark_consumed(event.id, spec.name),
    )
    if isinstance(handler, TwoPhaseCall):
        return _take_in_phases(work, claim, handler, event)
    with work.transaction(opening=claim) as tx:
        is_new = bool(work.opened[0])
        if is_new:
            failpoints.point("W1")
            handler(event, tx)
    return TAKEN if is_new else DUPLICATE


def _take_in_phases(work: EventContext, claim: Any, phases: TwoPhaseCall, event: Event) -> str:
    call = None
    with work.transaction(opening=claim) as tx:
        is_new = bool(work.opened[0])
        if is_new:
            failpoints.point("W1")
            call = phases.prepare(tx, phases.subject(event))
    if call is None:
        return NOOP if is_new else DUPLICATE
    work.execute_and_record(phases, call)
    return TAKEN


# ---------------------------------------------------------------- clock


def _tick(
    services: Services,
    specs: tuple[FunctionSpec, ...],
    message: CloudEvent,
    handling: MessageContext,
) -> HttpResponse:
    """A tick carries nothing: the handler looks for what is due, so a second one finds nothing.

    Its trace is its own; what it announces belongs to the traces of the orders (``outbox``).
    """
    if message.source != CLOCK:
        raise ClientError(403, "SOURCE_NOT_ALLOWED", "only the clock ticks")
    if message.time is not None and abs(utc_now() - message.time) > TICK_AGE_MAX:
        raise ClientError(401, "STALE_EVENT", "the tick is too old")
    spec, schedule = _schedule(specs, message.subject or "")
    act: Callable[[EventContext], None] = _handler(spec, schedule.handler)
    handling.function, handling.event_type = spec.name, CLOCK_TICKED
    failpoints.point("W0")
    act(EventContext(services, traceparent="", actor=spec.name))
    handling.outcomes[spec.name] = TAKEN
    return HttpResponse(DONE)


def _schedule(specs: tuple[FunctionSpec, ...], name: str) -> tuple[FunctionSpec, Schedule]:
    for spec in specs:
        for schedule in spec.schedules:
            if schedule.name == name:
                return spec, schedule
    raise ClientError(422, "NOT_SUBSCRIBED", "there is no such schedule here")


# ---------------------------------------------------------------- dead letters


def _store_dead_letter(
    services: Services,
    spec: FunctionSpec,
    message: CloudEvent,
    wire: HttpRequest,
    body: bytes,
    handling: MessageContext,
) -> HttpResponse:
    """Poison must be storable, so nothing here asks whether the event is authentic."""
    extensions = message.extensions
    letter = DeadLetter(
        event_id=message.id,
        source=message.source,
        type=message.type,
        subject=message.subject,
        destination=extensions.get(FAILED_AT, ""),
        error_code=extensions.get("knativeerrorcode"),
        error_data=extensions.get("knativeerrordata"),
        headers=dict(wire.headers),
        body=body,
    )
    failpoints.point("W0")
    with EventContext(services, traceparent="", actor=spec.name).transaction() as tx:
        _handler(spec, "store")(letter, tx)
    handling.outcomes[spec.name] = TAKEN
    return HttpResponse(DONE)
