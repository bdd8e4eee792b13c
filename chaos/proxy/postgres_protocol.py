"""Detects COMMIT requests and their replies in PostgreSQL's wire protocol.

Protocol 3.0 ("Message Formats" in PostgreSQL's documentation): a message is a type byte and a
length that includes itself; only the first message of a client has no type.
"""

from __future__ import annotations

from collections.abc import Iterator

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
COMMIT = b"commit"
# The type, length and text of CommandComplete.
COMMIT_COMPLETE = b"C\x00\x00\x00\x0bCOMMIT\x00"
# ReadyForQuery: outside of a transaction block, or in a failed one.
READY_IDLE, READY_FAILED = b"Z\x00\x00\x00\x05I", b"Z\x00\x00\x00\x05E"


class CommitRequests:
    """Parses the bytes of a client."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._is_started = False
        self._commit_statements: set[bytes] = set()

    def feed(self, data: bytes) -> bool:
        """Whether these bytes complete a message that requests a COMMIT."""
        self._buffer += data
        return any([self._is_commit(kind, payload) for kind, payload in self._messages()])

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        """Type and payload of every complete message after the startup."""
        while self._is_started or self._read_startup():
            if len(self._buffer) < 5:
                return
            length = int.from_bytes(self._buffer[1:5], "big")
            if len(self._buffer) < 1 + length:
                return
            kind, payload = self._buffer[0], bytes(self._buffer[5 : 1 + length])
            del self._buffer[: 1 + length]
            yield kind, payload

    def _read_startup(self) -> bool:
        """Removes requests before the startup message, and it; whether it was complete."""
        while not self._is_started:
            if len(self._buffer) < 8:
                return False
            length = int.from_bytes(self._buffer[:4], "big")
            code = int.from_bytes(self._buffer[4:8], "big")
            if len(self._buffer) < length:
                return False
            del self._buffer[:length]
            self._is_started = code not in (SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST)
        return True

    def _is_commit(self, kind: int, payload: bytes) -> bool:
        """Whether this is a simple query COMMIT or binds a statement that was parsed as one."""
        if kind == ord("Q"):
            return payload.rstrip(b"\x00").strip().lower() == COMMIT
        if kind == ord("P"):
            name, query, _ = payload.split(b"\x00", 2)
            if query.strip().lower() == COMMIT:
                self._commit_statements.add(name)
            else:
                self._commit_statements.discard(name)
        elif kind == ord("B"):
            _, name, _ = payload.split(b"\x00", 2)
            return name in self._commit_statements
        return False


class CommitReply:
    """Collects the bytes of a server after a COMMIT request."""

    def __init__(self) -> None:
        self.data = b""

    def feed(self, data: bytes) -> bool:
        """Whether the bytes so far contain the CommandComplete of a COMMIT."""
        start = max(0, len(self.data) - len(COMMIT_COMPLETE))
        self.data += data
        return self.data.find(COMMIT_COMPLETE, start) >= 0

    @property
    def is_failure(self) -> bool:
        """Whether the server has replied without committing."""
        return self.data.endswith((READY_IDLE, READY_FAILED))
