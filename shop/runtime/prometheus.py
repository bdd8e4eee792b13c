"""The metrics endpoint of a process: ``GET /metrics`` on METRICS_PORT.

Never on the public port: there a scrape would pass the queue-proxy, count as traffic and prevent
scaling to zero.  Imported after the first response (``telemetry``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

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

from shop.runtime.metrics import (
    BUCKETS_SECONDS,
    LIVE_METRICS,
    METRICS,
    LiveValue,
    MetricDefinition,
    samples_of,
)

if TYPE_CHECKING:
    from shop.runtime.message_context import MessageContext, Span

LiveValues = Callable[[], tuple[LiveValue, ...]]


class PrometheusExporter:
    """Counts finished messages and serves the metrics; raises OSError when the port is taken.

    ``live_values`` returns the values of ``LIVE_METRICS``; it is called at each scrape.
    """

    def __init__(self, function: str, port: int, live_values: LiveValues) -> None:
        disable_created_metrics()  # they double the response and no dashboard uses them
        registry = CollectorRegistry()
        # registered first: reading the live values exports the queued messages
        registry.register(_LiveCollector(function, live_values))
        self._metrics = {m.name: _metric(m, registry) for m in METRICS}
        self._series: dict[tuple[str, tuple[str, ...]], Counter | Gauge | Histogram] = {}
        ProcessCollector(registry=registry)
        self._server, _ = start_http_server(port, registry=registry)

    def export(self, function: str, message: MessageContext | None, spans: list[Span]) -> None:
        """Adds one message to the metrics."""
        for name, labels, value in samples_of(function, message, spans):
            series = self._series.get((name, labels))
            if series is None:
                series = self._series[name, labels] = self._metrics[name].labels(*labels)
            match series:
                case Counter():
                    series.inc(value)
                case Gauge():
                    series.set(value)
                case Histogram():
                    series.observe(value)

    def close(self) -> None:
        """Stops serving; what has not been scraped by now is lost."""
        self._server.shutdown()
        self._server.server_close()


class _LiveCollector(Collector):
    """Reads the live values at each scrape."""

    def __init__(self, function: str, live_values: LiveValues) -> None:
        self._function = function
        self._live_values = live_values

    def describe(self) -> list[Metric]:
        """The metrics without values, so that registration reads nothing."""
        return [_live_metric_family(definition) for definition in LIVE_METRICS]

    def collect(self) -> Iterator[Metric]:
        """The metrics with their values of now."""
        for definition, values in zip(LIVE_METRICS, self._live_values(), strict=True):
            family = _live_metric_family(definition)
            for labels, value in values.items():
                family.add_metric([self._function, *labels], value)
            yield family


def _live_metric_family(definition: MetricDefinition) -> CounterMetricFamily | GaugeMetricFamily:
    family = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    return family(definition.name, definition.help, labels=list(definition.labels))


def _metric(
    definition: MetricDefinition, registry: CollectorRegistry
) -> Counter | Gauge | Histogram:
    name, text, labels = definition.name, definition.help, definition.labels
    match definition.kind:
        case "histogram":
            return Histogram(name, text, labels, registry=registry, buckets=BUCKETS_SECONDS)
        case "gauge":
            return Gauge(name, text, labels, registry=registry)
        case "counter":
            return Counter(name, text, labels, registry=registry)
