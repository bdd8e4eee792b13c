"""Sends tick events: cron schedules as PingSource does, schedules with ``due_kinds`` as KEDA does.

The latter are ticked only while ``shop.due_work`` has due rows of their kinds, so no function runs
without work.  With many due rows several ticks are sent at once, as KEDA would start several pods;
the next ticks are sent after the responses to all of them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, LiteralString

import psycopg

from events.envelope import CloudEvent, to_binary
from events.vocabulary import CLOCK_TICKED
from shop.primitives.clock import utc_now
from shop.primitives.ids import new_uuid
from shop.primitives.spec import FunctionSpec, Schedule
from tools.local_platform.activities import Activity, ActivityKind
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.function_client import FunctionClient
from tools.local_platform.http_messages import HttpRequest

if TYPE_CHECKING:
    from shop.adapters.signatures import Signer

SOURCE = "/shop/clock"
BUSY_SECONDS = 60.0
POLL_SECONDS = 1.0
# A tick that took this long made progress, even if as many rows are due afterwards.
PROGRESS_SECONDS = 2.0
SLEEP_SECONDS_MAX = 60.0
# without traffic: two schedules send two queries each, together one a minute
IDLE_SECONDS_MAX = 240.0
SEARCH_DAYS = 366 * 5
FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))

COUNT_DUE: LiteralString = """
select count(*) from shop.due_work where due_at <= now() and kind = any(%(kinds)s)
"""
SECONDS_TO_NEXT: LiteralString = """
select extract(epoch from min(due_at) - now())::float8 from shop.due_work
where due_at > now() and kind = any(%(kinds)s)
"""


@dataclass(frozen=True)
class Cron:
    """A five-field cron expression: minute, hour, day, month, weekday (0 and 7 are Sunday), UTC."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    is_either_day: bool

    @classmethod
    def parse(cls, text: str) -> Cron:
        """Raises ValueError for anything but ``*``, numbers, ranges, lists and steps."""
        fields = text.split()
        if len(fields) != len(FIELDS):
            raise ValueError(f"{text!r} does not have five fields")
        sets = [_numbers(part, *limits) for part, limits in zip(fields, FIELDS, strict=True)]
        weekdays = frozenset(day % 7 for day in sets[4])
        # crontab(5): with both days restricted, either of them is enough
        is_either_day = not fields[2].startswith("*") and not fields[4].startswith("*")
        return cls(sets[0], sets[1], sets[2], sets[3], weekdays, is_either_day)

    def next_after(self, moment: datetime) -> datetime:
        """The first matching minute after ``moment``; ValueError if none within five years."""
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        for _ in range(SEARCH_DAYS):
            if self._has_day(day):
                for hour in sorted(self.hours):
                    for minute in sorted(self.minutes):
                        tick = day.replace(hour=hour, minute=minute)
                        if tick > moment:
                            return tick
            day += timedelta(days=1)
        raise ValueError("the schedule never matches")

    def _has_day(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        matches = (day.day in self.days, day.isoweekday() % 7 in self.weekdays)
        return any(matches) if self.is_either_day else all(matches)


def _numbers(text: str, low: int, high: int) -> frozenset[int]:
    numbers: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        start = low if first == "*" else int(first)
        end = high if first == "*" or (step and not last) else int(last or first)
        if not (low <= start <= end <= high) or (step and int(step) < 1):
            raise ValueError(f"{part!r} is not within {low}-{high}")
        numbers.update(range(start, end + 1, int(step or 1)))
    return frozenset(numbers)


class DueWork:
    """Queries the view ``shop.due_work`` over one connection, which is reopened after an error."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.AsyncConnection[tuple[float | None]] | None = None
        self._lock = asyncio.Lock()

    async def count(self, kinds: tuple[str, ...]) -> int:
        """How many rows of these kinds are due now."""
        return int(await self._query(COUNT_DUE, kinds) or 0)

    async def seconds_to_next(self, kinds: tuple[str, ...]) -> float | None:
        """Seconds until the next row of these kinds becomes due, or None."""
        return await self._query(SECONDS_TO_NEXT, kinds)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _query(self, statement: LiteralString, kinds: tuple[str, ...]) -> float | None:
        async with self._lock:
            if self._connection is None or self._connection.closed:
                self._connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=5, application_name="shop clock"
                )
            cursor = await self._connection.execute(statement, {"kinds": list(kinds)})
            row = await cursor.fetchone()
        return row[0] if row else None


class Clock:
    """Ticks the schedules of all functions until cancelled.

    It queries ``due_work`` every second for ``busy_seconds`` after traffic, then less often.
    """

    def __init__(
        self,
        specs: Iterable[FunctionSpec],
        functions: FunctionClient,
        activity_log: ActivityLog,
        signer: Signer,
        due_work: DueWork,
        busy_seconds: float = BUSY_SECONDS,
    ) -> None:
        self._schedules = [(spec, schedule) for spec in specs for schedule in spec.schedules]
        self._functions = functions
        self._activity_log = activity_log
        self._signer = signer
        self._due_work = due_work
        self._busy_seconds = busy_seconds
        self._traffic_at = time.monotonic()
        self._traffic = asyncio.Event()

    def note_traffic(self) -> None:
        """Polls ``due_work`` every second for a while: a request may have created due work."""
        self._traffic_at = time.monotonic()
        self._traffic.set()

    async def run(self) -> None:
        """Runs all schedules."""
        try:
            async with asyncio.TaskGroup() as group:
                for spec, schedule in self._schedules:
                    run = self._run_due if schedule.due_kinds else self._run_cron
                    group.create_task(run(spec, schedule))
        finally:
            await self._due_work.close()

    async def tick(self, spec: FunctionSpec, schedule: Schedule) -> bool:
        """Sends one signed tick; True when the function acknowledged it."""
        began = time.monotonic()
        event = CloudEvent(
            id=str(new_uuid()),
            source=SOURCE,
            type=CLOCK_TICKED,
            subject=schedule.name,
            time=utc_now(),
            data=b"{}",
        )
        headers, body = to_binary(self._signer.sign(event))
        fields = [(name.encode(), text.encode("latin-1")) for name, text in headers.items()]
        fields.append((b"host", spec.name.encode()))
        response = await self._functions.send(
            spec.name, HttpRequest("POST", b"/events", fields, body)
        )
        took = (time.monotonic() - began) * 1000
        self._activity_log.count("ticks")
        self._activity_log.write(
            f"tick {schedule.name} -> {spec.name} {response.status} ({took:.0f} ms)"
        )
        activity = Activity(
            kind=ActivityKind.TICK,
            function=spec.name,
            subject=schedule.name,
            code=response.status,
            seconds=took / 1000,
        )
        self._activity_log.observe(activity)
        return 200 <= response.status < 300

    async def _run_cron(self, spec: FunctionSpec, schedule: Schedule) -> None:
        cron = Cron.parse(schedule.cron)
        while True:
            moment = cron.next_after(utc_now())
            while (left := (moment - utc_now()).total_seconds()) > 0:
                # in steps: the system clock jumps when a laptop resumes from sleep
                await asyncio.sleep(min(left, SLEEP_SECONDS_MAX))
            await self.tick(spec, schedule)

    async def _run_due(self, spec: FunctionSpec, schedule: Schedule) -> None:
        idle_ticks = 0
        while True:
            try:
                due = await self._due_work.count(schedule.due_kinds)
                if due > 0:
                    was_quick = await self._tick_all(spec, schedule, due)
                    left = await self._due_work.count(schedule.due_kinds)
                    # back off only after quick ticks that did not reduce the number of due rows
                    idle_ticks = idle_ticks + 1 if was_quick and left >= due else 0
                pause = await self._pause(schedule, idle_ticks)
            except psycopg.Error as error:
                self._activity_log.write(f"the clock cannot query due_work: {str(error).strip()}")
                pause = SLEEP_SECONDS_MAX / 6
            await self._sleep(pause, ends_with_traffic=idle_ticks == 0)

    async def _tick_all(self, spec: FunctionSpec, schedule: Schedule, due: int) -> bool:
        """Sends as many ticks as ``due`` rows require; True if all were acknowledged quickly.

        A failed tick is not counted as idle: the activator backs off for a broken process.
        """
        most = min(spec.scale.max_scale, self._functions.processes_max(spec.name))
        count = min(most, math.ceil(due / schedule.rows_per_process))
        began = time.monotonic()
        acknowledged = await asyncio.gather(*(self.tick(spec, schedule) for _ in range(count)))
        return all(acknowledged) and time.monotonic() - began < PROGRESS_SECONDS

    async def _pause(self, schedule: Schedule, idle_ticks: int) -> float:
        if idle_ticks:  # due rows stay due: the function cannot process them yet
            return min(POLL_SECONDS * 2.0 ** (idle_ticks - 1), SLEEP_SECONDS_MAX)
        if time.monotonic() - self._traffic_at < self._busy_seconds:
            return POLL_SECONDS
        until_next = await self._due_work.seconds_to_next(schedule.due_kinds)
        return min(IDLE_SECONDS_MAX, until_next if until_next is not None else IDLE_SECONDS_MAX)

    async def _sleep(self, seconds: float, *, ends_with_traffic: bool) -> None:
        """Sleeps; traffic can end the sleep early, but not within the first ``POLL_SECONDS``."""
        await asyncio.sleep(min(max(seconds, 0.05), POLL_SECONDS))
        rest = seconds - POLL_SECONDS
        if rest <= 0:
            return
        if not ends_with_traffic:
            await asyncio.sleep(rest)
            return
        self._traffic.clear()
        try:
            async with asyncio.timeout(rest):
                await self._traffic.wait()
        except TimeoutError:
            return
