"""The HTTP/1.1 server (RFC 9112) of a function process; docs/adr/0027.

An event loop in the main thread reads requests and writes responses; threads run the application.
A request takes a thread only when its message is complete: slow, unfinished and malformed messages
occupy none.  The event loop answers health probes itself.  A request that finds the queue full, or
has waited in it for too long, gets 503 and is not begun.
"""

from __future__ import annotations

import asyncio
import errno
import io
import math
import re
import signal
import socket
import struct
import threading
import time
from enum import StrEnum
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from shop.primitives.errors import ClientError
from shop.primitives.http_limits import (
    CONNECTIONS_MAX,
    DRAIN_SECONDS,
    EDGE_STREAM_IDLE_SECONDS,
    EDGE_TIMEOUT,
    QUEUE_SECONDS,
    QUEUED_PER_THREAD,
    READ_SECONDS,
    SERVER_IDLE_SECONDS,
)
from shop.runtime import log
from shop.runtime.app import HEALTH_PATHS, SECURITY_HEADERS
from shop.runtime.http_messages import (
    BODY_MAX,
    BrokenOff,
    HttpRequest,
    HttpResponse,
    incomplete_request,
    problem,
    request_timeout,
)
from shop.runtime.waiting import WaitingRequest
from shop.runtime.wsgi import REASONS, body_of, headers_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shop.runtime.app import App

HEAD_MAX = 32 * 1024  # above 16 KiB the application responds with 431
HEADERS_MAX = 100
LINGER_SECONDS = 2.0
SWEEP_SECONDS = 0.5
INVALID_IN_HEADERS = re.compile(r"[\r\n\0]")
ABSOLUTE_FORM = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time: close sends RST

HEAD_TOO_LARGE = ClientError(431, "HEADERS_TOO_LARGE", "the headers may have at most 16384 bytes")
AGAIN = {"retry-after": "1"}
BUSY = ClientError(503, "UNAVAILABLE", "too many requests wait for this process", headers=AGAIN)
TOO_LATE = ClientError(503, "UNAVAILABLE", "the request was not begun in time", headers=AGAIN)


class State(StrEnum):
    """What a connection waits for."""

    IDLE = "the first byte of a request"
    HEAD = "the end of the headers"
    BODY = "the end of the body"
    RUNNING = "the application"
    CLOSING = "the client to close"


class Work(NamedTuple):
    """A complete request, and the time after which it must not begin."""

    connection: Connection
    request: HttpRequest
    begin_before: float
    waiting: WaitingRequest | None = None


class HttpServer:
    """Serves one application on one listening socket until SIGTERM or SIGINT."""

    def __init__(self, app: App, threads: int) -> None:
        self.app = app
        self.connections: set[Connection] = set()
        self.is_draining = False
        self._threads = threads
        self._unfinished = 0
        self._parked = 0
        self._queue: SimpleQueue[Work] = SimpleQueue()
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def serve(self, listener: socket.socket) -> None:
        """Accepts connections; after a signal, returns once the running requests are complete."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        self._loop.set_exception_handler(_log_error)
        for number in range(self._threads):
            threading.Thread(target=self._run, daemon=True, name=f"request-{number}").start()
        server = await self._loop.create_server(lambda: Connection(self), sock=listener)
        sweeper = asyncio.create_task(self._enforce_deadlines())
        await self._stopping.wait()
        server.close()
        await self._drain()
        sweeper.cancel()

    async def _drain(self) -> None:
        self.is_draining = True
        for connection in list(self.connections):
            connection.close_if_idle()
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._is_busy():
                    await asyncio.sleep(0.01)
        except TimeoutError:
            log.write(
                "stopped before the end of requests",
                unfinished=self._unfinished,
                deliveries=self.app.services.open_deliveries,
            )

    def _is_busy(self) -> bool:
        """True while a request runs, waits or is answered, or an event is being delivered."""
        is_sending = any(connection.is_sending for connection in self.connections)
        return bool(
            self._unfinished or self._parked or is_sending or self.app.services.open_deliveries
        )

    async def _enforce_deadlines(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = self._loop.time()
            for connection in list(self.connections):
                if connection.deadline <= now:
                    connection.on_deadline()

    def admit(self, connection: Connection) -> None:
        """Adds a connection; beyond the maximum it closes an idle or the slowest one for it."""
        if len(self.connections) >= CONNECTIONS_MAX:
            dispensable = [each for each in self.connections if not each.is_running]
            if dispensable:
                min(dispensable, key=Connection.closing_order).abort()
        self.connections.add(connection)

    def begin(self, connection: Connection, request: HttpRequest) -> None:
        """Answers a health probe, queues another request, or rejects it if the queue is full."""
        if request.path in HEALTH_PATHS:
            connection.respond(request, self.app.answer(request))
        elif self._unfinished >= self._threads * (1 + QUEUED_PER_THREAD):
            connection.respond(request, self.app.reject(request, BUSY))
        else:
            self._unfinished += 1
            self._queue.put(Work(connection, request, time.monotonic() + _queue_seconds(request)))

    def _run(self) -> None:
        """One thread: runs the application for one request after another."""
        while True:
            work = self._queue.get()
            rest = b""
            try:
                result = self._result_of(work)
                if isinstance(result, WaitingRequest):
                    self._loop.call_soon_threadsafe(self._park, work, result)
                    continue
                if result is not None:
                    rest = self._send(work, result)
            except BrokenOff:
                self._loop.call_soon_threadsafe(work.connection.reset)
            except Exception as error:
                log.unexpected(error)
                self._loop.call_soon_threadsafe(work.connection.abort)
            self._loop.call_soon_threadsafe(self._finish, work.connection, rest)

    def _result_of(self, work: Work) -> HttpResponse | WaitingRequest | None:
        """Runs the application, unless the client has left or the request is too late."""
        if work.connection.has_left:
            if work.waiting is not None:
                self.app.abandon(work.waiting)
            return None
        if work.waiting is not None:
            return self.app.resume(work.waiting, is_last=self.is_draining)
        if time.monotonic() > work.begin_before:
            return self.app.reject(work.request, TOO_LATE)
        return self.app.start(work.request)

    def _send(self, work: Work, response: HttpResponse) -> bytes:
        """Sends all but the last part of a response; returns that part."""
        connection = work.connection
        head, body = connection.head_of(response), body_of(work.request, response)
        if isinstance(body, list):
            return head + body[0]
        if response.parts is not None:
            return self._stream(connection, head, body)
        for part in body:  # a failpoint follows the first part
            self._loop.call_soon_threadsafe(connection.write, head + part)
            head = b""
        return b""

    def _stream(self, connection: Connection, head: bytes, parts: Iterable[bytes]) -> bytes:
        """Sends a body while it is made; returns its end.

        The next part is made when the client has read most of the one before, so that only a few
        are in memory.
        """
        for part in parts:
            sending = connection.send(head + connection.chunk(part))
            head = b""
            try:
                asyncio.run_coroutine_threadsafe(sending, self._loop).result()
            except OSError as error:
                log.write("response broken off", reason="the client does not read it")
                raise BrokenOff from error
        return head + connection.last_chunk()

    def _park(self, work: Work, waiting: WaitingRequest) -> None:
        """Holds a waiting request without a thread until its next look."""
        self._unfinished -= 1
        self._parked += 1
        later = Work(work.connection, work.request, math.inf, waiting)
        self._loop.call_later(waiting.next_pause_seconds(), self._unpark, later)

    def _unpark(self, work: Work) -> None:
        self._parked -= 1
        self._unfinished += 1
        self._queue.put(work)

    def _finish(self, connection: Connection, rest: bytes) -> None:
        self._unfinished -= 1
        connection.finish(rest)


class Connection(asyncio.Protocol):
    """One client connection, which serves one request at a time."""

    def __init__(self, server: HttpServer) -> None:
        self.deadline = math.inf
        self.has_left = False
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._state = State.IDLE
        self._closes = False
        self._parser = HttpRequestParser(self)
        self._head_bytes = 0
        self._target: list[bytes] = []
        self._headers: dict[str, str] = {}
        self._hosts = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def is_running(self) -> bool:
        """True while the application runs, or will run, its request."""
        return self._state is State.RUNNING

    def closing_order(self) -> tuple[bool, bool, float]:
        """Sorts connections: those that have their response, idle ones, the slowest to read."""
        return self._state is not State.CLOSING, self._state is not State.IDLE, self.deadline

    @property
    def is_sending(self) -> bool:
        """True while bytes of a response are buffered."""
        return self._transport is not None and self._transport.get_write_buffer_size() > 0

    # ------------------------------------------------------------------ called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if peer else ""
        self._wait_for_request()
        self._server.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's name)
        self.has_left = True
        self._state, self.deadline = State.CLOSING, math.inf
        self._server.connections.discard(self)
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        if self._state in (State.RUNNING, State.CLOSING):
            self._closes = True  # a pipelined request is not answered (RFC 9112 section 9.3.2)
            return
        if self._state is State.IDLE:
            self._state, self.deadline = State.HEAD, self._loop.time() + READ_SECONDS
            self._head_bytes = 0
        self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._closes = True  # the request itself is answered as if it had no Upgrade header
        except HttpParserError:
            self._closes = True
            if self._state in (State.HEAD, State.BODY):
                too_many = len(self._headers) >= HEADERS_MAX
                self._reject(HEAD_TOO_LARGE if too_many else incomplete_request())
        if self._state is State.HEAD and self._head_bytes > HEAD_MAX:
            self._reject(HEAD_TOO_LARGE)

    def eof_received(self) -> bool:
        """Rejects an incomplete request; a complete one that has not begun is dropped."""
        self._closes = True
        if self._state in (State.HEAD, State.BODY):
            self._reject(incomplete_request())
        self.has_left = True
        return self._state is State.RUNNING

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._transport.pause_reading()
        self._may_write.clear()

    def resume_writing(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()
        self._may_write.set()

    # ------------------------------------------------------------------ called by the parser

    def on_message_begin(self) -> None:
        if self._state in (State.RUNNING, State.CLOSING):
            raise HttpParserError("a pipelined request")
        self._state = State.HEAD
        self._target, self._headers, self._hosts = [], {}, 0
        self._body, self._body_bytes = [], 0

    def on_url(self, part: bytes) -> None:
        self._target.append(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) >= HEADERS_MAX:
            raise HttpParserError("too many headers")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
        self._hosts += key == "host"
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        self._state, self.deadline = State.BODY, self._loop.time() + READ_SECONDS
        if self._parser.get_http_version() == "1.1" and self._hosts != 1:
            raise HttpParserError("one Host header is required (RFC 9112 section 3.2)")
        if self._declared_length() > BODY_MAX:
            self._closes = True
            self._begin()
        elif self._headers.get("expect", "").lower() == "100-continue":
            self.write(CONTINUE)

    def on_body(self, part: bytes) -> None:
        if self._state is State.BODY:
            self._body.append(part)
            self._body_bytes += len(part)
            if self._body_bytes > BODY_MAX:
                self._closes = True
                self._begin()

    def on_message_complete(self) -> None:
        if self._state is State.BODY:
            self._closes = self._closes or not self._parser.should_keep_alive()
            self._begin()

    # ------------------------------------------------------------------ requests and responses

    def write(self, part: bytes) -> None:
        """Sends bytes, unless the connection is lost."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(part)

    async def send(self, part: bytes) -> None:
        """Sends a part of a body, and waits while the client does not read.

        OSError when it has left, or has read nothing for as long as the edge waits.
        """
        self.write(part)
        async with asyncio.timeout(EDGE_STREAM_IDLE_SECONDS):
            await self._may_write.wait()
        if self._state is State.CLOSING:
            raise ConnectionResetError("the client has left")

    @property
    def _takes_chunks(self) -> bool:
        """False for HTTP/1.0, in which a body without a length ends with the connection."""
        return self._parser.get_http_version() != "1.0"

    def chunk(self, part: bytes) -> bytes:
        """A part of a body without a length, as it is sent (RFC 9112 section 7.1)."""
        return b"%x\r\n%b\r\n" % (len(part), part) if self._takes_chunks and part else part

    def last_chunk(self) -> bytes:
        """The end of a body without a length."""
        return LAST_CHUNK if self._takes_chunks else b""

    def head_of(self, response: HttpResponse) -> bytes:
        """The status line and the headers of a response."""
        lines = [f"HTTP/1.1 {REASONS[response.status]}"]
        lines += [f"{name}: {_checked(text)}" for name, text in headers_of(response)]
        if response.parts is not None and self._takes_chunks:
            lines.append("transfer-encoding: chunked")
        elif response.parts is not None:
            self._closes = True
        lines.append(f"date: {_date()}")
        closes = self._closes or self._server.is_draining
        if closes and "connection" not in response.headers:
            lines.append("connection: close")
        return "\r\n".join((*lines, "", "")).encode("latin-1")

    def respond(self, request: HttpRequest, response: HttpResponse) -> None:
        """Sends a response from the event loop."""
        self.finish(self.head_of(response) + b"".join(body_of(request, response)))

    def finish(self, rest: bytes) -> None:
        """Sends the rest of a response, then waits for the next request or closes."""
        self.write(rest)
        if self._closes or self._server.is_draining:
            self._close()
        else:
            self._wait_for_request()

    def on_deadline(self) -> None:
        """Closes an idle connection, rejects an unfinished request with 408."""
        if self._state in (State.HEAD, State.BODY):
            self._reject(request_timeout())
        else:
            self.abort()

    def close_if_idle(self) -> None:
        """Closes the connection unless it has a request."""
        if self._state in (State.IDLE, State.CLOSING):
            self.abort()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._state = State.CLOSING
        self._server.connections.discard(self)
        if self._transport is not None:
            self._transport.abort()

    def reset(self) -> None:
        """Closes the connection by RST: no client takes what it has received for all of a body."""
        if self._transport is not None and not self._transport.is_closing():
            connected: socket.socket = self._transport.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.abort()

    def _begin(self) -> None:
        self._state, self.deadline = State.RUNNING, math.inf
        self._server.begin(self, self._request())

    def _request(self) -> HttpRequest:
        target = b"".join(self._target).decode("latin-1")
        origin = ABSOLUTE_FORM.match(target)
        path, _, query = target[origin.end() if origin else 0 :].partition("?")
        return HttpRequest(
            method=self._parser.get_method().decode("ascii"),
            path=path or "/",
            query=query,
            headers=self._headers,
            peer=self._peer,
            read=io.BytesIO(b"".join(self._body)).read,
            content_length=self._declared_length() if "content-length" in self._headers else None,
        )

    def _declared_length(self) -> int:
        return int(self._headers.get("content-length", "0"))

    def _wait_for_request(self) -> None:
        self._state = State.IDLE
        self.deadline = self._loop.time() + SERVER_IDLE_SECONDS

    def _reject(self, error: ClientError) -> None:
        """Responds to a request that is not complete, and closes."""
        log.write("rejected", status=error.status, reason=error.message)
        self._closes = True
        request = HttpRequest("", "/", "", {}, self._peer, io.BytesIO().read)
        response = problem(error, request)
        response.headers.update(SECURITY_HEADERS)
        self.respond(request, response)

    def _close(self) -> None:
        """Ends the response, then discards what the client still sends.

        Closing with unread bytes would reset the connection, and with it the response.
        """
        self._state, self.deadline = State.CLOSING, self._loop.time() + LINGER_SECONDS
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()


def _queue_seconds(request: HttpRequest) -> float:
    """How long a request may wait for a thread: no longer than the edge waits for its response."""
    milliseconds = request.headers.get(EDGE_TIMEOUT, "")
    if milliseconds.isascii() and milliseconds.isdigit():
        return min(QUEUE_SECONDS, int(milliseconds[:9]) / 1000)
    return QUEUE_SECONDS


def _checked(text: str) -> str:
    if INVALID_IN_HEADERS.search(text):
        raise ValueError("a response header contains a line break")
    return text


def _date() -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


def _log_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if _is_of_lost_connection(error):
        log.write("connection lost", error=repr(error))
    elif isinstance(error, Exception):
        log.unexpected(error)
    else:
        log.write("event loop", error=context["message"])


def _is_of_lost_connection(error: object) -> bool:
    """Whether the client reset its connection; ending a response on it is then ENOTCONN."""
    is_not_connected = isinstance(error, OSError) and error.errno == errno.ENOTCONN
    return is_not_connected or isinstance(error, ConnectionError)
