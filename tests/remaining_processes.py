"""Finds processes that a test run leaves behind, from Linux's /proc."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PROC = Path("/proc")


class Process(NamedTuple):
    """A running process; ``started`` is in clock ticks since boot (proc(5))."""

    pid: int
    name: str
    state: str
    parent: int
    started: int
    command: str


def orphans_since(pid: int) -> list[Process]:
    """Processes of this checkout that started after process ``pid`` and lost their parent.

    Those that another program started meanwhile, such as ``make dev``, still have theirs.
    """
    processes = {process.pid: process for process in _processes()}
    adopting = {1} | {each.pid for each in processes.values() if each.name == "systemd"}
    return [
        process
        for process in processes.values()
        if process.parent in adopting
        and process.state != "Z"
        and process.started > processes[pid].started
        and _is_of_this_checkout(process)
    ]


def _processes() -> list[Process]:
    found = (_process(int(folder.name)) for folder in PROC.glob("[0-9]*"))
    return [process for process in found if process is not None]


def _process(pid: int) -> Process | None:
    """None if it has exited, or is another user's."""
    try:
        head, _, rest = (PROC / str(pid) / "stat").read_text().rpartition(")")
        command = (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (OSError, UnicodeDecodeError):
        return None
    fields = rest.split()
    name = head.partition("(")[2]
    return Process(pid, name, fields[0], int(fields[1]), int(fields[19]), command)


def _is_of_this_checkout(process: Process) -> bool:
    try:
        folder = (PROC / str(process.pid) / "cwd").resolve(strict=True)
    except OSError:
        return False
    return folder.is_relative_to(ROOT) or sys.prefix in process.command
