"""A load generator of one process, one thread and raw sockets, so that its own cost stays small.

In each request the bytes ``KEY`` are replaced by 32 random hexadecimal digits before it is sent.
Every client keeps its connection and sends the next request after the response (closed loop).
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import socket
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter

from tools.bench.processes import content_length, own_cpu_seconds

KEY = b"KEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKE"


@dataclass
class Load:
    """Sorted latencies in milliseconds and the count of each status, over ``seconds``."""

    seconds: float
    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    client_cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Responses per second."""
        return len(self.latencies_ms) / self.seconds


@dataclass
class _Client:
    connection: socket.socket
    next_request: int
    sent_at: float = 0.0
    received: bytes = b""
    expected_bytes: int = -1


def load(port: int, requests: list[bytes], *, clients: int, seconds: float) -> Load:
    """Sends ``requests`` in turn over ``clients`` connections for ``seconds``, in a new process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, port, requests, clients, seconds))
    process.start()
    theirs.close()
    try:
        result: Load = ours.recv()
    except EOFError as error:
        raise RuntimeError("the load generator failed; its traceback is above") from error
    finally:
        process.join()
    return result


def _run(pipe: Connection, port: int, requests: list[bytes], clients: int, seconds: float) -> None:
    pipe.send(_drive(port, requests, clients, seconds))


def _drive(port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    selector = selectors.DefaultSelector()
    result = Load(seconds)
    for number in range(clients):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(connection, number * len(requests) // clients)
        selector.register(connection, selectors.EVENT_READ, client)
        _send(client, requests)
    began = perf_counter()
    end = began + seconds
    while (now := perf_counter()) < end:
        for key, _ in selector.select(timeout=end - now):
            client = key.data
            if _received(client, result):
                _send(client, requests)
    result.seconds = perf_counter() - began
    result.latencies_ms.sort()
    result.client_cpu_seconds = own_cpu_seconds()
    return result


def _send(client: _Client, requests: list[bytes]) -> None:
    request = requests[client.next_request % len(requests)].replace(
        KEY, os.urandom(16).hex().encode()
    )
    client.next_request += 1
    client.received, client.expected_bytes = b"", -1
    client.sent_at = perf_counter()
    client.connection.sendall(request)


def _received(client: _Client, result: Load) -> bool:
    """Reads from a connection; counts the response and returns True when it is complete."""
    data = client.connection.recv(262_144)
    if not data:
        raise ConnectionError(f"the server closed the connection after {client.received[:200]!r}")
    client.received += data
    if client.expected_bytes < 0:
        head, blank, _ = client.received.partition(b"\r\n\r\n")
        if not blank:
            return False
        client.expected_bytes = len(head) + 4 + content_length(head)
    if len(client.received) < client.expected_bytes:
        return False
    result.latencies_ms.append((perf_counter() - client.sent_at) * 1000)
    status = int(client.received[9:12])
    result.statuses[status] = result.statuses.get(status, 0) + 1
    return True
