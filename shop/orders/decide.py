"""The order's rules, as one pure function: rows in, effects out.

Every handler and timer calls ``decide(state, message)`` under the order's lock; the exhaustive
model and the property tests call it too.  It reads no clock and does no I/O: what depends on
time is a boolean of the state, compared by the database.

A message that does not fit the rows has no effects, so duplicate, late and reordered events change
nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal, assert_never
from uuid import UUID

from shop.orders.effects import (
    NOTHING,
    AbandonAction,
    AwaitAction,
    ChangeDisputeStatus,
    ChangeOrderStatus,
    ChangePaymentStatus,
    ChangeRefundStatus,
    ChangeReservations,
    ChangeReturnStatus,
    ChangeShipmentStatus,
    ConfirmAction,
    Effect,
    Effects,
    GiveBack,
    OpenDispute,
    OpenPayment,
    OpenRefund,
    OpenReturn,
    OpenShipment,
    PostponePayment,
    PostponeRefund,
    PostToLedger,
    RaiseAlert,
    RecordRefund,
    Reject,
    RequestCharge,
    ReturnCart,
)
from shop.orders.lines import Line
from shop.orders.messages import (
    ActionRequired,
    ActionReturned,
    CancelRequested,
    Captured,
    ChargeDue,
    Declined,
    DisputeReported,
    ExpiryDue,
    FinishDue,
    GoodsMessage,
    LinesCancelled,
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
    ReturnApproved,
    ReturnReceived,
    ReturnRejected,
    ReturnRequested,
    ShipmentArrived,
    ShipmentDropped,
    ShipmentRequested,
    ShipmentSent,
    Voided,
)
from shop.orders.states import Dispute, OrderState, Payment, Refund, Return, Shipment
from shop.primitives.statuses import (
    FAILED_REFUND,
    OPEN_PAYMENT,
    OPEN_REFUND,
    CancelReason,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundMeans,
    RefundOrigin,
    RefundStatus,
    ReservationStatus,
    ReturnStatus,
    ShipmentStatus,
)

ATTEMPTS_MAX = 3
CLOSED_ORDER: Final = (OrderStatus.CANCELLING, OrderStatus.CANCELLED)
POSTED_AS: Final = {
    RefundMeans.PROVIDER: PostingKind.REFUND,
    RefundMeans.OTHER_MEANS: PostingKind.REFUND_BY_OTHER_MEANS,
    RefundMeans.WRITE_OFF: PostingKind.WRITE_OFF,
}
# the id of a row that ``after_effects`` adds: the real one is generated when the row is written
NEW_ID = UUID(int=0)

ProviderCall = Literal["confirm", "cancel"]


def decide(state: OrderState, message: Message) -> Effects:
    """What ``message`` changes, given the rows; the empty tuple when nothing.

    Effects are in the order in which they are written.  A ``Reject`` is always the only effect.
    """
    effects = _close_if_returned(state, _effects_of(state, message))
    return _drop_shipments_if_closed(state, effects)


def provider_call(state: OrderState, payment: Payment) -> ProviderCall:
    """Which call resolves an open payment: ``confirm`` it, or ``cancel`` its intent.

    A customer who has to act may take longer than a charge, but no longer than the deadline.
    """
    requires_action = payment.status == PaymentStatus.REQUIRES_ACTION
    is_in_time = payment.may_act if requires_action else payment.may_charge
    is_needed = state.order.status == OrderStatus.PENDING and is_in_time
    return "confirm" if is_needed else "cancel"


# C901: one case for each member of the union
def _effects_of(state: OrderState, message: Message) -> Effects:  # noqa: C901
    match message:
        case ChargeDue():
            return _charge_due(state)
        case Captured():
            return _captured(state, message)
        case Declined():
            return _not_collected(state, message.payment_id, PaymentStatus.DECLINED)
        case Voided():
            return _not_collected(state, message.payment_id, PaymentStatus.VOIDED)
        case PaymentUnknown():
            return _payment_unknown(state, message)
        case PaymentMismatched():
            return _payment_mismatched(state, message)
        case ActionRequired():
            return _action_required(state, message)
        case ActionReturned():
            return _action_returned(state, message)
        case PayAgainRequested():
            return _pay_again_requested(state, message)
        case CancelRequested():
            return _cancel_requested(state, message)
        case OrderReplaced():
            return _order_replaced(state)
        case ExpiryDue():
            return _expiry_due(state)
        case RefundRequested():
            return _refund_requested(state, message)
        case Refunded():
            return _refunded(state, message)
        case RefundRejected():
            return _refund_rejected(state, message)
        case RefundUnknown():
            return _refund_unknown(state, message)
        case RefundFound():
            return _refund_found(state, message)
        case DisputeReported():
            return _dispute_reported(state, message)
        case FinishDue():
            return NOTHING  # ``_close_if_returned`` completes the order
        case _:  # the rest is a GoodsMessage, by its type
            return _goods_moved(state, message)


# ---------------------------------------------------------------- payments


def _charge_due(state: OrderState) -> Effects:
    order = state.order
    if (
        order.status != OrderStatus.PENDING
        or not order.charge_requested
        or state.open_payment
        or state.settling_payment
    ):
        return NOTHING
    return (OpenPayment(len(state.payments) + 1),)


def _captured(state: OrderState, message: Captured) -> Effects:
    payment = state.payment(message.payment_id)
    if payment is None or payment.status == PaymentStatus.CAPTURED:
        return NOTHING
    if (message.amount_minor, message.currency) != (payment.amount_minor, payment.currency):
        detail = f"the provider reports {message.amount_minor} {message.currency}"
        return (RaiseAlert("amount_mismatch", payment.payment_id, detail),)
    pays = payment.status in OPEN_PAYMENT and state.order.status == OrderStatus.PENDING
    late_capture = payment.status not in OPEN_PAYMENT or (
        not pays and state.settling_payment is not None
    )
    change = ChangePaymentStatus(
        payment.payment_id,
        payment.status,
        PaymentStatus.CAPTURED,
        late_capture,
        message.provider_ref,
    )
    post = PostToLedger(
        PostingKind.CAPTURE, payment.payment_id, payment.amount_minor, payment.currency
    )
    if pays:
        # stock before the ledger, whose trigger locks a chain: all transactions lock in this order
        return (
            change,
            ChangeReservations(ReservationStatus.HELD, ReservationStatus.COMMITTED),
            post,
            ChangeOrderStatus(OrderStatus.PENDING, OrderStatus.PAID),
        )
    return (change, post, OpenRefund(payment.payment_id, payment.amount_minor, "LATE_CAPTURE"))


def _not_collected(state: OrderState, payment_id: UUID, status: PaymentStatus) -> Effects:
    """Closes a payment that takes no money; the last attempt's cancels the order."""
    payment = state.payment(payment_id)
    if payment is None or payment.status not in OPEN_PAYMENT:
        return NOTHING
    change = ChangePaymentStatus(payment.payment_id, payment.status, status)
    if state.order.status == OrderStatus.PENDING and payment.attempt >= ATTEMPTS_MAX:
        return (
            change,
            ChangeReservations(ReservationStatus.HELD, ReservationStatus.RELEASED),
            ChangeOrderStatus(
                OrderStatus.PENDING, _cancel_target(state, without=payment), CancelReason.DECLINED
            ),
            *_returned_cart(state),
        )
    return (change, *_returned_cart(state))


def _payment_unknown(state: OrderState, message: PaymentUnknown) -> Effects:
    payment = state.payment(message.payment_id)
    if payment is None or payment.status not in OPEN_PAYMENT:
        return NOTHING
    postpone = PostponePayment(payment.payment_id)
    if payment.status != PaymentStatus.INTENT:
        return (postpone,)
    return (
        ChangePaymentStatus(payment.payment_id, PaymentStatus.INTENT, PaymentStatus.UNKNOWN),
        postpone,
    )


def _payment_mismatched(state: OrderState, message: PaymentMismatched) -> Effects:
    payment = state.payment(message.payment_id)
    if payment is None or payment.status not in OPEN_PAYMENT:
        return NOTHING
    alert = RaiseAlert("amount_mismatch", payment.payment_id, message.detail)
    return (alert, *_payment_unknown(state, PaymentUnknown(message.payment_id)))


def _action_required(state: OrderState, message: ActionRequired) -> Effects:
    """A deadline is that of the action: the same one, required again, does not extend it.

    A response to a call without the token of a customer who has returned meanwhile is outdated.
    An action without time to do it is not offered: the payment stays unknown, as in version 0.1.0.
    """
    payment = state.payment(message.payment_id)
    if payment is None or payment.status not in OPEN_PAYMENT or payment.token != message.token:
        return NOTHING
    is_same = payment.action == message.action.type
    is_offered = is_same or message.action.seconds > 0
    if provider_call(state, payment) == "cancel" or not is_offered:
        return _payment_unknown(state, PaymentUnknown(message.payment_id))
    return (AwaitAction(payment.payment_id, payment.status, None if is_same else message.action),)


def _action_returned(state: OrderState, message: ActionReturned) -> Effects:
    """Confirms nothing but the payment's own amount, in time, for an order that needs it.

    A repeated return changes nothing; what the provider collected already needs no confirmation.
    """
    payment = state.payment(message.payment_id)
    if payment is None:
        return NOTHING
    if message.amount_minor != payment.amount_minor:
        return (Reject("AMOUNT_MISMATCH", "the amount is not that of the payment"),)
    if payment.status == PaymentStatus.CAPTURED:
        return NOTHING
    if state.order.status != OrderStatus.PENDING or payment.status not in OPEN_PAYMENT:
        return (Reject("NOT_PAYABLE", "this payment is closed"),)
    if payment.token == message.token:
        return NOTHING
    if payment.status != PaymentStatus.REQUIRES_ACTION or payment.token is not None:
        return (Reject("PAYMENT_IN_PROGRESS", "this payment is being made"),)
    if not payment.may_act:
        return (Reject("ACTION_EXPIRED", "the time to complete this payment is over"),)
    return (ConfirmAction(payment.payment_id, message.token),)


# ---------------------------------------------------------------- the order


def _pay_again_requested(state: OrderState, message: PayAgainRequested) -> Effects:
    order = state.order
    if order.status != OrderStatus.PENDING:
        return (Reject("NOT_PAYABLE", "only a pending order can be paid"),)
    open_payment = state.open_payment
    if order.charge_requested or (open_payment and not _may_abandon(open_payment)):
        return (Reject("PAYMENT_IN_PROGRESS", "a payment of this order is being made"),)
    if order.is_soft_expired:
        return (Reject("ORDER_EXPIRED", "the order was not paid in time"),)
    abandoned = (AbandonAction(open_payment.payment_id),) if open_payment else NOTHING
    return (*abandoned, RequestCharge(message.payment_method))


def _may_abandon(payment: Payment) -> bool:
    """Whether the customer may try another attempt instead of what this one requires."""
    is_awaited = payment.status == PaymentStatus.REQUIRES_ACTION and payment.token is None
    return is_awaited and payment.attempt < ATTEMPTS_MAX


def _cancel_requested(state: OrderState, message: CancelRequested) -> Effects:
    status = state.order.status
    if status in CLOSED_ORDER:
        return (Reject("NOT_CANCELLABLE", "the order is cancelled already"),)
    if status == OrderStatus.REFUNDED:
        return (Reject("NOT_CANCELLABLE", "the order is refunded already"),)
    if status == OrderStatus.PENDING:
        return (
            ChangeReservations(ReservationStatus.HELD, ReservationStatus.RELEASED),
            ChangeOrderStatus(OrderStatus.PENDING, _cancel_target(state), message.reason),
        )
    if state.is_sent:
        return (Reject("ALREADY_SHIPPED", "goods of the order have been shipped"),)
    if state.in_preparation and message.reason == CancelReason.USER:
        return (Reject("IN_PREPARATION", "goods of the order are being packed: ask the shop"),)
    settling = state.settling_payment
    assert settling is not None, "a PAID order has a settling capture"
    rest = state.refundable_minor(settling)
    refund = (OpenRefund(settling.payment_id, rest, message.reason),) if rest > 0 else NOTHING
    return (
        ChangeReservations(ReservationStatus.COMMITTED, ReservationStatus.RETURNED),
        ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, message.reason),
        *refund,
    )


def _expiry_due(state: OrderState) -> Effects:
    """A charge that was accepted is tried first, however late; it then delays only the soft
    expiry.  An action that a payment requires may be done until its own deadline."""
    order, payment = state.order, state.open_payment
    is_awaited = payment is not None and payment.awaits_customer
    is_due = (order.is_hard_expired and not is_awaited) or (
        order.is_soft_expired and payment is None
    )
    if order.status != OrderStatus.PENDING or order.charge_requested or not is_due:
        return NOTHING
    cancel = _cancel_requested(state, CancelRequested(CancelReason.EXPIRED))
    return (*cancel, *_returned_cart(state))


def _order_replaced(state: OrderState) -> Effects:
    """Frees the stock of an order that was not paid, unless a payment of it may still succeed."""
    order = state.order
    if order.status != OrderStatus.PENDING or order.charge_requested or state.open_payment:
        return NOTHING
    return _cancel_requested(state, CancelRequested(CancelReason.DECLINED))


def _returned_cart(state: OrderState) -> Effects:
    """The cart is the customer's until the order is paid, or cancelled by themselves."""
    order = state.order
    is_unpaid = order.status == OrderStatus.PENDING and not order.charge_requested
    return (ReturnCart(),) if is_unpaid and order.has_cart_lines else NOTHING


# ---------------------------------------------------------------- refunds


def _refund_requested(state: OrderState, message: RefundRequested) -> Effects:
    """Also the next attempt after a refund failed, however the order ended."""
    is_paid = state.order.status == OrderStatus.PAID
    payment = _payment_to_refund(state)
    left = state.refundable_minor(payment) if payment else 0
    if payment is None or not (is_paid or left > 0):
        return (Reject("NOT_REFUNDABLE", "there is no payment that can be refunded"),)
    if message.amount_minor > left:
        return (Reject("EXCEEDS_CAPTURE", "the refund is more than what is left of the payment"),)
    is_kept = is_paid and not payment.late_capture
    if message.means == RefundMeans.WRITE_OFF and is_kept:
        return (Reject("NOT_REFUNDABLE", "only money that must be returned can be written off"),)
    if message.restock and not (is_kept and message.amount_minor == left):
        return (Reject("RESTOCK_NEEDS_FULL_REFUND", "only a refund of all that is left restocks"),)
    if message.restock and (state.is_sent or state.in_preparation):
        return (Reject("RESTOCK_NEEDS_STOCK", "goods that are in a shipment are not restocked"),)
    refund = OpenRefund(
        payment.payment_id,
        message.amount_minor,
        message.reason,
        means=message.means,
        reference=message.reference,
        restock=message.restock,
    )
    return (refund,)


def _payment_to_refund(state: OrderState) -> Payment | None:
    """A late capture of which something is left, since all of it must be returned; else the kept
    capture."""
    late = (p for p in state.captures if p.late_capture and state.refundable_minor(p) > 0)
    return next(late, state.settling_payment)


def _refunded(state: OrderState, message: Refunded) -> Effects:
    refund = state.refund(message.refund_id)
    # a reversed refund succeeded before, so this is a late copy of that message
    if refund is None or refund.status in (RefundStatus.SUCCEEDED, RefundStatus.REVERSED):
        return NOTHING
    currency = state.order.currency
    ours, named = (refund.amount_minor, currency), (message.amount_minor, message.currency)
    if message.amount_minor is not None and named != ours:
        detail = f"the provider reports {message.amount_minor} {message.currency} were refunded"
        return (RaiseAlert("amount_mismatch", refund.refund_id, detail),)
    booked = (
        _change_refund(refund, RefundStatus.SUCCEEDED),
        PostToLedger(POSTED_AS[refund.means], refund.refund_id, refund.amount_minor, currency),
    )
    if refund.status != RefundStatus.REJECTED:
        return booked
    alert = RaiseAlert(
        "refund_after_rejection",
        refund.refund_id,
        "the provider executed a refund that it had rejected",
    )
    return _beside_open_refunds(state, refund.payment_id, refund.amount_minor, booked, alert)


def _refund_rejected(state: OrderState, message: RefundRejected) -> Effects:
    refund = state.refund(message.refund_id)
    if refund is not None and refund.status == RefundStatus.SUCCEEDED:
        return _refund_reversed(state, refund)
    if refund is None or refund.status not in OPEN_REFUND:
        return NOTHING
    alert = RaiseAlert(
        "refund_rejected", refund.refund_id, message.detail or "the provider rejected it"
    )
    return (_change_refund(refund, RefundStatus.REJECTED), alert)


def _refund_reversed(state: OrderState, refund: Refund) -> Effects:
    """Stripe can reverse a succeeded refund (a closed account): the shop has the money again."""
    currency = state.order.currency
    return (
        _change_refund(refund, RefundStatus.REVERSED),
        PostToLedger(PostingKind.REFUND_REVERSED, refund.refund_id, refund.amount_minor, currency),
        RaiseAlert("refund_reversed", refund.refund_id, "the provider reversed a refund"),
    )


def _refund_unknown(state: OrderState, message: RefundUnknown) -> Effects:
    refund = state.refund(message.refund_id)
    if refund is None or refund.status not in OPEN_REFUND:
        return NOTHING
    postpone = PostponeRefund(refund.refund_id)
    if refund.status == RefundStatus.UNKNOWN:
        return (postpone,)
    return (_change_refund(refund, RefundStatus.UNKNOWN), postpone)


def _refund_found(state: OrderState, message: RefundFound) -> Effects:
    """Records a refund that the provider has executed; a full one of ours cancels the order."""
    payment = state.payment(message.payment_id)
    if payment is None or state.refund(message.refund_id) is not None:
        return NOTHING
    if payment.status != PaymentStatus.CAPTURED or message.currency != payment.currency:
        return (_unmatched_refund(message),)
    booked = (
        RecordRefund(
            message.refund_id,
            payment.payment_id,
            message.amount_minor,
            message.provider_key,
            message.origin,
        ),
        PostToLedger(PostingKind.REFUND, message.refund_id, message.amount_minor, payment.currency),
    )
    if message.origin == RefundOrigin.PROVIDER:
        detail = f"the provider refunded {message.amount_minor} {message.currency} by itself"
        alert = RaiseAlert("provider_refund", message.refund_id, detail)
    else:
        alert = RaiseAlert("refund_found", message.refund_id, "a refund whose row was lost")
        booked = (*_cancelled_by(state, payment, message), *booked)
    effects = _beside_open_refunds(state, payment.payment_id, message.amount_minor, booked, alert)
    return effects if effects != (alert,) else (_unmatched_refund(message),)


def _unmatched_refund(message: RefundFound) -> RaiseAlert:
    detail = f"the provider refunded {message.amount_minor} {message.currency}"
    return RaiseAlert("ghost_refund", message.provider_key, detail)


def _cancelled_by(state: OrderState, payment: Payment, message: RefundFound) -> Effects:
    """The cancellation that requested a lost refund of everything that was left.

    What was shipped cannot be cancelled: such an order becomes REFUNDED instead.
    """
    is_full = payment == state.settling_payment and message.amount_minor == payment.rest_minor
    if state.order.status != OrderStatus.PAID or not is_full or state.is_sent:
        return NOTHING
    return (
        ChangeReservations(ReservationStatus.COMMITTED, ReservationStatus.RETURNED),
        ChangeOrderStatus(OrderStatus.PAID, OrderStatus.CANCELLING, CancelReason.OPERATOR),
    )


def _beside_open_refunds(
    state: OrderState, payment_id: UUID, amount_minor: int, booked: Effects, alert: RaiseAlert
) -> Effects:
    """Records a refund that the provider has executed, whatever the shop has requested beside it.

    A provider never returns more than it captured, so open refunds that do not fit beside this one
    were not executed: the newest are closed as rejected, until it fits.  If one of them turns out
    to be executed, it is booked in the same way.  The alert alone: the provider cannot have
    executed this one.
    """
    payment = state.payment(payment_id)
    assert payment is not None, "a refund belongs to a payment"
    free_minor = payment.rest_minor
    closed: Effects = ()
    for refund in reversed(state.open_refunds(payment_id)):
        if amount_minor <= free_minor:
            break
        free_minor += refund.amount_minor
        detail = "the provider returned the money in another refund"
        closed += (
            _change_refund(refund, RefundStatus.REJECTED),
            RaiseAlert("refund_rejected", refund.refund_id, detail),
        )
    if amount_minor > free_minor:
        return (alert,)
    return _with_rest_returned(state, payment_id, (*closed, *booked, alert))


def _with_rest_returned(state: OrderState, payment_id: UUID, effects: Effects) -> Effects:
    """Adds the refund of what the shop may not keep, unless a refund is open."""
    after = after_effects(state, effects)
    payment = after.payment(payment_id)
    assert payment is not None, "the effects concern this payment"
    is_kept = after.order.status not in CLOSED_ORDER and not payment.late_capture
    rest = after.refundable_minor(payment)
    if is_kept or rest <= 0 or after.open_refunds(payment_id):
        return effects
    return (*effects, OpenRefund(payment_id, rest, "REST"))


# ---------------------------------------------------------------- disputes


def _dispute_reported(state: OrderState, message: DisputeReported) -> Effects:
    """Records what a report has beyond the rows, so that reports may come in any order."""
    payment = state.payment(message.payment_id)
    if payment is None:
        return NOTHING
    if payment.status != PaymentStatus.CAPTURED:
        detail = f"the customer disputes a payment that is {payment.status}"
        return (RaiseAlert("ghost_dispute", message.provider_ref, detail),)
    known = state.dispute(message.dispute_id)
    dispute = known or Dispute(message.dispute_id, message.payment_id)
    effects = (
        *(NOTHING if known else _dispute_opened(message)),
        *_movements(dispute, message),
        *_dispute_closed(dispute, message),
    )
    if any(map(_gives_money_back, effects)):
        return _with_rest_returned(state, payment.payment_id, effects)
    return effects


def _gives_money_back(effect: Effect) -> bool:
    """Whether a dispute no longer withholds its amount, or will not withdraw it."""
    match effect:
        case PostToLedger():
            return effect.kind == PostingKind.DISPUTE_REVERSAL
        case ChangeDisputeStatus():
            return effect.to_status == DisputeStatus.WON
        case _:
            return False


def _dispute_opened(message: DisputeReported) -> Effects:
    detail = f"the customer disputes {message.amount_minor} {message.currency}"
    return (
        OpenDispute(
            message.dispute_id,
            message.payment_id,
            message.provider_ref,
            message.amount_minor,
            message.currency,
        ),
        RaiseAlert("dispute_opened", message.dispute_id, detail),
    )


def _movements(dispute: Dispute, message: DisputeReported) -> Effects:
    effects: Effects = ()
    for moved in message.movements:
        posted_minor = dispute.posted(moved.kind)
        if posted_minor == 0:
            effects += (
                PostToLedger(moved.kind, dispute.dispute_id, moved.amount_minor, moved.currency),
            )
        elif posted_minor != moved.amount_minor:
            detail = f"the provider reports {moved.amount_minor} {moved.currency}, {moved.kind}"
            effects += (RaiseAlert("amount_mismatch", dispute.dispute_id, detail),)
    return effects


def _dispute_closed(dispute: Dispute, message: DisputeReported) -> Effects:
    if message.status in (DisputeStatus.OPEN, dispute.status):
        return NOTHING
    if dispute.status != DisputeStatus.OPEN:
        detail = f"the provider reports {message.status}, ours is {dispute.status}"
        return (RaiseAlert("dispute_changed", dispute.dispute_id, detail),)
    kind = "dispute_won" if message.status == DisputeStatus.WON else "dispute_lost"
    detail = f"the dispute about {message.amount_minor} {message.currency} is closed"
    return (
        ChangeDisputeStatus(dispute.dispute_id, dispute.status, message.status),
        RaiseAlert(kind, dispute.dispute_id, detail),
    )


# ---------------------------------------------------------------- shipments


def _goods_moved(state: OrderState, message: GoodsMessage) -> Effects:
    match message:
        case ShipmentRequested():
            return _shipment_requested(state, message)
        case ShipmentSent():
            return _shipment_sent(state, message)
        case ShipmentArrived():
            return _shipment_arrived(state, message)
        case ShipmentDropped():
            return _shipment_dropped(state, message)
        case LinesCancelled():
            return _lines_cancelled(state, message)
        case ReturnRequested():
            return _return_requested(state, message)
        case ReturnApproved():
            return _return_approved(state, message)
        case ReturnRejected():
            return _return_rejected(state, message)
        case ReturnReceived():
            return _return_received(state, message)
        case _:
            assert_never(message)


def _shipment_requested(state: OrderState, message: ShipmentRequested) -> Effects:
    if (rejected := _not_shippable(state)) is not None:
        return (rejected,)
    if any(line.qty > state.unassigned(line.product_id) for line in message.lines):
        return (Reject("EXCEEDS_ORDER", "more than what of the order is in no shipment"),)
    return (OpenShipment(message.shipment_id, message.lines),)


def _shipment_sent(state: OrderState, message: ShipmentSent) -> Effects:
    shipment = state.shipment(message.shipment_id)
    if shipment is None or shipment.status != ShipmentStatus.PREPARING:
        return (Reject("NOT_PREPARING", "only a shipment in preparation can be sent"),)
    if (rejected := _not_shippable(state)) is not None:
        return (rejected,)
    change = _change_shipment(shipment, ShipmentStatus.SHIPPED)
    return (replace(change, carrier=message.carrier, tracking_number=message.tracking_number),)


def _shipment_arrived(state: OrderState, message: ShipmentArrived) -> Effects:
    """Whatever became of the order's money meanwhile; a repetition changes nothing."""
    shipment = state.shipment(message.shipment_id)
    if shipment is not None and shipment.status == ShipmentStatus.DELIVERED:
        return NOTHING
    if shipment is None or shipment.status != ShipmentStatus.SHIPPED:
        return (Reject("NOT_SHIPPED", "only a shipment that was sent can be delivered"),)
    return (_change_shipment(shipment, ShipmentStatus.DELIVERED),)


def _shipment_dropped(state: OrderState, message: ShipmentDropped) -> Effects:
    shipment = state.shipment(message.shipment_id)
    if shipment is None or shipment.status != ShipmentStatus.PREPARING:
        return (Reject("NOT_PREPARING", "only a shipment in preparation can be cancelled"),)
    return (_change_shipment(shipment, ShipmentStatus.CANCELLED),)


def _not_shippable(state: OrderState) -> Reject | None:
    """Goods are sent for money that the shop keeps: not while all of it is being returned."""
    settling = state.settling_payment
    if state.order.status == OrderStatus.PAID and settling is not None and settling.rest_minor > 0:
        return None
    return Reject("NOT_SHIPPABLE", "only an order that is paid, and not refunded, is shipped")


def _change_shipment(shipment: Shipment, to_status: ShipmentStatus) -> ChangeShipmentStatus:
    return ChangeShipmentStatus(shipment.shipment_id, shipment.status, to_status)


# ---------------------------------------------------------------- cancelled and returned lines


def _lines_cancelled(state: OrderState, message: LinesCancelled) -> Effects:
    """Units that are in no shipment; the last ones of an order cancel it as a whole."""
    if state.order.status != OrderStatus.PAID:
        return (Reject("NOT_CANCELLABLE", "only lines of a paid order can be cancelled"),)
    if any(state.unassigned(line.product_id) < line.qty for line in message.lines):
        return (_not_cancellable(state, message.lines),)
    opened = OpenReturn(message.return_id, ReturnStatus.UNSENT, message.reason, message.lines)
    after = after_effects(state, (opened,))
    is_all = not any(after.unassigned(line.product_id) for line in state.lines)
    if is_all and not state.is_sent and not state.in_preparation:
        return _cancel_requested(state, CancelRequested(CancelReason.USER))
    return (opened, *_given_back(state, message.return_id, message.lines, message.lines))


def _not_cancellable(state: OrderState, lines: tuple[Line, ...]) -> Reject:
    if any(state.sent(line.product_id) for line in lines):
        return Reject("ALREADY_SHIPPED", "more than what was not shipped")
    if state.in_preparation:
        return Reject("IN_PREPARATION", "more than what is not being packed")
    return Reject("EXCEEDS_ORDER", "more than what is left of the order")


def _return_requested(state: OrderState, message: ReturnRequested) -> Effects:
    if state.order.status != OrderStatus.PAID:
        return (Reject("NOT_RETURNABLE", "only goods of a paid order can be returned"),)
    for line in message.lines:
        if line.qty > state.sent(line.product_id) - state.returned(line.product_id):
            return (Reject("NOT_RETURNABLE", "more than what was sent and not returned"),)
        if line.qty > state.sent(line.product_id, among=message.returnable):
            return (Reject("RETURN_WINDOW_CLOSED", "goods can be returned for some days only"),)
    return (OpenReturn(message.return_id, ReturnStatus.REQUESTED, message.reason, message.lines),)


def _return_approved(state: OrderState, message: ReturnApproved) -> Effects:
    row = state.return_of(message.return_id)
    if row is None or row.status != ReturnStatus.REQUESTED:
        return (Reject("NOT_REQUESTED", "only a return that is requested can be approved"),)
    return (_change_return(row, ReturnStatus.APPROVED),)


def _return_rejected(state: OrderState, message: ReturnRejected) -> Effects:
    row = state.return_of(message.return_id)
    if row is None or row.status not in (ReturnStatus.REQUESTED, ReturnStatus.APPROVED):
        return (Reject("RETURN_CLOSED", "the return is closed already"),)
    return (_change_return(row, ReturnStatus.REJECTED),)


def _return_received(state: OrderState, message: ReturnReceived) -> Effects:
    """However the order ended meanwhile: of one that is refunded no money is left to give back."""
    row = state.return_of(message.return_id)
    if row is None or row.status != ReturnStatus.APPROVED:
        return (Reject("NOT_APPROVED", "only a return that is approved can be received"),)
    arrived = {line.product_id: line.qty for line in row.lines}
    if any(line.qty > arrived.get(line.product_id, 0) for line in message.restocked):
        return (Reject("EXCEEDS_RETURN", "more is restocked than is returned"),)
    change = _change_return(row, ReturnStatus.RECEIVED)
    return (change, *_given_back(state, row.return_id, row.lines, message.restocked))


def _given_back(
    state: OrderState, return_id: UUID, lines: tuple[Line, ...], restocked: tuple[Line, ...]
) -> Effects:
    """The units, in the order in which stock is locked, and the refund of what is paid for them.

    Never more than is left of the payment: support may have returned a part of it before.
    """
    settling = state.settling_payment
    assert settling is not None, "goods are sent, and lines cancelled, of paid orders only"
    left = max(0, state.refundable_minor(settling))
    stocked = {line.product_id: line.qty for line in restocked}
    given: tuple[GiveBack, ...] = ()
    for line in sorted(lines, key=lambda each: each.product_id):
        minor = min(left, state.amount_minor(line))
        left -= minor
        given += (GiveBack(return_id, line.product_id, stocked.get(line.product_id, 0), minor),)
    total = sum(each.amount_minor for each in given)
    refund = (OpenRefund(settling.payment_id, total, "RETURN"),) if total else NOTHING
    return (*given, *refund)


def _change_return(row: Return, to_status: ReturnStatus) -> ChangeReturnStatus:
    return ChangeReturnStatus(row.return_id, row.status, to_status)


# ---------------------------------------------------------------- consequences of effects


def _cancel_target(state: OrderState, *, without: Payment | None = None) -> OrderStatus:
    """CANCELLED when nothing is left to wait for, else CANCELLING."""
    if without is not None:
        rest = tuple(p for p in state.payments if p.payment_id != without.payment_id)
        state = replace(state, payments=rest)
    return OrderStatus.CANCELLED if state.is_settled else OrderStatus.CANCELLING


def _change_refund(refund: Refund, to_status: RefundStatus) -> ChangeRefundStatus:
    return ChangeRefundStatus(
        refund.refund_id, refund.payment_id, refund.amount_minor, refund.status, to_status
    )


def _close_if_returned(state: OrderState, effects: Effects) -> Effects:
    """Closes an order in the step that returns the last of its money: CANCELLED or REFUNDED."""
    after = after_effects(state, effects)
    status, settling = after.order.status, after.settling_payment
    if status == OrderStatus.CANCELLING and after.is_settled:
        return (
            *effects,
            ChangeOrderStatus(OrderStatus.CANCELLING, OrderStatus.CANCELLED, after.order.reason),
        )
    if status == OrderStatus.PAID and settling is not None and after.is_refunded(settling):
        # goods were sent if the provider had rejected the refund that restocks, and executes it now
        restock = not after.is_sent and any(
            r.restock for r in after.succeeded_refunds(settling.payment_id)
        )
        back = ChangeReservations(ReservationStatus.COMMITTED, ReservationStatus.RETURNED)
        # stock before the ledger, as in ``_captured``
        return (
            *((back,) if restock else NOTHING),
            *effects,
            ChangeOrderStatus(OrderStatus.PAID, OrderStatus.REFUNDED),
        )
    return effects


def _drop_shipments_if_closed(state: OrderState, effects: Effects) -> Effects:
    """Stops the packing of an order in the step that ends it, with the first of its rows."""
    if state.order.status != OrderStatus.PAID or not state.in_preparation:
        return effects
    if after_effects(state, effects).order.status == OrderStatus.PAID:
        return effects
    dropped = (_change_shipment(s, ShipmentStatus.CANCELLED) for s in state.in_preparation)
    return (*dropped, *effects)


def after_effects(state: OrderState, effects: Effects) -> OrderState:
    """The state as it will be once ``effects`` are written; new rows have ``NEW_ID``."""
    for effect in effects:
        state = _after(state, effect)
    return state


# C901: one case for each member of the union
def _after(state: OrderState, effect: Effect) -> OrderState:  # noqa: C901
    match effect:
        case ChangeOrderStatus():
            reason = effect.reason or state.order.reason
            order = replace(state.order, status=effect.to_status, reason=reason)
            return replace(state, order=order)
        case OpenPayment():
            return _with_new_payment(state, effect)
        case ChangePaymentStatus():
            return _with_payment_status(state, effect)
        case AwaitAction() | ConfirmAction() | AbandonAction():
            return _with_action(state, effect)
        case OpenRefund():
            row = (NEW_ID, effect.payment_id, effect.amount_minor, RefundStatus.INTENT)
            return _with_new_refund(state, Refund(*row, effect.means, effect.restock))
        case RecordRefund():
            row = (effect.refund_id, effect.payment_id, effect.amount_minor)
            return _with_new_refund(state, Refund(*row, RefundStatus.SUCCEEDED))
        case ChangeRefundStatus():
            return _with_refund_status(state, effect)
        case OpenDispute():
            opened = Dispute(effect.dispute_id, effect.payment_id)
            return replace(state, disputes=(*state.disputes, opened))
        case ChangeDisputeStatus():
            return with_dispute(state, effect.dispute_id, status=effect.to_status)
        case OpenShipment():
            opened_shipment = Shipment(effect.shipment_id, ShipmentStatus.PREPARING, effect.lines)
            return replace(state, shipments=(*state.shipments, opened_shipment))
        case ChangeShipmentStatus():
            return _with_shipment_status(state, effect)
        case OpenReturn():
            opened_return = Return(effect.return_id, effect.status, effect.lines)
            return replace(state, returns=(*state.returns, opened_return))
        case ChangeReturnStatus():
            return _with_return_status(state, effect)
        case PostToLedger():
            return _with_posting(state, effect)
        case RequestCharge():
            return replace(state, order=replace(state.order, charge_requested=True))
        case ReturnCart():
            return replace(state, order=replace(state.order, has_cart_lines=False))
        case ChangeReservations() | PostponePayment() | PostponeRefund() | RaiseAlert() | Reject():
            return state
        case GiveBack():
            return state  # the status of the return says the same
        case _:
            assert_never(effect)


def _with_new_payment(state: OrderState, opened: OpenPayment) -> OrderState:
    order = replace(state.order, charge_requested=False)
    payment = Payment(
        NEW_ID, opened.attempt, PaymentStatus.INTENT, order.total_minor, order.currency
    )
    return replace(state, order=order, payments=(*state.payments, payment))


def _with_payment_status(state: OrderState, change: ChangePaymentStatus) -> OrderState:
    payments = tuple(
        replace(p, status=change.to_status, late_capture=change.late_capture or p.late_capture)
        if p.payment_id == change.payment_id
        else p
        for p in state.payments
    )
    return replace(state, payments=payments)


def _with_action(
    state: OrderState, effect: AwaitAction | ConfirmAction | AbandonAction
) -> OrderState:
    payments = tuple(
        after_action(p, effect) if p.payment_id == effect.payment_id else p for p in state.payments
    )
    return replace(state, payments=payments)


def after_action(payment: Payment, effect: AwaitAction | ConfirmAction | AbandonAction) -> Payment:
    """The payment once the effect is written."""
    match effect:
        case AwaitAction():
            action = effect.action.type if effect.action else payment.action
            may_act = payment.may_act if effect.action is None else True
            status = PaymentStatus.REQUIRES_ACTION
            return replace(payment, status=status, action=action, token=None, may_act=may_act)
        case ConfirmAction():
            return replace(payment, token=effect.token)
        case AbandonAction():
            return replace(payment, may_act=False)
        case _:
            assert_never(effect)


def _with_new_refund(state: OrderState, refund: Refund) -> OrderState:
    state = _with_reserved(state, refund.payment_id, refund.amount_minor)
    return replace(state, refunds=(*state.refunds, refund))


def _with_refund_status(state: OrderState, change: ChangeRefundStatus) -> OrderState:
    refunds = tuple(
        replace(r, status=change.to_status) if r.refund_id == change.refund_id else r
        for r in state.refunds
    )
    state = _with_reserved(state, change.payment_id, reserved_by(change))
    return replace(state, refunds=refunds)


def reserved_by(change: ChangeRefundStatus) -> int:
    """What a refund's change of status adds to the amount that is reserved on its payment."""
    if change.to_status in FAILED_REFUND:
        return -change.amount_minor
    return change.amount_minor if change.from_status in FAILED_REFUND else 0


def _with_shipment_status(state: OrderState, change: ChangeShipmentStatus) -> OrderState:
    shipments = tuple(
        replace(s, status=change.to_status) if s.shipment_id == change.shipment_id else s
        for s in state.shipments
    )
    return replace(state, shipments=shipments)


def _with_return_status(state: OrderState, change: ChangeReturnStatus) -> OrderState:
    returns = tuple(
        replace(r, status=change.to_status) if r.return_id == change.return_id else r
        for r in state.returns
    )
    return replace(state, returns=returns)


def _with_posting(state: OrderState, posting: PostToLedger) -> OrderState:
    amount = posting.amount_minor
    match posting.kind:
        case PostingKind.DISPUTE:
            return with_dispute(state, posting.source_id, withdrawn_minor=amount)
        case PostingKind.DISPUTE_REVERSAL:
            return with_dispute(state, posting.source_id, reinstated_minor=amount)
        case PostingKind.DISPUTE_FEE:
            return with_dispute(state, posting.source_id, fee_minor=amount)
        case PostingKind.DISPUTE_FEE_REVERSAL:
            return with_dispute(state, posting.source_id, fee_reversed_minor=amount)
        case _:
            return state  # the statuses of payment and refund say the same


# Any: the fields of a dispute's row, checked by ``replace``
def with_dispute(state: OrderState, dispute_id: UUID, **changes: Any) -> OrderState:
    """The state with these fields of a dispute changed."""
    disputes = tuple(
        replace(d, **changes) if d.dispute_id == dispute_id else d for d in state.disputes
    )
    return replace(state, disputes=disputes)


def _with_reserved(state: OrderState, payment_id: UUID, amount_minor: int) -> OrderState:
    payments = tuple(
        replace(p, refund_reserved_minor=p.refund_reserved_minor + amount_minor)
        if p.payment_id == payment_id
        else p
        for p in state.payments
    )
    return replace(state, payments=payments)
