"""The form of API keys in an ``Authorization`` header; it says nothing about their validity."""

from __future__ import annotations

import re

PREFIX = "msk_"
KEY = PREFIX + "[A-Za-z0-9_-]{43}"
BEARER = re.compile(rf"(?i:Bearer) ({KEY})", re.ASCII)


def key_in(authorization_header: str | None) -> str | None:
    """The API key in a header; None for every other token, which has no such prefix."""
    if authorization_header is None or authorization_header[7:11] != PREFIX:
        return None
    match = BEARER.fullmatch(authorization_header)
    return match[1] if match else None
