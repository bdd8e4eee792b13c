"""One trace per order, from the request through outbox, event and consumer to the provider."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from shop.runtime import message_context, trace
from shop.runtime.message_context import MessageContext, span
from shop.runtime.metrics import figures_of
from shop.runtime.otlp import Push
from shop.runtime.telemetry import STOP_SECONDS, Telemetry
from tests.functions.test_runtime_processes import House, served
from tests.harness import EventBroker, ShopHarness
from tests.tools.observability.conftest import Collector, Overhearing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = f"00-{TRACE}-00f067aa0ba902b7-01"


class Kept(Telemetry):
    """Keeps every finished message and tells nobody."""

    def __init__(self, shop: ShopHarness, function: str, kept: list[MessageContext]) -> None:
        super().__init__((function,), shop.apps[function].services)
        self.is_on = True
        self._kept = kept

    def finish(self, handling: MessageContext) -> None:
        self._kept.append(handling)


def watched(shop: ShopHarness) -> list[MessageContext]:
    """What every function of the shop handles from now on."""
    kept: list[MessageContext] = []
    for function, app in shop.apps.items():
        app.telemetry = Kept(shop, function, kept)
    return kept


def span_id(traceparent: str) -> str:
    return traceparent.split("-")[2]


def traces(shop: ShopHarness) -> set[str | None]:
    return {trace.id_of(row["traceparent"]) for row in shop.outbox(undone=False)}


def test_an_order_is_one_trace(
    make_shop: Callable[..., ShopHarness],
    overhearing: Overhearing,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shop = make_shop(payment_provider_url=overhearing.url)
    kept = watched(shop)

    order = shop.person().order(shop.product(), headers={"traceparent": CALLER})
    shop.deliver_all()

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["trace"] for line in lines} == {TRACE}
    assert {line.get("type") for line in lines} >= {None, "order.placed"}
    rows = shop.outbox(undone=False)
    assert {row["type"] for row in rows} >= {"order.placed", "order.paid"}
    assert {str(row["order_id"]) for row in rows} == {order["id"]}
    assert traces(shop) == {TRACE}
    assert len(overhearing.asked) >= 2
    assert {trace.id_of(told) for _, told in overhearing.asked} == {TRACE}
    assert {trace.id_of(message.traceparent) for message in kept} == {TRACE}


def test_each_span_has_the_one_before_as_its_parent(
    make_shop: Callable[..., ShopHarness], overhearing: Overhearing
) -> None:
    shop = make_shop(payment_provider_url=overhearing.url)
    kept = watched(shop)

    shop.person().order(shop.product(), headers={"traceparent": CALLER})
    shop.deliver_all()

    placed = kept[0]
    charged = next(message for message in kept if message.event_type == "order.placed")
    (row,) = [row for row in shop.outbox(undone=False) if row["type"] == "order.placed"]
    calling = next(each for each in charged.steps if each.name == "provider charge")
    paid = next(r for r in shop.outbox(undone=False) if r["type"] == "order.paid")
    assert placed.parent == CALLER
    assert row["traceparent"] == placed.traceparent == charged.parent
    assert span_id(charged.traceparent) != span_id(placed.traceparent)
    assert calling.parent == charged.traceparent == paid["traceparent"]
    assert {told for _, told in overhearing.asked} == {calling.traceparent}
    assert [each.name for each in placed.steps] == ["transaction"]
    assert {each.name for each in charged.steps} == {"transaction", "provider charge"}


def test_the_broker_is_told_in_the_header_too(make_shop: Callable[..., ShopHarness]) -> None:
    broker = EventBroker()
    try:
        shop = make_shop(broker_url=broker.url)
        shop.person().order(shop.product(), headers={"traceparent": CALLER})
    finally:
        broker.close()

    ((headers, _),) = broker.all
    assert headers["traceparent"] == headers["ce-traceparent"]
    assert trace.id_of(headers["traceparent"]) == TRACE


def test_what_only_the_clock_moves_on_stays_in_the_orders_trace(shop: ShopHarness) -> None:
    order = shop.person().order(shop.product(), headers={"traceparent": CALLER})
    shop.sql("update shop.orders set charge_at = now() where order_id = %s::uuid", order["id"])

    assert shop.tick("sweep").status == 204

    assert {row["type"] for row in shop.outbox(undone=False)} >= {"order.placed", "order.paid"}
    assert traces(shop) == {TRACE}


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-00f067aa0ba902b7-01"])
def test_without_a_trace_to_believe_one_begins(shop: ShopHarness, header: str) -> None:
    headers = {"traceparent": header} if header else {}

    shop.person().order(shop.product(), headers=headers)

    (found,) = traces(shop)
    assert found and found != "0" * 32


def test_what_the_caller_does_not_sample_is_not() -> None:
    assert trace.continue_or_start(CALLER[:-2] + "00").endswith("-00")
    assert trace.continue_or_start(CALLER[:-2] + "03").endswith("-01")
    assert trace.continue_or_start("").endswith("-01")


def test_consumers_say_what_became_of_an_event(
    shop: ShopHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = watched(shop)
    shop.person().order(shop.product())
    (row,) = shop.outbox()

    statuses = [shop.deliver(row, "charge").status for _ in range(2)]
    refused = shop.deliver(row, "refund").status

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = [line for line in lines if "event" in line]
    assert (statuses, refused) == ([204, 204], 422)
    assert [line["outcome"] for line in events] == ["taken", "duplicate", "refused"]
    assert {(line["event"], line["type"]) for line in events} == {
        (str(row["event_id"]), "order.placed")
    }
    counted = [f for m in kept for f in figures_of(m.function, m, m.steps) if "events" in f[0]]
    assert counted == [
        ("shop_events_total", ("charge", "order.placed", "taken"), 1),
        ("shop_events_total", ("charge", "order.placed", "duplicate"), 1),
        ("shop_events_total", ("refund", "order.placed", "refused"), 1),
    ]


def test_an_event_that_calls_for_nothing_is_a_noop(shop: ShopHarness) -> None:
    buyer = shop.person()
    order = buyer.order(shop.product())
    (row,) = shop.outbox()
    assert buyer.patch(f"/orders/{order['id']}/cancel").status == 200
    kept = watched(shop)

    assert shop.deliver(row, "charge").status == 204

    assert kept[-1].outcome == "noop"


# ---------------------------------------------------------------- OTLP


@pytest.fixture
def push(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Push:
    """Pushes to the collector."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    return Push(("charge",))


def test_spans_are_pushed_with_the_ids_that_travelled(
    make_shop: Callable[..., ShopHarness],
    overhearing: Overhearing,
    collector: Collector,
    push: Push,
) -> None:
    shop = make_shop(payment_provider_url=overhearing.url)
    kept = watched(shop)
    shop.person().order(shop.product(), headers={"traceparent": CALLER})
    shop.deliver_all()

    for message in kept:
        push.export(message.function, message, message.steps)
    push.close()

    asked, charged = collector.span("POST /orders"), collector.span("process order.placed")
    calling = collector.span("provider charge")
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert asked.parent_span_id.hex() == span_id(CALLER)
    assert charged.parent_span_id == asked.span_id
    assert calling.parent_span_id == charged.span_id
    assert {span_id(told) for _, told in overhearing.asked} == {calling.span_id.hex()}
    assert charged.start_time_unix_nano <= calling.start_time_unix_nano
    assert calling.end_time_unix_nano <= charged.end_time_unix_nano
    assert collector.resources[0]["service.name"] == "charge"
    counted = collector.metrics["shop_requests"].sum.data_points
    assert sum(point.as_int or point.as_double for point in counted) == len(kept)


def test_a_redelivery_is_linked_and_no_second_child(
    shop: ShopHarness, collector: Collector, push: Push
) -> None:
    shop.person().order(shop.product(), headers={"traceparent": CALLER})
    (row,) = shop.outbox()
    kept = watched(shop)
    for _ in range(2):
        assert shop.deliver(row, "charge").status == 204

    for message in kept:
        push.export(message.function, message, message.steps)
    push.close()

    first, again = [span for span in collector.spans if span.name == "process order.placed"]
    assert first.parent_span_id.hex() == span_id(row["traceparent"])
    assert (again.parent_span_id, len(first.links)) == (b"", 0)
    assert again.trace_id.hex() != TRACE
    ((link,),) = (again.links,)
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, span_id(row["traceparent"]))
    within = [span for span in collector.spans if span.trace_id == again.trace_id]
    assert {span.parent_span_id for span in within} == {b"", again.span_id}


def test_no_span_says_what_was_written(shop: ShopHarness, collector: Collector, push: Push) -> None:
    kept = watched(shop)
    buyer = shop.person()
    buyer.order(shop.product(name="비밀 상품"))

    for message in kept:
        push.export(message.function, message, message.steps)
    push.close()

    said = " ".join(str(span) for span in collector.spans)
    assert "POST /orders" in said
    for secret in (buyer.token, "비밀", "insert into", "select "):
        assert secret not in said


def test_what_is_left_is_pushed_when_the_process_ends(house: House, collector: Collector) -> None:
    environment = house.environment("list_products", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    with served("container", "list_products", environment) as running:
        for _ in range(3):
            assert running.ask("GET", "/categories")[0] == 200
        running.process.send_signal(signal.SIGTERM)
        ended = running.process.wait(15)

    names = [span.name for span in collector.spans if span.name.startswith("GET")]
    assert (ended, names) == (0, ["GET /categories"] * 3)
    (cold,) = collector.metrics["cold_start_seconds"].gauge.data_points
    assert 0 < cold.as_double < 30


def test_a_collector_that_hangs_holds_the_end_up_for_two_seconds(
    house: House, collector: Collector
) -> None:
    collector.may_answer.clear()
    environment = house.environment("list_products", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    with served("container", "list_products", environment) as running:
        assert running.ask("GET", "/categories")[0] == 200
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        ended = running.process.wait(15)

    assert ended == 0
    assert time.monotonic() - began < STOP_SECONDS + 3


# ---------------------------------------------------------------- steps


def test_steps_that_become_many_are_handed_over() -> None:
    spilt: list[Any] = []
    message = MessageContext("sweep", "POST", CALLER, spilt.extend)
    message_context.begin(message)
    for number in range(message_context.STEPS_MAX + 3):
        with span("provider charge", "client", step="charge") as calling:
            calling.outcome = f"captured {number}"
    message_context.end()

    assert (len(spilt), len(message.steps)) == (message_context.STEPS_MAX, 3)
    assert {trace.id_of(each.traceparent) for each in spilt} == {TRACE}


def test_a_step_that_fails_says_so_and_the_next_is_no_child_of_it() -> None:
    message = MessageContext("charge", "POST", CALLER, lambda _: None)
    message_context.begin(message)
    with pytest.raises(ValueError, match="no"), span("transaction"):
        raise ValueError("no")
    within = message_context.traceparent_now()
    message_context.end()

    (failed,) = message.steps
    assert failed.outcome == "ValueError"
    assert within == message.traceparent
    assert message_context.traceparent_now() == ""
    assert message_context.current() is None
