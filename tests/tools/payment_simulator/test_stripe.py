"""The Stripe adapter: faults over a double of our own, and the official library's localstripe."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from shop.adapters.payment_provider.stripe import StripeProvider
from tests.tools.payment_simulator.simulator_process import charge_call, refund_call
from tests.tools.payment_simulator.stripe_double import StripeDouble
from tests.waiting import wait_for


@pytest.fixture
def double() -> Iterator[StripeDouble]:
    double = StripeDouble()
    yield double
    double.close()


def _provider(double: StripeDouble, timeout_seconds: float = 5.0) -> StripeProvider:
    return StripeProvider(url=double.url, api_key="sk_test_double", timeout_seconds=timeout_seconds)


@pytest.mark.parametrize("step", ["payment_intents", "confirm"])
@pytest.mark.parametrize("fault", ["timeout_before", "timeout_after", "429"])
def test_unanswered_steps_are_unknown_and_repeatable(
    double: StripeDouble, step: str, fault: str
) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(double, timeout_seconds=0.5)
    double.faults = [(step, fault)]
    started = time.monotonic()
    first = provider.charge(call)
    assert first.kind == "unknown"
    assert time.monotonic() - started < 2
    assert provider.charge(call).kind == "captured"
    assert double.captures(call.key) == 1
    assert len(double.intents) == 1


def test_500_after_the_capture_is_settled_by_reading_the_intent(double: StripeDouble) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(double)
    double.faults = [("confirm", "500_after")]
    assert provider.charge(call).kind == "captured"
    assert double.captures(call.key) == 1


def test_500_after_the_creation_is_unknown(double: StripeDouble) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(double)
    double.faults = [("payment_intents", "500_after")]
    assert provider.create(call).kind == "unknown"
    assert provider.charge(call).kind == "captured"
    assert len(double.intents) == 1


@pytest.mark.parametrize(
    ("fault", "reason"), [("wrong_amount", "another amount"), ("wrong_key", "another key")]
)
@pytest.mark.parametrize("step", ["payment_intents", "confirm"])
def test_answer_about_something_else_is_not_believed(
    double: StripeDouble, step: str, fault: str, reason: str
) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(double)
    double.faults = [(step, fault)]
    outcome = provider.charge(call)
    assert (outcome.kind, outcome.reason) == ("mismatch", reason)
    assert double.captures(call.key) == (0 if step == "payment_intents" else 1)


def test_refused_payment_method_is_declined_and_can_be_voided(double: StripeDouble) -> None:
    call, provider = charge_call("CARD"), _provider(double)
    outcome = provider.charge(call)
    assert (outcome.kind, outcome.reason) == ("declined", "resource_missing")
    assert provider.cancel(call).kind == "voided"
    assert double.intents == {}


def test_charge_that_needs_the_buyer_stays_open(double: StripeDouble) -> None:
    call, provider = charge_call("pm_card_authenticationRequired"), _provider(double)
    outcome = provider.charge(call)
    assert (outcome.kind, outcome.reason) == ("unknown", "status requires_action")
    assert provider.cancel(call).kind == "voided"


def test_cancel_after_the_key_was_forgotten_finds_the_capture(double: StripeDouble) -> None:
    past = datetime.now(UTC) + timedelta(seconds=0.3)
    call, provider = charge_call("pm_card_visa", charge_not_after=past), _provider(double)
    captured = provider.charge(call)
    double.forget_keys()
    wait_for(lambda: datetime.now(UTC) > past, "charge_not_after")
    assert provider.cancel(call) == captured
    assert len(double.intents) == 1


def test_cancel_after_the_key_was_forgotten_closes_the_open_intent(double: StripeDouble) -> None:
    past = datetime.now(UTC) + timedelta(seconds=0.3)
    call, provider = charge_call("pm_card_visa", charge_not_after=past), _provider(double)
    created = provider.create(call)
    double.forget_keys()
    wait_for(lambda: datetime.now(UTC) > past, "charge_not_after")
    outcome = provider.cancel(call)
    assert (outcome.kind, outcome.provider_ref) == ("voided", created.provider_ref)
    assert len(double.intents) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("timeout_after", "unknown"), ("429", "unknown"), ("500_after", "succeeded")],
)
def test_refund_faults_end_with_one_refund(double: StripeDouble, fault: str, kind: str) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(double, timeout_seconds=0.5)
    refund = refund_call(call, provider.charge(call).provider_ref or "", 10_000)
    double.faults = [("refunds", fault)]
    assert provider.refund(refund).kind == kind
    assert provider.refund(refund).kind == "succeeded"
    assert len(double.refunds) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [("pending", "unknown"), ("requires_action", "unknown"), ("failed", "rejected"),
     ("canceled", "rejected")],
)  # fmt: skip
def test_refund_status_is_read_as_it_is(double: StripeDouble, status: str, kind: str) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(double)
    double.refund_status = status
    refund = refund_call(call, provider.charge(call).provider_ref or "", 10_000)
    assert provider.refund(refund).kind == kind
    assert provider.find_refund(refund).kind == kind


def test_list_reads_all_pages_and_goes_on_from_its_cursor(double: StripeDouble) -> None:
    provider = _provider(double)
    calls = [charge_call("pm_card_visa") for _ in range(5)]
    for call in calls:
        provider.charge(call)
    started = int(time.time()) - 7 * 3600
    first = provider.list_since(str(started), 2)
    second = provider.list_since(first.next_cursor, 2)
    assert (first.entries, first.has_more) == ((), True)
    assert sorted(entry.key for entry in second.entries) == sorted(call.key for call in calls)
    assert second.has_more is False
    repeated = provider.list_since(second.next_cursor, 2)
    assert repeated.entries == second.entries


@pytest.fixture(scope="module")
def localstripe_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket(socket.AF_INET6) as free:
        free.bind(("::", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "localstripe", "--from-scratch", "--port", str(port)],
        cwd=tmp_path_factory.mktemp("localstripe"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: _is_listening(port), "localstripe")
        yield f"http://localhost:{port}"
    finally:
        process.kill()
        process.wait(10)


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), 1).close()
    except OSError:
        return False
    return True


def test_localstripe_captures_and_refunds(localstripe_url: str) -> None:
    provider = StripeProvider(url=localstripe_url, api_key="sk_test_12345", timeout_seconds=5)
    call = charge_call("pm_card_visa")
    outcome = provider.charge(call)
    assert (outcome.kind, outcome.amount_minor, outcome.currency) == ("captured", 10_000, "KRW")
    refund = refund_call(call, outcome.provider_ref or "", 4_000)
    refunded = provider.refund(refund)
    assert (refunded.kind, refunded.amount_minor) == ("succeeded", 4_000)
    assert provider.find_refund(refund) == refunded


def test_localstripe_declines_and_voids(localstripe_url: str) -> None:
    provider = StripeProvider(url=localstripe_url, api_key="sk_test_12345", timeout_seconds=5)
    declined = provider.charge(charge_call("pm_card_chargeCustomerFail"))
    assert (declined.kind, declined.reason) == ("declined", "card_declined")
    assert provider.cancel(charge_call("pm_card_visa")).kind == "voided"
    # localstripe's 404 has no code, so nothing says that it is about the payment method.
    assert provider.charge(charge_call("pm_none")).kind == "unknown"
