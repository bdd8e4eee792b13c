"""A load generator: one process, one thread, raw sockets, so that it is never what is measured.

A request is bytes with ``KEY`` in it, where each sending puts 32 fresh hexadecimal digits.  Every
client keeps its connection and sends its next request when the last is answered (closed loop).
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import socket
from dataclasses import dataclass, field
from time import perf_counter

from tools.bench.processes import content_length, own_cpu_seconds

KEY = b"KEYKEYKEYKEYKEYKEYKEYKEYKEYKEYKE"


@dataclass
class Load:
    """What came back: latencies in ms (sorted) and how often each status, over ``seconds``."""

    seconds: float
    latencies_ms: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    client_cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return len(self.latencies_ms) / self.seconds


@dataclass
class _Client:
    wire: socket.socket
    turn: int
    sent_at: float = 0.0
    received: bytes = b""
    awaited: int = -1


def load(port: int, requests: list[bytes], *, clients: int, seconds: float) -> Load:
    """Sends ``requests`` in turn from ``clients`` connections for ``seconds``; its own process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run, args=(theirs, port, requests, clients, seconds))
    process.start()
    theirs.close()
    try:
        answer: Load = ours.recv()
    except EOFError as error:
        raise RuntimeError("the load generator failed; its own words are above") from error
    finally:
        process.join()
    return answer


def _run(pipe: object, port: int, requests: list[bytes], clients: int, seconds: float) -> None:
    pipe.send(_drive(port, requests, clients, seconds))  # type: ignore[attr-defined]


def _drive(port: int, requests: list[bytes], clients: int, seconds: float) -> Load:
    selector = selectors.DefaultSelector()
    result = Load(seconds)
    for number in range(clients):
        wire = socket.create_connection(("127.0.0.1", port))
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = _Client(wire, number * len(requests) // clients)
        selector.register(wire, selectors.EVENT_READ, client)
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
    request = requests[client.turn % len(requests)].replace(KEY, os.urandom(16).hex().encode())
    client.turn += 1
    client.received, client.awaited = b"", -1
    client.sent_at = perf_counter()
    client.wire.sendall(request)


def _received(client: _Client, result: Load) -> bool:
    """True when the answer is whole; it is counted then."""
    data = client.wire.recv(262_144)
    if not data:
        raise ConnectionError(f"the server hung up after {client.received[:200]!r}")
    client.received += data
    if client.awaited < 0:
        head, blank, _ = client.received.partition(b"\r\n\r\n")
        if not blank:
            return False
        client.awaited = len(head) + 4 + content_length(head)
    if len(client.received) < client.awaited:
        return False
    result.latencies_ms.append((perf_counter() - client.sent_at) * 1000)
    status = int(client.received[9:12])
    result.statuses[status] = result.statuses.get(status, 0) + 1
    return True
