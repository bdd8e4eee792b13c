"""Reads the process tree from /proc (proc(5): stat, field 4)."""

from __future__ import annotations

from pathlib import Path


def children_of(parent: int) -> list[int]:
    """The running child processes of ``parent``; empty where there is no /proc."""
    return [pid for pid, parent_pid in _parents() if parent_pid == parent]


def _parents() -> list[tuple[int, int]]:
    """Pairs of process id and parent process id."""
    found: list[tuple[int, int]] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # the process has just ended
            continue
        # the name in parentheses may itself contain spaces and parentheses
        found.append((int(folder.name), int(stat.rpartition(")")[2].split()[1])))
    return found
