"""Posts many messages to one server, over several connections at once.

Each connection has one open request at a time: servers handle the requests of a connection one
after the other, and RFC 9112 section 9.3.2 advises against pipelining POST.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from time import monotonic
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from urllib.parse import SplitResult

from httptools import HttpParserError, HttpResponseParser

if TYPE_CHECKING:
    from shop.adapters.connection_attempts import ConnectionAttempts

CONNECTIONS_MAX = 16


class Message(Protocol):
    """What is posted; header names and values are valid as they are."""

    @property
    def headers(self) -> Mapping[str, str]:
        """All headers but ``Host`` and ``Content-Length``."""
        ...

    @property
    def body(self) -> bytes:
        """The content."""
        ...


M = TypeVar("M", bound=Message)


def post_all(
    url: SplitResult,
    messages: Iterator[M],
    on_status: Callable[[M, int], bool],
    *,
    seconds: float,
    attempts: ConnectionAttempts,
) -> None:
    """Posts the messages, at most ``CONNECTIONS_MAX`` at a time, for at most ``seconds``.

    ``on_status`` gets the status of each response; no message is sent any more when it returns
    False or when the server cannot be connected: the first connection is opened with ``attempts``.
    A message without a response may have been received all the same, since its connection was lost
    or the time was over.
    """
    ends_by = monotonic() + seconds
    message = next(messages, None)
    if message is None:
        return

    def connect() -> socket.socket:
        return socket.create_connection((url.hostname or "", _port_of(url)), timeout=seconds)

    with suppress(OSError), attempts.open(connect, until=ends_by) as first:
        posts = _Posts(url, chain((message,), messages), on_status, first)
        asyncio.run(posts.run(ends_by - monotonic()))


def _port_of(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


class _Posts(Generic[M]):
    """The messages that are not sent yet, and the connections that take them."""

    def __init__(
        self,
        url: SplitResult,
        messages: Iterator[M],
        on_status: Callable[[M, int], bool],
        first: socket.socket,
    ) -> None:
        self._url = url
        self._messages = messages
        self._on_status = on_status
        self._first: socket.socket | None = first
        self._has_ended = False
        self.head = f"POST {url.path or '/'} HTTP/1.1\r\nHost: {url.netloc.rpartition('@')[2]}\r\n"

    async def run(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS_MAX):
                    group.create_task(self._post_some())

    def take(self) -> M | None:
        """The next message, or None when no more is to be sent."""
        return None if self._has_ended else next(self._messages, None)

    def respond(self, message: M, status: int) -> None:
        if not self._on_status(message, status):
            self._has_ended = True

    async def _post_some(self) -> None:
        """Sends messages over one connection, and over a new one after the server closed it."""
        while (message := self.take()) is not None:
            connection = _Connection(self, message)
            try:
                await self._connect(connection)
                await connection.ended
            except OSError:
                self._has_ended = True
            finally:
                connection.abort()

    async def _connect(self, connection: _Connection[M]) -> None:
        """Takes over the connection that is open already, or opens another one."""
        loop = asyncio.get_running_loop()
        host, tls = self._url.hostname or "", True if self._url.scheme == "https" else None
        opened, self._first = self._first, None
        if opened is None:
            await loop.create_connection(lambda: connection, host, _port_of(self._url), ssl=tls)
        else:
            name = host if tls else None
            await loop.create_connection(
                lambda: connection, sock=opened, ssl=tls, server_hostname=name
            )


class _Connection(asyncio.Protocol, Generic[M]):
    def __init__(self, posts: _Posts[M], first: M) -> None:
        self._posts = posts
        self._message: M | None = first
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self.abort()

    def on_headers_complete(self) -> None:
        """Called by the parser; statuses below 200 are interim (RFC 9110 section 15.2)."""
        status = self._parser.get_status_code()
        if self._message is not None and status >= 200:
            self._posts.respond(self._message, status)
            self._message = None

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._message is not None:
            return
        self._message = self._posts.take() if self._parser.should_keep_alive() else None
        if self._message is None:
            self.abort()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        if not self.ended.done():
            self.ended.set_result(None)

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        assert self._transport is not None and self._message is not None
        headers, body = self._message.headers, self._message.body
        lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        head = f"{self._posts.head}{lines}Content-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode("latin-1") + body)
