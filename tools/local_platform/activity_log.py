"""Prints and counts the activity of the local platform."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

SUMMARY = (
    "requests",
    "starts",
    "events",
    "deliveries",
    "duplicates",
    "reordered",
    "lost",
    "kills",
    "retries",
    "dead letters",
    "failed dead letters",
)


@dataclass
class ActivityLog:
    """Prints lines and counts; ``quiet`` only counts."""

    quiet: bool = False
    counts: Counter[str] = field(default_factory=Counter[str])

    def write(self, line: str) -> None:
        """Prints one line on standard output and flushes it."""
        if not self.quiet:
            print(line, flush=True)

    def count(self, name: str, times: int = 1) -> None:
        """Adds to a counter."""
        self.counts[name] += times

    def metrics(self) -> str:
        """The counters in the text format of Prometheus."""
        lines: list[str] = []
        for name in SUMMARY:
            metric = f"shop_local_{name.replace(' ', '_')}_total"
            lines += [f"# TYPE {metric} counter", f"{metric} {self.counts[name]}"]
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """The counters as one line."""
        return "summary: " + ", ".join(f"{self.counts[name]} {name}" for name in SUMMARY)
