"""Queries and answers of reading orders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel, StringConstraints

from shop.runtime.model import Model, QueryModel


class ListOrders(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last order of the page before."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None


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


class Orders(RootModel[list[Order]]):
    """A page of orders, newest first."""


class TimelineEntry(Model):
    """One status change; ``actor`` is who caused it: a user or a function."""

    at: str
    entity: Literal["order", "payment", "refund", "reservation"]
    id: str
    from_: Annotated[str, Field(alias="from")]
    to: str
    actor: str


class Timeline(RootModel[list[TimelineEntry]]):
    """Every status change of an order's story, oldest first."""
