"""Answers that several functions give: each of their ``schema.py`` takes the models from here.

Only they import this module, so a handler that answers without pydantic stays without it.
"""

from __future__ import annotations

from typing import Literal

from shop.runtime.model import Model


class OrderItem(Model):
    """One line of an order, at the price of the moment it was placed."""

    product_id: int
    quantity: int
    unit_price: int
    line_amount: int


class OrderPayment(Model):
    """The latest attempt to collect the money."""

    status: Literal["INTENT", "UNKNOWN", "CAPTURED", "DECLINED", "VOIDED"]
    attempt: int


class Order(Model):
    """An order as every answer shows it."""

    id: str
    user_id: int
    status: Literal["PENDING", "PAID", "CANCELLING", "CANCELLED"]
    reason: Literal["USER", "EXPIRED", "DECLINED", "OPERATOR"] | None = None
    total_amount: int
    currency: str
    payment_method: str
    created_at: str
    items: list[OrderItem]
    payment: OrderPayment | None
    refunded_amount: int
