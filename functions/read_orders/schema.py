"""Queries and responses of read_orders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel, StringConstraints

from shop.response_models import Order, OrderAddress
from shop.runtime.model import Model, PageSize, QueryModel, Timestamp, Uuid


class ListOrders(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last order of the page before."""

    limit: PageSize = 20
    cursor: Annotated[str, StringConstraints(pattern=r"^[0-9a-f-]{36}$")] | None = None


class OrderWithAddress(Order):
    """An order, and where it is sent if it has an address."""

    shipping_address: OrderAddress | None = None


class Orders(RootModel[list[Order]]):
    """A page of orders, newest first."""


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
