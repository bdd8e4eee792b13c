"""The fault catalogue is complete and documented, tiers plan it, faults work as described."""

# Reads the simulator's faults through the client of ProviderFaults; tests the time zone alone.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from zoneinfo import ZoneInfo

import pytest

from chaos.command import _broker_class, _time_zone_of_next_midnight, run_faults
from chaos.environment import Environment
from chaos.faults import processes, provider
from chaos.faults.catalogue import ALL_FAULT_IDS, SCHEDULED_FAULTS, TITLES
from chaos.faults.process_tree import children_of
from chaos.provider_faults import ProviderFaults
from chaos.redis_admin import RedisError, execute
from chaos.tiers import TIERS, Tier
from shop.primitives.spec import FunctionSpec
from shop.registry import spec_of
from tests.tools.payment_simulator.simulator_process import API_KEY, SimulatorProcess
from tools.local_platform.servers import redis

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("docs/design/correctness.md", "docs/how-to/run-fault-injection.md")


def test_faults_are_numbered_without_gaps() -> None:
    ids = [fault.id for fault in SCHEDULED_FAULTS]

    assert {f"F-{number:02}" for number in range(1, len(ALL_FAULT_IDS) + 1)} == ALL_FAULT_IDS
    assert len(ids) == len(set(ids))
    assert all(TITLES.values())


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_fault_is_documented(document: str) -> None:
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| F-")]
    documented = [id for row in rows for id in re.findall(r"F-\d\d", row.split("|")[1])]

    assert sorted(documented) == sorted(ALL_FAULT_IDS)


@pytest.mark.parametrize("tier", TIERS.values(), ids=lambda tier: tier.name)
def test_every_tier_repeats_every_scheduled_fault(tier: Tier) -> None:
    assert set(tier.repetitions) == {fault.id for fault in SCHEDULED_FAULTS}
    assert all(count > 0 for count in tier.repetitions.values())


def test_shorter_load_has_fewer_kills_and_repetitions_but_every_fault() -> None:
    full = TIERS["full"]

    third = full.of_length(full.load_seconds / 3)

    assert (third.kills_per_pair, third.load_seconds) == (10, 900)
    assert (third.repetitions["F-02"], third.repetitions["F-13"]) == (67, 1)
    assert third.repetitions.keys() == full.repetitions.keys()
    assert full.of_length(2 * full.load_seconds).repetitions == full.repetitions


def test_tiers_have_the_documented_sizes() -> None:
    smoke, full = TIERS["smoke"], TIERS["full"]

    assert (smoke.orders, smoke.kills_per_pair) == (2_000, 1)
    assert smoke.load_seconds + smoke.quiescence_seconds_max < 360
    assert (full.orders, full.kills_per_pair, full.includes_restore) == (50_000, 30, True)
    assert full.load_seconds + full.quiescence_seconds_max <= 3_600


def test_charge_times_are_shortened_before_keys_expire(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A payment that may be charged for hours must not use a key that the provider has expired."""
    steps: list[str] = []

    class Database:
        async def execute(self, *_: object) -> Database:
            steps.append("shorten")
            return self

        async def fetchall(self) -> list[tuple[str]]:
            return [("order",)]

    @asynccontextmanager
    async def database() -> AsyncGenerator[Database, None]:
        yield Database()

    async def add(name: str, **_: object) -> None:
        steps.append(f"add {name}")

    async def remove(name: str) -> None:
        steps.append(f"remove {name}")

    # the fault uses these attributes only
    attributes = SimpleNamespace(
        database=database,
        provider_faults=SimpleNamespace(add=add, remove=remove),
        tier=SimpleNamespace(duration_scale=0.0),
        shortened_orders=set[str](),
    )
    environment = cast(Environment, attributes)
    monkeypatch.setattr(provider, "ROW_USE_SECONDS", 0.0)

    asyncio.run(provider.expire_keys(environment))

    assert steps == ["shorten", "add expire keys", "shorten", "remove expire keys"]
    assert environment.shortened_orders == {"order"}


def test_clock_of_a_sleeping_function_is_not_shifted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = tmp_path / "libfaketime.so.1"
    library.touch()
    settings: dict[str, set[str]] = {"read_orders": set(), "charge": set()}

    def clock_libraries() -> list[Path]:
        return [library]

    def no_processes() -> list[object]:
        return []

    class RecordingEnvironment(SimpleNamespace):
        """Collects the extra settings of many processes whenever F-18 changes them."""

        def __setattr__(self, name: str, value: object) -> None:
            extra_settings = cast(Callable[[FunctionSpec], Mapping[str, str]], value)
            for function, names in settings.items():
                for _ in range(100):
                    names |= set(extra_settings(spec_of(function)))

    attributes = RecordingEnvironment(
        random=random.Random(1),
        processes=no_processes,
        tier=SimpleNamespace(duration_scale=0.0),
    )
    monkeypatch.setattr(processes, "_clock_libraries", clock_libraries)

    asyncio.run(processes.shift_clocks(cast(Environment, attributes)))

    assert settings["read_orders"] == set()
    assert "FAKETIME" in settings["charge"]


@pytest.mark.parametrize(
    ("tier", "kinds", "broker", "name"),
    [("smoke", "F-99", "", "F-99"), ("huge", "", "", "huge"), ("smoke", "", "kafka", "kafka")],
)
def test_unknown_fault_tier_or_broker_is_an_error_before_the_run(
    tmp_path: Path, tier: str, kinds: str, broker: str, name: str
) -> None:
    out = tmp_path / "out"

    with pytest.raises(ValueError, match=f"unknown .*{name}"):
        run_faults(
            tier=tier,
            seed=1,
            orders=None,
            seconds=None,
            kinds=kinds,
            broker=broker,
            out=out,
            fail_fast=True,
        )

    assert not out.exists()


@pytest.mark.parametrize(
    ("broker", "seed", "expected"),
    [("", 1, "imc"), ("", 2, "local"), ("local", 1, "local"), ("imc", 2, "imc")],
)
def test_broker_class_alternates_by_seed_unless_one_is_selected(
    broker: str, seed: int, expected: str
) -> None:
    assert _broker_class(broker, seed) == expected


@pytest.mark.parametrize("minute", [0, 14, 31, 59])
def test_business_day_ends_within_an_hour_but_not_within_45_seconds(minute: int) -> None:
    now = datetime(2026, 11, 26, 18, minute, 30, tzinfo=UTC)

    zone = _time_zone_of_next_midnight(now)

    local = now.astimezone(ZoneInfo(zone))
    left = 24 * 3600 - (local.hour * 3600 + local.minute * 60 + local.second)
    assert 45 < left <= 3600 + 45


def test_children_of_a_process_are_found() -> None:
    async def run() -> None:
        child = await asyncio.create_subprocess_exec("sleep", "60")
        try:
            assert child.pid in children_of(os.getpid())
            assert children_of(child.pid) == []
        finally:
            child.kill()
            await child.wait()

    asyncio.run(run())


def test_redis_commands_return_replies_or_raise() -> None:
    with redis() as url:

        async def run() -> None:
            assert await execute(url, "SET", "한", "글") == "OK"
            assert await execute(url, "GET", "한") == "글"
            assert await execute(url, "GET", "nothing") is None
            assert await execute(url, "RPUSH", "list", "a", "b") == 2
            assert await execute(url, "LRANGE", "list", "0", "-1") == ["a", "b"]
            with pytest.raises(RedisError, match="wrong number"):
                await execute(url, "GET")

        asyncio.run(run())


@pytest.fixture
def simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    process = SimulatorProcess(tmp_path / "provider.sqlite")
    yield process
    process.stop()


def test_temporary_provider_faults_are_added_to_continuous_ones(
    simulator: SimulatorProcess,
) -> None:
    async def run() -> None:
        faults = ProviderFaults(simulator.url, API_KEY, seed=1)
        await faults.set_continuous({"slow": 0.1}, slow_seconds=0.0)
        await faults.add("late", probabilities={"late": 0.5, "slow": 0.1}, late_seconds=1.0)
        both = (await faults._client.get("/faults")).json()
        await faults.remove("late")
        continuous = (await faults._client.get("/faults")).json()
        await faults.remove_all()
        none = (await faults._client.get("/faults")).json()
        await faults.close()

        assert both["probabilities"] == {"slow": 0.2, "late": 0.5}
        assert both["late_seconds"] == 1.0
        assert continuous["probabilities"] == {"slow": 0.1}
        assert none["probabilities"] == {}
        assert len({each["seed"] for each in (both, continuous, none)}) == 3

    asyncio.run(run())
