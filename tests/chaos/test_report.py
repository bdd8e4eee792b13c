"""A report says what fired and what did not, what held and what broke, and no more."""

from __future__ import annotations

import io
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chaos.html_report import as_page
from chaos.progress import Progress, ProgressLine
from chaos.report import as_text, read_lines, write_lines
from chaos.run_record import Broken, Check, Injection, KindSum, RunRecord, Sample


def record(*, is_broken: bool = False) -> RunRecord:
    made = RunRecord(
        tier="smoke",
        seed=7,
        began_at="2026-11-26T12:00:00+00:00",
        commit="abc",
        machine="2 cores",
        versions={"python": "3.11"},
        fsync="on",
        knobs={"OPEN_ORDERS_MAX": "100000"},
        seconds=100.0,
        load_seconds=80.0,
        orders=2000,
        operations=8000,
        events=5000,
        duplicates=900,
        reordered=80,
        lost=70,
        commits_ambiguous=12,
        replays=100,
        evaluations=50,
        invariants=37,
        pairs={"charge": {"W0": 2, "W10": 1}, "sweep": {"W0": 0}},
        pairs_wanted=1,
        kinds=[
            KindSum(id="F-01", what="kill", state="fired", injected=3, wanted=3, windows_hit=2),
            KindSum(
                id="F-09",
                what="crash",
                state="fired",
                injected=4,
                wanted=4,
                rest_seconds=[1.0, 2.0, 9.0],
                availability=0.905,
                unknown_answers=17,
            ),
            KindSum(id="F-18", what="clocks", reason="libfaketime is not installed"),
            KindSum(id="F-28", what="restore", state="not asked", reason="not among --kinds"),
        ],
        injections=[
            Injection(kind="F-09", what="<script>alert(1)</script>", began=1, ended=3),
        ],
        samples=[
            Sample(at=float(n), requests=80, orders=20, faults=("F-09",)) for n in range(1, 9)
        ],
        checks=[Check(id="rest", what="rest", holds=True, detail="after 9 s")],
    )
    if is_broken:
        made.broken.append(Broken(at=5.0, id="I-03", what="conservation", rows=["(1,)"]))
    return made


def test_the_table_and_the_foot_say_what_was_done() -> None:
    text = as_text(record())
    flowing = " ".join(text.split())

    assert "tier smoke, seed 7" in text
    assert "everything tested holds; not tested: F-18; not asked: F-28" in text
    assert "F-09  crash    4/4" in text
    assert "1.0/9.0/9.0" not in text
    assert "2.0/9.0/9.0" in text
    assert "90.5%" in text
    assert (
        "orders 2000, operations 8000, events 5000 (of these 900 duplicates, 80 reordered, "
        "70 lost), kills 3 over 3 pairs (min per pair 0), COMMIT-ambiguous 12, "
        "provider unknowns 0, replays 100, seed 7, checker runs 50 x 37 invariants, "
        "violations 0" in flowing
    )
    assert "orders 2000: the rate of violations is below 1.5e-03 per order (95 %, 3/N)" in text
    assert "kills 3: the rate of violations is below 1.0e+00 per kill (95 %, 3/N)" in text
    assert "machine 2 cores; PostgreSQL fsync on; commit abc" in text
    assert "never hit: sweep W0" in text
    assert "charge    2   1    1\n" in text
    assert "not seen to recover: F-09, 1 times" in text
    assert max(len(line) for line in text.splitlines()) <= 140


def test_what_did_not_fire_is_not_tested_and_never_passed() -> None:
    lines = as_text(record()).splitlines()

    (row,) = [line for line in lines if line.startswith("F-18")]
    assert row.split("  ")[-1].strip() == "not tested"
    assert "not tested: F-18 clocks: libfaketime is not installed" in lines
    (unasked,) = [line for line in lines if line.startswith("F-28")]
    assert unasked.endswith("not asked")
    assert "not asked: F-28: not among --kinds" in lines


def test_a_kind_that_fired_0_times_is_not_tested_whatever_its_state_says() -> None:
    made = record()
    made.kinds = [KindSum(id="F-10", what="commits", state="fired", evaluations=50)]

    assert "F-10  commits  not tested" in as_text(made)
    assert "not tested: F-10 commits: it fired 0 times" in as_text(made)
    assert "not tested: it fired 0 times" in as_page(made)


def test_a_run_that_looked_at_nothing_proves_nothing() -> None:
    made = RunRecord(tier="smoke", seed=1, began_at="now", commit="abc", machine="2 cores")

    assert "nothing was checked" in as_text(made)
    assert "3/N" not in as_text(made)
    assert "PostgreSQL fsync not noted" in as_text(made)
    assert "nothing was checked" in as_page(made)


def test_hostile_text_draws_no_row_of_its_own_and_no_long_line() -> None:
    made = record(is_broken=True)
    made.broken[0].rows = ["a\nF-18  clocks  1/1\x1b[2J", "x" * 500]
    lines = as_text(made).splitlines()

    assert "    a F-18  clocks  1/1 [2J" in lines
    assert max(len(line) for line in lines) <= 140


def test_a_broken_run_says_what_broke_and_claims_no_bound() -> None:
    text = as_text(record(is_broken=True))

    assert "SOMETHING IS BROKEN" in text
    assert "BROKEN at 5 s: I-03 conservation\n    (1,)" in text
    assert "3/N" not in text


def test_a_failed_check_is_a_verdict_too() -> None:
    made = record()
    made.checks.append(Check(id="pairs", what="every pair", holds=False, detail="one is missing"))

    assert not made.is_clean
    assert "FAILS  every pair: one is missing" in as_text(made)


@pytest.mark.parametrize("is_broken", [False, True])
def test_the_lines_can_be_read_back(tmp_path: Path, is_broken: bool) -> None:
    made = record(is_broken=is_broken)

    write_lines(made, tmp_path / "run.jsonl")

    assert read_lines(tmp_path / "run.jsonl") == made


def test_a_separator_of_unicode_ends_no_line_of_the_file(tmp_path: Path) -> None:
    made = record(is_broken=True)
    made.broken[0].rows = ["a\u2028b\x85c\ud800"]

    write_lines(made, tmp_path / "run.jsonl")

    assert read_lines(tmp_path / "run.jsonl") == made


@pytest.mark.parametrize("text", ["", '{"kind": {}}\n', '{"other": {}}\n'])
def test_a_file_that_holds_no_run_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.jsonl").write_text(text, encoding="utf-8")

    with pytest.raises(ValueError, match=r"run\.jsonl"):
        read_lines(tmp_path / "run.jsonl")


class Page(HTMLParser):
    """Notes tags and what leads elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_is_one_file_without_scripts_that_shows_everything() -> None:
    text = as_page(record(is_broken=True))
    page = Page(text)

    assert page.links == []
    assert "script" not in page.tags
    assert "http://" not in text and "https://" not in text
    assert page.tags.count("svg") == 7
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "not tested: libfaketime is not installed" in text


def test_a_long_run_is_shown_in_few_points() -> None:
    made = record()
    made.samples = [Sample(at=float(n), requests=1) for n in range(1, 3602)]

    points = max(part.split('"')[0].count(",") for part in as_page(made).split('points="')[1:])

    assert 500 <= points <= 600


def line() -> ProgressLine:
    return ProgressLine(
        elapsed_seconds=61,
        orders=10,
        orders_per_second=1.5,
        p99_ms=20,
        unknown=3,
        due=4,
        pending=5,
        kills=6,
        kills_wanted=98,
        pairs_hit=6,
        pairs_wanted=98,
        faults_on=("F-09",),
        evaluations=7,
        violations=0,
    )


def test_a_log_gets_whole_lines_and_not_too_many() -> None:
    stream = io.StringIO()
    progress = Progress(stream, 300, 2000)

    for _ in range(5):
        progress.show(line())
    progress.say("BROKEN I-03")

    first, second = stream.getvalue().splitlines()
    assert first.startswith("1:01/5:00  orders 10/2000 (1.5/s)")
    assert first.endswith("on: F-09")
    assert second == "BROKEN I-03"


def test_a_terminal_gets_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    progress = Progress(stream, 300, 2000)

    progress.show(line())
    progress.show(line())
    progress.say("done")

    assert stream.getvalue().count("\r1:01/5:00") == 2
    assert all(len(part) < 40 for part in stream.getvalue().split("\r"))
    assert stream.getvalue().endswith("\rdone\n")


def test_throughput_is_over_the_time_that_the_load_lasted() -> None:
    """A busy machine takes fewer samples than there are seconds."""
    made = record()
    made.samples = made.samples[::2]

    assert "throughput 25.0 orders/s, 100.0 operations/s over 80 s of load" in as_text(made)
