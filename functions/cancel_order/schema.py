"""Requests and responses of cancelling and refunding."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from shop.primitives.money import ORDER_TOTAL_MAX
from shop.primitives.statuses import RefundStatus
from shop.response_models import Order as Order
from shop.runtime.model import Model


class RefundOrder(Model):
    """How much to refund, and why; a ``currency`` must be the order's."""

    amount: Annotated[int, Field(ge=1, le=ORDER_TOTAL_MAX)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    reason: Annotated[
        str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
    ] = "SUPPORT"


class Refund(Model):
    """A refund that was accepted; the provider is called next."""

    order_id: str
    amount: int
    currency: str
    status: Literal[RefundStatus.INTENT]
    reason: str
