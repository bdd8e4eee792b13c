"""Real processes are killed at failpoints; their requests and events still take effect once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from events import envelope
from events.vocabulary import class_of
from shop.adapters.signatures import Signer
from tests.function_process import (
    FunctionProcess,
    ProcessHarness,
    command,
)
from tests.tools.payment_simulator.simulator_process import (
    API_KEY,
    SimulatorProcess,
    WebhookReceiver,
)
from tests.waiting import wait_for
from tools.local_platform.secrets import Secrets

ROOT = Path(__file__).resolve().parents[2]
Response = tuple[int, dict[str, str], bytes]


class CrashingProcess(FunctionProcess):
    """A function process with its standard error in a file."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, stderr: Path) -> None:
        super().__init__(process, port)
        self._stderr = stderr

    def crash_line(self) -> dict[str, Any]:
        """The one log line of the crash."""
        lines = self._stderr.read_text().splitlines()
        (line,) = [line for line in lines if line.startswith('{"event":"crash"')]
        fields: dict[str, Any] = json.loads(line)
        return fields

    def has_crashed(self) -> bool:
        return '{"event":"crash"' in self._stderr.read_text()


@contextmanager
def started(
    folder: Path, environment: dict[str, str], function: str, entry: str = "container"
) -> Generator[CrashingProcess, None, None]:
    errors = folder / f"{uuid4().hex}.err"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command(entry, function, environment["PORT"]),
            env=environment,
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    running = CrashingProcess(process, int(environment["PORT"]), errors)
    try:
        wait_for(running.is_up, f"{function} is up")
        yield running
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture
def broker() -> Iterator[WebhookReceiver]:
    """A broker that accepts every event."""
    receiver = WebhookReceiver()
    yield receiver
    receiver.close()


# ---------------------------------------------------------------- requests


def order_body(processes: ProcessHarness) -> dict[str, Any]:
    ((product,),) = processes.sql("select product_id from shop.stock order by on_hand desc limit 1")
    return {"productId": product, "quantity": 1, "paymentMethod": "CARD"}


def number_of_orders(processes: ProcessHarness) -> int:
    ((number,),) = processes.sql("select count(*) from shop.orders")
    return int(number)


@pytest.mark.parametrize(
    ("failpoint", "is_committed"),
    [("W0", False), ("W1", False), ("W2", False), ("W3", True), ("W4", True), ("W5", True),
     ("W6", True)],
)  # fmt: skip
def test_order_is_placed_once_wherever_its_process_crashes(
    processes: ProcessHarness,
    broker: WebhookReceiver,
    tmp_path: Path,
    failpoint: str,
    is_committed: bool,
) -> None:
    order, headers = order_body(processes), processes.customer() | {"Idempotency-Key": uuid4().hex}
    before = number_of_orders(processes)
    setting = f"place_order:{failpoint}:1"
    armed = processes.environment("place_order", SHOP_CRASH=setting, BROKER_URL=broker.url)
    with started(tmp_path, armed, "place_order") as running:
        with pytest.raises((OSError, HTTPException)):
            running.request("POST", "/orders", order, headers)
        exit_code = running.process.wait(5)
        crash = running.crash_line()
        with pytest.raises(OSError):  # refused, or reset until the kernel has closed the socket
            running.request("GET", "/health/liveness")
    wait_for(
        lambda: number_of_orders(processes) == before + is_committed,
        "PostgreSQL has ended the transaction",
    )

    first, again = responses_afterwards(processes, tmp_path, order, headers)

    assert (exit_code, crash["pid"]) == (-signal.SIGKILL, running.process.pid)
    assert (crash["function"], crash["failpoint"], crash["nth"]) == ("place_order", failpoint, 1)
    assert (first[0], again[0], first[2]) == (201, 201, again[2])
    assert ("idempotent-replayed" in first[1]) == is_committed
    assert number_of_orders(processes) == before + 1
    assert len(broker.received) == (failpoint in ("W5", "W6"))


def responses_afterwards(
    processes: ProcessHarness, folder: Path, order: dict[str, Any], headers: dict[str, str]
) -> tuple[Response, Response]:
    """Two responses of a process without a failpoint to the same idempotency key."""
    with started(folder, processes.environment("place_order"), "place_order") as running:
        first = running.request("POST", "/orders", order, headers)
        return first, running.request("POST", "/orders", order, headers)


@pytest.mark.parametrize("entry", ["container", "framework"])
def test_half_a_response_is_the_first_half_of_the_replayed_one(
    processes: ProcessHarness, tmp_path: Path, entry: str
) -> None:
    order, headers = order_body(processes), processes.customer() | {"Idempotency-Key": uuid4().hex}
    before = number_of_orders(processes)
    armed = processes.environment("place_order", SHOP_CRASH="place_order:W10:1")
    with started(tmp_path, armed, "place_order", entry) as running:
        invalid = running.request("POST", "/orders", {}, headers)  # client errors are not cut
        response = running.send_bytes(request_of(order, headers))
        wait_for(running.has_crashed, "it has crashed")
    head, _, half = response.partition(b"\r\n\r\n")

    first, again = responses_afterwards(processes, tmp_path, order, headers)

    assert invalid[0] == 422
    assert head.startswith(b"HTTP/1.1 201")
    assert f"content-length: {len(first[2])}".encode() in head.lower()
    assert half == first[2][: (len(first[2]) + 1) // 2]
    assert (first[0], first[2], first[1]["idempotent-replayed"]) == (201, again[2], "true")
    assert number_of_orders(processes) == before + 1


def request_of(order: dict[str, Any], headers: dict[str, str]) -> bytes:
    body = json.dumps(order)
    lines = {**headers, "Host": "shop", "Content-Type": "application/json"}
    lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
    return f"POST /orders HTTP/1.1\r\n{head}\r\n{body}".encode()


def test_process_sends_whole_responses_before_the_planned_pass(
    processes: ProcessHarness, tmp_path: Path
) -> None:
    customer = processes.customer()
    armed = processes.environment("place_order", SHOP_CRASH="place_order:W10:3")
    with started(tmp_path, armed, "place_order") as running:
        responses = [
            running.request("POST", "/orders", order_body(processes), customer) for _ in range(2)
        ]
        with pytest.raises((OSError, HTTPException)):
            running.request("POST", "/orders", order_body(processes), customer)

    assert [status for status, _, _ in responses] == [201, 201]
    assert all(json.loads(body)["status"] == "PENDING" for _, _, body in responses)


# ---------------------------------------------------------------- events


@pytest.mark.parametrize("failpoint", ["W7", "W8", "W9"])
def test_payment_is_captured_once_wherever_charge_crashes(
    processes: ProcessHarness,
    secrets: Secrets,
    simulator: SimulatorProcess,
    tmp_path: Path,
    failpoint: str,
) -> None:
    with started(tmp_path, processes.environment("place_order"), "place_order") as placing:
        _, _, body = placing.request("POST", "/orders", order_body(processes), processes.customer())
    order_id = json.loads(body)["id"]
    provider = {"PAYMENT_PROVIDER_API_KEY": API_KEY}
    armed = processes.environment("charge", SHOP_CRASH=f"charge:{failpoint}:1", **provider)
    delivery = placed_event(processes, secrets, order_id)

    with started(tmp_path, armed, "charge") as running:
        with pytest.raises((OSError, HTTPException)):
            running.request("POST", "/events", delivery[1], delivery[0])
        assert running.process.wait(5) == -signal.SIGKILL
        assert running.crash_line()["failpoint"] == failpoint
    ((key, status),) = processes.sql(PAYMENT_OF, order_id)
    assert (status, simulator.captures(key)) == ("INTENT", 0 if failpoint == "W7" else 1)
    with started(tmp_path, processes.environment("charge", **provider), "charge") as running:
        assert running.request("POST", "/events", delivery[1], delivery[0])[0] == 204  # a duplicate
    processes.sql("update shop.payments set next_try_at = now() where order_id = %s", order_id)
    with started(tmp_path, processes.environment("sweep", **provider), "sweep") as running:
        headers, body = tick(secrets, "sweep")
        assert running.request("POST", "/events", body, headers)[0] == 204

    ((key, status),) = processes.sql(PAYMENT_OF, order_id)
    assert (status, simulator.captures(key)) == ("CAPTURED", 1)


PAYMENT_OF = "select provider_key, status from shop.payments where order_id = %s"


def placed_event(
    processes: ProcessHarness, secrets: Secrets, order_id: str
) -> tuple[dict[str, str], bytes]:
    """The event in the outbox, as a broker delivers it."""
    ((event_id, source, name, data, created_at),) = processes.sql(
        "select event_id, source, type, data, created_at from shop.outbox where order_id = %s",
        order_id,
    )
    event = envelope.wrap(
        class_of(name).from_data(data), id=str(event_id), source=source, time=created_at
    )
    return envelope.to_binary(Signer("ordering", secrets.event_keys["ordering"]).sign(event))


def tick(secrets: Secrets, schedule: str) -> tuple[dict[str, str], bytes]:
    event = envelope.CloudEvent(
        id=str(uuid4()),
        source="/shop/clock",
        type="com.msashop.clock.ticked.v1",
        subject=schedule,
        time=datetime.now(UTC),
        data=b"{}",
    )
    return envelope.to_binary(Signer("clock", secrets.event_keys["clock"]).sign(event))
