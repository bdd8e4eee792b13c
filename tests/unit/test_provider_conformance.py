"""The contract of every payment provider adapter, run with the simulator and with doubles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shop.adapters.payment_provider.factory import open_provider
from shop.adapters.payment_provider.protocol import (
    ActionOptions,
    ChargeCall,
    Provider,
    ProviderTransaction,
)
from shop.primitives.errors import Unavailable
from tests.tools.payment_simulator.simulator_process import (
    API_KEY,
    SimulatorProcess,
    charge_call,
    refund_call,
    running_simulator,
)
from tests.unit.fake_stripe import SCA_CARD, FakeStripe
from tests.unit.fake_toss import CARD, SECRET_KEY, FakeToss


@dataclass(frozen=True)
class ProviderUnderTest:
    """An adapter, an accepted and a declined payment method, and the captures of a key."""

    kind: str
    url: str
    provider: Provider
    accepted: str
    declined: str
    captures: Callable[[str], int]
    # made two hours ago in the dashboard, and executed or failed only now
    refund_late: Callable[[str, int], str]
    fail_refund: Callable[[str], object] | None
    # a method for which the customer has to act, and the customer's part: returns the token
    with_action: str
    act: Callable[[str], str]
    # where only the customer's token begins a charge: the customer of an accepted or declined one
    pays: Callable[[ChargeCall, bool], str] | None = None

    def call(self, amount_minor: int = 10_000) -> ChargeCall:
        return self._with_token(charge_call(self.accepted, amount_minor), declines=False)

    def declined_call(self) -> ChargeCall:
        return self._with_token(charge_call(self.declined), declines=True)

    def charge_again(self, call: ChargeCall) -> str:
        """The outcome of a charge after its key was voided: nothing is collected.

        Without tombstones the shop confirms no token any more, so the customer would have to act.
        """
        if self.pays is None:
            return self.provider.charge(call).kind
        outcome = self.provider.charge(dataclasses.replace(call, token=None))
        assert outcome.kind == "requires_action"
        return "voided"

    def _with_token(self, call: ChargeCall, *, declines: bool) -> ChargeCall:
        return dataclasses.replace(call, token=self.pays(call, declines)) if self.pays else call


@pytest.fixture(scope="module", params=["sandbox", "stripe", "toss"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProviderUnderTest]:
    if request.param == "sandbox":
        data: Path = tmp_path_factory.mktemp("simulator") / "records.sqlite3"
        with running_simulator(data) as simulator:
            provider = open_provider("sandbox", simulator.url, API_KEY, 5)
            yield ProviderUnderTest(
                "sandbox",
                simulator.url,
                provider,
                "CARD",
                "CARD_DECLINED",
                simulator.captures,
                # its list has a refund from when it is executed
                lambda key, amount: simulator.act("refunds", charge_key=key, amount_minor=amount)[
                    "key"
                ],
                lambda refund: simulator.act(f"refunds/{refund}/failed"),
                "CARD_WIDGET",
                lambda key: _finish(simulator, key),
            )
        return
    if request.param == "toss":
        toss = FakeToss()
        yield _toss_under_test(toss)
        toss.close()
        return
    fake = FakeStripe()
    provider = open_provider("stripe", fake.url, "sk_test_fake", 5)
    declined = "pm_card_visa_chargeDeclined"
    yield ProviderUnderTest(
        "stripe",
        fake.url,
        provider,
        "pm_card_visa",
        declined,
        fake.captures,
        lambda key, amount: _refund_late(fake, key, amount),
        lambda refund: fake.change_refund(refund, "failed"),
        SCA_CARD,
        lambda key: _authenticate(fake, key),
    )
    fake.close()


def _toss_under_test(toss: FakeToss) -> ProviderUnderTest:
    options = ActionOptions(client_key="test_ck_double")
    provider = open_provider("toss", toss.url, SECRET_KEY, 5, options=options)
    return ProviderUnderTest(
        "toss",
        toss.url,
        provider,
        CARD,
        CARD,
        toss.captures,
        lambda key, amount: toss.refund_by_hand(key.removeprefix("shop:"), amount),
        None,
        CARD,
        lambda key: toss.authenticate(key.removeprefix("shop:"), 10_000),
        lambda call, declines: toss.authenticate(
            call.payment_id, call.amount_minor, declines=declines
        ),
    )


def _finish(simulator: SimulatorProcess, key: str) -> str:
    (intent,) = [i for i in simulator.records()["intents"] if i["key"] == key]
    _, acted = simulator.request("POST", f"/pay/{intent['provider_ref']}/finish", api_key="")
    return str(acted["token"])


def _authenticate(fake: FakeStripe, key: str) -> str:
    fake.authenticate(key, succeeds=True)
    return next(i["id"] for i in fake.intents.values() if i["metadata"]["shop_key"] == key)


def _refund_late(fake: FakeStripe, key: str, amount: int) -> str:
    """A refund that was pending for two hours, longer than pages of the list overlap."""
    refund = fake.refund_by_hand(key, amount)
    refund["created"] -= 2 * 3600
    refund["status"] = "pending"
    return str(fake.change_refund(refund["id"], "succeeded")["id"])


def test_create_captures_nothing_and_confirm_captures_once(case: ProviderUnderTest) -> None:
    call = case.call()
    created, again = case.provider.create(call), case.provider.create(call)
    assert created.kind == "created"
    assert again == created
    assert case.captures(call.key) == 0
    confirmed, repeated = case.provider.confirm(call), case.provider.confirm(call)
    assert confirmed.kind == "captured"
    assert repeated == confirmed
    assert created.provider_ref in (None, confirmed.provider_ref)
    assert case.captures(call.key) == 1


def test_concurrent_and_repeated_charges_capture_once(case: ProviderUnderTest) -> None:
    call = case.call()
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(case.provider.charge, [call] * 8))
    outcomes += [case.provider.charge(call), case.provider.find(call)]
    assert len(set(outcomes)) == 1
    assert (outcomes[0].kind, outcomes[0].amount_minor, outcomes[0].currency) == (
        "captured", 10_000, "KRW"
    )  # fmt: skip
    assert case.captures(call.key) == 1


def test_declined_charge_stays_declined(case: ProviderUnderTest) -> None:
    call = case.declined_call()
    first, again = case.provider.charge(call), case.provider.charge(call)
    assert first.kind == "declined"
    assert first.reason
    assert again == first
    assert case.provider.find(call) == first
    assert case.captures(call.key) == 0


def test_charge_after_its_key_was_cancelled_is_voided(case: ProviderUnderTest) -> None:
    call = case.call()
    assert case.provider.cancel(call).kind == "voided"
    assert case.provider.cancel(call).kind == "voided"
    assert case.charge_again(call) == "voided"
    assert case.provider.find(call).kind in ("voided", "unknown")
    assert case.captures(call.key) == 0


def test_cancel_voids_a_created_intent_and_returns_a_captured_one(case: ProviderUnderTest) -> None:
    created, paid = case.call(), case.call()
    case.provider.create(created)
    captured = case.provider.charge(paid)
    assert case.provider.cancel(created).kind == "voided"
    assert case.charge_again(created) == "voided"
    assert case.provider.cancel(paid) == captured
    assert case.captures(created.key) == 0


def test_payment_that_needs_the_customer_is_collected_once_after_the_customer_acted(
    case: ProviderUnderTest,
) -> None:
    call = charge_call(case.with_action)
    first, again = case.provider.charge(call), case.provider.charge(call)
    assert (first.kind, again) == ("requires_action", first)
    assert first.action is not None and first.action.seconds > 0
    assert case.provider.find(call).kind in ("requires_action", "unknown")
    assert case.captures(call.key) == 0

    returned = dataclasses.replace(call, token=case.act(call.key))
    outcomes = [case.provider.charge(returned) for _ in range(2)]

    assert [outcome.kind for outcome in outcomes] == ["captured", "captured"]
    assert case.provider.find(call) == outcomes[0]
    assert case.captures(call.key) == 1


def test_token_that_the_provider_did_not_give_collects_nothing(case: ProviderUnderTest) -> None:
    call = charge_call(case.with_action)
    case.provider.charge(call)

    outcome = case.provider.charge(dataclasses.replace(call, token="forged"))

    assert outcome.kind == "requires_action"
    assert case.captures(call.key) == 0


def test_payment_that_needs_the_customer_can_be_voided(case: ProviderUnderTest) -> None:
    call = charge_call(case.with_action)
    case.provider.charge(call)

    assert case.provider.cancel(call).kind == "voided"
    assert case.charge_again(dataclasses.replace(call, token="late")) == "voided"
    assert case.captures(call.key) == 0


def test_key_with_another_amount_is_a_mismatch_for_every_call(case: ProviderUnderTest) -> None:
    call = case.call()
    case.provider.charge(call)
    other = dataclasses.replace(call, amount_minor=1)
    assert case.provider.create(other).kind == "mismatch"
    assert case.provider.charge(other).kind == "mismatch"
    assert case.provider.cancel(other).kind == "mismatch"
    assert case.provider.find(other).kind == "mismatch"
    assert case.captures(call.key) == 1


def test_unknown_key_is_unknown_and_unknown_refund_is_missing(case: ProviderUnderTest) -> None:
    call = case.call()
    assert case.provider.find(call).kind == "unknown"
    paid = case.call()
    ref = case.provider.charge(paid).provider_ref or ""
    assert case.provider.find_refund(refund_call(paid, ref, 1)).kind == "missing"


def test_charge_after_charge_not_after_is_not_sent_but_can_be_cancelled(
    case: ProviderUnderTest,
) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    never = dataclasses.replace(case.call(), charge_not_after=past)
    paid = case.call()
    captured = case.provider.charge(paid)
    assert case.provider.charge(never).reason == "past charge_not_after"
    assert case.provider.cancel(never).kind == "voided"
    assert case.provider.cancel(dataclasses.replace(paid, charge_not_after=past)) == captured
    assert case.captures(never.key) == 0


def test_refunds_are_idempotent_and_never_exceed_the_capture(case: ProviderUnderTest) -> None:
    call = case.call()
    ref = case.provider.charge(call).provider_ref or ""
    part, rest, more = (refund_call(call, ref, amount) for amount in (4_000, 6_000, 1))
    first, again = case.provider.refund(part), case.provider.refund(part)
    assert (first.kind, first.amount_minor, first.currency) == ("succeeded", 4_000, "KRW")
    assert again == first
    assert case.provider.find_refund(part) == first
    assert case.provider.refund(rest).kind == "succeeded"
    assert case.provider.refund(more).kind == "rejected"
    used = dataclasses.replace(part, amount_minor=3_999)
    assert case.provider.refund(used).kind == "mismatch"
    assert case.provider.find_refund(used).kind == "mismatch"


def test_list_contains_every_capture_and_refund(case: ProviderUnderTest) -> None:
    call, declined = case.call(7_000), case.declined_call()
    captured = case.provider.charge(call)
    refund = refund_call(call, captured.provider_ref or "", 2_000)
    refunded = case.provider.refund(refund)
    case.provider.charge(declined)
    entries: dict[str, ProviderTransaction] = {}
    cursor, has_more = "", True
    while has_more:
        page = case.provider.list_since(cursor, 3)
        entries |= {entry.key: entry for entry in page.entries}
        cursor, has_more = page.next_cursor, page.has_more
    charge_entry, refund_entry = entries[call.key], entries[refund.key]
    assert (charge_entry.kind, charge_entry.amount_minor) == ("charge", 7_000)
    assert (charge_entry.charge_key, charge_entry.provider_ref) == (
        call.key, captured.provider_ref
    )  # fmt: skip
    assert (refund_entry.kind, refund_entry.amount_minor) == ("refund", 2_000)
    assert (refund_entry.charge_key, refund_entry.provider_ref) == (
        call.key, refunded.provider_ref
    )  # fmt: skip
    assert abs(charge_entry.at - datetime.now(UTC)) < timedelta(minutes=1)
    assert declined.key not in entries


def test_refund_of_the_dashboard_is_listed_once_it_is_executed_and_again_when_it_fails(
    case: ProviderUnderTest,
) -> None:
    call = case.call(7_000)
    case.provider.charge(call)
    cursor = _end_of_list(case)
    refund = case.refund_late(call.key, 2_000)

    succeeded = case.provider.list_since(cursor, 100)
    pages = [(succeeded, "refund")]
    if case.fail_refund is not None:
        case.fail_refund(refund)
        pages.append((case.provider.list_since(succeeded.next_cursor, 100), "failed_refund"))

    for page, kind in pages:
        listed = {(entry.kind, entry.amount_minor) for entry in page.entries if entry.key == refund}
        assert listed == {(kind, 2_000)}
        assert page.invalid == ()


def _end_of_list(case: ProviderUnderTest) -> str:
    cursor, has_more = "", True
    while has_more:
        page = case.provider.list_since(cursor, 100)
        cursor, has_more = page.next_cursor, page.has_more
    return cursor


def test_wrong_api_key_is_unknown_for_every_call(case: ProviderUnderTest) -> None:
    unauthorized = open_provider(case.kind, case.url, "wrong", 5)
    call = case.call()
    assert unauthorized.charge(call).kind == "unknown"
    assert unauthorized.cancel(call).kind == "unknown"
    assert unauthorized.find(call).kind == "unknown"
    assert unauthorized.refund(refund_call(call, "ch_1", 1)).kind == "unknown"
    with pytest.raises(Unavailable):
        unauthorized.list_since("", 10)


def test_unreachable_provider_is_unknown_for_every_call(case: ProviderUnderTest) -> None:
    unreachable = open_provider(case.kind, "http://127.0.0.1:1", "sk_test_fake", 2)
    call = case.call()
    assert unreachable.create(call).kind == "unknown"
    assert unreachable.charge(call).kind == "unknown"
    assert unreachable.confirm(call).kind == "unknown"
    assert unreachable.cancel(call).kind == "unknown"
    assert unreachable.find(call).kind == "unknown"
    assert unreachable.refund(refund_call(call, "ch_1", 1)).kind == "unknown"
    assert unreachable.find_refund(refund_call(call, "ch_1", 1)).kind == "unknown"
    with pytest.raises(Unavailable):
        unreachable.list_since("", 10)
