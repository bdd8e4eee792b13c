"""Requests and responses of manage_orders."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from shop.accounts import EMAIL_LENGTH_MAX, check_email
from shop.primitives.ids import parse_uuid
from shop.primitives.statuses import OrderStatus
from shop.runtime.model import (
    BusinessDay,
    CurrencyCode,
    Model,
    PageSize,
    QueryModel,
    QueryNumber,
    Timestamp,
    Uuid,
)


def _order_id(text: str) -> str:
    if parse_uuid(text) is None:
        raise ValueError("must be the id of an order")
    return text


OrderId = Annotated[
    str, AfterValidator(_order_id), Field(json_schema_extra={"format": "uuid"}, max_length=36)
]
Email = Annotated[str, AfterValidator(check_email), Field(max_length=EMAIL_LENGTH_MAX)]
ObjectId = Annotated[QueryNumber, Field(ge=1)]
Amount = Annotated[QueryNumber, Field(ge=0)]


class SearchOrders(QueryModel):
    """Criteria are combined; keyset paging: ``cursor`` is the id of the last order before.

    Days are business days and, like totals, inclusive.
    """

    id: OrderId | None = None
    user_id: ObjectId | None = None
    email: Email | None = None
    product_id: ObjectId | None = None
    status: OrderStatus | None = None
    from_day: BusinessDay | None = None
    to_day: BusinessDay | None = None
    min_total: Amount | None = None
    max_total: Amount | None = None
    limit: PageSize = 20
    cursor: OrderId | None = None

    @model_validator(mode="after")
    def _one_customer(self) -> Self:
        if self.user_id is not None and self.email is not None:
            raise ValueError("give userId or email, not both")
        return self


class FoundOrder(Model):
    """An order as it is listed; ``reason`` is that of a cancellation."""

    id: Uuid
    user_id: int
    status: OrderStatus
    reason: str | None
    total_amount: int
    currency: CurrencyCode
    created_at: Timestamp


class Total(Model):
    """The number of orders that match; unless ``exact``, there are more than this."""

    count: int
    exact: bool


class FoundOrders(Model):
    """A page of orders, newest first."""

    orders: list[FoundOrder]
    total: Total
