"""Calls of a JSON API over HTTP: one connection and one deadline per call, no request twice."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from socket import SHUT_RDWR, socket
from typing import cast
from urllib.parse import urlsplit

from shop.adapters.connection_attempts import ConnectionAttempts
from shop.adapters.payment_provider.response_fields import object_in

RESPONSE_BYTES_MAX = 1_048_576


class JsonApi:
    """The address of an API, and what is sent with each of its requests; threads may share it."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout_seconds: float,
        traceparent: Callable[[], str] | None,
        attempts: ConnectionAttempts | None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("PAYMENT_PROVIDER_URL must be an http or https address")
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port
        self._base_path = parts.path.rstrip("/")
        self._headers = headers
        self._traceparent = traceparent
        self._attempts = attempts or ConnectionAttempts()
        self._timeout_seconds = timeout_seconds

    def open(self) -> Exchange:
        """A connection for the requests of one call; nothing is sent yet."""
        connection_class = HTTPSConnection if self._is_tls else HTTPConnection
        connection = connection_class(self._host, self._port, timeout=self._timeout_seconds)
        headers = {**self._headers, "Accept": "application/json"}
        traceparent = self._traceparent() if self._traceparent else ""
        if traceparent:
            headers["traceparent"] = traceparent
        return Exchange(connection, self._base_path, headers, self._timeout_seconds, self._attempts)


class JsonResponse:
    """A status with its JSON object; status 0 if there was no valid response."""

    def __init__(self, status: int, body: dict[str, object], reason: str | None = None) -> None:
        self.status = status
        self.body = body
        self.reason = reason


class Exchange:
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

    def __enter__(self) -> Exchange:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._connection.close()

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> JsonResponse:
        """Sends one request; a failure of the transport is a response with status 0.

        ``key`` is its idempotency key, where the API takes that from a header.
        """
        payload = None if body is None else json.dumps(body).encode()
        headers = dict(self._headers) if key is None else {**self._headers, "Idempotency-Key": key}
        if payload is not None:
            headers["Content-Type"] = "application/json"
        left = self._deadline - time.monotonic()
        if left <= 0:
            return JsonResponse(0, {}, "timeout")
        try:
            self._connect(left)
            self._connection.request(method, self._base_path + path, payload, headers)
            response = self._connection.getresponse()
            text = response.read(RESPONSE_BYTES_MAX + 1)
        except (OSError, HTTPException) as error:
            is_late = time.monotonic() >= self._deadline or isinstance(error, TimeoutError)
            return JsonResponse(0, {}, "timeout" if is_late else type(error).__name__)
        if time.monotonic() >= self._deadline:
            # The timer may have cut the response.
            return JsonResponse(0, {}, "timeout")
        if response.length and len(text) <= RESPONSE_BYTES_MAX:
            return JsonResponse(0, {}, "cut answer")
        return _read(response.status, text)

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


def _read(status: int, text: bytes) -> JsonResponse:
    if len(text) > RESPONSE_BYTES_MAX:
        return JsonResponse(0, {}, "response too long")
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return JsonResponse(status if status >= 300 else 0, {}, f"HTTP {status} without JSON")
    # a list, which some APIs respond with, is an object of items here
    listed = {"items": cast("list[object]", value)} if isinstance(value, list) else value
    body = object_in(listed)
    if body is None:
        return JsonResponse(0, {}, f"HTTP {status} without a JSON object")
    return JsonResponse(status, body)
