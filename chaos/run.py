"""One fault run, from the first fault to the last check; ``RunResults`` collects its results."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass

from chaos import final_checks
from chaos.environment import Environment
from chaos.faults.catalogue import SCHEDULED_FAULTS
from chaos.faults.continuous import start_continuous_faults
from chaos.kill_driver import drive_kills, measure_message_rates
from chaos.monitor import BackgroundMonitor
from chaos.reconciliation import reconcile_often
from chaos.report import summary
from chaos.results import RunResults
from chaos.sampling import SAMPLE_SECONDS
from chaos.schedule import FaultSchedule
from chaos.startup import RunSettings, open_environment

# Faults are scheduled over this share of the workload's time.
SCHEDULED_SHARE = 0.9
# When orders or faults are missing at the end, the workload continues in parts of this length.
EXTENSION_SECONDS = 15.0
# The workload may take this much longer when faults have kept orders from being accepted.
OVERTIME = 1.25
# After the workload, missing kills get this share of its time, at most of five minutes.
MISSING_KILLS_SHARE = 0.4
MISSING_KILLS_SECONDS = 300


@dataclass
class Run:
    """A run; with ``is_fail_fast`` it stops at the first violation."""

    settings: RunSettings
    results: RunResults
    is_fail_fast: bool

    async def execute(self) -> None:
        """Executes the run: startup, workload with faults, recovery, final checks."""
        results, record = self.results, self.results.record
        results.progress.write_line(f"seed {record.seed}: starting the shop and its proxies")
        async with open_environment(self.settings, results.add_workload_line) as environment:
            results.began = time.monotonic()
            environment.report_violation = results.report
            monitor = BackgroundMonitor(environment, results.report_invariant)
            schedule = self._schedule(environment)
            async with _background(
                monitor.run,
                environment.supervise_postgres,
                lambda: self._sample(environment, schedule, monitor),
                lambda: measure_message_rates(environment),
                lambda: reconcile_often(environment),
            ):
                await self._until_violation(self._run_workload(environment, schedule))
                counts = await environment.provider_faults.occurrences()
                summary.add_fault_summaries(record, environment, schedule, results.selected, counts)
                await environment.remove_all_faults()
                await schedule.stop()
                await self._until_violation(
                    final_checks.run_all(results, environment, monitor.lock)
                )
            summary.add_checker_counts(record, monitor.evaluations)
        record.seconds = results.now()

    def _schedule(self, environment: Environment) -> FaultSchedule:
        return FaultSchedule(
            environment,
            [fault for fault in SCHEDULED_FAULTS if fault.id in self.results.selected],
            environment.tier.repetitions,
            seconds=environment.tier.load_seconds * SCHEDULED_SHARE,
            now=self.results.now,
        )

    async def _run_workload(self, environment: Environment, schedule: FaultSchedule) -> None:
        """Runs the workload together with the selected faults."""
        await start_continuous_faults(environment, self.results.selected)
        self.results.progress.write_line("the workload starts")
        driver = asyncio.create_task(drive_kills(environment))
        if "F-01" in self.results.selected:
            environment.kill_plan.start()
        environment.platform.activator.pools["settle"].is_disabled = False
        schedule.start()
        began = self.results.now()
        try:
            await self._place_orders(environment, schedule)
            self.results.record.load_seconds = self.results.now() - began
            await self._wait_for_missing_kills(environment)
        finally:
            driver.cancel()

    async def _place_orders(self, environment: Environment, schedule: FaultSchedule) -> None:
        """Places the tier's orders, and more until every fault has been injected."""
        seconds, orders = environment.tier.load_seconds, environment.tier.orders
        results, record = self.results, self.results.record
        deadline, overtime = results.now() + seconds, results.now() + OVERTIME * seconds
        left = seconds
        while left > 1:
            result = await environment.workload.call("load", orders=orders, seconds=left)
            record.orders += int(result["accepted"])
            record.operations = int(result["totals"]["requests"])
            record.unexpected_responses = dict(result["totals"]["unexpected_responses"])
            missing = environment.tier.orders - record.orders
            if schedule.is_finished and environment.kill_plan.is_finished and missing <= 0:
                return
            left = min((overtime if missing > 0 else deadline) - results.now(), EXTENSION_SECONDS)
            orders = max(missing, round(environment.tier.orders * left / seconds / 2) + 1)

    async def _wait_for_missing_kills(self, environment: Environment) -> None:
        """Keeps all operations in use until every kill has happened or the time is over."""
        seconds = MISSING_KILLS_SHARE * min(environment.tier.load_seconds, MISSING_KILLS_SECONDS)
        deadline = self.results.now() + seconds
        while not environment.kill_plan.is_finished and self.results.now() < deadline:
            await environment.workload.call("check_liveness", count=1)
            await asyncio.sleep(0.2)

    async def _until_violation(self, work: Coroutine[object, object, None]) -> None:
        """Awaits the work; with ``is_fail_fast`` it is cancelled at the first violation."""
        if not self.is_fail_fast:
            await work
            return
        has_violation = self.results.has_violation
        if has_violation.is_set():
            work.close()
            return
        task = asyncio.ensure_future(work)
        violation = asyncio.ensure_future(has_violation.wait())
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
            await self.results.sampler.take_sample(environment, schedule)
            self.results.progress.show(
                self.results.sampler.progress_line(environment, schedule, monitor.evaluations)
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
