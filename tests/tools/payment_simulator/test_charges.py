"""Charges at the simulator, through the adapter: faults, cancellation, idempotency keys, lists."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from shop.primitives.errors import Unavailable
from tests.tools.payment_simulator.simulator_process import (
    SimulatorProcess,
    charge_call,
    refund_call,
)
from tests.waiting import wait_for


@pytest.mark.parametrize("method", ["CARD", "card", "CARD_SLOW", "card_slow_answer", "BANK"])
def test_accepted_payment_method_is_captured(simulator: SimulatorProcess, method: str) -> None:
    call = charge_call(method)
    outcome = simulator.provider().charge(call)
    assert (outcome.kind, outcome.amount_minor, outcome.currency) == ("captured", 10_000, "KRW")
    assert outcome.provider_ref and outcome.provider_ref.startswith("ch_")
    assert simulator.captures(call.key) == 1


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("CARD_DECLINED", "card_declined"),
        ("card_decline", "card_declined"),
        ("CARD_INSUFFICIENT_FUNDS", "insufficient_funds"),
        ("CARD_EXPIRED", "expired_card"),
    ],
)
def test_declined_payment_method_stays_declined(
    simulator: SimulatorProcess, method: str, reason: str
) -> None:
    call, provider = charge_call(method), simulator.provider()
    first, again, cancelled = provider.charge(call), provider.charge(call), provider.cancel(call)
    assert (first.kind, first.reason) == ("declined", reason)
    assert again == first
    assert cancelled == first
    assert simulator.captures(call.key) == 0


@pytest.mark.parametrize(
    ("method", "reason", "captures_after_first"),
    [
        ("CARD_TIMEOUT_BEFORE", "timeout", 0),
        ("CARD_TIMEOUT_AFTER", "timeout", 1),
        ("CARD_TIMEOUT", "timeout", 1),
        ("CARD_ERROR_BEFORE", "HTTP 500", 0),
        ("CARD_ERROR_AFTER", "HTTP 500", 1),
        ("CARD_ERROR", "HTTP 500", 1),
        ("CARD_RATE_LIMITED", "HTTP 429", 0),
    ],
)
def test_retry_after_an_unknown_outcome_captures_once(
    simulator: SimulatorProcess, method: str, reason: str, captures_after_first: int
) -> None:
    call, provider = charge_call(method), simulator.provider(timeout_seconds=0.4)
    first = provider.charge(call)
    captures = simulator.captures(call.key)
    second = provider.charge(call)
    assert (first.kind, first.reason) == ("unknown", reason)
    assert captures == captures_after_first
    assert second.kind == "captured"
    assert simulator.captures(call.key) == 1


def test_late_charge_answers_404_and_is_captured_later(simulator: SimulatorProcess) -> None:
    call, provider = charge_call("CARD_LATE"), simulator.provider()
    first = provider.charge(call)
    assert (first.kind, first.reason) == ("unknown", "HTTP 404")
    assert provider.find(call).kind == "unknown"
    assert simulator.request("GET", "/scheduled")[1]["late_confirms"] == 1
    wait_for(lambda: provider.find(call).kind == "captured", "the late capture")
    assert simulator.request("GET", "/scheduled")[1]["late_confirms"] == 0
    assert simulator.captures(call.key) == 1


def test_cancelled_late_charge_is_not_captured(simulator: SimulatorProcess) -> None:
    call, probe, provider = charge_call("CARD_LATE"), charge_call("CARD_LATE"), simulator.provider()
    assert provider.charge(call).kind == "unknown"
    assert provider.cancel(call).kind == "voided"
    assert provider.charge(probe).kind == "unknown"
    wait_for(lambda: simulator.captures(probe.key), "the capture of a later request")
    assert provider.find(call).kind == "voided"
    assert simulator.captures(call.key) == 0


def test_ignored_tombstone_captures_after_the_void(simulator: SimulatorProcess) -> None:
    simulator.set_faults(probabilities={"tombstone_ignored": 1.0}, late_seconds=0.2)
    call, provider = charge_call("CARD_LATE"), simulator.provider()
    assert provider.charge(call).kind == "unknown"
    assert provider.cancel(call).kind == "voided"
    wait_for(lambda: provider.find(call).kind == "captured", "the capture after the void")
    assert simulator.captures(call.key) == 1


def test_charge_after_its_key_was_cancelled_is_voided(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    first, again = provider.cancel(call), provider.cancel(call)
    assert (first.kind, first.amount_minor) == ("voided", None)
    assert again == first
    assert provider.charge(call).kind == "voided"
    assert provider.create(call).kind == "voided"
    assert provider.confirm(call).kind == "voided"
    assert simulator.captures(call.key) == 0


def test_cancel_during_a_slow_charge_voids_it(simulator: SimulatorProcess) -> None:
    simulator.set_faults(slow_seconds=0.5)
    call, provider = charge_call("CARD_SLOW"), simulator.provider()
    with ThreadPoolExecutor() as pool:
        charging = pool.submit(provider.charge, call)
        wait_for(lambda: simulator.request("GET", "/faults")[1]["fired"], "the slow confirmation")
        assert provider.cancel(call).kind == "voided"
        assert charging.result().kind == "voided"
    assert simulator.captures(call.key) == 0


def test_cancel_after_the_capture_returns_captured(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    captured = provider.charge(call)
    assert provider.cancel(call) == captured
    assert provider.find(call) == captured


def test_ten_concurrent_charges_capture_once(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(provider.charge, [call] * 10))
    assert len(set(outcomes)) == 1
    assert outcomes[0].kind == "captured"
    assert simulator.captures(call.key) == 1


def test_repeated_key_returns_the_same_response_and_422_for_another_body(
    simulator: SimulatorProcess,
) -> None:
    call, provider = charge_call(), simulator.provider()
    body = {
        "key": call.key, "amount_minor": 10_000, "currency": "KRW", "payment_method": "CARD",
        "order_id": call.order_id, "payment_id": call.payment_id,
    }  # fmt: skip
    first = simulator.request("POST", "/intents", body)
    provider.confirm(call)
    assert simulator.request("POST", "/intents", body) == first
    status, _ = simulator.request("POST", "/intents", {**body, "amount_minor": 9_999})
    assert status == 422
    other = dataclasses.replace(call, amount_minor=9_999)
    assert provider.create(other).kind == "mismatch"
    assert provider.charge(other).kind == "mismatch"
    assert provider.find(other).kind == "mismatch"


def test_expired_key_charges_again_but_its_tombstone_remains(simulator: SimulatorProcess) -> None:
    simulator.set_faults(key_life_seconds=0)
    call, cancelled, provider = charge_call(), charge_call(), simulator.provider()
    assert provider.cancel(cancelled).kind == "voided"
    assert provider.charge(call).kind == "captured"
    assert provider.charge(call).kind == "captured"
    assert simulator.captures(call.key) == 2
    assert provider.charge(cancelled).kind == "voided"


def test_charge_after_charge_not_after_sends_nothing(simulator: SimulatorProcess) -> None:
    late = charge_call(charge_not_after=datetime.now(UTC) - timedelta(seconds=1))
    provider = simulator.provider()
    for outcome in (provider.create(late), provider.confirm(late), provider.charge(late)):
        assert (outcome.kind, outcome.reason) == ("unknown", "past charge_not_after")
    assert simulator.request("GET", f"/intents/{late.key}")[0] == 404
    assert provider.cancel(late).kind == "voided"


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("CARD_WRONG_AMOUNT", "another amount"),
        ("CARD_WRONG_CURRENCY", "another currency"),
        ("CARD_WRONG_KEY", "another key"),
    ],
)
def test_response_with_another_amount_currency_or_key_is_a_mismatch(
    simulator: SimulatorProcess, method: str, reason: str
) -> None:
    call, provider = charge_call(method), simulator.provider()
    outcome = provider.charge(call)
    assert (outcome.kind, outcome.reason) == ("mismatch", reason)
    assert provider.find(call).kind == "captured"


def test_list_pages_charges_and_refunds_in_commit_order(
    simulator: SimulatorProcess,
) -> None:
    provider = simulator.provider()
    cursor = provider.list_since("", 500).next_cursor
    while provider.list_since(cursor, 500).has_more:
        cursor = provider.list_since(cursor, 500).next_cursor
    call = charge_call()
    ref = provider.charge(call).provider_ref or ""
    refund = refund_call(call, ref, 3_000)
    provider.refund(refund)
    provider.charge(charge_call("CARD_DECLINED"))
    first = provider.list_since(cursor, 1)
    second = provider.list_since(first.next_cursor, 1)
    third = provider.list_since(second.next_cursor, 1)
    assert [(e.kind, e.key, e.charge_key, e.amount_minor) for e in first.entries] == [
        ("charge", call.key, call.key, 10_000)
    ]
    assert [(e.kind, e.key, e.charge_key, e.amount_minor) for e in second.entries] == [
        ("refund", refund.key, call.key, 3_000)
    ]
    assert (first.has_more, second.has_more) == (True, False)
    assert (third.entries, third.next_cursor) == ((), second.next_cursor)


def test_list_with_an_invalid_cursor_raises_unavailable(simulator: SimulatorProcess) -> None:
    with pytest.raises(Unavailable):
        simulator.provider().list_since("not a cursor", 10)
