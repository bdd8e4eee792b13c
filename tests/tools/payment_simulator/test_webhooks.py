"""Webhooks of the simulator: signature, retries, duplicates, loss, order."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from shop.adapters.payment_provider.webhook import verify
from tests.tools.payment_simulator.simulator_process import (
    SECRET,
    WebhookReceiver,
    charge_call,
    refund_call,
    running_simulator,
)
from tests.waiting import wait_for


def test_webhook_is_signed_and_retried_until_2xx(tmp_path: Path, receiver: WebhookReceiver) -> None:
    receiver.statuses = [500]
    with running_simulator(tmp_path / "records.sqlite3", receiver.url) as simulator:
        call = charge_call()
        outcome = simulator.provider().charge(call)
        wait_for(lambda: len(receiver.received) == 2, "the second delivery")
        wait_for(lambda: simulator.records()["webhooks"] == {"delivered": 1}, "the acknowledgement")
    notices = [verify(h, b, SECRET, datetime.now(UTC)) for h, b in receiver.received]
    assert notices[0] == notices[1]
    assert (notices[0].kind, notices[0].key) == ("captured", call.key)
    assert (notices[0].amount_minor, notices[0].currency) == (10_000, "KRW")
    assert notices[0].provider_ref == outcome.provider_ref


def test_every_final_status_sends_one_webhook(tmp_path: Path, receiver: WebhookReceiver) -> None:
    with running_simulator(tmp_path / "records.sqlite3", receiver.url) as simulator:
        provider = simulator.provider()
        paid, declined, voided = charge_call(), charge_call("CARD_DECLINED"), charge_call()
        ref = provider.charge(paid).provider_ref or ""
        provider.charge(declined)
        provider.create(voided)
        provider.cancel(voided)
        provider.refund(refund_call(paid, ref, 9_000))
        provider.refund(refund_call(paid, ref, 9_000))
        wait_for(lambda: len(receiver.received) == 5, "five webhooks")
    types = sorted(event["type"] for event in receiver.events())
    assert types == [
        "charge.captured", "charge.declined", "charge.voided", "refund.rejected", "refund.succeeded"
    ]  # fmt: skip
    assert len({event["id"] for event in receiver.events()}) == 5


def test_webhook_faults_lose_duplicate_and_reorder(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    with running_simulator(tmp_path / "records.sqlite3", receiver.url) as simulator:
        provider = simulator.provider()
        simulator.set_faults(probabilities={"webhook_lost": 1.0})
        provider.charge(charge_call())
        assert simulator.records()["webhooks"] == {"lost": 1}
        simulator.set_faults(probabilities={"webhook_duplicated": 1.0})
        provider.charge(charge_call())
        wait_for(lambda: len(receiver.received) >= 2, "duplicates")
        wait_for(lambda: simulator.records()["webhooks"].get("delivered") == 1, "their receipt")
        assert len({event["id"] for event in receiver.events()}) == 1
        receiver.received.clear()
        simulator.set_faults(seed=3, probabilities={"webhook_reordered": 1.0}, reorder_seconds=0.5)
        calls = [charge_call() for _ in range(6)]
        for call in calls:
            provider.charge(call)
        wait_for(lambda: len(receiver.received) == 6, "six webhooks")
    arrived = [event["data"]["key"] for event in receiver.events()]
    assert sorted(arrived) == sorted(call.key for call in calls)
    assert arrived != [call.key for call in calls]


def test_restart_delivers_pending_webhooks(tmp_path: Path, receiver: WebhookReceiver) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        unreachable = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with running_simulator(tmp_path / "records.sqlite3", unreachable) as simulator:
            call = charge_call()
            simulator.provider().charge(call)
            assert simulator.records()["webhooks"] == {"pending": 1}
            assert simulator.stop() == 0
            simulator.webhook_url = receiver.url
            simulator.start()
            wait_for(lambda: receiver.received, "the pending webhook")
            wait_for(
                lambda: simulator.records()["webhooks"] == {"delivered": 1}, "the acknowledgement"
            )
    assert [event["data"]["key"] for event in receiver.events()] == [call.key]


def test_webhook_undelivered_for_a_day_is_parked(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        unreachable = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with running_simulator(tmp_path / "records.sqlite3", unreachable) as simulator:
            simulator.provider().charge(charge_call())
            simulator.stop()
            with closing(sqlite3.connect(simulator.data)) as records, records:
                records.execute("update webhooks set created_at = created_at - 86400, next_at = 0")
            simulator.start()
            wait_for(
                lambda: simulator.records()["webhooks"] == {"parked": 1}, "the end of its retries"
            )
