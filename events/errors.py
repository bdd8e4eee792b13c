"""What reading an event may refuse.

::

    Malformed            it will never be readable: 400, 413, 415 or 422
    └── UnknownEvent     well formed, and not a type or version we know: 422
"""

from __future__ import annotations


class Malformed(ValueError):
    """A message that no retry can mend: the HTTP status to answer and the reason, for its sender.

    The reason names the attribute or property, never its value: values may be personal.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class UnknownEvent(Malformed):
    """An event type, or a version of one, that this code does not know: always 422."""

    def __init__(self, reason: str) -> None:
        super().__init__(422, reason)
