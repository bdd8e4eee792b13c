"""The live view: its summaries, its readings, its switches, and who may use it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.tools.local_platform.platform_under_test import PlatformUnderTest, running_platform
from tests.waiting import wait_until
from tools.checker.provider_transactions import ProviderAccess
from tools.local_platform.activities import Activity, ActivityKind, Interval
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.http_listener import listen, serving
from tools.local_platform.http_messages import HttpRequest, connect
from tools.local_platform.live_view import BACKLOG_MAX, LiveView
from tools.local_platform.live_view_readings import Readings
from tools.local_platform.observed_platform import ObservedPlatform

DELIVERY = Activity(kind=ActivityKind.DELIVERY, function="charge", subject="order.placed", code=204)
JSON = {"content-type": "application/json"}


@dataclass
class Observed:
    """Activities of a platform that does not run."""

    interval: Interval = field(default_factory=Interval)
    faults: dict[str, float] = field(default_factory=dict[str, float])

    def snapshot(self) -> dict[str, object]:
        return self.interval.take()

    async def switch(self, faults: dict[str, float]) -> None:
        if "unknown" in faults:
            raise ValueError("there is no fault unknown")
        self.faults |= faults

    async def check_invariants(self) -> None:
        """Has none."""


@asynccontextmanager
async def live_view(observed: Observed | ObservedPlatform, logs: Path) -> AsyncGenerator[int]:
    """The live view on a free port, without a database."""
    with listen(0) as listener:
        port = listener.getsockname()[1]
        readings = Readings(database_url="", catcher_url="http://127.0.0.1:9", logs=logs)
        view = LiveView(observed, readings, port)
        ticks = asyncio.create_task(view.tick_forever())
        async with serving(view.application(), listener):
            try:
                yield port
            finally:
                view.close()
                ticks.cancel()


async def read_summaries(port: int, count: int) -> list[dict[str, Any]]:
    """The next summaries of the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /stream HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
    found: list[dict[str, Any]] = []
    while len(found) < count:
        line = await reader.readline()
        assert line
        if line.startswith(b"data: "):
            found.append(json.loads(line.removeprefix(b"data: ")))
    writer.close()
    return found


def test_stream_has_a_bounded_summary_of_ten_thousand_activities(tmp_path: Path) -> None:
    observed = Observed()

    async def scenario() -> dict[str, Any]:
        async with live_view(observed, tmp_path) as port:
            reading = asyncio.create_task(read_summaries(port, 2))
            summaries: list[dict[str, Any]] = []
            while not summaries or not summaries[-1]["flows"]:
                for _ in range(10_000):
                    observed.interval.add(DELIVERY)
                summaries = await reading
                reading = asyncio.create_task(read_summaries(port, 1))
            reading.cancel()
            return summaries[-1]

    summary = asyncio.run(scenario())

    (flow,) = summary["flows"]
    assert flow["count"] >= 10_000
    assert flow["count"] == summary["leftOut"] + len(summary["activities"])
    assert len(json.dumps(summary)) < 20_000


def test_a_page_that_reads_nothing_keeps_a_bounded_backlog() -> None:
    async def scenario() -> int:
        observed = Observed()
        view = LiveView(observed, Readings(database_url="", catcher_url="", logs=Path()), 1)
        page: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG_MAX)
        view.pages.add(page)
        for _ in range(3 * BACKLOG_MAX):
            view.send(observed.snapshot())
        view.close()
        return page.qsize()

    assert asyncio.run(scenario()) == BACKLOG_MAX


def test_snapshot_has_the_states_of_functions_and_the_flow_of_an_event(tmp_path: Path) -> None:
    async def scenario() -> tuple[dict[str, Any], dict[str, Any]]:
        async with running_platform(tmp_path) as platform:
            observed = observed_platform(platform)
            before = observed.snapshot()
            await platform.get("/echo")
            await platform.send_event()
            await platform.deliver_all()
            return before, observed.snapshot()

    before, after = asyncio.run(scenario())

    assert states(before)["web"] == "asleep"
    assert states(after)["web"] == "awake"
    kinds = {(each["kind"], each["function"], each["code"]) for each in after["flows"]}
    assert {
        ("request", "web", 200),
        ("start", "web", 0),
        ("event", "test", 0),
        ("delivery", "subscriber", 204),
    } <= kinds


def test_switch_changes_the_faults_of_the_running_platform(tmp_path: Path) -> None:
    faults = DeliveryFaults()

    async def scenario() -> None:
        async with running_platform(tmp_path, faults=faults) as platform:
            observed = observed_platform(platform, faults)
            await observed.switch({"lose": 1.0})
            await platform.send_event()
            await wait_until(lambda: platform.activity_log.counts["lost"] == 1)
            with pytest.raises(ValueError, match="there is no fault burn"):
                await observed.switch({"burn": 1.0})
            assert observed.snapshot()["faults"] == {
                "duplicate": 0.0,
                "reorder": 0.0,
                "lose": 1.0,
                "kill": 0.0,
                "slowProvider": 0.0,
            }

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (JSON, b'{"lose": 0.5}', 204),
        (JSON, b'{"lose": 2}', 422),
        (JSON, b'{"unknown": 0.5}', 422),
        (JSON, b"[]", 422),
        ({"content-type": "text/plain"}, b'{"lose": 0.5}', 415),
        (JSON | {"origin": "http://elsewhere.example"}, b'{"lose": 0.5}', 403),
        (JSON | {"host": "elsewhere.example"}, b'{"lose": 0.5}', 403),
    ],
)
def test_only_valid_json_of_the_own_page_switches_faults(
    tmp_path: Path, headers: dict[str, str], body: bytes, status: int
) -> None:
    observed = Observed()

    async def scenario() -> int:
        async with live_view(observed, tmp_path) as port:
            sent = {"host": f"127.0.0.1:{port}", **headers}
            fields = [(name.encode(), value.encode()) for name, value in sent.items()]
            connection = await connect(port)
            response = await connection.send(HttpRequest("POST", b"/faults", fields, body))
            connection.close()
            return response.status

    assert asyncio.run(scenario()) == status
    assert observed.faults == ({"lose": 0.5} if status == 204 else {})


def test_logs_of_a_trace_are_ordered_by_time_over_all_functions(tmp_path: Path) -> None:
    lines = {
        "cart": [{"at": "2", "trace": "t1", "message": "b"}, {"at": "1", "trace": "t2"}],
        "login": [{"at": "1", "trace": "t1", "message": "a"}],
    }
    for name, written in lines.items():
        text = "\n".join(json.dumps(line) for line in written)
        (tmp_path / f"{name}.log").write_text(f"{text}\nnot JSON, of t1\n")
    readings = Readings(database_url="", catcher_url="", logs=tmp_path)

    found = readings.log_of_trace("t1")

    assert [(line["log"], line["message"]) for line in found] == [("login", "a"), ("cart", "b")]


def observed_platform(
    platform: PlatformUnderTest, faults: DeliveryFaults | None = None
) -> ObservedPlatform:
    """A running platform with its activities."""
    observed = ObservedPlatform(
        activator=platform.activator,
        broker=platform.broker,
        faults=faults or DeliveryFaults(),
        provider=ProviderAccess("sandbox", "", ""),
        database_url="",
    )
    platform.activity_log.observer = observed.interval.add
    return observed


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["state"] for each in summary["functions"]}
