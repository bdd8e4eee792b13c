"""Exit codes and output of the operator's commands: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from datetime import date, datetime
from typing import NamedTuple

EXIT_OK = 0
EXIT_FOUND = 1  # a difference, a violation or an unknown id
EXIT_FAILED = 2  # invalid arguments or settings, or the database or provider is unavailable


class Outcome(NamedTuple):
    """What became of one of the things that a command was asked to change."""

    id: str
    is_done: bool
    what: str


def show_outcomes(outcomes: Iterable[Outcome], *, as_json: bool) -> int:
    """Prints what becomes of each, as lines at once, and returns 1 when one was not done."""
    shown: list[Outcome] = []
    for one in outcomes:
        shown.append(one)
        if not as_json:
            print(printable(f"{one.id}: {one.what}"), flush=True)
    if as_json:
        show_json([{"id": one.id, "done": one.is_done, "what": one.what} for one in shown])
    return EXIT_OK if all(one.is_done for one in shown) else EXIT_FOUND


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table; without a terminal as plain columns, which suit grep and tickets."""
    texts = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _show_rich_table(columns, texts)
        return
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for line in (columns, *texts):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def show_json(value: object) -> None:
    """Prints one JSON document; times and ids as text."""
    print(json.dumps(value, default=as_text, ensure_ascii=False, indent=2))


def show_json_line(value: object) -> None:
    """Prints one JSON document as one line of several, at once."""
    print(json.dumps(value, default=as_text), flush=True)


def show_unknown(what: str, *, as_json: bool) -> int:
    """Prints that something does not exist, as JSON ``null``; returns 1."""
    if as_json:
        show_json(None)
    else:
        print(printable(f"unknown {what}"))
    return EXIT_FOUND


def progress_apart(*, as_json: bool) -> AbstractContextManager[object]:
    """With JSON, what is printed inside is progress: it goes to standard error."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def _show_rich_table(columns: Sequence[str], rows: list[list[str]]) -> None:
    # imported here because only output to a terminal needs it
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def printable(cell: object) -> str:
    """Text without control characters: rows may contain untrusted input."""
    text = "" if cell is None else str(cell)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def as_text(value: object) -> str:
    """How JSON output spells a value that JSON does not have."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
