"""Formats results as Markdown tables, for terminals and documents."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from time import perf_counter

BEGAN = perf_counter()


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table: the first column left-aligned, the others right-aligned."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [
        max(len(heading), *(len(row[column]) for row in cells)) if cells else len(heading)
        for column, heading in enumerate(headings)
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(row, widths) for row in (list(headings), rule, *cells))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "| " + " | ".join((first, *rest)) + " |"


def machine_description() -> str:
    """One line about the date, the versions and the machine of a measurement."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("httptools", "psycopg", "pydantic"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d} · Python {platform.python_version()} · {versions} · "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )


def show_progress(text: str) -> None:
    """Prints what has been done so far to stderr, with the seconds since the bench began."""
    print(f"{perf_counter() - BEGAN:6.0f} s  {text}", file=sys.stderr, flush=True)


def median(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the (sorted) values do not exceed."""
    return values[min(len(values) - 1, int(len(values) * share))]


def compare_with_target(name: str, value: float, limit: float) -> str:
    """A line that states whether a value is within its target."""
    result = "reached" if value <= limit else "MISSED"
    return f"{result}: {name} {value:.2f}, target at most {limit:.2f}"
