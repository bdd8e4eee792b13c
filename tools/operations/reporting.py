"""Exit codes and output of the operator's commands: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime

import psycopg

from shop.primitives.errors import Unavailable
from shop.runtime.config import ConfigurationError

EXIT_OK = 0
EXIT_FOUND = 1  # a difference, a violation or an unknown id
EXIT_FAILED = 2  # invalid arguments, or the database or provider is unavailable


def run_command(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit code; prints an expected error and returns 2 for it."""
    try:
        return command()
    except ConfigurationError as error:
        print(f"the settings are wrong:\n{error}", file=sys.stderr)
        return EXIT_FAILED
    except (psycopg.Error, Unavailable, ValueError, OSError) as error:
        print(f"failed: {type(error).__name__}: {str(error).strip()}", file=sys.stderr)
        return EXIT_FAILED


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
    print(json.dumps(value, default=_as_json, ensure_ascii=False, indent=2))


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


def _as_json(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if isinstance(value, date | datetime) else str(value)
