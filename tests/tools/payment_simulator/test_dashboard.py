"""What happens at the simulated provider without a request of the shop, drawn at random."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.tools.payment_simulator.simulator_process import (
    SimulatorProcess,
    WebhookReceiver,
    charge_call,
    refund_call,
    running_simulator,
)
from tests.waiting import wait_for
from tools.payment_simulator.dashboard import plan_unrequested
from tools.payment_simulator.faults import FaultSettings, FaultSource

ALL_DRAWN = {"provider_refund": 1.0, "dispute": 1.0, "other_shop": 1.0}


def _entries(simulator: SimulatorProcess, kind: str) -> list[dict[str, Any]]:
    return [entry for entry in simulator.records()["entries"] if entry["kind"] == kind]


def _change_file(simulator: SimulatorProcess, statement: str) -> None:
    with closing(sqlite3.connect(simulator.data)) as file, file:
        file.execute(statement)


def _planned(simulator: SimulatorProcess) -> int:
    """How many drawn actions are not executed yet."""
    _, scheduled = simulator.request("GET", "/scheduled")
    return scheduled["unrequested"]


def test_drawn_refund_is_executed_without_a_key_of_the_shop(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    with running_simulator(tmp_path / "records.sqlite3", receiver.url) as simulator:
        simulator.set_faults(probabilities={"provider_refund": 1.0}, unrequested_seconds=0)
        call = charge_call()
        simulator.provider().charge(call)
        wait_for(lambda: len(receiver.received) == 2, "the webhooks of charge and refund")
        (refund,) = _entries(simulator, "refund")
        _, faults = simulator.request("GET", "/faults")

    assert refund["charge_key"] == call.key
    assert refund["key"] == refund["provider_ref"]
    assert 0 < refund["amount_minor"] <= call.amount_minor
    (webhook,) = [event for event in receiver.events() if event["type"] == "refund.succeeded"]
    assert webhook["data"]["key"] == refund["key"]
    assert faults["fired"]["provider_refund"] == 1


def test_drawn_disputes_are_opened_and_then_won_or_lost(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    with running_simulator(tmp_path / "records.sqlite3", receiver.url) as simulator:
        simulator.set_faults(probabilities={"dispute": 1.0}, unrequested_seconds=0)
        calls = [charge_call() for _ in range(10)]
        for call in calls:
            simulator.provider().charge(call)
        wait_for(lambda: len(receiver.received) == 30, "three webhooks for each charge")
        entries, disputes = _entries(simulator, "dispute"), simulator.records()["disputes"]

    opened_and_closed = sorted(call.key for call in calls for _ in range(2))
    assert sorted(entry["charge_key"] for entry in entries) == opened_and_closed
    assert {dispute["status"] for dispute in disputes} == {"won", "lost"}
    assert {dispute["amount_minor"] for dispute in disputes} == {10_000}
    closed = {"won": "dispute.won", "lost": "dispute.lost"}
    sent = {(e["type"], e["data"]["key"]) for e in receiver.events()}
    assert {(closed[d["status"]], d["key"]) for d in disputes} <= sent


def test_drawn_charge_of_another_shop_has_a_key_of_another_form(
    simulator: SimulatorProcess,
) -> None:
    simulator.set_faults(probabilities={"other_shop": 1.0})
    call = charge_call()
    simulator.provider().charge(call)
    wait_for(lambda: _planned(simulator) == 0, "the drawn charge")

    *_, own, other = _entries(simulator, "charge")

    assert own["key"] == call.key
    assert other["key"].startswith("other-shop:")
    assert (other["amount_minor"], other["currency"]) == (10_000, "KRW")


def test_drawn_refund_survives_a_restart(tmp_path: Path) -> None:
    with running_simulator(tmp_path / "records.sqlite3") as simulator:
        simulator.set_faults(probabilities={"provider_refund": 1.0}, unrequested_seconds=3600)
        simulator.provider().charge(charge_call())
        assert (_planned(simulator), _entries(simulator, "refund")) == (1, [])
        simulator.stop()
        _change_file(simulator, "update unrequested set due_at = 0")
        simulator.start()
        wait_for(lambda: _entries(simulator, "refund"), "the drawn refund")
        assert _planned(simulator) == 0


def test_drawn_refund_of_a_charge_that_was_refunded_meanwhile_does_nothing(tmp_path: Path) -> None:
    with running_simulator(tmp_path / "records.sqlite3") as simulator:
        simulator.set_faults(probabilities={"provider_refund": 1.0}, unrequested_seconds=3600)
        call, provider = charge_call(), simulator.provider()
        refund = refund_call(call, provider.charge(call).provider_ref or "", call.amount_minor)
        assert provider.refund(refund).kind == "succeeded"
        simulator.stop()
        _change_file(simulator, "update unrequested set due_at = 0")
        simulator.start()
        wait_for(lambda: _planned(simulator) == 0, "the drawn refund")
        assert [entry["key"] for entry in _entries(simulator, "refund")] == [refund.key]


def test_one_seed_always_draws_the_same_actions() -> None:
    settings = FaultSettings(seed=7, probabilities=ALL_DRAWN)
    first, second = (plan_unrequested(FaultSource(settings), 1000) for _ in range(2))

    assert first == second
    actions = [planned.action for planned in first]
    assert actions in (
        ["refund", "dispute", "won", "other_shop"],
        ["refund", "dispute", "lost", "other_shop"],
    )


@pytest.mark.parametrize("seed", range(20))
def test_drawn_actions_are_within_the_charge_and_the_time(seed: int) -> None:
    settings = FaultSettings(seed=seed, probabilities=ALL_DRAWN, unrequested_seconds=3)
    planned = plan_unrequested(FaultSource(settings), 1000)

    assert all(0 < each.amount_minor <= 1000 for each in planned)
    refund, opened, closed, _ = planned
    assert 0 <= refund.delay_seconds <= 3
    assert 0 <= opened.delay_seconds <= closed.delay_seconds <= 6


def test_faults_of_calls_are_drawn_the_same_whether_or_not_a_charge_was_captured() -> None:
    settings = FaultSettings(seed=7, probabilities={"slow": 0.5})
    without, with_capture = FaultSource(settings), FaultSource(settings)

    assert plan_unrequested(with_capture, 1000) == []

    assert with_capture.uniform(0, 1) == without.uniform(0, 1)
