"""The lines on unexpected errors outlive a run's world."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaos.run_record import RunRecord
from chaos.unexpected_errors import FILE, keep_bugs
from shop.runtime import log


@pytest.fixture
def record() -> RunRecord:
    return RunRecord(tier="smoke", seed=1, began_at="", commit="", machine="")


@pytest.fixture
def bug_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What the shop itself writes."""
    log.bug(KeyError("x"), route="/cart")
    return capsys.readouterr().out


def test_every_whole_line_on_a_bug_is_kept_and_told(
    record: RunRecord, bug_line: str, tmp_path: Path
) -> None:
    logs = tmp_path / "log"
    logs.mkdir()
    other = json.dumps({"at": "2026", "message": "request", "error": "no bug"}) + "\n"
    (logs / "cart.log").write_text(other + bug_line[:30] + bug_line + other)
    (logs / "sweep.log").write_text(bug_line + bug_line[:60])

    keep_bugs(record, logs, tmp_path)

    assert (tmp_path / FILE).read_text() == bug_line * 2
    assert [(check.id, check.detail) for check in record.checks] == [
        ("bugs", "2 x KeyError (bugs.jsonl)")
    ]


def test_a_run_without_bugs_leaves_none_of_an_earlier_one(
    record: RunRecord, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text("of yesterday")

    keep_bugs(record, tmp_path / "log", tmp_path)

    assert not (tmp_path / FILE).exists()
    assert record.checks[-1].detail == "none"
