"""Each rule of docs/design/correctness.md: this state, this message, exactly these effects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from shop.adapters.payment_provider.protocol import NextAction
from shop.orders.decide import ATTEMPTS_MAX, after_effects, decide, provider_call
from shop.orders.effects import (
    NOTHING,
    AwaitAction,
    ChangeDisputeStatus,
    ChangeOrderStatus,
    ChangePaymentStatus,
    ChangeRefundStatus,
    ChangeReservations,
    Effects,
    OpenDispute,
    OpenPayment,
    OpenRefund,
    PostponePayment,
    PostponeRefund,
    PostToLedger,
    RaiseAlert,
    RecordRefund,
    Reject,
    RequestCharge,
    ReturnCart,
)
from shop.orders.messages import (
    ActionRequired,
    CancelRequested,
    Captured,
    ChargeDue,
    Declined,
    DisputeMovement,
    DisputeReported,
    ExpiryDue,
    FinishDue,
    Message,
    OrderReplaced,
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
from shop.orders.states import Dispute, Order, OrderState, Payment, Refund
from shop.primitives.statuses import (
    ActionType,
    CancelReason,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundMeans,
    RefundOrigin,
    RefundStatus,
    ReservationStatus,
)

P1 = UUID(int=1)
P3 = UUID(int=ATTEMPTS_MAX)
R1 = UUID(int=101)
R2 = UUID(int=102)
R9 = UUID(int=109)
D1 = UUID(int=201)

TOTAL = 1000
PENDING = Order(OrderStatus.PENDING, TOTAL, "KRW", charge_requested=False)
FRESH = replace(PENDING, charge_requested=True)
PAID = replace(PENDING, status=OrderStatus.PAID)
CANCELLING = replace(PENDING, status=OrderStatus.CANCELLING, reason=CancelReason.USER)
CANCELLED = replace(PENDING, status=OrderStatus.CANCELLED, reason=CancelReason.USER)

REFUNDED = replace(PENDING, status=OrderStatus.REFUNDED)

RELEASE = ChangeReservations(ReservationStatus.HELD, ReservationStatus.RELEASED)
COMMIT = ChangeReservations(ReservationStatus.HELD, ReservationStatus.COMMITTED)
RETURN = ChangeReservations(ReservationStatus.COMMITTED, ReservationStatus.RETURNED)
CAPTURE_POSTED = PostToLedger(PostingKind.CAPTURE, P1, TOTAL, "KRW")
FOUND_ALERT = RaiseAlert("refund_found", R9, "a refund whose row was lost")
BY_BANK = RefundRequested(TOTAL, "card closed", RefundMeans.OTHER_MEANS, "transfer 7")
WRITE_OFF = RefundRequested(TOTAL, "heirs unknown", RefundMeans.WRITE_OFF)
WITH_RESTOCK = RefundRequested(TOTAL, "returned", restock=True)
REFUND_AFTER_REJECTION = RaiseAlert(
    "refund_after_rejection", R1, "the provider executed a refund that it had rejected"
)
SUPERSEDED = "the provider returned the money in another refund"
FEE = PostToLedger(PostingKind.DISPUTE_FEE, D1, 15, "KRW")
CAPTURED_1 = Captured(P1, TOTAL, "KRW", "ch_1")


def payment(status: PaymentStatus, number: int = 1, **more: Any) -> Payment:
    return Payment(UUID(int=number), number, status, TOTAL, "KRW", **more)


def refund(status: RefundStatus, amount: int = TOTAL, number: int = 1, **more: Any) -> Refund:
    return Refund(UUID(int=100 + number), P1, amount, status, **more)


def state_of(order: Order, *rows: Payment | Refund | Dispute) -> OrderState:
    return OrderState(
        order,
        tuple(r for r in rows if isinstance(r, Payment)),
        tuple(r for r in rows if isinstance(r, Refund)),
        tuple(r for r in rows if isinstance(r, Dispute)),
    )


def lost_refund(amount: int, currency: str = "KRW", refund_id: UUID = R9) -> RefundFound:
    key = f"refund:{refund_id}"
    return RefundFound(refund_id, P1, amount, currency, key, RefundOrigin.SHOP)


def provider_refund(amount: int, currency: str = "KRW") -> RefundFound:
    return RefundFound(R9, P1, amount, currency, "re_1", RefundOrigin.PROVIDER)


def recorded(amount: int, *, by_provider: bool) -> tuple[RecordRefund, PostToLedger]:
    key, origin = f"refund:{R9}", RefundOrigin.SHOP
    if by_provider:
        key, origin = "re_1", RefundOrigin.PROVIDER
    posting = PostToLedger(PostingKind.REFUND, R9, amount, "KRW")
    return RecordRefund(R9, P1, amount, key, origin), posting


def provider_alert(amount: int) -> RaiseAlert:
    return RaiseAlert("provider_refund", R9, f"the provider refunded {amount} KRW by itself")


def dispute(status: DisputeStatus = DisputeStatus.OPEN, **moved: int) -> Dispute:
    return Dispute(D1, P1, status, **moved)


def reported(status: DisputeStatus, *moved: tuple[PostingKind, int]) -> DisputeReported:
    movements = tuple(DisputeMovement(kind, amount, "KRW") for kind, amount in moved)
    return DisputeReported(D1, P1, "dp_1", status, TOTAL, "KRW", movements)


WITHDRAWN = (PostingKind.DISPUTE, TOTAL)
FEE_CHARGED = (PostingKind.DISPUTE_FEE, 15)
REINSTATED = (PostingKind.DISPUTE_REVERSAL, TOTAL)
DISPUTE_OPENED = (
    OpenDispute(D1, P1, "dp_1", TOTAL, "KRW"),
    RaiseAlert("dispute_opened", D1, "the customer disputes 1000 KRW"),
)
WITHDRAWAL_POSTED = PostToLedger(PostingKind.DISPUTE, D1, TOTAL, "KRW")
REINSTATEMENT_POSTED = PostToLedger(PostingKind.DISPUTE_REVERSAL, D1, TOTAL, "KRW")


def dispute_closed(status: DisputeStatus) -> tuple[ChangeDisputeStatus, RaiseAlert]:
    detail = "the dispute about 1000 KRW is closed"
    change = ChangeDisputeStatus(D1, DisputeStatus.OPEN, status)
    return change, RaiseAlert(f"dispute_{status.lower()}", D1, detail)


def payment_change(
    from_status: PaymentStatus, to_status: PaymentStatus, *, late_capture: bool = False
) -> ChangePaymentStatus:
    ref = "ch_1" if to_status == PaymentStatus.CAPTURED else None
    return ChangePaymentStatus(P1, from_status, to_status, late_capture, ref)


def refund_change(
    from_status: RefundStatus, to_status: RefundStatus, amount: int = TOTAL
) -> ChangeRefundStatus:
    return ChangeRefundStatus(R1, P1, amount, from_status, to_status)


OPEN = payment(PaymentStatus.INTENT)
UNKNOWN = payment(PaymentStatus.UNKNOWN)
DECLINED = payment(PaymentStatus.DECLINED)
VOIDED = payment(PaymentStatus.VOIDED)
SETTLING = payment(PaymentStatus.CAPTURED)
ALL_RESERVED = payment(PaymentStatus.CAPTURED, refund_reserved_minor=TOTAL)
LATE_CAPTURE = payment(PaymentStatus.CAPTURED, late_capture=True, refund_reserved_minor=TOTAL)

RULES: dict[str, tuple[OrderState, Message, Effects]] = {
    # ------------------------------------------------------------ opening an attempt
    "charge due opens the first attempt": (state_of(FRESH), ChargeDue(), (OpenPayment(1),)),
    "charge due with an open payment changes nothing": (
        state_of(PENDING, OPEN),
        ChargeDue(),
        NOTHING,
    ),
    "charge due after a decline waits for the customer": (
        state_of(PENDING, DECLINED),
        ChargeDue(),
        NOTHING,
    ),
    "charge due after pay again opens the next attempt": (
        state_of(FRESH, DECLINED),
        ChargeDue(),
        (OpenPayment(2),),
    ),
    "charge due for a paid order changes nothing": (state_of(PAID, SETTLING), ChargeDue(), NOTHING),
    "charge due after expiry changes nothing": (state_of(CANCELLED), ChargeDue(), NOTHING),
    # ------------------------------------------------------------ captured
    "captured pays the order": (
        state_of(PENDING, OPEN),
        CAPTURED_1,
        (
            payment_change(PaymentStatus.INTENT, PaymentStatus.CAPTURED),
            COMMIT,
            CAPTURE_POSTED,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.PAID),
        ),
    ),
    "captured after a timeout pays the order": (
        state_of(PENDING, UNKNOWN),
        CAPTURED_1,
        (
            payment_change(PaymentStatus.UNKNOWN, PaymentStatus.CAPTURED),
            COMMIT,
            CAPTURE_POSTED,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.PAID),
        ),
    ),
    "captured again changes nothing": (state_of(PAID, SETTLING), CAPTURED_1, NOTHING),
    "captured while cancelling is posted and refunded": (
        state_of(CANCELLING, OPEN),
        CAPTURED_1,
        (
            payment_change(PaymentStatus.INTENT, PaymentStatus.CAPTURED),
            CAPTURE_POSTED,
            OpenRefund(P1, TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after voided is a late capture": (
        state_of(CANCELLED, VOIDED),
        CAPTURED_1,
        (
            payment_change(PaymentStatus.VOIDED, PaymentStatus.CAPTURED, late_capture=True),
            CAPTURE_POSTED,
            OpenRefund(P1, TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after declined in a PENDING order is a late capture": (
        state_of(PENDING, DECLINED),
        CAPTURED_1,
        (
            payment_change(PaymentStatus.DECLINED, PaymentStatus.CAPTURED, late_capture=True),
            CAPTURE_POSTED,
            OpenRefund(P1, TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured after another attempt has paid is a late capture": (
        state_of(PAID, DECLINED, payment(PaymentStatus.CAPTURED, 2)),
        CAPTURED_1,
        (
            payment_change(PaymentStatus.DECLINED, PaymentStatus.CAPTURED, late_capture=True),
            CAPTURE_POSTED,
            OpenRefund(P1, TOTAL, "LATE_CAPTURE"),
        ),
    ),
    "captured with another amount raises an alert": (
        state_of(PENDING, OPEN),
        Captured(P1, TOTAL + 1, "KRW"),
        (RaiseAlert("amount_mismatch", P1, f"the provider reports {TOTAL + 1} KRW"),),
    ),
    "captured with another currency raises an alert": (
        state_of(PENDING, OPEN),
        Captured(P1, TOTAL, "USD"),
        (RaiseAlert("amount_mismatch", P1, f"the provider reports {TOTAL} USD"),),
    ),
    "captured for an unknown payment changes nothing": (state_of(PENDING), CAPTURED_1, NOTHING),
    # ------------------------------------------------------------ declined, voided, unclear
    "declined keeps the order payable": (
        state_of(PENDING, OPEN),
        Declined(P1),
        (payment_change(PaymentStatus.INTENT, PaymentStatus.DECLINED),),
    ),
    "declined at the last attempt cancels": (
        state_of(PENDING, payment(PaymentStatus.INTENT, ATTEMPTS_MAX)),
        Declined(P3),
        (
            ChangePaymentStatus(P3, PaymentStatus.INTENT, PaymentStatus.DECLINED),
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.DECLINED),
        ),
    ),
    "declined at the last attempt waits for the refund of a late capture": (
        state_of(
            PENDING,
            LATE_CAPTURE,
            refund(RefundStatus.INTENT),
            payment(PaymentStatus.UNKNOWN, ATTEMPTS_MAX),
        ),
        Declined(P3),
        (
            ChangePaymentStatus(P3, PaymentStatus.UNKNOWN, PaymentStatus.DECLINED),
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.DECLINED),
        ),
    ),
    "declined while cancelling cancels": (
        state_of(CANCELLING, UNKNOWN),
        Declined(P1),
        (
            payment_change(PaymentStatus.UNKNOWN, PaymentStatus.DECLINED),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "declined again after another attempt was captured changes nothing": (
        state_of(PAID, DECLINED, payment(PaymentStatus.CAPTURED, 2)),
        Declined(P1),
        NOTHING,
    ),
    "declined after captured changes nothing": (state_of(PAID, SETTLING), Declined(P1), NOTHING),
    "voided while cancelling cancels": (
        state_of(CANCELLING, OPEN),
        Voided(P1),
        (
            payment_change(PaymentStatus.INTENT, PaymentStatus.VOIDED),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "voided again changes nothing": (state_of(CANCELLED, VOIDED), Voided(P1), NOTHING),
    "timeout makes the payment unknown": (
        state_of(PENDING, OPEN),
        PaymentUnknown(P1),
        (payment_change(PaymentStatus.INTENT, PaymentStatus.UNKNOWN), PostponePayment(P1)),
    ),
    "second timeout postpones the payment": (
        state_of(PENDING, UNKNOWN),
        PaymentUnknown(P1),
        (PostponePayment(P1),),
    ),
    "timeout while cancelling keeps the payment open": (
        state_of(CANCELLING, UNKNOWN),
        PaymentUnknown(P1),
        (PostponePayment(P1),),
    ),
    "timeout after captured changes nothing": (
        state_of(PAID, SETTLING),
        PaymentUnknown(P1),
        NOTHING,
    ),
    "mismatch keeps the payment open and raises an alert": (
        state_of(PENDING, OPEN),
        PaymentMismatched(P1, "another key"),
        (
            RaiseAlert("amount_mismatch", P1, "another key"),
            payment_change(PaymentStatus.INTENT, PaymentStatus.UNKNOWN),
            PostponePayment(P1),
        ),
    ),
    "mismatch for a closed payment changes nothing": (
        state_of(PAID, SETTLING),
        PaymentMismatched(P1, "x"),
        NOTHING,
    ),
    # ------------------------------------------------------------ pay again
    "pay again after a decline requests a charge": (
        state_of(PENDING, DECLINED),
        PayAgainRequested("CARD"),
        (RequestCharge("CARD"),),
    ),
    "pay again with an open payment is rejected": (
        state_of(PENDING, OPEN),
        PayAgainRequested("CARD"),
        (Reject("PAYMENT_IN_PROGRESS", "a payment of this order is being made"),),
    ),
    "pay again twice is rejected": (
        state_of(FRESH, DECLINED),
        PayAgainRequested("CARD"),
        (Reject("PAYMENT_IN_PROGRESS", "a payment of this order is being made"),),
    ),
    "pay again after the soft expiry is rejected": (
        state_of(replace(PENDING, is_soft_expired=True), DECLINED),
        PayAgainRequested("CARD"),
        (Reject("ORDER_EXPIRED", "the order was not paid in time"),),
    ),
    "pay again for a paid order is rejected": (
        state_of(PAID, SETTLING),
        PayAgainRequested("CARD"),
        (Reject("NOT_PAYABLE", "only a pending order can be paid"),),
    ),
    # ------------------------------------------------------------ cancel and expiry
    "cancel without a payment cancels": (
        state_of(FRESH),
        CancelRequested(CancelReason.USER),
        (RELEASE, ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.USER)),
    ),
    "cancel after a decline cancels": (
        state_of(PENDING, DECLINED),
        CancelRequested(CancelReason.USER),
        (RELEASE, ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.USER)),
    ),
    "cancel with an open payment waits": (
        state_of(PENDING, UNKNOWN),
        CancelRequested(CancelReason.USER),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.USER),
        ),
    ),
    "cancel during the refund of a late capture waits": (
        state_of(PENDING, LATE_CAPTURE, refund(RefundStatus.INTENT)),
        CancelRequested(CancelReason.USER),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.USER),
        ),
    ),
    "cancel of a paid order refunds it": (
        state_of(PAID, SETTLING),
        CancelRequested(CancelReason.USER),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER),
            OpenRefund(P1, TOTAL, "USER"),
        ),
    ),
    "cancel after a partial refund refunds the rest": (
        state_of(
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
    "cancel after a full refund cancels": (
        state_of(PAID, ALL_RESERVED, refund(RefundStatus.SUCCEEDED)),
        CancelRequested(CancelReason.USER),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "cancel during a full refund waits": (
        state_of(PAID, ALL_RESERVED, refund(RefundStatus.UNKNOWN)),
        CancelRequested(CancelReason.USER),
        (RETURN, ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER)),
    ),
    "cancel while cancelling is rejected": (
        state_of(CANCELLING, OPEN),
        CancelRequested(CancelReason.USER),
        (Reject("NOT_CANCELLABLE", "the order is cancelled already"),),
    ),
    "cancel of a cancelled order is rejected": (
        state_of(CANCELLED),
        CancelRequested(CancelReason.USER),
        (Reject("NOT_CANCELLABLE", "the order is cancelled already"),),
    ),
    "a declined order that another replaces is cancelled": (
        state_of(PENDING, DECLINED),
        OrderReplaced(),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.DECLINED),
        ),
    ),
    "an order with an open payment is not replaced": (
        state_of(PENDING, OPEN),
        OrderReplaced(),
        NOTHING,
    ),
    "an order that is to be charged is not replaced": (
        state_of(FRESH, DECLINED),
        OrderReplaced(),
        NOTHING,
    ),
    "a paid order is not replaced": (state_of(PAID, SETTLING), OrderReplaced(), NOTHING),
    "a decline returns the lines of the cart": (
        state_of(replace(PENDING, has_cart_lines=True), OPEN),
        Declined(P1),
        (payment_change(PaymentStatus.INTENT, PaymentStatus.DECLINED), ReturnCart()),
    ),
    "a decline of a cancelled order returns no lines": (
        state_of(replace(CANCELLING, has_cart_lines=True), OPEN, VOIDED),
        Declined(P1),
        (
            payment_change(PaymentStatus.INTENT, PaymentStatus.DECLINED),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "hard expiry returns the lines of the cart": (
        state_of(
            replace(PENDING, is_soft_expired=True, is_hard_expired=True, has_cart_lines=True),
            OPEN,
        ),
        ExpiryDue(),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.EXPIRED),
            ReturnCart(),
        ),
    ),
    "expiry due before the time changes nothing": (state_of(FRESH), ExpiryDue(), NOTHING),
    "soft expiry cancels": (
        state_of(replace(PENDING, is_soft_expired=True), DECLINED),
        ExpiryDue(),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLED, CancelReason.EXPIRED),
        ),
    ),
    "expiry before a requested charge was tried changes nothing": (
        state_of(replace(FRESH, is_soft_expired=True, is_hard_expired=True), DECLINED),
        ExpiryDue(),
        NOTHING,
    ),
    "soft expiry with an open payment changes nothing": (
        state_of(replace(PENDING, is_soft_expired=True), OPEN),
        ExpiryDue(),
        NOTHING,
    ),
    "hard expiry with an open payment cancels": (
        state_of(replace(PENDING, is_soft_expired=True, is_hard_expired=True), OPEN),
        ExpiryDue(),
        (
            RELEASE,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.CANCELLING, CancelReason.EXPIRED),
        ),
    ),
    "expiry due for a paid order changes nothing": (
        state_of(replace(PAID, is_soft_expired=True, is_hard_expired=True), SETTLING),
        ExpiryDue(),
        NOTHING,
    ),
    # ------------------------------------------------------------ refunds
    "a lost refund is restored under its id": (
        state_of(PAID, SETTLING),
        lost_refund(300),
        (*recorded(300, by_provider=False), FOUND_ALERT),
    ),
    "a lost full refund cancels the order": (
        state_of(
            PAID, replace(SETTLING, refund_reserved_minor=300), refund(RefundStatus.SUCCEEDED, 300)
        ),
        lost_refund(700),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.OPERATOR),
            *recorded(700, by_provider=False),
            FOUND_ALERT,
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.OPERATOR),
        ),
    ),
    "a refund of the provider beyond the capture raises an alert": (
        state_of(REFUNDED, ALL_RESERVED, refund(RefundStatus.SUCCEEDED)),
        provider_refund(1),
        (RaiseAlert("ghost_refund", "re_1", "the provider refunded 1 KRW"),),
    ),
    "a refund of the provider in another currency raises an alert": (
        state_of(PAID, SETTLING),
        provider_refund(300, "USD"),
        (RaiseAlert("ghost_refund", "re_1", "the provider refunded 300 USD"),),
    ),
    "a refund of the provider before the capture raises an alert": (
        state_of(PENDING, UNKNOWN),
        provider_refund(300),
        (RaiseAlert("ghost_refund", "re_1", "the provider refunded 300 KRW"),),
    ),
    "a lost refund that is known changes nothing": (
        state_of(PAID, replace(SETTLING, refund_reserved_minor=TOTAL), refund(RefundStatus.INTENT)),
        lost_refund(TOTAL, refund_id=R1),
        NOTHING,
    ),
    # ------------------------------------------------------------ refunds made by the provider
    "a partial refund of the provider is booked beside the shop's": (
        state_of(
            PAID, replace(SETTLING, refund_reserved_minor=700), refund(RefundStatus.INTENT, 700)
        ),
        provider_refund(300),
        (*recorded(300, by_provider=True), provider_alert(300)),
    ),
    "a full refund of the provider closes the order as refunded": (
        state_of(PAID, SETTLING),
        provider_refund(TOTAL),
        (
            *recorded(TOTAL, by_provider=True),
            provider_alert(TOTAL),
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.REFUNDED),
        ),
    ),
    "a provider refund that was reversed and is reported again changes nothing": (
        state_of(PAID, SETTLING, replace(refund(RefundStatus.REVERSED), refund_id=R9)),
        provider_refund(TOTAL),
        NOTHING,
    ),
    "a refund of the provider closes the open refund that no longer fits and returns the rest": (
        state_of(CANCELLING, ALL_RESERVED, refund(RefundStatus.UNKNOWN)),
        provider_refund(300),
        (
            refund_change(RefundStatus.UNKNOWN, RefundStatus.REJECTED),
            RaiseAlert("refund_rejected", R1, SUPERSEDED),
            *recorded(300, by_provider=True),
            provider_alert(300),
            OpenRefund(P1, 700, "REST"),
        ),
    ),
    "a full refund of the provider cancels a cancelling order": (
        state_of(CANCELLING, ALL_RESERVED, refund(RefundStatus.INTENT)),
        provider_refund(TOTAL),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.REJECTED),
            RaiseAlert("refund_rejected", R1, SUPERSEDED),
            *recorded(TOTAL, by_provider=True),
            provider_alert(TOTAL),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "a refund of the provider after a rejection returns the rest": (
        state_of(CANCELLING, SETTLING, refund(RefundStatus.REJECTED)),
        provider_refund(300),
        (*recorded(300, by_provider=True), provider_alert(300), OpenRefund(P1, 700, "REST")),
    ),
    "a refund of the provider closes only as many open refunds as it must, the newest first": (
        state_of(
            PAID,
            ALL_RESERVED,
            refund(RefundStatus.UNKNOWN, 400),
            refund(RefundStatus.UNKNOWN, 600, 2),
        ),
        provider_refund(500),
        (
            ChangeRefundStatus(R2, P1, 600, RefundStatus.UNKNOWN, RefundStatus.REJECTED),
            RaiseAlert("refund_rejected", R2, SUPERSEDED),
            *recorded(500, by_provider=True),
            provider_alert(500),
        ),
    ),
    "cancelling after a partial refund of the provider refunds the rest": (
        state_of(
            PAID, replace(SETTLING, refund_reserved_minor=300), refund(RefundStatus.SUCCEEDED, 300)
        ),
        CancelRequested(CancelReason.USER),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER),
            OpenRefund(P1, 700, "USER"),
        ),
    ),
    # ------------------------------------------------------------ disputes
    "a dispute is opened with its withdrawal and fee": (
        state_of(PAID, SETTLING),
        reported(DisputeStatus.OPEN, WITHDRAWN, FEE_CHARGED),
        (*DISPUTE_OPENED, WITHDRAWAL_POSTED, FEE),
    ),
    "an inquiry is opened without a posting": (
        state_of(PAID, SETTLING),
        reported(DisputeStatus.OPEN),
        DISPUTE_OPENED,
    ),
    "an older report of a closed dispute changes nothing": (
        state_of(
            PAID,
            SETTLING,
            dispute(DisputeStatus.WON, withdrawn_minor=TOTAL, reinstated_minor=TOTAL),
        ),
        reported(DisputeStatus.OPEN, WITHDRAWN),
        NOTHING,
    ),
    "the first report of a won dispute is posted completely": (
        state_of(PAID, SETTLING),
        reported(DisputeStatus.WON, WITHDRAWN, REINSTATED),
        (
            *DISPUTE_OPENED,
            WITHDRAWAL_POSTED,
            REINSTATEMENT_POSTED,
            *dispute_closed(DisputeStatus.WON),
        ),
    ),
    "a lost dispute keeps the order paid": (
        state_of(PAID, SETTLING, dispute(withdrawn_minor=TOTAL)),
        reported(DisputeStatus.LOST, WITHDRAWN),
        dispute_closed(DisputeStatus.LOST),
    ),
    "a lost dispute returns the money of a cancelling order": (
        state_of(CANCELLING, SETTLING, dispute(withdrawn_minor=TOTAL)),
        reported(DisputeStatus.LOST, WITHDRAWN),
        (
            *dispute_closed(DisputeStatus.LOST),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "a lost dispute waits for an open refund": (
        state_of(
            CANCELLING, ALL_RESERVED, refund(RefundStatus.UNKNOWN), dispute(withdrawn_minor=TOTAL)
        ),
        reported(DisputeStatus.LOST, WITHDRAWN),
        dispute_closed(DisputeStatus.LOST),
    ),
    "a won dispute of a cancelling order is refunded when the money is back": (
        state_of(CANCELLING, SETTLING, dispute(withdrawn_minor=TOTAL)),
        reported(DisputeStatus.WON, WITHDRAWN, REINSTATED),
        (
            REINSTATEMENT_POSTED,
            *dispute_closed(DisputeStatus.WON),
            OpenRefund(P1, TOTAL, "REST"),
        ),
    ),
    "a won dispute whose money is not back yet is not refunded": (
        state_of(CANCELLING, SETTLING, dispute(withdrawn_minor=TOTAL)),
        reported(DisputeStatus.WON, WITHDRAWN),
        dispute_closed(DisputeStatus.WON),
    ),
    "a dispute with another result raises an alert": (
        state_of(PAID, SETTLING, dispute(DisputeStatus.LOST, withdrawn_minor=TOTAL)),
        reported(DisputeStatus.WON, WITHDRAWN),
        (RaiseAlert("dispute_changed", D1, "the provider reports WON, ours is LOST"),),
    ),
    "a dispute with another amount raises an alert": (
        state_of(PAID, SETTLING, dispute(withdrawn_minor=TOTAL - 1)),
        reported(DisputeStatus.OPEN, WITHDRAWN),
        (RaiseAlert("amount_mismatch", D1, "the provider reports 1000 KRW, DISPUTE"),),
    ),
    "a dispute about a payment without a capture raises an alert": (
        state_of(CANCELLED, VOIDED),
        reported(DisputeStatus.OPEN, WITHDRAWN),
        (RaiseAlert("ghost_dispute", "dp_1", "the customer disputes a payment that is VOIDED"),),
    ),
    "a dispute about an unknown payment changes nothing": (
        state_of(PENDING),
        reported(DisputeStatus.OPEN, WITHDRAWN),
        NOTHING,
    ),
    "cancelling a disputed order refunds nothing that the dispute has withdrawn": (
        state_of(PAID, SETTLING, dispute(withdrawn_minor=TOTAL)),
        CancelRequested(CancelReason.USER),
        (
            RETURN,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.USER),
        ),
    ),
    "a refund of what a dispute has withdrawn is rejected": (
        state_of(PAID, SETTLING, dispute(withdrawn_minor=TOTAL - 100)),
        RefundRequested(101, "x"),
        (Reject("EXCEEDS_CAPTURE", "the refund is more than what is left of the payment"),),
    ),
    "a refund beside a partial dispute is opened": (
        state_of(PAID, SETTLING, dispute(withdrawn_minor=TOTAL - 100)),
        RefundRequested(100, "x"),
        (OpenRefund(P1, 100, "x"),),
    ),
    # ------------------------------------------------------------ refunds of the shop
    "a partial refund is opened": (
        state_of(PAID, SETTLING),
        RefundRequested(300, "dented"),
        (OpenRefund(P1, 300, "dented"),),
    ),
    "a refund of the rest is opened": (
        state_of(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        RefundRequested(700, "lost"),
        (OpenRefund(P1, 700, "lost"),),
    ),
    "a refund beyond the capture is rejected": (
        state_of(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        RefundRequested(701, "greed"),
        (Reject("EXCEEDS_CAPTURE", "the refund is more than what is left of the payment"),),
    ),
    "a refund of an unpaid order is rejected": (
        state_of(PENDING, OPEN),
        RefundRequested(1, "x"),
        (Reject("NOT_REFUNDABLE", "there is no payment that can be refunded"),),
    ),
    "a refund of a cancelled order is rejected": (
        state_of(CANCELLING, ALL_RESERVED, refund(RefundStatus.INTENT)),
        RefundRequested(1, "x"),
        (Reject("NOT_REFUNDABLE", "there is no payment that can be refunded"),),
    ),
    "a refund after a rejected one is opened again": (
        state_of(CANCELLING, SETTLING, refund(RefundStatus.REJECTED)),
        RefundRequested(TOTAL, "another try"),
        (OpenRefund(P1, TOTAL, "another try"),),
    ),
    "a refund after a reversed one is opened again": (
        state_of(CANCELLED, SETTLING, refund(RefundStatus.REVERSED)),
        RefundRequested(TOTAL, "another try"),
        (OpenRefund(P1, TOTAL, "another try"),),
    ),
    "a rejected refund of a late capture is opened again before that of the kept one": (
        state_of(
            PAID,
            payment(PaymentStatus.CAPTURED, late_capture=True),
            payment(PaymentStatus.CAPTURED, 2),
            refund(RefundStatus.REJECTED),
        ),
        RefundRequested(TOTAL, "another try"),
        (OpenRefund(P1, TOTAL, "another try"),),
    ),
    "a refund by other means is opened": (
        state_of(CANCELLING, SETTLING, refund(RefundStatus.REJECTED)),
        BY_BANK,
        (
            OpenRefund(
                P1, TOTAL, "card closed", means=RefundMeans.OTHER_MEANS, reference="transfer 7"
            ),
        ),
    ),
    "a write-off of what a cancelled order keeps is opened": (
        state_of(CANCELLING, SETTLING, refund(RefundStatus.REJECTED)),
        WRITE_OFF,
        (OpenRefund(P1, TOTAL, "heirs unknown", means=RefundMeans.WRITE_OFF),),
    ),
    "a write-off of a paid order is rejected": (
        state_of(PAID, SETTLING),
        WRITE_OFF,
        (Reject("NOT_REFUNDABLE", "only money that must be returned can be written off"),),
    ),
    "a full refund with restock is opened": (
        state_of(PAID, SETTLING),
        WITH_RESTOCK,
        (OpenRefund(P1, TOTAL, "returned", restock=True),),
    ),
    "a partial refund with restock is rejected": (
        state_of(PAID, SETTLING),
        replace(WITH_RESTOCK, amount_minor=TOTAL - 1),
        (Reject("RESTOCK_NEEDS_FULL_REFUND", "only a refund of all that is left restocks"),),
    ),
    "a refund of a cancelled order with restock is rejected": (
        state_of(CANCELLING, SETTLING, refund(RefundStatus.REJECTED)),
        WITH_RESTOCK,
        (Reject("RESTOCK_NEEDS_FULL_REFUND", "only a refund of all that is left restocks"),),
    ),
    "a full refund that succeeds makes the order refunded": (
        state_of(PAID, ALL_RESERVED, refund(RefundStatus.INTENT)),
        Refunded(R1),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND, R1, TOTAL, "KRW"),
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.REFUNDED),
        ),
    ),
    "a full refund with restock that succeeds returns the stock": (
        state_of(PAID, ALL_RESERVED, refund(RefundStatus.INTENT, restock=True)),
        Refunded(R1),
        (
            RETURN,
            refund_change(RefundStatus.INTENT, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND, R1, TOTAL, "KRW"),
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.REFUNDED),
        ),
    ),
    "a refund by other means is posted to its own account and closes the order": (
        state_of(
            CANCELLING,
            ALL_RESERVED,
            refund(RefundStatus.INTENT, means=RefundMeans.OTHER_MEANS),
        ),
        Refunded(R1),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND_BY_OTHER_MEANS, R1, TOTAL, "KRW"),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "a write-off is posted to its own account and closes the order": (
        state_of(
            CANCELLING, ALL_RESERVED, refund(RefundStatus.INTENT, means=RefundMeans.WRITE_OFF)
        ),
        Refunded(R1),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.WRITE_OFF, R1, TOTAL, "KRW"),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "cancel of a refunded order is rejected": (
        state_of(REFUNDED, ALL_RESERVED, refund(RefundStatus.SUCCEEDED)),
        CancelRequested(CancelReason.USER),
        (Reject("NOT_CANCELLABLE", "the order is refunded already"),),
    ),
    "refunded after a reversal changes nothing": (
        state_of(CANCELLED, SETTLING, refund(RefundStatus.REVERSED)),
        Refunded(R1),
        NOTHING,
    ),
    "refunded is posted": (
        state_of(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        Refunded(R1),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.SUCCEEDED, 300),
            PostToLedger(PostingKind.REFUND, R1, 300, "KRW"),
        ),
    ),
    "refunded with the same amount is posted": (
        state_of(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        Refunded(R1, 300, "KRW"),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.SUCCEEDED, 300),
            PostToLedger(PostingKind.REFUND, R1, 300, "KRW"),
        ),
    ),
    "refunded with another amount raises an alert": (
        state_of(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.INTENT, 300),
        ),
        Refunded(R1, 299, "KRW"),
        (RaiseAlert("amount_mismatch", R1, "the provider reports 299 KRW were refunded"),),
    ),
    "refunded in another currency raises an alert": (
        state_of(
            PAID,
            payment(PaymentStatus.CAPTURED, refund_reserved_minor=300),
            refund(RefundStatus.UNKNOWN, 300),
        ),
        Refunded(R1, 300, "USD"),
        (RaiseAlert("amount_mismatch", R1, "the provider reports 300 USD were refunded"),),
    ),
    "the last refund cancels a cancelling order": (
        state_of(CANCELLING, ALL_RESERVED, refund(RefundStatus.UNKNOWN)),
        Refunded(R1),
        (
            refund_change(RefundStatus.UNKNOWN, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND, R1, TOTAL, "KRW"),
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "one of two refunds keeps it cancelling": (
        state_of(
            CANCELLING,
            ALL_RESERVED,
            refund(RefundStatus.INTENT, 300),
            refund(RefundStatus.INTENT, 700, 2),
        ),
        Refunded(R1),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.SUCCEEDED, 300),
            PostToLedger(PostingKind.REFUND, R1, 300, "KRW"),
        ),
    ),
    "the refund of a late capture keeps the order's status": (
        state_of(CANCELLED, LATE_CAPTURE, refund(RefundStatus.INTENT)),
        Refunded(R1),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND, R1, TOTAL, "KRW"),
        ),
    ),
    "refunded again changes nothing": (
        state_of(REFUNDED, ALL_RESERVED, refund(RefundStatus.SUCCEEDED)),
        Refunded(R1),
        NOTHING,
    ),
    "refunded after a rejection is booked with an alert": (
        state_of(PAID, SETTLING, refund(RefundStatus.REJECTED)),
        Refunded(R1),
        (
            refund_change(RefundStatus.REJECTED, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND, R1, TOTAL, "KRW"),
            REFUND_AFTER_REJECTION,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.REFUNDED),
        ),
    ),
    "refunded after a rejection closes the refund that replaced it": (
        state_of(
            CANCELLING,
            ALL_RESERVED,
            refund(RefundStatus.REJECTED),
            refund(RefundStatus.INTENT, number=2),
        ),
        Refunded(R1),
        (
            ChangeRefundStatus(R2, P1, TOTAL, RefundStatus.INTENT, RefundStatus.REJECTED),
            RaiseAlert("refund_rejected", R2, SUPERSEDED),
            refund_change(RefundStatus.REJECTED, RefundStatus.SUCCEEDED),
            PostToLedger(PostingKind.REFUND, R1, TOTAL, "KRW"),
            REFUND_AFTER_REJECTION,
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),
        ),
    ),
    "refunded after a rejection beyond the capture raises an alert": (
        state_of(
            REFUNDED,
            ALL_RESERVED,
            refund(RefundStatus.REJECTED),
            refund(RefundStatus.SUCCEEDED, number=2),
        ),
        Refunded(R1),
        (REFUND_AFTER_REJECTION,),
    ),
    "rejected frees the amount and raises an alert": (
        state_of(CANCELLING, ALL_RESERVED, refund(RefundStatus.INTENT)),
        RefundRejected(R1, "account closed"),
        (
            refund_change(RefundStatus.INTENT, RefundStatus.REJECTED),
            RaiseAlert("refund_rejected", R1, "account closed"),
        ),
    ),
    "rejected after success reverses the posting and raises an alert": (
        state_of(CANCELLED, ALL_RESERVED, refund(RefundStatus.SUCCEEDED)),
        RefundRejected(R1),
        (
            refund_change(RefundStatus.SUCCEEDED, RefundStatus.REVERSED),
            PostToLedger(PostingKind.REFUND_REVERSED, R1, TOTAL, "KRW"),
            RaiseAlert("refund_reversed", R1, "the provider reversed a refund"),
        ),
    ),
    "rejected again changes nothing": (
        state_of(PAID, SETTLING, refund(RefundStatus.REJECTED)),
        RefundRejected(R1),
        NOTHING,
    ),
    "timeout makes the refund unknown": (
        state_of(PAID, ALL_RESERVED, refund(RefundStatus.INTENT)),
        RefundUnknown(R1),
        (refund_change(RefundStatus.INTENT, RefundStatus.UNKNOWN), PostponeRefund(R1)),
    ),
    "second timeout postpones the refund": (
        state_of(PAID, ALL_RESERVED, refund(RefundStatus.UNKNOWN)),
        RefundUnknown(R1),
        (PostponeRefund(R1),),
    ),
    "refunded for an unknown refund changes nothing": (
        state_of(PAID, SETTLING),
        Refunded(R9),
        NOTHING,
    ),
    # ------------------------------------------------------------ finish
    "finish due without open rows cancels": (
        state_of(CANCELLING, VOIDED),
        FinishDue(),
        (ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, CancelReason.USER),),
    ),
    "finish due with an open payment changes nothing": (
        state_of(CANCELLING, OPEN),
        FinishDue(),
        NOTHING,
    ),
    "finish due with an open refund changes nothing": (
        state_of(CANCELLING, ALL_RESERVED, refund(RefundStatus.INTENT)),
        FinishDue(),
        NOTHING,
    ),
    "finish due with a rejected refund changes nothing": (
        state_of(CANCELLING, SETTLING, refund(RefundStatus.REJECTED)),
        FinishDue(),
        NOTHING,
    ),
    "finish due for a paid order changes nothing": (state_of(PAID, SETTLING), FinishDue(), NOTHING),
}


@pytest.mark.parametrize("rule", RULES)
def test_message_has_exactly_these_effects(rule: str) -> None:
    rows, message, effects = RULES[rule]

    assert decide(rows, message) == effects


@pytest.mark.parametrize("rule", RULES)
def test_a_repeated_message_changes_nothing(rule: str) -> None:
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
        (PENDING, OPEN, "confirm"),
        (PENDING, UNKNOWN, "confirm"),
        (PENDING, replace(OPEN, may_charge=False), "cancel"),
        (CANCELLING, OPEN, "cancel"),
        (CANCELLED, UNKNOWN, "cancel"),
    ],
)
def test_open_payment_is_confirmed_while_its_order_is_pending_and_cancelled_otherwise(
    order: Order, row: Payment, step: str
) -> None:
    assert provider_call(state_of(order, row), row) == step


# ---------------------------------------------------------------- actions that are not offered

WIDGET_OF_0_S = NextAction(ActionType.WIDGET, {}, 0)


def test_action_without_time_to_do_it_leaves_the_payment_unknown() -> None:
    """As in version 0.1.0, whose functions cannot read a payment that requires an action."""
    intent = state_of(PENDING, payment(PaymentStatus.INTENT))
    unknown = state_of(PENDING, payment(PaymentStatus.UNKNOWN))
    required = ActionRequired(P1, WIDGET_OF_0_S, None)

    assert decide(intent, required) == (
        ChangePaymentStatus(P1, PaymentStatus.INTENT, PaymentStatus.UNKNOWN),
        PostponePayment(P1),
    )
    assert decide(unknown, required) == (PostponePayment(P1),)


def test_action_that_was_offered_before_keeps_its_deadline_once_none_is_offered() -> None:
    waiting = payment(PaymentStatus.REQUIRES_ACTION, action=ActionType.WIDGET)
    required = ActionRequired(P1, WIDGET_OF_0_S, None)

    effects = decide(state_of(PENDING, waiting), required)

    assert effects == (AwaitAction(P1, PaymentStatus.REQUIRES_ACTION, None),)
