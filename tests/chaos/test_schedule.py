"""The schedule injects each fault as often as planned, evenly, one at a time per group."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import cast

from chaos.environment import Environment
from chaos.faults.fault import Fault, FaultUnavailable
from chaos.schedule import FaultSchedule
from tools.local_platform.activity_log import ActivityLog


class Recorder:
    """Creates faults that record their injections and how many are active together."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.active_together: list[int] = []
        self._active = 0

    def fault(self, fault_id: str, error: Exception | None = None) -> Fault:
        async def inject(_environment: Environment) -> str:
            self._active += 1
            self.order.append(fault_id)
            self.active_together.append(self._active)
            try:
                await asyncio.sleep(0)  # slow: lets another queue run, if there is one
                if error is not None:
                    raise error
            finally:
                self._active -= 1
            return f"injected {fault_id}"

        return Fault(id=fault_id, title=fault_id, group="servers", inject=inject)


def new_schedule(faults: list[Fault], repetitions: dict[str, int]) -> FaultSchedule:
    # the schedule uses these two attributes only
    attributes = SimpleNamespace(random=Random(7), activity_log=ActivityLog(quiet=True))
    environment = cast(Environment, attributes)
    return FaultSchedule(environment, faults, repetitions, seconds=0.0, now=lambda: 5.0)


def run(schedule: FaultSchedule) -> None:
    async def run_to_the_end() -> None:
        schedule.start()
        async with asyncio.timeout(10):
            while not schedule.is_finished:
                await asyncio.sleep(0)
        await schedule.stop()

    asyncio.run(run_to_the_end())


def test_faults_of_one_group_are_injected_as_planned_and_never_overlap() -> None:
    recorder = Recorder()
    faults = [recorder.fault("F-08"), recorder.fault("F-09")]
    schedule = new_schedule(faults, {"F-08": 2, "F-09": 4})

    run(schedule)

    assert sorted(recorder.order) == ["F-08"] * 2 + ["F-09"] * 4
    assert set(recorder.active_together) == {1}
    assert [injection.description for injection in schedule.injections] == [
        f"injected {fault_id}" for fault_id in recorder.order
    ]
    assert schedule.active == ()


def test_each_fault_is_spread_over_the_whole_time() -> None:
    recorder = Recorder()
    faults = [recorder.fault("F-08"), recorder.fault("F-09")]

    run(new_schedule(faults, {"F-08": 2, "F-09": 40}))

    first, second = (n for n, fault_id in enumerate(recorder.order) if fault_id == "F-08")
    assert first < 22 <= second + 1


def test_unavailable_fault_keeps_its_reason_and_is_not_tried_again() -> None:
    recorder = Recorder()
    faults = [recorder.fault("F-18", error=FaultUnavailable("no clock library"))]
    schedule = new_schedule(faults, {"F-18": 3})

    run(schedule)

    assert schedule.unavailable == {"F-18": "no clock library"}
    assert recorder.order == ["F-18"]
    assert schedule.injections == []


def test_failed_injection_is_not_counted() -> None:
    recorder = Recorder()
    faults = [recorder.fault("F-14", error=ConnectionRefusedError())]
    schedule = new_schedule(faults, {"F-14": 2})

    run(schedule)

    assert recorder.order == ["F-14", "F-14"]
    assert schedule.injections == []
