"""The HTTP client of the end-to-end run: which calls it repeats, how often, and when it stops."""

from __future__ import annotations

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.tools.e2e.scripted_server import (
    CLOSE_CONNECTION,
    ScriptedResponse,
    ScriptedServer,
    scripted_server,
)
from tools.e2e.client import TRIES_MAX, Call, Client, NoResponse, RetriesExhausted, new_key

OK: ScriptedResponse = (200, {}, {"done": True})
BAD_GATEWAY: ScriptedResponse = (502, {}, None)
UNAVAILABLE: ScriptedResponse = (503, {}, None)
CLOSED: ScriptedResponse = (CLOSE_CONNECTION, {}, None)
BUSY: ScriptedResponse = (409, {"Retry-After": "1"}, {"error": "REQUEST_IN_PROGRESS"})


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.e2e.client.BACKOFF_MAX_SECONDS", 0.01)
    monkeypatch.setattr("tools.e2e.client.RATE_LIMIT_SPREAD_SECONDS", 0.01)


@contextmanager
def _client(script: ScriptedServer) -> Generator[tuple[Client, list[float]]]:
    waits: list[float] = []
    client = Client(script.url, on_wait=lambda seconds, _: waits.append(seconds))
    try:
        yield client, waits
    finally:
        client.close()


@pytest.mark.parametrize("failure", [BAD_GATEWAY, UNAVAILABLE, CLOSED, BUSY])
def test_unsafe_call_is_repeated_with_the_same_key(failure: ScriptedResponse) -> None:
    with scripted_server(failure, failure, OK) as script, _client(script) as (client, _):
        response = client.send(Call("POST", "/orders", json={"a": 1}, key=new_key()))

    assert response.json() == {"done": True}
    assert len(set(script.keys())) == 1 and len(script.requests) == 3
    assert {body for *_, body in script.requests} == {b'{"a":1}'}


def test_repetition_waits_for_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("tools.e2e.client.time.sleep", pauses.append)
    busy: ScriptedResponse = (503, {"Retry-After": "7"}, None)
    forever: ScriptedResponse = (503, {"Retry-After": "86400"}, None)
    with scripted_server(busy, forever, OK) as script, _client(script) as (client, _):
        client.send(Call("GET", "/products"))

    assert [int(pause) for pause in pauses] == [7, 30]


def test_unsafe_call_without_key_is_sent_once() -> None:
    with scripted_server(BAD_GATEWAY, OK) as script, _client(script) as (client, _):
        with pytest.raises(NoResponse, match="502"):
            client.send(Call("POST", "/auth/refresh", json={}))

    assert len(script.requests) == 1


def test_call_marked_repeatable_is_repeated_without_key() -> None:
    with scripted_server(BAD_GATEWAY, OK) as script, _client(script) as (client, _):
        response = client.send(Call("POST", "/auth/login", json={}, repeats=True))

    assert response.status_code == 200
    assert script.keys() == [None, None]


def test_repeated_failures_stop_after_six_attempts() -> None:
    with scripted_server(BAD_GATEWAY) as script, _client(script) as (client, _):
        with pytest.raises(RetriesExhausted, match="502"):
            client.send(Call("GET", "/products"))

    assert len(script.requests) == TRIES_MAX == 6


def test_rate_limited_call_waits_for_retry_after_and_reports_it() -> None:
    limited = (429, {"Retry-After": "1"}, {"error": "RATE_LIMITED"})
    with scripted_server(limited, OK) as script, _client(script) as (client, waits):
        response = client.send(Call("POST", "/auth/refresh", json={}))

    assert response.status_code == 200
    assert waits == [1.0]


def test_429_delays_every_call_of_the_same_account() -> None:
    """Of six threads with one account only the first receives the 429."""
    limited = (429, {"Retry-After": "1"}, {"error": "RATE_LIMITED"})
    with scripted_server(limited, OK) as script, _client(script) as (client, waits):
        mine, other = Call("GET", "/cart", token="mine"), Call("GET", "/cart", token="other")
        client.send(mine)
        began = time.monotonic()
        script.requests.clear()
        with ThreadPoolExecutor(6) as threads:
            first = threads.submit(client.send, mine)
            while len(script.requests) < 1:
                time.sleep(0.01)
            assert client.send(other).status_code == 200
            assert time.monotonic() - began < 1.0, "another account was delayed"
            responses = [first, *(threads.submit(client.send, mine) for _ in range(5))]
            assert {response.result().status_code for response in responses} == {200}

    assert waits == [1.0, 1.0]
    assert time.monotonic() - began >= 1.0


def test_too_long_retry_after_stops_the_call() -> None:
    limited = (429, {"Retry-After": "900"}, {"error": "TOO_MANY_ATTEMPTS"})
    with scripted_server(limited) as script, _client(script) as (client, waits):
        with pytest.raises(RetriesExhausted, match="900"):
            client.send(Call("POST", "/auth/login", json={}))

    assert waits == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 500])
def test_definitive_response_is_returned_without_retry(status: int) -> None:
    definitive: ScriptedResponse = (status, {}, {"error": "NO"})
    with scripted_server(definitive, OK) as script, _client(script) as (client, _):
        response = client.send(Call("POST", "/orders", json={}, key=new_key()))

    assert response.status_code == status
    assert len(script.requests) == 1
