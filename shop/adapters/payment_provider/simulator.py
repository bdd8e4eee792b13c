"""The adapter for the payment simulator, ``python -m tools.payment_simulator``."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR, socket
from typing import cast
from urllib.parse import quote, urlsplit

from shop.adapters.connection_attempts import ConnectionAttempts
from shop.adapters.payment_provider.protocol import (
    ChargeCall,
    Intent,
    Outcome,
    OutcomeKind,
    ProviderTransaction,
    ProviderTransactionPage,
    RefundCall,
    RefundKind,
    RefundOutcome,
)
from shop.adapters.payment_provider.response_fields import (
    amount_in,
    currency_in,
    name_of_invalid,
    object_in,
    text_in,
)
from shop.adapters.payment_provider.simulator_objects import read_transaction
from shop.primitives.errors import Unavailable

RESPONSE_BYTES_MAX = 1_048_576
PAGE_LIMIT_MAX = 500

_OUTCOMES = ("captured", "declined", "voided")
_REFUND_OUTCOMES = ("succeeded", "rejected")
_NO_SUCH_REFUND = "no such refund"


class SimulatorProvider:
    """Sends JSON over HTTP: one connection and one deadline per call, no request twice.

    Has no state between calls, so threads may share it.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        timeout_seconds: float,
        traceparent: Callable[[], str] | None = None,
        attempts: ConnectionAttempts | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("PAYMENT_PROVIDER_URL must be an http or https address")
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._base_path = parts.path.rstrip("/")
        self._api_key = api_key
        self._traceparent = traceparent
        self._attempts = attempts or ConnectionAttempts()
        self._timeout_seconds = timeout_seconds

    def create(self, call: ChargeCall) -> Intent:
        """Creates the intent; no money moves. After ``charge_not_after`` nothing is sent."""
        with self._open() as exchange:
            return _create(exchange, call)

    def confirm(self, call: ChargeCall) -> Outcome:
        """Captures the created intent. After ``charge_not_after`` nothing is sent."""
        with self._open() as exchange:
            return _confirm(exchange, call)

    def charge(self, call: ChargeCall) -> Outcome:
        """Creates, then confirms, over one connection and within one timeout."""
        with self._open() as exchange:
            intent = _create(exchange, call)
            if intent.kind == "created":
                return _confirm(exchange, call)
        return Outcome(intent.kind, provider_ref=intent.provider_ref, reason=intent.reason)

    def cancel(self, call: ChargeCall) -> Outcome:
        """Voids the charge or returns its final outcome; leaves a tombstone for an unknown key."""
        with self._open() as exchange:
            return _outcome(exchange.send("POST", f"{_intent_path(call)}/cancel", {}), call)

    def find(self, call: ChargeCall) -> Outcome:
        """The charge in the simulator's records."""
        with self._open() as exchange:
            return _outcome(exchange.send("GET", _intent_path(call)), call)

    def refund(self, call: RefundCall) -> RefundOutcome:
        """Refunds the amount, at most once per key."""
        body = {
            "key": call.key,
            "charge_key": call.charge_key,
            "provider_ref": call.provider_ref or None,
            "amount_minor": call.amount_minor,
            "currency": call.currency,
        }
        with self._open() as exchange:
            return _refund_outcome(exchange.send("POST", "/refunds", body), call)

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        """The refund in the simulator's records."""
        with self._open() as exchange:
            response = exchange.send("GET", f"/refunds/{quote(call.key, safe='')}")
        if response.status == 404 and response.body.get("error") == _NO_SUCH_REFUND:
            return RefundOutcome("missing")
        return _refund_outcome(response, call)

    def list_since(self, cursor: str, limit: int) -> ProviderTransactionPage:
        """Entries in commit order; raises Unavailable when they cannot be read."""
        bounded = max(1, min(limit, PAGE_LIMIT_MAX))
        with self._open() as exchange:
            response = exchange.send(
                "GET", f"/charges?since={quote(cursor, safe='')}&limit={bounded}"
            )
        return _page(response)

    def _open(self) -> _Exchange:
        connection_class = HTTPSConnection if self._is_tls else HTTPConnection
        connection = connection_class(self._host, self._port, timeout=self._timeout_seconds)
        headers = {"Authorization": f"Bearer {self._api_key}", "Accept": "application/json"}
        traceparent = self._traceparent() if self._traceparent else ""
        if traceparent:
            headers["traceparent"] = traceparent
        return _Exchange(
            connection, self._base_path, headers, self._timeout_seconds, self._attempts
        )


class _Response:
    """A status with its JSON object; status 0 if there was no valid response."""

    def __init__(self, status: int, body: dict[str, object], reason: str | None = None) -> None:
        self.status = status
        self.body = body
        self.reason = reason


class _Exchange:
    """One connection, with one deadline for all of its requests."""

    def __init__(
        self,
        connection: HTTPConnection,
        base_path: str,
        headers: dict[str, str],
        timeout_seconds: float,
        attempts: ConnectionAttempts,
    ) -> None:
        self._connection = connection
        self._attempts = attempts
        self._sock: socket | None = None
        self._base_path = base_path
        self._headers = headers
        # A socket's timeout counts from the last byte received, so a peer that sends one byte at a
        # time never exceeds it. The timer closes the connection at the deadline.
        self._timer = threading.Timer(timeout_seconds, self._shut)
        self._timer.daemon = True
        self._deadline = time.monotonic() + timeout_seconds

    def __enter__(self) -> _Exchange:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._connection.close()

    def send(self, method: str, path: str, body: Mapping[str, object] | None = None) -> _Response:
        """Sends one request; a failure of the transport is a response with status 0."""
        payload = None if body is None else json.dumps(body).encode()
        headers = dict(self._headers)
        if payload is not None:
            headers["Content-Type"] = "application/json"
        left = self._deadline - time.monotonic()
        if left <= 0:
            return _Response(0, {}, "timeout")
        try:
            self._connect(left)
            self._connection.request(method, self._base_path + path, payload, headers)
            response = self._connection.getresponse()
            text = response.read(RESPONSE_BYTES_MAX + 1)
        except (OSError, HTTPException) as error:
            is_late = time.monotonic() >= self._deadline or isinstance(error, TimeoutError)
            return _Response(0, {}, "timeout" if is_late else type(error).__name__)
        if time.monotonic() >= self._deadline:
            # The timer may have cut the response.
            return _Response(0, {}, "timeout")
        if response.length and len(text) <= RESPONSE_BYTES_MAX:
            return _Response(0, {}, "cut answer")
        return _read_response(response.status, text)

    def _connect(self, left: float) -> None:
        """Connects if the peer has closed; keeps the socket for the timer.

        http.client drops it when a response announces that the connection will be closed.
        """
        if self._connection.sock is None:
            self._connection.timeout = left
            self._attempts.open(self._connection.connect, until=self._deadline)
        self._sock = self._connection.sock

    def _shut(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            sock.shutdown(SHUT_RDWR)
        except OSError:
            return  # already closed


def _read_response(status: int, text: bytes) -> _Response:
    if len(text) > RESPONSE_BYTES_MAX:
        return _Response(0, {}, "response too long")
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return _Response(status if status >= 300 else 0, {}, f"HTTP {status} without JSON")
    body = object_in(value)
    if body is None:
        return _Response(0, {}, f"HTTP {status} without a JSON object")
    return _Response(status, body)


def _create(exchange: _Exchange, call: ChargeCall) -> Intent:
    if _is_past(call.charge_not_after):
        return Intent("unknown", reason="past charge_not_after")
    body = {
        "key": call.key,
        "amount_minor": call.amount_minor,
        "currency": call.currency,
        "payment_method": call.payment_method,
        "order_id": call.order_id,
        "payment_id": call.payment_id,
    }
    response = exchange.send("POST", "/intents", body)
    if response.status == 200 and response.body.get("status") == "created":
        reason = _difference(response.body, call.key, call.amount_minor, call.currency)
        ref = text_in(response.body.get("provider_ref"))
        return Intent("mismatch" if reason else "created", provider_ref=ref, reason=reason)
    outcome = _outcome(response, call)
    return Intent(outcome.kind, provider_ref=outcome.provider_ref, reason=outcome.reason)


def _confirm(exchange: _Exchange, call: ChargeCall) -> Outcome:
    if _is_past(call.charge_not_after):
        return Outcome("unknown", reason="past charge_not_after")
    return _outcome(exchange.send("POST", f"{_intent_path(call)}/confirm", {}), call)


def _outcome(response: _Response, call: ChargeCall) -> Outcome:
    kind = response.body.get("status")
    if response.status == 422:
        return Outcome("mismatch", reason="the key was used for another charge")
    if response.status != 200 or kind not in _OUTCOMES:
        return Outcome("unknown", reason=_why_unknown(response))
    amount_minor = amount_in(response.body.get("amount_minor"))
    currency = currency_in(response.body.get("currency"))
    provider_ref = text_in(response.body.get("provider_ref"))
    difference = _difference(response.body, call.key, call.amount_minor, call.currency)
    if kind == "voided" and response.body.get("amount_minor") is None:
        # The tombstone of an unknown key has no amount; only its key can be compared.
        difference = None if response.body.get("key") == call.key else "another key"
    elif difference is None and provider_ref is None:
        difference = "no provider_ref"
    if difference is not None:
        return Outcome("mismatch", amount_minor, currency, provider_ref, difference)
    reason = text_in(response.body.get("reason"))
    return Outcome(cast(OutcomeKind, kind), amount_minor, currency, provider_ref, reason)


def _refund_outcome(response: _Response, call: RefundCall) -> RefundOutcome:
    kind = response.body.get("status")
    if response.status == 422:
        return RefundOutcome("mismatch", reason="the key was used for another refund")
    if response.status != 200 or kind not in _REFUND_OUTCOMES:
        return RefundOutcome("unknown", reason=_why_unknown(response))
    amount_minor = amount_in(response.body.get("amount_minor"))
    currency = currency_in(response.body.get("currency"))
    provider_ref = text_in(response.body.get("provider_ref"))
    difference = _difference(response.body, call.key, call.amount_minor, call.currency)
    if difference is None and response.body.get("charge_key") != call.charge_key:
        difference = "another charge_key"
    if difference is not None:
        return RefundOutcome("mismatch", amount_minor, currency, provider_ref, difference)
    reason = text_in(response.body.get("reason"))
    return RefundOutcome(cast(RefundKind, kind), amount_minor, currency, provider_ref, reason)


def _page(response: _Response) -> ProviderTransactionPage:
    entries, next_cursor = response.body.get("entries"), response.body.get("next_cursor")
    if response.status != 200 or not isinstance(entries, list) or not isinstance(next_cursor, str):
        raise Unavailable(f"the payment provider's list is unavailable: {_why_unknown(response)}")
    has_more = response.body.get("has_more") is True
    items = [object_in(value) or {} for value in cast("list[object]", entries)]
    listed = [(item, _entry(item)) for item in items]
    return ProviderTransactionPage(
        tuple(entry for _, entry in listed if entry is not None),
        next_cursor,
        has_more,
        tuple(name_of_invalid(item) for item, entry in listed if entry is None),
    )


def _entry(item: dict[str, object]) -> ProviderTransaction | None:
    """The entry, or None if it is invalid."""
    kind = item.get("kind")
    if kind == "refund" and item.get("status") == "rejected":
        kind = "failed_refund"
    is_known = kind in ("charge", "refund", "failed_refund", "dispute")
    return read_transaction(kind, item) if is_known else None


def _difference(body: dict[str, object], key: str, amount_minor: int, currency: str) -> str | None:
    """The first field that differs from the call, or None."""
    if body.get("key") != key:
        return "another key"
    if amount_in(body.get("amount_minor")) != amount_minor:
        return "another amount"
    if currency_in(body.get("currency")) != currency:
        return "another currency"
    return None


def _why_unknown(response: _Response) -> str:
    if response.reason is not None:
        return response.reason
    if response.status == 200:
        return f"status {text_in(response.body.get('status')) or 'unreadable'}"
    return f"HTTP {response.status}"


def _intent_path(call: ChargeCall) -> str:
    return f"/intents/{quote(call.key, safe='')}"


def _is_past(moment: datetime | None) -> bool:
    # The caller has compared with the database's clock just before; this stops a process that was
    # suspended in between. The process's own clock may be wrong.
    return moment is not None and datetime.now(UTC) >= moment
