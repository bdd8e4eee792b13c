"""HTTP servers in the platform's event loop, each an ASGI application on one socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, MutableMapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tools.local_platform.http_messages import HttpResponse
from tools.local_platform.problem import problem

# Any: the values of ASGI messages depend on their keys.
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

KEEP_ALIVE_SECONDS = 75
SHUTDOWN_SECONDS = 5
BODY_SECONDS = 10.0
HEAD_BYTES_MAX = 64 * 1024
NO_BODY = (204, 304)


class TooLarge(Exception):
    """The body is longer than allowed."""


class _Protocol(HttpToolsProtocol):
    """Answers what is not HTTP with a problem document, and limits the head of a request.

    The head is limited while it arrives: a client may send one that never ends.
    """

    _head_bytes = 0
    _reads_head = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._reads_head else 0
        if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse(431, "HEADERS_TOO_LARGE", "The headers are too long")

    def on_message_begin(self) -> None:
        self._reads_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._reads_head = False
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Replaces uvicorn's plain text, the reason in ``msg`` too."""
        self._refuse(400, "BAD_REQUEST", "This is not HTTP")

    def _refuse(self, status: int, code: str, message: str) -> None:
        response = problem(status, code, message, "", connection="close")
        length = (b"content-length", b"%d" % len(response.body))
        head = b"HTTP/1.1 %d %s\r\n" % (status, HTTPStatus(status).phrase.encode())
        lines = [name + b": " + value + b"\r\n" for name, value in [*response.headers, length]]
        self.transport.write(b"".join((head, *lines, b"\r\n", response.body)))
        self.transport.close()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the platform, which handles them for all servers."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def listen(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A listening socket, on the loopback interface by default; OSError if the port is taken."""
    # asyncio sets TCP_NODELAY only on sockets that were created with a protocol
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


@asynccontextmanager
async def serving(application: Application, listener: socket.socket) -> AsyncGenerator[None]:
    """Serves an application until the block ends; open requests have five seconds to finish."""
    config = uvicorn.Config(
        application,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # the client address is the peer's, not what its headers claim
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        if task.done():
            await task
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await task
        listener.close()


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """The whole body; raises TooLarge beyond ``bytes_max`` and TimeoutError after ten seconds.

    A client that disconnects before the end is a TimeoutError too: a partial body must not be
    handled as a complete one.
    """
    chunks: list[bytes] = []
    size, more = 0, True
    async with asyncio.timeout(BODY_SECONDS):
        while more:
            part = await receive()
            if part["type"] != "http.request":
                raise TimeoutError("the client disconnected")
            chunks.append(part.get("body", b""))
            size += len(chunks[-1])
            if size > bytes_max:
                raise TooLarge
            more = part.get("more_body", False)
    return b"".join(chunks)


async def reply(send: Send, response: HttpResponse, *, is_head: bool = False) -> None:
    """Sends a response with its content-length; for HEAD that of the function is kept."""
    headers = response.headers
    if response.status not in NO_BODY and not is_head:
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    body = b"" if is_head or response.status in NO_BODY else response.body
    await send({"type": "http.response.body", "body": body})
