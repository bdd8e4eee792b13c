"""Traces and metrics pushed over OTLP, for processes that exit before a scrape.

Needs the extra ``otel``; imported after the first response (``telemetry``).  Addresses, headers,
sampler and batch sizes are OpenTelemetry's variables (OTEL_...), which its library reads.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING
from uuid import uuid4

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import Meter
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
from opentelemetry.util.types import AttributeValue

from shop.runtime import trace
from shop.runtime.metrics import BUCKETS_SECONDS, METRICS, MetricDefinition, samples_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from shop.runtime.message_context import MessageContext, Span
    from shop.runtime.message_context import SpanKind as SpanKindName

    AddSample = Callable[[float, dict[str, AttributeValue]], None]

EXPORT_SECONDS = 1.5  # one request to the collector; the end of a process takes two seconds
TRACES_EVERY_MILLISECONDS = 5_000
METRICS_EVERY_MILLISECONDS = 15_000
SPAN_KINDS: dict[SpanKindName, SpanKind] = {
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
    "producer": SpanKind.PRODUCER,
    "server": SpanKind.SERVER,
    "consumer": SpanKind.CONSUMER,
}


class OtlpExporter:
    """Sends spans and metrics; while the collector is unavailable they are dropped."""

    def __init__(self, names: tuple[str, ...]) -> None:
        # otherwise the library writes to the log while the collector is unavailable
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
        if _is_exported("OTEL_TRACES_EXPORTER"):
            self._tracers.add_span_processor(
                BatchSpanProcessor(
                    OTLPSpanExporter(timeout=EXPORT_SECONDS),
                    schedule_delay_millis=TRACES_EVERY_MILLISECONDS,
                )
            )
        self._tracer = self._tracers.get_tracer("shop")
        readers = [_reader()] if _is_exported("OTEL_METRICS_EXPORTER") else []
        self._meters = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
        meter = self._meters.get_meter("shop")
        self._instruments = {m.name: (m.labels, _instrument(meter, m)) for m in METRICS}

    def export(self, function: str, message: MessageContext | None, spans: list[Span]) -> None:
        """Exports one message as spans and metric samples."""
        for name, labels, value in samples_of(function, message, spans):
            names, add = self._instruments[name]
            add(value, dict(zip(names, labels, strict=True)))
        own = None
        if message is not None:
            own = self._export_message(message)
        for span in spans:
            parent = own if message is not None and message.is_duplicate else None
            self._export_span(span, parent)

    def close(self) -> None:
        """Sends what is left, traces and metrics at once, since both share two seconds."""
        sending = [
            threading.Thread(target=provider.shutdown, daemon=True)
            for provider in (self._tracers, self._meters)
        ]
        for thread in sending:
            thread.start()
        for thread in sending:
            thread.join()

    def _export_message(self, message: MessageContext) -> SpanContext:
        parent, links = _context_of(message.parent), list(message.links)
        self._ids.follow(message.traceparent)
        if message.is_duplicate:
            # a redelivery is not a second child of the publication: a new trace, linked
            parent, links = Context(), [message.parent, *links]
            self._ids.follow(trace.continue_or_start(""))
        kind = _kind_of(message)
        span = self._tracer.start_span(
            _name_of(message),
            context=parent,
            kind=SPAN_KINDS[kind],
            attributes=_attributes_of(message),
            links=_links_to(links),
            start_time=message.began_ns,
        )
        if message.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(message.began_ns + int(message.seconds * 1e9))
        return span.get_span_context()

    def _export_span(self, span: Span, parent: SpanContext | None) -> None:
        context = _within(parent) if parent is not None else _context_of(span.parent)
        self._ids.follow(span.traceparent)
        attributes = {f"shop.{name}": str(value) for name, value in span.attributes.items()}
        started = self._tracer.start_span(
            span.name,
            context=context,
            kind=SPAN_KINDS[span.kind],
            attributes=attributes | ({"shop.outcome": span.outcome} if span.outcome else {}),
            start_time=span.began_ns,
        )
        started.end(span.ended_ns)


def _instrument(meter: Meter, definition: MetricDefinition) -> AddSample:
    name, text = definition.name.removesuffix("_total"), definition.help
    match definition.kind:
        case "histogram":
            return meter.create_histogram(
                name,
                description=text,
                explicit_bucket_boundaries_advisory=list(BUCKETS_SECONDS),
            ).record
        case "gauge":
            return meter.create_gauge(name, description=text).set
        case "counter":
            return meter.create_counter(name, description=text).add


class _Ids(IdGenerator):
    """Gives each span the ids that it was recorded with, which were sent to other processes."""

    def __init__(self) -> None:
        self._trace_id = self._span_id = 0

    def follow(self, traceparent: str) -> None:
        """Uses these ids for the next span."""
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


def _is_exported(variable: str) -> bool:
    return os.environ.get(variable, "otlp") != "none"


def _span_context(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    is_remote = True
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote, TraceFlags(int(flags, 16) & 1)
    )


def _context_of(traceparent: str) -> Context:
    """The context of a parent; an empty parent starts a trace."""
    return _within(_span_context(traceparent)) if trace.id_of(traceparent) else Context()


def _within(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _links_to(traceparents: Sequence[str]) -> list[Link]:
    return [Link(_span_context(each)) for each in traceparents if trace.id_of(each)]


def _kind_of(message: MessageContext) -> SpanKindName:
    return "server" if message.event_id is None else "consumer"


def _name_of(message: MessageContext) -> str:
    if message.event_id is None:
        return message.route
    return f"process {message.event_type or 'unknown'}"


def _attributes_of(message: MessageContext) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "faas.name": message.function,
        "http.request.method": message.method,
        "http.route": message.route,
        "http.response.status_code": message.status,
    }
    if message.cold_start_seconds is not None:
        attributes |= {"faas.coldstart": True, "shop.cold_start": message.cold_start_seconds}
    if message.event_id is not None:
        attributes["messaging.message.id"] = message.event_id
        attributes["messaging.destination.name"] = message.event_type or "unknown"
        attributes["shop.outcome"] = message.outcome or ""
    return attributes
