"""Reads that may lag: whether the streaming replica answers them or the primary.

A physical replica has the primary's roles, grants and row-level security, so the same role reads
the same rows.  Loaded only where DATABASE_REPLICA_URL is given.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from time import monotonic
from typing import TYPE_CHECKING

from shop.adapters.db import UNAVAILABLE_ERRORS, Database, ReplicaFailed
from shop.adapters.statements import Query, Row, Statement

if TYPE_CHECKING:
    from types import TracebackType

    from shop.adapters.db import Session

# After the replica failed or lagged, the primary answers for so long.
PAUSE_SECONDS = 10.0


class Lag(Row):
    """How far a replica is behind, at most."""

    seconds: float


# An upper bound: the age of the last transaction that was replayed, which grows while the primary
# commits nothing and when the connection to it is lost.  A promoted replica does not lag.
LAG = Query(
    Lag,
    """
select case when pg_is_in_recovery()
  then coalesce(extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()), 'infinity')
  else 0 end::float8 as seconds
""",
)


class Replica:
    """A replica that is asked while it responds and lags by at most ``lag_seconds_max``.

    Thread-safe.  After the pause that follows a failure, one request tries the replica again while
    the others go on to read from the primary.
    """

    def __init__(self, database: Database, *, lag_seconds_max: float) -> None:
        self.database = database
        self._lag_seconds_max = lag_seconds_max
        self._paused_until = 0.0
        self._is_suspect = False
        self._lock = threading.Lock()
        self.reads = {"replica": 0, "lagging": 0, "failed": 0, "paused": 0}

    def may_be_asked(self) -> bool:
        """False during a pause, and while another request tries the replica after one."""
        with self._lock:
            now = monotonic()
            if now < self._paused_until:
                self.reads["paused"] += 1
                return False
            if self._is_suspect:
                self._paused_until = now + PAUSE_SECONDS
            return True

    def begin(
        self,
        stack: ExitStack,
        *,
        opening: tuple[Statement[Row], ...],
        traceparent: str,
        actor: str,
        source: str,
    ) -> Session | None:
        """A read-only transaction that ends with ``stack``; None if the primary has to answer.

        One round trip, which also reads the lag.  ``ReplicaFailed`` is raised from the block when
        the replica fails later: the whole transaction can be repeated at the primary.
        """
        lag = LAG()
        with ExitStack() as opened:
            opened.push(self._pause_after_failure)
            try:
                session = opened.enter_context(
                    self.database.transaction(
                        opening=(*opening, lag),
                        traceparent=traceparent,
                        actor=actor,
                        source=source,
                        is_read_only=True,
                    )
                )
            except UNAVAILABLE_ERRORS:
                self._pause("failed")
                return None
            if session.rows_of(lag)[0].seconds > self._lag_seconds_max:
                self._pause("lagging")
                return None
            self._resume()
            stack.enter_context(opened.pop_all())
            return session

    def _pause_after_failure(
        self,
        _type: type[BaseException] | None,
        error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, UNAVAILABLE_ERRORS):
            self._pause("failed")
            raise ReplicaFailed("the replica failed") from error

    def _pause(self, reason: str) -> None:
        with self._lock:
            self.reads[reason] += 1
            self._is_suspect = True
            self._paused_until = monotonic() + PAUSE_SECONDS

    def _resume(self) -> None:
        with self._lock:
            self.reads["replica"] += 1
            self._is_suspect = False
            self._paused_until = 0.0
