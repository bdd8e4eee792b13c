"""Opening a connection again that was refused, as the first ones of a new pod may be.

A NetworkPolicy learns the address of a new pod late: its connections were refused for 0.13 to
0.18 s on a live cluster.  Only the opening is repeated, so nothing is sent twice.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

OUTAGE_SECONDS = 2.0
PAUSE_SECONDS = 0.02
PAUSE_SECONDS_MAX = 0.25
# The texts of ECONNREFUSED, EHOSTUNREACH, ENETUNREACH and EAI_AGAIN: libpq reports nothing else.
REFUSED_TEXTS = (
    "Connection refused",
    "No route to host",
    "Network is unreachable",
    "Temporary failure in name resolution",
)

Opened = TypeVar("Opened")


def is_refused(error: Exception) -> bool:
    """Whether nothing listens at the address, or its name cannot be resolved now."""
    text = str(error)
    return any(refused in text for refused in REFUSED_TEXTS)


class ConnectionAttempts:
    """The attempts of a process to connect to one server; thread-safe.

    An outage begins with a refused attempt and ends with a successful one.  Attempts are repeated
    in its first ``outage_seconds`` only: a process whose server is down for longer fails at once.
    """

    def __init__(self, outage_seconds: float = OUTAGE_SECONDS) -> None:
        self._outage_seconds = outage_seconds
        self._refused_since: float | None = None
        self._lock = threading.Lock()
        self.repeated = 0

    def open(
        self,
        connect: Callable[[], Opened],
        *,
        errors: tuple[type[Exception], ...] = (OSError,),
        until: float = math.inf,
        is_refused: Callable[[Exception], bool] = is_refused,
    ) -> Opened:
        """What ``connect`` returns, called again while it is refused with one of ``errors``.

        Raises the last error, no later than at ``until`` of the monotonic clock.
        """
        pause = PAUSE_SECONDS
        while True:
            try:
                opened = connect()
            except errors as error:
                if not is_refused(error) or not self._may_repeat(until - pause):
                    raise
            else:
                self._refused_since = None
                return opened
            sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)

    def _may_repeat(self, before: float) -> bool:
        now = monotonic()
        with self._lock:
            if self._refused_since is None:
                self._refused_since = now
            if now >= min(before, self._refused_since + self._outage_seconds):
                return False
            self.repeated += 1
            return True
