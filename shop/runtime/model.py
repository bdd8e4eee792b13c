"""Base models of requests and queries: strict, closed, camelCase outside and snake_case inside."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
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
