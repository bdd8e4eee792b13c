"""Requests and responses of cart."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, RootModel

from shop.carts import QUANTITY_MAX
from shop.coupons import COUPONS_MAX
from shop.primitives.ids import PRODUCT_ID_MAX
from shop.primitives.statuses import CouponObstacle
from shop.response_models import OrderPriceLine
from shop.runtime.model import CODE, POSTCODE, CurrencyCode, Model, QueryModel


class NewItem(Model):
    """A product, and how many of it to add to the cart."""

    product_id: Annotated[int, Field(ge=1, le=PRODUCT_ID_MAX)]
    quantity: Annotated[int, Field(ge=1, le=QUANTITY_MAX)]


class ItemChange(Model):
    """The new quantity of a product in the cart; 0 or less removes the line."""

    quantity: Annotated[int, Field(ge=-(2**31), le=QUANTITY_MAX)]


class SummaryQuery(QueryModel):
    """The coupons of an order that would be placed now, and where it would be sent."""

    coupons: Annotated[
        str | None,
        Field(
            pattern=f"^{CODE}(,{CODE}){{0,{COUPONS_MAX - 1}}}$",
            description="Codes, in either case, separated by commas.",
        ),
    ] = None
    postcode: Annotated[
        str | None, Field(pattern=POSTCODE, description="For the surcharge of its region.")
    ] = None
    country: Annotated[
        str | None, Field(pattern=r"^[A-Z]{2}$", description="Of the postcode; KR by default.")
    ] = None

    @property
    def codes(self) -> list[str]:
        """Each code once, as it is stored."""
        return sorted(set(self.coupons.upper().split(","))) if self.coupons else []


class Line(Model):
    """One line at its present price; ``available`` if this quantity can be ordered."""

    product_id: int
    name: str
    price: int
    currency: CurrencyCode
    quantity: int
    line_amount: int
    stock_quantity: int
    available: bool


class Cart(RootModel[list[Line]]):
    """The lines, oldest first."""


class CartCoupon(Model):
    """What a coupon takes off the goods, or why it takes nothing off."""

    code: str
    discount_amount: int
    reason: CouponObstacle | None


class CurrencyTotal(Model):
    """What an order of the lines in one currency costs, and the parts of it."""

    currency: CurrencyCode
    total_amount: int
    price_lines: list[OrderPriceLine]
    coupons: list[CartCoupon]


class CartSummary(Model):
    """How many lines there are, and what they cost in each of their currencies."""

    lines: int
    totals: list[CurrencyTotal]
