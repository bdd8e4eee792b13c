"""Refunds at the simulator, through the adapter."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.tools.payment_simulator.simulator_process import (
    SimulatorProcess,
    charge_call,
    refund_call,
)


def test_refunds_never_exceed_the_capture(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    ref = provider.charge(call).provider_ref or ""
    part, rest = refund_call(call, ref, 4_000), refund_call(call, ref, 6_000)
    assert provider.refund(part).kind == "succeeded"
    assert provider.refund(part) == provider.find_refund(part)
    too_much = provider.refund(refund_call(call, ref, 6_001))
    assert (too_much.kind, too_much.reason) == ("rejected", "exceeds_capture")
    assert provider.refund(rest).kind == "succeeded"
    assert provider.refund(refund_call(call, ref, 1)).kind == "rejected"
    refunds = [entry for entry in simulator.records()["entries"] if entry["charge_key"] == call.key]
    assert sum(entry["amount_minor"] for entry in refunds if entry["kind"] == "refund") == 10_000


def test_ten_concurrent_full_refunds_give_one(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    ref = provider.charge(call).provider_ref or ""
    with ThreadPoolExecutor(10) as pool:
        calls = [refund_call(call, ref, 10_000) for _ in range(10)]
        kinds = sorted(outcome.kind for outcome in pool.map(provider.refund, calls))
    assert kinds == ["rejected"] * 9 + ["succeeded"]


def test_refund_with_a_used_key_and_another_amount_is_a_mismatch(
    simulator: SimulatorProcess,
) -> None:
    call, provider = charge_call(), simulator.provider()
    refund = refund_call(call, provider.charge(call).provider_ref or "", 4_000)
    assert provider.refund(refund).kind == "succeeded"
    other = dataclasses.replace(refund, amount_minor=4_001)
    assert provider.refund(other).kind == "mismatch"
    assert provider.find_refund(other).kind == "mismatch"


def test_refund_without_a_capture_is_unknown(simulator: SimulatorProcess) -> None:
    call, provider = charge_call("CARD_DECLINED"), simulator.provider()
    ref = provider.charge(call).provider_ref or ""
    refund = refund_call(call, ref, 1)
    assert provider.refund(refund).kind == "unknown"
    assert provider.find_refund(refund).kind == "missing"


def test_refund_of_a_rejecting_payment_method_is_rejected(simulator: SimulatorProcess) -> None:
    call, provider = charge_call("CARD_REFUND_REJECTED"), simulator.provider()
    refund = refund_call(call, provider.charge(call).provider_ref or "", 10_000)
    outcome = provider.refund(refund)
    assert (outcome.kind, outcome.reason) == ("rejected", "refund_rejected")


def test_refund_without_provider_ref_finds_its_charge_by_key(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    provider.charge(call)
    assert provider.refund(refund_call(call, "", 10_000)).kind == "succeeded"
    other = charge_call()
    provider.charge(other)
    assert provider.refund(refund_call(other, "ch_unknown", 1)).kind == "unknown"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("timeout_before", "unknown"),
        ("timeout_after", "unknown"),
        ("error_before", "unknown"),
        ("error_after", "unknown"),
        ("rate_limited", "unknown"),
        ("wrong_amount", "mismatch"),
        ("wrong_currency", "mismatch"),
        ("wrong_key", "mismatch"),
        ("slow", "succeeded"),
        ("slow_answer", "succeeded"),
    ],
)
def test_drawn_fault_applies_to_refunds(simulator: SimulatorProcess, fault: str, kind: str) -> None:
    call, provider = charge_call(), simulator.provider(timeout_seconds=0.5)
    refund = refund_call(call, provider.charge(call).provider_ref or "", 10_000)
    simulator.set_faults(probabilities={fault: 1.0}, slow_seconds=0.1)
    assert provider.refund(refund).kind == kind
    assert simulator.request("GET", "/faults")[1]["fired"] == {fault: 1}
    simulator.set_faults()
    assert provider.refund(refund).kind == "succeeded"
    assert [entry["key"] for entry in simulator.records()["entries"]].count(refund.key) == 1
