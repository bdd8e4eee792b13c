"""The messages that handlers receive and return, without Flask, WSGI or any driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from events.records import frozen

Body = TypeVar("Body")
Query = TypeVar("Query")


@frozen
class Caller:
    """The account, role and session of a verified access token or API key.

    ``scopes`` are those of an API key; an access token may be used for every route of its role.
    """

    user_id: int
    role: str
    session_id: UUID
    scopes: frozenset[str] | None = None


@frozen
class Request(Generic[Body, Query]):
    """An HTTP request that passed every policy; ``body`` and ``query`` are validated models.

    Both are None on a route that declares none.
    """

    method: str
    route: str
    path: Mapping[str, str]
    headers: Mapping[str, str]
    client: str
    now: datetime
    traceparent: str
    query: Query
    body: Body
    raw_body: bytes = b""
    caller: Caller | None = None
    idempotency_key: str | None = None

    @property
    def user_id(self) -> int:
        """The caller's account id; only for routes that require a token."""
        assert self.caller is not None, "this route requires no token"
        return self.caller.user_id


@frozen
class Response:
    """An HTTP response: ``body`` is a JSON-serialisable value, ready bytes, or None for no body.

    An iterator of bytes is sent while it runs, without a transaction of the request.  An error in
    it ends the connection, so that a client sees that the body is not whole.

    With ``wait_seconds`` the response is preliminary, and the caller asked to wait that long for a
    final one: the runtime calls the handler again, unless too many requests wait already.
    """

    status: int = 200
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    media_type: str = "application/json"
    wait_seconds: int = 0


@frozen
class Event:
    """A CloudEvent whose signature, source and time were verified."""

    id: str
    source: str
    type: str
    name: str
    subject: str
    data: Mapping[str, str | int]
    traceparent: str


@frozen(kw_only=True)
class DeadLetter:
    """An undeliverable event as the broker sent it on: attributes, failed consumer, error, bytes.

    ``destination``, ``error_code`` and ``error_data`` are Knative's ``knativeerrordest``,
    ``knativeerrorcode`` and ``knativeerrordata`` as sent (base64 of the first 1,024 bytes of the
    response), or another broker's equivalents.
    """

    event_id: str
    source: str
    type: str
    subject: str | None
    destination: str
    error_code: str | None
    error_data: str | None
    headers: Mapping[str, str]
    body: bytes


@frozen
class OutboxRow:
    """An event to publish; id and time of the CloudEvent are the row's."""

    event_id: UUID
    source: str
    name: str
    subject: str
    data: str
    traceparent: str
    created_at: datetime | None = None
