"""Traces and metrics pushed over OTLP: what a process that lives for seconds can do.

Needs the extra ``otel``; imported after the first answer (``telemetry``).  Addresses, headers,
sampler and batch sizes are OpenTelemetry's own variables (OTEL_...), read by its library.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from shop.runtime import trace
from shop.runtime.metrics import MEASURES, SECONDS, figures_of

if TYPE_CHECKING:
    from shop.runtime.message_context import MessageContext, Span

EXPORT_SECONDS = 1.5  # one request to the collector; the end of a process has two
TRACES_EVERY_MILLISECONDS = 5_000
METRICS_EVERY_MILLISECONDS = 15_000
KINDS = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
}


class Push:
    """Sends spans and figures; a collector that is away costs spans and nothing else."""

    def __init__(self, names: tuple[str, ...]) -> None:
        # A collector that is away would have the library write lines that are not ours.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        resource = Resource.create(
            {"service.name": os.environ.get("OTEL_SERVICE_NAME") or ",".join(names)}
            | {"service.namespace": "msa-shop", "service.instance.id": str(uuid4())}
        )
        self._ids = _Ids()
        self._tracers = TracerProvider(
            resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        if _wanted("OTEL_TRACES_EXPORTER"):
            self._tracers.add_span_processor(
                BatchSpanProcessor(
                    OTLPSpanExporter(timeout=EXPORT_SECONDS),
                    schedule_delay_millis=TRACES_EVERY_MILLISECONDS,
                )
            )
        self._tracer = self._tracers.get_tracer("shop")
        readers = [_reader()] if _wanted("OTEL_METRICS_EXPORTER") else []
        self._meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        self._instruments = self._make_instruments()

    def export(self, function: str, handling: MessageContext | None, steps: list[Span]) -> None:
        """One message as spans and figures."""
        for name, labels, value in figures_of(function, handling, steps):
            names, add = self._instruments[name]
            add(value, dict(zip(names, labels, strict=True)))
        own = None
        if handling is not None:
            own = self._message(handling)
        for span in steps:
            parent = own if handling is not None and handling.is_duplicate else None
            self._step(span, parent)

    def close(self) -> None:
        """Sends what is left: both at once, for together they have two seconds."""
        sending = [
            threading.Thread(target=provider.shutdown, daemon=True)
            for provider in (self._tracers, self._meters)
        ]
        for thread in sending:
            thread.start()
        for thread in sending:
            thread.join()

    def _message(self, handling: MessageContext) -> SpanContext:
        parent, links = _context_of(handling.parent), list(handling.links)
        self._ids.follow(handling.traceparent)
        if handling.is_duplicate:
            # A redelivery is no second child of the announcement: a trace of its own, linked.
            parent, links = Context(), [handling.parent, *links]
            self._ids.follow(trace.continue_or_start(""))
        kind = _kind_of(handling)
        span = self._tracer.start_span(
            _name_of(handling),
            context=parent,
            kind=KINDS[kind],
            attributes=_attributes_of(handling),
            links=_links_to(links),
            start_time=handling.began_ns,
        )
        if handling.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(handling.began_ns + int(handling.seconds * 1e9))
        return span.get_span_context()

    def _step(self, span: Span, parent: SpanContext | None) -> None:
        context = _within(parent) if parent is not None else _context_of(span.parent)
        self._ids.follow(span.traceparent)
        attributes = {f"shop.{name}": str(value) for name, value in span.attributes.items()}
        started = self._tracer.start_span(
            span.name,
            context=context,
            kind=KINDS[span.kind],
            attributes=attributes | ({"shop.outcome": span.outcome} if span.outcome else {}),
            start_time=span.began_ns,
        )
        started.end(span.ended_ns)

    def _make_instruments(self) -> dict[str, tuple[tuple[str, ...], Any]]:
        meter, made = self._meters.get_meter("shop"), {}
        for measure in MEASURES:
            name, meaning = measure.name.removesuffix("_total"), measure.meaning
            add: Any
            if measure.kind == "histogram":
                bounds = list(SECONDS)
                add = meter.create_histogram(
                    name, description=meaning, explicit_bucket_boundaries_advisory=bounds
                ).record
            elif measure.kind == "gauge":
                add = meter.create_gauge(name, description=meaning).set
            else:
                add = meter.create_counter(name, description=meaning).add
            made[measure.name] = (measure.labels, add)
        return made


class _Ids(IdGenerator):
    """Gives each span the ids it had while it ran: the outbox and the provider know them."""

    def __init__(self) -> None:
        self._trace_id = self._span_id = 0

    def follow(self, traceparent: str) -> None:
        """The next span is this one."""
        _, trace_id, span_id, _ = traceparent.split("-")
        self._trace_id, self._span_id = int(trace_id, 16), int(span_id, 16)

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self._span_id


def _reader() -> PeriodicExportingMetricReader:
    exporter = OTLPMetricExporter(timeout=EXPORT_SECONDS)
    return PeriodicExportingMetricReader(
        exporter, export_interval_millis=METRICS_EVERY_MILLISECONDS
    )


def _wanted(variable: str) -> bool:
    return os.environ.get(variable, "otlp") != "none"


def _span_context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    is_remote = True
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote, TraceFlags(int(flags, 16) & 1)
    )


def _context_of(traceparent: str) -> Context:
    """The story a span continues; an empty one begins here."""
    return _within(_span_context(traceparent)) if trace.id_of(traceparent) else Context()


def _within(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _links_to(traceparents: Sequence[str]) -> list[Link]:
    return [Link(_span_context(each)) for each in traceparents if trace.id_of(each)]


def _kind_of(handling: MessageContext) -> str:
    return "server" if handling.event_id is None else "consumer"


def _name_of(handling: MessageContext) -> str:
    if handling.event_id is None:
        return handling.route
    return f"process {handling.event_type or 'unknown'}"


def _attributes_of(handling: MessageContext) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "faas.name": handling.function,
        "http.request.method": handling.method,
        "http.route": handling.route,
        "http.response.status_code": handling.status,
    }
    if handling.cold_start_seconds is not None:
        attributes |= {"faas.coldstart": True, "shop.cold_start": handling.cold_start_seconds}
    if handling.event_id is not None:
        attributes["messaging.message.id"] = handling.event_id
        attributes["messaging.destination.name"] = handling.event_type or "unknown"
        attributes["shop.outcome"] = handling.outcome or ""
    return attributes
