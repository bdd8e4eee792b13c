"""Retry rules for HTTP clients of the shop: which responses are definite, and how long to wait."""

from __future__ import annotations

import json
from random import Random
from typing import cast

UNAVAILABLE = frozenset({502, 503, 504})


def is_definite(status: int, body: bytes) -> bool:
    """False when the result is unknown and the same request must be repeated.

    That is: after 429, when the shop is unavailable, or when a request with the same idempotency
    key is still in progress.
    """
    if status == 409:
        return error_code(body) != "REQUEST_IN_PROGRESS"
    return status != 429 and status not in UNAVAILABLE


def error_code(body: bytes) -> str:
    """The ``error`` member of a problem document, empty for another body."""
    try:
        document: object = json.loads(body)
    except ValueError:
        return ""
    # json.loads returns dictionaries with string keys only
    code = cast("dict[str, object]", document).get("error") if isinstance(document, dict) else None
    return code if isinstance(code, str) else ""


def retry_after_seconds(value: str | None) -> float:
    """``Retry-After`` in seconds (RFC 9110, delta form), 0 for another or no value."""
    return float(value) if value is not None and value.isdigit() else 0.0


def backoff_seconds(
    attempt: int, *, first_seconds: float, max_seconds: float, random: Random
) -> float:
    """The delay after an attempt: exponential with full jitter."""
    return random.uniform(0.0, min(max_seconds, first_seconds * 2**attempt))
