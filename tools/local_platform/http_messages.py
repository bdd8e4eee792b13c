"""An HTTP/1.1 client: whole requests and responses over reused connections.

Bodies are held in memory: they are small by contract, and a queued request has to be held anyway.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpResponseParser

RESPONSE_BYTES_MAX = 32 * 1024 * 1024
Headers = list[tuple[bytes, bytes]]


class ConnectionBroken(Exception):
    """The connection was closed, or received invalid HTTP, before a complete response."""


@dataclass(frozen=True)
class HttpRequest:
    """A request: ``target`` is path and query undecoded, header names are in lower case."""

    method: str
    target: bytes
    headers: Headers
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path without its query."""
        return self.target.partition(b"?")[0].decode("latin-1")

    def encode(self) -> bytes:
        """The request as bytes, with its ``content-length``."""
        lines = [self.method.encode("ascii") + b" " + self.target + b" HTTP/1.1\r\n"]
        lines += [name + b": " + value + b"\r\n" for name, value in self.headers]
        if self.body or self.method in ("POST", "PATCH", "PUT"):
            lines.append(b"content-length: %d\r\n" % len(self.body))
        return b"".join((*lines, b"\r\n", self.body))


@dataclass
class HttpResponse:
    """A response: status, headers (names in lower case) and the complete body."""

    status: int
    headers: Headers = field(default_factory=list[tuple[bytes, bytes]])
    body: bytes = b""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name), None)


class Connection(asyncio.Protocol):
    """One connection, used by one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._pending: asyncio.Future[HttpResponse] | None = None
        self._response = HttpResponse(0)
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_head = False
        self._parser = HttpResponseParser(self)

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends a request and returns its response; ConnectionBroken when there is none."""
        if self._transport is None or not self.is_open:
            raise ConnectionBroken("the connection is closed")
        self._parser = HttpResponseParser(self)
        self._chunks, self._size, self._is_head = [], 0, request.method == "HEAD"
        self._response = HttpResponse(0)
        self._pending = asyncio.get_running_loop().create_future()
        self._transport.write(request.encode())
        try:
            return await self._pending
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._pending = None

    def close(self) -> None:
        """Closes the connection; a pending request raises ConnectionBroken."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._pending is not None and not self._pending.done():
            if self._response.status and self._ends_with_connection():
                self.on_message_complete()
            else:
                self._pending.set_exception(
                    ConnectionBroken(str(exc or "closed before a complete response"))
                )

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(f"not HTTP: {error}")

    def on_message_begin(self) -> None:
        self._response = HttpResponse(0)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._response.status = status
            if self._is_head:  # its Content-Length describes a body that is not sent
                self.on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > RESPONSE_BYTES_MAX:
            self._fail("the response is too long")
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._pending is None or self._pending.done() or not self._response.status:
            return
        self._response.body = b"".join(self._chunks)
        if not self._parser.should_keep_alive() or self._is_head:
            self.close()
        self._pending.set_result(self._response)

    def _ends_with_connection(self) -> bool:
        names = {name for name, _ in self._response.headers}
        return not names & {b"content-length", b"transfer-encoding"}

    def _fail(self, reason: str) -> None:
        if self._pending is not None and not self._pending.done():
            self._pending.set_exception(ConnectionBroken(reason))
        self.close()


class ConnectionPool:
    """Reuses open connections to one address, unless they were idle for too long."""

    def __init__(self, host: str, port: int, *, idle_seconds_max: float = math.inf) -> None:
        self._host = host
        self._port = port
        self._idle_seconds_max = idle_seconds_max
        self._idle: list[tuple[float, Connection]] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        """Sends over an idle or new connection; OSError when it cannot connect."""
        connection = await self._connection()
        response = await connection.send(request)
        if connection.is_open:
            self.add(connection)
        return response

    def add(self, connection: Connection) -> None:
        """Keeps an open connection for a later request."""
        self._idle.append((time.monotonic(), connection))

    async def open(self, connections: int) -> None:
        """Opens connections in advance, for requests that must start at the same time."""
        opened = [connect(self._port, self._host) for _ in range(connections)]
        for result in await asyncio.gather(*opened, return_exceptions=True):
            if isinstance(result, Connection):
                self.add(result)

    def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()

    async def _connection(self) -> Connection:
        while self._idle:
            since, connection = self._idle.pop()
            if connection.is_open and time.monotonic() - since < self._idle_seconds_max:
                return connection
            connection.close()
        return await connect(self._port, self._host)


async def connect(port: int, host: str = "127.0.0.1") -> Connection:
    """A new connection, to this machine by default; raises OSError."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, port)
    return connection


def header_map(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as text with lower-case names; the last of repeated ones."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
