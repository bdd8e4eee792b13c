"""Requests and responses of cancelling and refunding."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from shop.primitives.ids import PRODUCT_ID_MAX
from shop.primitives.money import ORDER_TOTAL_MAX
from shop.primitives.statuses import RefundMeans, RefundStatus
from shop.primitives.text import one_line
from shop.response_models import Order as Order
from shop.response_models import Return as Return
from shop.runtime.model import CurrencyCode, Model, Uuid

REASON_LENGTH_MAX = 200
LINES_MAX = 100
QUANTITY_MAX = 1000
OneLine = Annotated[
    str,
    AfterValidator(partial(one_line, length_max=REASON_LENGTH_MAX)),
    Field(min_length=1, max_length=REASON_LENGTH_MAX),
]


class CancelForCustomer(Model):
    """Why an operator cancels a customer's order."""

    reason: OneLine


class Line(Model):
    """How many units of a product of the order."""

    product_id: Annotated[int, Field(ge=1, le=PRODUCT_ID_MAX)]
    quantity: Annotated[int, Field(ge=1, le=QUANTITY_MAX)]


def _one_line_per_product(items: list[Line]) -> list[Line]:
    products = [line.product_id for line in items]
    if len(set(products)) != len(products):
        raise ValueError("a product may be in one line only")
    return items


Lines = Annotated[
    list[Line], Field(min_length=1, max_length=LINES_MAX), AfterValidator(_one_line_per_product)
]


class CancelLines(Model):
    """Units that are not to be sent, and why, if the customer says."""

    items: Lines
    reason: OneLine = "CUSTOMER"


class RequestReturn(Model):
    """Units that the customer wants to send back, and why."""

    items: Lines
    reason: OneLine


class RefundOrder(Model):
    """How much to return, why and by which means; a ``currency`` must be the order's.

    ``reference`` names the payment by other means, such as a bank transfer's number.  ``restock``
    returns the goods to the stock when the refund of all that is left has succeeded.
    """

    amount: Annotated[int, Field(ge=1, le=ORDER_TOTAL_MAX)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")] | None = None
    reason: OneLine = "SUPPORT"
    # not strict: JSON has text, not a member of the enum
    means: Annotated[RefundMeans, Field(strict=False)] = RefundMeans.PROVIDER
    reference: OneLine | None = None
    restock: bool = False

    @model_validator(mode="after")
    def _explained(self) -> RefundOrder:
        if (self.means == RefundMeans.OTHER_MEANS) != (self.reference is not None):
            raise ValueError("OTHER_MEANS needs a reference, other means have none")
        if self.means != RefundMeans.PROVIDER and "reason" not in self.model_fields_set:
            raise ValueError("give the reason why the provider does not return the money")
        return self


class Refund(Model):
    """A refund that was accepted and is executed next."""

    order_id: Uuid
    amount: int
    currency: CurrencyCode
    status: Literal[RefundStatus.INTENT]
    reason: str
    means: RefundMeans
    reference: str | None = None
    restock: bool
