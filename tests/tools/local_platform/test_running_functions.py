"""Functions at fixed addresses: what broker and clock do where somebody else runs the processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.tools.local_platform.platform_under_test import SPECS
from tests.waiting import wait_for
from tools.local_platform.http_messages import HttpRequest
from tools.local_platform.running_functions import RunningFunctions
from tools.local_platform.secrets import CLOCK, Secrets
from tools.local_platform.servers import free_port

ROOT = Path(__file__).resolve().parents[3]
EVENT = HttpRequest("POST", b"/events", [(b"host", b"subscriber")], b"{}")
DUE = """
insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at)
values (gen_random_uuid(), '/shop/place_order', 'order.placed', 'x', '{}', '', now())
"""


class Function(BaseHTTPRequestHandler):
    """Takes every event, after the statuses in ``responses``; ``0`` closes without an response."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, str]]
    responses: list[int]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        status = self.responses.pop(0) if self.responses else 204
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        if status != 204:
            self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def function(*responses: int) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """One server that is every function: the pattern of its addresses, and what it received."""
    handler = type("OwnFunction", (Function,), {"seen": [], "responses": list(responses)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            # the name stands where it changes nothing: all of them are at one address here
            yield f"http://{{name}}@127.0.0.1:{server.server_port}", handler.seen
        finally:
            server.shutdown()
            thread.join()


def statuses(pattern: str, times: int = 1) -> list[int]:
    """The responses to an event that is sent so many times."""

    async def send() -> list[int]:
        functions = RunningFunctions(SPECS, pattern)
        found = [(await functions.send("subscriber", EVENT)).status for _ in range(times)]
        functions.close()
        return found

    return asyncio.run(send())


def test_a_function_is_reached_at_its_address_over_one_connection() -> None:
    with function() as (pattern, seen):
        assert statuses(pattern, times=3) == [204, 204, 204]
    assert [headers["host"] for headers in seen] == ["subscriber"] * 3


def test_what_a_function_answers_comes_back_and_a_broken_one_is_502() -> None:
    with function(503, 0, 204) as (pattern, _):
        assert statuses(pattern, times=3) == [503, 502, 204]


def test_a_function_that_is_not_there_is_503() -> None:
    assert statuses(f"http://{{name}}@127.0.0.1:{free_port()}") == [503]


@pytest.mark.parametrize("pattern", ["http://functions:8080", "https://{name}", "{name}:80"])
def test_a_pattern_that_leads_nowhere_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="not an http URL"):
        RunningFunctions(SPECS, pattern)


@contextmanager
def broker(folder: Path, pattern: str, database_url: str, secrets: Secrets) -> Iterator[int]:
    """``shop broker`` as a process; its port.  It ends with status 0."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "SHOP_PROFILE": "local",
        "DATABASE_URL": database_url,
        "EVENT_SIGNING_KEY": secrets.event_keys[CLOCK],
        "EVENT_KEYS": secrets.event_key_set,
    }
    command = [sys.executable, "-m", "tools.cli", "broker", "--port", str(port)]
    command += ["--data", str(folder), "--functions", pattern]
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: status_of(port, process), "the broker responses")
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait(timeout=20)


def status_of(port: int, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    assert process.poll() is None, f"ended with {process.returncode}"
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/status")
        status: dict[str, Any] = json.loads(connection.getresponse().read())
        return status
    except OSError:
        return None
    finally:
        connection.close()


def announce(port: int) -> int:
    """Sends one event to the broker."""
    headers = {
        "ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop/place_order",
        "ce-type": "com.msashop.order.placed.v1", "content-type": "application/json",
    }  # fmt: skip
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/", b"{}", headers)
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_broker_delivers_again_what_a_function_refused(
    tmp_path: Path, database_url: str, secrets: Secrets
) -> None:
    with function(503) as (pattern, seen), broker(tmp_path, pattern, database_url, secrets) as port:
        assert announce(port) == 202

        wait_for(lambda: len(of_type(seen, "order.placed")) == 2, "a second delivery")


def test_what_is_undelivered_is_delivered_after_a_restart(
    tmp_path: Path, database_url: str, secrets: Secrets
) -> None:
    nowhere = f"http://{{name}}@127.0.0.1:{free_port()}"
    with broker(tmp_path, nowhere, database_url, secrets) as port:
        assert announce(port) == 202

    with function() as (pattern, seen), broker(tmp_path, pattern, database_url, secrets):
        wait_for(lambda: of_type(seen, "order.placed"), "the delivery")


def test_the_clock_ticks_for_what_is_due(
    tmp_path: Path, database_url: str, secrets: Secrets
) -> None:
    with function() as (pattern, seen), broker(tmp_path, pattern, database_url, secrets):
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(DUE)

        wait_for(lambda: of_type(seen, "clock.ticked"), "a tick")

    assert {headers["host"] for headers in of_type(seen, "clock.ticked")} == {"sweep"}


def of_type(seen: list[dict[str, str]], name: str) -> list[dict[str, str]]:
    """The events of one type among what was received."""
    return [headers for headers in seen if headers["ce-type"] == f"com.msashop.{name}.v1"]
