"""Lanes put every kind in as often as asked, evenly, one at a time in each lane."""

from __future__ import annotations

import asyncio
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from chaos.environment import Environment
from chaos.faults.fault import Kind, NotHere
from chaos.schedule import FaultSchedule
from tools.local_platform.activity_log import ActivityLog


class Recorder:
    """Kinds that note when they are in force."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.at_once: list[int] = []
        self._on = 0

    def kind(self, name: str, lane: Any = "servers", fails: Exception | None = None) -> Kind:
        async def inject(_scene: Environment) -> str:
            self._on += 1
            self.order.append(name)
            self.at_once.append(self._on)
            try:
                await asyncio.sleep(0)  # slow: lets another lane in, if there is one
                if fails is not None:
                    raise fails
            finally:
                self._on -= 1
            return f"did {name}"

        return Kind(id=name, what=name, lane=lane, inject=inject)


def scene() -> Environment:
    return cast(Environment, SimpleNamespace(dice=Random(7), activity_log=ActivityLog(quiet=True)))


def run(lanes: FaultSchedule) -> None:
    async def all_of_it() -> None:
        lanes.start()
        await asyncio.gather(*lanes._tasks)
        await lanes.stop()

    asyncio.run(all_of_it())


def test_kinds_come_as_often_as_dosed_and_never_two_in_one_lane() -> None:
    seen = Recorder()
    kinds = [seen.kind("F-08"), seen.kind("F-09")]
    lanes = FaultSchedule(scene(), kinds, {"F-08": 2, "F-09": 4}, seconds=0.0, now=lambda: 5.0)

    run(lanes)

    assert sorted(seen.order) == ["F-08"] * 2 + ["F-09"] * 4
    assert set(seen.at_once) == {1}
    assert [injection.what for injection in lanes.injections] == [f"did {n}" for n in seen.order]
    assert lanes.on == ()


def test_each_kind_is_spread_over_the_whole_length() -> None:
    seen = Recorder()
    kinds = [seen.kind("F-08"), seen.kind("F-09")]
    lanes = FaultSchedule(scene(), kinds, {"F-08": 2, "F-09": 40}, seconds=0.0, now=lambda: 0.0)

    run(lanes)

    first, second = (place for place, name in enumerate(seen.order) if name == "F-08")
    assert first < 22 <= second + 1


def test_a_kind_that_this_machine_cannot_make_is_named_and_not_tried_again() -> None:
    seen = Recorder()
    kinds = [seen.kind("F-18", fails=NotHere("no clock library"))]
    lanes = FaultSchedule(scene(), kinds, {"F-18": 3}, seconds=0.0, now=lambda: 0.0)

    run(lanes)

    assert lanes.impossible == {"F-18": "no clock library"}
    assert seen.order == ["F-18"]
    assert lanes.injections == []


def test_a_fault_that_missed_is_not_counted() -> None:
    seen = Recorder()
    kinds = [seen.kind("F-14", fails=ConnectionRefusedError())]
    lanes = FaultSchedule(scene(), kinds, {"F-14": 2}, seconds=0.0, now=lambda: 0.0)

    run(lanes)

    assert seen.order == ["F-14", "F-14"]
    assert lanes.injections == []
