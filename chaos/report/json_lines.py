"""Writes a run as JSON lines, for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from chaos.report.record import RunRecord

# The label of a line, and the list of the record whose items it has.
LISTS = {
    "fault": "faults",
    "injection": "injections",
    "sample": "samples",
    "check": "checks",
    "violation": "violations",
}


def write_json_lines(record: RunRecord, path: Path) -> None:
    """One JSON object with one member per line; the fields are those of the record's classes.

    ``{"run": …}`` comes first, with everything that is not a list.  It is followed by one line per
    fault, injection, sample, check and violation.  The file is ASCII, so that no separator of
    Unicode in a text ends a line.
    """
    run = asdict(record)
    lists = {label: run.pop(name) for label, name in LISTS.items()}
    with path.open("w", encoding="ascii") as file:
        file.write(json.dumps({"run": run}) + "\n")
        for label, items in lists.items():
            for item in items:
                file.write(json.dumps({label: item}) + "\n")
