"""A TCP proxy that counts round trips: how often the client sends after the server has replied."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK = 65_536


class CountingProxy:
    """Listens on ``own_port`` (by default a free one) of 127.0.0.1 and forwards bytes.

    ``round_trips`` counts, over all connections, each time that the client sends something for the
    first time or after a reply, which is how often it waits for the network.
    """

    def __init__(self, host: str, port: int, own_port: int = 0) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", own_port))
        self.port: int = self._listener.getsockname()[1]
        self.round_trips = 0
        self.connections = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in (self._listener, *sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def reset(self) -> None:
        """Resets the count to zero."""
        with self._lock:
            self.round_trips = 0

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                turn = _Turn()
                with self._lock:
                    self.connections += 1
                    self._sockets += [caller, server]
                for source, sink, is_caller in ((caller, server, True), (server, caller, False)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    arguments = (source, sink, turn, is_caller)
                    threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(
        self, source: socket.socket, sink: socket.socket, turn: _Turn, is_caller: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                with self._lock:
                    if is_caller and not turn.caller_sent_last:
                        self.round_trips += 1
                    turn.caller_sent_last = is_caller
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


class _Turn:
    """Whose turn it is on one connection."""

    def __init__(self) -> None:
        self.caller_sent_last = False
