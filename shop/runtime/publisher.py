"""Publishing after the commit: best effort, within 300 ms.  The outbox guarantees delivery."""

from __future__ import annotations

import http.client
import json
import threading
import time
import weakref
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from events import envelope
from events.vocabulary import class_of
from shop.primitives import failpoints
from shop.primitives.clock import utc_now
from shop.primitives.failpoints import Failpoint
from shop.runtime import log
from shop.runtime.message_context import span

if TYPE_CHECKING:
    from events.envelope import CloudEvent
    from shop.adapters.db import Database
    from shop.adapters.signatures import Signer
    from shop.primitives.messages import OutboxRow
    from shop.runtime.config import Settings

BUDGET_SECONDS = 0.3
ACCEPTED = range(200, 300)


class _ThreadConnection:
    """A thread's connection, closed when the thread ends or takes another connection."""

    def __init__(self, http_connection: http.client.HTTPConnection) -> None:
        self.http_connection = http_connection
        weakref.finalize(self, http_connection.close)


class Publisher:
    """Signs outbox rows as CloudEvents and posts them to the broker's ingress in binary mode."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = urlsplit(settings.broker_url)
        self._signer: Signer | None = None
        self._threads = threading.local()

    def publish(
        self, rows: Sequence[OutboxRow], *, budget_seconds: float = BUDGET_SECONDS
    ) -> list[UUID]:
        """Ids of the rows that the broker accepted in time; it never raises for the others."""
        accepted: list[UUID] = []
        if not self._url.netloc:
            return accepted
        deadline = time.monotonic() + budget_seconds
        for row in rows:
            left = deadline - time.monotonic()
            attributes = {"type": row.name, "event": row.event_id}
            with span(f"publish {row.name}", "producer", row.traceparent, **attributes) as sending:
                is_accepted = left > 0 and self._try_to_post(row, left)
                sending.outcome = "accepted" if is_accepted else "left"
            if not is_accepted:
                break
            accepted.append(row.event_id)
        return accepted

    def publish_and_mark_sent(
        self,
        database: Database,
        rows: Sequence[OutboxRow],
        *,
        budget_seconds: float = BUDGET_SECONDS,
    ) -> int:
        """Publishes committed rows and marks those that the broker accepted; returns their number.

        Rows that are not accepted or not marked stay due, and the sweep publishes them again.
        """
        from shop.adapters import db
        from shop.messaging import outbox

        accepted = self.publish(rows, budget_seconds=budget_seconds)
        if accepted:
            failpoints.hit(Failpoint.PUBLISHED)
            try:
                database.run_now(outbox.mark_sent(accepted))
            except db.DatabaseError as error:
                log.write("not marked sent", error=type(error).__name__)
        return len(accepted)

    def _try_to_post(self, row: OutboxRow, timeout_seconds: float) -> bool:
        """False on any failure: the transaction is committed, so its response must not change."""
        try:
            return self._post(row, timeout_seconds)
        except Exception as error:
            log.bug(error, route=f"publish {row.name}")
            return False

    def _post(self, row: OutboxRow, timeout_seconds: float) -> bool:
        headers, body = envelope.to_binary(self._signed(row))
        if row.traceparent:
            headers["traceparent"] = row.traceparent
        for fresh in (False, True):
            connection = self._connection(timeout_seconds, fresh=fresh)
            try:
                connection.request("POST", self._url.path or "/", body, headers)
                response = connection.getresponse()
                response.read()
                return response.status in ACCEPTED
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if isinstance(error, TimeoutError):
                    return False
        return False

    def _signed(self, row: OutboxRow) -> CloudEvent:
        if self._signer is None:
            self._signer = signer_of(self._settings)
        event = class_of(row.name).from_data(json.loads(row.data))
        return self._signer.sign(
            envelope.wrap(
                event,
                id=str(row.event_id),
                source=row.source,
                time=_time_of(row),
                traceparent=row.traceparent or None,
            )
        )

    def _connection(self, timeout_seconds: float, *, fresh: bool) -> http.client.HTTPConnection:
        held: _ThreadConnection | None = getattr(self._threads, "held", None)
        if held is None or fresh:
            connection_class = (
                http.client.HTTPSConnection
                if self._url.scheme == "https"
                else http.client.HTTPConnection
            )
            held = _ThreadConnection(connection_class(self._url.hostname or "", self._url.port))
            self._threads.held = held
        connection = held.http_connection
        connection.timeout = timeout_seconds
        if connection.sock is not None:
            connection.sock.settimeout(timeout_seconds)
        return connection


def _time_of(row: OutboxRow) -> datetime:
    return row.created_at or utc_now()


def signer_of(settings: Settings) -> Signer:
    """The signer of this process's trust domain; EVENT_KEYS gives the id of its key."""
    from shop.adapters.signatures import Signer, key_id_of

    pem = settings.event_signing_key.reveal()
    return Signer(key_id_of(pem, settings.event_keys), pem)
