"""Base models of bodies and queries: strict, closed, camelCase in JSON and snake_case in Python."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A JSON body: no unknown property, no coercion, immutable once validated."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class QueryModel(Model):
    """A query string: values arrive as text and are parsed."""

    model_config = ConfigDict(strict=False)


def _in_digits(text: object) -> object:
    """Accepts digits only; pydantic would also parse "1_000", "+1", " 1 " and "1.0"."""
    if isinstance(text, str) and not re.fullmatch(r"[0-9]{1,15}", text):
        raise ValueError("must be a whole number in digits")
    return text


# a year outside this century is taken for a typing error
DAY = r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}$"


def _calendar_day(text: object) -> object:
    """Only yyyy-MM-dd: pydantic would also accept seconds since 1970."""
    if isinstance(text, str) and not re.fullmatch(DAY, text):
        raise ValueError("must be a date such as 2026-02-01")
    return text


# Formats of values that the shop makes itself: for the API document, not checked again.
CurrencyCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
# a part of what handlers check, in the form that every reader of JSON Schema understands
ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"

POSTCODE = r"^[A-Z0-9](?:[ -]?[A-Z0-9]){2,9}$"
CODE = r"[A-Za-z0-9][A-Za-z0-9-]{2,31}"
CouponCode = Annotated[
    str,
    Field(pattern=f"^{CODE}$", description="In either case."),
    AfterValidator(str.upper),
]
QueryNumber = Annotated[int, BeforeValidator(_in_digits)]
PageSize = Annotated[QueryNumber, Field(ge=1, le=100)]
BusinessDay = Annotated[
    date,
    BeforeValidator(_calendar_day),
    Field(description="Business day, yyyy-MM-dd.", json_schema_extra={"pattern": DAY}),
]
