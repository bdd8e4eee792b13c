"""Tables that a person reads in a terminal and pastes into a document (Markdown)."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table: the first column to the left, figures to the right."""
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


def surroundings() -> str:
    """One line about the machine: figures mean little without it, ratios a little more."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("granian", "psycopg", "pydantic"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d} · Python {platform.python_version()} · {versions} · "
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )


def median(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the (sorted) values do not exceed."""
    return values[min(len(values) - 1, int(len(values) * share))]


def judged(name: str, value: float, limit: float) -> str:
    """A line that says whether a target was reached."""
    word = "reached" if value <= limit else "MISSED"
    return f"{word}: {name} {value:.2f}, target at most {limit:.2f}"
