"""Collects the results of a run: its record, its samples and every violation, each once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from chaos.controlled_process import JsonObject
from chaos.report.progress import Progress
from chaos.report.record import RecordedViolation, RunRecord
from chaos.sampling import Sampler
from tools.checker.evaluate import Violation

ROWS_CHARACTERS_MAX = 300


@dataclass
class RunResults:
    """Fills the record of a run and shows its progress; ``selected`` are the ids of its faults."""

    selected: frozenset[str]
    record: RunRecord
    progress: Progress
    began: float = field(default_factory=time.monotonic)
    has_violation: asyncio.Event = field(default_factory=asyncio.Event)
    sampler: Sampler = field(init=False)
    _reported: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def __post_init__(self) -> None:
        self.sampler = Sampler(self.record, self.now)

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self.began

    def report(self, id: str, title: str, rows: list[str] | None = None) -> None:
        """Records a violation; each combination of id and title is recorded once."""
        if (id, title) in self._reported:
            return
        self._reported.add((id, title))
        rows = rows or []
        self.record.violations.append(
            RecordedViolation(at=self.now(), id=id, title=title, rows=rows)
        )
        self.progress.write_line(f"VIOLATION {id}: {title} {'; '.join(rows)[:ROWS_CHARACTERS_MAX]}")
        self.has_violation.set()

    def report_invariant(self, violation: Violation) -> None:
        """Records a violated invariant."""
        self.report(violation.id, violation.what, [str(row) for row in violation.rows])

    def add_workload_line(self, line: JsonObject) -> None:
        """Adds one sample of the workload; a replay with another response is a violation."""
        sample: JsonObject = line.get("sample", {})
        self.sampler.add_workload_sample(sample)
        if different := sample.get("different"):
            self.report("replays", f"{different} repeated requests got another response")
