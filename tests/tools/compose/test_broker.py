"""``shop broker`` as a process: delivery, retries over a restart, and ticks of due work."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psycopg

from tests.tools.local_platform.function_server import function_server
from tests.waiting import wait_for
from tools.compose.broker import noting_events
from tools.local_platform.http_listener import Receive, Scope, Send
from tools.local_platform.secrets import CLOCK, Secrets
from tools.local_platform.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
DUE_OUTBOX_ROW = """
insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at)
values (gen_random_uuid(), '/shop/place_order', 'order.placed', 'x', '{}', '', now())
"""


def started_broker(
    port: int, folder: Path, pattern: str, database_url: str, secrets: Secrets
) -> subprocess.Popen[bytes]:
    """A process of ``shop broker``; it may not be ready yet."""
    environment = {
        "PATH": os.environ["PATH"],
        "SHOP_PROFILE": "local",
        "DATABASE_URL": database_url,
        "EVENT_SIGNING_KEY": secrets.event_keys[CLOCK],
        "EVENT_KEYS": secrets.event_key_set,
    }
    command = [sys.executable, "-m", "tools.cli", "broker", "--port", str(port)]
    command += ["--data", str(folder), "--functions", pattern]
    with (folder / "stdout").open("wb") as output, (folder / "stderr").open("wb") as errors:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=errors)


@contextmanager
def running_broker(
    folder: Path, pattern: str, database_url: str, secrets: Secrets
) -> Generator[int]:
    """Runs ``shop broker`` and yields its port; afterwards it must exit with 0."""
    port = free_port()
    process = started_broker(port, folder, pattern, database_url, secrets)
    try:
        wait_for(lambda: status_of(port, process), "the broker's status")
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait(timeout=20)


def status_of(port: int, process: subprocess.Popen[bytes]) -> object:
    assert process.poll() is None, f"the broker exited with {process.returncode}"
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/status")
        return json.loads(connection.getresponse().read())
    except OSError:
        return None
    finally:
        connection.close()


def send_order_placed(port: int) -> int:
    """Sends one event to the broker; the status of its response."""
    headers = {
        "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop/place_order",
        "ce-type": "com.msashop.order.placed.v1", "content-type": "application/json",
    }  # fmt: skip
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/", b"{}", headers)
    status = connection.getresponse().status
    connection.close()
    return status


def of_type(received: list[dict[str, str]], name: str) -> list[dict[str, str]]:
    """The received events of one type."""
    return [headers for headers in received if headers["ce-type"] == f"com.msashop.{name}.v1"]


def test_event_is_redelivered_after_a_503(
    tmp_path: Path, database_url: str, secrets: Secrets
) -> None:
    with (
        function_server(503) as (pattern, received),
        running_broker(tmp_path, pattern, database_url, secrets) as port,
    ):
        assert send_order_placed(port) == 202

        wait_for(lambda: len(of_type(received, "order.placed")) == 2, "a second delivery")


def test_undelivered_event_is_delivered_after_a_restart(
    tmp_path: Path, database_url: str, secrets: Secrets
) -> None:
    unreachable = f"http://{{name}}@127.0.0.1:{free_port()}"
    with running_broker(tmp_path, unreachable, database_url, secrets) as port:
        assert send_order_placed(port) == 202

    with (
        function_server() as (pattern, received),
        running_broker(tmp_path, pattern, database_url, secrets),
    ):
        wait_for(lambda: of_type(received, "order.placed"), "the delivery")


def test_subscriber_that_its_server_does_not_know_stops_the_start(
    tmp_path: Path, database_url: str, secrets: Secrets
) -> None:
    with function_server() as (pattern, _):
        address = pattern.replace("{name}@", "") + "/function/shop-{group}"
        process = started_broker(free_port(), tmp_path, address, database_url, secrets)
        assert process.wait(timeout=60) == 2

    message = (tmp_path / "stderr").read_text("utf-8")
    assert "no function at the address of" in message
    assert "settle: 404 from http://127.0.0.1" in message
    assert "/function/shop-settlements" in message


def test_subscriber_that_is_down_at_the_start_is_named_until_it_answers(
    tmp_path: Path, database_url: str, secrets: Secrets
) -> None:
    health = {"/health/readiness": 503}
    with (
        function_server(health=health) as (pattern, _),
        running_broker(tmp_path, pattern, database_url, secrets),
    ):
        output = tmp_path / "stdout"
        wait_for(lambda: "not answering, events are retried" in output.read_text(), "the functions")
        assert "settle (503 from" in output.read_text()

        health["/health/readiness"] = 200

        wait_for(lambda: "receives events answers" in output.read_text(), "the answers")


def test_due_work_is_ticked(tmp_path: Path, database_url: str, secrets: Secrets) -> None:
    with (
        function_server() as (pattern, received),
        running_broker(tmp_path, pattern, database_url, secrets),
    ):
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(DUE_OUTBOX_ROW)

        wait_for(lambda: of_type(received, "clock.ticked"), "a tick")

    assert {headers["host"] for headers in of_type(received, "clock.ticked")} == {"sweep"}


def test_event_is_noted_as_traffic_and_a_status_request_is_not() -> None:
    noted: list[str] = []
    seen: list[str] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["method"])

    async def unused(*_: object) -> Any:
        raise AssertionError

    noting = noting_events(application, lambda: noted.append("event"))

    async def scenario() -> None:
        for method in ("POST", "GET"):
            await noting({"type": "http", "method": method, "path": "/"}, unused, unused)

    asyncio.run(scenario())

    assert (seen, noted) == (["POST", "GET"], ["event"])
