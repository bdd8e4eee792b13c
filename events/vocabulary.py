"""Every event of the shop, found by its name, its type or its CloudEvent.

``EVENTS`` is all classes.  Creating all of them takes milliseconds of a cold start, so a module
with event classes is imported when one of them is first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from events import strict_json
from events.errors import Malformed, UnknownEvent
from events.event import TYPE_PREFIX, ShopEvent

if TYPE_CHECKING:
    from events.envelope import CloudEvent

    EVENTS: tuple[type[ShopEvent], ...]

CLOCK_TICKED = f"{TYPE_PREFIX}clock.ticked.v1"

_MODULES: Mapping[str, str] = {
    "order": "events.orders",
    "payment": "events.payments",
    "refund": "events.refunds",
    "shipment": "events.shipments",
    "return": "events.returns",
    "product": "events.catalog",
    "user": "events.accounts",
    "settlement": "events.settlements",
}


def class_of(name: str) -> type[ShopEvent]:
    """The newest class of a short name such as ``order.placed``; raises UnknownEvent."""
    versions = [c for c in _classes_about(name.partition(".")[0]) if c.name == name]
    if not versions:
        raise UnknownEvent(f"there is no event {name[:80]!r}")
    return max(versions, key=lambda c: c.version)


def class_of_type(event_type: str) -> type[ShopEvent]:
    """The class of ``com.msashop.order.placed.v1``; UnknownEvent for other types and versions."""
    noun = event_type.removeprefix(TYPE_PREFIX).partition(".")[0]
    for event_class in _classes_about(noun):
        if event_class.type == event_type:
            return event_class
    raise UnknownEvent("the event's type, or this version of it, is not known here")


def read(event_type: str, data: object) -> ShopEvent:
    """The event of that type with that (already parsed) JSON data.

    Raises UnknownEvent for a type or version that is not known, Malformed 422 for a property that
    is missing, unknown, of another JSON type, or not in its canonical form.
    """
    return class_of_type(event_type).from_data(data)


def unwrap(envelope: CloudEvent) -> ShopEvent:
    """The shop's event inside a CloudEvent: type, schema, data and subject all agree.

    Raises UnknownEvent for an unknown type or a ``dataschema`` that is not its type's, and
    Malformed 422 for data that is not JSON or not the event's, or a subject that is not what the
    data is about.
    """
    event_class = class_of_type(envelope.type)
    if envelope.dataschema is not None and envelope.dataschema != event_class.dataschema:
        raise UnknownEvent(f"dataschema is not the one of {event_class.type}")
    try:
        data = strict_json.read(envelope.data)
    except Malformed as error:
        raise Malformed(422, f"data: {error.reason}") from error
    event = event_class.from_data(data)
    if envelope.subject is not None and envelope.subject != event.subject:
        raise Malformed(422, "subject is not what the data is about")
    return event


@cache
def _classes_about(noun: str) -> tuple[type[ShopEvent], ...]:
    module = _MODULES.get(noun)
    if module is None:
        return ()
    members = vars(import_module(module)).values()
    classes = (m for m in members if isinstance(m, type) and issubclass(m, ShopEvent))
    return tuple(c for c in classes if c.__module__ == module)


def __getattr__(attribute: str) -> object:
    if attribute != "EVENTS":
        raise AttributeError(f"module {__name__!r} has no attribute {attribute!r}")
    return tuple(c for noun in _MODULES for c in _classes_about(noun))
