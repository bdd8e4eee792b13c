"""Redis as a cache that may be empty, slow or unavailable: a minimal RESP2 client.

The shop needs seven commands and one guarantee: **a cache never raises and never delays a request
for long**.  Whatever fails (no server, no response in time, undecodable bytes, a key of another
type), the result is ``None``; after a failure nothing is sent for a second.  ADR 0005 compares the
import time with redis-py's.

Protocol: RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/).  Works with Redis 7
or later (``PEXPIRE … NX``) and Valkey.
"""

from __future__ import annotations

import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from shop.adapters.connection_attempts import ConnectionAttempts

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

TIMEOUT_SECONDS = 0.05
CONNECT_TIMEOUTS = 4  # connecting may take this many times longer than a response: DNS, TLS, AUTH
BREAKER_SECONDS = 1.0
ADDRESSES_SECONDS = 30.0
IDLE_MAX = 8
LINE_BYTES_MAX = 1_024
VALUE_BYTES_MAX = 8 * 1_024 * 1_024
VALUES_MAX = 1_024
COUNT_DIGITS_MAX = 19
RECEIVE_BYTES = 65_536

Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]
Command = tuple[str | bytes | int, ...]


class ErrorReply:
    """An error reply, such as WRONGTYPE: the command failed, the connection is usable."""


ERROR_REPLY = ErrorReply()

# simple strings are str, bulk strings bytes, so "+OK" is never mistaken for a stored value
Reply = str | bytes | int | None | ErrorReply | list["Reply"]


class _ProtocolError(Exception):
    """The server sent something other than RESP2, or closed the connection."""


class Cache:
    """A Redis that may be unavailable; thread-safe.

    ``Cache(None)`` is always empty.  ``url`` is ``redis://`` or ``rediss://`` (TLS),
    ``[user][:password]@host[:port][/database]``; ValueError when it is neither.
    ``timeout_seconds`` limits each call as a whole, also when the server sends byte by byte; a call
    that connects first may take ``CONNECT_TIMEOUTS`` times as long in addition.  After a failure
    nothing is sent for ``BREAKER_SECONDS``; then one caller tries while the others get ``None``.
    """

    def __init__(
        self,
        url: str | None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        attempts: ConnectionAttempts | None = None,
    ) -> None:
        attempts = attempts or ConnectionAttempts()
        self._server = _Server(url, timeout_seconds * CONNECT_TIMEOUTS, attempts) if url else None
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._closed_until = 0.0
        self.failures = 0

    def get(self, key: str) -> bytes | None:
        """The value of a key; None when there is none, or on failure."""
        reply = self._send(("GET", key))
        return reply if isinstance(reply, bytes) else None

    def get_many(self, *keys: str) -> list[bytes | None]:
        """The values of several keys in one round trip, in order."""
        reply = self._send(("MGET", *keys)) if keys else None
        if not isinstance(reply, list) or len(reply) != len(keys):
            return [None] * len(keys)
        return [value if isinstance(value, bytes) else None for value in reply]

    def set(self, key: str, value: str | bytes, ttl_seconds: float) -> bool:
        """Stores a value for ``ttl_seconds``; True when the server stored it."""
        return self._send(("SET", key, value, "PX", _milliseconds(ttl_seconds))) == "OK"

    def set_if_absent(self, key: str, value: str | bytes, ttl_seconds: float) -> bool | None:
        """True when this call stored the value, False when the key existed, None on failure."""
        replies = self._send_all(("SET", key, value, "NX", "PX", _milliseconds(ttl_seconds)))
        if not replies or replies[0] not in ("OK", None):
            return None
        return replies[0] == "OK"  # nil: the key existed

    def increment_beside(self, key: str, other: str, ttl_seconds: float) -> tuple[int, int] | None:
        """Adds one and reads another counter (0 when it does not exist) in one round trip.

        A sliding window is computed from the counts of this window and of the one before.  The
        counter expires ``ttl_seconds`` after its first increment: INCR and PEXPIRE NX are sent
        together, so a counter that lost its expiry gets one with the next increment.  None on
        failure.
        """
        expire = ("PEXPIRE", key, _milliseconds(ttl_seconds), "NX")
        replies = self._send_all(("INCR", key), expire, ("GET", other))
        if not replies or not isinstance(replies[0], int):
            return None
        beside = replies[2]
        if not isinstance(beside, bytes) or not beside.isdigit() or len(beside) > COUNT_DIGITS_MAX:
            return replies[0], 0
        return replies[0], int(beside)

    def close(self) -> None:
        """Closes the idle connections, at the end of the process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _send(self, command: Command) -> Reply:
        replies = self._send_all(command)
        return replies[0] if replies else None

    def _send_all(self, *commands: Command) -> list[Reply] | None:
        """The replies of one pipeline, or None.  An idle connection that was closed is replaced."""
        if self._server is None or not self._may_try():
            return None
        while True:
            connection = None
            reused = False
            try:
                connection, reused = self._borrow(self._server)
                replies = connection.send(commands, monotonic() + self._timeout_seconds)
            except (OSError, _ProtocolError) as error:
                if connection is not None:
                    connection.close()
                if reused and not isinstance(error, TimeoutError):
                    continue
                self._note_failure()
                return None
            self._give_back(connection)
            return replies

    def _may_try(self) -> bool:
        with self._lock:
            if self._closed_until == 0.0:
                return True
            if monotonic() < self._closed_until:
                return False
            # only this caller tries; until it succeeds the others send nothing
            self._closed_until = monotonic() + BREAKER_SECONDS
            return True

    def _note_failure(self) -> None:
        with self._lock:
            self.failures += 1
            self._closed_until = monotonic() + BREAKER_SECONDS
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _borrow(self, server: _Server) -> tuple[_Connection, bool]:
        with self._lock:
            if self._idle:
                return self._idle.pop(), True
        return server.connect(), False

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            self._closed_until = 0.0
            if len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()


def read_url(url: str) -> tuple[SplitResult, int]:
    """The parts of a Redis address and its database; ``ValueError`` when it is not one."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname or parts.port == 0:
        raise ValueError("is not an address such as redis://host:6379/0")
    database = parts.path.strip("/") or "0"
    if not database.isascii() or not database.isdigit() or parts.query or parts.fragment:
        raise ValueError("does not end with the number of a database")
    return parts, int(database)


class _Server:
    """The address of Redis, and how to open an authenticated connection."""

    def __init__(self, url: str, connect_seconds: float, attempts: ConnectionAttempts) -> None:
        parts, database = read_url(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 6379
        self._handshake: list[Command] = []
        if parts.password:
            user = (unquote(parts.username),) if parts.username else ()
            self._handshake.append(("AUTH", *user, unquote(parts.password)))
        if database:
            self._handshake.append(("SELECT", database))
        self._connect_seconds = connect_seconds
        self._attempts = attempts
        self._tls = _tls_context() if parts.scheme == "rediss" else None
        self._addresses: Sequence[Address] = ()
        self._resolved_at = -ADDRESSES_SECONDS

    def connect(self) -> _Connection:
        """A new authenticated connection; OSError or _ProtocolError within the connect timeout."""
        deadline = monotonic() + self._connect_seconds
        return self._attempts.open(lambda: self._connect_by(deadline), until=deadline)

    def _connect_by(self, deadline: float) -> _Connection:
        failure: Exception = OSError("the server's name does not resolve")
        for address in self._resolve(deadline):  # some may not accept connections
            try:
                return self._connect_to(address, deadline)
            except (OSError, _ProtocolError) as error:
                failure = error
        raise failure

    def _connect_to(self, address: Address, deadline: float) -> _Connection:
        family, socket_type, protocol, _, target = address
        sock = socket.socket(family, socket_type, protocol)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(target)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock.settimeout(_left(deadline))
                sock = self._tls.wrap_socket(sock, server_hostname=self._host)
            connection = _Connection(sock)
            replies = connection.send(self._handshake, deadline) if self._handshake else []
            if any(reply != "OK" for reply in replies):
                raise _ProtocolError("the server rejected the password or the database")
        except BaseException:
            sock.close()
            raise
        return connection

    def _resolve(self, deadline: float) -> Sequence[Address]:
        """The server's addresses; none when its name does not resolve.

        getaddrinfo has no timeout, so a thread waits for it; a result that is too late for this
        caller is used by the next one.
        """
        if monotonic() - self._resolved_at > ADDRESSES_SECONDS:
            look_up = threading.Thread(target=self._look_up, daemon=True)
            look_up.start()
            look_up.join(_left(deadline))
        return self._addresses

    def _look_up(self) -> None:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        self._addresses = found
        self._resolved_at = monotonic()


class _Connection:
    """One socket and the bytes that were read beyond the last reply."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def send(self, commands: tuple[Command, ...] | list[Command], deadline: float) -> list[Reply]:
        """Sends all commands at once and reads their replies; raises OSError or _ProtocolError."""
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(b"".join(_encode(command) for command in commands))
        replies = [self._read(deadline) for _ in commands]
        if self._buffer:
            raise _ProtocolError("more replies than commands")
        return replies

    def close(self) -> None:
        self._socket.close()

    def _read(self, deadline: float, *, nested: bool = False) -> Reply:
        line = self._line(deadline)
        marker, rest = line[:1], line[1:]
        if marker == b"+":
            return rest.decode("ascii", "replace")
        if marker == b"-":
            return ERROR_REPLY
        if marker == b":":
            return _number(rest)
        if marker == b"$":
            return self._bulk(_number(rest), deadline)
        if marker == b"*" and not nested:
            size = _number(rest)
            if size > VALUES_MAX:
                raise _ProtocolError("an array is too long")
            return [self._read(deadline, nested=True) for _ in range(size)]
        raise _ProtocolError("not RESP2")

    def _bulk(self, size: int, deadline: float) -> bytes | None:
        if size == -1:
            return None
        if not 0 <= size <= VALUE_BYTES_MAX:
            raise _ProtocolError("a value is too long")
        while len(self._buffer) < size + 2:
            self._receive(deadline)
        value, end = bytes(self._buffer[:size]), bytes(self._buffer[size : size + 2])
        del self._buffer[: size + 2]
        if end != b"\r\n":
            raise _ProtocolError("a value is longer than its length")
        return value

    def _line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > LINE_BYTES_MAX:
                raise _ProtocolError("a line is too long")
            self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _receive(self, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        received = self._socket.recv(RECEIVE_BYTES)
        if not received:
            raise _ProtocolError("the server closed the connection")
        self._buffer += received


def _encode(command: Command) -> bytes:
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    pieces = [b"*%d\r\n" % len(parts)]
    pieces += [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
    return b"".join(pieces)


def _number(digits: bytes) -> int:
    try:
        return int(digits)
    except ValueError as error:
        raise _ProtocolError("not a number") from error


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000))


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("the cache took too long")
    return left


def _tls_context() -> ssl.SSLContext:
    import ssl  # imported here: takes 10 ms, needed for rediss:// only

    return ssl.create_default_context()
