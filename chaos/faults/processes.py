"""Faults of function processes: pauses, scale-in, resource starvation, clock skew, mass kills."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from chaos.environment import Environment, no_extra_settings
from chaos.faults.fault import Fault, FaultUnavailable
from chaos.faults.process_tree import children_of
from shop.primitives.spec import FunctionSpec

MIB = 1024 * 1024
BUSY_LOOPS = 4
# The loop has a time limit: it also ends when the run that started it is killed.
BUSY_LOOP = """
import time
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    pass
"""
CLOCK_LIBRARIES = ("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1",)
MACHINES = ("x86_64", "aarch64")
# The times of a token are checked with a tolerance of 60 s: any two clocks differ by less.
SHIFTS_SECONDS = (-25, -10, 25)
# These check no token expiry: an offset of an hour must change nothing.
WITHOUT_TOKENS = frozenset(("charge", "refund", "sweep"))
HOUR = 3600
# It waits with time.sleep, which libfaketime 0.9.10 makes fail (EINVAL) in a process whose
# monotonic clock is not faked: its 500 would be a defect of the library and not of the shop.
NOT_SHIFTED = frozenset(("read_orders",))
NO_PROCESS = "no process was running"


async def pause(environment: Environment) -> str:
    """Sends SIGSTOP, and SIGCONT after leases and timeouts have expired (F-02)."""
    process = environment.choose_process()
    if process is None:
        return NO_PROCESS
    seconds = (
        environment.random.choice((0.1, 1.0, 3.0, 8.0, 20.0)) * environment.tier.duration_scale
    )
    name = environment.pool_of(process).spec.name
    process.child.signal_group(signal.SIGSTOP)
    environment.paused_groups.add(process.child.pid)
    try:
        await asyncio.sleep(seconds)
    finally:
        environment.paused_groups.discard(process.child.pid)
        process.child.signal_group(signal.SIGCONT)
    return f"{name} paused for {seconds:g} s"


async def scale_in(environment: Environment) -> str:
    """Sends SIGTERM while requests are in flight, which must get their responses (F-03)."""
    process = environment.choose_process()
    if process is None:
        return NO_PROCESS
    pool = environment.pool_of(process)
    in_flight = process.in_flight
    pool.retire(process)
    async with asyncio.timeout(pool.limits.grace_seconds + 5):
        code = await process.child.ended
    return f"{pool.spec.name} terminated with {in_flight} in flight, exit {code}"


async def starve(environment: Environment) -> str:
    """Denies memory to half of the processes and runs four busy loops (F-04)."""
    processes = [p for p in environment.processes() if environment.random.random() < 0.5]
    previous = {
        pid: _limit_memory(pid)
        for process in processes
        for pid in (process.child.pid, *children_of(process.child.pid))
    }
    seconds = 10 * environment.tier.duration_scale
    code = BUSY_LOOP.format(seconds=seconds)
    loops = [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(BUSY_LOOPS)]
    try:
        await asyncio.sleep(seconds)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
        for pid, limits in previous.items():
            with suppress(ProcessLookupError, PermissionError):
                resource.prlimit(pid, resource.RLIMIT_AS, limits)
    return f"{len(processes)} processes without memory, {BUSY_LOOPS} busy loops"


async def shift_clocks(environment: Environment) -> str:
    """Gives a fifth of the new processes another time than the database (F-18)."""
    library = next((path for path in _clock_libraries() if path.exists()), None)
    if library is None:
        raise FaultUnavailable("libfaketime is not installed (Debian: faketime)")

    def clock_settings(spec: FunctionSpec) -> Mapping[str, str]:
        if environment.random.random() > 0.2 or spec.name in NOT_SHIFTED:
            return {}
        shift = environment.random.choice(SHIFTS_SECONDS)
        if spec.name in WITHOUT_TOKENS:
            shift = environment.random.choice((-HOUR, HOUR, shift))
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME": f"{shift:+d}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    environment.extra_settings = clock_settings
    for process in environment.processes():
        if environment.random.random() < 0.5:
            environment.pool_of(process).retire(process)
    await asyncio.sleep(30 * environment.tier.duration_scale)
    environment.extra_settings = no_extra_settings
    return "the clocks of a fifth of the new processes were 10 s to 1 h off"


async def kill_all(environment: Environment) -> str:
    """Kills every process at once (F-25); all must restart while the workload continues."""
    killed = environment.processes()
    for process in killed:
        process.kill()
    for _ in range(3):
        await asyncio.sleep(1.0)
        for process in environment.processes():
            if environment.random.random() < 0.2:
                process.kill()
    return f"{len(killed)} processes killed at once, more while they restarted"


def _clock_libraries() -> list[Path]:
    return [Path(path.format(machine)) for path in CLOCK_LIBRARIES for machine in MACHINES]


def _limit_memory(pid: int) -> tuple[int, int]:
    """Limits the process to its present memory and 1 MiB more; returns its previous limits."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
        size = pages * os.sysconf("SC_PAGE_SIZE") + MIB
        _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        return resource.prlimit(pid, resource.RLIMIT_AS, (size, hard))
    except (OSError, ProcessLookupError):
        return resource.RLIM_INFINITY, resource.RLIM_INFINITY


FAULTS = (
    Fault(id="F-02", title="process pause", group="processes", inject=pause),
    Fault(id="F-03", title="scale-in during requests", group="processes", inject=scale_in),
    Fault(id="F-04", title="memory and CPU starvation", group="processes", inject=starve),
    Fault(id="F-18", title="clock skew", group="processes", inject=shift_clocks),
    Fault(id="F-25", title="mass kill, cold-start surge", group="processes", inject=kill_all),
)
