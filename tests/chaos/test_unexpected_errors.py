"""Log lines of unexpected errors are kept when the data of a run is deleted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaos.report.record import RunRecord
from chaos.report.unexpected_errors import FILE, collect_unexpected_errors
from shop.runtime import log


@pytest.fixture
def record() -> RunRecord:
    return RunRecord(tier="smoke", seed=1, began_at="", commit="", machine="")


@pytest.fixture
def bug_line(capsys: pytest.CaptureFixture[str]) -> str:
    """A line as the shop logs it."""
    log.bug(KeyError("x"), route="/cart")
    return capsys.readouterr().out


def test_complete_lines_are_copied_and_counted_by_error(
    record: RunRecord, bug_line: str, tmp_path: Path
) -> None:
    logs = tmp_path / "log"
    logs.mkdir()
    other = json.dumps({"at": "2026", "message": "request", "error": "no bug"}) + "\n"
    (logs / "cart.log").write_text(other + bug_line[:30] + bug_line + other)
    (logs / "sweep.log").write_text(bug_line + bug_line[:60])

    collect_unexpected_errors(record, logs, tmp_path)

    assert (tmp_path / FILE).read_text() == bug_line * 2
    assert [(check.id, check.detail) for check in record.checks] == [
        ("unexpected-errors", "2 x KeyError (bugs.jsonl)")
    ]


def test_file_of_an_earlier_run_is_removed(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("of an earlier run")

    collect_unexpected_errors(record, tmp_path / "log", tmp_path)

    assert not (tmp_path / FILE).exists()
    assert record.checks[-1].detail == "none"
