"""Shows the progress of a run: one updated line on a terminal, a line per ten seconds in a log."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import dataclass
from typing import TextIO

LOG_EVERY_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class ProgressLine:
    """The values of one moment."""

    elapsed_seconds: float
    orders: int
    orders_per_second: float
    p99_ms: float
    unknown: int
    due: int
    pending: int
    kills: int
    kills_planned: int
    pairs_completed: int
    pairs: int
    active_faults: tuple[str, ...]
    evaluations: int
    violations: int


class Progress:
    """Writes to ``stream``; ``seconds_max`` and ``orders_planned`` are the size of the run."""

    def __init__(self, stream: TextIO, seconds_max: float, orders_planned: int) -> None:
        self._stream = stream
        self._seconds_max = seconds_max
        self._orders_planned = orders_planned
        self._is_terminal = stream.isatty()
        self._written_at = -math.inf
        self._width = 0

    def show(self, line: ProgressLine) -> None:
        """Updates the line on a terminal; writes it at most every ten seconds to a log."""
        text = self._as_text(line)
        if self._is_terminal:
            # a line that wraps cannot be overwritten
            text = text[: shutil.get_terminal_size().columns - 1]
            padding = " " * max(0, self._width - len(text))
            self._width = len(text)
            self._write(f"\r{text}{padding}")
        elif time.monotonic() - self._written_at >= LOG_EVERY_SECONDS:
            self._written_at = time.monotonic()
            self._write(f"{text}\n")

    def write_line(self, text: str) -> None:
        """Writes a permanent line."""
        clear = f"\r{' ' * self._width}\r" if self._is_terminal and self._width else ""
        self._width = 0
        self._write(f"{clear}{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _as_text(self, line: ProgressLine) -> str:
        return (
            f"{_clock(line.elapsed_seconds)}/{_clock(self._seconds_max)}"
            f"  orders {line.orders}/{self._orders_planned} ({line.orders_per_second:.1f}/s)"
            f"  violations {line.violations}"
            f"  p99 {line.p99_ms:.0f} ms  unknown {line.unknown}"
            f"  due {line.due}  pending {line.pending}"
            f"  kills {line.kills}/{line.kills_planned}"
            f"  pairs {line.pairs_completed}/{line.pairs}"
            f"  evaluations {line.evaluations}"
            f"  active: {' '.join(line.active_faults) or '-'}"
        )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
