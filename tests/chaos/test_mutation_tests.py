"""The catalogue of mutants is complete and applies; only reported violations count as detection.

A stub replaces the fault run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Literal

import pytest

from chaos.mutation_tests import __main__ as command
from chaos.mutation_tests.catalogue import MUTANTS, NOT_APPLICABLE
from chaos.mutation_tests.mutant import DoesNotApply, Edit, Mutant, mutated_files
from chaos.mutation_tests.report import line_of, totals_of, write_results
from chaos.mutation_tests.run import Settings, Verdict, run, verdict_of, violations_in

ROOT = Path(__file__).parents[2]
DEFECTS = ["H-01b", *(f"H-{n:02}" for n in range(1, 22)), *(f"S-{n:02}" for n in range(1, 16))]
CORRECT = "limit = 1\n"
MUTANT = Mutant("M-99", "H-99", "no limit", (Edit("shop.py", "limit = 1", "limit = 9"),), ("I",))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.id)
def test_every_mutant_applies_and_leaves_valid_python(mutant: Mutant) -> None:
    texts = mutated_files(mutant, ROOT)

    assert texts
    for file, text in texts.items():
        assert text != (ROOT / file).read_text(), file


def test_ids_are_consecutive_and_every_mutant_names_checks() -> None:
    assert [mutant.id for mutant in MUTANTS] == [f"M-{n:02}" for n in range(1, len(MUTANTS) + 1)]
    assert len(MUTANTS) >= 30
    assert all(mutant.caught_by for mutant in MUTANTS)


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_defect_has_a_mutant_or_a_reason_for_none(defect: str) -> None:
    has_mutant = any(mutant.defect == defect for mutant in MUTANTS)

    assert has_mutant != (defect in NOT_APPLICABLE)


def test_reasons_name_existing_mutants_and_tests() -> None:
    ids = {mutant.id for mutant in MUTANTS}
    for reason in NOT_APPLICABLE.values():
        assert set(re.findall(r"M-\d\d", reason)) <= ids, reason
        for path in re.findall(r"tests/\S+?\.py", reason):
            assert (ROOT / path).is_file(), path


def test_edit_whose_text_is_not_found_once_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("limit = 1\nlimit = 1\n")

    with pytest.raises(DoesNotApply, match="found 2 times"):
        mutated_files(MUTANT, tmp_path)
    (tmp_path / "shop.py").write_text("limit = 2\n")
    with pytest.raises(DoesNotApply, match="found 0 times"):
        mutated_files(MUTANT, tmp_path)
    (tmp_path / "shop.py").unlink()
    with pytest.raises(DoesNotApply, match=r"shop\.py"):
        mutated_files(MUTANT, tmp_path)


def test_edit_that_leaves_invalid_python_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(CORRECT)
    broken = Mutant("M-98", "H-98", "a defect", (Edit("shop.py", "= 1", "= ("),), ("I",))

    with pytest.raises(DoesNotApply, match="never closed"):
        mutated_files(broken, tmp_path)


@pytest.mark.parametrize(
    ("status", "violations", "state"),
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
def test_only_a_reported_violation_counts_as_caught(
    status: int | None, violations: tuple[str, ...], state: str
) -> None:
    assert verdict_of(MUTANT, status, violations, 1.0).state == state


def test_violations_and_failed_checks_are_read_from_a_record(tmp_path: Path) -> None:
    record = tmp_path / "run.jsonl"
    record.write_text(
        '{"run": {"seed": 1}}\n'
        '{"violation": {"id": "I-02", "title": "stock"}}\n'
        '{"violation": {"id": "I-02", "title": "stock"}}\n'
        '{"check": {"id": "quiescence", "has_passed": false}}\n'
        '{"check": {"id": "replays", "has_passed": true}}\n'
        "[1]\n"
        '{"violation": {"id": "Q-'
    )

    assert violations_in(record) == ("I-02", "quiescence")
    assert violations_in(tmp_path / "missing.jsonl") == ()


# ---------------------------------------------------------------- runs, with a stub


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "shop.py").write_text(CORRECT)
    (root / "untracked.py").write_text("")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "shop.py"], cwd=root, check=True)
    return root


def _settings(root: Path, stub: str, *, limit_seconds: float = 30.0) -> Settings:
    script = root.parent / "stub.py"
    head = "import json, os, pathlib, subprocess, sys, time\n"
    script.write_text(head + textwrap.dedent(stub))
    return Settings(root, 7, 12, limit_seconds, (sys.executable, str(script)))


def test_run_uses_the_mutated_copy_and_reports_violations(checkout: Path) -> None:
    settings = _settings(
        checkout,
        """
        import shop
        options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
        assert (options["--seed"], options["--orders"]) == ("7", "12")
        assert os.environ["TMPDIR"] and not pathlib.Path("untracked.py").exists()
        out = pathlib.Path(options["--out"])
        out.mkdir()
        line = {"violation": {"id": f"limit {shop.limit}", "title": "too many"}}
        (out / "run.jsonl").write_text(json.dumps(line))
        sys.exit(1)
        """,
    )

    verdict = run(MUTANT, settings)

    assert (verdict.state, verdict.by) == ("caught", ("limit 9",))
    assert (checkout / "shop.py").read_text() == CORRECT


def test_mutant_survives_a_run_without_violations(checkout: Path) -> None:
    assert run(MUTANT, _settings(checkout, "sys.exit(0)")).state == "survived"


def test_failed_run_is_an_error(checkout: Path) -> None:
    verdict = run(MUTANT, _settings(checkout, "sys.exit('the shop does not start')"))

    assert verdict.state == "error"
    assert verdict.detail == "status 1: the shop does not start"


def test_run_beyond_the_time_limit_is_killed_with_its_children(checkout: Path) -> None:
    pid_file = checkout.parent / "pid"
    settings = _settings(
        checkout,
        f"""
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
        time.sleep(60)  # slow: exceeds the time limit
        """,
        limit_seconds=2.0,
    )

    verdict = run(MUTANT, settings)

    assert (verdict.state, verdict.detail) == ("error", "time limit exceeded: ")
    child = Path(f"/proc/{pid_file.read_text()}/cmdline")
    assert not child.exists() or b"sleep" not in child.read_bytes()


# ---------------------------------------------------------------- the command


def test_table_shows_the_violations_of_each_mutant(tmp_path: Path) -> None:
    caught = Verdict(MUTANT, "caught", ("I-02", "quiescence"), 61.4)
    survived = Verdict(MUTANT, "survived", (), 300.0)

    write_results([caught, survived], tmp_path / "mutants.md", seed=3)
    write_results([caught, survived], tmp_path / "mutants.json", seed=3)

    assert totals_of([caught, survived]) == "1 caught, 1 survived, 0 errors"
    assert line_of(caught) == "M-99 caught     61 s  no limit  [I-02, quiescence]"
    table = (tmp_path / "mutants.md").read_text()
    assert "| M-99 | H-99 | no limit | caught | I-02, quiescence | 61 |" in table
    assert json.loads((tmp_path / "mutants.json").read_text())["mutants"][1]["detected_by"] == []


def test_list_and_check_options_execute_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--only", "M-03,M-07"]) == 0
    assert [line[:4] for line in capsys.readouterr().out.splitlines()] == ["M-03", "M-07"]
    assert command.main(["--check"]) == 0
    assert capsys.readouterr().out == f"{len(MUTANTS)} mutants apply\n"
    with pytest.raises(SystemExit, match="unknown mutant: M-00"):
        command.main(["--only", "M-00"])


@pytest.mark.parametrize(("state", "status"), [("caught", 0), ("survived", 1), ("error", 1)])
def test_exit_status_is_0_only_if_every_mutant_is_caught(
    state: Literal["caught", "survived", "error"],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run_stub(mutant: Mutant, _: Settings) -> Verdict:
        return Verdict(mutant, state, ("I-02",), 1.0)

    monkeypatch.setattr(command, "run", run_stub)

    assert command.main(["--only", "M-01"]) == status
    assert capsys.readouterr().out.startswith(f"M-01 {state}")
