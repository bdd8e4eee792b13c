"""make new: a function created from the template satisfies the rules of all functions."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.new_function import (
    MATRIX,
    ROUND_TRIPS,
    FunctionNotCreated,
    make_function,
    path_of,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the packages that a function needs, in which to create one."""
    for package in ("events", "functions", "shop"):
        shutil.copytree(ROOT / package, tmp_path / package)
    for file in (Path("pyproject.toml"), MATRIX, ROUND_TRIPS):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return tmp_path


def test_registry_finds_the_new_function(tree: Path) -> None:
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
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False
    )

    assert result.stderr == ""
    assert result.stdout == "GET /unicorns True ['answered_at']\n"


def test_new_function_passes_ruff(tree: Path) -> None:
    written = [str(p) for p in make_function("count_unicorns", tree) if p.suffix == ".py"]

    for command in (["check", "--no-cache"], ["format", "--no-cache", "--check"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *written],
            cwd=tree,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout


def test_example_is_a_valid_response(tree: Path) -> None:
    make_function("count_unicorns", tree)

    program = """
import json, pathlib
from functions.count_unicorns.schema import CountUnicornsResponse
example = json.loads(pathlib.Path("functions/count_unicorns/example.json").read_text())
response = json.dumps(example["count_unicorns"]["response"])
print(CountUnicornsResponse.model_validate_json(response).answered_at)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False
    )

    assert result.stderr == ""
    assert result.stdout == "2026-02-01 09:00:00+00:00\n"


@pytest.mark.parametrize(
    "name", ["", "Reviews", "list-reviews", "1_review", "../etc", "a" * 41, "class", "list__x"]
)
def test_invalid_name_is_rejected_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    with pytest.raises(FunctionNotCreated, match="not a valid function name"):
        make_function(name, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_existing_function_is_not_overwritten(tree: Path) -> None:
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
def test_route_is_the_noun_of_the_name(name: str, path: str) -> None:
    assert path_of(name) == path
