"""The results of mutation tests: a line per mutant and a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from chaos.mutation_tests.run import Verdict


def line_of(verdict: Verdict) -> str:
    """The result of one mutant in one line."""
    mutant = verdict.mutant
    found = ", ".join(verdict.by) or verdict.detail.replace("\n", " ") or "nothing"
    return (
        f"{mutant.id} {verdict.state:8} {verdict.seconds:4.0f} s  {mutant.description}  [{found}]"
    )


def totals_of(verdicts: Sequence[Verdict]) -> str:
    """The number of mutants by state."""
    states = Counter(verdict.state for verdict in verdicts)
    return f"{states['caught']} caught, {states['survived']} survived, {states['error']} errors"


def write_results(verdicts: Sequence[Verdict], file: Path, *, seed: int) -> None:
    """Writes the table: JSON when the file is named ``.json``, Markdown otherwise."""
    text = _as_json(verdicts, seed) if file.suffix == ".json" else _as_markdown(verdicts, seed)
    file.write_text(text)


def _as_markdown(verdicts: Sequence[Verdict], seed: int) -> str:
    rows = [
        f"| {v.mutant.id} | {v.mutant.defect} | {v.mutant.description} | {v.state} "
        f"| {', '.join(v.by) or '–'} | {v.seconds:.0f} |"
        for v in verdicts
    ]
    return "\n".join(
        [
            "# Mutation tests",
            "",
            "Each mutant is the shop with one defect, tested with the smoke tier of the fault run.",
            "",
            f"Seed {seed}: **{totals_of(verdicts)}**.",
            "",
            "| id | defect | description | verdict | detected by | s |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _as_json(verdicts: Sequence[Verdict], seed: int) -> str:
    table = [
        {
            "id": v.mutant.id,
            "defect": v.mutant.defect,
            "description": v.mutant.description,
            "verdict": v.state,
            "detected_by": list(v.by),
            "expected": list(v.mutant.caught_by),
            "seconds": round(v.seconds, 1),
            "detail": v.detail,
        }
        for v in verdicts
    ]
    return json.dumps({"seed": seed, "mutants": table}, indent=2, ensure_ascii=False) + "\n"
