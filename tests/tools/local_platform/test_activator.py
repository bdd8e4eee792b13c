"""Scaling from and to zero, queue limits, and crashing function processes."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tools.local_platform.platform_under_test import running_platform
from tests.waiting import wait_until
from tools.local_platform.activator import ScalingLimits
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.http_messages import HttpResponse


def description(response: HttpResponse) -> dict[str, object]:
    document: dict[str, object] = json.loads(response.body)
    return document


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_first_request_starts_a_process_and_idle_time_stops_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, limits=ScalingLimits(idle_seconds=0.3)) as platform:
            assert platform.activator.processes() == {}

            response = await platform.get("/echo")

            assert response.status == 200
            pid = description(response)["pid"]
            assert platform.activator.processes() == {"web": [pid]}
            await wait_until(lambda: platform.activator.processes() == {})
            await wait_until(lambda: not is_alive(int(str(pid))))

    asyncio.run(scenario())


def test_killed_process_has_its_last_line_in_the_log_written_by_the_platform(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            await platform.get("/echo")
            await platform.get("/crash")
            await wait_until(lambda: "web" in platform.activity_log.process_seconds)

            log = (tmp_path / "web.log").read_text("utf-8").splitlines()
            (ended,) = [json.loads(line) for line in log if '"ended"' in line]
            fields = {key: ended[key] for key in ("function", "signal", "answered")}
            assert fields == {"function": "web", "signal": 9, "answered": True}
            seconds = platform.activity_log.process_seconds["web"]
            assert ended["seconds"] == pytest.approx(seconds, abs=0.001)

    asyncio.run(scenario())


def test_process_with_traffic_is_not_stopped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, limits=ScalingLimits(idle_seconds=0.6)) as platform:
            pids = {description(await platform.get("/slow?seconds=0.2"))["pid"] for _ in range(6)}

            assert len(pids) == 1

    asyncio.run(scenario())


def test_process_never_exceeds_its_concurrency(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, limits=ScalingLimits(processes_max=1)) as platform:
            responses = await asyncio.gather(
                *(platform.get("/slow?seconds=0.05") for _ in range(12))
            )

            assert [response.status for response in responses] == [200] * 12
            assert max(int(str(description(response)["most"])) for response in responses) == 2
            assert platform.activity_log.counts["starts"] == 1

    asyncio.run(scenario())


def test_waiting_requests_scale_out_to_the_maximum(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, limits=ScalingLimits(processes_max=3)) as platform:
            responses = await asyncio.gather(
                *(platform.get("/slow?seconds=0.4") for _ in range(12))
            )

            assert [response.status for response in responses] == [200] * 12
            assert len({description(response)["pid"] for response in responses}) == 3

    asyncio.run(scenario())


def test_queue_longer_than_ten_per_slot_answers_503(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, limits=ScalingLimits(processes_max=1)) as platform:
            responses = await asyncio.gather(
                *(platform.get("/slow?seconds=0.1") for _ in range(40))
            )

            statuses = [response.status for response in responses]
            assert statuses.count(200) in (20, 21, 22)  # 20 may be queued and 2 in flight
            assert statuses.count(503) == 40 - statuses.count(200)
            rejected = next(response for response in responses if response.status == 503)
            assert rejected.header(b"retry-after") == b"1"

    asyncio.run(scenario())


def test_crash_during_a_request_answers_502_and_next_request_succeeds(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            first = description(await platform.get("/echo"))["pid"]

            lost = await platform.get("/crash")
            after = await platform.get("/echo")

            assert (lost.status, json.loads(lost.body)["error"]) == (502, "BAD_GATEWAY")
            assert after.status == 200
            assert description(after)["pid"] != first

    asyncio.run(scenario())


def test_response_after_the_timeout_answers_504(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            pool = platform.activator.pools["web"]
            await platform.get("/echo")
            pool.spec = replace(pool.spec, timeout_seconds=0.3)

            response = await platform.get("/slow?seconds=4")

            assert response.status == 504

    asyncio.run(scenario())


def test_function_that_does_not_start_answers_503_and_logs_the_reason_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> tuple[list[str], list[int], int]:
        async with running_platform(tmp_path) as platform:
            lines: list[str] = []
            monkeypatch.setattr(platform.activity_log, "write", lines.append)
            statuses = [(await platform.get("/failing")).status for _ in range(5)]
            return lines, statuses, platform.activity_log.counts["starts"]

    lines, statuses, starts = asyncio.run(scenario())

    assert statuses == [503] * 5
    assert starts == 1
    assert sum("the stub fails on purpose" in line for line in lines) == 1


def test_kill_fault_makes_requests_502_and_others_succeed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, faults=DeliveryFaults(kill=0.3, seed=3)) as platform:
            statuses = [(await platform.get("/slow?seconds=0.3")).status for _ in range(5)]

            assert statuses == [200, 502, 200, 200, 502]
            assert platform.activity_log.counts["kills"] == 2

    asyncio.run(scenario())


def test_output_of_a_function_is_written_to_its_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            await platform.get("/failing")

    asyncio.run(scenario())

    assert "on purpose" in (tmp_path / "failing.log").read_text(encoding="utf-8")


def test_queued_requests_get_a_new_process_when_the_last_one_is_retired(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, limits=ScalingLimits(processes_max=1)) as platform:
            pool = platform.activator.pools["web"]
            slots = pool.spec.scale.concurrency
            all_responses = asyncio.gather(
                *(platform.get("/slow?seconds=0.2") for _ in range(slots + 3))
            )
            await wait_until(lambda: bool(pool.processes) and pool.processes[0].in_flight == slots)

            pool.retire(pool.processes[0])

            # the stub does not drain, so requests in flight may be lost; queued ones are not
            statuses = [response.status for response in await all_responses]
            assert statuses.count(200) >= 3
            assert set(statuses) <= {200, 502}

    asyncio.run(scenario())


def test_timed_out_requests_leave_the_queue(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, limits=ScalingLimits(processes_max=1)) as platform:
            pool = platform.activator.pools["web"]
            await platform.get("/echo")
            pool.limits = replace(pool.limits, start_seconds_max=0.3)
            slots = pool.spec.scale.concurrency
            busy = [asyncio.ensure_future(platform.get("/slow?seconds=1")) for _ in range(slots)]
            await wait_until(lambda: pool.processes[0].in_flight == slots)

            waiting = await asyncio.gather(*(platform.get("/echo") for _ in range(3)))

            assert [response.status for response in waiting] == [503] * 3
            assert pool.queued == 0
            await asyncio.gather(*busy)

    asyncio.run(scenario())
