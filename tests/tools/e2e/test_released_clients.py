"""The client of a released version, with the expectations it had, against today's shop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.tools.e2e.running_shop import RunningShop, running_shop
from tools import releases
from tools.releases import ReleaseMissing, extract

GROUPS = (
    ("order",),
    ("cancel-race", "settlement", "flow", "cart", "webhook"),
    ("auth", "failure", "not-found", "search", "idempotency"),
)
CART = "the cart is the array of its lines, as in the replaced system (ADR 24)"
GRACE = "a refresh token that is repeated within ten seconds gets the same pair (CHANGELOG)"
# Expectations that were given up on purpose, by the name of the check; every other one is kept.
GIVEN_UP: Mapping[str, str] = {
    "auth: a refresh token used twice is refused with 401": GRACE,
    "auth: and its whole family is dead": GRACE,
    "auth: and the family's access token is refused": GRACE,
    "cart: fill and change comes to its end": CART,
    "cart: take out again comes to its end": CART,
    "cart: order the cart comes to its end": CART,
    "cart: keep the cart when refused comes to its end": CART,
    "cart: belong to one comes to its end": CART,
    "failure: leave no trace comes to its end": CART,
    "idempotency: keep keys apart comes to its end": CART,
    "not-found: GET /actuator/health: 404": "the local edge has health and metrics (ADR 24)",
    "search: products?surprise=1: 400": "unknown parameters are ignored (CHANGELOG)",
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    data = tmp_path_factory.mktemp("shop")
    with running_shop(data, environment={"RATE_LIMIT_PER_MINUTE": "600"}) as running:
        yield running


def _run(release: Path, shop: RunningShop, groups: tuple[str, ...]) -> str:
    """The output of the release's ``shop e2e``."""
    secret = shop.data / "secrets" / "webhook-secret"
    options = ["--url", shop.url, "--webhook-secret-file", str(secret)]
    options += [word for group in groups for word in ("--group", group)]
    run = subprocess.run(
        [sys.executable, "-m", "scripts.cli", "e2e", *options],
        cwd=release,
        env={**os.environ, "PYTHONPATH": str(release)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return run.stdout


def test_clients_of_version_0_1_0_still_work(shop: RunningShop, tmp_path: Path) -> None:
    release = extract("0.1.0", tmp_path / "release")

    with ThreadPoolExecutor(len(GROUPS)) as threads:
        outputs = list(threads.map(partial(_run, release, shop), GROUPS))

    lines = [line for output in outputs for line in output.splitlines()]
    failed = {line.removeprefix("FAILED  ") for line in lines if line.startswith("FAILED  ")}
    assert failed == GIVEN_UP.keys(), "\n".join(outputs)
    assert sum(line.startswith("ok  ") for line in lines) > 400


def test_clone_without_the_release_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(releases.COMMITS, "0.1.0", "0" * 40)

    with pytest.raises(ReleaseMissing, match=r"version 0.1.0 is not in the history .* --unshallow"):
        extract("0.1.0", tmp_path)
