"""Metrics of a process: a separate port, loaded after the first response, correct values."""

# The state of the metrics thread is not visible over HTTP.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.client import HTTPConnection
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shop.runtime import telemetry
from shop.runtime.services import Services
from shop.runtime.telemetry import Telemetry
from tests.flows.telemetry_receivers import Collector
from tests.function_process import ROOT, ProcessHarness, free_port, running_function
from tests.harness import ShopHarness
from tests.waiting import wait_for
from tools.local_platform.secrets import Secrets

UNREACHABLE = "http://127.0.0.1:9"

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

# Serves one request as ``shop.runtime.server`` does and prints which libraries were imported when.
FIRST_RESPONSE = """
import io, json, sys, threading, time
from shop.registry import spec_of
from shop.runtime import server
from shop.runtime.bootstrap import make_app
from shop.runtime.http_messages import HttpRequest

LIBRARIES = ("prometheus_client", "shop.runtime.otlp")

def loaded():
    return [name for name in LIBRARIES if name in sys.modules]

app = make_app((spec_of("list_products"),))
app.warm()
before = loaded()
response = app.answer(HttpRequest("GET", "/nowhere", "", {}, "", io.BytesIO().read, 0))
at_once = loaded()
deadline = time.monotonic() + 20
while loaded() != list(LIBRARIES) and time.monotonic() < deadline:
    time.sleep(0.01)
print(json.dumps([before, at_once, loaded(), response.status]))
app.telemetry.stop()
"""


def scraped(port: int) -> Series:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    connection.close()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def is_up(port: int) -> bool:
    try:
        return bool(scraped(port))
    except OSError:
        return False


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def test_telemetry_libraries_load_after_the_first_response(
    secrets: Secrets, collector: Collector
) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "SHOP_PROFILE": "local",
        "DATABASE_URL": "postgresql://shop_catalog_ro@127.0.0.1:9/shop",
        "JWT_JWKS": secrets.jwks,
        "EVENT_KEYS": secrets.event_key_set,
        "METRICS_PORT": str(free_port()),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }
    done = subprocess.run(
        [sys.executable, "-c", FIRST_RESPONSE],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    before, at_once, later, status = json.loads(done.stdout.splitlines()[-1])
    assert (before, at_once, status) == ([], [], 404)
    assert later == ["prometheus_client", "shop.runtime.otlp"]


def test_idle_process_serves_metrics_after_a_delay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    settings = SimpleNamespace(metrics_port=port, otel_exporter_otlp_endpoint="")
    services = SimpleNamespace(
        settings=settings,
        database_metrics=lambda: (0, 0, 0.0),
        repeated_connections=dict,
        replica_reads=dict,
    )
    idle = Telemetry(("settle",), cast(Services, services))

    idle.on_probe()
    assert idle._thread is None, "a probe must not delay the start"
    monkeypatch.setattr(telemetry, "IDLE_START_SECONDS", 0.0)
    idle.on_probe()
    try:
        wait_for(lambda: is_up(port), "the metrics page")
        assert value(scraped(port), "shop_requests_in_flight", function="settle") == 0
    finally:
        idle.stop()
        thread = idle._thread
        assert thread is not None
        thread.join()


def test_process_counts_requests_events_and_transactions(processes: ProcessHarness) -> None:
    port = free_port()
    customer = processes.customer()
    ((product,),) = processes.sql("select max(product_id) from shop.products")
    order = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    environment = processes.environment(
        "place_order", METRICS_PORT=str(port), BROKER_URL=UNREACHABLE
    )
    with running_function("container", "place_order", environment) as running:
        assert not is_up(port), "health checks do not start the metrics page"
        statuses = [
            running.request("POST", "/orders", order, customer)[0],
            running.request("POST", "/orders", order, customer)[0],
            running.request("POST", "/orders", order)[0],
            running.request("GET", "/metrics")[0],
        ]
        wait_for(lambda: is_up(port), "the metrics page")
        page = scraped(port)

    assert statuses == [201, 201, 401, 404]
    of = {"function": "place_order"}
    placed = {**of, "route": "POST /orders"}
    assert value(page, "shop_requests_total", **placed, status="2xx") == 2
    assert value(page, "shop_requests_total", **placed, status="4xx") == 1
    assert value(page, "shop_requests_total", **of, route="unmatched", status="4xx") == 1
    assert value(page, "shop_request_duration_seconds_count", **placed) == 3
    left = {**of, "type": "order.placed", "outcome": "left"}
    assert value(page, "shop_outbox_published_total", **left) == 2, "the broker is unreachable"
    assert value(page, "shop_requests_in_flight", **of) == 0
    loaded = value(page, "cold_start_seconds_sum", **of) or 0
    assert loaded < (value(page, "shop_process_seconds_total", **of) or 0) < 60
    assert value(page, "shop_database_transactions_total", **of) == 2
    assert 4 <= (value(page, "shop_database_round_trips_total", **of) or 0) <= 8
    assert 0 < (value(page, "shop_database_seconds_total", **of) or 0) < 30
    assert value(page, "cold_start_seconds_count", **of) == 1
    assert 0.05 < (value(page, "cold_start_seconds_sum", **of) or 0) < 30


def test_metrics_port_in_use_does_not_stop_the_function(processes: ProcessHarness) -> None:
    environment = processes.environment("list_products")
    with (
        socket.create_server(("0.0.0.0", 0)) as taken,
        running_function(
            "container",
            "list_products",
            environment | {"METRICS_PORT": str(taken.getsockname()[1])},
        ) as running,
    ):
        statuses = {running.request("GET", "/categories")[0] for _ in range(3)}

    assert statuses == {200}


def test_without_metrics_port_nothing_is_recorded(shop: ShopHarness) -> None:
    shop.person().paid_order(shop.product())

    telemetries = [app.telemetry for app in shop.apps.values()]
    assert not any(telemetry.is_on for telemetry in telemetries)
    assert not any(telemetry._finished or telemetry.in_flight for telemetry in telemetries)
    assert "telemetry" not in {thread.name for thread in threading.enumerate()}
