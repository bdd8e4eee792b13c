"""What the platform tells the person at the desk: one line per event of interest, and the sums."""

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
    counts: Counter[str] = field(default_factory=Counter)

    def write(self, line: str) -> None:
        """One line on standard output, at once."""
        if not self.quiet:
            print(line, flush=True)

    def count(self, what: str, times: int = 1) -> None:
        """Adds to one of the sums."""
        self.counts[what] += times

    def summary(self) -> str:
        """The sums as one line."""
        return "summary: " + ", ".join(f"{self.counts[what]} {what}" for what in SUMMARY)
