"""The metrics of a process, and the samples that one message adds to them.

Loaded after the first response.  ``infra/observability`` uses these names; a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from events.records import frozen
from shop.runtime.message_context import MessageContext, Span

BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Sample = tuple[str, tuple[str, ...], float]


@frozen
class MetricDefinition:
    """One metric: its name, type, labels and help text."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str


METRICS = (
    MetricDefinition(
        "shop_requests_total",
        "counter",
        ("function", "route", "status"),
        "HTTP responses, events included, by class of status.",
    ),
    MetricDefinition(
        "shop_request_duration_seconds",
        "histogram",
        ("function", "route"),
        "Time from the request's headers to the response.",
    ),
    MetricDefinition(
        "shop_events_total",
        "counter",
        ("function", "type", "outcome"),
        "Deliveries by outcome: taken, duplicate, noop, refused (a dead letter) or retried.",
    ),
    MetricDefinition(
        "shop_provider_calls_total",
        "counter",
        ("step", "outcome"),
        "Calls to the payment provider by outcome.",
    ),
    MetricDefinition(
        "shop_provider_call_duration_seconds",
        "histogram",
        ("step",),
        "Duration of calls to the payment provider.",
    ),
    MetricDefinition(
        "shop_outbox_published_total",
        "counter",
        ("function", "type", "outcome"),
        "Publications of events: accepted by the broker, or left to the sweep.",
    ),
    MetricDefinition(
        "cold_start_seconds",
        "histogram",
        ("function",),
        "Start of a process and its first response, without the idle time between; one a process.",
    ),
)

# The values of one metric, by its labels after ``function``.
LiveValue = Mapping[tuple[str, ...], float]

# Read at each scrape instead of counted per message.
LIVE_METRICS = (
    MetricDefinition(
        "shop_requests_in_flight", "gauge", ("function",), "Messages that are being handled."
    ),
    MetricDefinition(
        "shop_process_seconds_total", "counter", ("function",), "Time since the process's start."
    ),
    MetricDefinition(
        "shop_database_round_trips_total",
        "counter",
        ("function",),
        "Network round trips to PostgreSQL.",
    ),
    MetricDefinition(
        "shop_database_transactions_total", "counter", ("function",), "Transactions begun."
    ),
    MetricDefinition(
        "shop_database_seconds_total", "counter", ("function",), "Time waited for PostgreSQL."
    ),
    MetricDefinition(
        "shop_connections_repeated_total",
        "counter",
        ("function", "server"),
        "Refused connections that were opened again: postgres, redis, provider or broker.",
    ),
    MetricDefinition(
        "shop_replica_reads_total",
        "counter",
        ("function", "outcome"),
        "Reads that may lag: replica, or at the primary because it was lagging, failed or paused.",
    ),
)


def samples_of(
    function: str, message: MessageContext | None, spans: list[Span]
) -> Iterator[Sample]:
    """The samples of a finished message and its spans; of spans alone when it is unfinished."""
    if message is not None:
        yield from _samples_of_message(message)
    for span in spans:
        if "type" in span.attributes:
            labels = (function, str(span.attributes["type"]), span.outcome)
            yield "shop_outbox_published_total", labels, 1
        elif "step" in span.attributes:
            name = str(span.attributes["step"])
            yield "shop_provider_calls_total", (name, span.outcome), 1
            yield "shop_provider_call_duration_seconds", (name,), span.seconds


def _samples_of_message(message: MessageContext) -> Iterator[Sample]:
    function, route = message.function, message.route
    yield "shop_requests_total", (function, route, f"{message.status // 100}xx"), 1
    yield "shop_request_duration_seconds", (function, route), message.seconds
    if message.cold_start_seconds is not None:
        yield "cold_start_seconds", (function,), message.cold_start_seconds
    for consumer, outcome in message.outcomes.items():
        yield "shop_events_total", (consumer, message.event_type or "unknown", outcome), 1
