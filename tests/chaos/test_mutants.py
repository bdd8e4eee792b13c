"""The mutants' catalogue is whole and applies; the runner believes only what a run has named.

The harness itself is not run here: a stub stands in for it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from chaos.mutation_tests import __main__ as command
from chaos.mutation_tests.catalogue import MUTANTS, NOT_APPLICABLE
from chaos.mutation_tests.mutant import DoesNotApply, Edit, Mutant, mutated_files
from chaos.mutation_tests.report import line_of, sum_of, write_results
from chaos.mutation_tests.run import Settings, Verdict, broken_in, judge, run

ROOT = Path(__file__).parents[2]
HOLES = ["H-01b", *(f"H-{n:02}" for n in range(1, 22)), *(f"S-{n:02}" for n in range(1, 16))]
CAREFUL = "limit = 1\n"
CARELESS = Mutant("M-99", "H-99", "no limit", (Edit("shop.py", "limit = 1", "limit = 9"),), ("I",))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_every_edit_applies_exactly_once_and_leaves_python(mutant: Mutant) -> None:
    texts = mutated_files(mutant, ROOT)

    assert texts
    for file, text in texts.items():
        assert text != (ROOT / file).read_text(), file


def test_the_catalogue_is_large_and_in_order() -> None:
    assert [mutant.id for mutant in MUTANTS] == [f"M-{n:02}" for n in range(1, len(MUTANTS) + 1)]
    assert len(MUTANTS) >= 30
    assert all(mutant.caught_by for mutant in MUTANTS)


@pytest.mark.parametrize("hole", HOLES)
def test_every_hole_of_the_original_is_put_back_or_has_a_reason_why_not(hole: str) -> None:
    is_put_back = any(mutant.hole == hole for mutant in MUTANTS)

    assert is_put_back != (hole in NOT_APPLICABLE)


def test_reasons_name_what_is_there() -> None:
    ids = {mutant.id for mutant in MUTANTS}
    for reason in NOT_APPLICABLE.values():
        assert set(re.findall(r"M-\d\d", reason)) <= ids, reason
        for path in re.findall(r"tests/\S+?\.py", reason):
            assert (ROOT / path).is_file(), path


def test_an_edit_that_does_not_apply_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("limit = 1\nlimit = 1\n")

    with pytest.raises(DoesNotApply, match="found 2 times"):
        mutated_files(CARELESS, tmp_path)
    (tmp_path / "shop.py").write_text("limit = 2\n")
    with pytest.raises(DoesNotApply, match="found 0 times"):
        mutated_files(CARELESS, tmp_path)
    (tmp_path / "shop.py").unlink()
    with pytest.raises(DoesNotApply, match=r"shop\.py"):
        mutated_files(CARELESS, tmp_path)


def test_an_edit_that_leaves_no_python_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(CAREFUL)
    broken = Mutant("M-98", "H-98", "a hole", (Edit("shop.py", "= 1", "= ("),), ("I",))

    with pytest.raises(DoesNotApply, match="never closed"):
        mutated_files(broken, tmp_path)


@pytest.mark.parametrize(
    ("status", "named", "state"),
    [
        (1, ("I-02",), "caught"),
        (0, (), "survived"),
        (1, (), "error"),
        (2, ("I-02",), "error"),
        (0, ("I-02",), "error"),
        (-9, ("I-02",), "error"),
        (None, ("I-02",), "error"),
    ],
)
def test_only_a_named_broken_expectation_is_a_catch(
    status: int | None, named: tuple[str, ...], state: str
) -> None:
    assert judge(CARELESS, status, named, 1.0).state == state


def test_what_a_record_names_as_broken(tmp_path: Path) -> None:
    record = tmp_path / "run.jsonl"
    record.write_text(
        '{"run": {"seed": 1}}\n'
        '{"broken": {"id": "I-02", "what": "stock"}}\n'
        '{"broken": {"id": "I-02", "what": "stock"}}\n'
        '{"check": {"id": "rest", "holds": false}}\n'
        '{"check": {"id": "replays", "holds": true}}\n'
        "[1]\n"
        '{"broken": {"id": "Q-'
    )

    assert broken_in(record) == ("I-02", "rest")
    assert broken_in(tmp_path / "missing.jsonl") == ()


# ---------------------------------------------------------------- the runner, with a stub


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "shop.py").write_text(CAREFUL)
    (root / "untracked.py").write_text("")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "shop.py"], cwd=root, check=True)
    return root


def _settings(root: Path, stub: str, *, limit_seconds: float = 30.0) -> Settings:
    script = root.parent / "stub.py"
    head = "import json, os, pathlib, subprocess, sys, time\n"
    script.write_text(head + textwrap.dedent(stub))
    return Settings(root, 7, 12, limit_seconds, (sys.executable, str(script)))


def test_the_harness_runs_on_the_mutated_copy_and_names_what_broke(checkout: Path) -> None:
    settings = _settings(
        checkout,
        """
        import shop
        options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
        assert (options["--seed"], options["--orders"]) == ("7", "12")
        assert os.environ["TMPDIR"] and not pathlib.Path("untracked.py").exists()
        out = pathlib.Path(options["--out"])
        out.mkdir()
        broken = {"broken": {"id": f"limit {shop.limit}", "what": "too many"}}
        (out / "run.jsonl").write_text(json.dumps(broken))
        sys.exit(1)
        """,
    )

    verdict = run(CARELESS, settings)

    assert (verdict.state, verdict.by) == ("caught", ("limit 9",))
    assert (checkout / "shop.py").read_text() == CAREFUL


def test_a_harness_that_finds_nothing_lets_the_mutant_survive(checkout: Path) -> None:
    assert run(CARELESS, _settings(checkout, "sys.exit(0)")).state == "survived"


def test_a_harness_that_falls_over_catches_nothing(checkout: Path) -> None:
    verdict = run(CARELESS, _settings(checkout, "sys.exit('the shop does not start')"))

    assert verdict.state == "error"
    assert verdict.detail == "status 1: the shop does not start"


def test_a_run_without_an_end_is_killed_with_all_it_started(checkout: Path) -> None:
    pid_file = checkout.parent / "pid"
    settings = _settings(
        checkout,
        f"""
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
        time.sleep(60)  # slow: a harness that hangs
        """,
        limit_seconds=2.0,
    )

    verdict = run(CARELESS, settings)

    assert (verdict.state, verdict.detail) == ("error", "no end in time: ")
    child = Path(f"/proc/{pid_file.read_text()}/cmdline")
    assert not child.exists() or b"sleep" not in child.read_bytes()


# ---------------------------------------------------------------- the command


def test_the_table_says_who_was_found_by_what(tmp_path: Path) -> None:
    caught = Verdict(CARELESS, "caught", ("I-02", "rest"), 61.4)
    survived = Verdict(CARELESS, "survived", (), 300.0)

    write_results([caught, survived], tmp_path / "mutants.md", seed=3)
    write_results([caught, survived], tmp_path / "mutants.json", seed=3)

    assert sum_of([caught, survived]) == "1 caught, 1 survived, 0 errors"
    assert line_of(caught) == "M-99 caught     61 s  no limit  [I-02, rest]"
    table = (tmp_path / "mutants.md").read_text()
    assert "| M-99 | H-99 | no limit | caught | I-02, rest | 61 |" in table
    assert json.loads((tmp_path / "mutants.json").read_text())["mutants"][1]["found_by"] == []


def test_the_command_lists_and_checks_without_running(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--only", "M-03,M-07"]) == 0
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["M-03", "M-07"]
    assert command.main(["--check"]) == 0
    assert capsys.readouterr().out == f"{len(MUTANTS)} mutants apply\n"
    with pytest.raises(SystemExit, match="there is no mutant M-00"):
        command.main(["--only", "M-00"])


@pytest.mark.parametrize(("state", "status"), [("caught", 0), ("survived", 1), ("error", 1)])
def test_the_command_is_content_only_when_every_mutant_is_caught(
    state: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def judged(mutant: Mutant, _: Settings) -> Verdict:
        return Verdict(mutant, state, ("I-02",), 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr(command, "run", judged)

    assert command.main(["--only", "M-01"]) == status
    assert capsys.readouterr().out.startswith(f"M-01 {state}")
