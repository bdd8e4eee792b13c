"""A TCP proxy that counts round trips: how often the caller spoke after the server had spoken."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

CHUNK = 65_536


class CountingProxy:
    """Listens on a free port of 127.0.0.1 and passes bytes on; a context manager.

    ``round_trips`` counts, over all connections, every time the side that connected sends
    something for the first time or after an answer: what a network's latency is paid for.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._wires: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
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
            wires, self._wires = self._wires, []
        for wire in (self._listener, *wires):
            with suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)
            wire.close()

    def forget(self) -> None:
        """Starts counting from nought."""
        with self._lock:
            self.round_trips = 0

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                spoken = _Turns()
                with self._lock:
                    self.connections += 1
                    self._wires += [caller, server]
                for source, sink, is_caller in ((caller, server, True), (server, caller, False)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    arguments = (source, sink, spoken, is_caller)
                    threading.Thread(target=self._pass_on, args=arguments, daemon=True).start()

    def _pass_on(
        self, source: socket.socket, sink: socket.socket, spoken: _Turns, is_caller: bool
    ) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                with self._lock:
                    if is_caller and not spoken.caller_spoke_last:
                        self.round_trips += 1
                    spoken.caller_spoke_last = is_caller
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


class _Turns:
    """Whose turn it is on one connection."""

    def __init__(self) -> None:
        self.caller_spoke_last = False
