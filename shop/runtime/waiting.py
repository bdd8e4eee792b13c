"""Requests that wait for a final response (``Prefer: wait``, RFC 7240).

Between two looks such a request holds neither a thread nor a database connection.  Their number is
limited per account and per process, and beyond the limit the response is given at once.  The state
is polled, because notifications of PostgreSQL need a connection of their own for each process and
do not pass PgBouncer in transaction mode.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass

from shop.runtime.http_messages import HttpRequest, Pending
from shop.runtime.message_context import MessageContext

ACCOUNT_WAITING_MAX = 2
POLL_SECONDS = (0.05, 0.1, 0.2, 0.4)


@dataclass(eq=False)
class WaitingRequest:
    """A request whose response is still preliminary."""

    http_request: HttpRequest
    message: MessageContext
    pending: Pending
    headers: dict[str, str]
    deadline: float
    polls: int = 0

    def next_pause_seconds(self) -> float:
        """How long to wait until the next look; at most until the deadline."""
        pause = POLL_SECONDS[min(self.polls, len(POLL_SECONDS) - 1)]
        self.polls += 1
        return max(0.0, min(pause, self.deadline - time.monotonic()))


class WaitingLimit:
    """Counts the waiting requests of a process, and of each account; thread-safe."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._by_account: Counter[int] = Counter()
        self._lock = threading.Lock()

    def admit(self, account: int) -> bool:
        """Counts one more request of an account; False beyond a limit."""
        with self._lock:
            is_admitted = (
                self._by_account[account] < ACCOUNT_WAITING_MAX
                and self._by_account.total() < self._waiting_max
            )
            self._by_account[account] += is_admitted
        return is_admitted

    def release(self, account: int) -> None:
        """Ends what ``admit`` counted."""
        with self._lock:
            self._by_account[account] -= 1
            if not self._by_account[account]:
                del self._by_account[account]
