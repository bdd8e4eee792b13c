"""Validates the fields of a provider's JSON, as strictly as those of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

AMOUNT_MINOR_MAX = 10**12


def object_in(value: object) -> dict[str, object] | None:
    """A JSON object, or None."""
    # the keys of a JSON object are strings
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def amount_in(value: object) -> int | None:
    """A positive whole amount within bounds, or None (a bool or a float is not an amount)."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 < value <= AMOUNT_MINOR_MAX else None


def currency_in(value: object) -> str | None:
    """Three ASCII letters in upper case (ISO 4217), or None."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha():
        return value.upper()
    return None


def text_in(value: object) -> str | None:
    """A non-empty string of at most 255 characters without control characters, or None."""
    if isinstance(value, str) and 0 < len(value) <= 255 and value.isprintable():
        return value
    return None


def name_of_invalid(item: Mapping[str, object]) -> str:
    """The key, id or reference under which an operator finds an entry that lacks something."""
    names = (text_in(item.get(field)) for field in ("key", "id", "provider_ref"))
    return next((name for name in names if name), "an entry without a name")
