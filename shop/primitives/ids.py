"""Identifiers: UUID version 7 for everything but users and products."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from datetime import datetime

PRODUCT_ID_MAX = USER_ID_MAX = 2**63 - 1
PRODUCT_ID = re.compile(r"[1-9][0-9]{0,18}")


def new_uuid() -> UUID:
    """A UUIDv7 (RFC 9562 section 5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80
    value |= int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 7 << 76
    value = value & ~(0x3 << 62) | 2 << 62
    return UUID(int=value)


def first_uuid_at(at: datetime) -> UUID:
    """The lowest UUIDv7 of a millisecond, to compare ids with a time."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def parse_uuid(text: str) -> UUID | None:
    """The UUID in ``text``, or None unless it is spelled in its canonical 36 characters."""
    if len(text) != 36:
        return None
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None


def parse_product_id(text: str) -> int | None:
    """The product id in ``text``, or None: no sign, no leading zero, at most 2^63 - 1."""
    if PRODUCT_ID.fullmatch(text) is None:
        return None
    number = int(text)
    return number if number <= PRODUCT_ID_MAX else None


def parse_user_id(text: str) -> int | None:
    """The account id in ``text``, or None; the form is that of product ids."""
    return parse_product_id(text)
