"""Puts the faults in: each lane has its own, shuffled by the seed and spread over the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from random import Random

import httpx
import psycopg

from chaos.controlled_process import ChildEnded, ChildRefused
from chaos.environment import Environment
from chaos.faults.fault import Kind, NotHere
from chaos.resp import RedisRefused
from chaos.run_record import Injection
from tools.local_platform.servers import ServerFailed

# A fault that could not be made this once: its server was down, or nobody was there to hit.
MISSED = (
    psycopg.Error,
    httpx.HTTPError,
    OSError,
    TimeoutError,
    RedisRefused,
    ServerFailed,
    ChildRefused,
)


class FaultSchedule:
    """Runs the kinds in their lanes until ``stop``; what was done is in ``injections``.

    ``now`` says the second of the run; ``on`` are the ids of the faults that are in force.
    """

    def __init__(
        self,
        scene: Environment,
        kinds: Iterable[Kind],
        doses: Mapping[str, int],
        *,
        seconds: float,
        now: Callable[[], float],
    ) -> None:
        self._scene = scene
        self._seconds = seconds
        self._now = now
        self._on: list[str] = []
        self.injections: list[Injection] = []
        self.impossible: dict[str, str] = {}
        self._queues: dict[str, list[Kind]] = {}
        for kind in kinds:
            self._queues.setdefault(kind.lane, []).extend([kind] * doses.get(kind.id, 0))
        for queue in self._queues.values():
            _spread(queue, scene.dice)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def on(self) -> tuple[str, ...]:
        """The kinds that are in force at this moment."""
        return tuple(sorted(set(self._on)))

    @property
    def are_done(self) -> bool:
        """Whether every fault has been put in."""
        return all(task.done() for task in self._tasks)

    def start(self) -> None:
        """Begins all lanes."""
        self._tasks = [
            asyncio.create_task(self._run(queue, len(queue))) for queue in self._queues.values()
        ]

    async def stop(self) -> None:
        """Heals what is in force and begins nothing more; raises what a lane died of."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, ChildEnded):
                raise result

    async def _run(self, queue: list[Kind], count: int) -> None:
        began = time.monotonic()
        for number, kind in enumerate(queue):
            due = began + self._seconds * number / count
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if kind.id not in self.impossible:
                await self._inject(kind)

    async def _inject(self, kind: Kind) -> None:
        injection = Injection(kind=kind.id, what="", began=self._now(), ended=0.0)
        self._on.append(kind.id)
        try:
            injection.what = await kind.inject(self._scene)
        except NotHere as reason:
            self.impossible[kind.id] = str(reason)
            return
        except MISSED as error:
            self._scene.activity_log.write(f"fault {kind.id} missed: {error!r}")
            return
        finally:
            self._on.remove(kind.id)
        injection.ended = self._now()
        self.injections.append(injection)
        self._scene.activity_log.write(f"fault {kind.id}: {injection.what}")


def _spread(queue: list[Kind], dice: Random) -> None:
    """Each kind evenly over the whole length, so that every part of a run has some of all."""
    counts: dict[str, int] = {}
    for kind in queue:
        counts[kind.id] = counts.get(kind.id, 0) + 1
    places: dict[int, float] = {}
    seen: dict[str, int] = {}
    for index, kind in enumerate(queue):
        nth = seen[kind.id] = seen.get(kind.id, 0) + 1
        places[index] = (nth - dice.random()) / counts[kind.id]
    order = sorted(range(len(queue)), key=places.__getitem__)
    queue[:] = [queue[index] for index in order]
