"""Schedules faults over a run: one queue per group, shuffled by the seed, evenly spread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from random import Random

import httpx
import psycopg

from chaos.controlled_process import CommandFailed, ProcessExited
from chaos.environment import Environment
from chaos.faults.fault import Fault, FaultUnavailable
from chaos.redis_admin import RedisError
from chaos.report.record import Injection
from tools.local_platform.servers import ServerFailed

# An injection may fail because of another fault: a server is down, no process is running.
INJECTION_ERRORS = (
    psycopg.Error,
    httpx.HTTPError,
    OSError,
    TimeoutError,
    RedisError,
    ServerFailed,
    CommandFailed,
)


class FaultSchedule:
    """Injects faults until ``stop``; ``injections`` lists those that were made.

    ``repetitions`` is how often each fault is injected within ``seconds``, ``now`` returns the
    second of the run.  ``unavailable`` holds the reason of each fault that the machine cannot
    produce.
    """

    def __init__(
        self,
        environment: Environment,
        faults: Iterable[Fault],
        repetitions: Mapping[str, int],
        *,
        seconds: float,
        now: Callable[[], float],
    ) -> None:
        self._environment = environment
        self._seconds = seconds
        self._now = now
        self._active: list[str] = []
        self.injections: list[Injection] = []
        self.unavailable: dict[str, str] = {}
        self._queues: dict[str, list[Fault]] = {}
        for fault in faults:
            queue = self._queues.setdefault(fault.group, [])
            queue.extend([fault] * repetitions.get(fault.id, 0))
        for group, queue in self._queues.items():
            self._queues[group] = _evenly_spread(queue, environment.random)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def active(self) -> tuple[str, ...]:
        """The ids of the faults that are active at this moment."""
        return tuple(sorted(set(self._active)))

    @property
    def is_finished(self) -> bool:
        """Whether every scheduled fault has been injected."""
        return all(task.done() for task in self._tasks)

    def start(self) -> None:
        """Starts the queues of all groups."""
        self._tasks = [asyncio.create_task(self._run(queue)) for queue in self._queues.values()]

    async def stop(self) -> None:
        """Ends active faults and starts no more; raises the unexpected error of a queue."""
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, ProcessExited):
                raise result

    async def _run(self, queue: list[Fault]) -> None:
        began = time.monotonic()
        for number, fault in enumerate(queue):
            due = began + self._seconds * number / len(queue)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if fault.id not in self.unavailable:
                await self._inject(fault)

    async def _inject(self, fault: Fault) -> None:
        injection = Injection(fault_id=fault.id, description="", began=self._now(), ended=0.0)
        self._active.append(fault.id)
        try:
            injection.description = await fault.inject(self._environment)
        except FaultUnavailable as reason:
            self.unavailable[fault.id] = str(reason)
            return
        except INJECTION_ERRORS as error:
            self._environment.activity_log.write(f"fault {fault.id} failed: {error!r}")
            return
        finally:
            self._active.remove(fault.id)
        injection.ended = self._now()
        self.injections.append(injection)
        self._environment.activity_log.write(f"fault {fault.id}: {injection.description}")


def _evenly_spread(queue: list[Fault], random: Random) -> list[Fault]:
    """The queue in an order in which each fault is spread evenly over the whole length."""
    total: dict[str, int] = {}
    for fault in queue:
        total[fault.id] = total.get(fault.id, 0) + 1
    positions: list[float] = []
    seen: dict[str, int] = {}
    for fault in queue:
        seen[fault.id] = seen.get(fault.id, 0) + 1
        positions.append((seen[fault.id] - random.random()) / total[fault.id])
    return [queue[index] for index in sorted(range(len(queue)), key=positions.__getitem__)]
