"""Reads PostgreSQL's protocol on its way: where a COMMIT goes by, and where it is answered.

Protocol 3.0 ("Message Formats" of PostgreSQL's documentation): a message is a type byte and a
length that counts itself; only the first one of a client has no type.
"""

from __future__ import annotations

from collections.abc import Iterator

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
COMMIT = b"commit"
ANSWERED = b"COMMIT\x00"


class Frontend:
    """The client's side: yields the kind and payload of every message as its bytes complete it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_started = False
        self._commits: set[bytes] = set()

    def feed(self, data: bytes) -> bool:
        """Whether these bytes complete a message that asks for a COMMIT."""
        self._buffer += data
        return any([self._asks_for_commit(kind, payload) for kind, payload in self._messages()])

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        while True:
            if not self._is_started:
                if len(self._buffer) < 8:
                    return
                length = int.from_bytes(self._buffer[:4], "big")
                code = int.from_bytes(self._buffer[4:8], "big")
                if len(self._buffer) < length:
                    return
                del self._buffer[:length]
                self._is_started = code not in (SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST)
                continue
            if len(self._buffer) < 5:
                return
            length = int.from_bytes(self._buffer[1:5], "big")
            if len(self._buffer) < 1 + length:
                return
            kind, payload = self._buffer[0], bytes(self._buffer[5 : 1 + length])
            del self._buffer[: 1 + length]
            yield kind, payload

    def _asks_for_commit(self, kind: int, payload: bytes) -> bool:
        """A simple query, or an unnamed or prepared statement that is executed."""
        if kind == ord("Q"):
            return payload.rstrip(b"\x00").strip().lower() == COMMIT
        if kind == ord("P"):
            name, query, _ = payload.split(b"\x00", 2)
            known = self._commits.add if query.strip().lower() == COMMIT else self._commits.discard
            known(name)
        elif kind == ord("B"):
            _, name, _ = payload.split(b"\x00", 2)
            return name in self._commits
        return False


class Backend:
    """The server's side: whether it has said COMMIT."""

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, data: bytes) -> bool:
        """Whether these bytes, with those before, hold a CommandComplete of COMMIT."""
        text = self._tail + data
        self._tail = text[-16:]
        return b"C\x00\x00\x00\x0b" + ANSWERED in text
