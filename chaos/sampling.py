"""Takes a sample of the run each second, slows the workload down and notes recoveries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import LiteralString

import psycopg

from chaos.controlled_process import JsonObject
from chaos.environment import Environment
from chaos.report.progress import ProgressLine
from chaos.report.record import RunRecord, Sample
from chaos.schedule import FaultSchedule

SAMPLE_SECONDS = 1.0
QUERY_SECONDS = 2
THROTTLE_SECONDS = 1
RECOVERY_SECONDS_MAX = 120.0
SAMPLED_EVENTS_MAX = 200
RATE_SAMPLES = 10
# The workload slows down above the first backlog and almost stops at the second.
BACKLOG_MIN, BACKLOG_MAX = 200, 800
SHARE_MIN = 0.05

BACKLOG: LiteralString = """
select (select count(*) from shop.due_work where due_at <= now()) as due,
  (select count(*) from shop.orders where status in ('PENDING', 'CANCELLING')) as open_orders
"""


class Sampler:
    """Adds samples to the record; ``events`` are up to 200 delivered events, one per second."""

    def __init__(self, record: RunRecord, now: Callable[[], float]) -> None:
        self._record = record
        self._now = now
        self._workload_samples: list[JsonObject] = []
        self._due = self._open_orders = 0
        self.events: list[tuple[dict[str, str], bytes]] = []

    def add_workload_sample(self, sample: JsonObject) -> None:
        """Keeps one sample of the workload process for the next sample of the run."""
        self._workload_samples.append(sample)

    async def take_sample(self, environment: Environment, schedule: FaultSchedule) -> None:
        """Adds one sample, adapts the workload's rate to the backlog and notes recoveries."""
        with suppress(psycopg.Error, OSError):
            async with asyncio.timeout(QUERY_SECONDS), environment.database() as database:
                row = await (await database.execute(BACKLOG)).fetchone()
                if row is not None:
                    self._due, self._open_orders = row
        broker = environment.platform.broker
        if len(self.events) < SAMPLED_EVENTS_MAX and broker.recent:
            self.events.append(broker.recent[-1])
        sample = self._sample(environment, schedule)
        self._record.samples.append(sample)
        await _throttle(environment, sample)
        _note_recoveries(schedule, sample)

    def progress_line(
        self, environment: Environment, schedule: FaultSchedule, evaluations: int
    ) -> ProgressLine:
        """The values of the newest sample and the totals until then."""
        samples, plan = self._record.samples, environment.kill_plan
        sample, recent = samples[-1], samples[-RATE_SAMPLES - 1 :]
        seconds = max(1.0, sample.at - recent[0].at)
        return ProgressLine(
            elapsed_seconds=sample.at,
            orders=sum(each.orders for each in samples),
            orders_per_second=sum(each.orders for each in recent[1:]) / seconds,
            p99_ms=sample.p99_ms,
            unknown=sum(each.unknown for each in samples),
            due=sample.due,
            pending=sample.deliveries_pending,
            kills=plan.kills_total,
            kills_planned=plan.kills_planned,
            pairs_completed=plan.pairs_completed,
            pairs=len(plan.pairs),
            active_faults=schedule.active,
            evaluations=evaluations,
            violations=len(self._record.violations),
        )

    def _sample(self, environment: Environment, schedule: FaultSchedule) -> Sample:
        # on a busy machine more than one sample of the workload may have arrived
        lines, self._workload_samples = self._workload_samples, []
        before = self._record.samples[-1].at if self._record.samples else 0.0
        return Sample(
            at=self._now(),
            seconds=max(1.0, self._now() - before),
            requests=sum(line.get("requests", 0) for line in lines),
            orders=sum(line.get("orders", 0) for line in lines),
            client_errors=sum(line.get("client_errors", 0) for line in lines),
            unknown=sum(line.get("unknown", 0) for line in lines),
            p50_ms=max((line.get("p50_ms", 0.0) for line in lines), default=0.0),
            p99_ms=max((line.get("p99_ms", 0.0) for line in lines), default=0.0),
            due=self._due,
            open_orders=self._open_orders,
            deliveries_pending=environment.platform.broker.pending,
            processes=sum(len(pool.processes) for pool in environment.pools()),
            faults=schedule.active,
        )


async def _throttle(environment: Environment, sample: Sample) -> None:
    """Reduces the workload's rate by the backlog: an order counts when it has been processed."""
    excess = max(sample.due, sample.deliveries_pending) - BACKLOG_MIN
    share = max(SHARE_MIN, min(1.0, 1 - excess / (BACKLOG_MAX - BACKLOG_MIN)))
    with suppress(TimeoutError):
        async with asyncio.timeout(THROTTLE_SECONDS):
            await environment.workload.call("throttle", share=round(share, 3))


def _note_recoveries(schedule: FaultSchedule, sample: Sample) -> None:
    """The shop has recovered after a second with requests and without an unknown outcome."""
    if not sample.requests or sample.unknown:
        return
    for injection in schedule.injections:
        seconds = sample.at - injection.ended
        if injection.recovery_seconds is None and seconds <= RECOVERY_SECONDS_MAX:
            injection.recovery_seconds = seconds
