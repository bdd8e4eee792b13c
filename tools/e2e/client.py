"""A well-behaved client of the shop: what it may repeat, how often, and when it gives up.

As ``draft-ietf-httpapi-idempotency-key-header`` asks of clients, every unsafe call carries a key
that exists before the call is sent, so that an answer that never came can be asked for again.  A
call without a key (rotating a refresh token) is never repeated: it raises NoAnswer and its caller
starts over from the beginning.
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

TRIES_MAX = 6
BACKOFF_FIRST_SECONDS = 0.2
BACKOFF_MAX_SECONDS = 5.0
RATE_LIMIT_WAIT_SECONDS_MAX = 180.0
# Refused calls count too: callers that come back together only lock each other out again.
GATE_SPREAD_SECONDS = 2.0
# Longer than the longest honest answer: Prefer: wait=20 behind a cold start.
TIMEOUT = httpx.Timeout(40.0, connect=5.0)
CONNECTIONS = httpx.Limits(max_connections=64, max_keepalive_connections=32)
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
NO_ANSWER = frozenset({502, 503, 504})


class NoAnswer(RuntimeError):
    """The call may or may not have happened and must not be repeated as it is."""


class GaveUp(RuntimeError):
    """The shop did not answer within the tries or the waiting time that a client has."""


@dataclass(frozen=True)
class Call:
    """One HTTP call.  ``key`` makes an unsafe call repeatable; ``content`` is sent as it is.

    ``repeats`` overrides that: True when what an unheard answer leaves behind does no harm (a
    session nobody knows of), False when the very first answer is what matters.
    """

    method: str
    path: str
    json: Any = None
    content: bytes | None = None
    token: str | None = None
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeats: bool | None = None

    @property
    def is_repeatable(self) -> bool:
        """True when sending it twice does what sending it once does."""
        if self.repeats is not None:
            return self.repeats
        return self.method in SAFE or self.key is not None

    def all_headers(self) -> dict[str, str]:
        """The headers as sent; those given by hand win."""
        headers = {"Accept": "application/json, application/problem+json"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        if self.key is not None:
            headers["Idempotency-Key"] = self.key
        return {**headers, **self.headers}


def new_key() -> str:
    """An idempotency key nobody used before: 36 characters of ``[a-z0-9-]``."""
    return f"e2e-{uuid.uuid4().hex}"


class Client:
    """Sends calls to one shop; threads may share it.

    ``on_wait(seconds, why)`` hears of every wait that a person would notice.
    """

    def __init__(self, url: str, on_wait: Callable[[float, str], None]) -> None:
        self._http = httpx.Client(
            base_url=url, timeout=TIMEOUT, limits=CONNECTIONS, follow_redirects=False
        )
        self._on_wait = on_wait
        self._random = random.SystemRandom()
        self._lock = threading.Lock()
        self._gates: dict[str | None, float] = {}
        self.sent = 0
        self.repeated = 0

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def once(self, call: Call) -> httpx.Response:
        """One try.  Raises NoAnswer for a transport error and for 502, 503 and 504."""
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
            raise NoAnswer(f"{call.method} {call.path}: {type(error).__name__} {error}") from error
        if response.status_code in NO_ANSWER:
            raise NoAnswer(
                f"{call.method} {call.path}: {response.status_code} {response.text[:200]}"
            )
        return response

    def send(self, call: Call) -> httpx.Response:
        """The shop's definitive answer: at most six tries with full jitter, waiting out 429.

        Raises NoAnswer when a call that may not be repeated got none, GaveUp after the last try.
        """
        sent, tries, waited, last = 0, 0, 0.0, "never sent"
        while tries < TRIES_MAX:
            waited += self._wait_at_gate(call)
            self.repeated += sent > 0
            sent += 1
            try:
                response = self.once(call)
            except NoAnswer as error:
                if not call.is_repeatable:
                    raise
                tries, last = tries + 1, str(error)
                self._back_off(tries)
                continue
            if response.status_code == 429:
                self._close_gate(call, response, waited)
            elif _is_in_progress(response):
                tries, last = tries + 1, f"{call.method} {call.path}: still in progress"
                self._back_off(tries)
            else:
                return response
        raise GaveUp(f"no answer in {TRIES_MAX} tries; the last: {last}")

    def _back_off(self, tries: int) -> None:
        ceiling = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2**tries)
        with self._lock:
            seconds = self._random.uniform(0.0, ceiling)
        time.sleep(seconds)

    def _close_gate(self, call: Call, response: httpx.Response, waited: float) -> None:
        """No call of this account is sent until ``Retry-After``: all of them share its limit."""
        seconds = retry_after_seconds(response)
        where = f"{call.method} {call.path}"
        if waited + seconds > RATE_LIMIT_WAIT_SECONDS_MAX:
            raise GaveUp(f"{where}: 429, come back in {seconds:.0f} s: {response.text[:200]}")
        self._on_wait(seconds, f"{where}: 429 {response.text[:120]}")
        opens_at = time.monotonic() + seconds
        with self._lock:
            self._gates[call.token] = max(opens_at, self._gates.get(call.token, 0.0))

    def _wait_at_gate(self, call: Call) -> float:
        """Waits until the account may ask again, not all its callers at once; for how long."""
        with self._lock:
            seconds = self._gates.get(call.token, 0.0) - time.monotonic()
            if seconds <= 0.0:
                return 0.0
            seconds += self._random.uniform(0.0, GATE_SPREAD_SECONDS)
        time.sleep(seconds)
        return seconds


def retry_after_seconds(response: httpx.Response) -> float:
    """``Retry-After`` in seconds (RFC 9110, delta form), at least a tenth; 1 when it is missing."""
    text = response.headers.get("Retry-After", "1")
    return max(0.1, float(text)) if text.isdigit() else 1.0


def _is_in_progress(response: httpx.Response) -> bool:
    return response.status_code == 409 and error_code(response) == "REQUEST_IN_PROGRESS"


def error_code(response: httpx.Response) -> str | None:
    """The ``error`` member of a problem document, None when the body is no such thing."""
    try:
        body = response.json()
    except ValueError:
        return None
    return body.get("error") if isinstance(body, dict) else None
