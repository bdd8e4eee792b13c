"""The adapter for our own payment provider, ``python -m tools.payment_simulator``."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR, socket
from typing import Any, cast
from urllib.parse import quote, urlsplit

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
from shop.adapters.payment_provider.response_fields import amount_in, currency_in, text_in
from shop.primitives.errors import Unavailable

ANSWER_BYTES_MAX = 1_048_576
PAGE_LIMIT_MAX = 500

_OUTCOMES = ("captured", "declined", "voided")
_REFUND_OUTCOMES = ("succeeded", "rejected")
_NO_SUCH_REFUND = "no such refund"


class SimulatorProvider:
    """Speaks the sandbox's JSON over HTTP: one connection per call, one deadline, no retries.

    Holds no state between calls, so threads may share it.
    """

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        timeout_seconds: float,
        traceparent: Callable[[], str] | None = None,
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
        self._timeout_seconds = timeout_seconds

    def create(self, call: ChargeCall) -> Intent:
        """Announce the charge; no money moves. Past ``charge_not_after`` nothing is sent."""
        with self._open() as line:
            return _create(line, call)

    def confirm(self, call: ChargeCall) -> Outcome:
        """Take the money of the created intent. Past ``charge_not_after`` nothing is sent."""
        with self._open() as line:
            return _confirm(line, call)

    def charge(self, call: ChargeCall) -> Outcome:
        """Create, then confirm, over one connection and within one timeout."""
        with self._open() as line:
            intent = _create(line, call)
            if intent.kind == "created":
                return _confirm(line, call)
        return Outcome(intent.kind, provider_ref=intent.provider_ref, reason=intent.reason)

    def cancel(self, call: ChargeCall) -> Outcome:
        """Void the charge or say what it had become; leaves a tombstone for an unseen key."""
        with self._open() as line:
            return _outcome(line.ask("POST", f"{_intent_path(call)}/cancel", {}), call)

    def find(self, call: ChargeCall) -> Outcome:
        """The sandbox's books on this key."""
        with self._open() as line:
            return _outcome(line.ask("GET", _intent_path(call)), call)

    def refund(self, call: RefundCall) -> RefundOutcome:
        """Give the amount back, at most once per key."""
        body = {
            "key": call.key,
            "charge_key": call.charge_key,
            "provider_ref": call.provider_ref or None,
            "amount_minor": call.amount_minor,
            "currency": call.currency,
        }
        with self._open() as line:
            return _refund_outcome(line.ask("POST", "/refunds", body), call)

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        """The sandbox's books on this refund."""
        with self._open() as line:
            answer = line.ask("GET", f"/refunds/{quote(call.key, safe='')}")
        if answer.status == 404 and answer.body.get("error") == _NO_SUCH_REFUND:
            return RefundOutcome("missing")
        return _refund_outcome(answer, call)

    def list_since(self, cursor: str, limit: int) -> ProviderTransactionPage:
        """Charges and refunds in commit order; raises Unavailable when they cannot be read."""
        bounded = max(1, min(limit, PAGE_LIMIT_MAX))
        with self._open() as line:
            answer = line.ask("GET", f"/charges?since={quote(cursor, safe='')}&limit={bounded}")
        return _page(answer)

    def _open(self) -> _Line:
        connection_class = HTTPSConnection if self._is_tls else HTTPConnection
        connection = connection_class(self._host, self._port, timeout=self._timeout_seconds)
        headers = {"Authorization": f"Bearer {self._api_key}", "Accept": "application/json"}
        traceparent = self._traceparent() if self._traceparent else ""
        if traceparent:
            headers["traceparent"] = traceparent
        return _Line(connection, self._base_path, headers, self._timeout_seconds)


class _Answer:
    """A status with the JSON object it carried; status 0 when nothing readable came back."""

    def __init__(self, status: int, body: dict[str, Any], reason: str | None = None) -> None:
        self.status = status
        self.body = body
        self.reason = reason


class _Line:
    """One connection with one deadline for everything that is asked over it."""

    def __init__(
        self,
        connection: HTTPConnection,
        base_path: str,
        headers: dict[str, str],
        timeout_seconds: float,
    ) -> None:
        self._connection = connection
        self._sock: socket | None = None
        self._base_path = base_path
        self._headers = headers
        # A socket's timeout counts from the last byte, so a peer that drips one byte at a time
        # would never run into it. The timer hangs up on the whole exchange.
        self._hang_up = threading.Timer(timeout_seconds, self._shut)
        self._hang_up.daemon = True
        self._deadline = time.monotonic() + timeout_seconds

    def __enter__(self) -> _Line:
        self._hang_up.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up.cancel()
        self._connection.close()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> _Answer:
        """One request and its answer; every failure of the transport is an answer too."""
        payload = None if body is None else json.dumps(body).encode()
        headers = dict(self._headers)
        if payload is not None:
            headers["Content-Type"] = "application/json"
        left = self._deadline - time.monotonic()
        if left <= 0:
            return _Answer(0, {}, "timeout")
        try:
            self._connect(left)
            self._connection.request(method, self._base_path + path, payload, headers)
            response = self._connection.getresponse()
            text = response.read(ANSWER_BYTES_MAX + 1)
        except (OSError, HTTPException) as error:
            is_late = time.monotonic() >= self._deadline or isinstance(error, TimeoutError)
            return _Answer(0, {}, "timeout" if is_late else type(error).__name__)
        if time.monotonic() >= self._deadline:
            # What the hang-up left of the answer may be half of it.
            return _Answer(0, {}, "timeout")
        if response.length and len(text) <= ANSWER_BYTES_MAX:
            return _Answer(0, {}, "cut answer")
        return _read_answer(response.status, text)

    def _connect(self, left: float) -> None:
        """Connect if the peer closed the last time; remember the socket for the hang-up.

        http.client forgets it as soon as an answer says that the connection will be closed.
        """
        if self._connection.sock is None:
            self._connection.timeout = left
            self._connection.connect()
        self._sock = self._connection.sock

    def _shut(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            sock.shutdown(SHUT_RDWR)
        except OSError:
            # Already gone, which is all that was wanted.
            return


def _read_answer(status: int, text: bytes) -> _Answer:
    if len(text) > ANSWER_BYTES_MAX:
        return _Answer(0, {}, "answer too long")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return _Answer(status if status >= 300 else 0, {}, f"HTTP {status} without JSON")
    if not isinstance(body, dict):
        return _Answer(0, {}, f"HTTP {status} without a JSON object")
    return _Answer(status, body)


def _create(line: _Line, call: ChargeCall) -> Intent:
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
    answer = line.ask("POST", "/intents", body)
    if answer.status == 200 and answer.body.get("status") == "created":
        reason = _difference(answer.body, call.key, call.amount_minor, call.currency)
        ref = text_in(answer.body.get("provider_ref"))
        return Intent("mismatch" if reason else "created", provider_ref=ref, reason=reason)
    outcome = _outcome(answer, call)
    return Intent(outcome.kind, provider_ref=outcome.provider_ref, reason=outcome.reason)


def _confirm(line: _Line, call: ChargeCall) -> Outcome:
    if _is_past(call.charge_not_after):
        return Outcome("unknown", reason="past charge_not_after")
    return _outcome(line.ask("POST", f"{_intent_path(call)}/confirm", {}), call)


def _outcome(answer: _Answer, call: ChargeCall) -> Outcome:
    kind = answer.body.get("status")
    if answer.status == 422:
        return Outcome("mismatch", reason="the key stands for another charge")
    if answer.status != 200 or kind not in _OUTCOMES:
        return Outcome("unknown", reason=_why_unknown(answer))
    amount_minor = amount_in(answer.body.get("amount_minor"))
    currency = currency_in(answer.body.get("currency"))
    provider_ref = text_in(answer.body.get("provider_ref"))
    difference = _difference(answer.body, call.key, call.amount_minor, call.currency)
    if kind == "voided" and answer.body.get("amount_minor") is None:
        # A tombstone for a key that was never seen has no amount; only its key can be compared.
        difference = None if answer.body.get("key") == call.key else "another key"
    elif difference is None and provider_ref is None:
        difference = "no provider_ref"
    if difference is not None:
        return Outcome("mismatch", amount_minor, currency, provider_ref, difference)
    reason = text_in(answer.body.get("reason"))
    return Outcome(cast(OutcomeKind, kind), amount_minor, currency, provider_ref, reason)


def _refund_outcome(answer: _Answer, call: RefundCall) -> RefundOutcome:
    kind = answer.body.get("status")
    if answer.status == 422:
        return RefundOutcome("mismatch", reason="the key stands for another refund")
    if answer.status != 200 or kind not in _REFUND_OUTCOMES:
        return RefundOutcome("unknown", reason=_why_unknown(answer))
    amount_minor = amount_in(answer.body.get("amount_minor"))
    currency = currency_in(answer.body.get("currency"))
    provider_ref = text_in(answer.body.get("provider_ref"))
    difference = _difference(answer.body, call.key, call.amount_minor, call.currency)
    if difference is None and answer.body.get("charge_key") != call.charge_key:
        difference = "another charge_key"
    if difference is not None:
        return RefundOutcome("mismatch", amount_minor, currency, provider_ref, difference)
    reason = text_in(answer.body.get("reason"))
    return RefundOutcome(cast(RefundKind, kind), amount_minor, currency, provider_ref, reason)


def _page(answer: _Answer) -> ProviderTransactionPage:
    entries, next_cursor = answer.body.get("entries"), answer.body.get("next_cursor")
    if answer.status != 200 or not isinstance(entries, list) or not isinstance(next_cursor, str):
        raise Unavailable(f"the payment provider's books: {_why_unknown(answer)}")
    has_more = answer.body.get("has_more") is True
    return ProviderTransactionPage(tuple(_entry(item) for item in entries), next_cursor, has_more)


def _entry(item: object) -> ProviderTransaction:
    if not isinstance(item, dict) or item.get("kind") not in ("charge", "refund"):
        raise Unavailable("the payment provider's books hold an entry that is none")
    key, charge_key = text_in(item.get("key")), text_in(item.get("charge_key"))
    amount_minor, currency = amount_in(item.get("amount_minor")), currency_in(item.get("currency"))
    provider_ref, at = text_in(item.get("provider_ref")), amount_in(item.get("at"))
    if not (key and charge_key and amount_minor and currency and provider_ref and at):
        raise Unavailable("the payment provider's books hold an unreadable entry")
    moment = datetime.fromtimestamp(at, UTC)
    return ProviderTransaction(
        item["kind"], key, charge_key, amount_minor, currency, provider_ref, moment
    )


def _difference(body: dict[str, Any], key: str, amount_minor: int, currency: str) -> str | None:
    """What in the answer is not what was asked for, or None."""
    if body.get("key") != key:
        return "another key"
    if amount_in(body.get("amount_minor")) != amount_minor:
        return "another amount"
    if currency_in(body.get("currency")) != currency:
        return "another currency"
    return None


def _why_unknown(answer: _Answer) -> str:
    if answer.reason is not None:
        return answer.reason
    if answer.status == 200:
        return f"status {text_in(answer.body.get('status')) or 'unreadable'}"
    return f"HTTP {answer.status}"


def _intent_path(call: ChargeCall) -> str:
    return f"/intents/{quote(call.key, safe='')}"


def _is_past(moment: datetime | None) -> bool:
    # The process's own clock may be wrong; the caller has compared with the database's just
    # before. This only stops a process that was frozen between that and here.
    return moment is not None and datetime.now(UTC) >= moment
