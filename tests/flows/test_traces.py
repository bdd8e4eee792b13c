"""Traces: one per order, from the request through outbox, event and consumer to the provider."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shop.runtime import message_context, trace
from shop.runtime.message_context import MessageContext, Span, span
from shop.runtime.metrics import samples_of
from shop.runtime.otlp import OtlpExporter
from shop.runtime.telemetry import STOP_SECONDS, Telemetry
from tests.flows.telemetry_receivers import Collector, RecordingProxy
from tests.function_process import ROOT, ProcessHarness, running_function
from tests.harness import EventBroker, ShopHarness
from tests.waiting import wait_for

# As in the published image: other packages of the development environment do not exist.
ONLY_INSTALLED = """
import importlib.metadata, sys
installed = set({installed})
names = importlib.metadata.packages_distributions()
normal = {{name: {{d.lower().replace("_", "-") for d in own}} for name, own in names.items()}}
extra = {{name for name, own in normal.items() if not own & installed}}
class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in extra and top not in ("shop", "events", "functions", "tools", "chaos"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


class RecordedTelemetry(Telemetry):
    """Records every finished message and exports none."""

    def __init__(
        self,
        shop: ShopHarness,
        function: str,
        messages: list[MessageContext],
        late_spans: list[Span] | None = None,
    ) -> None:
        super().__init__((function,), shop.apps[function].services)
        self.is_on = True
        self._messages = messages
        self._late_spans = [] if late_spans is None else late_spans

    def finish(self, message: MessageContext) -> None:
        self._messages.append(message)

    def _queue_spans(self, spans: list[Span]) -> None:
        self._late_spans.extend(spans)


def record_messages(shop: ShopHarness) -> list[MessageContext]:
    """A list to which every function of the shop adds the messages that it finishes."""
    messages: list[MessageContext] = []
    for function, app in shop.apps.items():
        app.telemetry = RecordedTelemetry(shop, function, messages)
    return messages


def span_id(traceparent: str) -> str:
    return traceparent.split("-")[2]


def traces(shop: ShopHarness) -> set[str | None]:
    return {trace.id_of(row["traceparent"]) for row in shop.outbox(undone=False)}


def test_order_is_one_trace(
    make_shop: Callable[..., ShopHarness],
    recording_proxy: RecordingProxy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shop = make_shop(payment_provider_url=recording_proxy.url)
    messages = record_messages(shop)

    order = shop.person().order(shop.product(), headers={"traceparent": CALLER})
    shop.deliver_all()

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["trace"] for line in lines} == {TRACE}
    assert {line.get("type") for line in lines} >= {None, "order.placed"}
    rows = shop.outbox(undone=False)
    assert {row["type"] for row in rows} >= {"order.placed", "order.paid"}
    assert {str(row["order_id"]) for row in rows} == {order["id"]}
    assert traces(shop) == {TRACE}
    assert len(recording_proxy.requests) >= 2
    assert {trace.id_of(header) for _, header in recording_proxy.requests} == {TRACE}
    assert {trace.id_of(message.traceparent) for message in messages} == {TRACE}


def test_each_span_is_a_child_of_the_previous(
    make_shop: Callable[..., ShopHarness], recording_proxy: RecordingProxy
) -> None:
    shop = make_shop(payment_provider_url=recording_proxy.url)
    messages = record_messages(shop)

    shop.person().order(shop.product(), headers={"traceparent": CALLER})
    shop.deliver_all()

    placed = messages[0]
    charged = next(message for message in messages if message.event_type == "order.placed")
    (row,) = [row for row in shop.outbox(undone=False) if row["type"] == "order.placed"]
    calling = next(each for each in charged.spans if each.name == "provider charge")
    paid = next(r for r in shop.outbox(undone=False) if r["type"] == "order.paid")
    assert placed.parent == CALLER
    assert row["traceparent"] == placed.traceparent == charged.parent
    assert span_id(charged.traceparent) != span_id(placed.traceparent)
    assert calling.parent == charged.traceparent == paid["traceparent"]
    assert {header for _, header in recording_proxy.requests} == {calling.traceparent}
    assert [each.name for each in placed.spans] == ["transaction"]
    assert {each.name for each in charged.spans} == {"transaction", "provider charge"}


def test_published_event_has_traceparent_as_header_and_attribute(
    make_shop: Callable[..., ShopHarness],
) -> None:
    broker = EventBroker()
    try:
        shop = make_shop(broker_url=broker.url)
        shop.person().order(shop.product(), headers={"traceparent": CALLER})
    finally:
        broker.close()

    ((headers, _),) = broker.all
    assert headers["traceparent"] == headers["ce-traceparent"]
    assert trace.id_of(headers["traceparent"]) == TRACE


@pytest.mark.parametrize("status", [202, 500])
def test_publication_that_ends_after_its_request_is_a_span_of_the_trace(
    make_shop: Callable[..., ShopHarness], status: int
) -> None:
    broker = EventBroker()
    broker.status = status
    shop = make_shop(broker_url=broker.url, broker_class="imc")
    exported: list[Span] = []
    app = shop.apps["place_order"]
    app.telemetry = RecordedTelemetry(shop, "place_order", [], exported)

    shop.person().order(shop.product(), headers={"traceparent": CALLER})
    wait_for(lambda: exported and not app.services.open_deliveries, "the delivery ends")
    broker.close()

    (published,) = exported
    assert (published.name, trace.id_of(published.traceparent)) == ("publish order.placed", TRACE)
    outcome = {202: "accepted", 500: "left"}[status]
    assert list(samples_of("place_order", None, exported)) == [
        ("shop_outbox_published_total", ("place_order", "order.placed", outcome), 1)
    ]


def test_order_continued_by_the_sweep_stays_in_its_trace(shop: ShopHarness) -> None:
    order = shop.person().order(shop.product(), headers={"traceparent": CALLER})
    shop.sql("update shop.orders set charge_at = now() where order_id = %s::uuid", order["id"])

    assert shop.tick("sweep").status == 204

    assert {row["type"] for row in shop.outbox(undone=False)} >= {"order.placed", "order.paid"}
    assert traces(shop) == {TRACE}


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-00f067aa0ba902b7-01"])
def test_missing_or_invalid_traceparent_starts_a_new_trace(shop: ShopHarness, header: str) -> None:
    headers = {"traceparent": header} if header else {}

    shop.person().order(shop.product(), headers=headers)

    (found,) = traces(shop)
    assert found and found != "0" * 32


def test_sampling_decision_of_the_caller_is_kept() -> None:
    assert trace.continue_or_start(CALLER[:-2] + "00").endswith("-00")
    assert trace.continue_or_start(CALLER[:-2] + "03").endswith("-01")
    assert trace.continue_or_start("").endswith("-01")


def test_consumer_logs_and_counts_the_outcome_of_an_event(
    shop: ShopHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    messages = record_messages(shop)
    shop.person().order(shop.product())
    (row,) = shop.outbox()

    statuses = [shop.deliver(row, "charge").status for _ in range(2)]
    rejected = shop.deliver(row, "refund").status

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = [line for line in lines if "event" in line]
    assert (statuses, rejected) == ([204, 204], 422)
    assert [line["outcome"] for line in events] == ["taken", "duplicate", "refused"]
    assert {(line["event"], line["type"]) for line in events} == {
        (str(row["event_id"]), "order.placed")
    }
    counted = [f for m in messages for f in samples_of(m.function, m, m.spans) if "events" in f[0]]
    assert counted == [
        ("shop_events_total", ("charge", "order.placed", "taken"), 1),
        ("shop_events_total", ("charge", "order.placed", "duplicate"), 1),
        ("shop_events_total", ("refund", "order.placed", "refused"), 1),
    ]


def test_event_without_effect_is_a_noop(shop: ShopHarness) -> None:
    customer = shop.person()
    order = customer.order(shop.product())
    (row,) = shop.outbox()
    assert customer.patch(f"/orders/{order['id']}/cancel").status == 200
    messages = record_messages(shop)

    assert shop.deliver(row, "charge").status == 204

    assert messages[-1].outcome == "noop"


# ---------------------------------------------------------------- OTLP


@pytest.fixture
def push(collector: Collector) -> OtlpExporter:
    """Exports to the collector."""
    return OtlpExporter(("charge",), collector.url)


def test_exported_spans_have_the_propagated_ids(
    make_shop: Callable[..., ShopHarness],
    recording_proxy: RecordingProxy,
    collector: Collector,
    push: OtlpExporter,
) -> None:
    shop = make_shop(payment_provider_url=recording_proxy.url)
    messages = record_messages(shop)
    shop.person().order(shop.product(), headers={"traceparent": CALLER})
    shop.deliver_all()

    for message in messages:
        push.export(message.function, message, message.spans)
    push.close()

    placed, charged = collector.span("POST /orders"), collector.span("process order.placed")
    calling = collector.span("provider charge")
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert placed.parent_span_id.hex() == span_id(CALLER)
    assert charged.parent_span_id == placed.span_id
    assert calling.parent_span_id == charged.span_id
    assert {span_id(header) for _, header in recording_proxy.requests} == {calling.span_id.hex()}
    assert charged.start_time_unix_nano <= calling.start_time_unix_nano
    assert calling.end_time_unix_nano <= charged.end_time_unix_nano
    assert collector.resources[0]["service.name"] == "charge"
    counted = collector.metrics["shop_requests"].sum.data_points
    assert sum(point.as_int or point.as_double for point in counted) == len(messages)


def test_redelivery_is_a_linked_trace(
    shop: ShopHarness, collector: Collector, push: OtlpExporter
) -> None:
    shop.person().order(shop.product(), headers={"traceparent": CALLER})
    (row,) = shop.outbox()
    messages = record_messages(shop)
    for _ in range(2):
        assert shop.deliver(row, "charge").status == 204

    for message in messages:
        push.export(message.function, message, message.spans)
    push.close()

    first, again = [span for span in collector.spans if span.name == "process order.placed"]
    assert first.parent_span_id.hex() == span_id(row["traceparent"])
    assert (again.parent_span_id, len(first.links)) == (b"", 0)
    assert again.trace_id.hex() != TRACE
    ((link,),) = (again.links,)
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, span_id(row["traceparent"]))
    within = [span for span in collector.spans if span.trace_id == again.trace_id]
    assert {span.parent_span_id for span in within} == {b"", again.span_id}


def test_spans_contain_no_secrets_or_sql(
    shop: ShopHarness, collector: Collector, push: OtlpExporter
) -> None:
    messages = record_messages(shop)
    customer = shop.person()
    customer.order(shop.product(name="비밀 상품"))

    for message in messages:
        push.export(message.function, message, message.spans)
    push.close()

    exported = " ".join(str(span) for span in collector.spans)
    assert "POST /orders" in exported
    for secret in (customer.token, "비밀", "insert into", "select "):
        assert secret not in exported


def test_remaining_spans_are_exported_when_the_process_ends(
    processes: ProcessHarness, collector: Collector
) -> None:
    environment = processes.environment("list_products", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    with running_function("container", "list_products", environment) as running:
        for _ in range(3):
            assert running.request("GET", "/categories")[0] == 200
        running.process.send_signal(signal.SIGTERM)
        ended = running.process.wait(15)

    names = [span.name for span in collector.spans if span.name.startswith("GET")]
    assert (ended, names) == (0, ["GET /categories"] * 3)
    (cold,) = collector.metrics["cold_start_seconds"].histogram.data_points
    assert (cold.count, 0 < cold.sum < 30) == (1, True)


def test_published_image_exports_with_its_own_requirements(
    processes: ProcessHarness, collector: Collector, tmp_path: Path
) -> None:
    """No package that the lock of the functions image lacks can be imported."""
    lock = (ROOT / "requirements/functions.txt").read_text("utf-8")
    installed = re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)
    (tmp_path / "sitecustomize.py").write_text(ONLY_INSTALLED.format(installed=installed))
    environment = processes.environment("list_products", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"

    with running_function("container", "list_products", environment) as running:
        assert running.request("GET", "/categories")[0] == 200
        wait_for(lambda: collector.spans != [], "spans at the collector")

    assert "opentelemetry-sdk" not in installed
    assert {span.name for span in collector.spans} >= {"GET /categories", "transaction"}


def test_share_of_traces_is_exported_completely(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    push = OtlpExporter(("charge",), collector.url)
    kept, dropped = f"{'1' * 16}{'0' * 16}", f"{'1' * 16}{'f' * 16}"
    for trace_id, flag in ((kept, "01"), (dropped, "01"), (kept, "00")):
        message = MessageContext("charge", "POST", f"00-{trace_id}-{'2' * 16}-{flag}", print)
        message_context.begin(message)
        with span("transaction"):
            pass
        message_context.end()
        message.finish(200)
        push.export("charge", message, message.spans)
    push.close()

    assert [each.trace_id.hex() for each in collector.spans] == [kept, kept]


def test_headers_and_attributes_of_the_operator_are_sent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, x-other=c")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-charge")
    push = OtlpExporter(("charge",), collector.url)
    message = MessageContext("charge", "POST", CALLER)
    message.finish(503)
    push.export("charge", message, [])
    push.close()

    assert collector.headers[0].items() >= {"x-key": "a b", "x-other": "c"}.items()
    assert (
        collector.resources[0].items()
        >= {
            "deployment.environment": "prod",
            "service.name": "shop-charge",
        }.items()
    )
    (exported,) = collector.spans
    assert exported.status.code == exported.status.STATUS_CODE_ERROR
    duration = collector.metrics["shop_request_duration_seconds"].histogram.data_points[0]
    assert (duration.count, sum(duration.bucket_counts)) == (1, 1)


def test_hanging_collector_delays_the_end_by_at_most_two_seconds(
    processes: ProcessHarness, collector: Collector
) -> None:
    collector.may_respond.clear()
    environment = processes.environment("list_products", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    with running_function("container", "list_products", environment) as running:
        assert running.request("GET", "/categories")[0] == 200
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        ended = running.process.wait(15)

    assert ended == 0
    assert time.monotonic() - began < STOP_SECONDS + 3


# ---------------------------------------------------------------- steps


def test_full_span_buffer_is_exported() -> None:
    exported: list[Any] = []
    message = MessageContext("sweep", "POST", CALLER, exported.extend)
    message_context.begin(message)
    for number in range(message_context.SPANS_MAX + 3):
        with span("provider charge", "client", step="charge") as calling:
            calling.outcome = f"captured {number}"
    message_context.end()

    assert (len(exported), len(message.spans)) == (message_context.SPANS_MAX, 3)
    assert {trace.id_of(each.traceparent) for each in exported} == {TRACE}


def test_failed_span_has_its_error_and_is_no_parent_of_the_next() -> None:
    message = MessageContext("charge", "POST", CALLER, lambda _: None)
    message_context.begin(message)
    with pytest.raises(ValueError, match="no"), span("transaction"):
        raise ValueError("no")
    within = message_context.traceparent_now()
    message_context.end()

    (failed,) = message.spans
    assert failed.outcome == "ValueError"
    assert within == message.traceparent
    assert message_context.traceparent_now() == ""
    assert message_context.current() is None
