"""The load of a fault run: its pace, its choices, its patience, and what it makes of replays."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chaos.workload.arrivals import MIX, Pace, choose_action, run_load
from chaos.workload.client import ONCE, Account, Client, Outcome, Retries
from chaos.workload.client_log import ClientLog
from chaos.workload.dataset import zipf_weights
from chaos.workload.meter import Meter
from chaos.workload.operations import Calls, known_operations
from chaos.workload.races import one_wins
from chaos.workload.replays import Replays, is_kept
from tests.tools.e2e.scripted_server import CLOSE_CONNECTION, ScriptedServer, scripted_server

ORDER = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
PAIR = {"accessToken": "token", "refreshToken": "refresh", "expiresIn": 600}
PLACED = (201, {"Location": "/orders/o-1"}, {"id": "o-1"})
BUSY = (503, {"Retry-After": "0"}, {"error": "UNAVAILABLE"})

Job = Callable[[Client, ClientLog], Coroutine[Any, Any, Any]]


def new_client(url: str, folder: Path) -> tuple[Client, ClientLog]:
    log = ClientLog(folder / "log.sqlite")
    return Client(url, calls=Calls("test"), log=log, meter=Meter(), seed=1), log


def against(
    folder: Path, job: Job, *answers: tuple[int, dict[str, str], Any]
) -> tuple[Any, ScriptedServer]:
    """What a job came to over a server that answers by a script."""
    with scripted_server(*answers) as server:

        async def run() -> Any:
            client, log = new_client(server.url, folder)
            try:
                return await job(client, log)
            finally:
                client.close()
                log.close()

        return asyncio.run(run()), server


def logged(folder: Path) -> list[tuple[Any, ...]]:
    query = "select scope, key, attempt, status_code, http_status, order_id from ops order by op"
    return sqlite3.connect(folder / "log.sqlite").execute(query).fetchall()


def answered(status: int | None, code: str = "") -> Outcome:
    return Outcome(status, json.dumps({"error": code}).encode() if code else b"{}")


# ---------------------------------------------------------------- arrivals


def test_the_pace_spreads_the_missing_orders_over_the_time_left() -> None:
    accepted = 0
    pace = Pace(1000, 100.0, lambda: accepted, began=0.0)
    at_first = pace.rate(0.0)

    accepted, pace.begun = 100, 300
    behind = pace.rate(40.0)

    assert at_first == pytest.approx(1000 / 60 / 0.33)
    assert behind == pytest.approx(900 / 20 / ((100 + 6.6) / 320))
    assert pace.rate(59.9) == 200.0
    assert [pace.is_over(99.0), pace.is_over(100.0)] == [False, True]


def test_an_eased_pace_is_a_share_of_it() -> None:
    pace = Pace(1000, 100.0, lambda: 0, began=0.0)
    whole = pace.rate(0.0)

    pace.share = 0.25

    assert pace.rate(0.0) == pytest.approx(whole / 4)


def test_the_pace_is_over_when_the_orders_are_accepted() -> None:
    pace = Pace(10, 100.0, lambda: 10, began=0.0)

    assert pace.is_over(1.0)
    assert pace.rate(1.0) == 0.0


def test_a_load_ends_with_its_orders_and_is_spread_over_its_time() -> None:
    async def run() -> tuple[list[float], float]:
        loop = asyncio.get_running_loop()
        began, moments = loop.time(), []

        async def act(random: Random, number: int | None) -> None:
            moments.append(loop.time() - began)

        pace = Pace(200, 2.0, lambda: len(moments), began)
        await run_load(pace, act, seed=1)
        return moments, loop.time() - began

    moments, took = asyncio.run(run())

    assert 200 <= len(moments) <= 200 + 80
    assert took <= 2.5
    # all within the first 1.2 s, as a rule
    assert 40 <= sum(moment < 0.6 for moment in moments) <= 170


def test_products_are_chosen_by_zipf() -> None:
    weights = zipf_weights(60)
    chosen = Counter(Random(1).choices(range(60), cum_weights=weights, k=20_000))

    assert weights[1] - weights[0] == pytest.approx(2**-1.1)
    assert chosen[0] / chosen[9] == pytest.approx(10**1.1, rel=0.2)


def test_actions_come_in_the_shares_of_the_mix() -> None:
    random = Random(1)
    seen = Counter(choose_action(random) for _ in range(20_000))

    assert sum(MIX.values()) == 100
    assert all(seen[name] / 200 == pytest.approx(share, abs=1) for name, share in MIX.items())


# ---------------------------------------------------------------- the client


def test_a_try_without_an_answer_is_repeated_with_the_same_key_and_bytes(tmp_path: Path) -> None:
    async def place(client: Client, log: ClientLog) -> Outcome:
        return await client.send(client.calls.make("place_order", body=ORDER))

    outcome, server = against(tmp_path, place, (CLOSE_CONNECTION, {}, None), BUSY, PLACED)

    key = server.keys()[0]
    assert (outcome.status, outcome.tries) == (201, 3)
    assert server.keys() == [key] * 3
    assert len({body for _, _, _, body in server.requests}) == 1
    assert logged(tmp_path) == [
        ("POST /orders", key, 1, None, None, None),
        ("POST /orders", key, 2, 503, 503, None),
        ("POST /orders", key, 3, 201, 201, "o-1"),
    ]


def test_three_tries_and_the_answer_stays_unknown(tmp_path: Path) -> None:
    async def place(client: Client, log: ClientLog) -> Outcome:
        return await client.send(client.calls.make("place_order", body=ORDER))

    outcome, server = against(tmp_path, place, (CLOSE_CONNECTION, {}, None))

    assert (outcome.status, outcome.is_definite, len(server.requests)) == (None, False, 3)
    assert [row[3] for row in logged(tmp_path)] == [None, None, None]


@pytest.mark.parametrize(
    "first",
    [
        (409, {}, {"error": "REQUEST_IN_PROGRESS"}),
        (429, {"Retry-After": "0"}, {"error": "TOO_MANY_OPEN_ORDERS"}),
        (504, {}, None),
    ],
)
def test_not_yet_is_asked_again(tmp_path: Path, first: tuple[int, dict[str, str], Any]) -> None:
    async def place(client: Client, log: ClientLog) -> Outcome:
        return await client.send(client.calls.make("place_order", body=ORDER))

    outcome, server = against(tmp_path, place, first, PLACED)

    assert (outcome.status, len(server.requests)) == (201, 2)


@pytest.mark.parametrize(("status", "code"), [(409, "OUT_OF_STOCK"), (422, "INVALID"), (500, "X")])
def test_a_definite_answer_is_taken_as_it_is(tmp_path: Path, status: int, code: str) -> None:
    async def place(client: Client, log: ClientLog) -> Outcome:
        return await client.send(client.calls.make("place_order", body=ORDER))

    outcome, server = against(tmp_path, place, (status, {}, {"error": code}))

    assert (outcome.status, outcome.code, len(server.requests)) == (status, code, 1)


def test_rotating_a_refresh_token_is_never_repeated(tmp_path: Path) -> None:
    async def refresh(client: Client, log: ClientLog) -> Outcome:
        return await client.send(client.calls.make("refresh", body={"refreshToken": "r"}))

    outcome, server = against(tmp_path, refresh, BUSY)

    assert (outcome.status, len(server.requests)) == (503, 1)


def test_a_refused_token_is_replaced_and_is_no_answer_to_the_key(tmp_path: Path) -> None:
    async def place(client: Client, log: ClientLog) -> tuple[Outcome, Meter]:
        account = Account(client, "kim@example.com", "password", 7)
        call = client.calls.make("place_order", body=ORDER)
        return await client.send(call, account), client.meter

    refused = (401, {}, {"error": "UNAUTHENTICATED"})
    (outcome, meter), server = against(
        tmp_path, place, (200, {}, PAIR), refused, (200, {}, PAIR), PLACED
    )

    paths = [path for _, path, _, _ in server.requests]
    assert outcome.status == 201
    assert paths == ["/auth/login", "/orders", "/auth/login", "/orders"]
    assert [(row[3], row[4]) for row in logged(tmp_path)] == [(None, 401), (201, 201)]
    assert meter.surprises == {"place_order 401": 1}


def test_patience_is_jitter_and_at_most_two_seconds_of_retry_after() -> None:
    random = Random(1)
    pauses = [Retries().pause_seconds(1, 0.0, random) for _ in range(100)]

    assert 0.0 <= min(pauses) < 0.02
    assert 0.18 < max(pauses) <= 0.2
    assert Retries().pause_seconds(1, 60.0, random) == 2.0
    assert Retries(has_jitter=False).pause_seconds(3, 60.0, random) == 0.0


def test_an_operation_expects_what_its_route_declares() -> None:
    place = known_operations()["place_order"]

    assert place.scope == "POST /orders"
    assert place.takes_key
    assert place.expected == {201, 409, 422, 429, 502, 503, 504}


# ---------------------------------------------------------------- replays


def replayed(folder: Path, *answers: tuple[int, dict[str, str], Any]) -> dict[str, Any]:
    """What a replay of one order finds, whose answers come in turn."""

    async def job(client: Client, log: ClientLog) -> dict[str, Any]:
        replays = Replays(client, {}, Random(1))
        client.on_finished = replays.finished
        await client.send(client.calls.make("place_order", body=ORDER), None, ONCE)
        return await replays.replay_share(1.0, Random(1))

    told: dict[str, Any] = against(folder, job, *answers)[0]
    return told


def test_a_replay_that_is_answered_the_same_is_fine(tmp_path: Path) -> None:
    told = replayed(tmp_path, PLACED, PLACED)

    assert told == {"replayed": 1, "different_total": 0, "unanswered": 0, "different": []}
    assert [row[2] for row in logged(tmp_path)] == [1, 1]
    assert len({row[1] for row in logged(tmp_path)}) == 1


@pytest.mark.parametrize(
    "second",
    [
        (200, {"Location": "/orders/o-1"}, {"id": "o-1"}),
        (201, {"Location": "/orders/o-1"}, {"id": "o-2"}),
        (201, {"Location": "/orders/o-2"}, {"id": "o-1"}),
        (409, {}, {"error": "OUT_OF_STOCK"}),
    ],
)
def test_a_replay_with_another_status_body_or_location_is_told(
    tmp_path: Path, second: tuple[int, dict[str, str], Any]
) -> None:
    told = replayed(tmp_path, PLACED, second)

    assert told["different_total"] == 1
    assert told["different"][0]["scope"] == "POST /orders"
    assert told["different"][0]["was"][0] == 201
    assert told["different"][0]["is"][0] == second[0]


def test_a_replay_without_an_answer_says_nothing(tmp_path: Path) -> None:
    told = replayed(tmp_path, PLACED, BUSY)

    assert (told["replayed"], told["unanswered"], told["different_total"]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("name", "status", "code", "is_replayed"),
    [
        ("place_order", 201, "", True),
        ("place_order", 409, "OUT_OF_STOCK", True),
        ("place_order", 409, "REQUEST_IN_PROGRESS", False),
        ("place_order", 429, "TOO_MANY_OPEN_ORDERS", False),
        ("place_order", 422, "INVALID", False),
        ("place_order", 500, "INTERNAL", False),
        ("cancel_order", 404, "NOT_FOUND", False),
        ("cancel_order", 409, "NOT_CANCELLABLE", True),
        ("add_item", 409, "OUT_OF_STOCK", False),
        ("change_product", 412, "PRECONDITION_FAILED", False),
    ],
)
def test_only_answers_that_are_kept_are_replayed(
    name: str, status: int, code: str, is_replayed: bool
) -> None:
    assert is_kept(known_operations()[name], answered(status, code)) is is_replayed


# ---------------------------------------------------------------- races


@pytest.mark.parametrize(
    ("answers", "mistakes"),
    [
        ([(201, ""), (409, "OUT_OF_STOCK")], []),
        ([(201, ""), (None, "")], []),
        ([(409, "OUT_OF_STOCK"), (503, "")], []),
        ([(201, ""), (201, "")], ["2 of 2 have 201"]),
        ([(409, "OUT_OF_STOCK"), (409, "OUT_OF_STOCK")], ["0 of 2 have 201"]),
        ([(201, ""), (409, "PRICE_CHANGED")], ["409 PRICE_CHANGED"]),
    ],
)
def test_one_wins_unless_an_answer_is_missing(
    answers: list[tuple[int | None, str]], mistakes: list[str]
) -> None:
    told = [answered(status, code) for status, code in answers]

    assert one_wins(told, winner=201, loser="OUT_OF_STOCK") == mistakes
