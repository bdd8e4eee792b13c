"""The kill plan assigns every pair as often as planned, spread over the run."""

from __future__ import annotations

import time
from random import Random

import pytest

from chaos.failpoint_pairs import FailpointPair
from chaos.kill_plan import KillPlan
from shop.primitives.failpoints import Failpoint

CHARGE_READ = FailpointPair("charge", Failpoint.MESSAGE_READ)
CHARGE_CALL = FailpointPair("charge", Failpoint.BEFORE_PROVIDER_CALL)
SWEEP_READ = FailpointPair("sweep", Failpoint.MESSAGE_READ)
SWEEP_CALL = FailpointPair("sweep", Failpoint.BEFORE_PROVIDER_CALL)


def new_plan(*, kills_per_pair: int = 2, seconds: float = 1000.0) -> KillPlan:
    return KillPlan(
        (CHARGE_READ, CHARGE_CALL, SWEEP_READ),
        kills_per_pair=kills_per_pair,
        seconds=seconds,
        random=Random(1),
    )


def started_plan(*, kills_per_pair: int = 2, seconds: float = 1000.0) -> KillPlan:
    plan = new_plan(kills_per_pair=kills_per_pair, seconds=seconds)
    plan.start()
    return plan


def test_inactive_plan_assigns_nothing() -> None:
    plan = new_plan()

    assert plan.assign("charge") is None
    assert not plan.is_behind("charge")
    assert plan.is_finished


def test_kills_are_spread_over_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = started_plan(kills_per_pair=100, seconds=700.0)
    now = [time.monotonic()]
    began = now[0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pair = plan.assign("charge")
    assert pair is not None
    plan.record_exit(pair, was_killed=True)

    # 200 kills of charge in 700 s: the second is due after 3.5 s
    assert not plan.is_behind("charge")
    now[0] = began + 4.0
    assert plan.is_behind("charge")


def test_every_pair_gets_its_kills_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = started_plan(kills_per_pair=2, seconds=10.0)
    later = time.monotonic() + 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: later)

    while (pair := plan.assign("charge")) is not None:
        plan.record_exit(pair, was_killed=True)

    assert dict(plan.kills) == {CHARGE_READ: 2, CHARGE_CALL: 2}
    assert (plan.kills_total, plan.kills_planned, plan.pairs_completed) == (4, 6, 2)
    assert not plan.is_behind("charge")
    assert plan.is_behind("sweep")
    assert not plan.is_finished


def test_pair_that_was_not_reached_is_assigned_again_for_the_first_pass() -> None:
    plan = started_plan(kills_per_pair=1, seconds=1.0)
    plan.set_message_rates({"sweep": 1000.0})
    assert plan.assign("sweep") == SWEEP_READ
    assert plan.assigned_processes("sweep") == 1

    plan.record_exit(SWEEP_READ, was_killed=False)

    assert plan.assign("sweep") == SWEEP_READ
    assert plan.choose_pass(SWEEP_READ) == 1
    assert plan.kills[SWEEP_READ] == 0


def test_busy_process_handles_messages_until_its_kill_is_due() -> None:
    plan = started_plan(kills_per_pair=1, seconds=100.0)
    plan.set_message_rates({"charge": 4.0})
    plan.record_exit(CHARGE_CALL, was_killed=True)

    drawn = {plan.choose_pass(CHARGE_READ) for _ in range(2000)}

    # one of two kills has happened, so the next is due after 50 s
    assert drawn >= set(range(1, 190))
    assert max(drawn) <= 200


def test_tick_of_sweep_processes_rows_before_its_kill() -> None:
    many, few = new_plan(kills_per_pair=30), new_plan(kills_per_pair=1)

    assert {many.choose_pass(SWEEP_CALL) for _ in range(2000)} == set(range(1, 121))
    assert max(few.choose_pass(SWEEP_CALL) for _ in range(2000)) == 4


def test_pair_that_is_assigned_first_gives_way_after_misses() -> None:
    """A closed day cannot be closed again: its pair must not keep the others from their kills."""
    published = FailpointPair("settle", Failpoint.PUBLISHED)
    read = FailpointPair("settle", Failpoint.MESSAGE_READ)
    plan = KillPlan((published, read), kills_per_pair=1, seconds=1.0, random=Random(1))
    plan.start()

    for _ in range(3):
        assert plan.assign("settle") == published
        plan.record_exit(published, was_killed=False)
    others = {plan.assign("settle"), plan.assign("settle")}

    assert others == {published, read}
