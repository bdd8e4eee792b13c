"""Forwards connections and applies the toxics of their edge."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from random import Random

from httptools import HttpParserError, HttpRequestParser

from chaos.proxy.postgres_protocol import CommitReply, CommitRequests
from chaos.proxy.toxics import REQUIRED_PROTOCOL, Protocol, Toxic, ToxicKind

HOST = "127.0.0.1"
# SO_LINGER with a timeout of 0: closing sends RST instead of FIN.
LINGER_ZERO = struct.pack("ii", 1, 0)
SLICE_SECONDS = 0.0005
SLICES_MAX = 400
ORDER_SECONDS = 1e-6
DUPLICATE_SECONDS_MAX = 30


class Edge:
    """One proxied server, its toxics, its connections and its metrics."""

    def __init__(self, upstream_port: int, protocol: Protocol, random: Random) -> None:
        self.upstream_port = upstream_port
        self.protocol = protocol
        self.random = random
        self.links: set[Link] = set()
        self.metrics: Counter[str] = Counter()
        self._toxics: dict[ToxicKind, Toxic] = {}

    @property
    def toxics(self) -> list[Toxic]:
        """The active toxics."""
        return list(self._toxics.values())

    def toxic(self, kind: ToxicKind) -> Toxic | None:
        """The active toxic of this kind."""
        return self._toxics.get(kind)

    def add(self, toxic: Toxic) -> None:
        """Activates a toxic; raises ValueError when the edge has another protocol."""
        if REQUIRED_PROTOCOL.get(toxic.kind, self.protocol) != self.protocol:
            raise ValueError(f"{toxic.kind} cannot be applied to the protocol {self.protocol}")
        self._toxics.pop(toxic.kind, None)
        self._toxics[toxic.kind] = toxic
        for link in list(self.links):
            link.apply(toxic)

    def remove_toxics(self) -> None:
        """Removes all toxics."""
        self._toxics.clear()
        for link in list(self.links):
            link.recover()

    def is_drawn(self, toxic: Toxic) -> bool:
        """Draws by the toxic's probability whether to apply it."""
        return self.random.random() < toxic.probability


class Link:
    """A client's connection and the connection to the server behind it."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.client: Peer | None = None
        self.server: Peer | None = None
        self._early: list[bytes] = []
        self._affected_by: set[ToxicKind] = set()
        self._has_traffic = False
        self._commits = CommitRequests() if edge.protocol == "postgres" else None
        self._commit_reply: CommitReply | None = None
        self._requests = RequestDuplicator(edge) if edge.protocol == "http" else None
        edge.links.add(self)
        edge.metrics["connections"] += 1
        for toxic in edge.toxics:
            self.apply(toxic)

    def apply(self, toxic: Toxic) -> None:
        """Draws whether a toxic that affects whole connections affects this one."""
        if toxic.kind in REQUIRED_PROTOCOL or not self.edge.is_drawn(toxic):
            return
        self.edge.metrics[toxic.kind] += 1
        self._affected_by.add(toxic.kind)
        if toxic.kind == "down" or (toxic.kind == "reset" and self._has_traffic):
            self.reset()

    def recover(self) -> None:
        """Ends the toxics; a connection in a black hole has lost data and is reset."""
        was_black_hole = "black_hole" in self._affected_by
        self._affected_by.clear()
        if was_black_hole:
            self.reset()

    async def connect(self) -> None:
        """Connects to the server; resets the client's connection when that fails."""
        if "down" in self._affected_by:
            self.reset()
            return
        loop = asyncio.get_running_loop()
        try:
            _, peer = await loop.create_connection(
                lambda: Peer(self, is_client=False), HOST, self.edge.upstream_port
            )
        except OSError:
            self.reset()
            return
        self.server = peer
        early, self._early = self._early, []
        for data in early:
            self._forward(peer, data)

    def receive(self, data: bytes, *, from_client: bool) -> None:
        """Forwards the bytes of one side to the other, as the toxics allow."""
        self.edge.metrics["bytes"] += len(data)
        self._has_traffic = True
        if "black_hole" in self._affected_by:
            return
        if "reset" in self._affected_by:
            self.reset()
            return
        if from_client:
            self._receive_from_client(data)
        elif self._commit_reply is not None:
            self._hold_commit_reply(self._commit_reply, data)
        elif self.client is not None:
            self._forward(self.client, data)

    def close_other_side(self, *, is_client: bool) -> None:
        """One side has closed its connection: closes the other."""
        self.edge.links.discard(self)
        other = self.server if is_client else self.client
        if other is not None:
            other.close()

    def reset(self) -> None:
        """Sends RST to both sides."""
        self.edge.links.discard(self)
        for peer in (self.client, self.server):
            if peer is not None:
                peer.reset()

    def _receive_from_client(self, data: bytes) -> None:
        if self._commits is not None and self._commits.feed(data):
            toxic = self.edge.toxic("drop_commit_reply")
            if toxic is not None and self.edge.is_drawn(toxic):
                self._commit_reply = CommitReply()
        if self._requests is not None:
            self._requests.feed(data)
        if self.server is None:
            self._early.append(data)
        else:
            self._forward(self.server, data)

    def _hold_commit_reply(self, reply: CommitReply, data: bytes) -> None:
        """Holds the server's replies back until the COMMIT is complete, then resets."""
        if reply.feed(data):
            self.edge.metrics["drop_commit_reply"] += 1
            self.reset()
        elif reply.is_failure:
            # without a commit nothing is ambiguous: the client gets the reply
            self._commit_reply = None
            if self.client is not None:
                self._forward(self.client, reply.data)

    def _forward(self, peer: Peer, data: bytes) -> None:
        latency, bandwidth = self.edge.toxic("latency"), self.edge.toxic("bandwidth")
        if "slicer" in self._affected_by:
            peer.write_sliced(data)
        elif latency is not None and "latency" in self._affected_by:
            jitter = self.edge.random.uniform(-latency.jitter_ms, latency.jitter_ms)
            peer.write_delayed(data, max(0.0, latency.latency_ms + jitter) / 1000)
        elif bandwidth is not None and "bandwidth" in self._affected_by:
            peer.write_after_previous(data, len(data) / (bandwidth.kilobytes_per_second * 1024))
        else:
            peer.write(data)


class Peer(asyncio.Protocol):
    """One side of a link; writes keep their order."""

    def __init__(self, link: Link, *, is_client: bool) -> None:
        self._link = link
        self._is_client = is_client
        self._transport: asyncio.Transport | None = None
        self._last_write_at = 0.0
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
        self._link.receive(data, from_client=self._is_client)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (of asyncio)
        self._transport = None
        self._link.close_other_side(is_client=self._is_client)

    def write(self, data: bytes) -> None:
        """Writes now, or after earlier writes that are still scheduled."""
        if self._last_write_at > asyncio.get_running_loop().time():
            self.write_after_previous(data, 0.0)
        else:
            self._write_now(data)

    def write_after_previous(self, data: bytes, seconds: float) -> None:
        """Writes ``seconds`` after the previous write."""
        loop = asyncio.get_running_loop()
        # a later time than the previous one: the loop does not order callbacks of equal time
        self._last_write_at = max(self._last_write_at, loop.time()) + max(seconds, ORDER_SECONDS)
        loop.call_at(self._last_write_at, self._write_now, data)

    def write_delayed(self, data: bytes, seconds: float) -> None:
        """Writes ``seconds`` after the arrival of the data: delays of several writes overlap."""
        loop = asyncio.get_running_loop()
        self._last_write_at = max(self._last_write_at + ORDER_SECONDS, loop.time() + seconds)
        loop.call_at(self._last_write_at, self._write_now, data)

    def write_sliced(self, data: bytes) -> None:
        """Writes byte by byte, long data in up to about 400 slices."""
        size = max(1, len(data) // SLICES_MAX)
        for start in range(0, len(data), size):
            self.write_after_previous(data[start : start + size], SLICE_SECONDS)

    def close(self) -> None:
        """Closes after the scheduled writes."""
        loop = asyncio.get_running_loop()
        if self._transport is not None:
            loop.call_at(max(self._last_write_at, loop.time()), self._close_now)

    def reset(self) -> None:
        """Sends RST."""
        if self._transport is not None:
            connection: socket.socket = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
            self._transport.abort()

    def _write_now(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close_now(self) -> None:
        if self._transport is not None:
            self._transport.close()


class RequestDuplicator:
    """Parses the requests of one HTTP connection and sends some a second time."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._bytes = bytearray()
        self._is_complete = False
        self._parser = HttpRequestParser(self)
        self._tasks: set[asyncio.Task[None]] = set()

    def feed(self, data: bytes) -> None:
        """Handles bytes of the client; a request that they complete may be duplicated."""
        self._bytes += data
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._parser = HttpRequestParser(self)
            self._bytes.clear()
        if self._is_complete:
            self._is_complete = False
            request, self._bytes = bytes(self._bytes), bytearray()
            toxic = self._edge.toxic("duplicate_request")
            if toxic is not None and self._edge.is_drawn(toxic):
                self._edge.metrics[toxic.kind] += 1
                task = asyncio.ensure_future(_send(self._edge.upstream_port, request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._is_complete = True


async def _send(port: int, request: bytes) -> None:
    """Sends a request on a separate connection and discards the response."""
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(request)
        async with asyncio.timeout(DUPLICATE_SECONDS_MAX):
            await reader.read(65_536)
        writer.close()
    except (OSError, TimeoutError):
        return
