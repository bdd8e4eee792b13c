"""The sandbox as a process of its own, over real sockets, through the adapter and around it."""

from __future__ import annotations

import dataclasses
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path

import pytest

from shop.adapters.payment_provider.webhook import verify
from shop.primitives.errors import Unavailable
from tests.tools.payment_simulator.simulator_process import (
    API_KEY,
    SECRET,
    SimulatorProcess,
    WebhookReceiver,
    charge_call,
    refund_call,
    running_simulator,
)
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def shared_simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with running_simulator(tmp_path_factory.mktemp("sandbox") / "books.sqlite3") as simulator:
        yield simulator


@pytest.fixture
def simulator(shared_simulator: SimulatorProcess) -> SimulatorProcess:
    shared_simulator.set_faults(slow_seconds=0.2, late_seconds=0.3, hang_seconds=5)
    return shared_simulator


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    yield receiver
    receiver.close()


@pytest.mark.parametrize("method", ["CARD", "card", "CARD_SLOW", "card_slow_answer", "BANK"])
def test_approves(simulator: SimulatorProcess, method: str) -> None:
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
def test_declines_for_good(simulator: SimulatorProcess, method: str, reason: str) -> None:
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
def test_first_try_is_unknown_and_the_same_key_again_is_captured_once(
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


def test_late_charge_answers_404_and_captures_on_its_own(simulator: SimulatorProcess) -> None:
    call, provider = charge_call("CARD_LATE"), simulator.provider()
    first = provider.charge(call)
    assert (first.kind, first.reason) == ("unknown", "HTTP 404")
    assert provider.find(call).kind == "unknown"
    wait_for(lambda: provider.find(call).kind == "captured", "the late capture")
    assert simulator.captures(call.key) == 1


def test_tombstone_refuses_the_late_charge(simulator: SimulatorProcess) -> None:
    call, probe, provider = charge_call("CARD_LATE"), charge_call("CARD_LATE"), simulator.provider()
    assert provider.charge(call).kind == "unknown"
    assert provider.cancel(call).kind == "voided"
    assert provider.charge(probe).kind == "unknown"
    wait_for(lambda: simulator.captures(probe.key), "a later request than the one cancelled")
    assert provider.find(call).kind == "voided"
    assert simulator.captures(call.key) == 0


def test_provider_without_tombstones_captures_after_the_void(simulator: SimulatorProcess) -> None:
    simulator.set_faults(probabilities={"tombstone_ignored": 1.0}, late_seconds=0.2)
    call, provider = charge_call("CARD_LATE"), simulator.provider()
    assert provider.charge(call).kind == "unknown"
    assert provider.cancel(call).kind == "voided"
    wait_for(lambda: provider.find(call).kind == "captured", "the capture after the void")
    assert simulator.captures(call.key) == 1


def test_cancelling_an_unseen_key_refuses_its_charge(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    first, again = provider.cancel(call), provider.cancel(call)
    assert (first.kind, first.amount_minor) == ("voided", None)
    assert again == first
    assert provider.charge(call).kind == "voided"
    assert provider.create(call).kind == "voided"
    assert provider.confirm(call).kind == "voided"
    assert simulator.captures(call.key) == 0


def test_cancel_while_the_charge_is_slow_wins(simulator: SimulatorProcess) -> None:
    simulator.set_faults(slow_seconds=0.5)
    call, provider = charge_call("CARD_SLOW"), simulator.provider()
    with ThreadPoolExecutor() as pool:
        charging = pool.submit(provider.charge, call)
        wait_for(lambda: simulator.request("GET", "/faults")[1]["fired"], "the slow confirmation")
        assert provider.cancel(call).kind == "voided"
        assert charging.result().kind == "voided"
    assert simulator.captures(call.key) == 0


def test_cancel_after_capture_says_captured(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    captured = provider.charge(call)
    assert provider.cancel(call) == captured
    assert provider.find(call) == captured


def test_ten_charges_at_once_capture_once(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    with ThreadPoolExecutor(10) as pool:
        outcomes = list(pool.map(lambda _: provider.charge(call), range(10)))
    assert len(set(outcomes)) == 1
    assert outcomes[0].kind == "captured"
    assert simulator.captures(call.key) == 1


def test_same_key_same_body_is_the_same_answer_and_another_body_is_422(
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


def test_forgotten_key_charges_again_but_a_tombstone_stands(simulator: SimulatorProcess) -> None:
    simulator.set_faults(key_life_seconds=0)
    call, cancelled, provider = charge_call(), charge_call(), simulator.provider()
    assert provider.cancel(cancelled).kind == "voided"
    assert provider.charge(call).kind == "captured"
    assert provider.charge(call).kind == "captured"
    assert simulator.captures(call.key) == 2
    assert provider.charge(cancelled).kind == "voided"


def test_nothing_is_sent_past_charge_not_after(simulator: SimulatorProcess) -> None:
    late = charge_call(charge_not_after=datetime.now(UTC) - timedelta(seconds=1))
    provider = simulator.provider()
    for outcome in (provider.create(late), provider.confirm(late), provider.charge(late)):
        assert (outcome.kind, outcome.reason) == ("unknown", "past charge_not_after")
    assert simulator.request("GET", f"/intents/{late.key}")[0] == 404
    assert provider.cancel(late).kind == "voided"


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


def test_ten_refunds_of_the_whole_at_once_give_one(simulator: SimulatorProcess) -> None:
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


def test_refund_of_what_was_not_captured_stays_unknown(simulator: SimulatorProcess) -> None:
    call, provider = charge_call("CARD_DECLINED"), simulator.provider()
    ref = provider.charge(call).provider_ref or ""
    refund = refund_call(call, ref, 1)
    assert provider.refund(refund).kind == "unknown"
    assert provider.find_refund(refund).kind == "missing"


def test_refund_may_be_rejected(simulator: SimulatorProcess) -> None:
    call, provider = charge_call("CARD_REFUND_REJECTED"), simulator.provider()
    refund = refund_call(call, provider.charge(call).provider_ref or "", 10_000)
    outcome = provider.refund(refund)
    assert (outcome.kind, outcome.reason) == ("rejected", "refund_rejected")


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("CARD_WRONG_AMOUNT", "another amount"),
        ("CARD_WRONG_CURRENCY", "another currency"),
        ("CARD_WRONG_KEY", "another key"),
    ],
)
def test_answer_about_something_else_is_not_believed_and_the_books_are_right(
    simulator: SimulatorProcess, method: str, reason: str
) -> None:
    call, provider = charge_call(method), simulator.provider()
    outcome = provider.charge(call)
    assert (outcome.kind, outcome.reason) == ("mismatch", reason)
    assert provider.find(call).kind == "captured"


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
def test_programmed_faults_reach_refunds_too(
    simulator: SimulatorProcess, fault: str, kind: str
) -> None:
    call, provider = charge_call(), simulator.provider(timeout_seconds=0.5)
    refund = refund_call(call, provider.charge(call).provider_ref or "", 10_000)
    simulator.set_faults(probabilities={fault: 1.0}, slow_seconds=0.1)
    assert provider.refund(refund).kind == kind
    assert simulator.request("GET", "/faults")[1]["fired"] == {fault: 1}
    simulator.set_faults()
    assert provider.refund(refund).kind == "succeeded"
    assert [entry["key"] for entry in simulator.records()["entries"]].count(refund.key) == 1


def test_seed_repeats_the_same_faults(simulator: SimulatorProcess) -> None:
    settings = {"seed": 42, "probabilities": {"error_after": 0.3, "rate_limited": 0.3}}
    runs = []
    for _ in range(2):
        simulator.set_faults(**settings)
        provider = simulator.provider()
        runs.append([provider.cancel(charge_call()).reason for _ in range(20)])
    assert runs[0] == runs[1]
    assert {"HTTP 500", "HTTP 429"} < set(runs[0])


@pytest.mark.parametrize(
    "settings",
    [
        {"probabilities": {"fire": 0.1}},
        {"probabilities": {"slow": 1.1}},
        {"probabilities": {"slow": 0.6, "late": 0.6}},
        {"probabilities": {"slow": True}},
        {"seed": 1.5},
        {"slow_seconds": -1},
        {"speed": 1},
    ],
)
def test_unreadable_fault_settings_change_nothing(
    simulator: SimulatorProcess, settings: dict[str, object]
) -> None:
    before = simulator.request("GET", "/faults")
    assert simulator.request("POST", "/faults", settings)[0] == 400
    assert simulator.request("GET", "/faults") == before


def test_list_gives_charges_and_refunds_in_commit_order_and_pages(
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


def test_list_of_an_unreachable_provider_is_unavailable(simulator: SimulatorProcess) -> None:
    with pytest.raises(Unavailable):
        simulator.provider().list_since("not a cursor", 10)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/books"), ("GET", "/charges"), ("POST", "/intents"), ("POST", "/faults")],
)
def test_wrong_key_is_401_everywhere(simulator: SimulatorProcess, method: str, path: str) -> None:
    body = {} if method == "POST" else None
    assert simulator.request(method, path, body, api_key="sandbox-key-of-a-tesT")[0] == 401
    assert simulator.request(method, path, body, api_key="")[0] == 401


@pytest.mark.parametrize(
    "change",
    [
        {"amount_minor": 0},
        {"amount_minor": -1},
        {"amount_minor": 1.5},
        {"amount_minor": True},
        {"amount_minor": 10**13},
        {"currency": "KR"},
        {"currency": "원원원"},
        {"key": ""},
        {"key": "k" * 256},
        {"key": "a\n"},
        {"order_id": None},
        {"more": 1},
    ],
)
def test_unreadable_intents_are_400(simulator: SimulatorProcess, change: dict[str, object]) -> None:
    body: dict[str, object] = {
        "key": charge_call().key, "amount_minor": 1, "currency": "KRW", "payment_method": "CARD",
        "order_id": "o", "payment_id": "p",
    }  # fmt: skip
    assert simulator.request("POST", "/intents", {**body, **change})[0] == 400
    assert simulator.request("POST", "/intents", body)[0] == 200


def test_connection_is_kept_across_requests_and_refusals(simulator: SimulatorProcess) -> None:
    connection = HTTPConnection(simulator.url.split("//")[1], timeout=5)
    statuses = []
    for headers, body in (({}, "{}"), ({"Authorization": f"Bearer {API_KEY}"}, "[")):
        connection.request("POST", "/intents", body, headers)
        response = connection.getresponse()
        response.read()
        statuses.append(response.status)
    sock = connection.sock
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    assert connection.sock is sock
    assert statuses == [401, 400]
    connection.close()


def test_hang_ends_when_the_client_goes_away(simulator: SimulatorProcess) -> None:
    simulator.set_faults(probabilities={"timeout_before": 1.0}, hang_seconds=600)
    started = time.monotonic()
    outcome = simulator.provider(timeout_seconds=0.3).cancel(charge_call())
    assert outcome.reason == "timeout"
    assert time.monotonic() - started < 2
    threads = Path(f"/proc/{simulator.process.pid}/task")
    quiet = len(list(threads.iterdir()))
    for _ in range(5):
        simulator.provider(timeout_seconds=0.1).cancel(charge_call())
    wait_for(lambda: len(list(threads.iterdir())) <= quiet, "the hung connections to be let go")


def test_restart_keeps_books_faults_and_late_charges(tmp_path: Path) -> None:
    with running_simulator(tmp_path / "books.sqlite3") as simulator:
        simulator.set_faults(late_seconds=0.5, seed=9)
        done, late, gone = charge_call(), charge_call("CARD_LATE"), charge_call()
        captured = simulator.provider().charge(done)
        assert simulator.provider().charge(late).kind == "unknown"
        assert simulator.provider().cancel(gone).kind == "voided"
        simulator.stop(signal.SIGKILL)
        simulator.start()
        provider = simulator.provider()
        assert provider.find(done) == captured
        assert provider.charge(gone).kind == "voided"
        assert simulator.request("GET", "/faults")[1]["seed"] == 9
        wait_for(lambda: provider.find(late).kind == "captured", "the late capture")


def test_restart_delivers_what_was_pending(tmp_path: Path, receiver: WebhookReceiver) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with running_simulator(tmp_path / "books.sqlite3", nobody) as simulator:
            call = charge_call()
            simulator.provider().charge(call)
            assert simulator.records()["webhooks"] == {"pending": 1}
            assert simulator.stop() == 0
            simulator.webhook_url = receiver.url
            simulator.start()
            wait_for(lambda: receiver.received, "the pending webhook")
            wait_for(lambda: simulator.records()["webhooks"] == {"delivered": 1}, "its receipt")
    assert [event["data"]["key"] for event in receiver.events()] == [call.key]


def test_webhooks_are_signed_and_repeated_until_2xx(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    receiver.statuses = [500]
    with running_simulator(tmp_path / "books.sqlite3", receiver.url) as simulator:
        call = charge_call()
        outcome = simulator.provider().charge(call)
        wait_for(lambda: len(receiver.received) == 2, "the second delivery")
        wait_for(lambda: simulator.records()["webhooks"] == {"delivered": 1}, "its receipt")
    notices = [verify(h, b, SECRET, datetime.now(UTC)) for h, b in receiver.received]
    assert notices[0] == notices[1]
    assert (notices[0].kind, notices[0].key, notices[0].is_refund) == ("captured", call.key, False)
    assert (notices[0].amount_minor, notices[0].currency) == (10_000, "KRW")
    assert notices[0].provider_ref == outcome.provider_ref


def test_every_end_has_its_webhook(tmp_path: Path, receiver: WebhookReceiver) -> None:
    with running_simulator(tmp_path / "books.sqlite3", receiver.url) as simulator:
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


def test_webhooks_may_be_lost_duplicated_and_reordered(
    tmp_path: Path, receiver: WebhookReceiver
) -> None:
    with running_simulator(tmp_path / "books.sqlite3", receiver.url) as simulator:
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
        simulator.set_faults(seed=3, probabilities={"webhook_reordered": 1.0}, reorder_seconds=1.0)
        calls = [charge_call() for _ in range(6)]
        for call in calls:
            provider.charge(call)
        wait_for(lambda: len(receiver.received) == 6, "six webhooks")
    arrived = [event["data"]["key"] for event in receiver.events()]
    assert sorted(arrived) == sorted(call.key for call in calls)
    assert arrived != [call.key for call in calls]


def test_stops_cleanly_while_a_request_hangs(tmp_path: Path) -> None:
    with running_simulator(tmp_path / "books.sqlite3") as simulator, ThreadPoolExecutor() as pool:
        call = charge_call("CARD_TIMEOUT_AFTER")
        hanging = pool.submit(simulator.provider(timeout_seconds=20).charge, call)
        wait_for(lambda: simulator.captures(call.key), "the capture before the hang")
        assert simulator.stop(signal.SIGINT) == 0
        assert hanging.result().kind == "unknown"
        simulator.start()
        assert simulator.provider().charge(call).kind == "captured"
        assert simulator.captures(call.key) == 1


def test_idle_it_does_nothing(tmp_path: Path, receiver: WebhookReceiver) -> None:
    with running_simulator(tmp_path / "books.sqlite3", receiver.url) as simulator:
        simulator.provider().charge(charge_call())
        wait_for(lambda: simulator.records()["webhooks"] == {"delivered": 1}, "rest")
        samples = [_switches(simulator.process.pid)]

        def is_quiet_for_a_second() -> bool:
            samples.append(_switches(simulator.process.pid))
            return len(samples) > 50 and samples[-50] == samples[-1]

        wait_for(is_quiet_for_a_second, "a second in which no thread woke up")


def _switches(pid: int) -> dict[str, str]:
    """How often each of the process's threads went to sleep of its own accord."""
    switches = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            # The thread of a connection that has just ended.
            continue
        switches[task.name] = next(line for line in lines if line.startswith("voluntary_ctxt"))
    return switches


def test_refund_finds_its_charge_by_key_alone(simulator: SimulatorProcess) -> None:
    call, provider = charge_call(), simulator.provider()
    provider.charge(call)
    assert provider.refund(refund_call(call, "", 10_000)).kind == "succeeded"
    other = charge_call()
    provider.charge(other)
    assert provider.refund(refund_call(other, "ch_of_nobody", 1)).kind == "unknown"


def test_webhook_that_nobody_took_for_a_day_is_parked(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        with running_simulator(tmp_path / "books.sqlite3", nobody) as simulator:
            simulator.provider().charge(charge_call())
            simulator.stop()
            with closing(sqlite3.connect(simulator.data)) as books, books:
                books.execute("update webhooks set created_at = created_at - 86400, next_at = 0")
            simulator.start()
            wait_for(
                lambda: simulator.records()["webhooks"] == {"parked": 1}, "the end of its time"
            )
