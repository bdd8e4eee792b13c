"""The order's rules, as one pure function: rows in, effects out.

``decide(story, message)`` is what every handler and timer runs under the order's lock, what the
exhaustive model and Hypothesis drive, and the only place that knows who may become what
(design/correctness.md section 5).  It reads no clock and does no I/O: whatever depends on time is a
boolean of the story, compared inside SQL.

A message that the rows do not call for has no effects: duplicates, late and reordered events find
nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from events.records import frozen

ATTEMPTS_MAX = 3
LIVE = ("INTENT", "UNKNOWN")
CLOSED_ORDER = ("CANCELLING", "CANCELLED")

# ---------------------------------------------------------------- rows


@frozen
class Order:
    """An order's row; the booleans are times compared by the database."""

    status: str
    total_minor: int
    currency: str
    reason: str | None = None
    charge_wanted: bool = True
    is_soft_expired: bool = False
    is_hard_expired: bool = False


@frozen
class Payment:
    """One attempt to collect the order's total."""

    payment_id: Any
    attempt: int
    status: str
    amount_minor: int
    currency: str
    late: bool = False
    refund_reserved_minor: int = 0
    may_charge: bool = True


@frozen
class Refund:
    """Money on its way back from one payment."""

    refund_id: Any
    payment_id: Any
    amount_minor: int
    status: str


@frozen
class OrderState:
    """All rows of one order that decisions are made from."""

    order: Order
    payments: tuple[Payment, ...] = ()
    refunds: tuple[Refund, ...] = ()

    def payment(self, payment_id: Any) -> Payment | None:
        """The attempt with this id, or None."""
        return next((p for p in self.payments if p.payment_id == payment_id), None)

    def refund(self, refund_id: Any) -> Refund | None:
        """The refund with this id, or None."""
        return next((r for r in self.refunds if r.refund_id == refund_id), None)

    @property
    def live(self) -> Payment | None:
        """The attempt whose outcome is not known yet."""
        return next((p for p in self.payments if p.status in LIVE), None)

    @property
    def kept(self) -> Payment | None:
        """The capture that pays for the order."""
        return next((p for p in self.payments if p.status == "CAPTURED" and not p.late), None)

    @property
    def is_settled(self) -> bool:
        """True when no payment is open and every capture was given back in full."""
        return self.live is None and all(
            p.amount_minor == self._given_back(p) for p in self.payments if p.status == "CAPTURED"
        )

    def _given_back(self, payment: Payment) -> int:
        return sum(
            r.amount_minor
            for r in self.refunds
            if r.payment_id == payment.payment_id and r.status == "SUCCEEDED"
        )


# ---------------------------------------------------------------- messages


@frozen
class ChargeDue:
    """Somebody (an event, a timer) thinks that the order's money should be collected."""


@frozen
class Captured:
    """The provider says it holds the money of a payment."""

    payment_id: Any
    amount_minor: int
    currency: str
    provider_ref: str | None = None


@frozen
class Declined:
    """The provider says definitively that it will not take the money."""

    payment_id: Any


@frozen
class Voided:
    """The provider says definitively that it will never take the money."""

    payment_id: Any


@frozen
class Unclear:
    """A call ended without a definitive word: timeout, reset, 5xx, 429, 404."""

    payment_id: Any


@frozen
class Mismatched:
    """An answer that names another amount, currency or key than ours; it is not believed."""

    payment_id: Any
    detail: str


@frozen
class PayAgainAsked:
    """The buyer tries once more after a decline."""

    payment_method: str


@frozen
class CancelAsked:
    """Somebody withdraws the order."""

    reason: str


@frozen
class ExpiryDue:
    """A timer thinks nobody will pay any more."""


@frozen
class RefundAsked:
    """Support gives a part of the money back."""

    amount_minor: int
    reason: str


@frozen
class Refunded:
    """The provider says the money went back; without an amount: compared with ours already."""

    refund_id: Any
    amount_minor: int | None = None
    currency: str | None = None


@frozen
class RefundRejected:
    """The provider refuses for good to send the money back."""

    refund_id: Any
    detail: str = ""


@frozen
class RefundUnclear:
    """A refund call ended without a definitive word."""

    refund_id: Any


@frozen
class RefundFound:
    """The provider gave money of a payment back that our rows, after a restore, know nothing of."""

    refund_id: Any
    payment_id: Any
    amount_minor: int
    currency: str


@frozen
class FinishDue:
    """A timer thinks that a cancelled order has nothing left to wait for."""


# ---------------------------------------------------------------- effects


@frozen
class MoveOrder:
    """The order's status changes; a cancelled order has a reason."""

    from_status: str
    to_status: str
    reason: str | None = None


@frozen
class MoveStock:
    """All reservations of the order move together: commit, release or return."""

    from_status: str
    to_status: str


@frozen
class OpenPayment:
    """A new attempt, as an intent that is committed before the provider is called."""

    attempt: int


@frozen
class MovePayment:
    """A payment's status changes; ``late`` marks money that came after the story had ended."""

    payment_id: Any
    from_status: str
    to_status: str
    late: bool = False
    provider_ref: str | None = None


@frozen
class RetryPayment:
    """Nothing is known: the payment is asked about again, later and later."""

    payment_id: Any


@frozen
class OpenRefund:
    """Money to give back, as an intent; reserves the amount on the payment.

    ``refund_id`` is that of a refund which was lost and found again; None: a new one.
    """

    payment_id: Any
    amount_minor: int
    reason: str
    refund_id: Any = None


@frozen
class MoveRefund:
    """A refund's status changes; a rejected one frees its amount on the payment."""

    refund_id: Any
    payment_id: Any
    amount_minor: int
    from_status: str
    to_status: str


@frozen
class RetryRefund:
    """Nothing is known: the refund is sent again with its key, later and later."""

    refund_id: Any


@frozen
class Post:
    """One posting in the ledger: CAPTURE or REFUND of a payment's or refund's amount."""

    kind: str
    source_id: Any
    amount_minor: int
    currency: str


@frozen
class WantCharge:
    """The buyer asked for another attempt with this payment method."""

    payment_method: str


@frozen
class OperatorAlert:
    """A person has to look."""

    kind: str
    subject: Any
    detail: str


@frozen
class Refuse:
    """The honest no to a caller; nothing changes."""

    code: str
    message: str


Effects = tuple[Any, ...]
NOTHING: Effects = ()


def decide(story: OrderState, message: Any) -> Effects:
    """What ``message`` calls for, given the rows; the empty tuple when they call for nothing.

    Effects are in the order in which they are to be written.  A ``Refuse`` is always alone.
    """
    effects = _RULES[type(message)](story, message)
    return _finish_if_settled(story, effects)


def provider_step(story: OrderState, payment: Payment) -> str:
    """What to ask the provider about an open payment: ``confirm`` it, or ``cancel`` the intent."""
    wanted = story.order.status == "PENDING" and payment.may_charge
    return "confirm" if wanted else "cancel"


# ---------------------------------------------------------------- rules


def _charge_due(story: OrderState, _: ChargeDue) -> Effects:
    order = story.order
    if order.status != "PENDING" or not order.charge_wanted or story.live or story.kept:
        return NOTHING
    return (OpenPayment(len(story.payments) + 1),)


def _captured(story: OrderState, message: Captured) -> Effects:
    payment = story.payment(message.payment_id)
    if payment is None or payment.status == "CAPTURED":
        return NOTHING
    if (message.amount_minor, message.currency) != (payment.amount_minor, payment.currency):
        detail = f"the provider says {message.amount_minor} {message.currency}"
        return (OperatorAlert("amount_mismatch", payment.payment_id, detail),)
    pays = payment.status in LIVE and story.order.status == "PENDING"
    late = payment.status not in LIVE or (not pays and story.kept is not None)
    move = MovePayment(payment.payment_id, payment.status, "CAPTURED", late, message.provider_ref)
    post = Post("CAPTURE", payment.payment_id, payment.amount_minor, payment.currency)
    if pays:
        # stock before the ledger: its chain's head is a lock, and locks have one order everywhere
        return (move, MoveStock("HELD", "COMMITTED"), post, MoveOrder("PENDING", "PAID"))
    return (move, post, OpenRefund(payment.payment_id, payment.amount_minor, "LATE_CAPTURE"))


def _declined(story: OrderState, message: Declined) -> Effects:
    payment = story.payment(message.payment_id)
    if payment is None or payment.status not in LIVE:
        return NOTHING
    move = MovePayment(payment.payment_id, payment.status, "DECLINED")
    if story.order.status == "PENDING" and payment.attempt >= ATTEMPTS_MAX:
        return (
            move,
            MoveStock("HELD", "RELEASED"),
            MoveOrder("PENDING", _cancel_target(story, without=payment), "DECLINED"),
        )
    return (move,)


def _voided(story: OrderState, message: Voided) -> Effects:
    payment = story.payment(message.payment_id)
    if payment is None or payment.status not in LIVE:
        return NOTHING
    return (MovePayment(payment.payment_id, payment.status, "VOIDED"),)


def _unclear(story: OrderState, message: Unclear) -> Effects:
    payment = story.payment(message.payment_id)
    if payment is None or payment.status not in LIVE:
        return NOTHING
    retry = RetryPayment(payment.payment_id)
    if payment.status == "UNKNOWN":
        return (retry,)
    return (MovePayment(payment.payment_id, "INTENT", "UNKNOWN"), retry)


def _mismatched(story: OrderState, message: Mismatched) -> Effects:
    payment = story.payment(message.payment_id)
    if payment is None or payment.status not in LIVE:
        return NOTHING
    alarm = OperatorAlert("amount_mismatch", payment.payment_id, message.detail)
    return (alarm, *_unclear(story, Unclear(message.payment_id)))


def _pay_again(story: OrderState, message: PayAgainAsked) -> Effects:
    order = story.order
    if order.status != "PENDING":
        return (Refuse("NOT_PAYABLE", "only a pending order can be paid"),)
    if story.live or order.charge_wanted:
        return (Refuse("PAYMENT_IN_PROGRESS", "a payment of this order is being made"),)
    if order.is_soft_expired:
        return (Refuse("ORDER_EXPIRED", "the order was not paid in time"),)
    return (WantCharge(message.payment_method),)


def _cancel_asked(story: OrderState, message: CancelAsked) -> Effects:
    status = story.order.status
    if status in CLOSED_ORDER:
        return (Refuse("NOT_CANCELLABLE", "the order is cancelled already"),)
    if status == "PENDING":
        return (
            MoveStock("HELD", "RELEASED"),
            MoveOrder("PENDING", _cancel_target(story), message.reason),
        )
    kept = story.kept
    assert kept is not None, "a PAID order has a kept capture"
    rest = kept.amount_minor - kept.refund_reserved_minor
    refund = (OpenRefund(kept.payment_id, rest, message.reason),) if rest else NOTHING
    return (
        MoveStock("COMMITTED", "RETURNED"),
        MoveOrder("PAID", "CANCELLING", message.reason),
        *refund,
    )


def _expiry_due(story: OrderState, _: ExpiryDue) -> Effects:
    order = story.order
    is_due = order.is_hard_expired or (order.is_soft_expired and story.live is None)
    if order.status != "PENDING" or not is_due:
        return NOTHING
    return _cancel_asked(story, CancelAsked("EXPIRED"))


def _refund_asked(story: OrderState, message: RefundAsked) -> Effects:
    kept = story.kept
    if story.order.status != "PAID" or kept is None:
        return (Refuse("NOT_REFUNDABLE", "only a paid order can be refunded"),)
    if kept.refund_reserved_minor + message.amount_minor > kept.amount_minor:
        return (Refuse("EXCEEDS_CAPTURE", "the refund is more than what is left of the payment"),)
    return (OpenRefund(kept.payment_id, message.amount_minor, message.reason),)


def _refunded(story: OrderState, message: Refunded) -> Effects:
    refund = story.refund(message.refund_id)
    if refund is None or refund.status == "SUCCEEDED":
        return NOTHING
    currency = story.order.currency
    ours, named = (refund.amount_minor, currency), (message.amount_minor, message.currency)
    if message.amount_minor is not None and named != ours:
        detail = f"the provider says {message.amount_minor} {message.currency} went back"
        return (OperatorAlert("amount_mismatch", refund.refund_id, detail),)
    if refund.status == "REJECTED":
        return (
            OperatorAlert(
                "refund_after_rejection", refund.refund_id, "the provider refunded after all"
            ),
        )
    return (
        _move_refund(refund, "SUCCEEDED"),
        Post("REFUND", refund.refund_id, refund.amount_minor, currency),
    )


def _refund_rejected(story: OrderState, message: RefundRejected) -> Effects:
    refund = story.refund(message.refund_id)
    if refund is not None and refund.status == "SUCCEEDED":
        # Stripe may take a refund's success back (a closed account): the money is with us again
        return (OperatorAlert("rejection_after_refund", refund.refund_id, "the refund came back"),)
    if refund is None or refund.status not in LIVE:
        return NOTHING
    alarm = OperatorAlert(
        "refund_rejected", refund.refund_id, message.detail or "the provider refused"
    )
    return (_move_refund(refund, "REJECTED"), alarm)


def _refund_unclear(story: OrderState, message: RefundUnclear) -> Effects:
    refund = story.refund(message.refund_id)
    if refund is None or refund.status not in LIVE:
        return NOTHING
    retry = RetryRefund(refund.refund_id)
    if refund.status == "UNKNOWN":
        return (retry,)
    return (_move_refund(refund, "UNKNOWN"), retry)


def _refund_found(story: OrderState, message: RefundFound) -> Effects:
    """The refund's row again, under its old id; who got everything back has no order any more."""
    payment = story.payment(message.payment_id)
    if payment is None or story.refund(message.refund_id) is not None:
        return NOTHING
    rest = payment.amount_minor - payment.refund_reserved_minor
    fits = message.currency == payment.currency and message.amount_minor <= rest
    if payment.status != "CAPTURED" or not fits:
        detail = f"the provider gave {message.amount_minor} {message.currency} back"
        return (OperatorAlert("ghost_refund", f"refund:{message.refund_id}", detail),)
    alarm = OperatorAlert("refund_found", message.refund_id, "a refund that we had lost")
    refund = OpenRefund(payment.payment_id, message.amount_minor, "FOUND", message.refund_id)
    if story.order.status == "PAID" and payment == story.kept and message.amount_minor == rest:
        closing = MoveOrder("PAID", "CANCELLING", "OPERATOR")
        return (MoveStock("COMMITTED", "RETURNED"), closing, refund, alarm)
    return (refund, alarm)


def _finish_due(_story: OrderState, _: FinishDue) -> Effects:
    return NOTHING


_RULES: dict[type, Callable[[OrderState, Any], Effects]] = {
    ChargeDue: _charge_due,
    Captured: _captured,
    Declined: _declined,
    Voided: _voided,
    Unclear: _unclear,
    Mismatched: _mismatched,
    PayAgainAsked: _pay_again,
    CancelAsked: _cancel_asked,
    ExpiryDue: _expiry_due,
    RefundAsked: _refund_asked,
    Refunded: _refunded,
    RefundRejected: _refund_rejected,
    RefundUnclear: _refund_unclear,
    RefundFound: _refund_found,
    FinishDue: _finish_due,
}

# ---------------------------------------------------------------- what follows from effects


def _cancel_target(story: OrderState, *, without: Payment | None = None) -> str:
    """CANCELLED when nothing is left to wait for, else CANCELLING."""
    if without is not None:
        rest = tuple(p for p in story.payments if p.payment_id != without.payment_id)
        story = replace(story, payments=rest)
    return "CANCELLED" if story.is_settled else "CANCELLING"


def _move_refund(refund: Refund, to_status: str) -> MoveRefund:
    return MoveRefund(
        refund.refund_id, refund.payment_id, refund.amount_minor, refund.status, to_status
    )


def _finish_if_settled(story: OrderState, effects: Effects) -> Effects:
    """A cancelling order whose payments are closed and refunded is cancelled in the same step."""
    after = after_effects(story, effects)
    if after.order.status == "CANCELLING" and after.is_settled:
        return (*effects, MoveOrder("CANCELLING", "CANCELLED", after.order.reason))
    return effects


def after_effects(story: OrderState, effects: Effects) -> OrderState:
    """The story as it will stand once ``effects`` are written; new rows carry ids of None,
    but for a refund that was found."""
    for effect in effects:
        apply = _APPLY.get(type(effect))
        story = apply(story, effect) if apply else story
    return story


def _apply_order(story: OrderState, move: MoveOrder) -> OrderState:
    reason = move.reason or story.order.reason
    return replace(story, order=replace(story.order, status=move.to_status, reason=reason))


def _apply_new_payment(story: OrderState, opened: OpenPayment) -> OrderState:
    order = story.order
    payment = Payment(None, opened.attempt, "INTENT", order.total_minor, order.currency)
    order = replace(order, charge_wanted=False)
    return replace(story, order=order, payments=(*story.payments, payment))


def _apply_payment(story: OrderState, move: MovePayment) -> OrderState:
    payments = tuple(
        replace(p, status=move.to_status, late=move.late or p.late)
        if p.payment_id == move.payment_id
        else p
        for p in story.payments
    )
    return replace(story, payments=payments)


def _apply_new_refund(story: OrderState, opened: OpenRefund) -> OrderState:
    refund = Refund(opened.refund_id, opened.payment_id, opened.amount_minor, "INTENT")
    story = _reserve(story, opened.payment_id, opened.amount_minor)
    return replace(story, refunds=(*story.refunds, refund))


def _apply_refund(story: OrderState, move: MoveRefund) -> OrderState:
    refunds = tuple(
        replace(r, status=move.to_status) if r.refund_id == move.refund_id else r
        for r in story.refunds
    )
    if move.to_status == "REJECTED":
        story = _reserve(story, move.payment_id, -move.amount_minor)
    return replace(story, refunds=refunds)


def _reserve(story: OrderState, payment_id: Any, amount_minor: int) -> OrderState:
    payments = tuple(
        replace(p, refund_reserved_minor=p.refund_reserved_minor + amount_minor)
        if p.payment_id == payment_id
        else p
        for p in story.payments
    )
    return replace(story, payments=payments)


def _apply_want(story: OrderState, _: WantCharge) -> OrderState:
    return replace(story, order=replace(story.order, charge_wanted=True))


_APPLY: dict[type, Callable[[OrderState, Any], OrderState]] = {
    MoveOrder: _apply_order,
    OpenPayment: _apply_new_payment,
    MovePayment: _apply_payment,
    OpenRefund: _apply_new_refund,
    MoveRefund: _apply_refund,
    WantCharge: _apply_want,
}
