"""Redis as a cache that may be empty, slow or gone: a minimal RESP2 client on bare sockets.

Why not redis-py: importing it costs 120 to 205 ms of CPU at a cold start and 0.22 ms per GET, more
than the PostgreSQL query a cached list saves (ADR 0005).  The shop needs ten commands of a
protocol that fits on a page, and one promise no client library makes: **a cache never raises and
never makes anybody wait**.  Whatever goes wrong (no server, no answer in time, garbage, a key of
another type) the answer is ``None``, and after a failure nobody asks again for a second.

Protocol: RESP2 (https://redis.io/docs/latest/develop/reference/protocol-spec/).  Works with Redis 7
or later (``EXPIRE … NX``) and Valkey.
"""

from __future__ import annotations

import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

TIMEOUT_SECONDS = 0.05
CONNECT_TIMEOUTS = 4  # a connection may take this many times longer than an answer: DNS, TLS, AUTH
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


class RefusedByServer:
    """An error reply, such as WRONGTYPE: the server is well, this command was not."""


REFUSED_BY_SERVER = RefusedByServer()

# simple strings are str, bulk strings bytes, so "+OK" is never mistaken for a stored value
Answer = str | bytes | int | None | RefusedByServer | list["Answer"]


class _Broken(Exception):
    """The other side does not speak RESP2, or closed the connection."""


class Cache:
    """A Redis that is allowed to be away.  Safe to share between threads.

    ``Cache(None)`` is a cache that holds nothing.  ``url`` is ``redis://`` or ``rediss://`` (TLS),
    ``[user][:password]@host[:port][/database]``; ValueError when it is neither.
    ``timeout_seconds`` bounds each call as a whole, however the server drips; one that has to
    connect first may take ``CONNECT_TIMEOUTS`` times as long more.  After a failure nothing is
    tried for ``BREAKER_SECONDS``; then one caller probes while the others go on without.
    """

    def __init__(self, url: str | None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._server = _Server(url, timeout_seconds * CONNECT_TIMEOUTS) if url else None
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._closed_until = 0.0
        self.failures = 0

    def get(self, key: str) -> bytes | None:
        """The value of a key; None when there is none, or no telling."""
        answer = self._ask(("GET", key))
        return answer if isinstance(answer, bytes) else None

    def get_many(self, *keys: str) -> list[bytes | None]:
        """The values of several keys in one round trip, in order."""
        answer = self._ask(("MGET", *keys)) if keys else None
        if not isinstance(answer, list) or len(answer) != len(keys):
            return [None] * len(keys)
        return [value if isinstance(value, bytes) else None for value in answer]

    def set(self, key: str, value: str | bytes, ttl_seconds: float) -> bool:
        """Stores a value that dies after ``ttl_seconds``; True when the server took it."""
        return self._ask(("SET", key, value, "PX", _milliseconds(ttl_seconds))) == "OK"

    def set_if_absent(self, key: str, value: str | bytes, ttl_seconds: float) -> bool | None:
        """True when this call stored the value, False when the key was taken, None: no telling."""
        answers = self._ask_all(("SET", key, value, "NX", "PX", _milliseconds(ttl_seconds)))
        if not answers or answers[0] not in ("OK", None):
            return None
        return answers[0] == "OK"  # nil: it was taken

    def delete(self, *keys: str) -> int | None:
        """How many of the keys there were; None: no telling."""
        answer = self._ask(("DEL", *keys)) if keys else 0
        return answer if isinstance(answer, int) else None

    def increment(self, key: str, ttl_seconds: float) -> int | None:
        """Counts one up and returns the count; None: no telling.

        The counter dies ``ttl_seconds`` after its first count: INCR and EXPIRE NX travel together,
        and a counter that somehow lost its expiry gets it back with the next count.
        """
        counted = self.increment_beside(key, "", ttl_seconds)
        return counted[0] if counted else None

    def decrement(self, key: str, ttl_seconds: float) -> int | None:
        """Takes one back and returns the count; None: no telling.

        Where the counter died meanwhile it begins below nothing, and dies like any other.
        """
        expire = ("PEXPIRE", key, _milliseconds(ttl_seconds), "NX")
        answers = self._ask_all(("DECR", key), expire)
        return answers[0] if answers and isinstance(answers[0], int) else None

    def increment_beside(self, key: str, other: str, ttl_seconds: float) -> tuple[int, int] | None:
        """Counts one up and reads another counter (0 when it is not there) in one round trip.

        What a sliding window needs: this window's count and the last one's.
        """
        expire = ("PEXPIRE", key, _milliseconds(ttl_seconds), "NX")
        answers = self._ask_all(("INCR", key), expire, ("GET", other))
        if not answers or not isinstance(answers[0], int):
            return None
        beside = answers[2]
        if not isinstance(beside, bytes) or not beside.isdigit() or len(beside) > COUNT_DIGITS_MAX:
            return answers[0], 0
        return answers[0], int(beside)

    def expires_in(self, key: str) -> float | None:
        """Seconds a key has to live; None when it is not there, never expires, or no telling."""
        answer = self._ask(("PTTL", key))
        return answer / 1_000 if isinstance(answer, int) and answer >= 0 else None

    def close(self) -> None:
        """Closes the idle connections, at the end of the process."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, command: Command) -> Answer:
        answers = self._ask_all(command)
        return answers[0] if answers else None

    def _ask_all(self, *commands: Command) -> list[Answer] | None:
        """The answers of one pipeline, or None.  A connection that died idle is replaced once."""
        if self._server is None or not self._may_try():
            return None
        while True:
            connection = None
            reused = False
            try:
                connection, reused = self._borrow(self._server)
                answers = connection.ask(commands, monotonic() + self._timeout_seconds)
            except (OSError, _Broken) as error:
                if connection is not None:
                    connection.close()
                if reused and not isinstance(error, TimeoutError):
                    continue
                self._note_failure()
                return None
            self._give_back(connection)
            return answers

    def _may_try(self) -> bool:
        with self._lock:
            if self._closed_until == 0.0:
                return True
            if monotonic() < self._closed_until:
                return False
            self._closed_until = monotonic() + BREAKER_SECONDS  # the others wait for this probe
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


class _Server:
    """Where Redis is, and how to get a connection that is signed in."""

    def __init__(self, url: str, connect_seconds: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError("a Redis address looks like redis://host:6379/0")
        database = parts.path.strip("/") or "0"
        if not database.isascii() or not database.isdigit():
            raise ValueError("the database of a Redis address is a number")
        self._host = parts.hostname
        self._port = parts.port or 6379
        self._hello: list[Command] = []
        if parts.password:
            user = (unquote(parts.username),) if parts.username else ()
            self._hello.append(("AUTH", *user, unquote(parts.password)))
        if database != "0":
            self._hello.append(("SELECT", int(database)))
        self._connect_seconds = connect_seconds
        self._tls = _tls_context() if parts.scheme == "rediss" else None
        self._addresses: Sequence[Address] = ()
        self._resolved_at = -ADDRESSES_SECONDS

    def connect(self) -> _Connection:
        """A new connection, signed in; raises OSError or _Broken within the connect timeout."""
        deadline = monotonic() + self._connect_seconds
        failure: Exception = OSError("the server's name does not resolve")
        for address in self._resolve(deadline):  # a name may have an IPv6 address nobody listens on
            try:
                return self._connect_to(address, deadline)
            except (OSError, _Broken) as error:
                failure = error
        raise failure

    def _connect_to(self, address: Address, deadline: float) -> _Connection:
        family, kind, protocol, _, place = address
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(_left(deadline))
            sock.connect(place)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock.settimeout(_left(deadline))
                sock = self._tls.wrap_socket(sock, server_hostname=self._host)
            connection = _Connection(sock)
            if self._hello and connection.ask(self._hello, deadline) != ["OK"] * len(self._hello):
                raise _Broken("the server refused the password or the database")
        except BaseException:
            sock.close()
            raise
        return connection

    def _resolve(self, deadline: float) -> Sequence[Address]:
        """The server's addresses, none when its name is unknown.

        getaddrinfo knows no timeout, so a thread waits for it; an answer that comes too late for
        this caller serves the next one.
        """
        if monotonic() - self._resolved_at > ADDRESSES_SECONDS:
            asking = threading.Thread(target=self._look_up, daemon=True)
            asking.start()
            asking.join(_left(deadline))
        return self._addresses

    def _look_up(self) -> None:
        try:
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        self._addresses = found
        self._resolved_at = monotonic()


class _Connection:
    """One socket and what was read from it too early."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def ask(self, commands: tuple[Command, ...] | list[Command], deadline: float) -> list[Answer]:
        """Sends all commands at once and reads their answers; raises OSError or _Broken."""
        self._socket.settimeout(_left(deadline))
        self._socket.sendall(b"".join(_encode(command) for command in commands))
        answers = [self._read(deadline) for _ in commands]
        if self._buffer:
            raise _Broken("more answers than questions")
        return answers

    def close(self) -> None:
        self._socket.close()

    def _read(self, deadline: float, *, nested: bool = False) -> Answer:
        line = self._line(deadline)
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode("ascii", "replace")
        if kind == b"-":
            return REFUSED_BY_SERVER
        if kind == b":":
            return _number(rest)
        if kind == b"$":
            return self._bulk(_number(rest), deadline)
        if kind == b"*" and not nested:
            size = _number(rest)
            if size > VALUES_MAX:
                raise _Broken("an array without end")
            return [self._read(deadline, nested=True) for _ in range(size)]
        raise _Broken("not RESP2")

    def _bulk(self, size: int, deadline: float) -> bytes | None:
        if size == -1:
            return None
        if not 0 <= size <= VALUE_BYTES_MAX:
            raise _Broken("a value without end")
        while len(self._buffer) < size + 2:
            self._receive(deadline)
        value, end = bytes(self._buffer[:size]), self._buffer[size : size + 2]
        del self._buffer[: size + 2]
        if end != b"\r\n":
            raise _Broken("a value longer than it says")
        return value

    def _line(self, deadline: float) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > LINE_BYTES_MAX:
                raise _Broken("a line without end")
            self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _receive(self, deadline: float) -> None:
        self._socket.settimeout(_left(deadline))
        received = self._socket.recv(RECEIVE_BYTES)
        if not received:
            raise _Broken("the server closed the connection")
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
        raise _Broken("not a number") from error


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1_000))


def _left(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("the cache took too long")
    return left


def _tls_context() -> ssl.SSLContext:
    import ssl  # 10 ms that only rediss:// pays

    return ssl.create_default_context()
