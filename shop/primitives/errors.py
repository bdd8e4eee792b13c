"""The errors that a caller may receive.

::

    ShopError
    ├── ClientError      4xx: the request cannot be carried out as it is
    └── Unavailable      503: nothing was decided, the same request may succeed later

Any other exception is a bug: 500, and its text stays in the log.  A process without memory, threads
or files is no bug but 503 (``is_out_of_resources``).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

_OUT_OF_RESOURCES = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)
# Python has no exception type for a thread that cannot start or a library that cannot be loaded.
_TEXTS_OUT_OF_RESOURCES = (
    "can't start new thread",
    "failed to map segment",
    "Cannot allocate memory",
)


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


def is_out_of_resources(error: BaseException | None) -> bool:
    """Whether the process had no memory, threads or files left, here or in an error before it."""
    while error is not None:
        number = error.errno if isinstance(error, OSError) else None
        is_known_text = any(text in str(error) for text in _TEXTS_OUT_OF_RESOURCES)
        if isinstance(error, MemoryError) or number in _OUT_OF_RESOURCES or is_known_text:
            return True
        error = error.__cause__ or error.__context__
    return False


def out_of_resources() -> Unavailable:
    """The process has no memory, threads or files left; another one may have."""
    return Unavailable("this process has no memory, threads or files left")


def not_found(what: str) -> ClientError:
    """404, the same response for a missing resource and for another customer's."""
    sentence = f"{what} was not found"
    return ClientError(404, "NOT_FOUND", sentence)


def check_wait(seconds: int | None, message: str) -> None:
    """Raises 429 with Retry-After while another attempt is not allowed.

    ``seconds`` are those until it is; none, zero or less: it is allowed now.
    """
    if seconds is not None and seconds > 0:
        headers = {"retry-after": str(seconds)}
        raise ClientError(429, "TOO_MANY_ATTEMPTS", message, headers=headers)
