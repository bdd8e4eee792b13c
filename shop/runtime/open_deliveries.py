"""Requests to a broker that delivers an event while the publisher's request is open.

Knative's in-memory broker cancels a delivery, and its dead letter, when the publisher hangs up.
So threads hold these requests after the response to the client, for as long as the broker's own
limit; at SIGTERM the server waits for them within its grace period.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from shop.primitives import failpoints
from shop.primitives.failpoints import Failpoint
from shop.runtime import log

if TYPE_CHECKING:
    from uuid import UUID

    from shop.adapters.db import Database

OPEN_MAX = 32
# Shorter than both leases of an outbox row: 5 s from its insertion, 10 s from the sweep.
RENEWAL_SECONDS = 3.0


class Delivery:
    """One request that is open, or has ended."""

    __slots__ = ("ended", "event_id", "is_accepted", "renewed_at")

    def __init__(self, event_id: UUID) -> None:
        self.event_id = event_id
        self.is_accepted = False
        self.ended = threading.Event()
        self.renewed_at = time.monotonic()


class OpenDeliveries:
    """At most ``OPEN_MAX`` open requests of a process, each held by a thread.

    One more thread, with one connection to the database, marks accepted rows as sent, and keeps
    the rows of open requests from being published again by the sweep.  When the process is killed,
    they become due within ten seconds.
    """

    def __init__(self) -> None:
        self._slots = threading.Semaphore(OPEN_MAX)
        self._has_changed = threading.Event()
        self._open: set[Delivery] = set()
        self._recorder: threading.Thread | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def start(
        self, database: Database, event_id: UUID, post: Callable[[], bool], *, wait_seconds: float
    ) -> Delivery | None:
        """Runs ``post`` in a thread; it returns whether the broker accepted the event.

        None when no thread could be had within ``wait_seconds``; the row then stays due.
        """
        if not self._slots.acquire(timeout=max(0.0, wait_seconds)):
            return None
        delivery = Delivery(event_id)
        self._open.add(delivery)
        try:
            self._start_recorder(database)
            threading.Thread(target=self._hold, args=(delivery, post), daemon=True).start()
        except (RuntimeError, MemoryError) as error:  # no threads left
            log.unexpected(error, route="publish")
            self._end(delivery)
            return None
        self._has_changed.set()
        return delivery

    def _hold(self, delivery: Delivery, post: Callable[[], bool]) -> None:
        try:
            delivery.is_accepted = post()
        except Exception as error:
            log.unexpected(error, route="publish")
        delivery.ended.set()
        self._has_changed.set()

    def _start_recorder(self, database: Database) -> None:
        with self._lock:
            if self._recorder is None:
                recorder = threading.Thread(
                    target=self._record, args=(database,), daemon=True, name="deliveries"
                )
                recorder.start()
                self._recorder = recorder

    def _record(self, database: Database) -> None:
        """The thread that writes to the database; idle while no request is open."""
        while True:
            try:
                self._wait_for_change()
                self._record_changes(database)
            except Exception as error:  # without this thread no delivery would end
                log.unexpected(error, route="publish")

    def _wait_for_change(self) -> None:
        """Waits until a delivery begins or ends, or a renewal is due."""
        self._has_changed.wait(RENEWAL_SECONDS if self._open else None)
        self._has_changed.clear()

    def _record_changes(self, database: Database) -> None:
        deliveries = tuple(self._open)
        ended = [each for each in deliveries if each.ended.is_set()]
        renewable = time.monotonic() - RENEWAL_SECONDS
        late = [
            each for each in deliveries if not each.ended.is_set() and each.renewed_at <= renewable
        ]
        try:
            self._write(database, [each.event_id for each in ended if each.is_accepted], late)
        finally:
            for each in ended:
                self._end(each)

    def _write(self, database: Database, accepted: list[UUID], late: list[Delivery]) -> None:
        # imported here: a cold start that publishes nothing needs neither
        from shop.adapters import db
        from shop.messaging import outbox

        if accepted:
            failpoints.hit(Failpoint.PUBLISHED)
        statements = [outbox.mark_sent(accepted)] if accepted else []
        if late:
            statements.append(outbox.lease([each.event_id for each in late]))
        if not statements:
            return
        try:
            database.run_now(*statements)
        except db.DatabaseError as error:
            log.write("not marked sent", error=type(error).__name__)
        for each in late:
            each.renewed_at = time.monotonic()

    def _end(self, delivery: Delivery) -> None:
        self._open.discard(delivery)
        self._slots.release()
