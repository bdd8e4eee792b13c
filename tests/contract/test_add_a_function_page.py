"""docs/how-to/add-a-function.md, followed literally in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import web

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/how-to/add-a-function.md"
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
WRITE = re.compile(r"Write `([^`]+)`:$")
APPEND = re.compile(r"Append to `([^`]+)`:$")
INSERT = re.compile(r"In `([^`]+)`, after `([^`]+)`:$")
REPLACE = re.compile(r"In `([^`]+)`, replace `([^`]+)` with `([^`]+)`\.")
# Those that check the whole tree are replaced by checks of what the page writes; the last one runs
# until Ctrl-C.
REPLACED = {"make check test", "make dev"}
OWN_FILES = (
    "events/reviews.py",
    "functions/list_reviews",
    "functions/publish_reviews",
    "shop/reviews.py",
    "tests/functions/test_list_reviews.py",
    "tests/functions/test_publish_reviews.py",
)
CONTRACTS = (
    "tests/contract/test_event_compatibility.py",
    "tests/contract/test_events_have_consumers.py",
    "tests/contract/test_grants.py",
    "tests/contract/test_retention.py",
    "tests/security/test_authorisation_matrix.py::test_table_has_one_row_for_every_route",
)


class Reader:
    """Does what the page says in ``tree``, in its order."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.commands: list[str] = []

    def follow(self, page: str) -> None:
        end = 0
        for fence in FENCE.finditer(page):
            text = " ".join(page[end : fence.start()].split())
            end = fence.end()
            for path, old, new in REPLACE.findall(text):
                self._replace(path, old, new)
            if fence[1] == "console":
                self._run(fence[2])
            else:
                self._edit(text, fence[2])

    def _edit(self, text: str, block: str) -> None:
        if found := WRITE.search(text):
            (self.tree / found[1]).write_text(block, "utf-8")
        elif found := APPEND.search(text):
            path = self._file(found[1])
            path.write_text(path.read_text("utf-8").rstrip("\n") + "\n" + block, "utf-8")
        elif found := INSERT.search(text):
            path = self._file(found[1])
            before, anchor, after = path.read_text("utf-8").partition(found[2])
            assert anchor, f"{found[1]} has no {found[2]}"
            rest, _, below = after.partition("\n")
            path.write_text(f"{before}{anchor}{rest}\n{block}{below}", "utf-8")
        else:
            raise AssertionError(f"what to do with the block is not said: …{text[-80:]}")

    def _replace(self, path: str, old: str, new: str) -> None:
        text = self._file(path).read_text("utf-8")
        assert old in text, f"{path} has no {old}"
        self._file(path).write_text(text.replace(old, new), "utf-8")

    def _file(self, pattern: str) -> Path:
        (found,) = self.tree.glob(pattern)
        return found

    def _run(self, block: str) -> None:
        for line in block.splitlines():
            command = line.split("  #")[0].strip()
            self.commands.append(command)
            if command not in REPLACED:
                run(self.tree, command)


def run(tree: Path, command: str) -> None:
    """Runs a command line in the copy."""
    make = 'make() { command make -o setup "$@"; }; '
    # tests of the copy migrate another schema: they have servers of their own
    environment = {**os.environ, "PYTHONPATH": str(tree), "TEST_SERVERS": "embedded"}
    for inherited in ("PYTEST_XDIST_WORKER", "TEST_DATABASE_URL", "TEST_REDIS_URL"):
        environment.pop(inherited, None)
    result = subprocess.run(
        ["bash", "-c", make + command],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A copy of what git tracks in the working tree, with the environment of this test."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    copy = tmp_path / "shop"
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(sys.prefix)
    web.build()  # which the page's reader has done with make dev
    shutil.copytree(web.PAGES, copy / web.PAGES.relative_to(ROOT))
    yield copy
    shutil.rmtree(copy)


@pytest.mark.timeout(900)
def test_page_followed_literally_adds_a_table_a_post_an_event_and_a_tick(tree: Path) -> None:
    reader = Reader(tree)

    reader.follow(PAGE.read_text("utf-8"))

    assert set(reader.commands) > REPLACED
    own = " ".join(OWN_FILES)
    run(tree, f".venv/bin/ruff check --no-cache {own} shop/schema tests")
    run(tree, f".venv/bin/ruff format --no-cache --check {own} shop/schema tests")
    run(tree, ".venv/bin/lint-imports --no-cache")
    run(tree, f".venv/bin/basedpyright {own}")
    run(tree, "make render-check")
    run(tree, f".venv/bin/python -m pytest -q -p no:cacheprovider {' '.join(CONTRACTS)}")
