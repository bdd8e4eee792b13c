"""The shipped rules through simulated days, and what a shop that is careless of time would lose.

CI lives through three seeds, some 10 seconds of one processor; ``HYPOTHESIS_PROFILE=long`` through
sixty.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

from shop.orders import decide
from shop.orders.decide import Effects, OrderState, Payment
from tests.unit.simulation import CALM_AFTER, DAY, Rules, Simulation

SEEDS = range(60 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 3)
ORDERS = 2_000


@pytest.mark.parametrize("seed", SEEDS)
def test_days_of_trouble_end_with_equal_books(seed: int) -> None:
    simulation = Simulation(seed, ORDERS)

    simulation.run()

    endings = [purchase.world.story.order.status for purchase in simulation.purchases]
    late = [p for each in simulation.purchases for p in each.world.story.payments if p.late]
    assert simulation.steps > 10 * ORDERS, "little happened"
    assert simulation.now > CALM_AFTER
    assert min(endings.count("PAID"), endings.count("CANCELLED")) > ORDERS / 10, endings
    assert late, "no money came late: the worst was not met"


def test_a_seed_tells_one_story() -> None:
    one, again, other = (Simulation(seed, 200) for seed in (7, 7, 8))
    for simulation in (one, again, other):
        simulation.run()

    assert one.steps == again.steps
    assert [p.world for p in one.purchases] == [p.world for p in again.purchases]
    assert one.steps != other.steps


# ---------------------------------------------------------------- mutants


def charges_at_any_time(story: OrderState, payment: Payment) -> str:
    """A key that the provider may have forgotten is used all the same."""
    return decide.provider_step(story, replace(payment, may_charge=True))


def keeps_late_money(story: OrderState, message: Any) -> Effects:
    effects = decide.decide(story, message)
    late = isinstance(message, decide.Captured)
    return tuple(e for e in effects if not (late and isinstance(e, decide.OpenRefund)))


def charges_twice(story: OrderState, message: Any) -> Effects:
    """Another attempt while one is open."""
    if isinstance(message, decide.ChargeDue) and story.live and len(story.payments) < 3:
        return (decide.OpenPayment(len(story.payments) + 1),)
    return decide.decide(story, message)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(step=charges_at_any_time), id="charges at any time"),
        pytest.param(Rules(charge_window=1.4 * DAY), id="a window longer than a key's life"),
        pytest.param(Rules(asks_again=False), id="nobody asks again"),
        pytest.param(Rules(looks_first=False), id="sends a refund again without a look"),
        pytest.param(Rules(decision=keeps_late_money), id="keeps late money"),
        pytest.param(Rules(decision=charges_twice), id="charges twice"),
    ],
)
def test_a_shop_careless_of_time_is_caught(rules: Rules) -> None:
    with pytest.raises(AssertionError):
        for seed in range(3):
            Simulation(seed, ORDERS // 2, rules).run()
