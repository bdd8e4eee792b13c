"""Publishing to Knative's in-memory broker, which delivers while the request is open."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shop.messaging import outbox
from shop.registry import all_specs
from shop.runtime import open_deliveries
from tests.function_process import ProcessHarness, running_function
from tests.harness import MakeShop, ShopHarness, order_body
from tests.tools.payment_simulator.simulator_process import SimulatorProcess
from tests.waiting import wait_for
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.broker import Broker, DeliveryRule, LocalBrokerClass
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.delivery_store import DeliveryStore
from tools.local_platform.http_listener import listen, serving
from tools.local_platform.http_messages import HttpRequest, HttpResponse
from tools.local_platform.ingress import ingress


class HoldingBroker:
    """An ingress whose responses the test releases; it notes publishers that hang up before."""

    def __init__(self) -> None:
        self.requests = 0
        self.hang_ups = 0
        self.status = 202
        self.released = threading.Event()
        broker = self

        class Ingress(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                broker.requests += 1
                broker.released.wait(30)
                if broker.status == 0:
                    self.close_connection = True
                    return
                self.connection.setblocking(False)
                try:
                    broker.hang_ups += self.connection.recv(1) == b""
                except BlockingIOError:
                    self.connection.setblocking(True)
                    self.send_response(broker.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Suppresses the access log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Ingress)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/shop/shop"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def broker() -> Iterator[HoldingBroker]:
    server = HoldingBroker()
    yield server
    server.close()


@pytest.fixture
def shop(make_shop: MakeShop, broker: HoldingBroker) -> ShopHarness:
    """The shop with a broker that delivers while requests are open."""
    return make_shop(broker_url=broker.url, broker_class="imc")


def order_placed(shop: ShopHarness) -> dict[str, Any]:
    """The row of the newest event of an order."""
    return [row for row in shop.outbox(undone=False) if row["type"] == "order.placed"][-1]


def open_in(shop: ShopHarness) -> int:
    return shop.apps["place_order"].services.open_deliveries


def test_order_is_answered_while_its_event_is_delivered(
    shop: ShopHarness, broker: HoldingBroker
) -> None:
    shop.person().order(shop.product())

    wait_for(lambda: broker.requests == 1, "the broker has the event")
    assert (open_in(shop), order_placed(shop)["sent_at"]) == (1, None)
    broker.released.set()
    wait_for(lambda: open_in(shop) == 0, "the delivery ends")
    assert broker.hang_ups == 0
    assert order_placed(shop)["sent_at"] is not None


def test_event_is_leased_while_its_delivery_goes_on(
    shop: ShopHarness, broker: HoldingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_deliveries, "RENEWAL_SECONDS", 0.05)
    shop.person().order(shop.product())
    shop.sql("update shop.outbox set next_try_at = now()")

    wait_for(
        lambda: not shop.sql("select event_id from shop.outbox where next_try_at <= now()"),
        "the lease is renewed",
    )
    shop.tick("sweep")

    assert broker.requests == 1, "the sweep does not publish it again"
    late = "select event_id from shop.outbox where next_try_at > now() + interval '10 seconds'"
    assert shop.sql(late) == [], "a killed process's events are due within ten seconds"


@pytest.mark.parametrize("status", [500, 0])
def test_failed_delivery_is_sent_once_and_stays_due(
    shop: ShopHarness, broker: HoldingBroker, status: int
) -> None:
    """0: the connection ends without a response, so the event may have been delivered."""
    broker.status = status
    broker.released.set()
    shop.person().order(shop.product())

    wait_for(lambda: broker.requests and open_in(shop) == 0, "the delivery ends")
    assert (broker.requests, order_placed(shop)["sent_at"]) == (1, None)


def test_event_without_a_free_thread_is_left_to_the_sweep(
    make_shop: MakeShop, broker: HoldingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_deliveries, "OPEN_MAX", 1)
    shop = make_shop(broker_url=broker.url, broker_class="imc")
    product = shop.product()
    shop.person().order(product)
    shop.person().order(product)

    wait_for(lambda: broker.requests == 1, "the broker has the first event")
    assert open_in(shop) == 1
    broker.released.set()
    wait_for(lambda: open_in(shop) == 0, "the delivery ends")
    shop.sql("update shop.outbox set next_try_at = now() where sent_at is null")
    shop.tick("sweep")

    assert [row["sent_at"] for row in shop.outbox() if row["sent_at"] is None] == []


def test_failure_to_mark_an_event_frees_its_thread_and_leaves_it_due(
    make_shop: MakeShop, broker: HoldingBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one thread, the second event is sent only if the first delivery ended."""
    monkeypatch.setattr(open_deliveries, "OPEN_MAX", 1)
    broker.released.set()
    shop = make_shop(broker_url=broker.url, broker_class="imc")
    product = shop.product()
    with monkeypatch.context() as starved:
        starved.setattr(outbox, "mark_sent", raise_memory_error)
        shop.person().order(product)
        wait_for(lambda: broker.requests and open_in(shop) == 0, "the first delivery ends")

    shop.person().order(product)

    wait_for(lambda: order_placed(shop)["sent_at"] is not None, "the second event is marked")
    assert [row["sent_at"] is None for row in shop.outbox() if row["type"] == "order.placed"] == [
        True,
        False,
    ]


def raise_memory_error(*_: object) -> None:
    raise MemoryError


def test_sweep_alerts_about_an_event_that_the_broker_rejects(
    shop: ShopHarness, broker: HoldingBroker
) -> None:
    broker.status = 400
    broker.released.set()
    shop.person().order(shop.product())
    wait_for(lambda: broker.requests and open_in(shop) == 0, "the first request ends")
    shop.sql("update shop.outbox set next_try_at = now()")

    shop.tick("sweep")

    alerts = shop.sql("select subject from shop.alarms where kind = 'event_rejected'")
    assert [alert["subject"] for alert in alerts] == ["order.placed"]


def test_sigterm_during_a_delivery_waits_for_it(
    processes: ProcessHarness, broker: HoldingBroker, make_shop: MakeShop
) -> None:
    ((product,),) = processes.sql(
        "with c as (insert into shop.categories (name) values ('열린 요청') "
        "on conflict do nothing), p as (insert into shop.products (name, category, price_minor, "
        "currency) values ('물건', '열린 요청', 1000, 'KRW') returning product_id) "
        "insert into shop.stock (product_id, on_hand) select product_id, 9 from p "
        "returning product_id"
    )
    environment = processes.environment("place_order", BROKER_URL=broker.url, BROKER_CLASS="imc")
    with running_function("container", "place_order", environment) as running:
        status, _, _ = running.request("POST", "/orders", order_body(product), processes.customer())
        wait_for(lambda: broker.requests == 1, "the broker has the event")

        running.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not _accepts(running.port), "the process accepts no more requests")
        is_running = running.process.poll() is None
        broker.released.set()

        assert (status, is_running, running.process.wait(10)) == (201, True, 0)
    assert broker.hang_ups == 0
    ((sent_at,),) = processes.sql("select sent_at from shop.outbox where type = 'order.placed'")
    assert sent_at is not None


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


# ---------------------------------------------------------------- the whole path of an order


class FunctionsOfHarness:
    """The functions of a shop in this process; ``failures`` are first responses by function."""

    def __init__(self, shop: ShopHarness, failures: dict[str, list[int]]) -> None:
        self._shop = shop
        self._failures = failures
        self.deliveries: list[tuple[str, int]] = []

    async def send(self, function: str, request: HttpRequest) -> HttpResponse:
        failures = self._failures.get(function, [])
        if failures:
            response = HttpResponse(failures.pop(0))
        else:
            headers = {name.decode(): value.decode() for name, value in request.headers}
            answered = await asyncio.to_thread(
                self._shop.post_event, function, headers, request.body
            )
            response = HttpResponse(answered.status, [], answered.body)
        self.deliveries.append((function, response.status))
        return response

    def processes_max(self, function: str) -> int:
        return 1


class InMemoryBroker:
    """The local platform's broker of the class imc, in an event loop of its own thread."""

    def __init__(self) -> None:
        self.activity_log = ActivityLog(quiet=True)
        self.functions: FunctionsOfHarness | None = None
        self._listener = listen(0)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    def start(self, functions: FunctionsOfHarness) -> None:
        self.functions = functions
        self._thread.start()

    async def _run(self) -> None:
        assert self.functions is not None
        store = DeliveryStore(Path(":memory:"))
        rule = DeliveryRule(retries_max=3, delay_seconds=0.6, timeout_seconds=10)
        broker = Broker(
            all_specs(),
            self.functions,
            store,
            DeliveryFaults(),
            self.activity_log,
            rule,
            LocalBrokerClass.IMC,
        )
        async with serving(ingress(broker, dict), self._listener):
            await self._stopped.wait()
        await broker.close()
        store.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()


@pytest.mark.parametrize(("broker_class", "final"), [("imc", "PAID"), ("kafka", "PENDING")])
def test_order_is_paid_without_the_sweep_though_its_first_delivery_fails(
    make_shop: MakeShop, simulator: SimulatorProcess, broker_class: str, final: str
) -> None:
    """Only a publisher that knows the broker's class keeps its request open for the retry."""
    simulator.set_faults()
    broker = InMemoryBroker()
    shop = make_shop(broker_url=broker.url, broker_class=broker_class)
    functions = FunctionsOfHarness(shop, {"charge": [503]})
    broker.start(functions)
    try:
        person = shop.person()
        order = person.order(shop.product())
        if final == "PAID":
            wait_for(lambda: _status(person, order) == "PAID", "the order is paid")
            wait_for(lambda: ("charge", 204) in functions.deliveries, "the delivery succeeds")
        else:
            wait_for(lambda: broker.activity_log.counts["hang-ups"] == 1, "the publisher left")
        assert _status(person, order) == final
        assert functions.deliveries[0] == ("charge", 503)
    finally:
        for app in shop.apps.values():
            wait_for(lambda services=app.services: not services.open_deliveries, "deliveries end")
        broker.close()


def _status(person: Any, order: dict[str, Any]) -> str:
    response = person.get(f"/orders/{order['id']}")
    return json.loads(response.body)["status"]
