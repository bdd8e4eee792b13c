"""Every make target runs: benchmarks with their smallest size, slow targets with ``--help``.

``setup``, ``check``, ``render-check``, ``faults``, ``upgrade-test``, ``deploy-check``,
``cluster-check``, ``web-check`` and ``test`` run in full in ``.ci/run``.  ``node-check`` runs
Kubernetes as root, ``image`` needs Docker, ``locks`` a package index, and ``new``, ``migration``,
``format`` and ``clean`` change the tree: for these, the commands are printed and checked.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z0-9-]+):(?=.*##)", MAKEFILE, re.MULTILINE))

# Target, arguments, and a text of its output.
RUNS: dict[str, tuple[str, str]] = {
    "bench-catalog": ("--rounds 1 --seconds 0.1 --clients 1", "list of 20, not modified"),
    "bench-cold": ("--rounds 1 --function login", "CPU of login / hello"),
    "bench-growth": ("--orders 100 --products 100 --searches 2", "search, two syllables"),
    "bench-idle": ("--minutes 0.05 --check", "reached: function processes started 0.00"),
    "bench-orders": ("--rounds 1 --seconds 1 --clients 1 --users 20", "round trips to PostgreSQL"),
    "bench-paid-orders": ("--orders 20 --clients 2", "write-ahead log bytes"),
    "bench-relay": ("--rounds 1 --events 200", "sweeper CPU ms"),
    "bench-resources": ("--requests 2 --function api_docs", "peak RSS MiB"),
    "bench-servers": (
        "--rounds 1 --load-rounds 1 --seconds 0.1 --clients 1 --no-idle",
        "shop.runtime: run_as_first_process",
    ),
    "bench-webhooks": ("--events 60", "seconds to deliver"),
    "dev": ("--help", "Usage: shop dev"),
    "e2e": ("--help", "Usage: shop e2e"),
    "faults": ("--help", "Usage: shop faults"),
    "help": ("", "make bench-orders"),
    "render": ("", "0 changed"),
    "render-check": ("", "0 drifted"),
    "web": ("", "functions/web/pages"),
}
IN_CI = {
    "check",
    "cluster-check",
    "deploy-check",
    "faults",
    "render-check",
    "setup",
    "test",
    "upgrade-test",
    "web-check",
}
PRINTED_ONLY = {"clean", "format", "image", "locks", "migration", "new", "node-check"}


def make(*arguments: str) -> str:
    """Runs make with the interpreter of this test; returns its output, fails on an error."""
    command = ["make", "--no-print-directory", "-o", "setup", f"VENV={sys.prefix}", *arguments]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def commands_of(target: str, *arguments: str) -> list[list[str]]:
    """The commands that a target would run, as words."""
    text = make("--dry-run", target, *arguments).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines()]


def test_each_target_is_run_in_ci_or_checked_here() -> None:
    assert RUNS.keys() | IN_CI | PRINTED_ONLY == TARGETS


def test_each_target_of_ci_is_in_the_ci_script() -> None:
    script = (ROOT / ".ci/run").read_text("utf-8")

    assert {name for name in IN_CI if f"make {name}" not in script} == set()


@pytest.mark.parametrize("target", RUNS)
def test_target_runs(target: str) -> None:
    arguments, expected = RUNS[target]

    output = make(target, f"ARGS={arguments}", "COLUMNS=120")

    assert expected in output


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_modules_and_programs_of_a_target_exist(target: str) -> None:
    for words in commands_of(target, "name=list_reviews"):
        if "-m" in words:
            module = words[words.index("-m") + 1]
            assert find_spec(module) is not None, module
        if words[0].startswith(sys.prefix):
            assert Path(words[0]).is_file(), words[0]


def test_image_builds_targets_of_the_dockerfile() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    targets = [words[words.index("--target") + 1] for words in commands_of("image")]

    assert targets == ["functions", "tools"]
    assert all(f" AS {target}\n" in dockerfile for target in targets)


def test_locks_compiles_every_lock_with_existing_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    compiled, extras = set[str](), set[str]()
    for words in commands_of("locks"):
        compiled.add(words[words.index("-o") + 1])
        extras |= {value for flag, value in pairwise(words) if flag == "--extra"}

    assert compiled == {f"requirements/{path.name}" for path in ROOT.glob("requirements/*.txt")}
    assert extras == project["optional-dependencies"].keys()


def test_clean_removes_nothing_that_git_tracks() -> None:
    (words,) = commands_of("clean", "VENV=.venv")
    paths = [word for word in words[2:] if "*" not in word]

    result = subprocess.run(
        ["git", "ls-files", "--", *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert words[:2] == ["rm", "-rf"]
    assert result.stdout == ""
