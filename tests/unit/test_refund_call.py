"""A refund is executed once, however often and however late its call is repeated."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import cast
from uuid import UUID

import pytest

from shop.adapters.db import Transaction
from shop.adapters.payment_provider.protocol import Provider, RefundCall, RefundOutcome
from shop.orders import refund
from shop.orders.refund import PendingRefund
from tools.checker.provider_transactions import provider_records

REFUND_ID = UUID("01a21d67-919b-7426-a72e-8d0ebf3312a5")
CALL = RefundCall(f"refund:{REFUND_ID}", "shop:paid", "ch_1", 5_373, "KRW")
SUCCEEDED = RefundOutcome("succeeded", 5_373, "KRW", "re_1")


class ExpiredKeysProvider:
    """A provider whose keys have expired: it executes every refund that is sent."""

    def __init__(self, record: RefundOutcome) -> None:
        self.record = record
        self.calls: list[str] = []

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        self.calls.append(f"find {call.key}")
        return self.record

    def refund(self, call: RefundCall) -> RefundOutcome:
        self.calls.append(f"send {call.key}")
        return SUCCEEDED


def no_transaction() -> AbstractContextManager[Transaction]:
    raise AssertionError("a refund opens no transaction")


def execute(
    provider: ExpiredKeysProvider, *, is_repeated: bool, is_covered: bool = True
) -> RefundOutcome:
    pending = PendingRefund(REFUND_ID, REFUND_ID, CALL, is_repeated, is_covered)
    # the double has the two methods that a refund calls
    return refund.execute(cast("Provider", provider), pending, no_transaction)


def test_first_try_is_sent_without_a_lookup() -> None:
    provider = ExpiredKeysProvider(RefundOutcome("missing"))

    assert execute(provider, is_repeated=False) == SUCCEEDED
    assert provider.calls == [f"send {CALL.key}"]


def test_repeated_try_is_sent_when_the_provider_has_no_such_refund() -> None:
    provider = ExpiredKeysProvider(RefundOutcome("missing"))

    assert execute(provider, is_repeated=True) == SUCCEEDED
    assert provider.calls == [f"find {CALL.key}", f"send {CALL.key}"]


@pytest.mark.parametrize("known", [SUCCEEDED, RefundOutcome("rejected"), RefundOutcome("unknown")])
def test_repeated_try_is_not_sent_when_the_lookup_is_unclear_or_finds_it(
    known: RefundOutcome,
) -> None:
    provider = ExpiredKeysProvider(known)

    assert execute(provider, is_repeated=True) == known
    assert provider.calls == [f"find {CALL.key}"]


def test_refund_of_what_a_dispute_has_withdrawn_is_not_sent() -> None:
    provider = ExpiredKeysProvider(RefundOutcome("missing"))

    outcome = execute(provider, is_repeated=False, is_covered=False)

    assert (outcome.kind, provider.calls) == ("rejected", [f"find {CALL.key}"])


def test_refund_executed_before_a_dispute_is_found() -> None:
    provider = ExpiredKeysProvider(SUCCEEDED)

    assert execute(provider, is_repeated=False, is_covered=False) == SUCCEEDED
    assert provider.calls == [f"find {CALL.key}"]


def test_a_refund_executed_twice_is_reported_as_one_without_a_row() -> None:
    row = {"key": CALL.key, "charge_key": "shop:paid", "amount_minor": 5_373, "status": "succeeded"}

    _, refunds = provider_records([], [row, row, {**row, "status": "rejected"}])

    assert refunds == (
        (CALL.key, "shop:paid", 5_373),
        (f"{CALL.key} again 2", "shop:paid", 5_373),
    )
