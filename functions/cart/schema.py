"""Commands and answers of cart."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shop.carts import QUANTITY_MAX
from shop.primitives.ids import PRODUCT_ID_MAX
from shop.runtime.model import Model


class NewItem(Model):
    """A product, and how many more of it to put into the cart."""

    product_id: Annotated[int, Field(ge=1, le=PRODUCT_ID_MAX)]
    quantity: Annotated[int, Field(ge=1, le=QUANTITY_MAX)]


class ItemChange(Model):
    """How many of the product are to be in the cart; nought or less removes the line."""

    quantity: Annotated[int, Field(ge=-(2**31), le=QUANTITY_MAX)]


class Line(Model):
    """One line at today's price; ``available`` when it could be ordered as it stands."""

    product_id: int
    name: str
    price: int
    currency: str
    quantity: int
    line_amount: int
    stock_quantity: int
    available: bool


class Cart(Model):
    """The lines, longest in the cart first, and the sum of their amounts."""

    items: list[Line]
    total_amount: int
    currency: str
