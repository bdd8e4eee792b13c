"""The load as a process of its own, against a whole shop at the desk."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tools.local_platform.servers import free_port

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 60.0
ORDERS = 40
KNOBS = {"RATE_LIMIT_PER_MINUTE": "0", "OPEN_ORDERS_MAX": "100000"}


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A Python module as a process with pipes, ended with the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **KNOBS, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    """The address of a running shop."""
    port = str(free_port())
    with started("tools.cli", "dev", "--port", port, "--data", str(tmp_path / "desk")) as desk:
        assert desk.stdout is not None
        for line in desk.stdout:
            if line.startswith("ready "):
                yield line.removeprefix("ready ").strip()
                return
        raise AssertionError("the shop did not start")


class Load:
    """A started load: ``do`` sends a command and waits for its answer."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self.samples: list[dict[str, Any]] = []

    def read(self) -> dict[str, Any]:
        """The next line that is no sample."""
        for line in self._out:
            told: dict[str, Any] = json.loads(line)
            if "sample" not in told:
                return told
            self.samples.append(told["sample"])
        raise AssertionError(f"the load ended: {self._process.wait()}")

    def do(self, name: str, **more: Any) -> dict[str, Any]:
        self._in.write(json.dumps({"id": name, "do": name, **more}) + "\n")
        self._in.flush()
        told = self.read()
        assert told["id"] == name
        return told


@pytest.mark.timeout(240)
def test_a_short_load_places_its_orders_and_replays_them(shop: str, tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    arguments = ("--seed", "1", "--orders", str(ORDERS), "--seconds", "6", "--accounts", "8")
    with started("chaos.workload", "--url", shop, "--log", str(log), *arguments) as process:
        load = Load(process)
        assert load.read()["ready"] is True

        told = load.do("load", seconds=15)
        race = load.do("race", kind="last_unit", times=2)
        tail = load.do("tail", count=1)
        replay = load.do("replay", fraction=1.0)
        totals = load.do("stop")["totals"]

    assert ORDERS <= told["accepted"] <= ORDERS + 64
    assert (race["races"], race["wrong"]) == (2, [])
    assert (tail["failed"], tail["asked"]) == ([], 29)
    assert replay["replayed"] > ORDERS
    assert (replay["different"], replay["unanswered"]) == ([], 0)
    assert totals["surprises"] == {}
    assert load.samples[-1]["orders_total"] >= ORDERS
    with closing(sqlite3.connect(log)) as database:
        placed = database.execute("select count(distinct order_id) from placed").fetchone()[0]
        acknowledged = database.execute(
            "select count(distinct order_id) from ops where status_code = 201"
            " and scope in ('POST /orders', 'POST /orders/from-cart')"
        ).fetchone()[0]
    assert placed == acknowledged == totals["orders"]
