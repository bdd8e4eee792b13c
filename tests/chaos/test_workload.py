"""The workload of a fault run: pace, choices, retries, replays and races."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

import pytest

from chaos.controlled_process import JsonObject
from chaos.workload.arrivals import MIX, Pace, choose_action, run_load
from chaos.workload.client import NO_RETRIES, Account, Client, Outcome, RetryPolicy
from chaos.workload.client_log import ClientLog
from chaos.workload.dataset import Dataset, zipf_weights
from chaos.workload.liveness import LivenessCheck
from chaos.workload.metrics import WorkloadMetrics
from chaos.workload.operations import Calls, known_operations
from chaos.workload.races import one_wins
from chaos.workload.replays import Replays, is_stored
from tests.tools.e2e.scripted_server import CLOSE_CONNECTION, ScriptedServer, scripted_server

Result = TypeVar("Result")
Response = tuple[int, dict[str, str], JsonObject | None]

ORDER = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
TOKENS = {"accessToken": "token", "refreshToken": "refresh", "expiresIn": 600}
CREATED: Response = (201, {"Location": "/orders/o-1"}, {"id": "o-1"})
BUSY: Response = (503, {"Retry-After": "0"}, {"error": "UNAVAILABLE"})


class LoggedAttempt(NamedTuple):
    """An attempt in the clients' log."""

    scope: str
    key: str
    attempt: int
    status_code: int | None
    http_status: int | None
    order_id: str | None


def run_against(
    folder: Path, job: Callable[[Client], Coroutine[object, object, Result]], *responses: Response
) -> tuple[Result, ScriptedServer]:
    """The result of a job whose client gets these responses in turn."""
    with scripted_server(*responses) as server:

        async def run() -> Result:
            log = ClientLog(folder / "log.sqlite")
            metrics = WorkloadMetrics()
            client = Client(server.url, calls=Calls("test"), log=log, metrics=metrics, seed=1)
            try:
                return await job(client)
            finally:
                client.close()
                log.close()

        return asyncio.run(run()), server


async def place_order(client: Client) -> Outcome:
    return await client.send(client.calls.make("place_order", body=ORDER))


def logged_attempts(folder: Path) -> list[LoggedAttempt]:
    query = """select scope, key, attempt, status_code, http_status, order_id
      from attempts order by attempt_id"""
    with closing(sqlite3.connect(folder / "log.sqlite")) as database:
        return [LoggedAttempt(*row) for row in database.execute(query)]


def outcome_of(status: int | None, code: str = "") -> Outcome:
    return Outcome(status, json.dumps({"error": code}).encode() if code else b"{}")


# ---------------------------------------------------------------- arrivals


def test_pace_spreads_missing_orders_over_the_remaining_time() -> None:
    accepted = 0
    pace = Pace(1000, 100.0, lambda: accepted, began=0.0)
    at_first = pace.rate(0.0)

    accepted, pace.started_actions = 100, 300
    behind = pace.rate(40.0)

    assert at_first == pytest.approx(1000 / 60 / 0.33)
    assert behind == pytest.approx(900 / 20 / ((100 + 6.6) / 320))
    assert pace.rate(59.9) == 200.0
    assert [pace.is_over(99.0), pace.is_over(100.0)] == [False, True]


def test_throttled_pace_is_a_share_of_the_rate() -> None:
    pace = Pace(1000, 100.0, lambda: 0, began=0.0)
    whole = pace.rate(0.0)

    pace.share = 0.25

    assert pace.rate(0.0) == pytest.approx(whole / 4)


def test_pace_is_over_when_all_orders_are_accepted() -> None:
    pace = Pace(10, 100.0, lambda: 10, began=0.0)

    assert pace.is_over(1.0)
    assert pace.rate(1.0) == 0.0


def test_load_ends_with_its_orders_and_is_spread_over_its_time() -> None:
    async def run() -> tuple[list[float], float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        moments: list[float] = []

        async def act(random: Random, number: int | None) -> None:
            moments.append(loop.time() - began)

        pace = Pace(200, 2.0, lambda: len(moments), began)
        await run_load(pace, act, seed=1)
        return moments, loop.time() - began

    moments, took = asyncio.run(run())

    assert 200 <= len(moments) <= 200 + 80
    assert took <= 2.5
    # the orders are planned for the first 1.2 s
    assert 40 <= sum(moment < 0.6 for moment in moments) <= 170


def test_products_are_chosen_by_zipf_weights() -> None:
    weights = zipf_weights(60)
    chosen = Counter(Random(1).choices(range(60), cum_weights=weights, k=20_000))

    assert weights[1] - weights[0] == pytest.approx(2**-1.1)
    assert chosen[0] / chosen[9] == pytest.approx(10**1.1, rel=0.2)


def test_actions_have_the_shares_of_the_mix() -> None:
    random = Random(1)
    seen = Counter(choose_action(random) for _ in range(20_000))

    assert sum(MIX.values()) == 100
    assert all(seen[name] / 200 == pytest.approx(share, abs=1) for name, share in MIX.items())


# ---------------------------------------------------------------- the client


def test_attempt_without_a_response_is_repeated_with_the_same_key_and_bytes(tmp_path: Path) -> None:
    outcome, server = run_against(
        tmp_path, place_order, (CLOSE_CONNECTION, {}, None), BUSY, CREATED
    )

    key = server.keys()[0]
    assert (outcome.status, outcome.attempts) == (201, 3)
    assert server.keys() == [key] * 3
    assert len({body for _, _, _, body in server.requests}) == 1
    assert logged_attempts(tmp_path) == [
        ("POST /orders", key, 1, None, None, None),
        ("POST /orders", key, 2, 503, 503, None),
        ("POST /orders", key, 3, 201, 201, "o-1"),
    ]


def test_outcome_is_unknown_after_three_attempts_without_a_response(tmp_path: Path) -> None:
    outcome, server = run_against(tmp_path, place_order, (CLOSE_CONNECTION, {}, None))

    assert (outcome.status, outcome.is_definite, len(server.requests)) == (None, False, 3)
    assert [row.status_code for row in logged_attempts(tmp_path)] == [None, None, None]


@pytest.mark.parametrize(
    "first",
    [
        (409, {}, {"error": "REQUEST_IN_PROGRESS"}),
        (429, {"Retry-After": "0"}, {"error": "TOO_MANY_OPEN_ORDERS"}),
        (504, {}, None),
    ],
)
def test_unavailable_response_is_retried(tmp_path: Path, first: Response) -> None:
    outcome, server = run_against(tmp_path, place_order, first, CREATED)

    assert (outcome.status, len(server.requests)) == (201, 2)


@pytest.mark.parametrize(("status", "code"), [(409, "OUT_OF_STOCK"), (422, "INVALID"), (500, "X")])
def test_definite_response_is_not_retried(tmp_path: Path, status: int, code: str) -> None:
    outcome, server = run_against(tmp_path, place_order, (status, {}, {"error": code}))

    assert (outcome.status, outcome.code, len(server.requests)) == (status, code, 1)


def test_refresh_token_rotation_is_not_retried(tmp_path: Path) -> None:
    async def refresh(client: Client) -> Outcome:
        return await client.send(client.calls.make("refresh", body={"refreshToken": "r"}))

    outcome, server = run_against(tmp_path, refresh, BUSY)

    assert (outcome.status, len(server.requests)) == (503, 1)


def test_rejected_token_is_replaced_and_its_outcome_is_logged_as_unknown(tmp_path: Path) -> None:
    async def place(client: Client) -> tuple[Outcome, WorkloadMetrics]:
        account = Account(client, "kim@example.com", "password", 7)
        call = client.calls.make("place_order", body=ORDER)
        return await client.send(call, account), client.metrics

    rejected: Response = (401, {}, {"error": "UNAUTHENTICATED"})
    (outcome, metrics), server = run_against(
        tmp_path, place, (200, {}, TOKENS), rejected, (200, {}, TOKENS), CREATED
    )

    paths = [path for _, path, _, _ in server.requests]
    assert outcome.status == 201
    assert paths == ["/auth/login", "/orders", "/auth/login", "/orders"]
    assert [(row.status_code, row.http_status) for row in logged_attempts(tmp_path)] == [
        (None, 401),
        (201, 201),
    ]
    assert metrics.unexpected == {"place_order 401": 1}


def test_delay_is_jitter_or_up_to_two_seconds_of_retry_after() -> None:
    random = Random(1)
    delays = [RetryPolicy().delay_seconds(1, 0.0, random) for _ in range(100)]

    assert 0.0 <= min(delays) < 0.02
    assert 0.18 < max(delays) <= 0.2
    assert RetryPolicy().delay_seconds(1, 60.0, random) == 2.0
    assert RetryPolicy(has_delay=False).delay_seconds(3, 60.0, random) == 0.0


def test_allowed_statuses_are_those_that_the_route_declares() -> None:
    place = known_operations()["place_order"]

    assert place.scope == "POST /orders"
    assert place.takes_key
    assert place.allowed == {201, 403, 409, 422, 429, 502, 503, 504}


# ---------------------------------------------------------------- replays


def replay_order(folder: Path, *responses: Response) -> JsonObject:
    """The result of the replay of one order, whose responses are given in turn."""

    async def job(client: Client) -> JsonObject:
        replays = Replays(client, {}, Random(1))
        client.on_finished = replays.add_finished
        await client.send(client.calls.make("place_order", body=ORDER), None, NO_RETRIES)
        return await replays.replay_share(1.0, Random(1))

    return run_against(folder, job, *responses)[0]


def test_replay_with_the_same_response_is_no_difference(tmp_path: Path) -> None:
    result = replay_order(tmp_path, CREATED, CREATED)

    assert result == {"replayed": 1, "different_total": 0, "unanswered": 0, "different": []}
    assert [row.attempt for row in logged_attempts(tmp_path)] == [1, 1]
    assert len({row.key for row in logged_attempts(tmp_path)}) == 1


@pytest.mark.parametrize(
    "second",
    [
        (200, {"Location": "/orders/o-1"}, {"id": "o-1"}),
        (201, {"Location": "/orders/o-1"}, {"id": "o-2"}),
        (201, {"Location": "/orders/o-2"}, {"id": "o-1"}),
        (409, {}, {"error": "OUT_OF_STOCK"}),
    ],
)
def test_replay_with_another_status_body_or_location_is_a_difference(
    tmp_path: Path, second: Response
) -> None:
    result = replay_order(tmp_path, CREATED, second)

    assert result["different_total"] == 1
    assert result["different"][0]["scope"] == "POST /orders"
    assert result["different"][0]["expected"][0] == 201
    assert result["different"][0]["actual"][0] == second[0]


def test_replay_without_a_definite_response_is_no_difference(tmp_path: Path) -> None:
    result = replay_order(tmp_path, CREATED, BUSY)

    assert (result["replayed"], result["unanswered"], result["different_total"]) == (1, 1, 0)


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
def test_only_stored_responses_are_replayed(
    name: str, status: int, code: str, is_replayed: bool
) -> None:
    assert is_stored(known_operations()[name], outcome_of(status, code)) is is_replayed


# ---------------------------------------------------------------- races


@pytest.mark.parametrize(
    ("responses", "mistakes"),
    [
        ([(201, ""), (409, "OUT_OF_STOCK")], []),
        ([(201, ""), (None, "")], []),
        ([(409, "OUT_OF_STOCK"), (503, "")], []),
        ([(201, ""), (201, "")], ["2 of 2 have 201"]),
        ([(409, "OUT_OF_STOCK"), (409, "OUT_OF_STOCK")], ["0 of 2 have 201"]),
        ([(201, ""), (409, "PRICE_CHANGED")], ["409 PRICE_CHANGED"]),
    ],
)
def test_exactly_one_request_wins_unless_a_response_is_missing(
    responses: list[tuple[int | None, str]], mistakes: list[str]
) -> None:
    outcomes = [outcome_of(status, code) for status, code in responses]

    assert one_wins(outcomes, winner=201, loser="OUT_OF_STOCK") == mistakes


# ---------------------------------------------------------------- the liveness check


def test_check_that_cannot_make_its_own_data_is_a_failed_check(tmp_path: Path) -> None:
    async def check(client: Client) -> JsonObject:
        staff = Account(client, "staff@example.com", "a pass phrase")
        dataset = Dataset(client, "Load", {"staff": staff})
        return await LivenessCheck(client, dataset).run(count=2)

    report, _ = run_against(tmp_path, check, (403, {}, {"error": "FORBIDDEN"}))

    assert report["requested"] == 1
    assert [failure["operation"] for failure in report["failed"]] == ["the check's own data"]
