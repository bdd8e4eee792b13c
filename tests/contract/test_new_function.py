"""`make new`: what the template makes keeps the rules that every function keeps."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.new_function import FunctionNotCreated, make_function, path_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a function stands on, to make one in."""
    for room in ("events", "functions", "shop"):
        shutil.copytree(ROOT / room, tmp_path / room)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_new_function_is_found_by_the_registry(tree: Path) -> None:
    make_function("count_unicorns", tree)

    program = """
from shop.registry import spec_of, all_specs
spec = spec_of("count_unicorns")
assert spec in all_specs()
from functions.count_unicorns import handler, schema
route, = spec.routes
print(route.method, route.path, callable(getattr(handler, route.handler)),
    sorted(getattr(schema, route.response).model_fields))
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False
    )

    assert ran.stderr == ""
    assert ran.stdout == "GET /unicorns True ['answered_at']\n"


def test_the_new_function_passes_the_linters(tree: Path) -> None:
    written = [str(p) for p in make_function("count_unicorns", tree) if p.suffix == ".py"]

    for command in (["check", "--no-cache"], ["format", "--no-cache", "--check"]):
        ran = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *written],
            cwd=tree,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout


def test_the_example_is_a_valid_answer(tree: Path) -> None:
    make_function("count_unicorns", tree)

    program = """
import json, pathlib
from functions.count_unicorns.schema import CountUnicornsAnswer
example = json.loads(pathlib.Path("functions/count_unicorns/example.json").read_text())
answer = json.dumps(example["count_unicorns"]["answer"])
print(CountUnicornsAnswer.model_validate_json(answer).answered_at)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False
    )

    assert ran.stderr == ""
    assert ran.stdout == "2026-02-01 09:00:00+00:00\n"


@pytest.mark.parametrize(
    "name", ["", "Reviews", "list-reviews", "1_review", "../etc", "a" * 41, "class", "list__x"]
)
def test_a_bad_name_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(FunctionNotCreated, match="not a valid function name"):
        make_function(name, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_an_existing_function_is_left_alone(tree: Path) -> None:
    make_function("count_unicorns", tree)
    handler = tree / "functions/count_unicorns/handler.py"
    handler.write_text("# mine\n")

    with pytest.raises(FunctionNotCreated, match="exists already"):
        make_function("count_unicorns", tree)

    assert handler.read_text() == "# mine\n"


@pytest.mark.parametrize(
    ("name", "path"),
    [("list_reviews", "/reviews"), ("export_tax_report", "/tax-report"), ("ping", "/ping")],
)
def test_the_route_is_the_noun(name: str, path: str) -> None:
    assert path_of(name) == path
