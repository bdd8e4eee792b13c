"""Reading the provider's transactions, from Stripe and from the payment simulator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from shop.adapters.payment_provider.factory import open_provider
from shop.primitives.errors import Unavailable
from tests.tools.payment_simulator.simulator_process import (
    API_KEY,
    SimulatorProcess,
    charge_call,
    refund_call,
)
from tests.unit.fake_stripe import FakeStripe
from tools.checker.provider_transactions import (
    ProviderAccess,
    external_records,
    list_transactions,
)


@pytest.fixture
def double() -> Iterator[FakeStripe]:
    double = FakeStripe()
    yield double
    double.close()


def _access(double: FakeStripe) -> ProviderAccess:
    return ProviderAccess("stripe", double.url, "sk_test_fake")


def test_stripe_transactions_are_listed_from_the_requested_day(double: FakeStripe) -> None:
    """Three weeks ago, which is before the default start of Stripe's list."""
    provider = open_provider("stripe", double.url, "sk_test_fake")
    old, new = charge_call("pm_card_visa"), charge_call("pm_card_visa")
    for call in (old, new):
        provider.charge(call)
    then = datetime.now(UTC) - timedelta(days=21)
    for charge in double.charges.values():
        if charge["metadata"]["shop_key"] == old.key:
            charge["created"] = int(then.timestamp())
    day = timedelta(days=1)

    then_listed = [
        e.key for e in list_transactions(_access(double), since=then - day, until=then + day)
    ]
    now_listed = [e.key for e in list_transactions(_access(double))]

    assert (then_listed[0], now_listed) == (old.key, [new.key])


def test_stripe_transactions_become_external_records(double: FakeStripe) -> None:
    provider = open_provider("stripe", double.url, "sk_test_fake")
    call = charge_call("pm_card_visa", 900)
    refund = refund_call(call, provider.charge(call).provider_ref or "", 400)
    provider.refund(refund)

    records = external_records(_access(double))

    assert records.charges == ((call.key, 900, "CAPTURED"),)
    assert records.refunds == ((refund.key, call.key, 400),)


def test_simulator_lists_every_transaction_once_over_many_pages(
    own_simulator: SimulatorProcess,
) -> None:
    provider = own_simulator.provider()
    calls = [charge_call() for _ in range(5)]
    for call in calls:
        provider.charge(call)
    access = ProviderAccess("sandbox", own_simulator.url, API_KEY)

    assert [entry.key for entry in list_transactions(access)] == [call.key for call in calls]
    assert {charge[0] for charge in external_records(access).charges} == {
        call.key for call in calls
    }


@pytest.mark.parametrize("kind", ["sandbox", "stripe"])
def test_unreachable_provider_raises_unavailable(kind: str) -> None:
    access = ProviderAccess(kind, "http://127.0.0.1:1", "key")

    with pytest.raises(Unavailable):
        list_transactions(access)
    with pytest.raises(Unavailable):
        external_records(access)


def test_provider_access_repr_hides_its_key() -> None:
    assert "sk_secret" not in repr(ProviderAccess("stripe", "", "sk_secret"))
