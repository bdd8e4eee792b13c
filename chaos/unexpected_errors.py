"""What the functions of a run logged of errors that nobody expected (``shop.runtime.log.bug``).

A green run's world is thrown away, and with it the only word on a 500.  These lines are kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from chaos.run_record import Check, RunRecord

START = '{"at": '
MARK = '"message": "bug"'
FILE = "bugs.jsonl"


def keep_bugs(record: RunRecord, logs: Path, out: Path) -> None:
    """Copies the lines to ``out/bugs.jsonl`` and tells in the report how many there are of what.

    No file of an earlier run is left.  Errors are told, not judged: a process that F-04 lets have
    no memory may fail in any line.
    """
    lines = [line for path in sorted(logs.glob("*.log")) for line in _bugs_in(path)]
    (out / FILE).unlink(missing_ok=True)
    if lines:
        (out / FILE).write_text("".join(lines), encoding="utf-8")
    what = "errors that no code of the functions expected"
    record.checks.append(Check(id="bugs", what=what, holds=True, detail=_told(lines)))


def _bugs_in(path: Path) -> Iterable[str]:
    """The whole lines: a process that dies in writing leaves half of one, and another goes on."""
    with path.open(encoding="utf-8", errors="replace") as log:
        for line in log:
            whole = line[line.rfind(START) :] if START in line else ""
            if MARK in whole and _is_json(whole):
                yield whole


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _told(lines: list[str]) -> str:
    errors = Counter(str(json.loads(line).get("error")) for line in lines)
    told = ", ".join(f"{count} x {error}" for error, count in sorted(errors.items()))
    return f"{told} ({FILE})" if told else "none"
