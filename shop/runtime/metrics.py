"""The measures of a process, and what one message adds to them.

Loaded after the first answer.  ``infra/observability`` uses these names; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from events.records import frozen
from shop.runtime.message_context import MessageContext, Span

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Figure = tuple[str, tuple[str, ...], float]


@frozen
class Measure:
    """One family of numbers: its name, its labels and what it says."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


MEASURES = (
    Measure(
        "shop_requests_total",
        "counter",
        ("function", "route", "status"),
        "Messages answered over HTTP, events among them, by class of status.",
    ),
    Measure(
        "shop_request_duration_seconds",
        "histogram",
        ("function", "route"),
        "From the request's head to the answer.",
    ),
    Measure(
        "shop_events_total",
        "counter",
        ("function", "type", "outcome"),
        "Deliveries: taken, duplicate, noop, refused (a dead letter) or retried.",
    ),
    Measure(
        "shop_provider_calls_total",
        "counter",
        ("step", "outcome"),
        "Calls to the payment provider by what they came to.",
    ),
    Measure(
        "shop_provider_call_duration_seconds",
        "histogram",
        ("step",),
        "How long the payment provider took.",
    ),
    Measure(
        "shop_outbox_published_total",
        "counter",
        ("function", "type", "outcome"),
        "Announcements: accepted by the broker, or left to the sweep.",
    ),
    Measure(
        "cold_start_seconds",
        "gauge",
        ("function",),
        "What the first answer took, with the start of the process before it.",
    ),
)

# Read when somebody asks, not counted by message.
LIVE = (
    Measure(
        "shop_requests_in_flight", "gauge", ("function",), "Messages being handled at this moment."
    ),
    Measure(
        "shop_database_round_trips_total",
        "counter",
        ("function",),
        "Network round trips to PostgreSQL.",
    ),
    Measure("shop_database_transactions_total", "counter", ("function",), "Transactions begun."),
)


def figures_of(
    function: str, handling: MessageContext | None, steps: list[Span]
) -> Iterator[Figure]:
    """What a finished message and its steps add; ``handling`` is None while it goes on."""
    if handling is not None:
        yield from _of_message(handling)
    for span in steps:
        if "type" in span.attributes:
            labels = (function, str(span.attributes["type"]), span.outcome)
            yield "shop_outbox_published_total", labels, 1
        elif "step" in span.attributes:
            name = str(span.attributes["step"])
            yield "shop_provider_calls_total", (name, span.outcome), 1
            yield "shop_provider_call_duration_seconds", (name,), span.seconds


def _of_message(handling: MessageContext) -> Iterator[Figure]:
    function, route = handling.function, handling.route
    yield "shop_requests_total", (function, route, f"{handling.status // 100}xx"), 1
    yield "shop_request_duration_seconds", (function, route), handling.seconds
    if handling.cold_start_seconds is not None:
        yield "cold_start_seconds", (function,), handling.cold_start_seconds
    for consumer, outcome in handling.outcomes.items():
        yield "shop_events_total", (consumer, handling.event_type or "unknown", outcome), 1
