"""The proxy process: ``python -m chaos.proxy``, steered by JSON lines on stdin.

Without a toxic bytes pass as they come.  Everything listens on and connects to 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from httptools import HttpParserError, HttpRequestParser

from chaos.postgres_protocol import Backend, Frontend
from chaos.toxics import NEEDS, Speaks, Toxic

HOST = "127.0.0.1"
AT_ONCE = struct.pack("ii", 1, 0)
SLICE_SECONDS = 0.0005
SLICES_MAX = 400
ORDER_SECONDS = 1e-6


class Edge:
    """One edge: where it leads, its toxics, its connections, and what fired how often."""

    def __init__(self, name: str, upstream_port: int, speaks: Speaks, dice: Random) -> None:
        self.name = name
        self.upstream_port = upstream_port
        self.speaks = speaks
        self.dice = dice
        self.toxics: list[Toxic] = []
        self.links: set[Link] = set()
        self.figures: Counter[str] = Counter()
        self.port = 0

    def fires(self, toxic: Toxic) -> bool:
        """Throws the dice for a toxic; counts it when it fires."""
        is_used_up = toxic.times is not None and self.figures[toxic.kind] >= toxic.times
        if is_used_up or self.dice.random() >= toxic.probability:
            return False
        self.figures[toxic.kind] += 1
        return True

    def toxic(self, kind: str) -> Toxic | None:
        """The toxic of a kind that is on."""
        return next((toxic for toxic in self.toxics if toxic.kind == kind), None)

    def put(self, toxic: Toxic) -> None:
        """From now on; a wrong one raises ValueError."""
        if NEEDS.get(toxic.kind, self.speaks) != self.speaks:
            raise ValueError(f"{toxic.kind} is nothing for an edge that speaks {self.speaks}")
        self.toxics = [other for other in self.toxics if other.kind != toxic.kind] + [toxic]
        for link in list(self.links):
            link.meet(toxic)

    def heal(self) -> None:
        """No toxics; what was held back for ever is hung up."""
        self.toxics = []
        for link in list(self.links):
            link.recover()


class Link:
    """A client's connection and ours to the server behind it."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.client: Pipe | None = None
        self.server: Pipe | None = None
        self._early: list[bytes] = []
        self._ill: set[str] = set()
        self._passed = 0
        self._frontend = Frontend() if edge.speaks == "postgres" else None
        self._backend: Backend | None = None
        self._held = b""
        self._requests = Requests(self) if edge.speaks == "http" else None
        edge.links.add(self)
        edge.figures["connections"] += 1
        for toxic in edge.toxics:
            self.meet(toxic)

    def meet(self, toxic: Toxic) -> None:
        """Decides whether this connection falls ill of a toxic that works on whole connections."""
        if toxic.kind in NEEDS or not self.edge.fires(toxic):
            return
        self._ill.add(toxic.kind)
        if toxic.kind == "down" or (toxic.kind == "reset" and self._passed):
            self.reset()

    def recover(self) -> None:
        """The fault is over; whoever was told nothing is told that it is over."""
        was_silent = "black_hole" in self._ill
        self._ill.clear()
        if was_silent:
            self.reset()

    async def connect(self) -> None:
        """Reaches the server; the client sees a reset when nobody is there."""
        if "down" in self._ill:
            self.reset()
            return
        loop = asyncio.get_running_loop()
        try:
            _, pipe = await loop.create_connection(
                lambda: Pipe(self, is_client=False), HOST, self.edge.upstream_port
            )
        except OSError:
            self.reset()
            return
        self.server = pipe
        early, self._early = self._early, []
        for data in early:
            self._forward(pipe, data)

    def received(self, data: bytes, *, from_client: bool) -> None:
        """Bytes of one side, on their way to the other."""
        self.edge.figures["bytes"] += len(data)
        self._passed += len(data)
        if "black_hole" in self._ill:
            return
        if "reset" in self._ill:
            self.reset()
            return
        if from_client:
            self._from_client(data)
        elif self._backend is not None:
            self._await_commit(data)
        elif self.client is not None:
            self._forward(self.client, data)

    def lost(self, *, is_client: bool) -> None:
        """One side hung up; so do we on the other."""
        self.edge.links.discard(self)
        other = self.server if is_client else self.client
        if other is not None:
            other.close()

    def reset(self) -> None:
        """RST to both sides."""
        self.edge.links.discard(self)
        for pipe in (self.client, self.server):
            if pipe is not None:
                pipe.reset()

    def _from_client(self, data: bytes) -> None:
        if self._frontend is not None and self._frontend.feed(data):
            toxic = self.edge.toxic("swallow_commit_reply")
            throws = toxic is not None and self.edge.dice.random() < toxic.probability
            if toxic is not None and throws and not self._is_used_up(toxic):
                self._backend = Backend()
        if self._requests is not None:
            self._requests.feed(data)
        if self.server is None:
            self._early.append(data)
        else:
            self._forward(self.server, data)

    def _is_used_up(self, toxic: Toxic) -> bool:
        return toxic.times is not None and self.edge.figures[toxic.kind] >= toxic.times

    def _await_commit(self, data: bytes) -> None:
        """The server's answers are kept until it says COMMIT; then the client learns nothing."""
        assert self._backend is not None
        self._held += data
        if self._backend.feed(data):
            self.edge.figures["swallow_commit_reply"] += 1
            self.reset()
        elif self._held.endswith((b"Z\x00\x00\x00\x05I", b"Z\x00\x00\x00\x05E")):
            # it was refused: that is no ambiguity, and the client may know
            self._backend = None
            held, self._held = self._held, b""
            if self.client is not None:
                self._forward(self.client, held)

    def _forward(self, pipe: Pipe, data: bytes) -> None:
        latency, bandwidth = self.edge.toxic("latency"), self.edge.toxic("bandwidth")
        if "slicer" in self._ill and self.edge.toxic("slicer") is not None:
            pipe.write_sliced(data)
        elif latency is not None and "latency" in self._ill:
            jitter = self.edge.dice.uniform(-latency.jitter_ms, latency.jitter_ms)
            pipe.write_delayed(data, max(0.0, latency.latency_ms + jitter) / 1000)
        elif bandwidth is not None and "bandwidth" in self._ill:
            pipe.write_later(data, len(data) / (bandwidth.kilobytes_per_second * 1024))
        else:
            pipe.write(data)


class Pipe(asyncio.Protocol):
    """One side of a link; what is written comes out in the order it was written."""

    def __init__(self, link: Link, *, is_client: bool) -> None:
        self._link = link
        self._is_client = is_client
        self._transport: asyncio.Transport | None = None
        self._last_at = 0.0
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        connection: socket.socket = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._is_client:
            self._link.client = self
            self._connecting = asyncio.ensure_future(self._link.connect())

    def data_received(self, data: bytes) -> None:
        self._link.received(data, from_client=self._is_client)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._link.lost(is_client=self._is_client)

    def write(self, data: bytes) -> None:
        """Now, unless something written before is still on its way."""
        now = asyncio.get_running_loop().time()
        if self._last_at > now:
            self.write_later(data, 0.0)
        else:
            self._write_out(data)

    def write_later(self, data: bytes, seconds: float) -> None:
        """After ``seconds``, and after everything written before."""
        loop = asyncio.get_running_loop()
        # later than what was written before: the loop keeps no order among equal times
        self._last_at = max(self._last_at, loop.time()) + max(seconds, ORDER_SECONDS)
        loop.call_at(self._last_at, self._write_out, data)

    def write_delayed(self, data: bytes, seconds: float) -> None:
        """``seconds`` after its arrival: the delays of successive writes overlap."""
        loop = asyncio.get_running_loop()
        self._last_at = max(self._last_at + ORDER_SECONDS, loop.time() + seconds)
        loop.call_at(self._last_at, self._write_out, data)

    def write_sliced(self, data: bytes) -> None:
        """A byte at a time; the rest of something long in as many slices as there are bytes."""
        size = max(1, len(data) // SLICES_MAX)
        for start in range(0, len(data), size):
            self.write_later(data[start : start + size], SLICE_SECONDS)

    def close(self) -> None:
        """After what was written is out."""
        loop = asyncio.get_running_loop()
        if self._transport is not None:
            loop.call_at(max(self._last_at, loop.time()), self._close)

    def reset(self) -> None:
        """RST (SO_LINGER with no time)."""
        if self._transport is not None:
            connection: socket.socket = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            self._transport.abort()

    def _write_out(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Requests:
    """The requests of one HTTP connection; some are sent once more over another one."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._bytes = bytearray()
        self._is_whole = False
        self._parser = HttpRequestParser(self)
        self._tasks: set[asyncio.Task[None]] = set()

    def feed(self, data: bytes) -> None:
        """Bytes of the client; a request whose end is among them may be doubled."""
        self._bytes += data
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._parser = HttpRequestParser(self)
            self._bytes.clear()
        if self._is_whole:
            self._is_whole = False
            request, self._bytes = bytes(self._bytes), bytearray()
            toxic = self._link.edge.toxic("duplicate_request")
            if toxic is not None and self._link.edge.fires(toxic):
                task = asyncio.ensure_future(_send_again(self._link.edge.upstream_port, request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._is_whole = True


async def _send_again(port: int, request: bytes) -> None:
    """The same request on another connection; nobody reads what it is answered."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(request)
        async with asyncio.timeout(30):
            await reader.read(65_536)
        writer.close()
    except (OSError, TimeoutError):
        return


class Control:
    """Takes commands: ``open``, ``put``, ``heal``, ``figures``."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._edges: dict[str, Edge] = {}
        self._servers: list[asyncio.Server] = []

    async def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer to one command; ``error`` says what was wrong with it."""
        act: dict[str, Callable[[dict[str, Any]], Any]] = {
            "put": self._put,
            "heal": self._heal,
            "figures": self._figures,
        }
        try:
            if command["do"] == "open":
                return {"port": await self._open(command)}
            return {"done": act[command["do"]](command)}
        except (KeyError, ValueError, TypeError, OSError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    async def _open(self, command: dict[str, Any]) -> int:
        name = command["edge"]
        dice = Random(f"{self._seed} {name}")  # noqa: S311 (repeatable, not secret)
        edge = Edge(name, command["upstream_port"], command["speaks"], dice)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Pipe(Link(edge), is_client=True), HOST, command["listen_port"], backlog=512
        )
        self._servers.append(server)
        edge.port = server.sockets[0].getsockname()[1]
        self._edges[name] = edge
        return edge.port

    def _put(self, command: dict[str, Any]) -> None:
        self._edges[command["edge"]].put(Toxic(**command["toxic"]))

    def _heal(self, command: dict[str, Any]) -> None:
        name = command.get("edge")
        for edge in self._edges.values() if name is None else [self._edges[name]]:
            edge.heal()

    def _figures(self, _: dict[str, Any]) -> dict[str, dict[str, int]]:
        return {name: dict(edge.figures) for name, edge in self._edges.items()}


async def serve(seed: int) -> None:
    """Obeys until standard input ends, which it does when the run ends, however it ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    control = Control(seed)
    while line := await reader.readline():
        command = json.loads(line)
        answer = {"id": command["id"], **await control.obey(command)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
