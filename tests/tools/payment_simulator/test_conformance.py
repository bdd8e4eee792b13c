"""What every adapter must do, run over the sandbox process and over Stripe's double."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shop.adapters.payment_provider.factory import open_provider
from shop.adapters.payment_provider.protocol import ChargeCall, Provider
from shop.primitives.errors import Unavailable
from tests.tools.payment_simulator.simulator_process import (
    API_KEY,
    charge_call,
    refund_call,
    running_simulator,
)
from tests.tools.payment_simulator.stripe_double import StripeDouble


@dataclass(frozen=True)
class Bench:
    """An adapter, the payment methods that do something there, and its provider's own books."""

    kind: str
    url: str
    provider: Provider
    good: str
    bad: str
    captures: Callable[[str], int]

    def call(self, amount_minor: int = 10_000) -> ChargeCall:
        return charge_call(self.good, amount_minor)


@pytest.fixture(scope="module", params=["sandbox", "stripe"])
def bench(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    if request.param == "sandbox":
        data: Path = tmp_path_factory.mktemp("sandbox") / "books.sqlite3"
        with running_simulator(data) as simulator:
            provider = open_provider("sandbox", simulator.url, API_KEY, 5)
            yield Bench(
                "sandbox", simulator.url, provider, "CARD", "CARD_DECLINED", simulator.captures
            )
        return
    double = StripeDouble()
    provider = open_provider("stripe", double.url, "sk_test_double", 5)
    declined = "pm_card_visa_chargeDeclined"
    yield Bench("stripe", double.url, provider, "pm_card_visa", declined, double.captures)
    double.close()


def test_create_moves_no_money_and_confirm_moves_it_once(bench: Bench) -> None:
    call = bench.call()
    created, again = bench.provider.create(call), bench.provider.create(call)
    assert created.kind == "created"
    assert again == created
    assert bench.captures(call.key) == 0
    confirmed, repeated = bench.provider.confirm(call), bench.provider.confirm(call)
    assert confirmed.kind == "captured"
    assert repeated == confirmed
    assert confirmed.provider_ref == created.provider_ref
    assert bench.captures(call.key) == 1


def test_charge_repeated_at_once_and_later_captures_once(bench: Bench) -> None:
    call = bench.call()
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: bench.provider.charge(call), range(8)))
    outcomes += [bench.provider.charge(call), bench.provider.find(call)]
    assert len(set(outcomes)) == 1
    assert (outcomes[0].kind, outcomes[0].amount_minor, outcomes[0].currency) == (
        "captured", 10_000, "KRW"
    )  # fmt: skip
    assert bench.captures(call.key) == 1


def test_declined_is_definitive(bench: Bench) -> None:
    call = charge_call(bench.bad)
    first, again = bench.provider.charge(call), bench.provider.charge(call)
    assert first.kind == "declined"
    assert first.reason
    assert again == first
    assert bench.provider.find(call) == first
    assert bench.captures(call.key) == 0


def test_cancel_of_an_unseen_key_refuses_the_charge_that_arrives_later(bench: Bench) -> None:
    call = bench.call()
    assert bench.provider.cancel(call).kind == "voided"
    assert bench.provider.cancel(call).kind == "voided"
    assert bench.provider.charge(call).kind == "voided"
    assert bench.provider.find(call).kind == "voided"
    assert bench.captures(call.key) == 0


def test_cancel_of_a_created_intent_and_of_a_captured_one(bench: Bench) -> None:
    created, paid = bench.call(), bench.call()
    bench.provider.create(created)
    captured = bench.provider.charge(paid)
    assert bench.provider.cancel(created).kind == "voided"
    assert bench.provider.charge(created).kind == "voided"
    assert bench.provider.cancel(paid) == captured
    assert bench.captures(created.key) == 0


def test_key_of_another_amount_is_a_mismatch_for_every_question(bench: Bench) -> None:
    call = bench.call()
    bench.provider.charge(call)
    other = dataclasses.replace(call, amount_minor=1)
    assert bench.provider.create(other).kind == "mismatch"
    assert bench.provider.charge(other).kind == "mismatch"
    assert bench.provider.cancel(other).kind == "mismatch"
    assert bench.provider.find(other).kind == "mismatch"
    assert bench.captures(call.key) == 1


def test_unknown_key_is_not_found_not_refused(bench: Bench) -> None:
    call = bench.call()
    assert bench.provider.find(call).kind == "unknown"
    paid = bench.call()
    ref = bench.provider.charge(paid).provider_ref or ""
    assert bench.provider.find_refund(refund_call(paid, ref, 1)).kind == "missing"


def test_nothing_is_charged_past_its_time_but_it_can_be_cancelled(bench: Bench) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    never = dataclasses.replace(bench.call(), charge_not_after=past)
    paid = bench.call()
    captured = bench.provider.charge(paid)
    assert bench.provider.charge(never).reason == "past charge_not_after"
    assert bench.provider.cancel(never).kind == "voided"
    assert bench.provider.cancel(dataclasses.replace(paid, charge_not_after=past)) == captured
    assert bench.captures(never.key) == 0


def test_refunds_are_keyed_and_bounded(bench: Bench) -> None:
    call = bench.call()
    ref = bench.provider.charge(call).provider_ref or ""
    part, rest, more = (refund_call(call, ref, amount) for amount in (4_000, 6_000, 1))
    first, again = bench.provider.refund(part), bench.provider.refund(part)
    assert (first.kind, first.amount_minor, first.currency) == ("succeeded", 4_000, "KRW")
    assert again == first
    assert bench.provider.find_refund(part) == first
    assert bench.provider.refund(rest).kind == "succeeded"
    assert bench.provider.refund(more).kind == "rejected"
    used = dataclasses.replace(part, amount_minor=3_999)
    assert bench.provider.refund(used).kind == "mismatch"
    assert bench.provider.find_refund(used).kind == "mismatch"


def test_list_shows_each_movement_of_money(bench: Bench) -> None:
    call, declined = bench.call(7_000), charge_call(bench.bad)
    captured = bench.provider.charge(call)
    refund = refund_call(call, captured.provider_ref or "", 2_000)
    refunded = bench.provider.refund(refund)
    bench.provider.charge(declined)
    entries, cursor, has_more = {}, "", True
    while has_more:
        page = bench.provider.list_since(cursor, 3)
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


def test_wrong_api_key_decides_nothing(bench: Bench) -> None:
    stranger = open_provider(bench.kind, bench.url, "wrong", 5)
    call = bench.call()
    assert stranger.charge(call).kind == "unknown"
    assert stranger.cancel(call).kind == "unknown"
    assert stranger.find(call).kind == "unknown"
    assert stranger.refund(refund_call(call, "ch_1", 1)).kind == "unknown"
    with pytest.raises(Unavailable):
        stranger.list_since("", 10)


def test_nobody_listening_is_unknown(bench: Bench) -> None:
    nobody = open_provider(bench.kind, "http://127.0.0.1:1", "sk_test_double", 2)
    call = bench.call()
    assert nobody.create(call).kind == "unknown"
    assert nobody.charge(call).kind == "unknown"
    assert nobody.confirm(call).kind == "unknown"
    assert nobody.cancel(call).kind == "unknown"
    assert nobody.find(call).kind == "unknown"
    assert nobody.refund(refund_call(call, "ch_1", 1)).kind == "unknown"
    assert nobody.find_refund(refund_call(call, "ch_1", 1)).kind == "unknown"
    with pytest.raises(Unavailable):
        nobody.list_since("", 10)
