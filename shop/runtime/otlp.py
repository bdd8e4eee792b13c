"""Traces and metrics pushed over OTLP/HTTP in JSON, for processes that exit before a scrape.

Written with the standard library alone, so every image can export and one that does not pays
nothing (ADR 0028); imported after the first response (``telemetry``).  Of OpenTelemetry's variables
these are read: OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES, OTEL_SERVICE_NAME,
OTEL_TRACES_EXPORTER and OTEL_METRICS_EXPORTER (``none``), OTEL_TRACES_SAMPLER and its _ARG.

Encoding: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from shop.runtime import trace
from shop.runtime.metrics import BUCKETS_SECONDS, METRICS, MetricDefinition, samples_of

if TYPE_CHECKING:
    from shop.runtime.message_context import MessageContext, Span

Json = dict[str, object]
Labels = tuple[str, ...]

EXPORT_SECONDS = 1.5  # one request to the collector; the end of a process takes two seconds
TRACES_EVERY_SECONDS = 5.0
METRICS_EVERY_SECONDS = 15.0
SPANS_MAX = 20_000
SPANS_PER_REQUEST_MAX = 2_048
CUMULATIVE = 2
ERROR_STATUS = 2
SPAN_KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}


class OtlpExporter:
    """Sends spans and metrics; while the collector is unavailable spans are dropped."""

    def __init__(self, names: tuple[str, ...], endpoint: str) -> None:
        service = os.environ.get("OTEL_SERVICE_NAME") or ",".join(names)
        own = {"service.name": service, "service.namespace": "msa-shop"}
        own |= {"service.instance.id": str(uuid4())}
        self._resource = {"attributes": _attributes(_pairs("OTEL_RESOURCE_ATTRIBUTES") | own)}
        self._endpoint = endpoint.rstrip("/")
        self._spans: deque[Json] = deque(maxlen=SPANS_MAX)
        self._metrics = _Metrics()
        self._sends_traces = _is_exported("OTEL_TRACES_EXPORTER")
        self._sends_metrics = _is_exported("OTEL_METRICS_EXPORTER")
        self._sampled_below = _sampled_below()
        self._stopping = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="otlp").start()

    def export(self, function: str, message: MessageContext | None, spans: list[Span]) -> None:
        """Exports one message as spans and metric samples."""
        self._metrics.add(function, message, spans)
        own = ""
        if message is not None:
            own = self._export_message(message)
        for span in spans:
            parent = own if message is not None and message.is_duplicate else span.parent
            self._export_span(span, parent)

    def close(self) -> None:
        """Sends what is left, traces and metrics at once, since both share two seconds."""
        self._stopping.set()
        sending = [
            threading.Thread(target=send, daemon=True)
            for send in (self._send_spans, self._send_metrics)
        ]
        for thread in sending:
            thread.start()
        for thread in sending:
            thread.join()

    def _run(self) -> None:
        metrics_at = time.monotonic() + METRICS_EVERY_SECONDS
        while not self._stopping.wait(TRACES_EVERY_SECONDS):
            self._send_spans()
            if time.monotonic() >= metrics_at:
                self._send_metrics()
                metrics_at += METRICS_EVERY_SECONDS

    def _export_message(self, message: MessageContext) -> str:
        """Queues the span of a message; its traceparent."""
        own, parent, links = message.traceparent, message.parent, list(message.links)
        if message.is_duplicate:
            # a redelivery is not a second child of the publication: a new trace, linked
            own, parent, links = trace.continue_or_start(""), "", [message.parent, *links]
        document = _span(
            _name_of(message),
            own,
            parent,
            "server" if message.event_id is None else "consumer",
            (message.began_ns, message.began_ns + int(message.seconds * 1e9)),
            _attributes_of(message),
        )
        document["links"] = [_ids(each) for each in links if trace.id_of(each)]
        document["status"] = {"code": ERROR_STATUS} if message.status >= 500 else {}
        self._queue(document, own)
        return own

    def _export_span(self, span: Span, parent: str) -> None:
        attributes: Json = {f"shop.{name}": str(value) for name, value in span.attributes.items()}
        if span.outcome:
            attributes["shop.outcome"] = span.outcome
        times = (span.began_ns, span.ended_ns)
        document = _span(span.name, span.traceparent, parent, span.kind, times, attributes)
        self._queue(document, parent or span.traceparent)

    def _queue(self, document: Json, traceparent: str) -> None:
        """Queues a span of a sampled trace: by its caller's decision, and a share of all traces."""
        is_sampled = int(traceparent[-2:], 16) & 1
        if self._sends_traces and is_sampled and _share_of(traceparent) < self._sampled_below:
            self._spans.append(document)

    def _send_spans(self) -> None:
        while self._spans:
            count = min(len(self._spans), SPANS_PER_REQUEST_MAX)
            spans = [self._spans.popleft() for _ in range(count)]
            scopes = [{"scope": {"name": "shop"}, "spans": spans}]
            resource = {"resource": self._resource, "scopeSpans": scopes}
            if not self._post("/v1/traces", {"resourceSpans": [resource]}):
                return

    def _send_metrics(self) -> None:
        metrics = self._metrics.documents()
        if self._sends_metrics and metrics:
            scopes = [{"scope": {"name": "shop"}, "metrics": metrics}]
            resource = {"resource": self._resource, "scopeMetrics": scopes}
            self._post("/v1/metrics", {"resourceMetrics": [resource]})

    def _post(self, path: str, document: Json) -> bool:
        """Whether the collector accepted the document; never raises."""
        url = urlsplit(self._endpoint + path)
        connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
        connection = connect(url.hostname or "", url.port, timeout=EXPORT_SECONDS)
        headers = {"content-type": "application/json", **_pairs("OTEL_EXPORTER_OTLP_HEADERS")}
        try:
            connection.request("POST", url.path, json.dumps(document), headers)
            return connection.getresponse().status < 300
        except (OSError, HTTPException, ValueError):  # ValueError: a header of the operator's
            return False
        finally:
            connection.close()


class _Metrics:
    """Sums since the start of the process, which a collector takes as cumulative."""

    def __init__(self) -> None:
        self._started_ns = time.time_ns()
        self._definitions = {definition.name: definition for definition in METRICS}
        self._lock = threading.Lock()
        self._numbers: dict[tuple[str, Labels], float] = {}
        self._buckets: dict[tuple[str, Labels], list[int]] = {}

    def add(self, function: str, message: MessageContext | None, spans: list[Span]) -> None:
        """Adds the samples of a message."""
        with self._lock:
            for name, labels, value in samples_of(function, message, spans):
                key = (name, labels)
                if self._definitions[name].kind == "gauge":
                    self._numbers[key] = value
                    continue
                self._numbers[key] = self._numbers.get(key, 0.0) + value
                if self._definitions[name].kind == "histogram":
                    counts = self._buckets.setdefault(key, [0] * (len(BUCKETS_SECONDS) + 1))
                    counts[sum(value > bound for bound in BUCKETS_SECONDS)] += 1

    def documents(self) -> list[Json]:
        """Every metric that has a sample."""
        with self._lock:
            by_name: dict[str, list[Json]] = {}
            for (name, labels), number in self._numbers.items():
                by_name.setdefault(name, []).append(self._point(name, labels, number))
        return [_metric(self._definitions[name], points) for name, points in by_name.items()]

    def _point(self, name: str, labels: Labels, number: float) -> Json:
        names = self._definitions[name].labels
        point: Json = {
            "attributes": _attributes(dict(zip(names, labels, strict=True))),
            "startTimeUnixNano": str(self._started_ns),
            "timeUnixNano": str(time.time_ns()),
        }
        counts = self._buckets.get((name, labels))
        if counts is None:
            return point | {"asDouble": number}
        return point | {
            "count": str(sum(counts)),
            "sum": number,
            "bucketCounts": [str(count) for count in counts],
            "explicitBounds": list(BUCKETS_SECONDS),
        }


def _metric(definition: MetricDefinition, points: list[Json]) -> Json:
    data: Json = {"dataPoints": points}
    if definition.kind != "gauge":
        data["aggregationTemporality"] = CUMULATIVE
    if definition.kind == "counter":
        data["isMonotonic"] = True
    name = definition.name.removesuffix("_total")
    kind = "sum" if definition.kind == "counter" else definition.kind
    return {"name": name, "description": definition.help, kind: data}


def _span(
    name: str, own: str, parent: str, kind: str, times: tuple[int, int], attributes: Json
) -> Json:
    document: Json = {
        **_ids(own),
        "name": name,
        "kind": SPAN_KINDS[kind],
        "startTimeUnixNano": str(times[0]),
        "endTimeUnixNano": str(times[1]),
        "attributes": _attributes(attributes),
    }
    if trace.id_of(parent):
        document |= {"traceId": _ids(parent)["traceId"], "parentSpanId": _ids(parent)["spanId"]}
    return document


def _ids(traceparent: str) -> Json:
    _, trace_id, span_id, _ = traceparent.split("-")
    return {"traceId": trace_id, "spanId": span_id}


def _attributes(values: Json | dict[str, str]) -> list[Json]:
    return [{"key": name, "value": _value(value)} for name, value in values.items()]


def _value(value: object) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": str(value)}


def _is_exported(variable: str) -> bool:
    return os.environ.get(variable, "otlp") != "none"


def _pairs(variable: str) -> dict[str, str]:
    """``name=value,…`` with percent-encoded values, as OpenTelemetry's variables have them."""
    parts = (part.partition("=") for part in os.environ.get(variable, "").split(","))
    return {name.strip(): unquote(value.strip()) for name, sign, value in parts if sign}


def _sampled_below() -> float:
    """The share of traces to export, by OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG."""
    sampler = os.environ.get("OTEL_TRACES_SAMPLER", "")
    if sampler.endswith("always_off"):
        return 0.0
    if not sampler.endswith("traceidratio"):
        return 1.0
    try:
        return float(os.environ.get("OTEL_TRACES_SAMPLER_ARG", "1"))
    except ValueError:
        return 1.0


def _share_of(traceparent: str) -> float:
    """A number from 0 to below 1 that is the same in every process of a trace."""
    return int(traceparent.split("-")[1][16:], 16) / 2**64


def _name_of(message: MessageContext) -> str:
    if message.event_id is None:
        return message.route
    return f"process {message.event_type or 'unknown'}"


def _attributes_of(message: MessageContext) -> Json:
    attributes: Json = {
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
