"""The numbers of this process on a page of its own: ``GET /metrics`` on METRICS_PORT.

Never on the public port: there a scrape would pass the queue-proxy, count as traffic and keep the
process from going to sleep.  Imported after the first answer (``telemetry``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shop.runtime.metrics import LIVE, MEASURES, SECONDS, Measure, figures_of

if TYPE_CHECKING:
    from shop.runtime.message_context import MessageContext, Span
    from shop.runtime.telemetry import Telemetry


class Page:
    """Counts, and serves the counts to Prometheus; raises OSError when the port is taken."""

    def __init__(self, telemetry: Telemetry, port: int) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # twice the page, read by nobody
        registry = CollectorRegistry()
        registry.register(_Live(telemetry))  # the first that is asked: it tells what waits
        self._families = {m.name: _family(m, registry) for m in MEASURES}
        self._series: dict[tuple[str, tuple[str, ...]], Any] = {}
        ProcessCollector(registry=registry)
        self._server, _ = start_http_server(port, registry=registry)

    def export(self, function: str, handling: MessageContext | None, steps: list[Span]) -> None:
        """Adds one message to the counts."""
        for name, labels, value in figures_of(function, handling, steps):
            series = self._series.get((name, labels))
            if series is None:
                series = self._series[name, labels] = self._families[name].labels(*labels)
            _ADD[type(series)](series, value)

    def close(self) -> None:
        """Stops serving; who has not asked by now will not know."""
        self._server.shutdown()
        self._server.server_close()


class _Live(Collector):
    """What is read at the moment of asking."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def describe(self) -> list[Metric]:
        """The families' names, so that registering asks nothing."""
        return [_live_family(measure) for measure in LIVE]

    def collect(self) -> Iterator[Metric]:
        """In flight, round trips and transactions, after everything finished has been counted."""
        self._telemetry.export()
        function = ",".join(self._telemetry.names)
        round_trips, transactions = self._telemetry.services.database_figures()
        values = (len(self._telemetry.at_work), round_trips, transactions)
        for measure, value in zip(LIVE, values, strict=True):
            family = _live_family(measure)
            family.add_metric([function], value)
            yield family


def _live_family(measure: Measure) -> CounterMetricFamily | GaugeMetricFamily:
    made = CounterMetricFamily if measure.kind == "counter" else GaugeMetricFamily
    return made(measure.name, measure.meaning, labels=list(measure.labels))


def _family(measure: Measure, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    name, meaning, labels = measure.name, measure.meaning, measure.labels
    if measure.kind == "histogram":
        return Histogram(name, meaning, labels, registry=registry, buckets=SECONDS)
    if measure.kind == "gauge":
        return Gauge(name, meaning, labels, registry=registry)
    return Counter(name, meaning, labels, registry=registry)


_ADD: dict[type, Any] = {
    Counter: Counter.inc,
    Gauge: Gauge.set,
    Histogram: Histogram.observe,
}
