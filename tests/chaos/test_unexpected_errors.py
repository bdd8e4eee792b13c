"""An error that a function does not expect fails the run, and its log line is kept."""

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
    log.unexpected(KeyError("x"), route="/cart")
    return capsys.readouterr().out


def test_bug_in_a_log_fails_the_run_and_complete_lines_are_copied(
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
        ("bugs", "2 x KeyError (bugs.jsonl)")
    ]
    assert not record.has_passed


def test_process_without_memory_is_no_bug(
    record: RunRecord, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    logs = tmp_path / "log"
    logs.mkdir()
    log.unexpected(MemoryError(), route="/cart")
    (logs / "cart.log").write_text(capsys.readouterr().out)

    collect_unexpected_errors(record, logs, tmp_path)

    assert record.has_passed
    assert not (tmp_path / FILE).exists()


def test_file_of_an_earlier_run_is_removed(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("of an earlier run")

    collect_unexpected_errors(record, tmp_path / "log", tmp_path)

    assert not (tmp_path / FILE).exists()
    assert record.checks[-1].detail == "none"
