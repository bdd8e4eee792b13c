"""One fault run, from the first fault to the last check; the results are in a ``RunRecord``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from chaos import final_checks
from chaos.controlled_process import JsonObject
from chaos.environment import Environment
from chaos.faults.catalogue import SCHEDULED_FAULTS
from chaos.faults.continuous import start_continuous_faults
from chaos.kill_driver import drive_kills, measure_message_rates
from chaos.monitor import BackgroundMonitor
from chaos.report import summary
from chaos.report.progress import Progress
from chaos.report.record import RecordedViolation, RunRecord
from chaos.sampling import SAMPLE_SECONDS, Sampler
from chaos.schedule import FaultSchedule
from chaos.startup import RunSettings, open_environment
from tools.checker.evaluate import Violation

# Faults are scheduled over this share of the workload's time.
SCHEDULED_SHARE = 0.9
# When orders or faults are missing at the end, the workload continues in parts of this length.
EXTENSION_SECONDS = 15.0
# The workload may take this much longer when faults have kept orders from being accepted.
OVERTIME = 1.25
# After the workload, missing kills get this share of its time, at most of five minutes.
MISSING_KILLS_SHARE = 0.4
MISSING_KILLS_SECONDS = 300
ROWS_CHARACTERS_MAX = 300


@dataclass
class Run:
    """A run; ``selected`` are the ids of its faults, ``is_fail_fast`` stops at a violation."""

    settings: RunSettings
    selected: frozenset[str]
    record: RunRecord
    progress: Progress
    is_fail_fast: bool
    began: float = field(default_factory=time.monotonic)
    sampler: Sampler = field(init=False)
    _has_violation: asyncio.Event = field(default_factory=asyncio.Event)
    _reported: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.record, self.now)

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    async def execute(self) -> None:
        """Executes the run: startup, workload with faults, recovery, final checks."""
        self.progress.say(f"seed {self.record.seed}: starting the shop and its proxies")
        async with open_environment(self.settings, self.on_workload_line) as environment:
            self.began = time.monotonic()
            environment.report_violation = self.report
            monitor = BackgroundMonitor(environment, self.report_invariant)
            schedule = self._schedule(environment)
            async with _background(
                monitor.run,
                environment.supervise_postgres,
                lambda: self._sample(environment, schedule, monitor),
                lambda: measure_message_rates(environment),
            ):
                await self._until_violation(self._run_workload(environment, schedule))
                counts = await environment.provider_faults.occurrences()
                summary.add_fault_summaries(
                    self.record, environment, schedule, self.selected, counts
                )
                await environment.remove_all_faults()
                await schedule.stop()
                await self._until_violation(final_checks.run_all(self, environment, monitor.lock))
            summary.add_checker_counts(self.record, monitor.evaluations)
        self.record.seconds = self.now()

    def report(self, id: str, title: str, rows: list[str] | None = None) -> None:
        """Records a violation; each combination of id and title is recorded once."""
        if (id, title) in self._reported:
            return
        self._reported.add((id, title))
        rows = rows or []
        self.record.violations.append(
            RecordedViolation(at=self.now(), id=id, title=title, rows=rows)
        )
        self.progress.say(f"VIOLATION {id}: {title} {'; '.join(rows)[:ROWS_CHARACTERS_MAX]}")
        if self.is_fail_fast:
            self._has_violation.set()

    def report_invariant(self, violation: Violation) -> None:
        """Records a violated invariant."""
        self.report(violation.id, violation.what, [str(row) for row in violation.rows])

    def on_workload_line(self, line: JsonObject) -> None:
        """Handles one sample of the workload; a replay with another response is a violation."""
        sample: JsonObject = line.get("sample", {})
        self.sampler.add_workload_sample(sample)
        if different := sample.get("different"):
            self.report("replays", f"{different} repeated requests got another response")

    def _schedule(self, environment: Environment) -> FaultSchedule:
        return FaultSchedule(
            environment,
            [fault for fault in SCHEDULED_FAULTS if fault.id in self.selected],
            environment.tier.repetitions,
            seconds=environment.tier.load_seconds * SCHEDULED_SHARE,
            now=self.now,
        )

    async def _run_workload(self, environment: Environment, schedule: FaultSchedule) -> None:
        """Runs the workload together with the selected faults."""
        await start_continuous_faults(environment, self.selected)
        self.progress.say("the workload starts")
        driver = asyncio.create_task(drive_kills(environment))
        if "F-01" in self.selected:
            environment.kill_plan.start()
        environment.platform.activator.pools["settle"].is_disabled = False
        schedule.start()
        began = self.now()
        try:
            await self._place_orders(environment, schedule)
            self.record.load_seconds = self.now() - began
            await self._wait_for_missing_kills(environment)
        finally:
            driver.cancel()

    async def _place_orders(self, environment: Environment, schedule: FaultSchedule) -> None:
        """Places the tier's orders, and more until every fault has been injected."""
        seconds, orders = environment.tier.load_seconds, environment.tier.orders
        deadline, overtime = self.now() + seconds, self.now() + OVERTIME * seconds
        left = seconds
        while left > 1:
            result = await environment.workload.call("load", orders=orders, seconds=left)
            self.record.orders += int(result["accepted"])
            self.record.operations = int(result["totals"]["requests"])
            self.record.unexpected_responses = dict(result["totals"]["unexpected_responses"])
            missing = environment.tier.orders - self.record.orders
            if schedule.is_finished and environment.kill_plan.is_finished and missing <= 0:
                return
            left = min((overtime if missing > 0 else deadline) - self.now(), EXTENSION_SECONDS)
            orders = max(missing, round(environment.tier.orders * left / seconds / 2) + 1)

    async def _wait_for_missing_kills(self, environment: Environment) -> None:
        """Keeps all operations in use until every kill has happened or the time is over."""
        seconds = MISSING_KILLS_SHARE * min(environment.tier.load_seconds, MISSING_KILLS_SECONDS)
        deadline = self.now() + seconds
        while not environment.kill_plan.is_finished and self.now() < deadline:
            await environment.workload.call("check_liveness", count=1)
            await asyncio.sleep(0.2)

    async def _until_violation(self, work: Coroutine[object, object, None]) -> None:
        """Awaits the work; with ``is_fail_fast`` it is cancelled at the first violation."""
        if self._has_violation.is_set():
            work.close()
            return
        task = asyncio.ensure_future(work)
        violation = asyncio.ensure_future(self._has_violation.wait())
        await asyncio.wait((task, violation), return_when=asyncio.FIRST_COMPLETED)
        violation.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        await task

    async def _sample(
        self, environment: Environment, schedule: FaultSchedule, monitor: BackgroundMonitor
    ) -> None:
        """Takes a sample each second and shows the progress; runs until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            await self.sampler.take_sample(environment, schedule)
            self.progress.show(
                self.sampler.progress_line(environment, schedule, monitor.evaluations)
            )


@asynccontextmanager
async def _background(*works: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    """Runs the functions concurrently with the block; raises their first error at its end."""
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
