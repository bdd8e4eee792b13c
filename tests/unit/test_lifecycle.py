"""Each rule of correctness.md 5.1 to 5.3: this story, this message, exactly these effects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shop.orders.decide import (
    ATTEMPTS_MAX,
    NOTHING,
    CancelAsked,
    Captured,
    ChargeDue,
    Declined,
    Effects,
    ExpiryDue,
    FinishDue,
    Mismatched,
    MoveOrder,
    MovePayment,
    MoveRefund,
    MoveStock,
    OpenPayment,
    OpenRefund,
    OperatorAlert,
    Order,
    OrderState,
    PayAgainAsked,
    Payment,
    Post,
    Refund,
    RefundAsked,
    Refunded,
    RefundFound,
    RefundRejected,
    RefundUnclear,
    Refuse,
    RetryPayment,
    RetryRefund,
    Unclear,
    Voided,
    WantCharge,
    after_effects,
    decide,
    provider_step,
)

TOTAL = 1000
PENDING = Order("PENDING", TOTAL, "KRW", charge_wanted=False)
FRESH = replace(PENDING, charge_wanted=True)
PAID = replace(PENDING, status="PAID")
CANCELLING = replace(PENDING, status="CANCELLING", reason="USER")
CANCELLED = replace(PENDING, status="CANCELLED", reason="USER")

RELEASE = MoveStock("HELD", "RELEASED")
COMMIT = MoveStock("HELD", "COMMITTED")
RETURN = MoveStock("COMMITTED", "RETURNED")
CAPTURE_POSTED = Post("CAPTURE", "p1", TOTAL, "KRW")
FOUND_ALARM = OperatorAlert("refund_found", "r9", "a refund that we had lost")
CAPTURED_1 = Captured("p1", TOTAL, "KRW", "ch_1")


def payment(status: str, number: int = 1, **more: Any) -> Payment:
    return Payment(f"p{number}", number, status, TOTAL, "KRW", **more)


def refund(status: str, amount: int = TOTAL, number: int = 1) -> Refund:
    return Refund(f"r{number}", "p1", amount, status)


def story(order: Order, *rows: Payment | Refund) -> OrderState:
    return OrderState(
        order,
        tuple(r for r in rows if isinstance(r, Payment)),
        tuple(r for r in rows if isinstance(r, Refund)),
    )


def moved(from_status: str, to_status: str, *, late: bool = False) -> MovePayment:
    ref = "ch_1" if to_status == "CAPTURED" else None
    return MovePayment("p1", from_status, to_status, late, ref)


def refund_moved(from_status: str, to_status: str, amount: int = TOTAL) -> MoveRefund:
    return MoveRefund("r1", "p1", amount, from_status, to_status)


LIVE = payment("INTENT")
UNKNOWN = payment("UNKNOWN")
DECLINED = payment("DECLINED")
VOIDED = payment("VOIDED")
KEPT = payment("CAPTURED")
ALL_RESERVED = payment("CAPTURED", refund_reserved_minor=TOTAL)
LATE = payment("CAPTURED", late=True, refund_reserved_minor=TOTAL)

RULES: dict[str, tuple[OrderState, Any, Effects]] = {
    # ------------------------------------------------------------ 5.2: opening an attempt
    "a fresh order is charged": (story(FRESH), ChargeDue(), (OpenPayment(1),)),
    "a duplicate charge event finds the live payment": (
        story(PENDING, LIVE),
        ChargeDue(),
        NOTHING,
    ),
    "a charge event after a decline waits for the buyer": (
        story(PENDING, DECLINED),
        ChargeDue(),
        NOTHING,
    ),
    "pay again opens the next attempt": (
        story(FRESH, DECLINED),
        ChargeDue(),
        (OpenPayment(2),),
    ),
    "a charge event finds a paid order": (story(PAID, KEPT), ChargeDue(), NOTHING),
    "expiry came before the charge": (story(CANCELLED), ChargeDue(), NOTHING),
    # ------------------------------------------------------------ 5.2: captured
    "captured pays the order": (
        story(PENDING, LIVE),
        CAPTURED_1,
        (moved("INTENT", "CAPTURED"), COMMIT, CAPTURE_POSTED, MoveOrder("PENDING", "PAID")),
    ),
    "captured after a timeout pays the order": (
        story(PENDING, UNKNOWN),
        CAPTURED_1,
        (moved("UNKNOWN", "CAPTURED"), COMMIT, CAPTURE_POSTED, MoveOrder("PENDING", "PAID")),
    ),
    "captured again changes nothing": (story(PAID, KEPT), CAPTURED_1, NOTHING),
    "captured while cancelling is booked and given back": (
        story(CANCELLING, LIVE),
        CAPTURED_1,
        (
            moved("INTENT", "CAPTURED"),
            CAPTURE_POSTED,
            OpenRefund("p1", TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after all (voided) is late": (
        story(CANCELLED, VOIDED),
        CAPTURED_1,
        (
            moved("VOIDED", "CAPTURED", late=True),
            CAPTURE_POSTED,
            OpenRefund("p1", TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after all (declined) while the order waits for a second try": (
        story(PENDING, DECLINED),
        CAPTURED_1,
        (
            moved("DECLINED", "CAPTURED", late=True),
            CAPTURE_POSTED,
            OpenRefund("p1", TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after all while another attempt is kept": (
        story(PAID, DECLINED, payment("CAPTURED", 2)),
        CAPTURED_1,
        (
            moved("DECLINED", "CAPTURED", late=True),
            CAPTURE_POSTED,
            OpenRefund("p1", TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "another amount is not believed": (
        story(PENDING, LIVE),
        Captured("p1", TOTAL + 1, "KRW"),
        (OperatorAlert("amount_mismatch", "p1", f"the provider says {TOTAL + 1} KRW"),),
    ),
    "another currency is not believed": (
        story(PENDING, LIVE),
        Captured("p1", TOTAL, "USD"),
        (OperatorAlert("amount_mismatch", "p1", f"the provider says {TOTAL} USD"),),
    ),
    "captured for a payment of nobody": (story(PENDING), CAPTURED_1, NOTHING),
    # ------------------------------------------------------------ 5.2: declined, voided, unclear
    "declined lets the buyer pay again": (
        story(PENDING, LIVE),
        Declined("p1"),
        (moved("INTENT", "DECLINED"),),
    ),
    "the last decline cancels": (
        story(PENDING, payment("INTENT", ATTEMPTS_MAX)),
        Declined(f"p{ATTEMPTS_MAX}"),
        (
            MovePayment(f"p{ATTEMPTS_MAX}", "INTENT", "DECLINED"),
            RELEASE,
            MoveOrder("PENDING", "CANCELLED", "DECLINED"),
        ),
    ),
    "the last decline waits for a late capture's refund": (
        story(PENDING, LATE, refund("INTENT"), payment("UNKNOWN", ATTEMPTS_MAX)),
        Declined(f"p{ATTEMPTS_MAX}"),
        (
            MovePayment(f"p{ATTEMPTS_MAX}", "UNKNOWN", "DECLINED"),
            RELEASE,
            MoveOrder("PENDING", "CANCELLING", "DECLINED"),
        ),
    ),
    "declined while cancelling finishes": (
        story(CANCELLING, UNKNOWN),
        Declined("p1"),
        (moved("UNKNOWN", "DECLINED"), MoveOrder("CANCELLING", "CANCELLED", "USER")),
    ),
    "declined once more, after another attempt was captured": (
        story(PAID, DECLINED, payment("CAPTURED", 2)),
        Declined("p1"),
        NOTHING,
    ),
    "declined after captured is not believed": (story(PAID, KEPT), Declined("p1"), NOTHING),
    "voided while cancelling finishes": (
        story(CANCELLING, LIVE),
        Voided("p1"),
        (moved("INTENT", "VOIDED"), MoveOrder("CANCELLING", "CANCELLED", "USER")),
    ),
    "voided again": (story(CANCELLED, VOIDED), Voided("p1"), NOTHING),
    "a timeout is not a failure": (
        story(PENDING, LIVE),
        Unclear("p1"),
        (moved("INTENT", "UNKNOWN"), RetryPayment("p1")),
    ),
    "a second timeout only comes again": (
        story(PENDING, UNKNOWN),
        Unclear("p1"),
        (RetryPayment("p1"),),
    ),
    "a timeout while cancelling stays open": (
        story(CANCELLING, UNKNOWN),
        Unclear("p1"),
        (RetryPayment("p1"),),
    ),
    "a timeout's answer came before it": (story(PAID, KEPT), Unclear("p1"), NOTHING),
    "an answer that is not believed stays open and rings": (
        story(PENDING, LIVE),
        Mismatched("p1", "another key"),
        (
            OperatorAlert("amount_mismatch", "p1", "another key"),
            moved("INTENT", "UNKNOWN"),
            RetryPayment("p1"),
        ),
    ),
    "a mismatch about a closed payment": (story(PAID, KEPT), Mismatched("p1", "x"), NOTHING),
    # ------------------------------------------------------------ pay again
    "pay again after a decline": (
        story(PENDING, DECLINED),
        PayAgainAsked("CARD"),
        (WantCharge("CARD"),),
    ),
    "pay again while a payment is made": (
        story(PENDING, LIVE),
        PayAgainAsked("CARD"),
        (Refuse("PAYMENT_IN_PROGRESS", "a payment of this order is being made"),),
    ),
    "pay again twice": (
        story(FRESH, DECLINED),
        PayAgainAsked("CARD"),
        (Refuse("PAYMENT_IN_PROGRESS", "a payment of this order is being made"),),
    ),
    "pay again too late": (
        story(replace(PENDING, is_soft_expired=True), DECLINED),
        PayAgainAsked("CARD"),
        (Refuse("ORDER_EXPIRED", "the order was not paid in time"),),
    ),
    "pay again for a paid order": (
        story(PAID, KEPT),
        PayAgainAsked("CARD"),
        (Refuse("NOT_PAYABLE", "only a pending order can be paid"),),
    ),
    # ------------------------------------------------------------ 5.1: cancel and expiry
    "cancel before any payment": (
        story(FRESH),
        CancelAsked("USER"),
        (RELEASE, MoveOrder("PENDING", "CANCELLED", "USER")),
    ),
    "cancel after a decline": (
        story(PENDING, DECLINED),
        CancelAsked("USER"),
        (RELEASE, MoveOrder("PENDING", "CANCELLED", "USER")),
    ),
    "cancel while a payment is open": (
        story(PENDING, UNKNOWN),
        CancelAsked("USER"),
        (RELEASE, MoveOrder("PENDING", "CANCELLING", "USER")),
    ),
    "cancel while late money goes back": (
        story(PENDING, LATE, refund("INTENT")),
        CancelAsked("USER"),
        (RELEASE, MoveOrder("PENDING", "CANCELLING", "USER")),
    ),
    "cancel a paid order": (
        story(PAID, KEPT),
        CancelAsked("USER"),
        (
            RETURN,
            MoveOrder("PAID", "CANCELLING", "USER"),
            OpenRefund("p1", TOTAL, "USER"),
        ),
    ),
    "cancel refunds exactly the rest": (
        story(PAID, payment("CAPTURED", refund_reserved_minor=300), refund("SUCCEEDED", 300)),
        CancelAsked("USER"),
        (RETURN, MoveOrder("PAID", "CANCELLING", "USER"), OpenRefund("p1", 700, "USER")),
    ),
    "cancel after everything was refunded": (
        story(PAID, ALL_RESERVED, refund("SUCCEEDED")),
        CancelAsked("USER"),
        (
            RETURN,
            MoveOrder("PAID", "CANCELLING", "USER"),
            MoveOrder("CANCELLING", "CANCELLED", "USER"),
        ),
    ),
    "cancel while the whole refund is on its way": (
        story(PAID, ALL_RESERVED, refund("UNKNOWN")),
        CancelAsked("USER"),
        (RETURN, MoveOrder("PAID", "CANCELLING", "USER")),
    ),
    "cancel again while cancelling": (
        story(CANCELLING, LIVE),
        CancelAsked("USER"),
        (Refuse("NOT_CANCELLABLE", "the order is cancelled already"),),
    ),
    "cancel again": (
        story(CANCELLED),
        CancelAsked("USER"),
        (Refuse("NOT_CANCELLABLE", "the order is cancelled already"),),
    ),
    "nothing expires early": (story(FRESH), ExpiryDue(), NOTHING),
    "soft expiry": (
        story(replace(PENDING, is_soft_expired=True), DECLINED),
        ExpiryDue(),
        (RELEASE, MoveOrder("PENDING", "CANCELLED", "EXPIRED")),
    ),
    "soft expiry spares an open payment": (
        story(replace(PENDING, is_soft_expired=True), LIVE),
        ExpiryDue(),
        NOTHING,
    ),
    "hard expiry does not": (
        story(replace(PENDING, is_soft_expired=True, is_hard_expired=True), LIVE),
        ExpiryDue(),
        (RELEASE, MoveOrder("PENDING", "CANCELLING", "EXPIRED")),
    ),
    "a paid order does not expire": (
        story(replace(PAID, is_soft_expired=True, is_hard_expired=True), KEPT),
        ExpiryDue(),
        NOTHING,
    ),
    # ------------------------------------------------------------ 5.3: refunds
    "a refund that a restore took away comes back under its id": (
        story(PAID, KEPT),
        RefundFound("r9", "p1", 300, "KRW"),
        (OpenRefund("p1", 300, "FOUND", "r9"), FOUND_ALARM),
    ),
    "who got everything back before the restore has no order any more": (
        story(PAID, replace(KEPT, refund_reserved_minor=300), refund("SUCCEEDED", 300)),
        RefundFound("r9", "p1", 700, "KRW"),
        (
            RETURN,
            MoveOrder("PAID", "CANCELLING", "OPERATOR"),
            OpenRefund("p1", 700, "FOUND", "r9"),
            FOUND_ALARM,
        ),
    ),
    "a found refund of more than is left wants a person": (
        story(PAID, replace(KEPT, refund_reserved_minor=TOTAL), refund("INTENT")),
        RefundFound("r9", "p1", TOTAL, "KRW"),
        (OperatorAlert("ghost_refund", "refund:r9", "the provider gave 1000 KRW back"),),
    ),
    "a found refund in another currency wants a person": (
        story(PAID, KEPT),
        RefundFound("r9", "p1", 300, "USD"),
        (OperatorAlert("ghost_refund", "refund:r9", "the provider gave 300 USD back"),),
    ),
    "a refund that is known is not found": (
        story(PAID, replace(KEPT, refund_reserved_minor=TOTAL), refund("INTENT")),
        RefundFound("r1", "p1", TOTAL, "KRW"),
        NOTHING,
    ),
    "a partial refund": (
        story(PAID, KEPT),
        RefundAsked(300, "dented"),
        (OpenRefund("p1", 300, "dented"),),
    ),
    "the last part": (
        story(PAID, payment("CAPTURED", refund_reserved_minor=300), refund("INTENT", 300)),
        RefundAsked(700, "lost"),
        (OpenRefund("p1", 700, "lost"),),
    ),
    "more than is left": (
        story(PAID, payment("CAPTURED", refund_reserved_minor=300), refund("INTENT", 300)),
        RefundAsked(701, "greed"),
        (Refuse("EXCEEDS_CAPTURE", "the refund is more than what is left of the payment"),),
    ),
    "an unpaid order is not refunded": (
        story(PENDING, LIVE),
        RefundAsked(1, "x"),
        (Refuse("NOT_REFUNDABLE", "only a paid order can be refunded"),),
    ),
    "a cancelled order is not refunded twice": (
        story(CANCELLING, ALL_RESERVED, refund("INTENT")),
        RefundAsked(1, "x"),
        (Refuse("NOT_REFUNDABLE", "only a paid order can be refunded"),),
    ),
    "refunded": (
        story(PAID, payment("CAPTURED", refund_reserved_minor=300), refund("INTENT", 300)),
        Refunded("r1"),
        (refund_moved("INTENT", "SUCCEEDED", 300), Post("REFUND", "r1", 300, "KRW")),
    ),
    "refunded with our amount": (
        story(PAID, payment("CAPTURED", refund_reserved_minor=300), refund("INTENT", 300)),
        Refunded("r1", 300, "KRW"),
        (refund_moved("INTENT", "SUCCEEDED", 300), Post("REFUND", "r1", 300, "KRW")),
    ),
    "refunded with another amount": (
        story(PAID, payment("CAPTURED", refund_reserved_minor=300), refund("INTENT", 300)),
        Refunded("r1", 299, "KRW"),
        (OperatorAlert("amount_mismatch", "r1", "the provider says 299 KRW went back"),),
    ),
    "refunded in another currency": (
        story(PAID, payment("CAPTURED", refund_reserved_minor=300), refund("UNKNOWN", 300)),
        Refunded("r1", 300, "USD"),
        (OperatorAlert("amount_mismatch", "r1", "the provider says 300 USD went back"),),
    ),
    "the last refund finishes the cancellation": (
        story(CANCELLING, ALL_RESERVED, refund("UNKNOWN")),
        Refunded("r1"),
        (
            refund_moved("UNKNOWN", "SUCCEEDED"),
            Post("REFUND", "r1", TOTAL, "KRW"),
            MoveOrder("CANCELLING", "CANCELLED", "USER"),
        ),
    ),
    "one of two refunds does not": (
        story(CANCELLING, ALL_RESERVED, refund("INTENT", 300), refund("INTENT", 700, 2)),
        Refunded("r1"),
        (refund_moved("INTENT", "SUCCEEDED", 300), Post("REFUND", "r1", 300, "KRW")),
    ),
    "a late capture's refund leaves the order alone": (
        story(CANCELLED, LATE, refund("INTENT")),
        Refunded("r1"),
        (refund_moved("INTENT", "SUCCEEDED"), Post("REFUND", "r1", TOTAL, "KRW")),
    ),
    "refunded again": (story(PAID, KEPT, refund("SUCCEEDED")), Refunded("r1"), NOTHING),
    "refunded after all": (
        story(PAID, KEPT, refund("REJECTED")),
        Refunded("r1"),
        (OperatorAlert("refund_after_rejection", "r1", "the provider refunded after all"),),
    ),
    "rejected for good": (
        story(CANCELLING, ALL_RESERVED, refund("INTENT")),
        RefundRejected("r1", "account closed"),
        (
            refund_moved("INTENT", "REJECTED"),
            OperatorAlert("refund_rejected", "r1", "account closed"),
        ),
    ),
    "rejected after it succeeded": (
        story(CANCELLED, ALL_RESERVED, refund("SUCCEEDED")),
        RefundRejected("r1"),
        (OperatorAlert("rejection_after_refund", "r1", "the refund came back"),),
    ),
    "rejected again": (story(PAID, KEPT, refund("REJECTED")), RefundRejected("r1"), NOTHING),
    "a refund's timeout is not a failure": (
        story(PAID, ALL_RESERVED, refund("INTENT")),
        RefundUnclear("r1"),
        (refund_moved("INTENT", "UNKNOWN"), RetryRefund("r1")),
    ),
    "a refund's second timeout": (
        story(PAID, ALL_RESERVED, refund("UNKNOWN")),
        RefundUnclear("r1"),
        (RetryRefund("r1"),),
    ),
    "a refund of nobody": (story(PAID, KEPT), Refunded("r9"), NOTHING),
    # ------------------------------------------------------------ finish
    "nothing left to wait for": (
        story(CANCELLING, VOIDED),
        FinishDue(),
        (MoveOrder("CANCELLING", "CANCELLED", "USER"),),
    ),
    "an open payment is left": (story(CANCELLING, LIVE), FinishDue(), NOTHING),
    "an open refund is left": (
        story(CANCELLING, ALL_RESERVED, refund("INTENT")),
        FinishDue(),
        NOTHING,
    ),
    "a rejected refund is left to a person": (
        story(CANCELLING, KEPT, refund("REJECTED")),
        FinishDue(),
        NOTHING,
    ),
    "only CANCELLING finishes": (story(PAID, KEPT), FinishDue(), NOTHING),
}


@pytest.mark.parametrize("rule", RULES)
def test_this_story_and_this_message_have_exactly_these_effects(rule: str) -> None:
    rows, message, effects = RULES[rule]

    assert decide(rows, message) == effects


@pytest.mark.parametrize("rule", RULES)
def test_a_message_that_comes_again_finds_nothing_more_to_write(rule: str) -> None:
    rows, message, effects = RULES[rule]
    if not effects or isinstance(message, RefundAsked) or isinstance(effects[0], Refuse):
        return

    again = decide(after_effects(rows, effects), message)

    assert all(isinstance(e, OperatorAlert | RetryPayment | RetryRefund | Refuse) for e in again), (
        again
    )


@pytest.mark.parametrize(
    ("order", "row", "step"),
    [
        (PENDING, LIVE, "confirm"),
        (PENDING, UNKNOWN, "confirm"),
        (PENDING, replace(LIVE, may_charge=False), "cancel"),
        (CANCELLING, LIVE, "cancel"),
        (CANCELLED, UNKNOWN, "cancel"),
    ],
)
def test_an_open_payment_is_confirmed_only_while_its_order_wants_it(
    order: Order, row: Payment, step: str
) -> None:
    assert provider_step(story(order, row), row) == step
