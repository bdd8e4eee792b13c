"""The errors that a caller may receive.

::

    ShopError
    ├── ClientError      4xx: the request cannot be carried out as it is
    └── Unavailable      503: nothing was decided, the same request may succeed later

Any other exception is a bug: 500, and its text stays in the log.
"""

from __future__ import annotations

from collections.abc import Mapping


class ShopError(Exception):
    """Base class of the errors that a caller receives."""


class ClientError(ShopError):
    """A 4xx response: an HTTP status, a stable code for programs and a sentence for people.

    ``extra`` members are added to the problem document (RFC 9457 section 3.2).  A ``stored`` error
    is stored under the request's idempotency key and replayed; others are not.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
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
    """A dependency does not respond; the caller should retry."""

    def __init__(self, message: str, *, retry_after_seconds: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


def not_found(what: str) -> ClientError:
    """404, the same response for a missing resource and for another customer's."""
    return ClientError(404, "NOT_FOUND", f"{what} was not found")
