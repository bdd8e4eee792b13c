"""Assigns a failpoint to each new process (F-01) and counts the kills.

A process gets its failpoint at its start (``SHOP_CRASH``).  Failpoints are assigned so that the
kills of every pair of function and failpoint are spread over the run.  A pair that was assigned and
not reached is assigned again.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from chaos.failpoint_pairs import OF_A_PROVIDER_CALL, FailpointPair
from chaos.fork_server.client import ForkServer
from shop.primitives.failpoints import Failpoint
from tools.local_platform.child_processes import ChildProcess, ChildProcesses, ProcessHandle

PASSES_MAX = 500
COLD_START_EVERY = 10
# These pairs are reached rarely, so they are assigned first while their kills are missing.  A
# process of settle that is not killed closes all days that its other pairs need; a tick of sweep
# takes long when much is due.
ASSIGNED_FIRST = frozenset(
    (
        FailpointPair("settle", Failpoint.PUBLISHED),
        FailpointPair("sweep", Failpoint.BEFORE_RESPONSE),
    )
)
# After as many misses in a row it has its turn like the other pairs.
MISSES_MAX = 3
# One tick of sweep passes these failpoints once per row: killed at the first row each time, it
# would never process the rows behind it.  A run with few kills has no time for many rows; in a run
# with many kills, half as many rows let the sweep fall behind the workload.
PER_ROW = frozenset(
    FailpointPair("sweep", failpoint)
    for failpoint in (
        Failpoint.BEFORE_COMMIT,
        Failpoint.COMMIT_SENT,
        Failpoint.COMMITTED,
        *OF_A_PROVIDER_CALL,
    )
)
ROWS_MAX, ROWS_PER_KILL = 120, 4
# A process that has not reached its failpoint after this time gets replaced.  It is longer than the
# longest message takes, which is a tick of sweep.
STUCK_SECONDS = 12.0
STUCK_WITH_TICKS_SECONDS = 35.0


class KillPlan:
    """Assigns failpoints to new processes and counts the kills; ``kills`` is per pair."""

    def __init__(
        self, pairs: Iterable[FailpointPair], *, kills_per_pair: int, seconds: float, random: Random
    ) -> None:
        self.pairs = tuple(pairs)
        self.kills_per_pair = kills_per_pair
        self.kills: Counter[FailpointPair] = Counter()
        self.is_active = False
        self._assigned: Counter[FailpointPair] = Counter()
        self._misses: Counter[FailpointPair] = Counter()
        self._seconds = seconds
        self._began = time.monotonic()
        self._random = random
        self._message_rates: Mapping[str, float] = {}
        self._assigned_at: dict[str, float] = {}

    def start(self) -> None:
        """Starts to assign failpoints; the kills are spread over the plan's time from now on."""
        self._began = time.monotonic()
        self.is_active = True

    def set_message_rates(self, messages_per_second: Mapping[str, float]) -> None:
        """Sets the rate of each function: a busy process handles some messages before its kill."""
        self._message_rates = messages_per_second

    @property
    def kills_total(self) -> int:
        """Processes that were killed at their failpoint."""
        return self.kills.total()

    @property
    def kills_planned(self) -> int:
        """The kills of a whole run."""
        return self.kills_per_pair * len(self.pairs)

    @property
    def pairs_completed(self) -> int:
        """Pairs that have all their kills."""
        return sum(self.kills[pair] >= self.kills_per_pair for pair in self.pairs)

    @property
    def is_finished(self) -> bool:
        """Whether no kill is missing; true also while the plan is not active."""
        return not self.is_active or self.pairs_completed == len(self.pairs)

    def assign(self, function: str) -> FailpointPair | None:
        """The failpoint for the function's next process; None when no kill is missing.

        Every new process gets one: a process without would have to be replaced when a kill is due.
        """
        missing = [p for p in self.pairs if p.function == function and self._missing(p) > 0]
        if not self.is_active or not missing:
            return None
        most = max(self._missing(pair) for pair in missing)
        first = [p for p in missing if p in ASSIGNED_FIRST and self._misses[p] < MISSES_MAX]
        pair = self._random.choice(first or [p for p in missing if self._missing(p) == most])
        self._assigned[pair] += 1
        self._assigned_at[function] = time.monotonic()
        return pair

    def choose_pass(self, pair: FailpointPair) -> int:
        """At which pass of the failpoint to kill: about the one that happens when a kill is due.

        It is the first pass after an assignment that was not reached.
        """
        if self._misses[pair] or pair in ASSIGNED_FIRST:
            return 1
        if pair in PER_ROW:
            return self._random.randint(1, min(ROWS_MAX, ROWS_PER_KILL * self.kills_per_pair))
        rate = self._message_rates.get(pair.function, 0.0)
        passes = rate * self._seconds_until_due(pair.function)
        return self._random.randint(1, max(1, min(PASSES_MAX, int(passes))))

    def record_exit(self, pair: FailpointPair, *, was_killed: bool) -> None:
        """Records the exit of a process to which the pair was assigned."""
        self._assigned[pair] -= 1
        self.kills[pair] += was_killed
        self._misses[pair] = 0 if was_killed else self._misses[pair] + 1

    def is_behind(self, function: str) -> bool:
        """Whether a kill of the function is overdue."""
        return self.is_active and self._seconds_until_due(function) <= 0

    def assigned_processes(self, function: str) -> int:
        """Running processes of the function that have a failpoint."""
        return sum(n for pair, n in self._assigned.items() if pair.function == function)

    def is_stuck(self, function: str, *, has_ticks: bool) -> bool:
        """Whether the function's processes have not reached their failpoints for too long."""
        limit = STUCK_WITH_TICKS_SECONDS if has_ticks else STUCK_SECONDS
        since = time.monotonic() - self._assigned_at.get(function, time.monotonic())
        overdue = -self._seconds_until_due(function)
        return self.assigned_processes(function) > 0 and min(since, overdue) > limit

    def _missing(self, pair: FailpointPair) -> int:
        return self.kills_per_pair - self.kills[pair] - self._assigned[pair]

    def _seconds_until_due(self, function: str) -> float:
        """Seconds until the function's next kill is due; infinite when none is missing."""
        pairs = [pair for pair in self.pairs if pair.function == function]
        done = sum(self.kills[pair] for pair in pairs)
        planned = len(pairs) * self.kills_per_pair
        if done >= planned:
            return float("inf")
        due_at = self._seconds * done / planned
        return due_at - (time.monotonic() - self._began)


class KillPlanChildren(ChildProcesses):
    """Starts processes with fork or exec and records which were killed at their failpoint.

    Functions are forked from the fork server.  Every tenth is executed from scratch, and so is a
    process with a shifted clock, because ``LD_PRELOAD`` works with exec only, and one of another
    release (``PYTHONSAFEPATH``), because the fork server has imported today's code.
    """

    def __init__(self, plan: KillPlan, fork_server: ForkServer) -> None:
        super().__init__()
        self._plan = plan
        self._fork_server = fork_server
        self._starts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self, command: list[str], environment: Mapping[str, str], log: Path
    ) -> ChildProcess:
        """Starts one process and records its exit if it has a failpoint."""
        child = await super().start(command, environment, log)
        setting = environment.get("SHOP_CRASH")
        if setting:
            child.is_crash_expected = True
            function, failpoint, _ = setting.split(":")
            pair = FailpointPair(function, Failpoint(failpoint))
            task = asyncio.create_task(self._record_exit(child, pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return child

    async def _spawn(
        self, command: list[str], environment: Mapping[str, str], log: Path
    ) -> ProcessHandle:
        module, function = command[-2:]
        self._starts += 1
        needs_exec = {"LD_PRELOAD", "PYTHONSAFEPATH"} & environment.keys()
        is_cold = self._starts % COLD_START_EVERY == 0 or needs_exec
        if is_cold or module != "shop.runtime":
            return await super()._spawn(command, environment, log)
        return await self._fork_server.fork(function, environment, log)

    async def _record_exit(self, child: ChildProcess, pair: FailpointPair) -> None:
        code = await child.ended
        # a SIGKILL from elsewhere leaves no crash line with this failpoint in the log
        is_logged = f'"{pair.failpoint}"' in child.log_tail()
        self._plan.record_exit(pair, was_killed=code == -signal.SIGKILL and is_logged)
