"""Brings functions up from zero, shares requests out among their processes, and lets them sleep.

As Knative does it: a process takes ``concurrency`` messages at once (queue-proxy's hard limit),
what is beyond waits, and beyond ten times that the answer is 503; a process that dies with a
request in its hands makes that request a 502; one that answers too late makes it a 504.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shop.primitives.spec import FunctionSpec
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.child_processes import ChildProcess, ChildProcesses
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.http_messages import (
    Connection,
    ConnectionBroken,
    HttpRequest,
    HttpResponse,
    connect,
)
from tools.local_platform.problem import problem
from tools.local_platform.servers import free_port

QUEUE_PER_SLOT = 10
POLL_SECONDS = 0.015
DEATH_SECONDS = 0.05
CRASH_PAUSE_SECONDS_MAX = 10.0
TRIES_MAX = 3


class NoProcessAvailable(Exception):
    """No process can take the message: the queue is full, or the function does not start."""


@dataclass(frozen=True, kw_only=True)
class ScalingLimits:
    """How many processes a function may have at the desk, and how patient the platform is."""

    idle_seconds: float = 30.0
    processes_max: int = 3
    scale_out_after_seconds: float = 0.2
    start_seconds_max: float = 60.0
    grace_seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class FunctionLaunch:
    """How function processes are started: their command and environment by name, and their logs."""

    command: Callable[[str], list[str]]
    environment: Callable[[FunctionSpec], Mapping[str, str]]
    logs: Path


class FunctionProcess:
    """One function process and the connections to it."""

    def __init__(self, number: int, port: int, child: ChildProcess) -> None:
        self.number = number
        self.child = child
        self.port = port
        self.is_ready = False
        self.is_leaving = False
        self.has_answered = False
        self.was_killed = False
        self.in_flight = 0
        self.idle_since = 0.0
        self._kept: list[Connection] = []

    async def ask(self, message: HttpRequest) -> HttpResponse:
        """Passes a message on; OSError when it never arrived, Broken when nothing came back."""
        connection = await self._connection()
        answer = await connection.ask(message)
        self.has_answered = True
        if connection.is_open:
            self._kept.append(connection)
        return answer

    async def wait_until_ready(self, deadline: float) -> bool:
        """True when the process listens; False when it ended first, or took too long."""
        loop = asyncio.get_running_loop()
        while loop.time() < deadline and not self.child.ended.done():
            try:
                self._kept.append(await connect(self.port))
                self.is_ready = True
                return True
            except OSError:
                await asyncio.sleep(POLL_SECONDS)
        return False

    def kill(self) -> None:
        """SIGKILL, as a fault and not as a crash of its own."""
        self.was_killed = True
        self.child.kill()

    async def stop(self, grace_seconds: float) -> None:
        """Lets the process drain and end."""
        self.is_leaving = True
        await self.child.stop(grace_seconds)
        self.close()

    def close(self) -> None:
        for connection in self._kept:
            connection.close()

    async def _connection(self) -> Connection:
        while self._kept:
            connection = self._kept.pop()
            if connection.is_open:
                return connection
        return await connect(self.port)


@dataclass(eq=False)
class QueuedRequest:
    """A message in the queue."""

    since: float
    process: asyncio.Future[FunctionProcess]


@dataclass
class FunctionPool:
    """The processes of one function, from none to as many as its spec and the desk allow."""

    spec: FunctionSpec
    launch: FunctionLaunch
    limits: ScalingLimits
    faults: DeliveryFaults
    activity_log: ActivityLog
    children: ChildProcesses
    processes: list[FunctionProcess] = field(default_factory=list)
    messages: int = 0
    is_disabled: bool = False
    _queue: deque[QueuedRequest] = field(default_factory=deque)
    _starts: int = 0
    _starting: int = 0
    _crashes: int = 0
    _paused_until: float = 0.0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _is_closing: bool = False

    async def send(self, message: HttpRequest) -> HttpResponse:
        """The function's answer, or the platform's 502, 503 or 504."""
        self.messages += 1
        if self.is_disabled:  # a fault: the function cannot run at all
            return problem(503, "UNAVAILABLE", f"{self.spec.name} is barred", message.path)
        try:
            for _ in range(TRIES_MAX):
                process = await self._acquire()
                try:
                    return await self._ask(process, message)
                except OSError:  # it is gone and has not seen the message
                    process.is_leaving = True
                    process.child.kill()
                finally:
                    self._release(process)
        except NoProcessAvailable as reason:
            return problem(503, "UNAVAILABLE", str(reason), message.path, retry_after="1")
        return problem(502, "BAD_GATEWAY", f"{self.spec.name} cannot be reached", message.path)

    @property
    def processes_max(self) -> int:
        """As many as the spec allows, within what a desk can carry."""
        return max(1, min(self.spec.scale.max_scale, self.limits.processes_max))

    def retire_idle(self) -> None:
        """Stops the processes that have had nothing to do for long enough."""
        now = asyncio.get_running_loop().time()
        for process in list(self.processes):
            is_idle = process.is_ready and process.in_flight == 0
            if is_idle and now - process.idle_since >= self.limits.idle_seconds:
                self.retire(process)

    def retire(self, process: FunctionProcess) -> None:
        """Scales one process in: no new messages, SIGTERM, time to drain, SIGKILL."""
        self.processes.remove(process)
        self.activity_log.write(
            f"stop {self.spec.name} #{process.number} (pid {process.child.pid})"
        )
        self._spawn(process.stop(self.limits.grace_seconds))
        if self._queue and self._are_none():
            self._start()

    async def close(self) -> None:
        """Ends every process; nothing is started any more."""
        self._is_closing = True
        self._refuse_waiters("the platform stops")
        leaving, self.processes = self.processes, []
        await asyncio.gather(*(p.stop(self.limits.grace_seconds) for p in leaving), *self._tasks)

    async def _ask(self, process: FunctionProcess, message: HttpRequest) -> HttpResponse:
        self._maybe_kill(process)
        try:
            async with asyncio.timeout(self.spec.timeout_seconds):
                answer = await process.ask(message)
        except TimeoutError:
            reason = f"{self.spec.name} did not answer in time"
            return problem(504, "GATEWAY_TIMEOUT", reason, message.path)
        except ConnectionBroken:
            # time to learn that it died, lest the next message go there too
            await asyncio.wait([process.child.ended], timeout=DEATH_SECONDS)
            reason = f"{self.spec.name} ended before it answered"
            return problem(502, "BAD_GATEWAY", reason, message.path)
        self._crashes = 0
        return answer

    async def _acquire(self) -> FunctionProcess:
        process = self._least_loaded()
        if process is None:
            process = await self._wait_for_process()
        else:
            process.in_flight += 1
        return process

    def _are_none(self) -> bool:
        return not self.processes and not self._starting

    def _least_loaded(self) -> FunctionProcess | None:
        free = [
            process
            for process in self.processes
            if process.is_ready
            and not process.is_leaving
            and process.in_flight < self.spec.scale.concurrency
        ]
        return min(free, key=lambda process: process.in_flight, default=None)

    async def _wait_for_process(self) -> FunctionProcess:
        loop = asyncio.get_running_loop()
        self._refuse_when_hopeless(loop.time())
        waiter = QueuedRequest(loop.time(), loop.create_future())
        self._queue.append(waiter)
        if self._are_none():
            self._start()
        loop.call_later(self.limits.scale_out_after_seconds, self._scale_out)
        try:
            async with asyncio.timeout(self.limits.start_seconds_max):
                return await waiter.process
        except (TimeoutError, asyncio.CancelledError) as error:
            if waiter in self._queue:  # whoever gave up must not keep others out
                self._queue.remove(waiter)
            if waiter.process.done() and not waiter.process.cancelled():
                self._release(waiter.process.result())  # it came in the very moment we gave up
            if isinstance(error, TimeoutError):
                raise NoProcessAvailable(
                    f"no process of {self.spec.name} became free in time"
                ) from error
            raise

    def _refuse_when_hopeless(self, now: float) -> None:
        if self._is_closing:
            raise NoProcessAvailable("the platform stops")
        if self._are_none() and now < self._paused_until:
            raise NoProcessAvailable(f"{self.spec.name} does not start; its log says why")
        slots = self.spec.scale.concurrency * max(1, len(self.processes))
        if len(self._queue) >= QUEUE_PER_SLOT * slots:
            raise NoProcessAvailable(f"too many messages wait for {self.spec.name}")

    def _release(self, process: FunctionProcess) -> None:
        process.in_flight -= 1
        process.idle_since = asyncio.get_running_loop().time()
        self._serve_queue()

    def _serve_queue(self) -> None:
        while self._queue and (process := self._least_loaded()):
            waiter = self._queue.popleft()
            if not waiter.process.done():
                process.in_flight += 1
                waiter.process.set_result(process)

    def _scale_out(self) -> None:
        """Adds a process when someone has waited long and those being started will not do."""
        while self._queue and self._queue[0].process.done():
            self._queue.popleft()
        if not self._queue or self._is_closing:
            return
        waited = asyncio.get_running_loop().time() - self._queue[0].since
        starting = self._starting + sum(not process.is_ready for process in self.processes)
        is_short = len(self._queue) > starting * self.spec.scale.concurrency
        if is_short and waited >= self.limits.scale_out_after_seconds * 0.9:
            self._start()

    def _start(self) -> None:
        if len(self.processes) + self._starting < self.processes_max and not self._is_closing:
            self._starting += 1
            self._spawn(self._run())

    async def _run(self) -> None:
        """One process from its start to its end."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        process = await self._launch()
        if await process.wait_until_ready(began + self.limits.start_seconds_max):
            process.idle_since = loop.time()
            took = (loop.time() - began) * 1000
            self.activity_log.write(
                f"start {self.spec.name} #{process.number} (pid {process.child.pid}, {took:.0f} ms)"
            )
            self._serve_queue()
        else:
            process.child.kill()
        code = await process.child.ended
        process.close()
        if process in self.processes:
            self.processes.remove(process)
            self._mourn(process, code)

    async def _launch(self) -> FunctionProcess:
        port = free_port()
        environment = {**self.launch.environment(self.spec), "PORT": str(port), "HOST": "127.0.0.1"}
        log = self.launch.logs / f"{self.spec.name}.log"
        try:
            child = await self.children.start(self.launch.command(self.spec.name), environment, log)
        finally:
            self._starting -= 1
        self._starts += 1
        self.activity_log.count("starts")
        process = FunctionProcess(self._starts, port, child)
        if self._is_closing:
            child.kill()
        else:
            self.processes.append(process)
        return process

    def _mourn(self, process: FunctionProcess, code: int) -> None:
        """A process ended unasked: start another for those who wait, unless that is in vain."""
        name = f"{self.spec.name} #{process.number}"
        self.activity_log.write(f"died {name} (pid {process.child.pid}, {_ending(code)})")
        if process.has_answered or process.was_killed or process.child.is_crash_expected:
            self._crashes = 0
        else:
            self._crashes += 1
            self._pause(process)
        if self._queue and self._are_none():
            self._start()

    def _pause(self, process: FunctionProcess) -> None:
        pause = min(0.5 * 2**self._crashes, CRASH_PAUSE_SECONDS_MAX)
        self._paused_until = asyncio.get_running_loop().time() + pause
        if self._crashes == 1:
            self.activity_log.write(f"{self.spec.name} does not start:\n{process.child.log_tail()}")
        if self._are_none():
            self._refuse_waiters(f"{self.spec.name} does not start; its log says why")

    def _refuse_waiters(self, reason: str) -> None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.process.done():
                waiter.process.set_exception(NoProcessAvailable(reason))

    def _maybe_kill(self, process: FunctionProcess) -> None:
        after = self.faults.kill_after(self.spec.name)
        if after is not None:
            self.activity_log.count("kills")
            asyncio.get_running_loop().call_later(after, process.kill)

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Activator:
    """All functions, by name."""

    def __init__(
        self,
        specs: Iterable[FunctionSpec],
        launch: FunctionLaunch,
        limits: ScalingLimits,
        faults: DeliveryFaults,
        activity_log: ActivityLog,
        children: ChildProcesses,
    ) -> None:
        self._limits = limits
        self.pools = {
            spec.name: FunctionPool(spec, launch, limits, faults, activity_log, children)
            for spec in specs
        }

    async def send(self, function: str, message: HttpRequest) -> HttpResponse:
        """A function's answer to a message; brings it up when it sleeps."""
        return await self.pools[function].send(message)

    def processes_max(self, function: str) -> int:
        """How many processes of a function there may be."""
        return self.pools[function].processes_max

    async def retire_idle_forever(self) -> None:
        """Looks for idle processes until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, max(0.05, self._limits.idle_seconds / 4)))
            for pool in self.pools.values():
                pool.retire_idle()

    async def close(self) -> None:
        """Stops every process."""
        await asyncio.gather(*(pool.close() for pool in self.pools.values()))

    def processes(self) -> dict[str, list[int]]:
        """Process ids by function; functions that sleep are not named."""
        return {
            name: [process.child.pid for process in pool.processes]
            for name, pool in self.pools.items()
            if pool.processes
        }


def _ending(code: int) -> str:
    return f"exit {code}" if code >= 0 else f"signal {-code}"
