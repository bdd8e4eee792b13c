"""The Stripe adapter with a fake of Stripe (faults) and with localstripe."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shop.adapters.payment_provider.protocol import ActionOptions
from shop.adapters.payment_provider.stripe import StripeProvider
from tests.tools.payment_simulator.simulator_process import charge_call, refund_call
from tests.unit.fake_stripe import SCA_CARD, SCA_CARD_DECLINED, FakeStripe
from tests.waiting import wait_for


@pytest.fixture
def fake() -> Generator[FakeStripe]:
    fake = FakeStripe()
    yield fake
    fake.close()


def _provider(fake: FakeStripe, timeout_seconds: float = 5.0) -> StripeProvider:
    return StripeProvider(url=fake.url, api_key="sk_test_fake", timeout_seconds=timeout_seconds)


@pytest.mark.parametrize("step", ["payment_intents", "confirm"])
@pytest.mark.parametrize("fault", ["timeout_before", "timeout_after", "429"])
def test_step_without_a_response_is_unknown_and_can_be_retried(
    fake: FakeStripe, step: str, fault: str
) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(fake, timeout_seconds=0.5)
    fake.faults = [(step, fault)]
    started = time.monotonic()
    first = provider.charge(call)
    assert first.kind == "unknown"
    assert time.monotonic() - started < 2
    assert provider.charge(call).kind == "captured"
    assert fake.captures(call.key) == 1
    assert len(fake.intents) == 1


def test_500_after_the_capture_reads_the_intent_and_is_captured(fake: FakeStripe) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(fake)
    fake.faults = [("confirm", "500_after")]
    assert provider.charge(call).kind == "captured"
    assert fake.captures(call.key) == 1


def test_500_after_the_creation_is_unknown_and_can_be_retried(fake: FakeStripe) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(fake)
    fake.faults = [("payment_intents", "500_after")]
    assert provider.create(call).kind == "unknown"
    assert provider.charge(call).kind == "captured"
    assert len(fake.intents) == 1


@pytest.mark.parametrize(
    ("fault", "reason"), [("wrong_amount", "another amount"), ("wrong_key", "another key")]
)
@pytest.mark.parametrize("step", ["payment_intents", "confirm"])
def test_response_with_another_amount_or_key_is_a_mismatch(
    fake: FakeStripe, step: str, fault: str, reason: str
) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(fake)
    fake.faults = [(step, fault)]
    outcome = provider.charge(call)
    assert (outcome.kind, outcome.reason) == ("mismatch", reason)
    assert fake.captures(call.key) == (0 if step == "payment_intents" else 1)


def test_unknown_payment_method_is_declined_and_can_be_voided(fake: FakeStripe) -> None:
    call, provider = charge_call("CARD"), _provider(fake)
    outcome = provider.charge(call)
    assert (outcome.kind, outcome.reason) == ("declined", "resource_missing")
    assert provider.cancel(call).kind == "voided"
    assert fake.intents == {}


def test_card_that_needs_authentication_is_shown_by_stripes_script_without_a_return_page(
    fake: FakeStripe,
) -> None:
    outcome = _provider(fake).charge(charge_call(SCA_CARD))

    assert (outcome.kind, outcome.action and outcome.action.type) == ("requires_action", "widget")
    assert outcome.action and str(outcome.action.details["clientSecret"]).startswith("pi_secret_")


def test_card_that_needs_authentication_redirects_and_returns_to_the_page_of_the_shop(
    fake: FakeStripe,
) -> None:
    options = ActionOptions(action_seconds=60, return_url="https://shop.kr/{orderId}/{paymentId}")
    provider = StripeProvider(
        url=fake.url, api_key="sk_test_fake", timeout_seconds=5, options=options
    )
    call = charge_call(SCA_CARD)

    outcome = provider.charge(call)

    assert outcome.action is not None
    assert (outcome.action.type, outcome.action.seconds) == ("redirect", 60)
    (intent,) = [i for i in fake.intents.values() if i["metadata"]["shop_key"] == call.key]
    assert intent["next_action"]["redirect_to_url"] == {
        "url": outcome.action.details["url"],
        "return_url": f"https://shop.kr/{call.order_id}/{call.payment_id}",
    }


@pytest.mark.parametrize(("method", "succeeds"), [(SCA_CARD, False), (SCA_CARD_DECLINED, True)])
def test_failed_authentication_or_a_decline_after_it_is_final(
    fake: FakeStripe, method: str, succeeds: bool
) -> None:
    call, provider = charge_call(method), _provider(fake)
    provider.charge(call)
    fake.authenticate(call.key, succeeds=succeeds)

    assert provider.charge(replace(call, token="pi_1")).kind == "declined"
    assert fake.captures(call.key) == 0


def test_customer_who_returns_does_not_begin_the_authentication_again(fake: FakeStripe) -> None:
    call, provider = charge_call(SCA_CARD), _provider(fake)
    provider.charge(call)
    fake.requests.clear()

    assert provider.charge(replace(call, token="pi_1")).kind == "requires_action"

    assert [path for _, path in fake.requests if path.endswith("/confirm")] == []


def test_cancel_after_key_expiry_finds_the_capture(fake: FakeStripe) -> None:
    past = datetime.now(UTC) + timedelta(seconds=0.3)
    call, provider = charge_call("pm_card_visa", charge_not_after=past), _provider(fake)
    captured = provider.charge(call)
    fake.expire_keys()
    wait_for(lambda: datetime.now(UTC) > past, "charge_not_after")
    assert provider.cancel(call) == captured
    assert len(fake.intents) == 1


def test_cancel_after_key_expiry_voids_the_open_intent(fake: FakeStripe) -> None:
    past = datetime.now(UTC) + timedelta(seconds=0.3)
    call, provider = charge_call("pm_card_visa", charge_not_after=past), _provider(fake)
    created = provider.create(call)
    fake.expire_keys()
    wait_for(lambda: datetime.now(UTC) > past, "charge_not_after")
    outcome = provider.cancel(call)
    assert (outcome.kind, outcome.provider_ref) == ("voided", created.provider_ref)
    assert len(fake.intents) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("timeout_after", "unknown"), ("429", "unknown"), ("500_after", "succeeded")],
)
def test_refund_retried_after_a_fault_gives_one_refund(
    fake: FakeStripe, fault: str, kind: str
) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(fake, timeout_seconds=0.5)
    refund = refund_call(call, provider.charge(call).provider_ref or "", 10_000)
    fake.faults = [("refunds", fault)]
    assert provider.refund(refund).kind == kind
    assert provider.refund(refund).kind == "succeeded"
    assert len(fake.refunds) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [("pending", "unknown"), ("requires_action", "unknown"), ("failed", "rejected"),
     ("canceled", "rejected")],
)  # fmt: skip
def test_refund_status_maps_to_the_outcome(fake: FakeStripe, status: str, kind: str) -> None:
    call, provider = charge_call("pm_card_visa"), _provider(fake)
    fake.refund_status = status
    refund = refund_call(call, provider.charge(call).provider_ref or "", 10_000)
    assert provider.refund(refund).kind == kind
    assert provider.find_refund(refund).kind == kind


def test_list_reads_all_pages_and_continues_from_its_cursor(fake: FakeStripe) -> None:
    provider = _provider(fake)
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


def test_list_has_what_was_made_in_the_dashboard_and_not_the_charges_of_other_shops(
    fake: FakeStripe,
) -> None:
    provider, call = _provider(fake), charge_call("pm_card_visa")
    charged = provider.charge(call)
    refund = fake.refund_by_hand(call.key, 3_000)
    dispute = fake.open_dispute(call.key, fee=15)
    fake.close_dispute(dispute["id"], is_won=True)
    fake.charge_of_other_shop(500)

    page = provider.list_since(str(int(time.time())), 100)

    listed = {(entry.kind, entry.key, entry.charge_ref) for entry in page.entries}
    assert listed == {
        ("charge", call.key, charged.provider_ref),
        ("refund", refund["id"], charged.provider_ref),
        ("dispute", dispute["id"], charged.provider_ref),
    }
    (report,) = [entry.dispute for entry in page.entries if entry.dispute]
    assert (report.status, [(each.kind, each.amount_minor) for each in report.transactions]) == (
        "WON",
        [("DISPUTE", 10_000), ("DISPUTE_FEE", 15), ("DISPUTE_REVERSAL", 10_000)],
    )


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        (["succeeded"], ["refund"]),
        (["failed"], ["failed_refund"]),
        (["canceled"], ["failed_refund"]),
        (["succeeded", "failed"], ["failed_refund"]),
        (["requires_action"], []),
    ],
    ids="-".join,
)
def test_refund_made_before_the_page_is_listed_by_its_last_final_status(
    fake: FakeStripe, changes: list[str], listed: list[str]
) -> None:
    provider, call = _provider(fake), charge_call("pm_card_visa")
    provider.charge(call)
    fake.refund_status = "pending"
    refund = fake.refund_by_hand(call.key, 3_000)
    refund["created"] -= 2 * 3600
    for status in changes:
        fake.change_refund(refund["id"], status)

    page = provider.list_since(str(int(time.time())), 100)

    assert [entry.kind for entry in page.entries if entry.key == refund["id"]] == listed


def test_pending_refund_is_not_listed(fake: FakeStripe) -> None:
    provider, call = _provider(fake), charge_call("pm_card_visa")
    provider.charge(call)
    fake.refund_status = "pending"
    fake.refund_by_hand(call.key, 3_000)

    page = provider.list_since(str(int(time.time())), 100)

    assert ([entry.kind for entry in page.entries], page.invalid) == (["charge"], ())


def test_refund_of_more_than_the_dashboard_left_is_rejected(fake: FakeStripe) -> None:
    provider, call = _provider(fake), charge_call("pm_card_visa")
    ref = provider.charge(call).provider_ref or ""
    fake.refund_by_hand(call.key, 3_000)

    assert provider.refund(refund_call(call, ref, 10_000)).kind == "rejected"
    assert provider.refund(refund_call(call, ref, 7_000)).kind == "succeeded"


def test_refund_of_a_disputed_charge_is_rejected(fake: FakeStripe) -> None:
    provider, call = _provider(fake), charge_call("pm_card_visa")
    ref = provider.charge(call).provider_ref or ""
    fake.open_dispute(call.key, fee=15)

    assert provider.refund(refund_call(call, ref, 10_000)).kind == "rejected"


@pytest.fixture(scope="module")
def localstripe_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
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
    # localstripe's 404 has no code, so the cause is unknown.
    assert provider.charge(charge_call("pm_none")).kind == "unknown"
