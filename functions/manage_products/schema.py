"""Requests and responses of manage_products."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from shop.runtime.model import Model

PRICE_MAX = 1_000_000_000
STOCK_MAX = 1_000_000
MARKS_MAX = 4  # combining marks on one character; Vietnamese needs two

# controls, formats (bidi overrides, zero-width, soft hyphen, tags), surrogates, private use, and
# the two separators that some programs treat as line ends
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})


def _one_line(text: str) -> str:
    """Unambiguous text: no hidden characters, one normal form, few combining marks."""
    if text != text.strip():
        raise ValueError("must not begin or end with a space")
    return _readable(text)


def _many_lines(text: str) -> str:
    _readable(text.replace("\n", " "))
    return text


def _readable(text: str) -> str:
    if text.isascii() and text.isprintable():
        return text
    if any(unicodedata.category(c) in HIDDEN or _is_no_character(ord(c)) for c in text):
        raise ValueError("must not contain control, zero-width or direction characters")
    if not unicodedata.is_normalized("NFC", text):
        raise ValueError("must be in Unicode normalization form C")
    marks = 0
    for c in text:
        marks = marks + 1 if unicodedata.combining(c) else 0
        if marks > MARKS_MAX:
            raise ValueError("must not pile up combining marks")
    return text


def _is_no_character(code: int) -> bool:
    return 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_one_line)]
Description = Annotated[str, Field(max_length=2_000), AfterValidator(_many_lines)]
CategoryName = Annotated[str, Field(min_length=1, max_length=50), AfterValidator(_one_line)]
Price = Annotated[int, Field(ge=1, le=PRICE_MAX, description="In the currency's minor unit.")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217; the shop's own.")]


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


# null is rejected; None means that the property is absent
_OPTIONAL: Any = Field(
    default=None,
    exclude_if=lambda value: value is None,
    json_schema_extra=_without_default,
)


class NewProduct(Model):
    """A new product and its initial stock."""

    name: Name
    description: Description = ""
    category: CategoryName
    price: Price
    currency: Currency | None = None
    stock_quantity: Annotated[int, Field(ge=0, le=STOCK_MAX)]


class ProductChange(Model):
    """The properties to change, at least one; stock is changed by restocking."""

    name: Name = _OPTIONAL
    description: Description = _OPTIONAL
    category: CategoryName = _OPTIONAL
    price: Price = _OPTIONAL
    active: bool = _OPTIONAL  # false ends the sale of the product

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change")
        return self


class Restock(Model):
    """The quantity to add to the stock."""

    quantity: Annotated[int, Field(ge=1, le=STOCK_MAX)]


class NewCategory(Model):
    """A new category."""

    name: CategoryName


class Category(Model):
    """A category, known by its name."""

    name: str


class StaffProduct(Model):
    """A product as staff see it, for sale (``active``) or not."""

    id: int
    name: str
    description: str
    category: str
    price: int
    currency: str
    stock_quantity: int
    active: bool
