"""Requests and responses of placing orders."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from shop.coupons import COUPONS_MAX
from shop.primitives.ids import PRODUCT_ID_MAX
from shop.primitives.money import ORDER_TOTAL_MAX
from shop.request_models import Address
from shop.response_models import Order as Order
from shop.runtime.model import CouponCode, Model

LINES_MAX = 50
QUANTITY_MAX = 1000
CARD_NUMBER = re.compile(r"(?:\d[ -]?){13,19}")

ProductId = Annotated[int, Field(ge=1, le=PRODUCT_ID_MAX)]
Quantity = Annotated[int, Field(ge=1, le=QUANTITY_MAX)]
PaymentMethod = Annotated[
    str, StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
]
# of the customer's address book
AddressId = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"),
    Field(json_schema_extra={"format": "uuid"}),
]
Total = Annotated[int, Field(ge=1, le=ORDER_TOTAL_MAX)]


def _without_card_number(value: Any) -> Any:
    # no card number may reach a log or a table
    if isinstance(value, str) and CARD_NUMBER.search(value):
        raise ValueError("must be a payment method, not a card number")
    return value


def _check_one_address(address: Address | None, address_id: str | None) -> None:
    if address is not None and address_id is not None:
        raise ValueError("give either shippingAddress or addressId")


def _each_once(codes: list[str]) -> list[str]:
    if len(set(codes)) != len(codes):
        raise ValueError("must name each coupon once")
    return codes


Coupons = Annotated[list[CouponCode], Field(max_length=COUPONS_MAX), AfterValidator(_each_once)]


class Line(Model):
    """One product and how many of it."""

    product_id: ProductId
    quantity: Quantity


class PlaceOrder(Model):
    """Either ``productId`` and ``quantity``, or ``items``."""

    product_id: ProductId | None = None
    quantity: Quantity | None = None
    items: Annotated[list[Line], Field(min_length=1, max_length=LINES_MAX)] | None = None
    payment_method: PaymentMethod
    expected_total_amount: Total | None = None
    shipping_address: Address | None = None
    coupons: Coupons = Field(default_factory=list[str])
    address_id: AddressId | None = None

    _no_card_number = field_validator("payment_method", mode="before")(_without_card_number)

    @model_validator(mode="after")
    def _one_form(self) -> PlaceOrder:
        _check_one_address(self.shipping_address, self.address_id)
        single = self.product_id is not None or self.quantity is not None
        if single == (self.items is not None):
            raise ValueError("give either productId and quantity, or items")
        if single and (self.product_id is None or self.quantity is None):
            raise ValueError("productId and quantity go together")
        products = [product_id for product_id, _ in self.lines]
        if len(set(products)) != len(products):
            raise ValueError("a product may be in one line only")
        return self

    @property
    def lines(self) -> list[tuple[int, int]]:
        """``(product_id, quantity)`` of every line."""
        if self.items is not None:
            return [(line.product_id, line.quantity) for line in self.items]
        assert self.product_id is not None and self.quantity is not None
        return [(self.product_id, self.quantity)]


class PlaceOrderFromCart(Model):
    """How to pay, by card by default; the lines are those of the cart."""

    payment_method: PaymentMethod = "CARD"
    expected_total_amount: Total | None = None
    shipping_address: Address | None = None
    coupons: Coupons = Field(default_factory=list[str])
    address_id: AddressId | None = None

    _no_card_number = field_validator("payment_method", mode="before")(_without_card_number)

    @model_validator(mode="after")
    def _one_address(self) -> PlaceOrderFromCart:
        _check_one_address(self.shipping_address, self.address_id)
        return self


Token = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[!-~]+$")]


class ConfirmPayment(Model):
    """What the provider gave the customer, and the amount that the customer agreed to."""

    token: Token
    amount: Total


class PayAgain(Model):
    """The payment method of the next attempt."""

    payment_method: PaymentMethod

    _no_card_number = field_validator("payment_method", mode="before")(_without_card_number)
