"""An HTTP client that retries as the Idempotency-Key draft requires: same key, same bytes.

A request that has no definite response after its attempts stays unknown; it is never repeated under
another key.  Rotating a refresh token takes no key and is never repeated: without a response the
account logs in again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import cast
from urllib.parse import urlsplit

from chaos.controlled_process import JsonObject
from chaos.workload.client_log import Attempt, ClientLog
from chaos.workload.metrics import WorkloadMetrics
from chaos.workload.operations import PLACING, Call, Calls
from tools import http_retries
from tools.local_platform.http_messages import (
    ConnectionBroken,
    ConnectionPool,
    Headers,
    HttpRequest,
    HttpResponse,
)

# The load alone needs less than 64 connections; a surge comes in addition.
IN_FLIGHT_MAX = 320
# Shorter than the shop's keep-alive: no attempt uses a connection that is about to be closed.
IDLE_SECONDS_MAX = 3.0
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0
RETRY_AFTER_SECONDS_MAX = 2.0
# A token is renewed in its last minute, so that none expires between two attempts of a call.
TOKEN_MARGIN_SECONDS = 60.0
ANONYMOUS = 0


@dataclass(frozen=True)
class RetryPolicy:
    """Number of attempts, their timeout, and whether there is a delay between them."""

    attempts_max: int = 3
    has_delay: bool = True
    timeout_seconds: float = 15.0

    def delay_seconds(self, attempt: int, retry_after: float, random: Random) -> float:
        """The delay after an attempt: full jitter, at least Retry-After up to two seconds."""
        if not self.has_delay:
            return 0.0
        jitter = http_retries.backoff_seconds(
            attempt,
            first_seconds=BACKOFF_FIRST_SECONDS,
            max_seconds=BACKOFF_MAX_SECONDS,
            random=random,
        )
        return max(jitter, min(retry_after, RETRY_AFTER_SECONDS_MAX))


DEFAULT_RETRIES = RetryPolicy()
NO_RETRIES = RetryPolicy(attempts_max=1)


@dataclass(frozen=True)
class Outcome:
    """The last response to a call; ``status`` is None without one.

    ``attempt_id`` is its entry in the clients' log.
    """

    status: int | None
    body: bytes = b""
    headers: Headers = field(default_factory=list[tuple[bytes, bytes]])
    attempts: int = 0
    attempt_id: int | None = None

    @property
    def is_definite(self) -> bool:
        """True when the response is the result of the request."""
        if self.status is None or self.status == 401:
            return False
        return http_retries.is_definite(self.status, self.body)

    @property
    def code(self) -> str:
        """The ``error`` member of a problem document, empty when there is none."""
        return http_retries.error_code(self.body) if (self.status or 0) >= 400 else ""

    @property
    def document(self) -> JsonObject:
        """The JSON object in the body; empty when it contains no object."""
        try:
            document: object = json.loads(self.body)
        except ValueError:
            return {}
        # json.loads returns dictionaries with string keys only
        return cast(JsonObject, document) if isinstance(document, dict) else {}

    def header(self, name: bytes) -> str | None:
        """The first value of a header."""
        found = next((value for key, value in self.headers if key == name), None)
        return None if found is None else found.decode("latin-1")

    @property
    def retry_after_seconds(self) -> float:
        """``Retry-After`` in seconds; 0 without the header."""
        return http_retries.retry_after_seconds(self.header(b"retry-after"))

    @property
    def fingerprint(self) -> tuple[int | None, str, str | None]:
        """What must be equal whenever the key is used: status, SHA-256 of the body, Location."""
        return self.status, hashlib.sha256(self.body).hexdigest(), self.header(b"location")


@dataclass(frozen=True)
class PlacedOrder:
    """An accepted order."""

    order_id: str
    total: int
    account: Account


class LoginFailed(Exception):
    """The account could not log in."""


class Account:
    """An account with an access token that is renewed before it expires."""

    def __init__(self, client: Client, email: str, password: str, user_id: int = 0) -> None:
        self.client = client
        self.email = email
        self.password = password
        self.user_id = user_id
        self.orders: deque[PlacedOrder] = deque(maxlen=20)
        self._lock = asyncio.Lock()
        self._token = ""
        self._refresh_token = ""
        self._valid_until = 0.0

    async def token(self) -> str:
        """A valid access token, by refresh or log-in if necessary.  Raises LoginFailed."""
        if time.monotonic() < self._valid_until:
            return self._token
        async with self._lock:
            if time.monotonic() >= self._valid_until:
                await self._renew()
            return self._token

    def discard(self, token: str) -> None:
        """Discards a rejected token; the next one comes from a new session."""
        if token == self._token:
            self._valid_until, self._refresh_token = 0.0, ""

    async def refresh(self) -> None:
        """Exchanges the refresh token for a new pair, or logs in.  Raises LoginFailed."""
        async with self._lock:
            await self._renew()

    async def log_in(self) -> Outcome:
        """Opens another session; the account keeps its tokens."""
        body = {"email": self.email, "password": self.password}
        return await self.client.send(self.client.calls.make("log_in", body=body))

    async def _renew(self) -> None:
        outcome = None
        if self._refresh_token:
            body, self._refresh_token = {"refreshToken": self._refresh_token}, ""
            outcome = await self.client.send(self.client.calls.make("refresh", body=body))
        if outcome is None or outcome.status != 200:
            outcome = await self.log_in()
        if outcome.status != 200:
            raise LoginFailed(f"{self.email}: {outcome.status} {outcome.code}")
        tokens = outcome.document
        self._token, self._refresh_token = tokens["accessToken"], tokens["refreshToken"]
        self._valid_until = time.monotonic() + tokens["expiresIn"] - TOKEN_MARGIN_SECONDS


def _ignore_finished(_call: Call, _outcome: Outcome) -> None:
    """The default of ``Client.on_finished``."""


class Client:
    """Sends calls to one shop.

    ``on_finished(call, outcome)`` is called for each definite response to a call with a key.
    """

    def __init__(
        self, url: str, *, calls: Calls, log: ClientLog, metrics: WorkloadMetrics, seed: int
    ) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or "127.0.0.1"
        self._connections = ConnectionPool(
            self._host, parts.port or 80, idle_seconds_max=IDLE_SECONDS_MAX
        )
        self.calls = calls
        self.log = log
        self.metrics = metrics
        self.on_finished: Callable[[Call, Outcome], None] = _ignore_finished
        self._random = Random(f"{seed} jitter")  # noqa: S311
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def send(
        self, call: Call, account: Account | None = None, retries: RetryPolicy = DEFAULT_RETRIES
    ) -> Outcome:
        """The definite response, or the outcome of the last attempt."""
        outcome = await self.repeat(call, account, retries)
        if call.operation.name in PLACING and outcome.status == 201:
            self.metrics.add_order(str(outcome.document.get("id")))
        if call.key is not None and outcome.is_definite:
            self.on_finished(call, outcome)
        return outcome

    async def repeat(self, call: Call, account: Account | None, retries: RetryPolicy) -> Outcome:
        """Like ``send``, for a call that was sent before: its order is not counted again."""
        attempts_max = retries.attempts_max if call.is_repeatable else 1
        attempt = 1
        while True:
            outcome = await self._attempt(call, account, attempt, retries.timeout_seconds)
            if outcome.is_definite or attempt == attempts_max:
                return outcome
            if outcome.status != 401:
                wait = outcome.retry_after_seconds
                await asyncio.sleep(retries.delay_seconds(attempt, wait, self._random))
            attempt += 1

    async def open(self, connections: int) -> None:
        """Opens connections before calls that shall start at the same time."""
        await self._connections.open(connections)

    def close(self) -> None:
        """Closes idle connections."""
        self._connections.close()

    async def _attempt(
        self, call: Call, account: Account | None, attempt: int, timeout_seconds: float
    ) -> Outcome:
        try:
            token = await account.token() if account is not None else ""
        except LoginFailed:
            return Outcome(None, attempts=attempt)
        async with self._slots:
            began, started = time.time(), time.perf_counter()
            response = await self._exchange(_message(call, token, self._host), timeout_seconds)
        status = response.status if response is not None else None
        self.metrics.add_attempt(status, time.perf_counter() - started)
        if response is None:
            response = HttpResponse(0)
        self._check(call, account, token, response)
        outcome = Outcome(status, response.body, response.headers, attempt)
        if call.key is None:
            return outcome
        attempt_id = self._log_attempt(call, account, outcome, began)
        return Outcome(status, response.body, response.headers, attempt, attempt_id)

    async def _exchange(self, message: HttpRequest, timeout_seconds: float) -> HttpResponse | None:
        """The response; None when the connection failed or the time is over."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._connections.send(message)
        except (OSError, ConnectionBroken, TimeoutError):
            return None

    def _check(
        self, call: Call, account: Account | None, token: str, response: HttpResponse
    ) -> None:
        """Discards a rejected token and counts a response outside the contract."""
        if response.status == 401 and account is not None:
            account.discard(token)
        if response.status and response.status not in call.operation.allowed:
            self.metrics.add_unexpected(call.operation.name, response.status)

    def _log_attempt(
        self, call: Call, account: Account | None, outcome: Outcome, began: float
    ) -> int:
        assert call.key is not None, "only calls with a key are logged"
        status, digest, location = outcome.fingerprint
        order_id = call.order_id
        if status == 201 and call.operation.name in PLACING:
            order_id = outcome.document.get("id")
        return self.log.add_attempt(
            Attempt(
                began=began,
                ended=time.time(),
                user_id=account.user_id if account else ANONYMOUS,
                scope=call.operation.scope,
                key=call.key,
                attempt=outcome.attempts,
                status_code=None if status == 401 else status,
                body_sha256=None if status is None else digest,
                location=location,
                order_id=order_id,
                method=call.operation.method,
                target=call.target,
                body=call.body,
                as_account=account.email if account else "",
                headers=json.dumps([[k.decode(), v.decode("latin-1")] for k, v in call.headers]),
                http_status=status,
            )
        )


def _message(call: Call, token: str, host: str) -> HttpRequest:
    headers = [(b"host", host.encode("ascii")), *call.headers]
    if token:
        headers.append((b"authorization", b"Bearer " + token.encode("ascii")))
    if call.key is not None:
        headers.append((b"idempotency-key", call.key.encode("ascii")))
    if call.body:
        headers.append((b"content-type", b"application/json"))
    return HttpRequest(call.operation.method, call.target.encode("ascii"), headers, call.body)
