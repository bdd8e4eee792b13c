"""The workload process against a whole shop on the local platform."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from chaos.controlled_process import JsonObject
from chaos.workload.liveness_operations import NOT_SENT
from chaos.workload.operations import known_operations
from tools.local_platform.servers import free_port

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 60.0
ORDERS = 40
SETTINGS = {"RATE_LIMIT_PER_MINUTE": "0", "OPEN_ORDERS_MAX": "100000"}
OPERATIONS = len(known_operations().keys() - NOT_SENT.keys())


@contextmanager
def started(*command: str) -> Generator[subprocess.Popen[str], None, None]:
    """A Python module as a process with pipes, interrupted at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **SETTINGS, "PYTHONPATH": str(ROOT)},
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
    data = str(tmp_path / "platform")
    with started("tools.cli", "dev", "--port", port, "--data", data) as platform:
        assert platform.stdout is not None
        for line in platform.stdout:
            if line.startswith("ready "):
                yield line.removeprefix("ready ").strip()
                return
        raise AssertionError("the shop did not start")


class Workload:
    """A started workload; ``call`` sends a command and waits for its result."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._in, self._out = process, process.stdin, process.stdout
        self.samples: list[JsonObject] = []

    def read(self) -> JsonObject:
        """The next line that is no sample."""
        for text in self._out:
            line: JsonObject = json.loads(text)
            if "sample" not in line:
                return line
            self.samples.append(line["sample"])
        raise AssertionError(f"the workload exited with {self._process.wait()}")

    def call(self, name: str, **parameters: object) -> JsonObject:
        self._in.write(json.dumps({"id": name, "do": name, **parameters}) + "\n")
        self._in.flush()
        result = self.read()
        assert result["id"] == name
        return result


@pytest.mark.timeout(240)
def test_short_load_places_its_orders_and_replays_them(shop: str, tmp_path: Path) -> None:
    log = tmp_path / "log.sqlite"
    arguments = ("--seed", "1", "--orders", str(ORDERS), "--seconds", "6", "--accounts", "8")
    with started("chaos.workload", "--url", shop, "--log", str(log), *arguments) as process:
        workload = Workload(process)
        assert workload.read()["ready"] is True

        load = workload.call("load", seconds=15)
        race = workload.call("race", race="last_unit", times=2)
        liveness = workload.call("check_liveness", count=2)
        replay = workload.call("replay", fraction=1.0)
        totals = workload.call("stop")["totals"]

    assert ORDERS <= load["accepted"] <= ORDERS + 64
    assert (race["races"], race["wrong"]) == (2, [])
    assert (liveness["failed"], liveness["requested"]) == ([], 2 * OPERATIONS)
    assert liveness["waited"] > 0
    assert replay["replayed"] > ORDERS
    assert (replay["different"], replay["unanswered"]) == ([], 0)
    assert totals["unexpected_responses"] == {}
    assert workload.samples[-1]["orders_total"] >= ORDERS
    with closing(sqlite3.connect(log)) as database:
        logged = database.execute("select count(distinct order_id) from orders").fetchone()[0]
        accepted = database.execute(
            "select count(distinct order_id) from attempts where status_code = 201"
            " and scope in ('POST /orders', 'POST /orders/from-cart')"
        ).fetchone()[0]
    assert logged == accepted == totals["orders"]
