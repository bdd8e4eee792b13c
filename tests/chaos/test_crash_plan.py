"""The crash plan hands out every pair, as often as wanted, spread over the run."""

from __future__ import annotations

import time
from random import Random

import pytest

from chaos.crash_plan import CrashPlan
from chaos.failpoint_pairs import Pair

PAIRS = (Pair("charge", "W0"), Pair("charge", "W7"), Pair("sweep", "W0"))


def plan(*, per_pair: int = 2, seconds: float = 1000.0) -> CrashPlan:
    made = CrashPlan(PAIRS, per_pair=per_pair, seconds=seconds, dice=Random(1))
    made.begin()
    return made


def test_nothing_is_armed_before_the_run_begins_and_after_it_is_healed() -> None:
    made = plan()
    made.is_on = False

    assert made.arm("charge") is None
    assert not made.is_behind("charge")


def test_kills_are_spread_over_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(per_pair=100, seconds=700.0)
    began = time.monotonic()
    moment = [began]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    pair = made.arm("charge")
    assert pair is not None
    made.ended(pair, was_hit=True)

    # 200 kills in 700 s: the second is due after 3.5 s
    assert not made.is_behind("charge")
    moment[0] = began + 4.0
    assert made.is_behind("charge")


def test_every_pair_gets_its_kills_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made = plan(per_pair=2, seconds=10.0)
    later = time.monotonic() + 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: later)

    while (pair := made.arm("charge")) is not None:
        made.ended(pair, was_hit=True)

    assert dict(made.hits) == {PAIRS[0]: 2, PAIRS[1]: 2}
    assert (made.kills, made.wanted, made.pairs_hit) == (4, 6, 2)
    assert not made.is_behind("charge")
    assert made.is_behind("sweep")


def test_a_window_that_was_not_reached_is_handed_out_again_for_the_first_passage() -> None:
    made = plan(per_pair=1, seconds=1.0)
    made.note_rates({"sweep": 1000.0})
    pair = made.arm("sweep")
    assert pair == PAIRS[2]
    assert made.armed("sweep") == 1

    made.ended(pair, was_hit=False)

    assert made.arm("sweep") == pair
    assert made.nth(pair) == 1
    assert made.hits[pair] == 0


def test_a_busy_process_answers_messages_until_its_kill_is_due() -> None:
    made = plan(per_pair=1, seconds=100.0)
    made.note_rates({"charge": 4.0})
    made.ended(PAIRS[1], was_hit=True)

    drawn = {made.nth(PAIRS[0]) for _ in range(2000)}

    # one of two kills is done, so the next is due after 50 s
    assert drawn >= set(range(1, 190))
    assert max(drawn) <= 200


def test_a_tick_of_sweep_gets_some_rows_done_before_it_dies() -> None:
    often = CrashPlan(PAIRS, per_pair=30, seconds=1000.0, dice=Random(1))
    rarely = CrashPlan(PAIRS, per_pair=1, seconds=1000.0, dice=Random(1))
    of_a_row = Pair("sweep", "W7")

    assert {often.nth(of_a_row) for _ in range(2000)} == set(range(1, 121))
    assert max(rarely.nth(of_a_row) for _ in range(2000)) == 4
