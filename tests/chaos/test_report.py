"""Reports state which faults were injected, which checks passed, and nothing beyond that."""

from __future__ import annotations

import io
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chaos.report.html import as_html
from chaos.report.json_lines import write_json_lines
from chaos.report.progress import Progress, ProgressLine
from chaos.report.record import (
    Check,
    FaultSummary,
    Injection,
    RecordedViolation,
    RunRecord,
    Sample,
)
from chaos.report.text import as_text


def new_summaries() -> list[FaultSummary]:
    return [
        FaultSummary(
            id="F-01",
            title="kill",
            state="injected",
            injections=3,
            planned=3,
            pairs_completed=2,
        ),
        FaultSummary(
            id="F-09",
            title="crash",
            state="injected",
            injections=4,
            planned=4,
            recovery_seconds=[1.0, 2.0, 9.0],
            availability=0.905,
            unknown=17,
        ),
        FaultSummary(id="F-18", title="clocks", reason="libfaketime is not installed"),
        FaultSummary(id="F-28", title="restore", state="not selected", reason="not among --kinds"),
    ]


def new_record(*, has_violation: bool = False) -> RunRecord:
    made = RunRecord(
        tier="smoke",
        seed=7,
        began_at="2026-11-26T12:00:00+00:00",
        commit="abc",
        machine="2 cores",
        versions={"python": "3.11"},
        fsync="on",
        settings={"OPEN_ORDERS_MAX": "100000"},
        seconds=100.0,
        load_seconds=80.0,
        orders=2000,
        operations=8000,
        events=5000,
        events_duplicated=900,
        events_reordered=80,
        events_lost=70,
        ambiguous_commits=12,
        replays=100,
        evaluations=50,
        invariants=37,
        kills={"charge": {"W0": 2, "W10": 1}, "sweep": {"W0": 0}},
        kills_per_pair=1,
        faults=new_summaries(),
        injections=[
            Injection(fault_id="F-09", description="<script>alert(1)</script>", began=1, ended=3),
        ],
        samples=[
            Sample(at=float(n), requests=80, orders=20, faults=("F-09",)) for n in range(1, 9)
        ],
        checks=[Check(id="quiescence", title="quiescence", has_passed=True, detail="after 9 s")],
    )
    if has_violation:
        made.violations.append(
            RecordedViolation(at=5.0, id="I-03", title="conservation", rows=["(1,)"])
        )
    return made


def test_text_contains_the_table_and_the_totals() -> None:
    text = as_text(new_record())
    flowing = " ".join(text.split())

    assert "tier smoke, seed 7" in text
    assert "all checks passed; not tested: F-18; not selected: F-28" in text
    assert "F-09   crash    4/4" in text
    assert "1.0/9.0/9.0" not in text
    assert "2.0/9.0/9.0" in text
    assert "90.5%" in text
    assert (
        "orders 2000, operations 8000, events 5000 (of these 900 duplicates, 80 reordered, "
        "70 lost), kills 3 at 3 pairs (min per pair 0), ambiguous commits 12, "
        "unknown provider outcomes 0, replays 100, seed 7, evaluations 50 x 37 invariants, "
        "violations 0" in flowing
    )
    assert "orders 2000: the rate of violations is below 1.5e-03 per order (95 %, 3/N)" in text
    assert "kills 3: the rate of violations is below 1.0e+00 per kill (95 %, 3/N)" in text
    assert "machine 2 cores; PostgreSQL fsync on; commit abc" in text
    assert "without a kill: sweep W0" in text
    assert "charge    2   1    1\n" in text
    assert "no recovery observed: F-09, 1 times" in text
    assert max(len(line) for line in text.splitlines()) <= 140


def test_fault_that_was_not_injected_is_not_tested() -> None:
    lines = as_text(new_record()).splitlines()

    (row,) = [line for line in lines if line.startswith("F-18")]
    assert row.split("  ")[-1].strip() == "not tested"
    assert "not tested: F-18 clocks: libfaketime is not installed" in lines
    (not_selected,) = [line for line in lines if line.startswith("F-28")]
    assert not_selected.endswith("not selected")
    assert "not selected: F-28: not among --kinds" in lines


def test_fault_with_0_injections_is_not_tested_whatever_its_state() -> None:
    made = new_record()
    made.faults = [FaultSummary(id="F-10", title="commits", state="injected", evaluations=50)]

    assert "F-10   commits  not tested" in as_text(made)
    assert "not tested: F-10 commits: 0 injections" in as_text(made)
    assert "not tested: 0 injections" in as_html(made)


def test_run_without_checks_claims_nothing() -> None:
    made = RunRecord(tier="smoke", seed=1, began_at="now", commit="abc", machine="2 cores")

    assert "nothing was checked" in as_text(made)
    assert "3/N" not in as_text(made)
    assert "PostgreSQL fsync not recorded" in as_text(made)
    assert "nothing was checked" in as_html(made)


def test_control_characters_cannot_forge_a_row_or_a_long_line() -> None:
    made = new_record(has_violation=True)
    made.violations[0].rows = ["a\nF-18  clocks  1/1\x1b[2J", "x" * 500]
    lines = as_text(made).splitlines()

    assert "    a F-18  clocks  1/1 [2J" in lines
    assert max(len(line) for line in lines) <= 140


def test_run_with_a_violation_shows_it_and_claims_no_bound() -> None:
    text = as_text(new_record(has_violation=True))

    assert "VIOLATIONS FOUND" in text
    assert "VIOLATION at 5 s: I-03 conservation\n    (1,)" in text
    assert "3/N" not in text


def test_failed_check_fails_the_run() -> None:
    made = new_record()
    made.checks.append(
        Check(id="failpoint-pairs", title="every pair", has_passed=False, detail="one is missing")
    )

    assert not made.has_passed
    assert "FAILED every pair: one is missing" in as_text(made)


def test_json_lines_contain_every_item_of_the_record(tmp_path: Path) -> None:
    made = new_record(has_violation=True)

    write_json_lines(made, tmp_path / "run.jsonl")

    lines = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    labels = Counter(label for line in lines for label in line)
    assert lines[0]["run"]["seed"] == 7
    assert labels == {
        "run": 1, "fault": 4, "injection": 1, "sample": 8, "check": 1, "violation": 1,
    }  # fmt: skip
    assert lines[-1] == {
        "violation": {"at": 5.0, "id": "I-03", "title": "conservation", "rows": ["(1,)"]}
    }


def test_unicode_separator_ends_no_json_line(tmp_path: Path) -> None:
    made = new_record(has_violation=True)
    made.violations[0].rows = ["a\u2028b\x85c\ud800"]

    write_json_lines(made, tmp_path / "run.jsonl")

    last = (tmp_path / "run.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["violation"]["rows"] == ["a\u2028b\x85c\ud800"]


class Page(HTMLParser):
    """Collects tags and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_html_has_all_charts_and_no_script_or_link() -> None:
    text = as_html(new_record(has_violation=True))
    page = Page(text)

    assert page.links == []
    assert "script" not in page.tags
    assert "http://" not in text and "https://" not in text
    assert page.tags.count("svg") == 7
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "not tested: libfaketime is not installed" in text


def test_chart_of_a_long_run_has_at_most_600_points() -> None:
    made = new_record()
    made.samples = [Sample(at=float(n), requests=1) for n in range(1, 3602)]

    points = max(part.split('"')[0].count(",") for part in as_html(made).split('points="')[1:])

    assert 500 <= points <= 600


def new_line() -> ProgressLine:
    return ProgressLine(
        elapsed_seconds=61,
        orders=10,
        orders_per_second=1.5,
        p99_ms=20,
        unknown=3,
        due=4,
        pending=5,
        kills=6,
        kills_planned=98,
        pairs_completed=6,
        pairs=98,
        active_faults=("F-09",),
        evaluations=7,
        violations=0,
    )


def test_progress_writes_complete_lines_to_a_log_at_intervals() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 300, 2000)

    for _ in range(5):
        progress.show(new_line())
    progress.write_line("VIOLATION I-03")

    first, second = stream.getvalue().splitlines()
    assert first.startswith("1:01/5:00  orders 10/2000 (1.5/s)")
    assert first.endswith("active: F-09")
    assert second == "VIOLATION I-03"


def test_progress_updates_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    progress = Progress(stream, 300, 2000)

    progress.show(new_line())
    progress.show(new_line())
    progress.write_line("done")

    assert stream.getvalue().count("\r1:01/5:00") == 2
    assert all(len(part) < 40 for part in stream.getvalue().split("\r"))
    assert stream.getvalue().endswith("\rdone\n")


def test_run_that_a_violation_has_stopped_has_no_throughput() -> None:
    made = new_record()
    made.load_seconds = 0.0

    text = as_text(made)

    assert "orders and operations were not counted" in text
    assert "throughput" not in text


def test_throughput_is_relative_to_the_duration_of_the_load() -> None:
    """On a busy machine there are fewer samples than seconds."""
    made = new_record()
    made.samples = made.samples[::2]

    assert "throughput 25.0 orders/s, 100.0 operations/s over 80 s of workload" in as_text(made)
