"""Queries and responses of list_products."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, RootModel

from functions.list_products.paging import CURSOR_LENGTH_MAX
from shop.primitives.text import compose
from shop.runtime.model import ONE_LINE, CurrencyCode, Model, PageSize, QueryModel, QueryNumber

AMOUNT_MAX = 1_000_000_000_000
SEARCH_LENGTH_MAX = 64


def _as_stored(text: str) -> str:
    """The text in the stored form of names: composed (macOS sends 한글 decomposed).

    PostgreSQL has no NUL in text, and product names have no control characters.  The length is that
    of the composed text, which a link to the next page repeats.
    """
    text = compose(text, length_max=SEARCH_LENGTH_MAX)
    if any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in text):
        raise ValueError("must not contain control characters")
    return text


Amount = Annotated[QueryNumber, Field(ge=0, le=AMOUNT_MAX)]
SearchText = Annotated[
    str,
    Field(pattern=ONE_LINE),
    AfterValidator(_as_stored),
    Field(max_length=SEARCH_LENGTH_MAX),
]
Sort = Literal["id", "-id", "price", "-price", "name", "-name"]


class ListProducts(QueryModel):
    """Filters, order and page; an empty ``name`` or ``category`` is no filter."""

    limit: PageSize = 20
    cursor: str | None = Field(
        default=None,
        max_length=CURSOR_LENGTH_MAX,
        description="From the Link header of the page before.",
        json_schema_extra={"pattern": "^[A-Za-z0-9_-]+$"},
    )
    name: SearchText | None = Field(
        default=None,
        description="Part of the name, in either case; every character is literal.",
    )
    category: SearchText | None = None
    min_price: Amount | None = None
    max_price: Amount | None = None
    sort: Sort = "id"


class Image(Model):
    """An image elsewhere; ``alt`` is the text for those who cannot see it."""

    url: str
    alt: str


class Membership(Model):
    """The group of products that differ in options, and this one's value of each option."""

    id: int
    options: dict[str, str]


class Member(Model):
    """A product of a group that is for sale."""

    product_id: int
    options: dict[str, str]


class Group(Membership):
    """The group with its members for sale, this product among them."""

    name: str
    members: list[Member]


class ProductForSale(Model):
    """A product for sale: ``price`` in minor units, ``stockQuantity`` neither sold nor held."""

    id: int
    name: str
    description: str
    category: str
    price: int
    currency: CurrencyCode
    stock_quantity: int
    images: list[Image]


class Product(ProductForSale):
    """A product with the other members of its group."""

    group: Group | None


class ListedProduct(ProductForSale):
    """A product of a list, with its options only."""

    group: Membership | None


class Products(RootModel[list[ListedProduct]]):
    """One page."""


class Category(Model):
    """A category, known by its name."""

    name: str


class Categories(RootModel[list[Category]]):
    """All of them."""
