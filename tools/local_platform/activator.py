"""Starts functions on demand, distributes requests over their processes, scales them to zero.

As in Knative: a process handles ``concurrency`` requests at once (queue-proxy's hard limit) and
further requests wait in a queue.  The response is 503 when ten requests per slot are queued, 502
when the process exits while it handles the request, and 504 after the function's timeout.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shop.primitives.http_limits import QUEUED_PER_THREAD
from shop.primitives.spec import FunctionSpec
from tools.local_platform.activities import Activity, ActivityKind
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.child_processes import ChildProcess, ChildProcesses
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.error_report import find_error, trace_id_of
from tools.local_platform.http_messages import (
    ConnectionBroken,
    ConnectionPool,
    HttpRequest,
    HttpResponse,
    connect,
)
from tools.local_platform.problem import problem
from tools.local_platform.servers import free_port
from tools.local_platform.source_files import SourceFiles, SourceVersion

POLL_SECONDS = 0.015
EXIT_NOTICE_SECONDS = 0.05
CRASH_PAUSE_SECONDS_MAX = 10.0
TRIES_MAX = 3
# of a process's log, which has the traceback of an error shortly before the response
ERROR_BYTES_MAX = 64 * 1024


class NoProcessAvailable(Exception):
    """No process can take the request: the queue is full, or the function does not start."""


@dataclass(frozen=True, kw_only=True)
class ScalingLimits:
    """How many processes a function may have, and the times after which it is scaled."""

    idle_seconds: float = 30.0
    processes_max: int = 3
    scale_out_after_seconds: float = 0.2
    start_seconds_max: float = 60.0
    grace_seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class FunctionLaunch:
    """How function processes are started: command and environment per function, log folder."""

    command: Callable[[str], list[str]]
    environment: Callable[[FunctionSpec], Mapping[str, str]]
    logs: Path
    # for development: changed source replaces the processes of a function at its next request
    source: SourceFiles | None = None


class FunctionProcess:
    """One process of a function and the connections to it."""

    def __init__(self, number: int, port: int, child: ChildProcess, began_at: float) -> None:
        self.number = number
        self.child = child
        self.port = port
        self.began_at = began_at
        self.is_ready = False
        self.is_stopping = False
        self.has_responded = False
        self.was_killed = False
        self.in_flight = 0
        self.idle_since = 0.0
        self._connections = ConnectionPool("127.0.0.1", port)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The response; OSError if the request was not sent, ConnectionBroken if it was lost."""
        response = await self._connections.send(request)
        self.has_responded = True
        return response

    async def wait_until_ready(self, deadline: float) -> bool:
        """True once the process listens; False when it exits first or the deadline passes."""
        loop = asyncio.get_running_loop()
        while loop.time() < deadline and not self.child.ended.done():
            try:
                self._connections.add(await connect(self.port))
                self.is_ready = True
                return True
            except OSError:
                await asyncio.sleep(POLL_SECONDS)
        return False

    def kill(self) -> None:
        """Kills the process as an injected fault, which is not counted as a crash."""
        self.was_killed = True
        self.child.kill()

    async def stop(self, grace_seconds: float) -> None:
        """Sends SIGTERM, waits up to ``grace_seconds`` for the exit, then sends SIGKILL."""
        self.is_stopping = True
        await self.child.stop(grace_seconds)
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        self._connections.close()


@dataclass(eq=False)
class QueuedRequest:
    """A request that waits for a free process."""

    since: float
    process: asyncio.Future[FunctionProcess]


@dataclass
class FunctionPool:
    """The processes of one function, from zero to the maximum of its spec and the platform."""

    spec: FunctionSpec
    launch: FunctionLaunch
    limits: ScalingLimits
    faults: DeliveryFaults
    activity_log: ActivityLog
    children: ChildProcesses
    processes: list[FunctionProcess] = field(default_factory=list[FunctionProcess])
    messages: int = 0
    last_start_seconds: float | None = None
    is_disabled: bool = False
    _queue: deque[QueuedRequest] = field(default_factory=deque[QueuedRequest])
    _starts: int = 0
    _starting: int = 0
    _crashes: int = 0
    _paused_until: float = 0.0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _is_closing: bool = False
    _source_version: SourceVersion | None = None

    async def send(self, request: HttpRequest) -> HttpResponse:
        """The function's response, or the platform's own 502, 503 or 504."""
        self.messages += 1
        self._replace_outdated()
        if self.is_disabled:  # an injected fault: the function cannot run at all
            return problem(503, "UNAVAILABLE", f"{self.spec.name} is disabled", request.path)
        try:
            for _ in range(TRIES_MAX):
                process = await self._acquire()
                try:
                    return await self._send_to(process, request)
                except OSError:  # it has exited, and the request was not sent
                    process.is_stopping = True
                    process.child.kill()
                finally:
                    self._release(process)
        except NoProcessAvailable as reason:
            return problem(503, "UNAVAILABLE", str(reason), request.path, retry_after="1")
        return problem(502, "BAD_GATEWAY", f"{self.spec.name} cannot be reached", request.path)

    @property
    def processes_max(self) -> int:
        """The maximum scale of the spec, within the platform's own maximum."""
        return max(1, min(self.spec.scale.max_scale, self.limits.processes_max))

    @property
    def starts(self) -> int:
        """How many processes were started: cold starts."""
        return self._starts

    @property
    def starting(self) -> int:
        """How many processes do not respond yet."""
        return self._starting + sum(not process.is_ready for process in self.processes)

    @property
    def queued(self) -> int:
        """How many requests wait for a process."""
        return len(self._queue)

    def retire_idle(self) -> None:
        """Stops the processes that have been idle for ``idle_seconds``."""
        now = asyncio.get_running_loop().time()
        for process in list(self.processes):
            is_idle = process.is_ready and process.in_flight == 0
            if is_idle and now - process.idle_since >= self.limits.idle_seconds:
                self.retire(process)

    def retire(self, process: FunctionProcess) -> None:
        """Stops one process after its running requests, without sending it new ones."""
        self.processes.remove(process)
        pid = process.child.pid
        self.activity_log.write(f"stop {self.spec.name} #{process.number} (pid {pid})")
        self._observe(ActivityKind.STOP)
        self._run_in_background(process.stop(self.limits.grace_seconds))
        if self._queue and self._has_no_process():
            self._start()

    async def close(self) -> None:
        """Stops every process, rejects queued requests, and starts no further process."""
        self._is_closing = True
        self._reject_queue("the platform stops")
        stopping, self.processes = self.processes, []
        await asyncio.gather(*(p.stop(self.limits.grace_seconds) for p in stopping), *self._tasks)

    async def _send_to(self, process: FunctionProcess, request: HttpRequest) -> HttpResponse:
        self._inject_kill(process)
        try:
            async with asyncio.timeout(self.spec.timeout_seconds):
                response = await process.send(request)
        except TimeoutError:
            reason = f"{self.spec.name} did not respond in time"
            return problem(504, "GATEWAY_TIMEOUT", reason, request.path)
        except ConnectionBroken:
            # until the exit is noticed, the next request would be sent to the same process
            await asyncio.wait([process.child.ended], timeout=EXIT_NOTICE_SECONDS)
            reason = f"{self.spec.name} exited before it responded"
            return problem(502, "BAD_GATEWAY", reason, request.path)
        self._crashes = 0
        if response.status == 500:
            self._report_error(process, response)
        return response

    def _replace_outdated(self) -> None:
        """Retires the processes that were started before the function's source changed."""
        if self.launch.source is None:
            return
        version = self.launch.source.version(self.spec.name)
        if version == self._source_version:
            return
        is_first, self._source_version = self._source_version is None, version
        if is_first:
            return
        self.activity_log.write(f"reload {self.spec.name}: {version.path} changed")
        self._observe(ActivityKind.RELOAD, detail=version.path)
        self._crashes, self._paused_until = 0, 0.0  # the change may have corrected the start
        for process in list(self.processes):
            self.retire(process)

    def _report_error(self, process: FunctionProcess, response: HttpResponse) -> None:
        """Prints where the error behind a response 500 was raised."""
        log = process.child.log_tail(ERROR_BYTES_MAX)
        error = find_error(log, trace_id_of(response.body))
        if error is not None:
            self.activity_log.write(f"error {self.spec.name}: {error}; see {process.child.log}")
            self._observe(ActivityKind.ERROR, detail=str(error))

    def _observe(self, kind: ActivityKind, *, seconds: float = 0.0, detail: str = "") -> None:
        activity = Activity(kind=kind, function=self.spec.name, seconds=seconds, detail=detail)
        self.activity_log.observe(activity)

    async def _acquire(self) -> FunctionProcess:
        process = self._least_loaded()
        if process is None:
            process = await self._wait_for_process()
        else:
            process.in_flight += 1
        return process

    def _has_no_process(self) -> bool:
        return not self.processes and not self._starting

    def _least_loaded(self) -> FunctionProcess | None:
        free = [
            process
            for process in self.processes
            if process.is_ready
            and not process.is_stopping
            and process.in_flight < self.spec.scale.in_flight_max
        ]
        return min(free, key=lambda process: process.in_flight, default=None)

    async def _wait_for_process(self) -> FunctionProcess:
        loop = asyncio.get_running_loop()
        self._check_queue(loop.time())
        queued = QueuedRequest(loop.time(), loop.create_future())
        self._queue.append(queued)
        if self._has_no_process():
            self._start()
        loop.call_later(self.limits.scale_out_after_seconds, self._scale_out)
        try:
            async with asyncio.timeout(self.limits.start_seconds_max):
                return await queued.process
        except TimeoutError as error:
            self._abandon(queued)
            reason = f"no process of {self.spec.name} became free in time"
            raise NoProcessAvailable(reason) from error
        except asyncio.CancelledError:
            self._abandon(queued)
            raise

    def _abandon(self, queued: QueuedRequest) -> None:
        """Removes a request that no longer waits, and releases a process assigned to it."""
        if queued in self._queue:
            self._queue.remove(queued)
        if queued.process.done() and not queued.process.cancelled():
            self._release(queued.process.result())  # assigned while the wait timed out

    def _check_queue(self, now: float) -> None:
        """Raises NoProcessAvailable when waiting would not help."""
        if self._is_closing:
            raise NoProcessAvailable("the platform stops")
        if self._has_no_process() and now < self._paused_until:
            raise NoProcessAvailable(f"{self.spec.name} does not start; see its log")
        slots = self.spec.scale.concurrency * max(1, len(self.processes))
        if len(self._queue) >= QUEUED_PER_THREAD * slots:
            raise NoProcessAvailable(f"too many requests wait for {self.spec.name}")

    def _release(self, process: FunctionProcess) -> None:
        process.in_flight -= 1
        process.idle_since = asyncio.get_running_loop().time()
        self._assign_queue()

    def _assign_queue(self) -> None:
        while self._queue and (process := self._least_loaded()):
            queued = self._queue.popleft()
            if not queued.process.done():
                process.in_flight += 1
                queued.process.set_result(process)

    def _scale_out(self) -> None:
        """Adds a process when a request waits too long and too few processes are starting."""
        while self._queue and self._queue[0].process.done():
            self._queue.popleft()
        if not self._queue or self._is_closing:
            return
        waited = asyncio.get_running_loop().time() - self._queue[0].since
        needs_process = len(self._queue) > self.starting * self.spec.scale.concurrency
        if needs_process and waited >= self.limits.scale_out_after_seconds * 0.9:
            self._start()

    def _start(self) -> None:
        if len(self.processes) + self._starting < self.processes_max and not self._is_closing:
            self._starting += 1
            self._run_in_background(self._run_process())

    async def _run_process(self) -> None:
        """Starts one process and waits for its exit."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        process = await self._launch(began)
        if await process.wait_until_ready(began + self.limits.start_seconds_max):
            process.idle_since = loop.time()
            took = (loop.time() - began) * 1000
            name, pid = f"{self.spec.name} #{process.number}", process.child.pid
            self.activity_log.write(f"start {name} (pid {pid}, {took:.0f} ms)")
            self.last_start_seconds = took / 1000
            self._observe(ActivityKind.START, seconds=took / 1000)
            self._assign_queue()
        else:
            process.child.kill()
        code = await process.child.ended
        self._record_end(process, code)
        process.close()
        if process in self.processes:
            self.processes.remove(process)
            self._handle_exit(process, code)

    async def _launch(self, began: float) -> FunctionProcess:
        port = free_port()
        environment = {**self.launch.environment(self.spec), "PORT": str(port), "HOST": "127.0.0.1"}
        log = self.launch.logs / f"{self.spec.name}.log"
        try:
            child = await self.children.start(self.launch.command(self.spec.name), environment, log)
        finally:
            self._starting -= 1
        self._starts += 1
        self.activity_log.count("starts")
        process = FunctionProcess(self._starts, port, child, began)
        if self._is_closing:
            child.kill()
        else:
            self.processes.append(process)
        return process

    def _record_end(self, process: FunctionProcess, code: int) -> None:
        """Counts the time of a process; a killed one could not log its own line ``ended``."""
        seconds = asyncio.get_running_loop().time() - process.began_at
        self.activity_log.add_process(self.spec.name, seconds)
        if code < 0:
            process.child.log_line(
                "ended",
                function=self.spec.name,
                seconds=round(seconds, 3),
                signal=-code,
                answered=process.has_responded,
            )

    def _handle_exit(self, process: FunctionProcess, code: int) -> None:
        """Replaces a process that exited unexpectedly; backs off if it never responded."""
        ending = f"exit {code}" if code >= 0 else f"signal {-code}"
        name, pid = f"{self.spec.name} #{process.number}", process.child.pid
        self.activity_log.write(f"exited {name} (pid {pid}, {ending})")
        if process.has_responded or process.was_killed or process.child.is_crash_expected:
            self._crashes = 0
        else:
            self._crashes += 1
            self._back_off(process)
        if self._queue and self._has_no_process():
            self._start()

    def _back_off(self, process: FunctionProcess) -> None:
        pause = min(0.5 * 2**self._crashes, CRASH_PAUSE_SECONDS_MAX)
        self._paused_until = asyncio.get_running_loop().time() + pause
        if self._crashes == 1:
            self.activity_log.write(f"{self.spec.name} does not start:\n{process.child.log_tail()}")
        if self._has_no_process():
            self._reject_queue(f"{self.spec.name} does not start; see its log")

    def _reject_queue(self, reason: str) -> None:
        while self._queue:
            queued = self._queue.popleft()
            if not queued.process.done():
                queued.process.set_exception(NoProcessAvailable(reason))

    def _inject_kill(self, process: FunctionProcess) -> None:
        after = self.faults.kill_after(self.spec.name)
        if after is not None:
            self.activity_log.count("kills")
            self._observe(ActivityKind.KILL)
            asyncio.get_running_loop().call_later(after, process.kill)

    def _run_in_background(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Activator:
    """The process pools of all functions, by name."""

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

    async def send(self, function: str, request: HttpRequest) -> HttpResponse:
        """A function's response to a request; starts a process if none is running."""
        return await self.pools[function].send(request)

    def processes_max(self, function: str) -> int:
        """The maximum number of processes of a function."""
        return self.pools[function].processes_max

    async def retire_idle_forever(self) -> None:
        """Stops idle processes until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, max(0.05, self._limits.idle_seconds / 4)))
            for pool in self.pools.values():
                pool.retire_idle()

    async def close(self) -> None:
        """Stops every process."""
        await asyncio.gather(*(pool.close() for pool in self.pools.values()))

    def processes(self) -> dict[str, list[int]]:
        """Process ids by function, without functions that are scaled to zero."""
        return {
            name: [process.child.pid for process in pool.processes]
            for name, pool in self.pools.items()
            if pool.processes
        }
