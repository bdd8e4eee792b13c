"""Values of requests that several functions accept."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shop.primitives.text import one_line
from shop.runtime.model import POSTCODE, Model

KOREAN_POSTCODE = re.compile(r"[0-9]{5}")


def _moment(text: object) -> object:
    """A point in time as RFC 3339 writes it, with its offset, in this century."""
    if not isinstance(text, str):
        return text
    if re.fullmatch(MOMENT, text) is None:
        raise ValueError("must be a time with an offset, such as 2026-02-01T09:00:00+09:00")
    return datetime.fromisoformat(text)


MOMENT = (
    r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"
)
Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    Field(json_schema_extra={"format": "date-time", "pattern": MOMENT}),
]


class Address(Model):
    """Where an order is sent.

    In Korea ``postcode`` has five digits, and ``line1`` and ``line2`` have the rest.  Elsewhere
    ``city`` is needed, and ``region`` and ``postcode`` are given where the country has them.
    """

    recipient: Annotated[str, AfterValidator(partial(one_line, length_max=100))]
    phone: Annotated[str, StringConstraints(pattern=r"^\+?[0-9](?:[ -]?[0-9]){6,19}$")]
    country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] = "KR"
    postcode: Annotated[str, StringConstraints(pattern=POSTCODE)] | None = None
    region: Annotated[str, AfterValidator(partial(one_line, length_max=100))] | None = None
    city: Annotated[str, AfterValidator(partial(one_line, length_max=100))] | None = None
    line1: Annotated[str, AfterValidator(partial(one_line, length_max=200))]
    line2: Annotated[str, AfterValidator(partial(one_line, length_max=200))] | None = None

    @field_validator("postcode", mode="after")
    @classmethod
    def _korean(cls, postcode: str | None, info: ValidationInfo) -> str | None:
        is_korean = info.data.get("country") == "KR"
        if is_korean and not (postcode and KOREAN_POSTCODE.fullmatch(postcode)):
            raise ValueError("must have five digits in Korea")
        return postcode

    @model_validator(mode="after")
    def _complete(self) -> Address:
        if self.country == "KR" and self.postcode is None:
            raise ValueError("postcode: is needed in Korea")
        if self.country == "KR" and (self.city or self.region):
            raise ValueError("city, region: are part of line1 in Korea")
        if self.country != "KR" and self.city is None:
            raise ValueError("city: is needed outside Korea")
        return self
