"""Publishing after the commit: best effort.  The outbox guarantees delivery.

A broker that stores an event before it responds is given 300 ms.  Knative's in-memory broker
(``BROKER_CLASS`` imc) responds when every subscriber has handled the event, so the caller does not
wait for its response (docs/adr/0033).
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from events import envelope
from events.vocabulary import class_of
from shop.primitives import failpoints
from shop.primitives.clock import utc_now
from shop.primitives.failpoints import Failpoint
from shop.runtime import log, message_context, trace
from shop.runtime.message_context import Span, background_span, span

if TYPE_CHECKING:
    from shop.adapters.connection_attempts import ConnectionAttempts
    from shop.adapters.db import Database
    from shop.adapters.signatures import Signer
    from shop.primitives.messages import OutboxRow
    from shop.runtime.config import Settings
    from shop.runtime.message_context import ExportSpans
    from shop.runtime.open_deliveries import Delivery, OpenDeliveries

BUDGET_SECONDS = 0.3
# shorter than the lease of the rows
RELAY_SECONDS = 5.0
# The in-memory channel gives up its own request after 15 minutes (fanout handler of Eventing).
DELIVERY_SECONDS_MAX = 900.0
IDLE_MAX = 8
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


class _Attempt(StrEnum):
    """The outcome of one request, as in the metric of publications."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    INVALID = "invalid"
    UNAVAILABLE = "left"


class _Posting:
    """The request for one row, and its outcome so far; without headers it cannot be sent."""

    def __init__(
        self,
        row: OutboxRow,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        attempt: _Attempt = _Attempt.UNAVAILABLE,
    ) -> None:
        self.row, self.headers, self.body = row, headers or {}, body
        self.attempt = attempt


class _Relay:
    """Rows that are published concurrently, and what has become of them."""

    def __init__(self, postings: Iterator[_Posting], export_spans: ExportSpans | None) -> None:
        self.result = Publication([], [], [])
        self._postings = postings
        self._export_spans = export_spans
        self._open: dict[_Posting, Span] = {}
        self._ended: list[Span] = []

    def postings(self) -> Iterator[_Posting]:
        """What to send, made when it is sent."""
        for posting in self._postings:
            row = posting.row
            if posting.headers:
                attributes: dict[str, object] = {"type": row.name, "event": row.event_id}
                name = f"publish {row.name}"
                self._open[posting] = Span(name, "producer", row.traceparent, attributes)
                yield posting
            elif posting.attempt is _Attempt.INVALID:
                self.result.invalid.append(row)
            else:
                return

    def record(self, posting: _Posting, status: int) -> bool:
        """Records a response; False when the broker is unavailable."""
        posting.attempt = _attempt_of(status)
        self._end(posting)
        if posting.attempt is _Attempt.UNAVAILABLE:
            return False
        _list_of(self.result, posting.attempt).append(posting.row)
        return True

    def end(self) -> None:
        """Records that the other requests got no response, and exports the spans."""
        for posting in list(self._open):
            self._end(posting)
        if self._export_spans is not None:
            self._export_spans(self._ended)

    def _end(self, posting: _Posting) -> None:
        ended = self._open.pop(posting)
        ended.outcome = posting.attempt.value
        ended.ended_ns = time.time_ns()
        self._ended.append(ended)


class Publisher:
    """Signs outbox rows as CloudEvents and posts them to the broker's ingress in binary mode."""

    def __init__(self, settings: Settings, attempts: ConnectionAttempts) -> None:
        self._settings = settings
        self._attempts = attempts
        self._url = urlsplit(settings.broker_url)
        self._signer: Signer | None = None
        self._idle: list[http.client.HTTPConnection] = []
        self._deliveries: OpenDeliveries | None = None
        if settings.broker_class == "imc":
            # imported here: other brokers need no threads
            from shop.runtime.open_deliveries import OpenDeliveries

            self._deliveries = OpenDeliveries()

    @property
    def open_deliveries(self) -> int:
        """How many requests go on that nothing waits for."""
        return len(self._deliveries) if self._deliveries is not None else 0

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
                sending.outcome = attempt.value
            if attempt is _Attempt.UNAVAILABLE:
                break
            _list_of(result, attempt).append(row)
        return result

    def publish_and_mark_sent(self, database: Database, rows: Sequence[OutboxRow]) -> None:
        """Publishes committed rows and marks those that the broker accepted.

        Rows that are not accepted or not marked stay due, and the sweep publishes them again.
        With a broker that delivers while a request is open, this returns at once.
        """
        if self._deliveries is not None:
            ends_by = time.monotonic() + BUDGET_SECONDS
            self._deliver(self._deliveries, database, rows, ends_by)
        else:
            self._mark_sent(database, self.publish(rows))

    def relay(self, database: Database, rows: Sequence[OutboxRow]) -> Publication:
        """Publishes rows of earlier transactions, several at once, and marks those accepted.

        Rows of requests that are open when the time is over are in no list.
        """
        if self._deliveries is not None:
            ends_by = time.monotonic() + RELAY_SECONDS
            result, started = self._deliver(self._deliveries, database, rows, ends_by)
            return _add_ended(result, started, ends_by)
        result = self._publish_concurrently(rows)
        self._mark_sent(database, result)
        return result

    def _mark_sent(self, database: Database, result: Publication) -> None:
        from shop.adapters import db
        from shop.messaging import outbox

        if result.accepted:
            failpoints.hit(Failpoint.PUBLISHED)
            try:
                database.run_now(outbox.mark_sent([row.event_id for row in result.accepted]))
            except db.DatabaseError as error:
                log.write("not marked sent", error=type(error).__name__)

    def _publish_concurrently(self, rows: Sequence[OutboxRow]) -> Publication:
        """Like ``publish``, over several connections and in no certain order; never raises."""
        # imported here: only the sweep publishes many rows
        from shop.runtime.concurrent_posts import post_all

        message = message_context.current()
        relay = _Relay(map(self._posting_of, rows), message and message.export_spans)
        if self._url.netloc:
            try:
                post_all(
                    self._url,
                    relay.postings(),
                    relay.record,
                    seconds=RELAY_SECONDS,
                    attempts=self._attempts,
                )
            except Exception as error:
                log.unexpected(error, route="publish")
            relay.end()
        return relay.result

    def _deliver(
        self,
        deliveries: OpenDeliveries,
        database: Database,
        rows: Sequence[OutboxRow],
        ends_by: float,
    ) -> tuple[Publication, list[tuple[_Posting, Delivery]]]:
        """Starts a request for each row, as long as a thread is free by the given time."""
        result = Publication([], [], [])
        started: list[tuple[_Posting, Delivery]] = []
        message = message_context.current()
        for row in rows if self._url.netloc else ():
            posting = self._posting_of(row)
            post = partial(self._post_in_thread, posting, message and message.export_spans)
            delivery = None
            if posting.headers:
                left = ends_by - time.monotonic()
                delivery = deliveries.start(database, row.event_id, post, wait_seconds=left)
            if delivery is not None:
                started.append((posting, delivery))
            elif posting.attempt is _Attempt.INVALID:
                result.invalid.append(row)
            else:
                break
        return result, started

    def _post_in_thread(self, posting: _Posting, export_spans: ExportSpans | None) -> bool:
        row = posting.row
        attributes = {"type": row.name, "event": row.event_id}
        with background_span(
            export_spans, f"publish {row.name}", "producer", row.traceparent, **attributes
        ) as sending:
            posting.attempt = self._post(posting, DELIVERY_SECONDS_MAX)
            sending.outcome = posting.attempt.value
        return posting.attempt is _Attempt.ACCEPTED

    def _try_to_post(self, row: OutboxRow, timeout_seconds: float) -> _Attempt:
        """Never raises: the transaction is committed, so its response must not change."""
        posting = self._posting_of(row)
        if not posting.headers:
            return posting.attempt
        try:
            return self._post(posting, timeout_seconds)
        except Exception as error:
            log.unexpected(error, route=f"publish {row.name}")
            return _Attempt.UNAVAILABLE

    def _posting_of(self, row: OutboxRow) -> _Posting:
        """The request for a row; without headers when it cannot be made.  Never raises."""
        try:
            signer = self._ready_signer()
            authorization = authorization_of(self._settings.broker_token_path)
        except Exception as error:  # a fault of the settings, not of this row
            log.unexpected(error, route=f"publish {row.name}")
            return _Posting(row)
        try:
            headers, body = _message(row, signer)
        except Exception as error:
            log.unexpected(error, route=f"publish {row.name}")
            return _Posting(row, attempt=_Attempt.INVALID)
        return _Posting(row, headers | authorization, body)

    def _post(self, posting: _Posting, timeout_seconds: float) -> _Attempt:
        """Sends the request, again only on the failure of a connection that was kept from before.

        Such a connection may have been closed before the request reached the broker.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            connection, is_kept = self._connection(deadline - time.monotonic())
            try:
                if not is_kept:
                    self._attempts.open(connection.connect, until=deadline)
                connection.request("POST", self._url.path or "/", posting.body, posting.headers)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if is_kept and not isinstance(error, TimeoutError):
                    continue
                return _Attempt.UNAVAILABLE
            if len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
            else:
                connection.close()
            return _attempt_of(response.status)

    def _ready_signer(self) -> Signer:
        if self._signer is None:
            self._signer = signer_of(self._settings)
        return self._signer

    def _connection(self, timeout_seconds: float) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was kept from an earlier request."""
        timeout_seconds = max(timeout_seconds, 0.001)  # 0 would make the socket non-blocking
        try:
            connection = self._idle.pop()
        except IndexError:
            connection_class = (
                http.client.HTTPSConnection
                if self._url.scheme == "https"
                else http.client.HTTPConnection
            )
            connection = connection_class(self._url.hostname or "", self._url.port)
        connection.timeout = timeout_seconds
        if connection.sock is None:
            return connection, False
        connection.sock.settimeout(timeout_seconds)
        return connection, True


def _list_of(publication: Publication, attempt: _Attempt) -> list[OutboxRow]:
    if attempt is _Attempt.ACCEPTED:
        return publication.accepted
    return publication.rejected if attempt is _Attempt.REJECTED else publication.invalid


def _add_ended(
    result: Publication, started: list[tuple[_Posting, Delivery]], ends_by: float
) -> Publication:
    """Waits for requests until the given time and adds the rows of those that have ended."""
    for posting, delivery in started:
        has_ended = delivery.ended.wait(max(0.0, ends_by - time.monotonic()))
        if has_ended and posting.attempt is not _Attempt.UNAVAILABLE:
            _list_of(result, posting.attempt).append(posting.row)
    return result


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


def authorization_of(token_path: str) -> dict[str, str]:
    """The header with the token of BROKER_TOKEN_PATH, as it is in the file now; none without one.

    Raises OSError or ValueError for a file without exactly one token.
    """
    if not token_path:
        return {}
    with open(token_path, encoding="ascii") as file:
        tokens = file.read().split()
    if len(tokens) != 1:
        raise ValueError("the file of BROKER_TOKEN_PATH does not have exactly one token")
    return {"Authorization": f"Bearer {tokens[0]}"}


def signer_of(settings: Settings) -> Signer:
    """The signer of this process's trust domain; EVENT_KEYS gives the id of its key."""
    from shop.adapters.signatures import Signer, key_id_of

    pem = settings.event_signing_key.reveal()
    return Signer(key_id_of(pem, settings.event_keys), pem)
