"""Every status of the shop's rows, defined once: code, SQL parameters and check constraints use it.

Which status may follow which is in ``shop/orders/decide.py``, and once more in the table
``allowed_transitions``, so that the database rejects what a bug of the code would write.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

# What the status history shows as the status before a row was created.
CREATED: Final = "-"


class OrderStatus(StrEnum):
    """An order's status; PAID orders can still be cancelled, CANCELLING ones wait for payments.

    REFUNDED: was delivered or may be, and all its money was returned.
    """

    PENDING = "PENDING"
    PAID = "PAID"
    REFUNDED = "REFUNDED"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


class CancelReason(StrEnum):
    """Why an order is cancelled."""

    USER = "USER"
    EXPIRED = "EXPIRED"
    DECLINED = "DECLINED"
    OPERATOR = "OPERATOR"


class PriceLineKind(StrEnum):
    """What a part of an order's total is for; a DISCOUNT is negative."""

    GOODS = "GOODS"
    DISCOUNT = "DISCOUNT"
    SHIPPING = "SHIPPING"


class PriceRuleState(StrEnum):
    """Whether a version of a rule applies; one that is ENDED never applies again."""

    PLANNED = "PLANNED"
    ACTIVE = "ACTIVE"
    ENDED = "ENDED"


class CouponState(StrEnum):
    """Whether a coupon can be used; ENDED is final."""

    ACTIVE = "ACTIVE"
    ENDED = "ENDED"


class CouponObstacle(StrEnum):
    """Why a coupon takes nothing off; MINIMUM: the goods cost too little."""

    UNKNOWN = "UNKNOWN"
    ENDED = "ENDED"
    NOT_STARTED = "NOT_STARTED"
    USED_UP = "USED_UP"
    USED_BY_YOU = "USED_BY_YOU"
    NOT_COMBINABLE = "NOT_COMBINABLE"
    CURRENCY = "CURRENCY"
    MINIMUM = "MINIMUM"


class PaymentStatus(StrEnum):
    """An attempt to collect an order's total; UNKNOWN means that a call had no clear outcome.

    REQUIRES_ACTION: the customer has to do something first, until a deadline.
    """

    INTENT = "INTENT"
    UNKNOWN = "UNKNOWN"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    CAPTURED = "CAPTURED"
    DECLINED = "DECLINED"
    VOIDED = "VOIDED"


class ActionType(StrEnum):
    """What a customer has to do for a payment: follow a link, use a widget, transfer money."""

    REDIRECT = "redirect"
    WIDGET = "widget"
    TRANSFER = "transfer"


class RefundStatus(StrEnum):
    """Money to return; UNKNOWN means that a call had no clear outcome.

    REVERSED: it succeeded, and later the money came back (the customer's account is closed).
    """

    INTENT = "INTENT"
    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    REJECTED = "REJECTED"
    REVERSED = "REVERSED"


class RefundMeans(StrEnum):
    """How money is returned; WRITE_OFF closes the account of money that cannot be returned."""

    PROVIDER = "PROVIDER"
    OTHER_MEANS = "OTHER_MEANS"
    WRITE_OFF = "WRITE_OFF"


class RefundOrigin(StrEnum):
    """Who returned the money: the shop, or the provider without a request of the shop."""

    SHOP = "SHOP"
    PROVIDER = "PROVIDER"


class DisputeStatus(StrEnum):
    """A dispute about a payment; WON means decided for the shop, or closed without a loss."""

    OPEN = "OPEN"
    WON = "WON"
    LOST = "LOST"


class ReservationStatus(StrEnum):
    """Stock of one line of an order: held for it, committed to it, released or returned."""

    HELD = "HELD"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    RETURNED = "RETURNED"


class ShipmentStatus(StrEnum):
    """A shipment of lines of an order; CANCELLED: it was not sent, and its lines are free again."""

    PREPARING = "PREPARING"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


class ReturnStatus(StrEnum):
    """Units of an order that go back; UNSENT: they were cancelled before they were sent.

    REJECTED is final, as RECEIVED and UNSENT are, which gave money back.
    """

    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"
    RECEIVED = "RECEIVED"
    UNSENT = "UNSENT"


class StockMove(StrEnum):
    """Why a product's stock changed: an order was paid (COMMIT) or undone (RETURN), or staff say.

    LINE_RETURN: units of a line were cancelled before they were sent, or came back.  COUNT corrects
    the stock to what was counted, up or down.  CUSTOMER_RETURN is of goods that belong to no order
    that the shop undoes.
    """

    INITIAL = "INITIAL"
    RESTOCK = "RESTOCK"
    COMMIT = "COMMIT"
    RETURN = "RETURN"
    LINE_RETURN = "LINE_RETURN"
    DAMAGE = "DAMAGE"
    LOSS = "LOSS"
    SUPPLIER_RETURN = "SUPPLIER_RETURN"
    CUSTOMER_RETURN = "CUSTOMER_RETURN"
    COUNT = "COUNT"


class PriceScheduleState(StrEnum):
    """A price for a time; MISSED: its whole time passed before it was carried out."""

    PLANNED = "PLANNED"
    ACTIVE = "ACTIVE"
    ENDED = "ENDED"
    CANCELLED = "CANCELLED"
    MISSED = "MISSED"


class PostingKind(StrEnum):
    """What a posting of the ledger records."""

    CAPTURE = "CAPTURE"
    REFUND = "REFUND"
    REFUND_REVERSED = "REFUND_REVERSED"
    REFUND_BY_OTHER_MEANS = "REFUND_BY_OTHER_MEANS"
    WRITE_OFF = "WRITE_OFF"
    DISPUTE = "DISPUTE"
    DISPUTE_REVERSAL = "DISPUTE_REVERSAL"
    DISPUTE_FEE = "DISPUTE_FEE"
    DISPUTE_FEE_REVERSAL = "DISPUTE_FEE_REVERSAL"


class AccountState(StrEnum):
    """Whether an account may be used; CLOSED is final, and was its owner's wish."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"
    CLOSED = "CLOSED"


class LinkPurpose(StrEnum):
    """What a one-time link is for."""

    SET_PASSWORD = "SET_PASSWORD"  # noqa: S105 (a name)
    VERIFY_EMAIL = "VERIFY_EMAIL"
    CHANGE_EMAIL = "CHANGE_EMAIL"


class WebhookState(StrEnum):
    """Whether a webhook gets events; DELETED is final."""

    ACTIVE = "ACTIVE"
    DISABLED = "DISABLED"
    DELETED = "DELETED"


class DisabledBy(StrEnum):
    """Why a webhook is disabled: by an administrator, by status 410, or after long failure."""

    ADMINISTRATOR = "ADMINISTRATOR"
    GONE = "GONE"
    FAILING = "FAILING"


class DeliveryState(StrEnum):
    """Whether an event has been delivered to a webhook; FAILED after three days of attempts."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class MailKind(StrEnum):
    """What a mail is about; each has its templates (``functions/notify/templates``)."""

    ORDER_PAID = "ORDER_PAID"
    ORDER_CANCELLED = "ORDER_CANCELLED"
    REFUND_SUCCEEDED = "REFUND_SUCCEEDED"
    USER_REGISTERED = "USER_REGISTERED"
    PASSWORD_RESET = "PASSWORD_RESET"  # noqa: S105 (a name)
    INVITATION = "INVITATION"
    EMAIL_VERIFICATION = "EMAIL_VERIFICATION"
    EMAIL_CHANGE = "EMAIL_CHANGE"
    EMAIL_CHANGE_STARTED = "EMAIL_CHANGE_STARTED"
    EMAIL_CHANGED = "EMAIL_CHANGED"
    PASSWORD_CHANGED = "PASSWORD_CHANGED"  # noqa: S105 (a name)
    SECOND_FACTOR_ENABLED = "SECOND_FACTOR_ENABLED"
    SECOND_FACTOR_REMOVED = "SECOND_FACTOR_REMOVED"
    RECOVERY_CODES_RENEWED = "RECOVERY_CODES_RENEWED"
    RECOVERY_CODE_USED = "RECOVERY_CODE_USED"


class MailStatus(StrEnum):
    """A mail to send; UNKNOWN means that the server may have accepted it, so it is sent again.

    SENDING: a process sends it, until its lease ends.  FAILED is final, as SENT is.
    """

    PENDING = "PENDING"
    SENDING = "SENDING"
    UNKNOWN = "UNKNOWN"
    SENT = "SENT"
    FAILED = "FAILED"


class MailFailure(StrEnum):
    """Why the last attempt to send a mail was not successful.

    OBSOLETE: there was nothing to send any more, such as for a link that has ended.
    """

    UNREACHABLE = "UNREACHABLE"
    POSTPONED = "POSTPONED"
    NO_REPLY = "NO_REPLY"
    REJECTED = "REJECTED"
    EXHAUSTED = "EXHAUSTED"
    OBSOLETE = "OBSOLETE"


class Bounce(StrEnum):
    """What a delivery status notification (RFC 3464) reports of a mail that a server accepted.

    DELAYED: a server still tries to deliver it.  FAILED: it was not delivered, and will not be.
    """

    DELAYED = "DELAYED"
    FAILED = "FAILED"


class ActorKind(StrEnum):
    """Who made an audited change: a person, a service account, or a command of an operator."""

    PERSON = "PERSON"
    SERVICE = "SERVICE"
    COMMAND = "COMMAND"


class KeyState(StrEnum):
    """Whether the response of the request with an idempotency key is stored (DONE)."""

    STARTED = "STARTED"
    DONE = "DONE"


Status = OrderStatus | PaymentStatus | RefundStatus | DisputeStatus | ShipmentStatus | ReturnStatus
OPEN_PAYMENT: Final = (
    PaymentStatus.INTENT,
    PaymentStatus.UNKNOWN,
    PaymentStatus.REQUIRES_ACTION,
)
OPEN_REFUND: Final = (RefundStatus.INTENT, RefundStatus.UNKNOWN)
OPEN_MAIL: Final = (MailStatus.PENDING, MailStatus.SENDING, MailStatus.UNKNOWN)
SENT_SHIPMENT: Final = (ShipmentStatus.SHIPPED, ShipmentStatus.DELIVERED)
# These returned no money: their amount can be refunded again.
FAILED_REFUND: Final = (RefundStatus.REJECTED, RefundStatus.REVERSED)
# These only take stock away, COUNT does either, and the others only add stock.
STOCK_DECREASES: Final = (
    StockMove.COMMIT,
    StockMove.DAMAGE,
    StockMove.LOSS,
    StockMove.SUPPLIER_RETURN,
)
MOVES_OF_ORDERS: Final = (StockMove.COMMIT, StockMove.RETURN)
