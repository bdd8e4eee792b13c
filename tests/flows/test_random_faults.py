"""Random faults: many buyers, support, two sweeps, a lossy broker and a faulty provider at once.

Every snapshot satisfies the invariants, and all work ends once the faults have ended.
``STORM_SEEDS`` and ``STORM_STEPS`` lengthen a run.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.harness import FlowHarness, Person, assert_idle_and_consistent, assert_invariants
from tests.waiting import wait_for

SEEDS = range(int(os.environ.get("STORM_SEEDS", "2")))
STEPS = int(os.environ.get("STORM_STEPS", "25"))
BUYERS = 4
METHODS = ("CARD", "CARD", "CARD", "CARD_DECLINED", "CARD_TIMEOUT_AFTER", "CARD_ERROR_BEFORE")
FAULTS = {
    "error_before": 0.08,
    "error_after": 0.08,
    "timeout_before": 0.03,
    "timeout_after": 0.03,
    "rate_limited": 0.05,
    "wrong_amount": 0.04,
    "wrong_key": 0.04,
    "late": 0.05,
    "tombstone_ignored": 0.5,
}
LATE_SECONDS = 0.5
HONEST = {200, 201, 400, 404, 409, 422, 503}


class Buyer:
    """A client that orders, cancels, pays again and repeats requests, in a seeded order."""

    def __init__(self, flow: FlowHarness, seed: int, products: list[int], support: Person) -> None:
        self.random = random.Random(seed)
        self.person = flow.shop.person()
        self.flow = flow
        self.products = products
        self.support = support
        self.orders: list[str] = []
        self.statuses: Counter[int] = Counter()

    def play(self) -> None:
        for _ in range(STEPS):
            act = self.random.choice((self.order, self.order, self.cancel, self.pay, self.refund))
            act()

    def order(self) -> None:
        body = {
            "productId": self.random.choice(self.products),
            "quantity": self.random.randint(1, 2),
            "paymentMethod": self.random.choice(METHODS),
        }
        key = f"storm-key-{self.random.getrandbits(64):016x}"
        for _ in range(self.random.randint(1, 2)):
            answer = self.person.post("/orders", body, key=key)
            self.statuses[answer.status] += 1
            if answer.status == 201 and answer.json["id"] not in self.orders:
                self.orders.append(answer.json["id"])

    def cancel(self) -> None:
        self._about_an_order(lambda order: self.person.patch(f"/orders/{order}/cancel").status)

    def pay(self) -> None:
        body = {"paymentMethod": "CARD"}
        self._about_an_order(
            lambda order: self.person.post(f"/orders/{order}/payments", body).status
        )

    def refund(self) -> None:
        body = {"amount": self.random.randint(1, 700), "reason": "storm"}
        self._about_an_order(
            lambda order: self.support.post(f"/orders/{order}/refunds", body).status
        )

    def _about_an_order(self, act: Callable[[str], int]) -> None:
        if self.orders:
            self.statuses[act(self.random.choice(self.orders))] += 1


def _bad_broker(flow: FlowHarness, seed: int, is_over: threading.Event) -> None:
    """Loses a tenth of the events, sends a third twice, in any order."""
    dice = random.Random(seed)
    while not is_over.is_set():
        kept = [m for m in flow.broker.take() if dice.random() > 0.1]
        flow.broker.messages += kept + [m for m in kept if dice.random() < 0.3]
        flow.deliver(shuffled_by=seed, at_once=True)


def _sweeper(flow: FlowHarness, is_over: threading.Event) -> None:
    while not is_over.is_set():
        flow.sweep_all()


def _checker(flow: FlowHarness, is_over: threading.Event) -> None:
    while not is_over.is_set():
        assert_invariants(flow, at_rest=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_faults_violate_no_invariant_during_and_after_the_run(
    flow: FlowHarness, seed: int
) -> None:
    flow.simulator.set_faults(seed=seed, late_seconds=LATE_SECONDS, probabilities=FAULTS)
    products = [flow.shop.product(price=700, stock=stock) for stock in (1, 5, 500)]
    support = flow.shop.person("support")
    buyers = [Buyer(flow, seed * 100 + n, products, support) for n in range(BUYERS)]
    is_over = threading.Event()
    failures: list[BaseException] = []

    def guarded(act: Callable[..., None], *parameters: object) -> threading.Thread:
        def run() -> None:
            try:
                act(*parameters)
            except (AssertionError, LookupError, ValueError, OSError) as error:
                failures.append(error)

        return threading.Thread(target=run)

    players = [guarded(buyer.play) for buyer in buyers]
    others = [
        guarded(_bad_broker, flow, seed, is_over),
        guarded(_sweeper, flow, is_over),
        guarded(_sweeper, flow, is_over),
        guarded(_checker, flow, is_over),
    ]
    for thread in [*players, *others]:
        thread.start()
    for thread in players:
        thread.join()
    is_over.set()
    for thread in others:
        thread.join()

    assert not failures, failures[0]
    statuses = sum((buyer.statuses for buyer in buyers), Counter[int]())
    assert set(statuses) <= HONEST, statuses
    assert statuses[201] > BUYERS * STEPS / 8, "the faults must have an effect"
    _heal(flow)
    assert_idle_and_consistent(flow)
    assert not [kind for kind in flow.operator_alerts() if kind.startswith(("stuck", "ghost"))]


def _heal(flow: FlowHarness) -> None:
    """Ends all faults, expires unpaid orders, and reconciles late captures."""
    flow.simulator.set_faults()
    last_late_charge = time.monotonic() + LATE_SECONDS + 0.3
    flow.run_until_idle()
    wait_for(lambda: time.monotonic() > last_late_charge, "the last late charge")
    flow.shop.sql("update shop.orders set expires_at = now() where status = 'PENDING'")
    flow.sweep_all()
    flow.run_until_idle()
    flow.reconcile()
