"""Messages are posted over several connections, each with one open request at a time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from shop.adapters.connection_attempts import ConnectionAttempts
from shop.runtime.concurrent_posts import CONNECTIONS_MAX, post_all

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
LAST = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
INTERIM = b"HTTP/1.1 103 Early Hints\r\n\r\n"
SECONDS = 20.0


@dataclass
class Message:
    number: int
    headers: dict[str, str] = field(default_factory=lambda: {"ce-id": "1"})

    @property
    def body(self) -> bytes:
        return str(self.number).encode()


class Server:
    """Responds to each request with what ``respond`` returns for the number in its body."""

    def __init__(self) -> None:
        self.respond: Callable[[int], bytes] = lambda _: ACCEPTED
        self.connections = 0
        self.received: list[int] = []
        self.heads: list[bytes] = []
        self.pipelined = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = urlsplit(f"http://127.0.0.1:{self._listener.getsockname()[1]}/ingress")
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            data = b""
            while chunk := connection.recv(65_536):
                data += chunk
                head, _, body = data.partition(b"\r\n\r\n")
                length = int(head.rpartition(b"Content-Length: ")[2] or 0)
                if not body or len(body) < length:
                    continue
                self.pipelined += len(body) > length
                self.received.append(int(body))
                self.heads.append(head)
                data = b""
                response = self.respond(int(body))
                connection.sendall(response)
                if not response or response == LAST:
                    return


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


def post(server: Server, count: int, *, seconds: float = SECONDS) -> dict[int, int]:
    """The status of each message that got a response."""
    statuses: dict[int, int] = {}

    def record(message: Message, status: int) -> bool:
        statuses[message.number] = status
        return status != 503

    messages = map(Message, range(count))
    post_all(server.url, messages, record, seconds=seconds, attempts=ConnectionAttempts())
    return statuses


def test_every_message_is_posted_once_without_pipelining(server: Server) -> None:
    assert post(server, 300) == dict.fromkeys(range(300), 202)

    assert sorted(server.received) == list(range(300))
    assert server.connections <= CONNECTIONS_MAX
    assert server.pipelined == 0
    assert server.heads[0].split(b"\r\n")[:3] == [
        b"POST /ingress HTTP/1.1",
        f"Host: {server.url.netloc}".encode(),
        b"ce-id: 1",
    ]


def test_requests_are_open_at_the_same_time(server: Server) -> None:
    barrier = threading.Barrier(CONNECTIONS_MAX)

    def respond(_: int) -> bytes:
        barrier.wait(SECONDS)
        return ACCEPTED

    server.respond = respond

    assert len(post(server, CONNECTIONS_MAX)) == CONNECTIONS_MAX


def test_no_message_makes_no_connection(server: Server) -> None:
    assert post(server, 0) == {}
    assert server.connections == 0


def test_connection_that_the_server_closes_is_replaced(server: Server) -> None:
    server.respond = lambda _: LAST

    assert post(server, 50) == dict.fromkeys(range(50), 202)
    assert server.connections == 50


def test_interim_response_is_not_the_response(server: Server) -> None:
    server.respond = lambda _: INTERIM + ACCEPTED

    assert post(server, 50) == dict.fromkeys(range(50), 202)


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 202", b"no HTTP at all\r\n\r\n"])
def test_message_without_a_response_does_not_stop_the_others(
    server: Server, response: bytes
) -> None:
    server.respond = lambda number: response if number == 7 else LAST

    statuses = post(server, 50, seconds=3.0)

    assert statuses == {number: 202 for number in range(50) if number != 7}
    assert server.received.count(7) == 1


def test_no_message_is_sent_after_the_caller_stops(server: Server) -> None:
    server.respond = lambda _: UNAVAILABLE

    statuses = post(server, 1000)

    assert set(statuses.values()) == {503}
    assert len(server.received) <= CONNECTIONS_MAX


def test_no_message_is_sent_when_the_time_is_over(server: Server) -> None:
    is_over = threading.Event()

    def respond(_: int) -> bytes:
        is_over.wait(SECONDS)
        return ACCEPTED

    server.respond = respond

    assert post(server, 1000, seconds=0.2) == {}
    assert len(server.received) <= CONNECTIONS_MAX
    is_over.set()


def test_post_to_a_closed_port_sends_nothing(server: Server) -> None:
    server.url = urlsplit("http://127.0.0.1:1/")

    assert post(server, 100) == {}
