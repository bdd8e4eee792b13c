"""The shipped rules through several simulated days, and mutants that ignore time.

Three seeds; ``HYPOTHESIS_PROFILE=long`` runs sixty.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from shop.orders import decide, effects, messages
from shop.orders.effects import Effects
from shop.orders.messages import Message
from shop.orders.states import OrderState, Payment
from shop.primitives.statuses import OrderStatus
from tests.unit.simulation import DAY, FAULTS_END, Rules, Simulation

# Coverage would double the time of this search, and adds nothing to that of the other tests.
pytestmark = pytest.mark.no_cover

SEEDS = range(60 if os.environ.get("HYPOTHESIS_PROFILE") == "long" else 3)
ORDERS = 2_000


@pytest.mark.parametrize("seed", SEEDS)
def test_days_of_faults_end_with_ledger_and_provider_equal(seed: int) -> None:
    simulation = Simulation(seed, ORDERS)

    simulation.run()

    statuses = [each.model.state.order.status for each in simulation.orders]
    late = [p for each in simulation.orders for p in each.model.state.payments if p.late_capture]
    assert simulation.steps > 10 * ORDERS, "too few steps"
    assert simulation.now > FAULTS_END
    assert (
        min(statuses.count(OrderStatus.PAID), statuses.count(OrderStatus.CANCELLED)) > ORDERS / 10
    ), statuses
    assert late, "there was no late capture"


def test_the_same_seed_gives_the_same_run() -> None:
    one, again, other = (Simulation(seed, 200) for seed in (7, 7, 8))
    for simulation in (one, again, other):
        simulation.run()

    assert one.steps == again.steps
    assert [p.model for p in one.orders] == [p.model for p in again.orders]
    assert one.steps != other.steps


# ---------------------------------------------------------------- mutants


def charges_at_any_time(state: OrderState, payment: Payment) -> str:
    """Uses a key that may have expired."""
    return decide.provider_call(state, replace(payment, may_charge=True))


def keeps_late_captures(state: OrderState, message: Message) -> Effects:
    decided = decide.decide(state, message)
    is_capture = isinstance(message, messages.Captured)
    return tuple(e for e in decided if not (is_capture and isinstance(e, effects.OpenRefund)))


def charges_twice(state: OrderState, message: Message) -> Effects:
    """Opens another attempt while one is open."""
    if isinstance(message, messages.ChargeDue) and state.open_payment and len(state.payments) < 3:
        return (effects.OpenPayment(len(state.payments) + 1),)
    return decide.decide(state, message)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(provider_call=charges_at_any_time), id="charges at any time"),
        pytest.param(
            Rules(charge_window=1.4 * DAY), id="a charge window longer than the lifetime of a key"
        ),
        pytest.param(Rules(has_timers=False), id="no timers"),
        pytest.param(Rules(finds_refund_first=False), id="repeats a refund without a look"),
        pytest.param(Rules(decision=keeps_late_captures), id="keeps late captures"),
        pytest.param(Rules(decision=charges_twice), id="charges twice"),
    ],
)
def test_each_mutant_violates_a_rule(rules: Rules) -> None:
    with pytest.raises(AssertionError):
        for seed in range(3):
            Simulation(seed, ORDERS // 2, rules).run()
