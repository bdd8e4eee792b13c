"""The errors a caller may see, as one tree.

::

    ShopError
    ├── Refused          our honest "no": 4xx, the caller can do something about it
    └── Unavailable      not now: 503, try later (nothing was decided)

Anything else that is raised is a bug and answers 500 without its text.
"""

from __future__ import annotations

from typing import Any


class ShopError(Exception):
    """Root of what the shop raises on purpose."""


class ClientError(ShopError):
    """A refusal with an HTTP status, a stable code for programs and a sentence for people.

    ``extra`` members join the problem document (RFC 9457 section 3.2); ``stored`` refusals are the
    business's answer to an idempotency key and are replayed, the others are not.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        extra: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        stored: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.extra = extra or {}
        self.headers = headers or {}
        self.stored = stored


class Unavailable(ShopError):
    """Something the shop stands on does not answer; the caller should come back."""

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


def not_found(what: str) -> ClientError:
    """404 in the same bytes whether the thing is missing or someone else's."""
    return ClientError(404, "NOT_FOUND", f"{what} was not found")
