"""The errors of reading an event.

::

    Malformed            invalid, so that a retry cannot succeed: 400, 413, 415 or 422
    └── UnknownEvent     valid, but of an unknown type or version: 422
"""

from __future__ import annotations


class Malformed(ValueError):
    """An invalid event: the HTTP status of the response and the reason, for the sender.

    The reason names the attribute or property, never its value: values may be personal.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class UnknownEvent(Malformed):
    """An unknown event type or version: always 422."""

    def __init__(self, reason: str) -> None:
        super().__init__(422, reason)
