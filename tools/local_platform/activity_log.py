"""Prints and counts the activity of the local platform."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tools.local_platform.activities import Activity

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
    process_seconds: dict[str, float] = field(default_factory=dict[str, float])
    ended_processes: int = 0
    # the live view, where there is one
    observer: Callable[[Activity], None] | None = None

    def write(self, line: str) -> None:
        """Prints one line on standard output and flushes it."""
        if not self.quiet:
            print(line, flush=True)

    def observe(self, activity: Activity) -> None:
        """Reports an activity to the live view."""
        if self.observer is not None:
            self.observer(activity)

    def count(self, name: str, times: int = 1) -> None:
        """Adds to a counter."""
        self.counts[name] += times

    def add_process(self, function: str, seconds: float) -> None:
        """Adds the time from the start of a function's process to its exit."""
        self.process_seconds[function] = self.process_seconds.get(function, 0.0) + seconds
        self.ended_processes += 1

    def metrics(self) -> str:
        """The counters in the text format of Prometheus."""
        lines: list[str] = []
        for name in SUMMARY:
            metric = f"shop_local_{name.replace(' ', '_')}_total"
            lines += [f"# TYPE {metric} counter", f"{metric} {self.counts[name]}"]
        lines.append("# TYPE shop_local_process_seconds_total counter")
        for function, seconds in self.process_seconds.items():
            labels = f'{{function="{function}"}}'
            lines.append(f"shop_local_process_seconds_total{labels} {seconds:.3f}")
        return "\n".join(lines) + "\n"

    def summary(self) -> str:
        """The counters as one line."""
        seconds = sum(self.process_seconds.values())
        counts = ", ".join(f"{self.counts[name]} {name}" for name in SUMMARY)
        return f"summary: {counts}, {seconds:.1f} process seconds"
