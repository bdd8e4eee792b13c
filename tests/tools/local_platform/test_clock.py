"""Cron times, and ticks while work is due."""

# Waits until the clock has connected, which is not visible from outside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest

from events.envelope import parse
from shop.adapters.signatures import Signer, verifier_from_json
from shop.primitives.clock import utc_now
from shop.primitives.spec import FunctionSpec, Schedule
from tests.waiting import wait_until
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.clock import Clock, Cron, DueWork
from tools.local_platform.http_messages import HttpRequest, HttpResponse, header_map
from tools.local_platform.secrets import CLOCK, Secrets, local_secrets

DUE = Schedule(name="drain", cron="* * * * *", handler="h", summary="s", due_kinds=("x",))
DAILY = Schedule(name="close-days", cron="5 15 * * *", handler="h", summary="s")
SWEEP = FunctionSpec(name="sweep", summary="s", database_role="relay", schedules=(DUE, DAILY))

TIMES = (
    ("* * * * *", "2026-01-31 23:59", "2026-02-01 00:00"),
    ("*/10 * * * *", "2026-01-01 00:10", "2026-01-01 00:20"),
    ("5 15 * * *", "2026-01-01 15:05", "2026-01-02 15:05"),
    ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"),
    ("0 9-17/4 * * 1-5", "2026-01-02 17:30", "2026-01-05 09:00"),
    ("30 1,13 * * 7", "2026-01-01 00:00", "2026-01-04 01:30"),
    ("0 0 13 * 5", "2026-01-01 00:00", "2026-01-02 00:00"),
    ("0 0 */2 * *", "2026-01-01 00:00", "2026-01-03 00:00"),
)


@pytest.mark.parametrize(("cron", "moment", "expected"), TIMES)
def test_next_tick_is_the_next_matching_minute(cron: str, moment: str, expected: str) -> None:
    after = datetime.fromisoformat(moment).replace(tzinfo=UTC)

    tick = Cron.parse(cron).next_after(after)

    assert tick == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "60 * * * *", "x * * * *", "5-1 * * * *", "*/0 * * * *"]
)
def test_invalid_cron_raises_value_error(cron: str) -> None:
    with pytest.raises(ValueError):
        Cron.parse(cron)


def test_cron_that_never_matches_raises_value_error() -> None:
    with pytest.raises(ValueError, match="never matches"):
        Cron.parse("0 0 30 2 *").next_after(datetime(2026, 1, 1, tzinfo=UTC))


class Recorder:
    """Receives the ticks instead of a function; with ``drains`` each removes one due row."""

    def __init__(self, url: str, *, drains: bool, status: int = 204) -> None:
        self.url, self.drains, self.status = url, drains, status
        self.requests: list[HttpRequest] = []
        self.running = self.most = 0

    async def send(self, function: str, request: HttpRequest) -> HttpResponse:
        assert function == "sweep"
        self.requests.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        if self.drains:
            execute(
                self.url,
                "delete from shop.due_work where id ="
                " (select min(id) from shop.due_work where kind = 'x')",
            )
        await asyncio.sleep(0.02)  # slow: so that requests could overlap
        self.running -= 1
        return HttpResponse(self.status)

    def processes_max(self, function: str) -> int:
        return 3


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


@pytest.fixture(scope="module")
def due_work_url(postgres_url: str) -> Generator[str]:
    """A database whose only table has the columns of the view ``shop.due_work``."""
    name = f"clock_{uuid4().hex[:12]}"
    execute(postgres_url, f"create database {name}")
    url = postgres_url.rsplit("/", 1)[0] + f"/{name}"
    execute(url, "create schema shop")
    execute(url, "create table shop.due_work (kind text, id text, due_at timestamptz)")
    yield url
    execute(postgres_url, f"drop database {name} with (force)")


@pytest.fixture
def url(due_work_url: str) -> str:
    execute(due_work_url, "truncate shop.due_work")
    return due_work_url


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    return local_secrets(tmp_path / "secrets", (SWEEP,))


def make_clock(recorder: Recorder, secrets: Secrets) -> Clock:
    signer = Signer(CLOCK, secrets.event_keys[CLOCK])
    return Clock((SWEEP,), recorder, ActivityLog(quiet=True), signer, DueWork(recorder.url))


def test_tick_is_an_event_signed_by_the_clock(url: str, secrets: Secrets) -> None:
    recorder = Recorder(url, drains=False)

    assert asyncio.run(make_clock(recorder, secrets).tick(SWEEP, DAILY))

    (request,) = recorder.requests
    event = parse(header_map(request.headers), request.body)
    assert (request.method, request.target) == ("POST", b"/events")
    assert (event.type, event.source) == ("com.msashop.clock.ticked.v1", "/shop/clock")
    assert (event.subject, event.data) == ("close-days", b"{}")
    verifier_from_json(secrets.event_key_set).verify(event, utc_now())


def test_due_work_is_ticked_one_at_a_time_until_nothing_is_due(url: str, secrets: Secrets) -> None:
    execute(
        url, "insert into shop.due_work select 'x', n::text, now() from generate_series(1, 3) n"
    )
    execute(url, "insert into shop.due_work values ('x', '9', now() + interval '1 hour')")
    execute(url, "insert into shop.due_work values ('y', '0', now())")
    recorder = Recorder(url, drains=True)

    async def scenario() -> None:
        clock = make_clock(recorder, secrets)
        running = asyncio.create_task(clock.run())
        await wait_until(lambda: len(recorder.requests) == 3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())

    assert recorder.most == 1


@pytest.mark.parametrize(("due", "at_once"), [(200, 1), (201, 2), (5_000, 3)])
def test_many_due_rows_are_ticked_concurrently(
    url: str, secrets: Secrets, due: int, at_once: int
) -> None:
    execute(
        url,
        f"insert into shop.due_work select 'x', n::text, now() from generate_series(1, {due}) n",
    )
    recorder = Recorder(url, drains=False)

    async def scenario() -> None:
        clock = make_clock(recorder, secrets)
        running = asyncio.create_task(clock.run())
        await wait_until(lambda: len(recorder.requests) >= at_once and recorder.running == 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())

    assert recorder.most == at_once


@pytest.mark.parametrize(("status", "pauses"), [(204, [1, 2, 4]), (502, [0, 0, 0])])
def test_only_ticks_without_progress_back_off(
    url: str,
    secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    pauses: list[int],
) -> None:
    """A failed tick does not back off: the process may have crashed."""
    execute(url, "insert into shop.due_work values ('x', '1', now())")
    recorder = Recorder(url, drains=False, status=status)
    waited: list[int] = []

    async def record_pause(_: Clock, schedule: Schedule, idle_ticks: int) -> float:
        waited.append(idle_ticks and 2 ** (idle_ticks - 1))
        return 0.0

    async def sleep(_: Clock, __: float, *, ends_with_traffic: bool) -> None:
        await asyncio.sleep(0)  # slow: lets the other tasks run, without a pause

    monkeypatch.setattr(Clock, "_pause", record_pause)
    monkeypatch.setattr(Clock, "_sleep", sleep)

    async def scenario() -> None:
        running = asyncio.create_task(make_clock(recorder, secrets).run())
        await wait_until(lambda: len(waited) >= 3)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())

    assert waited[:3] == pauses


def test_work_that_becomes_due_later_is_ticked_then(url: str, secrets: Secrets) -> None:
    recorder = Recorder(url, drains=True)

    async def scenario() -> None:
        clock = make_clock(recorder, secrets)
        running = asyncio.create_task(clock.run())
        await wait_until(lambda: clock._due_work._connection is not None)
        assert recorder.requests == []
        execute(url, "insert into shop.due_work values ('x', '1', now() + interval '0.3 seconds')")
        await wait_until(lambda: len(recorder.requests) == 1, 5)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_due_work_reconnects_after_a_broken_connection(url: str) -> None:
    execute(url, "insert into shop.due_work values ('x', '1', now())")

    async def scenario() -> tuple[int, int]:
        due_work = DueWork(url)
        before = await due_work.count(("x",))
        execute(
            url,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'shop clock'",
        )
        with pytest.raises(psycopg.OperationalError):
            await due_work.count(("x",))
        after = await due_work.count(("x",))
        await due_work.close()
        return before, after

    assert asyncio.run(scenario()) == (1, 1)


def test_idle_clock_queries_due_work_at_most_once_a_minute_for_two_schedules(
    url: str, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(url, "insert into shop.due_work values ('x', '1', now() + interval '1 day')")
    queries, pauses = [0], list[float]()
    query = DueWork._query  # pyright: ignore[reportPrivateUsage]

    async def counted(
        due_work: DueWork, statement: LiteralString, kinds: tuple[str, ...]
    ) -> float | None:
        queries[0] += 1
        return await query(due_work, statement, kinds)

    async def record(_: Clock, seconds: float, *, ends_with_traffic: bool) -> None:
        assert ends_with_traffic
        pauses.append(seconds)
        await asyncio.Event().wait()

    monkeypatch.setattr(DueWork, "_query", counted)
    monkeypatch.setattr(Clock, "_sleep", record)

    async def scenario() -> None:
        signer = Signer(CLOCK, secrets.event_keys[CLOCK])
        recorder = Recorder(url, drains=False)
        clock = Clock(
            (SWEEP,), recorder, ActivityLog(quiet=True), signer, DueWork(url), busy_seconds=0
        )
        running = asyncio.create_task(clock.run())
        await wait_until(lambda: bool(pauses))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())

    assert 2 * queries[0] <= pauses[0] / 60
