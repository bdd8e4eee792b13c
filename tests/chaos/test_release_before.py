"""The release before: which processes run it, and that its code is not today's.

``make upgrade-test`` of ``.ci/run`` is the run in its smallest size.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.release_before import ReleaseBefore
from tools.releases import COMMITS, extract


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> ReleaseBefore:
    """The newest released version."""
    folder = tmp_path_factory.mktemp("release") / "code"
    return ReleaseBefore(extract(max(COMMITS), folder))


@pytest.mark.parametrize(("share", "chosen"), [(1.0, 8), (0.5, 4), (0.25, 2), (0.0, 0)])
def test_share_of_the_processes_of_each_function_runs_the_release(
    release: ReleaseBefore, share: float, chosen: int
) -> None:
    before = ReleaseBefore(release.folder, share)

    found = ["PYTHONPATH" in before.choose(name) for name in ("charge", "cart") for _ in range(8)]

    assert sum(found) == before.started.total() == 2 * chosen
    assert before.chosen == {"charge": 8, "cart": 8}


@pytest.mark.parametrize(("share", "seconds"), [(0.5, "0"), (0.0, None)])
def test_todays_code_offers_no_action_while_the_release_runs_beside_it(
    release: ReleaseBefore, share: float, seconds: str | None
) -> None:
    before = ReleaseBefore(release.folder, share)

    todays = before.choose("charge")

    assert todays.get("PAYMENT_ACTION_SECONDS") == seconds
    assert "PYTHONPATH" not in todays


def test_function_that_the_release_does_not_have_runs_todays_code(tmp_path: Path) -> None:
    assert ReleaseBefore(tmp_path).choose("charge") == {}


def test_processes_of_the_release_import_its_code(release: ReleaseBefore) -> None:
    environment = {**os.environ, **release.choose("charge")}
    show = "import shop, functions; print(shop.__file__, functions.__file__)"

    shown = subprocess.run(
        [sys.executable, "-c", show], env=environment, capture_output=True, text=True, check=True
    )

    assert shown.stdout.count(str(release.folder)) == 2
