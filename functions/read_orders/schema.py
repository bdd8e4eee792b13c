"""Queries and responses of read_orders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel, StringConstraints

from shop.primitives.statuses import OrderStatus
from shop.response_models import Order, OrderAddress, OrderPriceLine
from shop.runtime.model import CurrencyCode, Model, PageSize, QueryModel, Timestamp, Uuid


class ListOrders(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last order of the page before."""

    limit: PageSize = 20
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None


class OrderWithAddress(Order):
    """An order, and where it is sent if it has an address."""

    shipping_address: OrderAddress | None = None


class Orders(RootModel[list[Order]]):
    """A page of orders, newest first."""


class Seller(Model):
    """Who sold the goods; null where the settings do not say."""

    name: str | None
    registration_number: str | None


class ReceiptItem(Model):
    """One line of goods, with the present name of its product."""

    product_id: int
    name: str
    quantity: int
    unit_price: int
    line_amount: int


class ReceiptPayment(Model):
    """A payment that was collected."""

    id: Uuid
    payment_method: str
    amount: int
    paid_at: Timestamp


class ReceiptRefund(Model):
    """An amount that was given back."""

    id: Uuid
    amount: int
    refunded_at: Timestamp


class Receipt(Model):
    """What an order cost, what was paid and what was given back; ``vatAmount`` is in the total.

    ``vatAmount`` is null for an order that was placed before version 0.2.0.
    """

    order_id: Uuid
    status: OrderStatus
    created_at: Timestamp
    seller: Seller
    currency: CurrencyCode
    items: list[ReceiptItem]
    price_lines: list[OrderPriceLine]
    total_amount: int
    vat_amount: int | None
    payments: list[ReceiptPayment]
    paid_amount: int
    refunds: list[ReceiptRefund]
    refunded_amount: int


class TimelineEntry(Model):
    """One status change; ``actor`` is ``user`` or the function that made it."""

    at: Timestamp
    entity: Literal["order", "payment", "refund", "dispute", "reservation", "shipment", "return"]
    id: Uuid
    from_: Annotated[str, Field(alias="from")]
    to: str
    actor: str


class Timeline(RootModel[list[TimelineEntry]]):
    """Every status change of an order, oldest first."""
