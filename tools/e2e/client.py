"""An HTTP client that retries safely.

As ``draft-ietf-httpapi-idempotency-key-header`` requires of clients, every unsafe call has an
idempotency key, so that it can be repeated when the response is lost.  A call without a key
(rotating a refresh token) is never repeated: it raises NoResponse, and the scenario restarts.
"""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from tools import http_retries

TRIES_MAX = 6
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 5.0
RETRY_AFTER_SECONDS_MAX = 30.0
RATE_LIMIT_WAIT_SECONDS_MAX = 180.0
# Rejected calls count too: threads that retry at the same moment exceed the limit again.
RATE_LIMIT_SPREAD_SECONDS = 2.0
# Longer than the slowest regular response: Prefer: wait=20 after a cold start.
TIMEOUT = httpx.Timeout(40.0, connect=5.0)
CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=32)
# Any: the scenarios read JSON bodies by the contract; another structure fails the scenario.
JsonObject = dict[str, Any]
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class NoResponse(RuntimeError):
    """The call may or may not have been executed and must not be repeated unchanged.

    ``retry_after_seconds`` is what the response asked for, 0 without one.
    """

    def __init__(self, message: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class RetriesExhausted(RuntimeError):
    """There was no definitive response within the client's attempts or waiting time."""


@dataclass(frozen=True)
class Call:
    """One HTTP call.  ``key`` makes an unsafe call repeatable; ``content`` is sent as it is.

    ``repeats`` overrides that: True when executing the call twice is harmless (a login leaves an
    unused session), False when the caller needs the very first response.
    """

    method: str
    path: str
    json: object = None
    content: bytes | None = None
    token: str | None = None
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    repeats: bool | None = None

    @property
    def is_repeatable(self) -> bool:
        """True when sending the call twice has the same effect as sending it once."""
        if self.repeats is not None:
            return self.repeats
        return self.method in SAFE or self.key is not None

    def all_headers(self) -> dict[str, str]:
        """The headers as sent; ``headers`` has precedence."""
        headers = {"Accept": "application/json, application/problem+json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.key is not None:
            headers["Idempotency-Key"] = self.key
        return {**headers, **self.headers}


def new_key() -> str:
    """A unique idempotency key: 36 characters of ``[a-z0-9-]``."""
    return f"e2e-{uuid.uuid4().hex}"


class Client:
    """Sends calls to one shop; thread-safe.

    ``on_wait(seconds, reason)`` is called before every wait for a rate limit.
    """

    def __init__(self, url: str, on_wait: Callable[[float, str], None]) -> None:
        self._http = httpx.Client(
            base_url=url, timeout=TIMEOUT, limits=CONNECTIONS, follow_redirects=False
        )
        self._on_wait = on_wait
        self._random = random.SystemRandom()
        self._lock = threading.Lock()
        self._blocked_until: dict[str | None, float] = {}
        self.sent = 0
        self.repeated = 0

    def close(self) -> None:
        """Closes every connection."""
        self._http.close()

    def once(self, call: Call) -> httpx.Response:
        """Sends a call once.  Raises NoResponse for a transport error and for 502, 503 and 504."""
        with self._lock:
            self.sent += 1
        try:
            response = self._http.request(
                call.method,
                call.path,
                json=call.json,
                content=call.content,
                headers=call.all_headers(),
            )
        except httpx.TransportError as error:
            raise NoResponse(
                f"{call.method} {call.path}: {type(error).__name__} {error}"
            ) from error
        if response.status_code in http_retries.UNAVAILABLE:
            raise NoResponse(
                f"{call.method} {call.path}: {response.status_code} {response.text[:200]}",
                http_retries.retry_after_seconds(response.headers.get("Retry-After")),
            )
        return response

    def send(self, call: Call) -> httpx.Response:
        """The definitive response: at most six attempts with full jitter, waiting after 429.

        Raises NoResponse when a call that may not be repeated got no response, RetriesExhausted
        after the last attempt.
        """
        sent, tries, waited, last = 0, 0, 0.0, "never sent"
        while tries < TRIES_MAX:
            waited += self._wait_while_rate_limited(call)
            self.repeated += sent > 0
            sent += 1
            try:
                response = self.once(call)
            except NoResponse as error:
                if not call.is_repeatable:
                    raise
                tries, last = tries + 1, str(error)
                self.back_off(tries, error.retry_after_seconds)
                continue
            if response.status_code == 429:
                self._note_rate_limit(call, response, waited)
            elif not http_retries.is_definite(response.status_code, response.content):
                tries, last = tries + 1, f"{call.method} {call.path}: still in progress"
                self.back_off(tries, retry_after_seconds(response))
            else:
                return response
        raise RetriesExhausted(f"no definitive response in {TRIES_MAX} attempts; the last: {last}")

    def back_off(self, tries: int, retry_after_seconds: float) -> None:
        """Waits after an attempt: as long as the shop asks, within a limit, and with jitter."""
        with self._lock:
            seconds = http_retries.backoff_seconds(
                tries,
                first_seconds=BACKOFF_FIRST_SECONDS,
                max_seconds=BACKOFF_MAX_SECONDS,
                random=self._random,
            )
        time.sleep(seconds + min(retry_after_seconds, RETRY_AFTER_SECONDS_MAX))

    def _note_rate_limit(self, call: Call, response: httpx.Response, waited: float) -> None:
        """Delays all calls of this account until ``Retry-After``: they share its limit."""
        seconds = retry_after_seconds(response)
        where = f"{call.method} {call.path}"
        if waited + seconds > RATE_LIMIT_WAIT_SECONDS_MAX:
            raise RetriesExhausted(
                f"{where}: 429 with Retry-After {seconds:.0f} s: {response.text[:200]}"
            )
        self._on_wait(seconds, f"{where}: 429 {response.text[:120]}")
        allowed_at = time.monotonic() + seconds
        with self._lock:
            self._blocked_until[call.token] = max(
                allowed_at, self._blocked_until.get(call.token, 0.0)
            )

    def _wait_while_rate_limited(self, call: Call) -> float:
        """Waits until the account's limit allows a call, with jitter; the seconds waited."""
        with self._lock:
            seconds = self._blocked_until.get(call.token, 0.0) - time.monotonic()
            if seconds <= 0.0:
                return 0.0
            seconds += self._random.uniform(0.0, RATE_LIMIT_SPREAD_SECONDS)
        time.sleep(seconds)
        return seconds


def retry_after_seconds(response: httpx.Response) -> float:
    """``Retry-After`` in seconds, at least a tenth; 1 when it is missing."""
    value = response.headers.get("Retry-After")
    return max(0.1, http_retries.retry_after_seconds(value)) if value else 1.0


def error_code(response: httpx.Response) -> str:
    """The ``error`` member of a problem document, empty for another body."""
    return http_retries.error_code(response.content)
