"""Who started whom, as Linux tells it (proc(5): stat, field 4)."""

from __future__ import annotations

from pathlib import Path


def children_of(parent: int) -> list[int]:
    """The processes that ``parent`` has started and that live; empty where there is no /proc."""
    return [pid for pid, started_by in _parents() if started_by == parent]


def _parents() -> list[tuple[int, int]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        # the name in parentheses may hold anything, spaces and parentheses too
        found.append((int(folder.name), int(stat.rpartition(")")[2].split()[1])))
    return found
