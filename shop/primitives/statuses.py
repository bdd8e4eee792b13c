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
    """An order's status; PAID orders can still be cancelled, CANCELLING ones wait for payments."""

    PENDING = "PENDING"
    PAID = "PAID"
    CANCELLING = "CANCELLING"
    CANCELLED = "CANCELLED"


class CancelReason(StrEnum):
    """Why an order is cancelled."""

    USER = "USER"
    EXPIRED = "EXPIRED"
    DECLINED = "DECLINED"
    OPERATOR = "OPERATOR"


class PaymentStatus(StrEnum):
    """An attempt to collect an order's total; UNKNOWN means that a call had no clear outcome."""

    INTENT = "INTENT"
    UNKNOWN = "UNKNOWN"
    CAPTURED = "CAPTURED"
    DECLINED = "DECLINED"
    VOIDED = "VOIDED"


class RefundStatus(StrEnum):
    """Money to return; UNKNOWN means that a call had no clear outcome."""

    INTENT = "INTENT"
    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    REJECTED = "REJECTED"


class ReservationStatus(StrEnum):
    """Stock of one line of an order: held for it, committed to it, released or returned."""

    HELD = "HELD"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    RETURNED = "RETURNED"


class StockMove(StrEnum):
    """Why a product's stock changed."""

    INITIAL = "INITIAL"
    RESTOCK = "RESTOCK"
    COMMIT = "COMMIT"
    RETURN = "RETURN"


class PostingKind(StrEnum):
    """What a posting of the ledger records."""

    CAPTURE = "CAPTURE"
    REFUND = "REFUND"


class KeyState(StrEnum):
    """Whether the response of the request with an idempotency key is stored (DONE)."""

    STARTED = "STARTED"
    DONE = "DONE"


Status = OrderStatus | PaymentStatus | RefundStatus
OPEN_PAYMENT: Final = (PaymentStatus.INTENT, PaymentStatus.UNKNOWN)
OPEN_REFUND: Final = (RefundStatus.INTENT, RefundStatus.UNKNOWN)
