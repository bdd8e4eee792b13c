"""Each rule of docs/design/correctness.md: this state, this message, exactly these effects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from shop.orders.decide import ATTEMPTS_MAX, after_effects, decide, provider_call
from shop.orders.effects import (
    NOTHING,
    ChangeOrderStatus,
    ChangePaymentStatus,
    ChangeRefundStatus,
    ChangeReservations,
    Effects,
    OpenPayment,
    OpenRefund,
    PostponePayment,
    PostponeRefund,
    PostToLedger,
    RaiseAlert,
    Reject,
    RequestCharge,
)
from shop.orders.messages import (
    CancelRequested,
    Captured,
    ChargeDue,
    Declined,
    ExpiryDue,
    FinishDue,
    Message,
    PayAgainRequested,
    PaymentMismatched,
    PaymentUnknown,
    Refunded,
    RefundFound,
    RefundRejected,
    RefundRequested,
    RefundUnknown,
    Voided,
)
from shop.orders.states import Order, OrderState, Payment, Refund
from shop.primitives.statuses import (
    CancelReason,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundStatus,
    ReservationStatus,
)

P1 = UUID(int=1)
P3 = UUID(int=ATTEMPTS_MAX)
R1 = UUID(int=101)
R9 = UUID(int=109)

TOTAL = 1000
PENDING = Order(OrderStatus.PENDING, TOTAL, "KRW", charge_requested=False)
FRESH = replace(PENDING, charge_requested=True)
PAID = replace(PENDING, status=OrderStatus.PAID)
CANCELLING = replace(PENDING, status=OrderStatus.CANCELLING, reason=CancelReason.USER)
CANCELLED = replace(PENDING, status=OrderStatus.CANCELLED, reason=CancelReason.USER)

RELEASE = ChangeReservations(ReservationStatus.HELD, ReservationStatus.RELEASED)
COMMIT = ChangeReservations(ReservationStatus.HELD, ReservationStatus.COMMITTED)
RETURN = ChangeReservations(ReservationStatus.COMMITTED, ReservationStatus.RETURNED)
CAPTURE_POSTED = PostToLedger(PostingKind.CAPTURE, P1, TOTAL, "KRW")
FOUND_ALARM = RaiseAlert("refund_found", R9, "a refund whose row was lost")
CAPTURED_1 = Captured(P1, TOTAL, "KRW", "ch_1")


def payment(status: PaymentStatus, number: int = 1, **more: Any) -> Payment:
    return Payment(UUID(int=number), number, status, TOTAL, "KRW", **more)


def refund(status: RefundStatus, amount: int = TOTAL, number: int = 1) -> Refund:
    return Refund(UUID(int=100 + number), P1, amount, status)


def story(order: Order, *rows: Payment | Refund) -> OrderState:
    return OrderState(
        order,
        tuple(r for r in rows if isinstance(r, Payment)),
        tuple(r for r in rows if isinstance(r, Refund)),
    )


def moved(
    from_status: PaymentStatus, to_status: PaymentStatus, *, late_capture: bool = False
) -> ChangePaymentStatus:
    ref = "ch_1" if to_status == PaymentStatus.CAPTURED else None
    return ChangePaymentStatus(P1, from_status, to_status, late_capture, ref)


def refund_moved(
    from_status: RefundStatus, to_status: RefundStatus, amount: int = TOTAL
) -> ChangeRefundStatus:
    return ChangeRefundStatus(R1, P1, amount, from_status, to_status)


LIVE = payment(PaymentStatus.INTENT)
UNKNOWN = payment(PaymentStatus.UNKNOWN)
DECLINED = payment(PaymentStatus.DECLINED)
VOIDED = payment(PaymentStatus.VOIDED)
KEPT = payment(PaymentStatus.CAPTURED)
ALL_RESERVED = payment(PaymentStatus.CAPTURED, refund_reserved_minor=TOTAL)
LATE = payment(PaymentStatus.CAPTURED, late_capture=True, refund_reserved_minor=TOTAL)

RULES: dict[str, tuple[OrderState, Message, Effects]] = {
    # ------------------------------------------------------------ opening an attempt
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
    # ------------------------------------------------------------ captured
    "captured pays the order": (
        story(PENDING, LIVE),
        CAPTURED_1,
        (
            moved(PaymentStatus.INTENT, PaymentStatus.CAPTURED),
            COMMIT,
            CAPTURE_POSTED,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.PAID),
        ),
    ),
    "captured after a timeout pays the order": (
        story(PENDING, UNKNOWN),
        CAPTURED_1,
        (
            moved(PaymentStatus.UNKNOWN, PaymentStatus.CAPTURED),
            COMMIT,
            CAPTURE_POSTED,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.PAID),
        ),
    ),
    "captured again changes nothing": (story(PAID, KEPT), CAPTURED_1, NOTHING),
    "captured while cancelling is booked and given back": (
        story(CANCELLING, LIVE),
        CAPTURED_1,
        (
            moved(PaymentStatus.INTENT, PaymentStatus.CAPTURED),
            CAPTURE_POSTED,
            OpenRefund(P1, TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after all (voided) is late": (
        story(CANCELLED, VOIDED),
        CAPTURED_1,
        (
            moved(PaymentStatus.VOIDED, PaymentStatus.CAPTURED, late_capture=True),
            CAPTURE_POSTED,
            OpenRefund(P1, TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after all (declined) while the order waits for a second try": (
        story(PENDING, DECLINED),
        CAPTURED_1,
        (
            moved(PaymentStatus.DECLINED, PaymentStatus.CAPTURED, late_capture=True),
            CAPTURE_POSTED,
            OpenRefund(P1, TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after all while another attempt is kept": (
        story(PAID, DECLINED, payment(PaymentStatus.CAPTURED, 2)),
        CAPTURED_1,
        (
            moved(PaymentStatus.DECLINED, PaymentStatus.CAPTURED, late_capture=True),
            CAPTURE_POSTED,
            OpenRefund(P1, TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "another amount is not believed": (
        story(PENDING, LIVE),
        Captured(P1, TOTAL + 1, "KRW"),
        (RaiseAlert("amount_mismatch", P1, f"the provider says {TOTAL + 1} KRW"),),
    ),
    "another currency is not believed": (
        story(PENDING, LIVE),
        Captured(P1, TOTAL, "USD"),
        (RaiseAlert("amount_mismatch", P1, f"the provider says {TOTAL} USD"),),
    ),
    "captured for a payment of nobody": (story(PENDING), CAPTURED_1, NOTHING),
    # ------------------------------------------------------------ declined, voided, unclear
    "declined lets the buyer pay again": (
        story(PENDING, LIVE),
        Declined(P1),
        (moved(PaymentStatus.INTENT, PaymentStatus.DECLINED),),
    ),
    "the last decline cancels": (
        story(PENDING, payment(PaymentStatus.INTENT, ATTEMPTS_MAX)),
        Declined(P3),
        (
            ChangePaymentStatus(P3, PaymentStatus.INTENT, PaymentStatus.DECLINED),
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.DECLINED),
        ),
    ),
    "the last decline waits for a late capture's refund": (
        story(
            PENDING, LATE, refund(RefundStatus.INTENT), payment(PaymentStatus.UNKNOWN, ATTEMPTS_MAX)
        ),
        Declined(P3),
        (
            ChangePaymentStatus(P3, PaymentStatus.UNKNOWN, PaymentStatus.DECLINED),
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.DECLINED),
        ),
    ),
    "declined while cancelling finishes": (
        story(CANCELLING, UNKNOWN),
        Declined(P1),
        (
            moved(PaymentStatus.UNKNOWN, PaymentStatus.DECLINED),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "declined once more, after another attempt was captured": (
        story(PAID, DECLINED, payment(PaymentStatus.CAPTURED, 2)),
        Declined(P1),
        NOTHING,
    ),
    "declined after captured is not believed": (story(PAID, KEPT), Declined(P1), NOTHING),
    "voided while cancelling finishes": (
        story(CANCELLING, LIVE),
        Voided(P1),
        (
            moved(PaymentStatus.INTENT, PaymentStatus.VOIDED),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "voided again": (story(CANCELLED, VOIDED), Voided(P1), NOTHING),
    "a timeout is not a failure": (
        story(PENDING, LIVE),
        PaymentUnknown(P1),
        (moved(PaymentStatus.INTENT, PaymentStatus.UNKNOWN), PostponePayment(P1)),
    ),
    "a second timeout only comes again": (
        story(PENDING, UNKNOWN),
        PaymentUnknown(P1),
        (PostponePayment(P1),),
    ),
    "a timeout while cancelling stays open": (
        story(CANCELLING, UNKNOWN),
        PaymentUnknown(P1),
        (PostponePayment(P1),),
    ),
    "a timeout's answer came before it": (story(PAID, KEPT), PaymentUnknown(P1), NOTHING),
    "an answer that is not believed stays open and rings": (
        story(PENDING, LIVE),
        PaymentMismatched(P1, "another key"),
        (
            RaiseAlert("amount_mismatch", P1, "another key"),
            moved(PaymentStatus.INTENT, PaymentStatus.UNKNOWN),
            PostponePayment(P1),
        ),
    ),
    "a mismatch about a closed payment": (story(PAID, KEPT), PaymentMismatched(P1, "x"), NOTHING),
    # ------------------------------------------------------------ pay again
    "pay again after a decline": (
        story(PENDING, DECLINED),
        PayAgainRequested("CARD"),
        (RequestCharge("CARD"),),
    ),
    "pay again while a payment is made": (
        story(PENDING, LIVE),
        PayAgainRequested("CARD"),
        (Reject("PAYMENT_IN_PROGRESS", "a payment of this order is being made"),),
    ),
    "pay again twice": (
        story(FRESH, DECLINED),
        PayAgainRequested("CARD"),
        (Reject("PAYMENT_IN_PROGRESS", "a payment of this order is being made"),),
    ),
    "pay again too late": (
        story(replace(PENDING, is_soft_expired=True), DECLINED),
        PayAgainRequested("CARD"),
        (Reject("ORDER_EXPIRED", "the order was not paid in time"),),
    ),
    "pay again for a paid order": (
        story(PAID, KEPT),
        PayAgainRequested("CARD"),
        (Reject("NOT_PAYABLE", "only a pending order can be paid"),),
    ),
    # ------------------------------------------------------------ cancel and expiry
    "cancel before any payment": (
        story(FRESH),
        CancelRequested(CancelReason.USER),
        (RELEASE, ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.USER)),
    ),
    "cancel after a decline": (
        story(PENDING, DECLINED),
        CancelRequested(CancelReason.USER),
        (RELEASE, ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.USER)),
    ),
    "cancel while a payment is open": (
        story(PENDING, UNKNOWN),
        CancelRequested(CancelReason.USER),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.USER),
        ),
    ),
    "cancel while late money goes back": (
        story(PENDING, LATE, refund(RefundStatus.INTENT)),
        CancelRequested(CancelReason.USER),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.USER),
        ),
    ),
    "cancel a paid order": (
        story(PAID, KEPT),
        CancelRequested(CancelReason.USER),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER),
            OpenRefund(P1, TOTAL, "USER"),
        ),
    ),
    "cancel refunds exactly the rest": (
        story(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.SUCCEEDED, 300),
        ),
        CancelRequested(CancelReason.USER),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER),
            OpenRefund(P1, 700, "USER"),
        ),
    ),
    "cancel after everything was refunded": (
        story(PAID, ALL_RESERVED, refund(RefundStatus.SUCCEEDED)),
        CancelRequested(CancelReason.USER),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "cancel while the whole refund is on its way": (
        story(PAID, ALL_RESERVED, refund(RefundStatus.UNKNOWN)),
        CancelRequested(CancelReason.USER),
        (RETURN, ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER)),
    ),
    "cancel again while cancelling": (
        story(CANCELLING, LIVE),
        CancelRequested(CancelReason.USER),
        (Reject("NOT_CANCELLABLE", "the order is cancelled already"),),
    ),
    "cancel again": (
        story(CANCELLED),
        CancelRequested(CancelReason.USER),
        (Reject("NOT_CANCELLABLE", "the order is cancelled already"),),
    ),
    "nothing expires early": (story(FRESH), ExpiryDue(), NOTHING),
    "soft expiry": (
        story(replace(PENDING, is_soft_expired=True), DECLINED),
        ExpiryDue(),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.EXPIRED),
        ),
    ),
    "soft expiry spares an open payment": (
        story(replace(PENDING, is_soft_expired=True), LIVE),
        ExpiryDue(),
        NOTHING,
    ),
    "hard expiry does not": (
        story(replace(PENDING, is_soft_expired=True, is_hard_expired=True), LIVE),
        ExpiryDue(),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.EXPIRED),
        ),
    ),
    "a paid order does not expire": (
        story(replace(PAID, is_soft_expired=True, is_hard_expired=True), KEPT),
        ExpiryDue(),
        NOTHING,
    ),
    # ------------------------------------------------------------ refunds
    "a refund that a restore took away comes back under its id": (
        story(PAID, KEPT),
        RefundFound(R9, P1, 300, "KRW"),
        (OpenRefund(P1, 300, "FOUND", R9), FOUND_ALARM),
    ),
    "who got everything back before the restore has no order any more": (
        story(PAID, replace(KEPT, refund_reserved_minor=300), refund(RefundStatus.SUCCEEDED, 300)),
        RefundFound(R9, P1, 700, "KRW"),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.OPERATOR),
            OpenRefund(P1, 700, "FOUND", R9),
            FOUND_ALARM,
        ),
    ),
    "a found refund of more than is left wants a person": (
        story(PAID, replace(KEPT, refund_reserved_minor=TOTAL), refund(RefundStatus.INTENT)),
        RefundFound(R9, P1, TOTAL, "KRW"),
        (RaiseAlert("ghost_refund", f"refund:{R9}", "the provider refunded 1000 KRW"),),
    ),
    "a found refund in another currency wants a person": (
        story(PAID, KEPT),
        RefundFound(R9, P1, 300, "USD"),
        (RaiseAlert("ghost_refund", f"refund:{R9}", "the provider refunded 300 USD"),),
    ),
    "a refund that is known is not found": (
        story(PAID, replace(KEPT, refund_reserved_minor=TOTAL), refund(RefundStatus.INTENT)),
        RefundFound(R1, P1, TOTAL, "KRW"),
        NOTHING,
    ),
    "a partial refund": (
        story(PAID, KEPT),
        RefundRequested(300, "dented"),
        (OpenRefund(P1, 300, "dented"),),
    ),
    "the last part": (
        story(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        RefundRequested(700, "lost"),
        (OpenRefund(P1, 700, "lost"),),
    ),
    "more than is left": (
        story(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        RefundRequested(701, "greed"),
        (Reject("EXCEEDS_CAPTURE", "the refund is more than what is left of the payment"),),
    ),
    "an unpaid order is not refunded": (
        story(PENDING, LIVE),
        RefundRequested(1, "x"),
        (Reject("NOT_REFUNDABLE", "only a paid order can be refunded"),),
    ),
    "a cancelled order is not refunded twice": (
        story(CANCELLING, ALL_RESERVED, refund(RefundStatus.INTENT)),
        RefundRequested(1, "x"),
        (Reject("NOT_REFUNDABLE", "only a paid order can be refunded"),),
    ),
    "refunded": (
        story(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        Refunded(R1),
        (
            refund_moved(RefundStatus.INTENT, RefundStatus.SUCCEEDED, 300),
            PostToLedger(PostingKind.REFUND, R1, 300, "KRW"),
        ),
    ),
    "refunded with our amount": (
        story(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        Refunded(R1, 300, "KRW"),
        (
            refund_moved(RefundStatus.INTENT, RefundStatus.SUCCEEDED, 300),
            PostToLedger(PostingKind.REFUND, R1, 300, "KRW"),
        ),
    ),
    "refunded with another amount": (
        story(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        Refunded(R1, 299, "KRW"),
        (RaiseAlert("amount_mismatch", R1, "the provider says 299 KRW were refunded"),),
    ),
    "refunded in another currency": (
        story(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.UNKNOWN, 300),
        ),
        Refunded(R1, 300, "USD"),
        (RaiseAlert("amount_mismatch", R1, "the provider says 300 USD were refunded"),),
    ),
    "the last refund finishes the cancellation": (
        story(CANCELLING, ALL_RESERVED, refund(RefundStatus.UNKNOWN)),
        Refunded(R1),
        (
            refund_moved(RefundStatus.UNKNOWN, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND, R1, TOTAL, "KRW"),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "one of two refunds does not": (
        story(
            CANCELLING,
            ALL_RESERVED,
            refund(RefundStatus.INTENT, 300),
            refund(RefundStatus.INTENT, 700, 2),
        ),
        Refunded(R1),
        (
            refund_moved(RefundStatus.INTENT, RefundStatus.SUCCEEDED, 300),
            PostToLedger(PostingKind.REFUND, R1, 300, "KRW"),
        ),
    ),
    "a late capture's refund leaves the order alone": (
        story(CANCELLED, LATE, refund(RefundStatus.INTENT)),
        Refunded(R1),
        (
            refund_moved(RefundStatus.INTENT, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND, R1, TOTAL, "KRW"),
        ),
    ),
    "refunded again": (story(PAID, KEPT, refund(RefundStatus.SUCCEEDED)), Refunded(R1), NOTHING),
    "refunded after all": (
        story(PAID, KEPT, refund(RefundStatus.REJECTED)),
        Refunded(R1),
        (
            RaiseAlert(
                "refund_after_rejection", R1, "the provider executed a refund that it had rejected"
            ),
        ),
    ),
    "rejected for good": (
        story(CANCELLING, ALL_RESERVED, refund(RefundStatus.INTENT)),
        RefundRejected(R1, "account closed"),
        (
            refund_moved(RefundStatus.INTENT, RefundStatus.REJECTED),
            RaiseAlert("refund_rejected", R1, "account closed"),
        ),
    ),
    "rejected after it succeeded": (
        story(CANCELLED, ALL_RESERVED, refund(RefundStatus.SUCCEEDED)),
        RefundRejected(R1),
        (RaiseAlert("rejection_after_refund", R1, "the provider reversed a refund"),),
    ),
    "rejected again": (
        story(PAID, KEPT, refund(RefundStatus.REJECTED)),
        RefundRejected(R1),
        NOTHING,
    ),
    "a refund's timeout is not a failure": (
        story(PAID, ALL_RESERVED, refund(RefundStatus.INTENT)),
        RefundUnknown(R1),
        (refund_moved(RefundStatus.INTENT, RefundStatus.UNKNOWN), PostponeRefund(R1)),
    ),
    "a refund's second timeout": (
        story(PAID, ALL_RESERVED, refund(RefundStatus.UNKNOWN)),
        RefundUnknown(R1),
        (PostponeRefund(R1),),
    ),
    "a refund of nobody": (story(PAID, KEPT), Refunded(R9), NOTHING),
    # ------------------------------------------------------------ finish
    "nothing left to wait for": (
        story(CANCELLING, VOIDED),
        FinishDue(),
        (ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),),
    ),
    "an open payment is left": (story(CANCELLING, LIVE), FinishDue(), NOTHING),
    "an open refund is left": (
        story(CANCELLING, ALL_RESERVED, refund(RefundStatus.INTENT)),
        FinishDue(),
        NOTHING,
    ),
    "a rejected refund is left to a person": (
        story(CANCELLING, KEPT, refund(RefundStatus.REJECTED)),
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
    if not effects or isinstance(message, RefundRequested) or isinstance(effects[0], Reject):
        return

    again = decide(after_effects(rows, effects), message)

    assert all(
        isinstance(e, RaiseAlert | PostponePayment | PostponeRefund | Reject) for e in again
    ), again


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
    assert provider_call(story(order, row), row) == step
