"""Collects the log lines of bugs (``shop.runtime.log.unexpected``) from the function logs.

A process without memory or threads (F-04), and a client or server that was killed, are no bugs: the
functions log them with other messages, by the type of the error.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from chaos.report.record import Check, RunRecord

START = '{"at": '
MARK = '"message": "bug"'
FILE = "bugs.jsonl"


def collect_unexpected_errors(record: RunRecord, logs: Path, out: Path) -> None:
    """Copies the lines to ``out/bugs.jsonl`` and adds a check to the record that there are none.

    A file of an earlier run is removed.
    """
    lines = [line for path in sorted(logs.glob("*.log")) for line in bug_lines(path)]
    (out / FILE).unlink(missing_ok=True)
    if lines:
        (out / FILE).write_text("".join(lines), encoding="utf-8")
    title = "no function logged an error that it does not expect"
    record.checks.append(
        Check(id="bugs", title=title, has_passed=not lines, detail=_count_errors(lines))
    )


def bug_lines(path: Path) -> Iterable[str]:
    """Complete lines only: a killed process leaves half a line, and another one continues it."""
    with path.open(encoding="utf-8", errors="replace") as log:
        for line in log:
            complete = line[line.rfind(START) :] if START in line else ""
            if MARK in complete and _is_json(complete):
                yield complete


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _count_errors(lines: list[str]) -> str:
    errors = Counter(str(json.loads(line).get("error")) for line in lines)
    text = ", ".join(f"{count} x {error}" for error, count in sorted(errors.items()))
    return f"{text} ({FILE})" if text else "none"
