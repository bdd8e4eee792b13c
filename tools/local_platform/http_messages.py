"""HTTP/1.1 towards the functions: one message at a time over connections that are kept.

A request carries its whole body and an answer is read whole: both are small by contract, and a
request that waits in a queue for a process to start has to be held anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from httptools import HttpParserError, HttpResponseParser

ANSWER_BYTES_MAX = 32 * 1024 * 1024
Headers = list[tuple[bytes, bytes]]


class ConnectionBroken(Exception):
    """The connection ended, or brought nonsense, before a whole answer."""


@dataclass(frozen=True)
class HttpRequest:
    """A request: ``target`` is path and query as on the wire, header names are in lower case."""

    method: str
    target: bytes
    headers: Headers
    body: bytes = b""

    @property
    def path(self) -> str:
        """The path without its query."""
        return self.target.partition(b"?")[0].decode("latin-1")

    def encode(self) -> bytes:
        """The bytes on the wire; the length is ours to say."""
        lines = [self.method.encode("ascii") + b" " + self.target + b" HTTP/1.1\r\n"]
        lines += [name + b": " + value + b"\r\n" for name, value in self.headers]
        if self.body or self.method in ("POST", "PATCH", "PUT"):
            lines.append(b"content-length: %d\r\n" % len(self.body))
        return b"".join((*lines, b"\r\n", self.body))


@dataclass
class HttpResponse:
    """A response: status, headers (names in lower case) and the whole body."""

    status: int
    headers: Headers = field(default_factory=list)
    body: bytes = b""

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key == name), None)


class Connection(asyncio.Protocol):
    """One connection to a function process, used by one request at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[HttpResponse] | None = None
        self._answer = HttpResponse(0)
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_head = False
        self._parser = HttpResponseParser(self)

    async def ask(self, message: HttpRequest) -> HttpResponse:
        """Sends a message and waits for its answer; raises Broken when none comes."""
        if self._transport is None or not self.is_open:
            raise ConnectionBroken("the connection is closed")
        self._parser = HttpResponseParser(self)
        self._chunks, self._size, self._is_head = [], 0, message.method == "HEAD"
        self._answer = HttpResponse(0)
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(message.encode())
        try:
            return await self._waiting
        except asyncio.CancelledError:
            self.close()
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """Closes the connection; a pending request sees Broken."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.is_open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._waiting is not None and not self._waiting.done():
            if self._answer.status and self._ends_with_connection():
                self.on_message_complete()
            else:
                self._waiting.set_exception(
                    ConnectionBroken(str(error or "closed without a whole answer"))
                )

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(f"not HTTP: {error}")

    def on_message_begin(self) -> None:
        self._answer = HttpResponse(0)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self._answer.status = status
            if self._is_head:  # its Content-Length describes a body that does not come
                self.on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > ANSWER_BYTES_MAX:
            self._fail("the answer is too long")
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if self._waiting is None or self._waiting.done() or not self._answer.status:
            return
        self._answer.body = b"".join(self._chunks)
        if not self._parser.should_keep_alive() or self._is_head:
            self.close()
        self._waiting.set_result(self._answer)

    def _ends_with_connection(self) -> bool:
        names = {name for name, _ in self._answer.headers}
        return not names & {b"content-length", b"transfer-encoding"}

    def _fail(self, reason: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionBroken(reason))
        self.close()


async def connect(port: int, host: str = "127.0.0.1") -> Connection:
    """A new connection, to this machine unless told otherwise; raises OSError."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, host, port)
    return connection


def header_map(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers as text with lower-case names; of repeated ones the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
