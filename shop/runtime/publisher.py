"""Publishing after the commit: best effort, within 300 ms.  The outbox guarantees delivery."""

from __future__ import annotations

import http.client
import json
import threading
import time
import weakref
from collections.abc import Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from events import envelope
from events.vocabulary import class_of
from shop.primitives import failpoints
from shop.primitives.clock import utc_now
from shop.primitives.failpoints import Failpoint
from shop.runtime import log, trace
from shop.runtime.message_context import span

if TYPE_CHECKING:
    from shop.adapters.db import Database
    from shop.adapters.signatures import Signer
    from shop.primitives.messages import OutboxRow
    from shop.runtime.config import Settings

BUDGET_SECONDS = 0.3
ACCEPTED = range(200, 300)
# These statuses are about the event; others, such as 401 or 404, are about the broker or its URL.
REJECTED = (400, 413, 415, 422)


class Publication(NamedTuple):
    """What became of rows that were to be published; rows in no list stay due.

    The broker ``rejected`` some, which stay due too.  ``invalid`` rows can never be published by
    this version: no event of that type and data is known to it.
    """

    accepted: list[OutboxRow]
    rejected: list[OutboxRow]
    invalid: list[OutboxRow]


class _Attempt(Enum):
    ACCEPTED = auto()
    REJECTED = auto()
    INVALID = auto()
    UNAVAILABLE = auto()


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
    ) -> Publication:
        """Posts rows until the broker does not respond in time; never raises.

        A row that is invalid or that the broker rejects does not stop the rows after it.
        """
        result = Publication([], [], [])
        if not self._url.netloc:
            return result
        deadline = time.monotonic() + budget_seconds
        for row in rows:
            left = deadline - time.monotonic()
            attributes = {"type": row.name, "event": row.event_id}
            with span(f"publish {row.name}", "producer", row.traceparent, **attributes) as sending:
                attempt = self._try_to_post(row, left) if left > 0 else _Attempt.UNAVAILABLE
                sending.outcome = (
                    "left" if attempt is _Attempt.UNAVAILABLE else attempt.name.lower()
                )
            if attempt is _Attempt.UNAVAILABLE:
                break
            _list_of(result, attempt).append(row)
        return result

    def publish_and_mark_sent(
        self,
        database: Database,
        rows: Sequence[OutboxRow],
        *,
        budget_seconds: float = BUDGET_SECONDS,
    ) -> Publication:
        """Publishes committed rows and marks those that the broker accepted.

        Rows that are not accepted or not marked stay due, and the sweep publishes them again.
        """
        from shop.adapters import db
        from shop.messaging import outbox

        result = self.publish(rows, budget_seconds=budget_seconds)
        if result.accepted:
            failpoints.hit(Failpoint.PUBLISHED)
            try:
                database.run_now(outbox.mark_sent([row.event_id for row in result.accepted]))
            except db.DatabaseError as error:
                log.write("not marked sent", error=type(error).__name__)
        return result

    def _try_to_post(self, row: OutboxRow, timeout_seconds: float) -> _Attempt:
        """Never raises: the transaction is committed, so its response must not change."""
        try:
            signer = self._ready_signer()
            authorization = self._authorization()
        except Exception as error:  # a fault of the settings, not of this row
            log.bug(error, route=f"publish {row.name}")
            return _Attempt.UNAVAILABLE
        try:
            headers, body = _message(row, signer)
        except Exception as error:
            log.bug(error, route=f"publish {row.name}")
            return _Attempt.INVALID
        try:
            return self._post(headers | authorization, body, timeout_seconds)
        except Exception as error:
            log.bug(error, route=f"publish {row.name}")
            return _Attempt.UNAVAILABLE

    def _post(self, headers: dict[str, str], body: bytes, timeout_seconds: float) -> _Attempt:
        for fresh in (False, True):
            connection = self._connection(timeout_seconds, fresh=fresh)
            try:
                connection.request("POST", self._url.path or "/", body, headers)
                response = connection.getresponse()
                response.read()
                return _attempt_of(response.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if isinstance(error, TimeoutError):
                    break
        return _Attempt.UNAVAILABLE

    def _ready_signer(self) -> Signer:
        if self._signer is None:
            self._signer = signer_of(self._settings)
        return self._signer

    def _authorization(self) -> dict[str, str]:
        """The header with the token of BROKER_TOKEN_PATH, as it is in the file now."""
        path = self._settings.broker_token_path
        if not path:
            return {}
        with open(path, encoding="ascii") as file:
            tokens = file.read().split()
        if len(tokens) != 1:
            raise ValueError("the file of BROKER_TOKEN_PATH does not have exactly one token")
        return {"Authorization": f"Bearer {tokens[0]}"}

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


def _list_of(publication: Publication, attempt: _Attempt) -> list[OutboxRow]:
    if attempt is _Attempt.ACCEPTED:
        return publication.accepted
    return publication.rejected if attempt is _Attempt.REJECTED else publication.invalid


def _attempt_of(status: int) -> _Attempt:
    if status in ACCEPTED:
        return _Attempt.ACCEPTED
    return _Attempt.REJECTED if status in REJECTED else _Attempt.UNAVAILABLE


def _message(row: OutboxRow, signer: Signer) -> tuple[dict[str, str], bytes]:
    """The signed event as headers and body; raises for a row that is not a valid event."""
    # a header that is not valid would be an error of the connection
    traceparent = row.traceparent if trace.id_of(row.traceparent) else None
    event = class_of(row.name).from_data(json.loads(row.data))
    cloud_event = envelope.wrap(
        event,
        id=str(row.event_id),
        source=row.source,
        time=row.created_at or utc_now(),
        traceparent=traceparent,
    )
    headers, body = envelope.to_binary(signer.sign(cloud_event))
    return headers | ({"traceparent": traceparent} if traceparent else {}), body


def signer_of(settings: Settings) -> Signer:
    """The signer of this process's trust domain; EVENT_KEYS gives the id of its key."""
    from shop.adapters.signatures import Signer, key_id_of

    pem = settings.event_signing_key.reveal()
    return Signer(key_id_of(pem, settings.event_keys), pem)
