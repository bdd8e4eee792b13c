"""Finds processes that a test run leaves behind, from Linux's /proc."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PROC = Path("/proc")

# Prints the process that became its parent after the process that started it had exited.
PRINT_NEW_PARENT = """
import os, time
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent:
        time.sleep(0.001)
    print(os.getppid())
"""


class Process(NamedTuple):
    """A running process; ``started`` is in clock ticks since boot (proc(5))."""

    pid: int
    state: str
    parent: int
    started: int
    command: str


def orphans_since(pid: int) -> list[Process]:
    """Processes of this checkout that started after process ``pid`` and lost their parent.

    Those that another program started meanwhile, such as ``make dev``, still have theirs.
    """
    processes = {process.pid: process for process in _processes()}
    adopting = adopting_process()
    return [
        process
        for process in processes.values()
        if process.parent == adopting
        and process.state != "Z"
        and process.started > processes[pid].started
        and _is_of_this_checkout(process)
    ]


@cache
def adopting_process() -> int:
    """The parent that Linux gives to this process's descendants whose own parent has exited.

    The nearest ancestor that asked for them, else process 1 (prctl(2), PR_SET_CHILD_SUBREAPER);
    /proc does not show which ancestor did, so it is found by leaving a process behind.
    """
    command = [sys.executable, "-c", PRINT_NEW_PARENT]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _processes() -> list[Process]:
    found = (_process(int(folder.name)) for folder in PROC.glob("[0-9]*"))
    return [process for process in found if process is not None]


def _process(pid: int) -> Process | None:
    """None if it has exited, or is another user's."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, UnicodeDecodeError):
        return None
    fields = stat.rpartition(")")[2].split()
    return Process(pid, fields[0], int(fields[1]), int(fields[19]), command)


def _is_of_this_checkout(process: Process) -> bool:
    try:
        folder = (PROC / str(process.pid) / "cwd").resolve(strict=True)
    except OSError:
        return False
    return folder.is_relative_to(ROOT) or sys.prefix in process.command
