"""make new and make migration: what they create satisfies the rules of what is there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.new_function import (
    MATRIX,
    ROUND_TRIPS,
    FunctionNotCreated,
    Kind,
    make_function,
    path_of,
)
from tools.new_migration import MIGRATIONS, MigrationNotCreated, make_migration

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
    assert result.stdout == "GET /unicorns True ['categories']\n"


def test_new_function_passes_ruff(tree: Path) -> None:
    added = [p for p in make_function("count_unicorns", tree) if p != tree / MATRIX]
    written = [str(path) for path in added if path.suffix == ".py"]

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
print(CountUnicornsResponse.model_validate_json(response).categories)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False
    )

    assert result.stderr == ""
    assert result.stdout == "3\n"


def test_function_of_kind_tick_has_a_schedule_and_no_route(tree: Path) -> None:
    written = make_function("count_unicorns", tree, Kind.TICK)

    program = """
from shop.registry import spec_of
from functions.count_unicorns import handler
spec = spec_of("count_unicorns")
schedule, = spec.schedules
print(spec.routes, schedule.name, callable(getattr(handler, schedule.handler)))
"""
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, capture_output=True, text=True, check=False
    )
    assert (result.stderr, result.stdout) == ("", "() count-unicorns True\n")
    assert tree / MATRIX not in written
    assert json.loads((tree / ROUND_TRIPS).read_text())["count_unicorns: count-unicorns"] == 3


def test_new_route_has_its_row_in_the_matrix_and_the_round_trips(tree: Path) -> None:
    make_function("count_unicorns", tree)
    make_function("count_griffins", tree)

    rows = (tree / MATRIX).read_text().split("MATRIX: ")[1].split("\n}\n")[0].splitlines()
    assert rows[-2:] == [
        '    ("GET", "/unicorns"): open_to_all(200),',
        '    ("GET", "/griffins"): open_to_all(200),',
    ]
    counts = json.loads((tree / ROUND_TRIPS).read_text())
    assert counts["GET /unicorns"] == counts["GET /griffins"] == 3


# ---------------------------------------------------------------- make migration


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A copy of the migrations."""
    shutil.copytree(MIGRATIONS, tmp_path / "migrations")
    return tmp_path / "migrations"


def test_new_migration_follows_the_newest_and_is_formatted(migrations: Path) -> None:
    newest = max(path.name[:4] for path in (migrations / "versions").glob("*.py"))

    first = make_migration("product_reviews", migrations)
    second = make_migration("ratings", migrations)

    assert first.name == f"{int(newest) + 1:04}_product_reviews.py"
    assert second.name == f"{int(newest) + 2:04}_ratings.py"
    text = first.read_text()
    assert f'down_revision = "{newest}"' in text and "lock_timeout" in text
    ruff = [sys.executable, "-m", "ruff", "format", "--no-cache", "--check", str(first)]
    assert subprocess.run(ruff, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", ["", "Reviews", "a-b", "../etc", "a" * 41])
def test_invalid_topic_of_a_migration_is_rejected(name: str, migrations: Path) -> None:
    before = sorted(migrations.rglob("*.py"))

    with pytest.raises(MigrationNotCreated, match="not a valid topic"):
        make_migration(name, migrations)

    assert sorted(migrations.rglob("*.py")) == before


def test_migration_after_two_that_follow_the_same_one_is_rejected(migrations: Path) -> None:
    first = make_migration("one", migrations)
    other = first.read_text().replace(first.name[:4], "0999")
    (migrations / "versions" / "0999_two.py").write_text(other)

    with pytest.raises(MigrationNotCreated, match="follow the same one"):
        make_migration("three", migrations)


# ---------------------------------------------------------------- names


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
