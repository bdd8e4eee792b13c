"""What a person sees while a run lasts: one line that changes; in a log one every ten seconds."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from typing import TextIO

LOG_EVERY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """The figures of one moment."""

    elapsed_seconds: float
    orders: int
    orders_per_second: float
    p99_ms: float
    unknown: int
    due: int
    pending: int
    kills: int
    kills_wanted: int
    pairs_hit: int
    pairs_wanted: int
    faults_on: tuple[str, ...]
    evaluations: int
    violations: int


class Progress:
    """Writes to ``stream``; ``budget_seconds`` and ``orders_wanted`` are what the run aims at."""

    def __init__(self, stream: TextIO, budget_seconds: float, orders_wanted: int) -> None:
        self._stream = stream
        self._budget_seconds = budget_seconds
        self._orders_wanted = orders_wanted
        self._is_live = stream.isatty()
        self._last_at = -math.inf
        self._width = 0

    def show(self, line: ProgressLine) -> None:
        """The state of affairs, now on a terminal and now and then in a log."""
        text = self._as_text(line)
        if self._is_live:
            # a line that wraps could not be overwritten
            text = text[: shutil.get_terminal_size().columns - 1]
            padding = " " * max(0, self._width - len(text))
            self._width = len(text)
            self._write(f"\r{text}{padding}")
        elif time.monotonic() - self._last_at >= LOG_EVERY_SECONDS:
            self._last_at = time.monotonic()
            self._write(f"{text}\n")

    def say(self, text: str) -> None:
        """A line that stays."""
        clear = f"\r{' ' * self._width}\r" if self._is_live and self._width else ""
        self._width = 0
        self._write(f"{clear}{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _as_text(self, line: ProgressLine) -> str:
        return (
            f"{_clock(line.elapsed_seconds)}/{_clock(self._budget_seconds)}"
            f"  orders {line.orders}/{self._orders_wanted} ({line.orders_per_second:.1f}/s)"
            f"  broken {line.violations}"
            f"  p99 {line.p99_ms:.0f} ms  unknown {line.unknown}"
            f"  due {line.due}  pending {line.pending}"
            f"  kills {line.kills}/{line.kills_wanted}"
            f"  pairs {line.pairs_hit}/{line.pairs_wanted}"
            f"  checks {line.evaluations}"
            f"  on: {' '.join(line.faults_on) or '-'}"
        )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
