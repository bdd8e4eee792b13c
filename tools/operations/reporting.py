"""How the operator's commands speak: an exit status, tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import psycopg

from shop.primitives.errors import Unavailable

EXIT_OK, EXIT_FOUND, EXIT_FAILED = 0, 1, 2


def attempt(work: Callable[[], int]) -> int:
    """What ``work`` returns, or 2 with the reason on stderr when it could not do its work.

    Wrong use (ValueError), a database or a provider that cannot be asked: never an answer.
    """
    try:
        return work()
    except (psycopg.Error, Unavailable, ValueError, OSError) as error:
        print(f"could not: {type(error).__name__}: {str(error).strip()}", file=sys.stderr)
        return EXIT_FAILED


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; without a terminal plain columns, so that grep and a ticket can have it whole."""
    texts = [[shown(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _show_rich_table(columns, texts)
        return
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for line in (columns, *texts):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def show_json(value: object) -> None:
    """One JSON document; times and ids as text."""
    print(json.dumps(value, default=_as_json, ensure_ascii=False, indent=2))


def _show_rich_table(columns: Sequence[str], rows: list[list[str]]) -> None:
    # here, because only a person at a terminal waits for it
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def shown(cell: object) -> str:
    """Text without control characters: rows hold what strangers wrote."""
    text = "" if cell is None else str(cell)
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _as_json(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return bytes(value).decode("utf-8", "backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
