"""A refund is given back once, however late it is tried again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from shop.adapters.payment_provider.protocol import RefundCall, RefundOutcome
from shop.orders import refund
from shop.orders.refund import PendingRefund
from tools.checker.provider_transactions import provider_records

REFUND_ID = UUID("01a21d67-919b-7426-a72e-8d0ebf3312a5")
CALL = RefundCall(f"refund:{REFUND_ID}", "shop:paid", "ch_1", 5_373, "KRW")
SUCCEEDED = RefundOutcome("succeeded", 5_373, "KRW", "re_1")


class Forgetful:
    """A provider that has forgotten every key: whatever is sent is executed."""

    def __init__(self, in_its_books: RefundOutcome) -> None:
        self.in_its_books = in_its_books
        self.asked: list[str] = []

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        self.asked.append(f"find {call.key}")
        return self.in_its_books

    def refund(self, call: RefundCall) -> RefundOutcome:
        self.asked.append(f"send {call.key}")
        return SUCCEEDED


def outcome_of(provider: Any, *, is_repeated: bool) -> RefundOutcome:
    sent: Any = None
    return refund.execute(provider, PendingRefund(REFUND_ID, REFUND_ID, CALL, is_repeated), sent)


def test_the_first_try_is_sent_without_a_look() -> None:
    provider = Forgetful(RefundOutcome("missing"))

    assert outcome_of(provider, is_repeated=False) == SUCCEEDED
    assert provider.asked == [f"send {CALL.key}"]


def test_a_further_try_is_sent_when_the_books_lack_it() -> None:
    provider = Forgetful(RefundOutcome("missing"))

    assert outcome_of(provider, is_repeated=True) == SUCCEEDED
    assert provider.asked == [f"find {CALL.key}", f"send {CALL.key}"]


@pytest.mark.parametrize("known", [SUCCEEDED, RefundOutcome("rejected"), RefundOutcome("unknown")])
def test_what_the_books_know_or_do_not_tell_is_not_sent_again(known: RefundOutcome) -> None:
    """No telling is no "it is not there": the next turn asks again."""
    provider = Forgetful(known)

    assert outcome_of(provider, is_repeated=True) == known
    assert provider.asked == [f"find {CALL.key}"]


def test_a_refund_executed_twice_is_one_that_no_row_announced() -> None:
    row = {"key": CALL.key, "charge_key": "shop:paid", "amount_minor": 5_373, "status": "succeeded"}

    _, refunds = provider_records([], [row, row, {**row, "status": "rejected"}])

    assert refunds == (
        (CALL.key, "shop:paid", 5_373),
        (f"{CALL.key} again 2", "shop:paid", 5_373),
    )
