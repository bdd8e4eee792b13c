"""The catalogue is whole, every tier doses it, and its parts do what they say."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from chaos import command
from chaos.faults import money, processes
from chaos.faults.catalogue import ALL, KINDS, NAMES, NOT_MADE
from chaos.process_tree import children_of
from chaos.provider_faults import ProviderFaults
from chaos.resp import RedisRefused, ask
from chaos.tiers import TIERS
from tests.tools.payment_simulator.simulator_process import API_KEY, SimulatorProcess
from tools.local_platform.servers import redis

DESIGNED = {f"F-{number:02}" for number in range(1, 29)}


def test_every_kind_of_the_design_is_known_once() -> None:
    assert DESIGNED <= ALL
    ids = [kind.id for kind in KINDS]
    assert len(ids) == len(set(ids))
    assert set(NOT_MADE) == {"F-21"}
    assert all(reason for _, reason in NOT_MADE.values())
    assert all(NAMES.values())


@pytest.mark.parametrize("tier", TIERS.values(), ids=lambda tier: tier.name)
def test_every_tier_doses_every_kind_and_no_other(tier: object) -> None:
    assert set(tier.doses) == {kind.id for kind in KINDS}  # type: ignore[attr-defined]
    assert all(dose > 0 for dose in tier.doses.values())  # type: ignore[attr-defined]


def test_the_tiers_are_what_the_design_asks_for() -> None:
    smoke, full = TIERS["smoke"], TIERS["full"]
    assert (smoke.orders, smoke.kills_per_pair) == (2_000, 1)
    assert smoke.load_seconds + smoke.rest_seconds_max < 360
    assert (full.orders, full.kills_per_pair, full.is_restored) == (50_000, 30, True)
    assert full.load_seconds + full.rest_seconds_max <= 3_600


def test_keys_are_forgotten_after_the_time_to_charge_was_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A payment with hours to be charged must not meet a provider that forgot it (full run, 11)."""
    done: list[str] = []

    class Database:
        async def execute(self, *_: object) -> Any:
            done.append("cut")
            return self

        async def fetchall(self) -> list[tuple[str]]:
            return [("an order",)]

    @asynccontextmanager
    async def database() -> AsyncIterator[Database]:
        yield Database()

    async def put(name: str, **_: object) -> None:
        done.append(f"put {name}")

    async def take_off(name: str) -> None:
        done.append(f"take off {name}")

    scene: Any = SimpleNamespace(
        database=database,
        provider=SimpleNamespace(put=put, take_off=take_off),
        tier=SimpleNamespace(hold=0.0),
        cut_short=set(),
    )
    monkeypatch.setattr(money, "CALL_SECONDS", 0.0)

    asyncio.run(money.forget_keys(scene))

    assert done == ["cut", "put forgetful", "cut", "take off forgetful"]
    assert scene.cut_short == {"an order"}


def test_who_sleeps_keeps_its_clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    library = tmp_path / "libfaketime.so.1"
    library.touch()
    monkeypatch.setattr(processes, "_clock_libraries", lambda: [library])
    told: dict[str, set[str]] = {"read_orders": set(), "charge": set()}

    class Environment(SimpleNamespace):
        def __setattr__(self, name: str, value: Any) -> None:
            for function in told:  # asked whenever F-18 says anew what processes are told
                for _ in range(100):
                    told[function] |= set(value(SimpleNamespace(name=function)))

    scene: Any = Environment(
        dice=random.Random(1), processes=lambda: [], tier=SimpleNamespace(hold=0.0)
    )
    asyncio.run(processes.shift_clocks(scene))

    assert told["read_orders"] == set()
    assert "FAKETIME" in told["charge"]


@pytest.mark.parametrize(
    ("tier", "kinds", "what"), [("smoke", "F-99", "F-99"), ("huge", "", "huge")]
)
def test_what_there_is_not_is_named_and_nothing_is_begun(
    tmp_path: Path, tier: str, kinds: str, what: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=what):
        command.run_faults(
            tier=tier, seed=1, orders=None, seconds=None, kinds=kinds, out=out, fail_fast=True
        )
    assert not out.exists()


@pytest.mark.parametrize("minute", [0, 14, 31, 59])
def test_a_day_ends_soon_but_not_at_once(minute: int) -> None:
    now = datetime(2026, 11, 26, 18, minute, 30, tzinfo=UTC)

    zone = command._zone_of_the_next_midnight(now)

    here = now.astimezone(ZoneInfo(zone))
    left = 24 * 3600 - (here.hour * 3600 + here.minute * 60 + here.second)
    assert 45 < left <= 3600 + 45


def test_a_process_knows_its_children() -> None:
    async def story() -> None:
        child = await asyncio.create_subprocess_exec("sleep", "60")
        try:
            assert child.pid in children_of(os.getpid())
            assert children_of(child.pid) == []
        finally:
            child.kill()
            await child.wait()

    asyncio.run(story())


def test_redis_is_asked_and_may_refuse() -> None:
    with redis() as url:
        port = int(url.rpartition(":")[2].partition("/")[0])

        async def story() -> None:
            assert await ask(port, "SET", "한", "글") == "OK"
            assert await ask(port, "GET", "한") == "글"
            assert await ask(port, "GET", "nothing") is None
            assert await ask(port, "RPUSH", "list", "a", "b") == 2
            assert await ask(port, "LRANGE", "list", "0", "-1") == ["a", "b"]
            with pytest.raises(RedisRefused, match="wrong number"):
                await ask(port, "GET")

        asyncio.run(story())


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(tmp_path / "books.sqlite")
    yield process
    process.stop()


def test_faults_of_the_provider_lie_in_layers(simulator: SimulatorProcess) -> None:
    async def story() -> None:
        faults = ProviderFaults(simulator.url, API_KEY, seed=1)
        await faults.set_base(probabilities={"slow": 0.1}, slow_seconds=0.0)
        await faults.put("late", probabilities={"late": 0.5, "slow": 0.1}, late_seconds=1.0)
        both = (await faults._client.get("/faults")).json()
        await faults.take_off("late")
        base = (await faults._client.get("/faults")).json()
        await faults.heal()
        none = (await faults._client.get("/faults")).json()
        await faults.close()

        assert both["probabilities"] == {"slow": 0.2, "late": 0.5}
        assert both["late_seconds"] == 1.0
        assert base["probabilities"] == {"slow": 0.1}
        assert none["probabilities"] == {}
        assert len({each["seed"] for each in (both, base, none)}) == 3

    asyncio.run(story())
