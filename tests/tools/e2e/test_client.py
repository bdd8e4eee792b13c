"""The client of the end-to-end run: what it repeats, with what, and when it stops."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.tools.e2e.scripted_server import CLOSE_CONNECTION, ScriptedServer, scripted_server
from tools.e2e import client as client_module
from tools.e2e.client import TRIES_MAX, Call, Client, GaveUp, NoAnswer, new_key

OK = (200, {}, {"done": True})
BAD_GATEWAY = (502, {}, None)
BUSY = (409, {"Retry-After": "1"}, {"error": "REQUEST_IN_PROGRESS"})


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BACKOFF_MAX_SECONDS", 0.01)
    monkeypatch.setattr(client_module, "GATE_SPREAD_SECONDS", 0.01)


@contextmanager
def _client(script: ScriptedServer) -> Iterator[tuple[Client, list[float]]]:
    waits: list[float] = []
    client = Client(script.url, on_wait=lambda seconds, _: waits.append(seconds))
    try:
        yield client, waits
    finally:
        client.close()


@pytest.mark.parametrize(
    "trouble", [BAD_GATEWAY, (503, {}, None), (CLOSE_CONNECTION, {}, None), BUSY]
)
def test_an_unsafe_call_is_repeated_with_the_same_key(trouble: tuple) -> None:
    with scripted_server(trouble, trouble, OK) as script, _client(script) as (client, _):
        answer = client.send(Call("POST", "/orders", json={"a": 1}, key=new_key()))

    assert answer.json() == {"done": True}
    assert len(set(script.keys())) == 1 and len(script.asked) == 3
    assert {body for *_, body in script.asked} == {b'{"a":1}'}


def test_a_call_without_a_key_is_sent_once() -> None:
    with scripted_server(BAD_GATEWAY, OK) as script, _client(script) as (client, _):
        with pytest.raises(NoAnswer, match="502"):
            client.send(Call("POST", "/auth/refresh", json={}))

    assert len(script.asked) == 1


def test_a_log_in_may_be_started_over() -> None:
    with scripted_server(BAD_GATEWAY, OK) as script, _client(script) as (client, _):
        answer = client.send(Call("POST", "/auth/login", json={}, repeats=True))

    assert answer.status_code == 200
    assert script.keys() == [None, None]


def test_it_gives_up_after_six_tries() -> None:
    with scripted_server(BAD_GATEWAY) as script, _client(script) as (client, _):
        with pytest.raises(GaveUp, match="502"):
            client.send(Call("GET", "/products"))

    assert len(script.asked) == TRIES_MAX == 6


def test_it_waits_out_a_rate_limit_and_says_so() -> None:
    limited = (429, {"Retry-After": "1"}, {"error": "RATE_LIMITED"})
    with scripted_server(limited, OK) as script, _client(script) as (client, waits):
        answer = client.send(Call("POST", "/auth/refresh", json={}))

    assert answer.status_code == 200
    assert waits == [1.0]


def test_one_refusal_holds_back_every_call_of_the_account() -> None:
    """Six threads of one account: the first learns of the limit, nobody else has to."""
    limited = (429, {"Retry-After": "1"}, {"error": "RATE_LIMITED"})
    with scripted_server(limited, OK) as script, _client(script) as (client, waits):
        mine, other = Call("GET", "/cart", token="mine"), Call("GET", "/cart", token="other")
        client.send(mine)
        began = time.monotonic()
        script.asked.clear()
        with ThreadPoolExecutor(6) as threads:
            first = threads.submit(client.send, mine)
            while len(script.asked) < 1:
                time.sleep(0.01)
            assert client.send(other).status_code == 200
            assert time.monotonic() - began < 1.0, "another account waited with it"
            answers = [first, *(threads.submit(client.send, mine) for _ in range(5))]
            assert {answer.result().status_code for answer in answers} == {200}

    assert waits == [1.0, 1.0]
    assert time.monotonic() - began >= 1.0


def test_it_does_not_wait_for_ever() -> None:
    limited = (429, {"Retry-After": "900"}, {"error": "TOO_MANY_ATTEMPTS"})
    with scripted_server(limited) as script, _client(script) as (client, waits):
        with pytest.raises(GaveUp, match="900"):
            client.send(Call("POST", "/auth/login", json={}))

    assert waits == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 500])
def test_a_definitive_answer_is_taken_as_it_is(status: int) -> None:
    definitive = (status, {}, {"error": "NO"})
    with scripted_server(definitive, OK) as script, _client(script) as (client, _):
        answer = client.send(Call("POST", "/orders", json={}, key=new_key()))

    assert answer.status_code == status
    assert len(script.asked) == 1
