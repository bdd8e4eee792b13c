"""The HTTP API of the simulator: authentication, invalid requests, fault settings."""

from __future__ import annotations

import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.tools.payment_simulator.simulator_process import (
    API_KEY,
    SimulatorProcess,
    charge_call,
)
from tests.waiting import wait_for


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/records"), ("GET", "/charges"), ("POST", "/intents"), ("POST", "/faults")],
)
def test_wrong_api_key_answers_401(simulator: SimulatorProcess, method: str, path: str) -> None:
    body: dict[str, object] | None = {} if method == "POST" else None
    assert simulator.request(method, path, body, api_key="simulator-key-of-a-tesT")[0] == 401
    assert simulator.request(method, path, body, api_key="")[0] == 401


@pytest.mark.parametrize(
    "change",
    [
        {"amount_minor": 0},
        {"amount_minor": -1},
        {"amount_minor": 1.5},
        {"amount_minor": True},
        {"amount_minor": 10**13},
        {"currency": "KR"},
        {"currency": "원원원"},
        {"key": ""},
        {"key": "k" * 256},
        {"key": "a\n"},
        {"order_id": None},
        {"more": 1},
    ],
)
def test_invalid_intent_answers_400(simulator: SimulatorProcess, change: dict[str, object]) -> None:
    body: dict[str, object] = {
        "key": charge_call().key, "amount_minor": 1, "currency": "KRW", "payment_method": "CARD",
        "order_id": "o", "payment_id": "p",
    }  # fmt: skip
    assert simulator.request("POST", "/intents", {**body, **change})[0] == 400
    assert simulator.request("POST", "/intents", body)[0] == 200


def test_same_seed_repeats_the_same_faults(simulator: SimulatorProcess) -> None:
    settings = {"seed": 42, "probabilities": {"error_after": 0.3, "rate_limited": 0.3}}
    runs: list[list[str | None]] = []
    for _ in range(2):
        simulator.set_faults(**settings)
        provider = simulator.provider()
        runs.append([provider.cancel(charge_call()).reason for _ in range(20)])
    assert runs[0] == runs[1]
    assert {"HTTP 500", "HTTP 429"} < set(runs[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"probabilities": {"fire": 0.1}},
        {"probabilities": {"slow": 1.1}},
        {"probabilities": {"slow": 0.6, "late": 0.6}},
        {"probabilities": {"slow": True}},
        {"seed": 1.5},
        {"slow_seconds": -1},
        {"speed": 1},
    ],
)
def test_invalid_fault_settings_answer_400_and_change_nothing(
    simulator: SimulatorProcess, settings: dict[str, object]
) -> None:
    before = simulator.request("GET", "/faults")
    assert simulator.request("POST", "/faults", settings)[0] == 400
    assert simulator.request("GET", "/faults") == before


def test_connection_stays_open_after_client_errors(simulator: SimulatorProcess) -> None:
    connection = HTTPConnection(simulator.url.split("//")[1], timeout=5)
    statuses: list[int] = []
    for headers, body in (({}, "{}"), ({"Authorization": f"Bearer {API_KEY}"}, "[")):
        connection.request("POST", "/intents", body, headers)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    sock = connection.sock
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    assert connection.sock is sock
    assert statuses == [401, 400]
    connection.close()


def test_hanging_request_ends_when_the_client_disconnects(simulator: SimulatorProcess) -> None:
    simulator.set_faults(probabilities={"timeout_before": 1.0}, hang_seconds=600)
    started = time.monotonic()
    outcome = simulator.provider(timeout_seconds=0.3).cancel(charge_call())
    assert outcome.reason == "timeout"
    assert time.monotonic() - started < 2
    threads = Path(f"/proc/{simulator.process.pid}/task")
    idle = len(list(threads.iterdir()))
    for _ in range(5):
        simulator.provider(timeout_seconds=0.1).cancel(charge_call())
    wait_for(lambda: len(list(threads.iterdir())) <= idle, "the end of the hanging connections")
