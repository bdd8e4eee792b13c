"""Questions and answers of list_products."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, RootModel

from shop.runtime.model import Model, QueryModel

AMOUNT_MAX = 1_000_000_000_000


def _plain_number(text: object) -> object:
    """Digits only: pydantic would also read "1_000", "+1", " 1 " and "1.0" as numbers."""
    if isinstance(text, str) and not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError("must be a whole number in digits")
    return text


def _without_controls(text: str) -> str:
    """PostgreSQL has no NUL in text, and nobody's product has a control character in its name."""
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text):
        raise ValueError("must not contain control characters")
    return text


Amount = Annotated[int, BeforeValidator(_plain_number), Field(ge=0, le=AMOUNT_MAX)]
PageSize = Annotated[int, BeforeValidator(_plain_number), Field(ge=1, le=100)]
SearchText = Annotated[str, Field(max_length=64), AfterValidator(_without_controls)]
Sort = Literal["id", "-id", "price", "-price", "name", "-name"]


class ListProducts(QueryModel):
    """Which page of which list.  Empty ``name`` and ``category`` filter nothing."""

    limit: PageSize = 20
    cursor: str | None = Field(
        default=None,
        max_length=1_400,
        description="From the Link header of the page before.",
    )
    name: SearchText | None = Field(
        default=None,
        description="Part of the name, in either case; every character is literal.",
    )
    category: SearchText | None = None
    min_price: Amount | None = None
    max_price: Amount | None = None
    sort: Sort = "id"


class Product(Model):
    """A product for sale: ``price`` in minor units, ``stockQuantity`` neither sold nor held."""

    id: int
    name: str
    description: str
    category: str
    price: int
    currency: str
    stock_quantity: int


class Products(RootModel[list[Product]]):
    """One page."""


class Category(Model):
    """A category, known by its name."""

    name: str


class Categories(RootModel[list[Category]]):
    """All of them."""
