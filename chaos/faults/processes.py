"""What happens to function processes: paused, scaled in, starved, shifted in time, all gone."""

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

from chaos.environment import Environment
from chaos.faults.fault import Kind, NotHere
from chaos.process_tree import children_of
from shop.primitives.spec import FunctionSpec
from tools.local_platform.activator import FunctionProcess

MIB = 1024 * 1024
HOGS = 4
# It ends by itself, should the run that started it be killed.
SPIN = """
import time
end = time.monotonic() + {seconds}
while time.monotonic() < end:
    pass
"""
CLOCK_LIBRARIES = ("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1",)
MACHINES = ("x86_64", "aarch64")
# A token says when it ends, to the second; 60 s of difference between clocks are tolerated.
SHIFTS_SECONDS = (-50, -10, 50)
# These judge nothing by a token's time: an hour off must change nothing.
TIMELESS = frozenset(("charge", "refund", "sweep"))
HOUR = 3600
# It waits for news with time.sleep, which libfaketime 0.9.10 makes fail (EINVAL) in a process whose
# monotonic clock is left alone: its 500 would tell of the tool and not of the shop.
SLEEPERS = frozenset(("read_orders",))


async def pause(scene: Environment) -> str:
    """F-02: SIGSTOP for longer than leases and timeouts last, then SIGCONT: a zombie wakes up."""
    process = scene.choose()
    if process is None:
        return "nobody was awake"
    seconds = scene.dice.choice((0.1, 1.0, 3.0, 8.0, 20.0)) * scene.tier.hold
    name = scene.pool_of(process).spec.name
    _signal_group(process, signal.SIGSTOP)
    scene.frozen.add(process.child.pid)
    try:
        await asyncio.sleep(seconds)
    finally:
        scene.frozen.discard(process.child.pid)
        _signal_group(process, signal.SIGCONT)
    return f"{name} slept {seconds:g} s"


async def scale_in(scene: Environment) -> str:
    """F-03: SIGTERM while requests are under way; they must be answered."""
    process = scene.choose()
    if process is None:
        return "nobody was awake"
    pool = scene.pool_of(process)
    under_way = process.in_flight
    pool.retire(process)
    async with asyncio.timeout(pool.limits.grace_seconds + 5):
        code = await process.child.ended
    return f"{pool.spec.name} left with {under_way} under way, exit {code}"


async def starve(scene: Environment) -> str:
    """F-04: no memory to be had for half the processes, and four busy loops beside them all."""
    victims = [p for p in scene.processes() if scene.dice.random() < 0.5]
    before = {
        pid: _limit_memory(pid) for p in victims for pid in (p.child.pid, *children_of(p.child.pid))
    }
    seconds = 10 * scene.tier.hold
    spin = SPIN.format(seconds=seconds)
    hogs = [subprocess.Popen([sys.executable, "-S", "-c", spin]) for _ in range(HOGS)]
    try:
        await asyncio.sleep(seconds)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()
        for pid, limits in before.items():
            with suppress(ProcessLookupError, PermissionError):
                resource.prlimit(pid, resource.RLIMIT_AS, limits)
    return f"{len(victims)} processes without memory, {HOGS} busy loops"


async def shift_clocks(scene: Environment) -> str:
    """F-18: a fifth of the new processes live in another time than the database."""
    library = next((path for path in _clock_libraries() if path.exists()), None)
    if library is None:
        raise NotHere("libfaketime is not installed (Debian: faketime)")

    def told(spec: FunctionSpec) -> Mapping[str, str]:
        if scene.dice.random() > 0.2 or spec.name in SLEEPERS:
            return {}
        shift = scene.dice.choice(SHIFTS_SECONDS)
        if spec.name in TIMELESS:
            shift = scene.dice.choice((-HOUR, HOUR, shift))
        return {
            "LD_PRELOAD": str(library),
            "FAKETIME": f"{shift:+d}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    scene.told = told
    for process in scene.processes():
        if scene.dice.random() < 0.5:
            scene.pool_of(process).retire(process)
    await asyncio.sleep(30 * scene.tier.hold)
    scene.told = lambda _spec: {}
    return "a fifth of the new processes ran 10 s to 1 h off"


async def storm(scene: Environment) -> str:
    """F-25: every process is gone at once, and all must come back while the load goes on."""
    killed = scene.processes()
    for process in killed:
        process.kill()
    for _ in range(3):
        await asyncio.sleep(1.0)
        for process in scene.processes():
            if scene.dice.random() < 0.2:
                process.kill()
    return f"{len(killed)} processes killed at once, more while they started"


def _clock_libraries() -> list[Path]:
    return [Path(form.format(machine)) for form in CLOCK_LIBRARIES for machine in MACHINES]


def _signal_group(process: FunctionProcess, number: int) -> None:
    process.child.signal_group(number)


def _limit_memory(pid: int) -> tuple[int, int]:
    """Lets the process have what it has and 1 MiB more; answers the limits it had."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[0])
        size = pages * os.sysconf("SC_PAGE_SIZE") + MIB
        _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
        return resource.prlimit(pid, resource.RLIMIT_AS, (size, hard))
    except (OSError, ProcessLookupError):
        return resource.RLIM_INFINITY, resource.RLIM_INFINITY


KINDS = (
    Kind(id="F-02", what="pause and zombie", lane="processes", inject=pause),
    Kind(id="F-03", what="scale-in in mid-request", lane="processes", inject=scale_in),
    Kind(id="F-04", what="memory and CPU starvation", lane="processes", inject=starve),
    Kind(id="F-18", what="clocks that differ", lane="processes", inject=shift_clocks),
    Kind(id="F-25", what="cold-start storm", lane="processes", inject=storm),
)
