"""F-01: which process dies in which window, and the count of those that did.

A process is told at its start where to die (``SHOP_CRASH``).  Windows are handed out so that every
pair of function and window gets its kills spread over the run; a pair that was armed and not hit is
handed out again.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random

from chaos.failpoint_pairs import Pair
from chaos.fork_server.interpreter import WarmInterpreter
from tools.local_platform.child_processes import ChildProcess, ChildProcesses, ProcessHandle

NTH_MAX = 500
COLD_EVERY = 10
# What comes only so often: while these are missing they go first.  A process of settle that lives
# on would close all the days that the others need; once much is due a tick of sweep ends late.
FIRST = frozenset((Pair("settle", "W5"), Pair("sweep", "W6")))
# One tick of sweep passes through these windows with every row: were it to die with the first, no
# row behind it would ever have its turn.  A run with few kills has no time to wait for so many; in
# one with many, half as many rows left the sweep behind the buyers, who then held back.
OF_EVERY_ROW = frozenset(Pair("sweep", window) for window in ("W2", "W3", "W4", "W7", "W8", "W9"))
ROWS_MAX, ROWS_PER_KILL = 120, 4
# So long may a process run without reaching its window before others get their turn: longer than
# the longest message takes, which is a tick of sweep.
PATIENCE_SECONDS = 12.0
PATIENCE_WITH_TICKS_SECONDS = 35.0


class CrashPlan:
    """Hands out windows and counts the deaths in them."""

    def __init__(
        self, pairs: Iterable[Pair], *, per_pair: int, seconds: float, dice: Random
    ) -> None:
        self.pairs = tuple(pairs)
        self.per_pair = per_pair
        self.hits: Counter[Pair] = Counter()
        self.is_on = False
        self._armed: Counter[Pair] = Counter()
        self._in_vain: Counter[Pair] = Counter()
        self._seconds = seconds
        self._began = time.monotonic()
        self._dice = dice
        self._rates: Mapping[str, float] = {}
        self._armed_at: dict[str, float] = {}

    def begin(self) -> None:
        """From now on processes are armed; the kills are spread from here to the end."""
        self._began = time.monotonic()
        self.is_on = True

    def note_rates(self, messages_per_second: Mapping[str, float]) -> None:
        """How busy each function is: a busy process gets to answer some before it dies."""
        self._rates = messages_per_second

    @property
    def kills(self) -> int:
        """Processes that died where they were told to."""
        return sum(self.hits.values())

    @property
    def wanted(self) -> int:
        """All kills of a whole run."""
        return self.per_pair * len(self.pairs)

    @property
    def pairs_hit(self) -> int:
        """Pairs that were hit as often as wanted."""
        return sum(self.hits[pair] >= self.per_pair for pair in self.pairs)

    def arm(self, function: str) -> Pair | None:
        """The window in which the function's next process shall die, or None for none at all.

        Every process is told, or one that lives would have to make room when a kill is due.
        """
        missing = [p for p in self.pairs if p.function == function and self._missing(p) > 0]
        if not self.is_on or not missing:
            return None
        most = max(self._missing(pair) for pair in missing)
        first = [pair for pair in missing if pair in FIRST]
        pair = self._dice.choice(first or [p for p in missing if self._missing(p) == most])
        self._armed[pair] += 1
        self._armed_at[function] = time.monotonic()
        return pair

    def nth(self, pair: Pair) -> int:
        """Which passage through the window is the last one: the one that comes when a kill is due.

        The first, once that was in vain.
        """
        if self._in_vain[pair] or pair in FIRST:
            return 1
        if pair in OF_EVERY_ROW:
            return self._dice.randint(1, min(ROWS_MAX, ROWS_PER_KILL * self.per_pair))
        passages = self._rates.get(pair.function, 0.0) * self._until_due(pair.function)
        return self._dice.randint(1, max(1, min(NTH_MAX, int(passages))))

    def ended(self, pair: Pair, *, was_hit: bool) -> None:
        """An armed process is gone."""
        self._armed[pair] -= 1
        self.hits[pair] += was_hit
        self._in_vain[pair] = 0 if was_hit else self._in_vain[pair] + 1

    def is_behind(self, function: str) -> bool:
        """Whether the function needs a new process, or more messages, for its kills."""
        return self.is_on and self._until_due(function) <= 0

    def armed(self, function: str) -> int:
        """Processes of the function that run towards their window now."""
        return sum(n for pair, n in self._armed.items() if pair.function == function)

    def is_stuck(self, function: str, *, has_ticks: bool) -> bool:
        """Whether the function's processes run towards windows that they do not reach."""
        patience = PATIENCE_WITH_TICKS_SECONDS if has_ticks else PATIENCE_SECONDS
        since = time.monotonic() - self._armed_at.get(function, time.monotonic())
        overdue = -self._until_due(function)
        return self.armed(function) > 0 and min(since, overdue) > patience

    def _missing(self, pair: Pair) -> int:
        return self.per_pair - self.hits[pair] - self._armed[pair]

    def _until_due(self, function: str) -> float:
        """Seconds until the function's next kill is due; none when its kills are done."""
        mine = [pair for pair in self.pairs if pair.function == function]
        done = sum(self.hits[pair] for pair in mine)
        wanted = len(mine) * self.per_pair
        if done >= wanted:
            return float("inf")
        due_at = self._seconds * done / wanted
        return due_at - (time.monotonic() - self._began)


class WatchedChildren(ChildProcesses):
    """Children whose deaths are compared with what they were told.

    Functions are forked from the warm interpreter, and every tenth is started cold, as are those
    that live in a time of their own: a library is preloaded by exec alone.
    """

    def __init__(self, plan: CrashPlan, warm: WarmInterpreter) -> None:
        super().__init__()
        self._plan = plan
        self._warm = warm
        self._starts = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(
        self, command: list[str], environment: Mapping[str, str], log: Path
    ) -> ChildProcess:
        """Starts one process and looks after its end when it was told to die."""
        child = await super().start(command, environment, log)
        told = environment.get("SHOP_CRASH")
        if told:
            child.is_crash_expected = True
            function, window, _ = told.split(":")
            task = asyncio.create_task(self._await_end(child, Pair(function, window)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return child

    async def _spawn(
        self, command: list[str], environment: Mapping[str, str], log: Path
    ) -> ProcessHandle:
        module, function = command[-2:]
        self._starts += 1
        is_cold = self._starts % COLD_EVERY == 0 or "LD_PRELOAD" in environment
        if is_cold or module != "shop.runtime":
            return await super()._spawn(command, environment, log)
        return await self._warm.fork(function, environment, log)

    async def _await_end(self, child: ChildProcess, pair: Pair) -> None:
        code = await child.ended
        # somebody else's SIGKILL leaves no such line, and no other process is told the same now
        was_told = f'"{pair.window}"' in child.log_tail()
        self._plan.ended(pair, was_hit=code == -signal.SIGKILL and was_told)
