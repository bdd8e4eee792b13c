"""What handlers see: a request or an event coming in, a reply going out.

Handlers know neither Flask nor WSGI; two thin adapters in ``shop.runtime`` make these records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from events.records import frozen

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.runtime.config import Settings

OpenTransaction = Callable[[], AbstractContextManager["Transaction"]]


@frozen
class Caller:
    """Who sent this request, proven by an access token: account id, role and session."""

    user_id: int
    role: str
    session_id: UUID


@frozen
class Request:
    """An HTTP request after every policy has passed: body and query are validated models."""

    method: str
    route: str
    path: Mapping[str, str]
    headers: Mapping[str, str]
    settings: Settings
    client: str
    now: datetime
    traceparent: str
    query: Any = None
    body: Any = None
    raw_body: bytes = b""
    caller: Caller | None = None
    idempotency_key: str | None = None
    after_commit: list[Callable[[], None]] = field(default_factory=list)

    @property
    def user_id(self) -> int:
        """The signed-in caller's account id; only routes that demand a token may ask."""
        assert self.caller is not None, "a public route asked for its caller"
        return self.caller.user_id


@frozen
class Response:
    """An answer: ``body`` is a JSON-able object, ready bytes, or None for an empty answer."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"


@frozen
class Event:
    """A CloudEvent that was proven authentic (signature, source, time), or a clock tick."""

    id: str
    source: str
    type: str
    name: str
    subject: str
    data: Mapping[str, Any]
    traceparent: str


@frozen(kw_only=True)
class DeadLetter:
    """An event as the broker gave it up: its attributes, who did not take it, why, and its bytes.

    ``destination``, ``error_code`` and ``error_data`` are Knative's ``knativeerrordest``,
    ``knativeerrorcode`` and ``knativeerrordata`` as sent (base64 of the answer's first 1,024
    bytes), or what another broker has for them.
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
class TwoPhaseCall:
    """Prepare, execute, record: how a handler calls the outside world.

    ``prepare(tx, subject)`` commits the intent and returns the call to make, or None when the rows
    call for nothing.  ``execute(provider, call, open_transaction)`` runs outside any transaction
    and returns the outcome; it never raises for an unknown outcome.  ``record(tx, call, outcome)``
    applies it.  ``subject(event)`` is the id that ``prepare`` is asked about.
    """

    subject: Callable[[Event], UUID]
    prepare: Callable[[Transaction, UUID], Any]
    execute: Callable[[Any, Any, OpenTransaction], Any]
    record: Callable[[Transaction, Any, Any], None]
