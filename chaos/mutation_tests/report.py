"""What the mutants came to, as lines while they run and as a table to keep."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chaos.mutation_tests.run import Verdict


def line_of(verdict: Verdict) -> str:
    """One mutant on one line."""
    mutant = verdict.mutant
    found = ", ".join(verdict.by) or verdict.detail.replace("\n", " ") or "nothing"
    return f"{mutant.id} {verdict.state:8} {verdict.seconds:4.0f} s  {mutant.what}  [{found}]"


def sum_of(verdicts: Sequence[Verdict]) -> str:
    """How many were caught, and how many not."""
    states = Counter(verdict.state for verdict in verdicts)
    return f"{states['caught']} caught, {states['survived']} survived, {states['error']} errors"


def write_results(verdicts: Sequence[Verdict], file: Path, *, seed: int) -> None:
    """Writes the table: JSON when the file is named ``.json``, Markdown otherwise."""
    text = _as_json(verdicts, seed) if file.suffix == ".json" else _as_markdown(verdicts, seed)
    file.write_text(text)


def _as_markdown(verdicts: Sequence[Verdict], seed: int) -> str:
    rows = [
        f"| {v.mutant.id} | {v.mutant.hole} | {v.mutant.what} | {v.state} "
        f"| {', '.join(v.by) or '–'} | {v.seconds:.0f} |"
        for v in verdicts
    ]
    return "\n".join(
        [
            "# Mutants",
            "",
            "Holes put back into the shop, each found or not by the smoke tier of the fault run.",
            "",
            f"Seed {seed}: **{sum_of(verdicts)}**.",
            "",
            "| id | hole | what was put back | verdict | found by | s |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _as_json(verdicts: Sequence[Verdict], seed: int) -> str:
    table = [
        {
            "id": v.mutant.id,
            "hole": v.mutant.hole,
            "what": v.mutant.what,
            "verdict": v.state,
            "found_by": list(v.by),
            "expected": list(v.mutant.caught_by),
            "seconds": round(v.seconds, 1),
            "detail": v.detail,
        }
        for v in verdicts
    ]
    return json.dumps({"seed": seed, "mutants": table}, indent=2, ensure_ascii=False) + "\n"
