"""Metrics and traces, off the request path: finished messages are queued and exported later.

While a message is handled this costs one ``append``.  The exporters (prometheus-client, and
our own of OTLP) are imported by a background thread after the first response, or after an idle
start, and only with METRICS_PORT or OTEL_EXPORTER_OTLP_ENDPOINT.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from shop.runtime import log
from shop.runtime.message_context import MessageContext, Span

if TYPE_CHECKING:
    from shop.runtime.metrics import LiveValue
    from shop.runtime.services import Services

FINISHED_MAX = 20_000
LOAD_AFTER_SECONDS = 0.2  # the first response has been sent by then
IDLE_START_SECONDS = 15.0  # a cold start is over by then
EXPORT_INTERVAL_SECONDS = 1.0
STOP_SECONDS = 2.0


class TelemetryExporter(Protocol):
    """Exports finished messages to the metrics page for Prometheus, or over OTLP."""

    def export(self, function: str, message: MessageContext | None, spans: list[Span]) -> None:
        """Exports a finished message with its spans, or spans of an unfinished one (None)."""

    def close(self) -> None:
        """Exports what is left; may take seconds."""


class Telemetry:
    """Collects the finished messages of one process for its exporters."""

    def __init__(self, names: tuple[str, ...], services: Services) -> None:
        settings = services.settings
        self.names = names
        self.services = services
        self.is_on = bool(settings.metrics_port or settings.otel_exporter_otlp_endpoint)
        self.in_flight: set[MessageContext] = set()
        self._finished: deque[tuple[str, MessageContext | None, list[Span]]] = deque(
            maxlen=FINISHED_MAX
        )
        self._exporters: list[TelemetryExporter] | None = None
        self._exporting = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._started_at = time.monotonic()

    def begin(self, method: str, traceparent_header: str) -> MessageContext:
        """The record of a message that has just arrived."""
        export_spans = self._queue_spans if self.is_on else None
        message = MessageContext(self.names[0], method, traceparent_header, export_spans)
        if self.is_on:
            self.in_flight.add(message)
        return message

    def finish(self, message: MessageContext) -> None:
        """Queues a message whose response is ready."""
        if not self.is_on:
            return
        self.in_flight.discard(message)
        self._finished.append((message.function, message, message.spans))
        if self._thread is None:
            self._start()

    def on_probe(self) -> None:
        """Starts the exporters of a process that is idle since its start.

        Without it Prometheus would report a function without requests as down.
        """
        is_idle = self._thread is None and time.monotonic() - self._started_at >= IDLE_START_SECONDS
        if self.is_on and is_idle:
            self._start()

    def export(self) -> None:
        """Passes the queued messages to the exporters, once these are loaded."""
        with self._exporting:
            if self._exporters is None:
                return
            for _ in range(len(self._finished)):
                function, message, spans = self._finished.popleft()
                for exporter in self._exporters:
                    exporter.export(function, message, spans)

    def stop(self) -> None:
        """Exports what is queued, for at most two seconds, at the end of the process."""
        if self._thread is None:
            return
        self._stopping.set()
        last = threading.Thread(target=self._close, daemon=True)
        last.start()
        last.join(STOP_SECONDS)

    def _queue_spans(self, spans: list[Span]) -> None:
        self._finished.append((self.names[0], None, spans))

    def _start(self) -> None:
        with self._exporting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, daemon=True, name="telemetry")
                self._thread.start()

    def _run(self) -> None:
        self._stopping.wait(LOAD_AFTER_SECONDS)
        self._load()
        while not self._stopping.is_set():
            self.export()
            self._stopping.wait(EXPORT_INTERVAL_SECONDS)

    def _load(self) -> None:
        """Loads the exporters; one that fails is logged and left out."""
        with self._exporting:
            if self._exporters is None:
                loaded = (self._prometheus(), self._otlp())
                self._exporters = [exporter for exporter in loaded if exporter is not None]

    def _prometheus(self) -> TelemetryExporter | None:
        port = self.services.settings.metrics_port
        if not port:
            return None
        try:
            # imported here: takes 83 ms, after the first response
            from shop.runtime.prometheus import PrometheusExporter

            return PrometheusExporter(",".join(self.names), port, self._live_values)
        except (ImportError, OSError) as error:
            log.write("no metrics", error=str(error), port=port)
        return None

    def _live_values(self) -> tuple[LiveValue, ...]:
        """The values of ``LIVE_METRICS``, after the queued messages are counted."""
        self.export()
        seconds = seconds_since_start(os.getpid())
        of_process = {} if seconds is None else {(): seconds}
        of_database = ({(): value} for value in self.services.database_metrics())
        services = self.services
        by_label = services.repeated_connections(), services.replica_reads()
        return {(): len(self.in_flight)}, of_process, *of_database, *by_label

    def _otlp(self) -> TelemetryExporter | None:
        endpoint = self.services.settings.otel_exporter_otlp_endpoint
        if not endpoint:
            return None
        # imported here: only processes that push need it
        from shop.runtime.otlp import OtlpExporter

        return OtlpExporter(self.names, endpoint)

    def _close(self) -> None:
        self._load()
        self.export()
        for exporter in self._exporters or ():
            exporter.close()


def seconds_since_start(pid: int) -> float | None:
    """How long ago the kernel started a process; None when it cannot be read.

    proc(5): field 22 of ``stat`` is the start in clock ticks since boot.
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return now - int(fields[19]) / os.sysconf("SC_CLK_TCK")
