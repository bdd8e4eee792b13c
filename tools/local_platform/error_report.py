"""Finds the error behind a response 500 in the log of the process that sent it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from events.strict_json import is_object

CODE = Path(__file__).resolve().parents[2]
FRAME = re.compile(r'^  File "([^"]+)", line (\d+), in ', re.MULTILINE)


@dataclass(frozen=True)
class ErrorReport:
    """An unexpected error: its text, the line of our source that raised it, and its trace."""

    text: str
    place: str
    trace_id: str

    def __str__(self) -> str:
        return f"{self.text} at {self.place} (trace {self.trace_id})"


def trace_id_of(body: bytes) -> str:
    """The trace id in a problem document; empty when there is none."""
    try:
        document: object = json.loads(body)
    except ValueError:
        return ""
    return str(document.get("traceId", "")) if is_object(document) else ""


def find_error(log: str, trace_id: str) -> ErrorReport | None:
    """The last unexpected error of a trace in a process's log; None when it has none."""
    for line in reversed(log.splitlines()):
        try:
            fields: object = json.loads(line)
        except ValueError:
            continue
        if is_object(fields) and "traceback" in fields and fields.get("trace") == trace_id:
            return _report(str(fields["traceback"]), trace_id)
    return None


def _report(traceback: str, trace_id: str) -> ErrorReport:
    own = [
        f"{os.path.relpath(path, CODE)}:{line}"
        for path, line in FRAME.findall(traceback)
        if Path(path).is_relative_to(CODE) and "site-packages" not in path
    ]
    text = traceback.rstrip().rpartition("\n")[2]
    return ErrorReport(text, own[-1] if own else "an unknown line", trace_id)
