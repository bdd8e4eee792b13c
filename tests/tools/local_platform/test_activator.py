"""From zero and back, within the limits, and honest about processes that die."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from tests.tools.local_platform.bench import Bench, bench
from tests.waiting import wait_until
from tools.local_platform.activator import ScalingLimits
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.http_messages import HttpResponse


def described(answer: HttpResponse) -> dict[str, object]:
    document: dict[str, object] = json.loads(answer.body)
    return document


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_scales_from_zero_on_the_first_request_and_back_to_zero_when_idle(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path, limits=ScalingLimits(idle_seconds=0.3)) as desk:
            assert desk.activator.processes() == {}

            answer = await desk.get("/echo")

            assert answer.status == 200
            pid = described(answer)["pid"]
            assert desk.activator.processes() == {"web": [pid]}
            await wait_until(lambda: desk.activator.processes() == {})
            await wait_until(lambda: not is_alive(int(str(pid))))

    asyncio.run(story())


def test_a_process_that_is_used_does_not_sleep(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path, limits=ScalingLimits(idle_seconds=0.6)) as desk:
            pids = {described(await desk.get("/slow?seconds=0.2"))["pid"] for _ in range(6)}

            assert len(pids) == 1

    asyncio.run(story())


def test_no_process_gets_more_than_its_concurrency(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path, limits=ScalingLimits(processes_max=1)) as desk:
            answers = await asyncio.gather(*(desk.get("/slow?seconds=0.05") for _ in range(12)))

            assert [answer.status for answer in answers] == [200] * 12
            assert max(int(str(described(answer)["most"])) for answer in answers) == 2
            assert desk.activity_log.counts["starts"] == 1

    asyncio.run(story())


def test_scales_out_to_the_desks_limit_when_requests_wait(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path, limits=ScalingLimits(processes_max=3)) as desk:
            answers = await asyncio.gather(*(desk.get("/slow?seconds=0.8") for _ in range(12)))

            assert [answer.status for answer in answers] == [200] * 12
            assert len({described(answer)["pid"] for answer in answers}) == 3

    asyncio.run(story())


def test_refuses_with_503_beyond_ten_times_the_concurrency(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path, limits=ScalingLimits(processes_max=1)) as desk:
            answers = await asyncio.gather(*(desk.get("/slow?seconds=0.1") for _ in range(40)))

            statuses = [answer.status for answer in answers]
            assert statuses.count(200) in (20, 21, 22)  # 20 may wait, and 2 may be in work
            assert statuses.count(503) == 40 - statuses.count(200)
            refused = next(answer for answer in answers if answer.status == 503)
            assert refused.header(b"retry-after") == b"1"

    asyncio.run(story())


def test_a_process_that_dies_with_a_request_makes_it_502_and_the_next_one_works(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with bench(tmp_path) as desk:
            first = described(await desk.get("/echo"))["pid"]

            died = await desk.get("/die")
            after = await desk.get("/echo")

            assert (died.status, json.loads(died.body)["error"]) == (502, "BAD_GATEWAY")
            assert after.status == 200
            assert described(after)["pid"] != first

    asyncio.run(story())


def test_an_answer_that_takes_too_long_is_504(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path) as desk:
            answer = await desk.get("/slow?seconds=4")

            assert answer.status == 504

    asyncio.run(story())


def test_a_function_that_does_not_start_answers_503_at_once_and_says_why_once(
    tmp_path: Path, capsys: object
) -> None:
    async def story() -> tuple[list[str], list[int], int]:
        async with bench(tmp_path) as desk:
            lines: list[str] = []
            desk.activity_log.write = lines.append  # type: ignore[method-assign]
            statuses = [(await desk.get("/broken")).status for _ in range(5)]
            return lines, statuses, desk.activity_log.counts["starts"]

    lines, statuses, starts = asyncio.run(story())

    assert statuses == [503] * 5
    assert starts == 1
    assert sum("the stub is broken on purpose" in line for line in lines) == 1


def test_the_kill_fault_kills_processes_and_the_shop_goes_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path, faults=DeliveryFaults(kill=0.3, seed=3)) as desk:
            statuses = [(await desk.get("/slow?seconds=0.06")).status for _ in range(20)]

            kills = desk.activity_log.counts["kills"]
            assert 2 <= kills <= 12
            assert statuses.count(502) == kills
            assert statuses.count(200) == 20 - kills

    asyncio.run(story())


def test_what_a_function_prints_goes_to_its_log(tmp_path: Path) -> None:
    async def story(desk: Bench) -> None:
        await desk.get("/broken")

    async def within() -> None:
        async with bench(tmp_path) as desk:
            await story(desk)

    asyncio.run(within())

    assert "on purpose" in (tmp_path / "broken.log").read_text(encoding="utf-8")


def test_those_who_wait_get_a_new_process_when_the_last_one_is_scaled_in(tmp_path: Path) -> None:
    async def story() -> None:
        async with bench(tmp_path, limits=ScalingLimits(processes_max=1)) as desk:
            pool = desk.activator.pools["web"]
            slots = pool.spec.scale.concurrency
            all_of_them = asyncio.gather(*(desk.get("/slow?seconds=0.2") for _ in range(slots + 3)))
            await wait_until(lambda: bool(pool.processes) and pool.processes[0].in_flight == slots)

            pool.retire(pool.processes[0])

            # the stub does not drain, so those under way may be lost; those who wait are not
            statuses = [answer.status for answer in await all_of_them]
            assert statuses.count(200) >= 3
            assert set(statuses) <= {200, 502}

    asyncio.run(story())


def test_whoever_gave_up_waiting_does_not_keep_others_out(tmp_path: Path) -> None:
    async def story() -> None:
        limits = ScalingLimits(processes_max=1, start_seconds_max=0.3, scale_out_after_seconds=0.1)
        async with bench(tmp_path, limits=limits) as desk:
            pool = desk.activator.pools["web"]
            await desk.get("/echo")
            slots = pool.spec.scale.concurrency
            busy = [asyncio.ensure_future(desk.get("/slow?seconds=1")) for _ in range(slots)]
            await wait_until(lambda: pool.processes[0].in_flight == slots)

            waiting = await asyncio.gather(*(desk.get("/echo") for _ in range(3)))

            assert [answer.status for answer in waiting] == [503] * 3
            assert not pool._queue
            await asyncio.gather(*busy)

    asyncio.run(story())
