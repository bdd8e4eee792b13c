"""A client as the Idempotency-Key draft wants it: one key, the same bytes, a few tries, jitter.

What is still unanswered after the tries stays unknown: no new key is ever tried for it.  Rotating
a refresh token has no key and is never repeated; whoever hears nothing logs in again.
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
from typing import Any
from urllib.parse import urlsplit

from chaos.workload.client_log import Attempt, ClientLog
from chaos.workload.meter import Meter
from chaos.workload.operations import PLACING, Call, Calls
from tools.local_platform.http_messages import (
    Connection,
    ConnectionBroken,
    Headers,
    HttpRequest,
    HttpResponse,
    connect,
)

# The load alone stays below 64, a storm on top of it comes to this.
IN_FLIGHT_MAX = 320
# Sooner than the shop's own keep-alive ends: a try is not spent on a connection about to close.
IDLE_SECONDS_MAX = 3.0
BACKOFF_FIRST_SECONDS = 0.1
RETRY_AFTER_SECONDS_MAX = 2.0
# A token is renewed before its last minute, so that none expires between two tries of a call.
TOKEN_MARGIN_SECONDS = 60.0
NOT_NOW = frozenset({429, 502, 503, 504})
ANONYMOUS = 0


@dataclass(frozen=True)
class Retries:
    """How often and how patiently a client asks."""

    tries: int = 3
    has_jitter: bool = True
    timeout_seconds: float = 15.0

    def pause_seconds(self, attempt: int, retry_after: float, random: Random) -> float:
        """How long to wait after that attempt: full jitter, no sooner than Retry-After says."""
        if not self.has_jitter:
            return 0.0
        jitter = random.uniform(0.0, BACKOFF_FIRST_SECONDS * 2**attempt)
        return max(jitter, min(retry_after, RETRY_AFTER_SECONDS_MAX))


PATIENT = Retries()
ONCE = Retries(tries=1)


@dataclass(frozen=True)
class Outcome:
    """The last answer to a call, or status None when there was none; ``op`` is its log entry."""

    status: int | None
    body: bytes = b""
    headers: Headers = field(default_factory=list)
    tries: int = 0
    op: int | None = None

    @property
    def is_definite(self) -> bool:
        """True when the shop has spoken on the request itself."""
        if self.status is None or self.status in NOT_NOW or self.status == 401:
            return False
        return self.status != 409 or self.code != "REQUEST_IN_PROGRESS"

    @property
    def code(self) -> str:
        """The ``error`` member of a problem document, empty when there is none."""
        found = self.document.get("error") if (self.status or 0) >= 400 else None
        return found if isinstance(found, str) else ""

    @property
    def document(self) -> dict[str, Any]:
        """The JSON object of the body, empty when it is none."""
        try:
            read = json.loads(self.body)
        except ValueError:
            return {}
        return read if isinstance(read, dict) else {}

    def header(self, name: bytes) -> str | None:
        """The first value of a header."""
        found = next((value for key, value in self.headers if key == name), None)
        return None if found is None else found.decode("latin-1")

    @property
    def retry_after_seconds(self) -> float:
        """``Retry-After`` in its delta form, nought without."""
        text = self.header(b"retry-after") or ""
        return float(text) if text.isdigit() else 0.0

    @property
    def answer(self) -> tuple[int | None, str, str | None]:
        """What must be the same whenever the key is used: status, SHA-256 of the body, Location."""
        return self.status, hashlib.sha256(self.body).hexdigest(), self.header(b"location")


@dataclass(frozen=True)
class Placed:
    """An order that was accepted."""

    order_id: str
    total: int
    account: Account


class NoToken(Exception):
    """The shop let nobody in for now."""


class Account:
    """A person with an access token that is renewed before it expires."""

    def __init__(self, client: Client, email: str, password: str, user_id: int = 0) -> None:
        self.client = client
        self.email = email
        self.password = password
        self.user_id = user_id
        self.orders: deque[Placed] = deque(maxlen=20)
        self._lock = asyncio.Lock()
        self._token = ""
        self._refresh_token = ""
        self._good_until = 0.0

    async def token(self) -> str:
        """A valid access token; refreshes or logs in when there is none.  Raises NoToken."""
        if time.monotonic() < self._good_until:
            return self._token
        async with self._lock:
            if time.monotonic() >= self._good_until:
                await self._renew()
            return self._token

    def forget(self, token: str) -> None:
        """The shop refused this token; the next one comes from a new session."""
        if token == self._token:
            self._good_until, self._refresh_token = 0.0, ""

    async def refresh(self) -> None:
        """Trades the refresh token for a new pair, or logs in.  Raises NoToken."""
        async with self._lock:
            await self._renew()

    async def log_in(self) -> Outcome:
        """A session of its own, which changes nothing about the account's tokens."""
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
            raise NoToken(f"{self.email}: {outcome.status} {outcome.code}")
        pair = outcome.document
        self._token, self._refresh_token = pair["accessToken"], pair["refreshToken"]
        self._good_until = time.monotonic() + pair["expiresIn"] - TOKEN_MARGIN_SECONDS


class Client:
    """Sends calls to one shop; ``on_finished(call, outcome)`` hears of each keyed answer."""

    def __init__(self, url: str, *, calls: Calls, log: ClientLog, meter: Meter, seed: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self.calls = calls
        self.log = log
        self.meter = meter
        self.on_finished: Callable[[Call, Outcome], None] = lambda call, outcome: None
        self._random = Random(f"{seed} jitter")  # noqa: S311
        self._idle: list[tuple[float, Connection]] = []
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)

    async def send(
        self, call: Call, account: Account | None = None, retries: Retries = PATIENT
    ) -> Outcome:
        """The definite answer, or the last thing heard within the tries."""
        outcome = await self.repeat(call, account, retries)
        if call.operation.name in PLACING and outcome.status == 201:
            self.meter.accepted(str(outcome.document.get("id")))
        if call.key is not None and outcome.is_definite:
            self.on_finished(call, outcome)
        return outcome

    async def repeat(self, call: Call, account: Account | None, retries: Retries) -> Outcome:
        """Like ``send``, of a call that was counted before."""
        tries = retries.tries if call.is_repeatable else 1
        for attempt in range(1, tries + 1):
            outcome = await self._try(call, account, attempt, retries.timeout_seconds)
            if outcome.is_definite or attempt == tries:
                break
            if outcome.status != 401:
                wait = outcome.retry_after_seconds
                await asyncio.sleep(retries.pause_seconds(attempt, wait, self._random))
        return outcome

    async def open(self, connections: int) -> None:
        """Opens connections ahead of calls that are to start together."""
        opened = [connect(self._port, self._host) for _ in range(connections)]
        found = await asyncio.gather(*opened, return_exceptions=True)
        now = time.monotonic()
        self._idle += [(now, one) for one in found if isinstance(one, Connection)]

    def close(self) -> None:
        """Closes the connections nobody uses."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _try(
        self, call: Call, account: Account | None, attempt: int, timeout_seconds: float
    ) -> Outcome:
        try:
            token = await account.token() if account is not None else ""
        except NoToken:
            return Outcome(None, tries=attempt)
        async with self._slots:
            self.meter.in_flight += 1
            began, started = time.time(), time.perf_counter()
            try:
                answer = await self._exchange(_message(call, token, self._host), timeout_seconds)
            finally:
                self.meter.in_flight -= 1
        status = answer.status if answer is not None else None
        self.meter.attempt(call.operation.name, status, time.perf_counter() - started)
        if answer is None:
            answer = HttpResponse(0)
        self._judge(call, account, token, answer)
        outcome = Outcome(status, answer.body, answer.headers, attempt)
        if call.key is None:
            return outcome
        op = self._note(call, account, outcome, began)
        return Outcome(status, answer.body, answer.headers, attempt, op)

    async def _exchange(self, message: HttpRequest, timeout_seconds: float) -> HttpResponse | None:
        """The answer, or None when the connection broke or nothing came in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                connection = await self._connection()
                answer = await connection.send(message)
        except (OSError, ConnectionBroken, TimeoutError):
            return None
        if connection.is_open:
            self._idle.append((time.monotonic(), connection))
        return answer

    async def _connection(self) -> Connection:
        while self._idle:
            since, connection = self._idle.pop()
            if connection.is_open and time.monotonic() - since < IDLE_SECONDS_MAX:
                return connection
            connection.close()
        return await connect(self._port, self._host)

    def _judge(self, call: Call, account: Account | None, token: str, answer: HttpResponse) -> None:
        if answer.status == 401 and account is not None:
            account.forget(token)
        if answer.status and answer.status not in call.operation.expected:
            text = answer.body[:300].decode("utf-8", "replace")
            self.meter.surprise(call.operation.name, answer.status, text)

    def _note(self, call: Call, account: Account | None, outcome: Outcome, began: float) -> int:
        assert call.key is not None, "only calls with a key are logged"
        status, digest, location = outcome.answer
        order_id = call.order_id
        if status == 201 and call.operation.name in PLACING:
            order_id = outcome.document.get("id")
        return self.log.add(
            Attempt(
                began=began,
                ended=time.time(),
                user_id=account.user_id if account else ANONYMOUS,
                scope=call.operation.scope,
                key=call.key,
                attempt=outcome.tries,
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
