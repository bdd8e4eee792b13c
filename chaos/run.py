"""One fault run from its first fault to its last check; what it saw is in a ``RunRecord``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg

from chaos import final_checks, summary
from chaos.environment import CLIENTS, DATABASE, PROVIDER, Environment
from chaos.faults.catalogue import KINDS
from chaos.kill_driver import keep_killing, note_rates
from chaos.monitor import Watch
from chaos.progress import Progress, ProgressLine
from chaos.run_record import Broken, RunRecord, Sample
from chaos.schedule import FaultSchedule
from chaos.startup import Opening, open_scene
from chaos.toxics import Toxic
from tools.checker.evaluate import Violation

DUPLICATE, REORDER, LOSE = 0.3, 0.2, 0.05
LATE_SECONDS_MAX = 30.0
PROVIDER_FAULTS = {
    "timeout_before": 0.01,
    "timeout_after": 0.01,
    "error_before": 0.03,
    "error_after": 0.03,
    "rate_limited": 0.03,
    "slow": 0.02,
    "slow_answer": 0.02,
    "late": 0.01,
    "wrong_amount": 0.01,
    "wrong_currency": 0.005,
    "wrong_key": 0.01,
    "webhook_lost": 0.1,
    "webhook_duplicated": 0.2,
    "webhook_reordered": 0.2,
}
COMMITS_LOST = 0.006
DOUBLED = 0.02
AGAIN_MAX = 200
RECOVERY_SECONDS_MAX = 120.0
MORE_SECONDS = 15.0
# So much longer the load may take when faults have kept it from its orders.
OVERTIME = 1.25
STRAGGLERS = 0.4
# Work left lying: from the first number on the load is eased, at the second it all but rests.
BACKLOG_FULL, BACKLOG_MAX = 200, 800
SHARE_MIN = 0.05

BACKLOG: LiteralString = """
select (select count(*) from shop.due_work where due_at <= now()) as due,
  (select count(*) from shop.orders where status in ('PENDING', 'CANCELLING')) as open_orders
"""


@dataclass
class Run:
    """A run under way.  ``kinds`` are the ids that may fire; ``stops_early`` at the first break."""

    opening: Opening
    kinds: frozenset[str]
    record: RunRecord
    progress: Progress
    stops_early: bool
    began: float = field(default_factory=time.monotonic)
    again: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    _is_broken: asyncio.Event = field(default_factory=asyncio.Event)
    _load_lines: list[dict[str, Any]] = field(default_factory=list)
    _backlog: tuple[int, int] = (0, 0)
    _known: set[tuple[str, str]] = field(default_factory=set)

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    async def go(self) -> None:
        """Everything; whatever it finds is in the record."""
        self.progress.say(f"seed {self.record.seed}: raising the shop and its proxies")
        async with open_scene(self.opening) as scene:
            self.began = time.monotonic()
            scene.notice = self.note
            watch = Watch(scene, self.note_violation)
            lanes = self._lanes(scene)
            async with _background(
                watch.run,
                scene.keep_postgres_up,
                lambda: self._sample(scene, lanes, watch),
                lambda: note_rates(scene),
            ):
                await self._unless_broken(self._load(scene, lanes))
                summary.collect(
                    self.record, scene, lanes, self.kinds, await _provider_counts(scene)
                )
                await scene.heal()
                await lanes.stop()
                await self._unless_broken(final_checks.close(self, scene, watch))
            self.record.evaluations = watch.evaluations
            summary.finish(self.record, scene, watch.evaluations)
        self.record.seconds = self.now()

    def note(self, name: str, what: str, rows: list[str] | None = None) -> None:
        """Something did not hold; each thing is noted once."""
        if (name, what) in self._known:
            return
        self._known.add((name, what))
        self.record.broken.append(Broken(at=self.now(), id=name, what=what, rows=rows or []))
        self.progress.say(f"BROKEN {name}: {what} {'; '.join(rows or [])[:300]}")
        if self.stops_early:
            self._is_broken.set()

    def note_violation(self, violation: Violation) -> None:
        """An invariant that does not hold."""
        self.note(violation.id, violation.what, [str(row) for row in violation.rows])

    def on_load_line(self, line: dict[str, Any]) -> None:
        """A second of the load; a replay that is answered otherwise is noted at once."""
        sample = line.get("sample", {})
        self._load_lines.append(sample)
        if different := sample.get("different"):
            self.note("replays", f"{different} requests were answered otherwise when repeated")

    async def _load(self, scene: Environment, lanes: FaultSchedule) -> None:
        """The load with every fault that was asked for; ends when the load does."""
        await self._put_steady_faults(scene)
        self.progress.say("the load begins")
        killing = asyncio.create_task(keep_killing(scene))
        scene.crashes.is_on = False
        if "F-01" in self.kinds:
            scene.crashes.begin()
        scene.platform.activator.pools["settle"].is_disabled = False
        lanes.start()
        began = self.now()
        try:
            await self._order(scene, lanes)
            self.record.load_seconds = self.now() - began
            await self._finish_killing(scene)
        finally:
            killing.cancel()

    async def _order(self, scene: Environment, lanes: FaultSchedule) -> None:
        """The orders of the tier, and then some more while there are faults to come."""
        seconds, orders = scene.tier.load_seconds, scene.tier.orders
        deadline, last = self.now() + seconds, self.now() + OVERTIME * seconds
        left = seconds
        while left > 1:
            totals = await scene.load.ask("load", orders=orders, seconds=left)
            self.record.orders += int(totals["accepted"])
            self.record.operations = int(totals["totals"]["requests"])
            self.record.surprises = dict(totals["totals"]["surprises"])
            crashes = scene.crashes
            are_killed = not crashes.is_on or crashes.pairs_hit == len(crashes.pairs)
            missing = scene.tier.orders - self.record.orders
            if lanes.are_done and are_killed and missing <= 0:
                return
            left = min((last if missing > 0 else deadline) - self.now(), MORE_SECONDS)
            orders = max(missing, round(scene.tier.orders * left / seconds / 2) + 1)

    async def _put_steady_faults(self, scene: Environment) -> None:
        faults = scene.message_faults
        faults.late_seconds_max = LATE_SECONDS_MAX * scene.tier.hold
        faults.duplicate = DUPLICATE if "F-05" in self.kinds else 0.0
        faults.reorder = REORDER if "F-06" in self.kinds else 0.0
        faults.lose = LOSE if "F-07" in self.kinds else 0.0
        if "F-15" in self.kinds:
            await scene.provider.set_base(
                probabilities=PROVIDER_FAULTS,
                slow_seconds=1.0,
                late_seconds=20 * scene.tier.hold,
                reorder_seconds=10 * scene.tier.hold,
                hang_seconds=5.0,
            )
        if "F-10" in self.kinds:
            scene.steady = {
                DATABASE: Toxic(kind="swallow_commit_reply", probability=COMMITS_LOST),
                CLIENTS: Toxic(kind="duplicate_request", probability=DOUBLED),
                PROVIDER: Toxic(kind="duplicate_request", probability=DOUBLED),
            }
            await scene.put_steady_toxics()

    async def _finish_killing(self, scene: Environment) -> None:
        """The load is done; pairs that were not hit yet get a little more time."""
        deadline = self.now() + STRAGGLERS * min(scene.tier.load_seconds, 300)
        crashes = scene.crashes
        while crashes.is_on and crashes.pairs_hit < len(crashes.pairs) and self.now() < deadline:
            await scene.load.ask("tail", count=1)
            await asyncio.sleep(0.2)

    async def _unless_broken(self, work: Awaitable[None]) -> None:
        """Does the work, or as much of it as comes before something is broken."""
        if self._is_broken.is_set():
            asyncio.ensure_future(work).cancel()
            return
        task = asyncio.ensure_future(work)
        broken = asyncio.ensure_future(self._is_broken.wait())
        await asyncio.wait((task, broken), return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        await task

    def _lanes(self, scene: Environment) -> FaultSchedule:
        asked = [kind for kind in KINDS if kind.id in self.kinds]
        return FaultSchedule(
            scene, asked, scene.tier.doses, seconds=scene.tier.load_seconds * 0.9, now=self.now
        )

    async def _sample(self, scene: Environment, lanes: FaultSchedule, watch: Watch) -> None:
        """One sample a second, until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            with suppress(psycopg.Error, OSError):
                async with asyncio.timeout(2), scene.database() as database:
                    row = await (await database.execute(BACKLOG)).fetchone()
                    self._backlog = (row[0], row[1]) if row else self._backlog
            if len(self.again) < AGAIN_MAX and scene.platform.broker.recent:
                self.again.append(scene.platform.broker.recent[-1])
            self.record.samples.append(self._sampled(scene, lanes))
            await self._ease(scene)
            self._note_recoveries(lanes)
            self.progress.show(self._line(scene, lanes, watch))

    def _sampled(self, scene: Environment, lanes: FaultSchedule) -> Sample:
        # a busy machine takes a sample later than each second: several lines of the load, then
        lines, self._load_lines = self._load_lines, []
        before = self.record.samples[-1].at if self.record.samples else 0.0
        return Sample(
            at=self.now(),
            seconds=max(1.0, self.now() - before),
            requests=sum(line.get("requests", 0) for line in lines),
            orders=sum(line.get("orders", 0) for line in lines),
            refused=sum(line.get("refused", 0) for line in lines),
            unknown=sum(line.get("unknown", 0) for line in lines),
            p50_ms=max((line.get("p50_ms", 0.0) for line in lines), default=0.0),
            p99_ms=max((line.get("p99_ms", 0.0) for line in lines), default=0.0),
            due=self._backlog[0],
            open_orders=self._backlog[1],
            deliveries_pending=scene.platform.broker.pending,
            processes=sum(len(pool.processes) for pool in scene.pools()),
            faults=lanes.on,
        )

    async def _ease(self, scene: Environment) -> None:
        """Buyers hold back while much is due: orders count once they are paid, not once placed."""
        sample = self.record.samples[-1]
        behind = max(sample.due, sample.deliveries_pending) - BACKLOG_FULL
        share = max(SHARE_MIN, min(1.0, 1 - behind / (BACKLOG_MAX - BACKLOG_FULL)))
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await scene.load.ask("ease", share=round(share, 3))

    def _note_recoveries(self, lanes: FaultSchedule) -> None:
        """A fault is over when a second passes without an answer that is missing or a 5xx."""
        sample = self.record.samples[-1]
        for injection in lanes.injections:
            open_for = sample.at - injection.ended
            is_open = injection.rest_seconds is None and open_for <= RECOVERY_SECONDS_MAX
            if is_open and sample.requests and not sample.unknown:
                injection.rest_seconds = open_for

    def _line(self, scene: Environment, lanes: FaultSchedule, watch: Watch) -> ProgressLine:
        sample, crashes = self.record.samples[-1], scene.crashes
        recent = self.record.samples[-11:]
        return ProgressLine(
            elapsed_seconds=sample.at,
            orders=sum(each.orders for each in self.record.samples),
            orders_per_second=sum(each.orders for each in recent[1:])
            / max(1.0, sample.at - recent[0].at),
            p99_ms=sample.p99_ms,
            unknown=sum(each.unknown for each in self.record.samples),
            due=sample.due,
            pending=sample.deliveries_pending,
            kills=crashes.kills,
            kills_wanted=crashes.wanted,
            pairs_hit=crashes.pairs_hit,
            pairs_wanted=len(crashes.pairs),
            faults_on=lanes.on,
            evaluations=watch.evaluations,
            violations=len(self.record.broken),
        )


async def _provider_counts(scene: Environment) -> dict[str, int]:
    return dict(await scene.provider.fired())


@asynccontextmanager
async def _background(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Runs beside the block; what one of them dies of is raised at the end."""
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
