"""Response bodies that several functions return.

Only their ``schema.py`` modules import this one, so that a handler without models does not load
pydantic.
"""

from __future__ import annotations

from typing import Literal

from shop.primitives.statuses import (
    ActionType,
    CancelReason,
    OrderStatus,
    PaymentStatus,
    PriceLineKind,
    ReturnStatus,
    ShipmentStatus,
)
from shop.runtime.model import CurrencyCode, Model, Timestamp, Uuid


class AccountView(Model):
    """An account, as its owner sees it."""

    id: int
    email: str
    name: str
    role: str
    language: Literal["ko", "en"]
    email_verified: bool
    created_at: Timestamp


class OrderItem(Model):
    """One line of an order, at the price at which it was placed."""

    product_id: int
    quantity: int
    unit_price: int
    line_amount: int


class OrderPriceLine(Model):
    """A part of the total; ``amount`` contains ``vatAmount``, and a discount is negative.

    Orders that were placed before version 0.2.0 do not state the VAT.
    """

    kind: PriceLineKind
    product_id: int | None
    amount: int
    vat_amount: int | None
    vat_percent: float | None


class OrderCoupon(Model):
    """A coupon of an order, and what it takes off the goods."""

    code: str
    discount_amount: int


class OrderNextAction(Model):
    """What the customer has to do for a payment, and until when.

    A redirect has a ``url``; a widget a ``clientSecret`` or a ``clientKey``, with the ``orderId``
    and the amount that it is opened with; a transfer the account to which the amount is sent.
    """

    type: ActionType
    until: Timestamp
    url: str | None = None
    client_secret: str | None = None
    client_key: str | None = None
    order_id: str | None = None
    amount: int | None = None
    currency: CurrencyCode | None = None
    bank: str | None = None
    account_number: str | None = None


class OrderPayment(Model):
    """The latest attempt to collect the money; what it requires is shown to its customer only."""

    id: Uuid
    status: PaymentStatus
    attempt: int
    next_action: OrderNextAction | None = None


class ShipmentItem(Model):
    """How many units of a product are in a shipment."""

    product_id: int
    quantity: int


class Shipment(Model):
    """Lines of an order that are sent together; ``carrier`` is the code of the carrier."""

    id: Uuid
    status: ShipmentStatus
    carrier: str | None
    tracking_number: str | None
    items: list[ShipmentItem]
    created_at: Timestamp
    shipped_at: Timestamp | None
    delivered_at: Timestamp | None


class ReturnItem(Model):
    """Units of a product that go back; ``restocked`` and ``amount`` once they are given back."""

    product_id: int
    quantity: int
    restocked: int | None
    amount: int | None


class Return(Model):
    """Units that the customer returns, or cancelled before they were sent (UNSENT)."""

    id: Uuid
    status: ReturnStatus
    items: list[ReturnItem]
    created_at: Timestamp
    updated_at: Timestamp


class OrderAddress(Model):
    """Where an order is sent, as it was given when the order was placed."""

    recipient: str
    phone: str
    country: str
    postcode: str | None = None
    region: str | None = None
    city: str | None = None
    line1: str
    line2: str | None = None


class Order(Model):
    """An order as every response shows it; ``productId`` and ``quantity`` of its only line.

    ``coupons``, ``shipments`` and ``returns`` are shown from the first one on.
    """

    id: Uuid
    user_id: int
    product_id: int | None = None
    quantity: int | None = None
    status: OrderStatus
    reason: CancelReason | None = None
    total_amount: int
    currency: CurrencyCode
    payment_method: str
    created_at: Timestamp
    items: list[OrderItem]
    price_lines: list[OrderPriceLine]
    coupons: list[OrderCoupon] | None = None
    payment: OrderPayment | None
    refunded_amount: int
    shipments: list[Shipment] | None = None
    returns: list[Return] | None = None
