"""The server of a function process: incomplete, slow and too many requests, on real sockets."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import pytest

from tests.flows.blocking_server import PART, THREADS
from tests.function_process import (
    ROOT,
    FunctionProcess,
    ProcessHarness,
    request_on,
    running_function,
)
from tests.waiting import wait_for

HEALTH = "/health/liveness"
KEPT = b"Host: shop\r\nContent-Type: application/json\r\n"
CHUNKED = KEPT + b"Transfer-Encoding: chunked\r\n"
ENTRIES = ("container", "framework")


@contextmanager
def blocking_server(
    log: int | IO[bytes] = subprocess.DEVNULL, **limits: float
) -> Generator[FunctionProcess]:
    """A process of ``tests.flows.blocking_server`` with these limits of the server."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.flows.blocking_server"]
        + [f"{name}={value}" for name, value in limits.items()],
        env={"HOST": "127.0.0.1", "PORT": str(port), "SHOP_PROFILE": "local"},
        cwd=ROOT,
        stdout=log,
        stderr=subprocess.DEVNULL,
    )
    running = FunctionProcess(process, port)
    try:
        wait_for(running.is_up, "the server answers")
        yield running
    finally:
        process.kill()
        process.wait(10)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def plain() -> Iterator[FunctionProcess]:
    with blocking_server() as running:
        yield running


def status_of(response: bytes) -> int:
    """The first response's status; 0 for a connection that was closed without one."""
    return int(response.split(b" ", 2)[1]) if response.startswith(b"HTTP/1.1 ") else 0


def open_connection(stack: ExitStack, running: FunctionProcess, sent: bytes) -> socket.socket:
    """A connection that has sent these bytes and stays open."""
    connection = socket.create_connection(("127.0.0.1", running.port), timeout=30)
    stack.enter_context(connection)
    connection.sendall(sent)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    received = b""
    while part := connection.recv(65_536):
        received += part
    return received


def begun(running: FunctionProcess) -> int:
    return int(running.request("GET", "/begun")[2])


def in_background(count: int, call: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=call) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


# ---------------------------------------------------------------- incomplete requests


def order_of(product: int) -> bytes:
    return b'{"productId": %d, "quantity": 1, "paymentMethod": "CARD"}' % product


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


@pytest.fixture(params=ENTRIES)
def placing(request: pytest.FixtureRequest, processes: ProcessHarness) -> Iterator[FunctionProcess]:
    environment = processes.environment("place_order", THREADS="4")
    with running_function(request.param, "place_order", environment) as running:
        yield running


def test_incomplete_chunked_requests_do_not_run(
    placing: FunctionProcess, processes: ProcessHarness
) -> None:
    """RFC 9112 section 8: a chunked message without its last chunk is incomplete."""
    customer = processes.customer()
    ((product,),) = processes.sql("select max(product_id) from shop.products")
    order = order_of(product)
    head = b"POST /orders HTTP/1.1\r\nAuthorization: %s\r\n" % customer["Authorization"].encode()
    bodies = {
        "no last chunk": chunk(order),
        "size without end": chunk(order) + b"0",
        "no final line": chunk(order) + b"0\r\n",
        "size is no number": chunk(order) + b"zz\r\n\r\n",
        "chunk longer than its size": b"%x\r\n%s0\r\n\r\n" % (len(order) - 1, order),
        "negative size": chunk(order) + b"-1\r\n\r\n",
        "part of a declared length": b"",
    }
    for case, body in bodies.items():
        sent = head + CHUNKED + b"\r\n" + body
        if not body:
            sent = head + KEPT + b"Content-Length: %d\r\n\r\n" % (len(order) + 1) + order
        with ExitStack() as stack:
            connection = open_connection(stack, placing, sent)
            connection.shutdown(socket.SHUT_WR)
            assert status_of(read_to_end(connection)) in (0, 400), case
    assert processes.sql(
        "select count(*) from shop.orders o join shop.sessions s using (user_id) "
        "where s.created_at > now() - interval '1 hour' and o.user_id = "
        "(select max(user_id) from shop.users)"
    ) == [(0,)]

    complete = head + CHUNKED + b"Connection: close\r\n\r\n" + chunk(order) + b"0\r\n\r\n"
    assert status_of(placing.send_bytes(complete)) == 201


def test_length_and_chunks_together_get_400_under_both_entries(
    placing: FunctionProcess, processes: ProcessHarness
) -> None:
    token = processes.customer()["Authorization"].encode()
    head = b"POST /orders HTTP/1.1\r\nConnection: close\r\nAuthorization: %s\r\n" % token

    answer = placing.send_bytes(head + CHUNKED + b"Content-Length: 5\r\n\r\n0\r\n\r\n")

    assert status_of(answer) == 400


@pytest.mark.parametrize("path", ["/%6frders", "/%2e/orders", "/orders%2f", "/%2e%2e/orders"])
def test_encoded_paths_are_not_decoded_under_both_entries(
    placing: FunctionProcess, processes: ProcessHarness, path: str
) -> None:
    status, _, _ = placing.request("POST", path, {}, processes.customer())

    assert status == 404


# ---------------------------------------------------------------- slow requests


STALLED = {
    "nothing": b"",
    "part of the request line": b"POST /ec",
    "part of the headers": b"POST /echo HTTP/1.1\r\nHost: a\r\nX-A",
    "no body": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
    "part of the body": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12",
    "part of a chunk": b"POST /echo HTTP/1.1\r\n" + CHUNKED + b"\r\n5\r\n12",
}


@pytest.mark.parametrize("sent", STALLED.values(), ids=STALLED)
def test_stalled_requests_stop_neither_other_requests_nor_health(
    plain: FunctionProcess, sent: bytes
) -> None:
    with ExitStack() as stack:
        for _ in range(40):
            open_connection(stack, plain, sent)

        assert plain.request("GET", HEALTH)[0] == 200
        assert plain.request("POST", "/echo", b"12")[2] == b"12"


@pytest.mark.parametrize("case", [name for name in STALLED if name != "nothing"])
def test_stalled_request_gets_408_after_the_deadline(case: str) -> None:
    with blocking_server(READ_SECONDS=0.5) as running, ExitStack() as stack:
        answer = read_to_end(open_connection(stack, running, STALLED[case]))

    assert status_of(answer) == 408
    assert b"connection: close" in answer and b"application/problem+json" in answer


def test_bytes_that_arrive_slowly_do_not_extend_the_deadline() -> None:
    with blocking_server(READ_SECONDS=1) as running, ExitStack() as stack:
        connection = open_connection(stack, running, STALLED["no body"])
        received = b""
        connection.settimeout(0.2)
        for _ in range(100):
            try:
                received = connection.recv(1000)
                break
            except TimeoutError:
                connection.sendall(b"1") if len(received) < 9 else None

    assert status_of(received) == 408


def test_idle_connection_is_closed_without_a_response() -> None:
    with blocking_server(SERVER_IDLE_SECONDS=0.5) as running, ExitStack() as stack:
        connection = open_connection(stack, running, b"")
        assert connection.recv(100) == b""


def test_framework_rejects_a_stalled_body_after_the_deadline(processes: ProcessHarness) -> None:
    """gunicorn has no deadline for a body; ours is ten seconds."""
    environment = processes.environment("place_order", THREADS="4")
    head = b"POST /orders HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
    token = processes.customer()["Authorization"].encode()
    with running_function("framework", "place_order", environment) as running, ExitStack() as stack:
        sent = head + b"Authorization: %s\r\nContent-Length: 10\r\n\r\n12" % token
        stalled = [open_connection(stack, running, sent) for _ in range(4)]
        answers = [read_to_end(connection) for connection in stalled]
        assert running.request("GET", HEALTH)[0] == 200

    assert [status_of(answer) for answer in answers] == [408] * 4


# ---------------------------------------------------------------- too many requests


def is_rejected(running: FunctionProcess) -> bool:
    """Whether a request gets 503; one that takes the last place of the queue gets no response."""
    try:
        return running.request("POST", "/echo", b"1")[0] == 503
    except TimeoutError:
        return False


def test_requests_beyond_the_queue_get_503_at_once_and_do_not_run() -> None:
    with blocking_server(QUEUED_PER_THREAD=2) as running:
        waiting = in_background(6, lambda: running.request("POST", "/blocked", b"x"))
        wait_for(lambda: begun(running) == THREADS, "the threads are busy")
        wait_for(lambda: is_rejected(running), "the queue is full")
        status, headers, body = running.request("POST", "/blocked", b"x")
        health = running.request("GET", HEALTH)[0]
        running.request("POST", "/release")
        for thread in waiting:
            thread.join(20)
        ran = begun(running)

    assert (status, headers["retry-after"], health) == (503, "1", 200)
    assert b"UNAVAILABLE" in body
    assert ran <= 6


def test_request_that_waited_too_long_is_not_begun() -> None:
    with blocking_server(QUEUE_SECONDS=0.3) as running:
        blocked = in_background(THREADS, lambda: running.request("POST", "/blocked", b"x"))
        wait_for(lambda: begun(running) == THREADS, "the threads are busy")
        late: list[int] = []
        waiting = in_background(3, lambda: late.append(running.request("POST", "/blocked")[0]))
        threading.Event().wait(1)
        running.request("POST", "/release")
        for thread in (*blocked, *waiting):
            thread.join(20)
        ran = begun(running)

    assert (late, ran) == ([503] * 3, THREADS)


def test_timeout_of_the_edge_shortens_the_wait() -> None:
    with blocking_server() as running:
        blocked = in_background(THREADS, lambda: running.request("POST", "/blocked", b"x"))
        wait_for(lambda: begun(running) == THREADS, "the threads are busy")
        late: list[int] = []
        limit = {"X-Envoy-Expected-Rq-Timeout-Ms": "200"}
        waiting = in_background(
            1, lambda: late.append(running.request("POST", "/blocked", None, limit)[0])
        )
        threading.Event().wait(1)
        running.request("POST", "/release")
        for thread in (*blocked, *waiting):
            thread.join(20)
        ran = begun(running)

    assert (late, ran) == ([503], THREADS)


def test_queued_request_of_a_client_that_left_is_not_begun() -> None:
    with blocking_server() as running, ExitStack() as stack:
        blocked = in_background(THREADS, lambda: running.request("POST", "/blocked", b"x"))
        wait_for(lambda: begun(running) == THREADS, "the threads are busy")
        request = b"POST /blocked HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        for _ in range(3):
            open_connection(stack, running, request).close()
        assert running.request("GET", HEALTH)[0] == 200
        threading.Event().wait(0.5)
        running.request("POST", "/release")
        for thread in blocked:
            thread.join(20)
        last = running.request("POST", "/blocked", b"x")[0]
        ran = begun(running)

    assert (last, ran) == (200, THREADS + 1)


def test_connection_that_its_client_resets_is_lost_and_no_bug(tmp_path: Path) -> None:
    """As after SIGKILL of the client: the end of its request arrived, and then a reset."""
    log = tmp_path / "log"
    with log.open("wb") as file, blocking_server(file) as running, ExitStack() as stack:
        blocked = in_background(THREADS, lambda: running.request("POST", "/blocked", b"x"))
        wait_for(lambda: begun(running) == THREADS, "the threads are busy")
        request = b"POST /blocked HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        queued = open_connection(stack, running, request)
        queued.shutdown(socket.SHUT_WR)
        for _ in range(2):  # the event loop has read the end
            assert begun(running) == THREADS
        queued.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        queued.close()
        running.request("POST", "/release")
        for thread in blocked:
            thread.join(20)
        wait_for(lambda: "connection lost" in log.read_text(), "the loss is logged")

        assert running.request("GET", HEALTH)[0] == 200
    assert '"bug"' not in log.read_text()


def test_idle_connections_beyond_the_maximum_are_closed_for_new_ones() -> None:
    with blocking_server(CONNECTIONS_MAX=20) as running, ExitStack() as stack:
        idle = [open_connection(stack, running, b"") for _ in range(100)]

        assert running.request("GET", HEALTH)[0] == 200
        assert running.request("POST", "/echo", b"1")[2] == b"1"
        assert idle[0].recv(10) == b""


def test_stalled_requests_beyond_the_maximum_are_closed_for_new_ones() -> None:
    with blocking_server(CONNECTIONS_MAX=20) as running, ExitStack() as stack:
        for _ in range(100):
            open_connection(stack, running, STALLED["part of the body"])

        assert running.request("GET", HEALTH)[0] == 200
        assert running.request("POST", "/echo", b"1")[2] == b"1"


# ---------------------------------------------------------------- connections


def test_connection_is_kept_for_the_next_request(plain: FunctionProcess) -> None:
    connection = HTTPConnection("127.0.0.1", plain.port, timeout=10)
    bodies = [request_on(connection, "POST", "/echo", b"%d" % n)[2] for n in range(20)]
    socket_of_all = connection.sock
    request_on(connection, "GET", HEALTH)

    assert bodies == [b"%d" % n for n in range(20)]
    assert connection.sock is socket_of_all
    connection.close()


def test_pipelined_request_does_not_run(plain: FunctionProcess) -> None:
    request = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"

    answer = plain.send_bytes(request + b"1" + request + b"2")

    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"\r\n\r\n1")


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"POST http://shop.test/echo?a=1 HTTP/1.1\r\nHost: shop.test\r\n", b"x-path: a=1"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n", b" 200 OK"),
        (b"POST /echo HTTP/1.0\r\n", b"connection: close"),
        (b"POST /echo HTTP/1.1\r\n", b" 400 Bad Request"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n", b" 400 Bad Request"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n 2\r\n", b" 400 Bad Request"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n", b" 400 Bad Request"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n", b" 400 Bad Request"),
        (b"GET /echo HTTP/3.0\r\nHost: a\r\n", b" 400 Bad Request"),
        (b"CONNECT shop:80 HTTP/1.1\r\nHost: a\r\n", b" 404 Not Found"),
        (b"POST /echo HTTP/1.1\r\nHost: a\r\nX-A: " + b"a" * 300_000 + b"\r\n", b" 431 "),
    ],
    ids=range(11),
)
def test_unusual_request_gets_the_response_of_the_rfc(
    plain: FunctionProcess, sent: bytes, expected: bytes
) -> None:
    with ExitStack() as stack:
        connection = open_connection(stack, plain, sent + b"\r\n")
        received = connection.recv(65_536)

    assert expected in received


def test_client_that_expects_100_continue_gets_it(plain: FunctionProcess) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    with ExitStack() as stack:
        connection = open_connection(stack, plain, head)
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"7")
        assert connection.recv(1000).endswith(b"\r\n\r\n7")


def test_response_to_a_body_that_is_too_long_arrives(plain: FunctionProcess) -> None:
    """The rest of the body is discarded: closing at once would reset the connection."""
    status, headers, _ = plain.request("POST", f"/{uuid4().hex}", b"x" * 5_000_000)

    assert (status, headers["connection"]) == (404, "close")


# ---------------------------------------------------------------- bodies made while they are sent


def test_body_in_parts_arrives_whole_and_the_connection_is_kept(plain: FunctionProcess) -> None:
    connection = HTTPConnection("127.0.0.1", plain.port, timeout=20)
    for count in (3, 0):
        status, headers, body = request_on(connection, "GET", f"/parts?{count}")
        assert (status, body) == (200, count * PART)
        assert headers["transfer-encoding"] == "chunked"
        assert "content-length" not in headers
    assert request_on(connection, "HEAD", "/parts?3")[2] == b""
    assert request_on(connection, "GET", "/parts?1")[2] == PART
    connection.close()


def test_body_that_fails_after_some_parts_is_an_incomplete_response(
    plain: FunctionProcess,
) -> None:
    with pytest.raises((IncompleteRead, ConnectionError)):
        plain.request("GET", "/parts?3-")
    assert plain.request("GET", HEALTH)[0] == 200


def test_http_1_0_gets_a_body_that_ends_with_the_connection_or_a_reset(
    plain: FunctionProcess,
) -> None:
    with ExitStack() as stack:
        whole = open_connection(stack, plain, b"GET /parts?2 HTTP/1.0\r\n\r\n")
        head, _, body = read_to_end(whole).partition(b"\r\n\r\n")
        failed = open_connection(stack, plain, b"GET /parts?2- HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            read_to_end(failed)

    assert b"chunked" not in head and b"connection: close" in head
    assert body == 2 * PART


def test_body_is_not_made_ahead_of_a_client_that_does_not_read(tmp_path: Path) -> None:
    log, request = tmp_path / "log", b"GET /parts?10000 HTTP/1.1\r\nHost: a\r\n\r\n"
    with (
        log.open("wb") as file,
        blocking_server(file, EDGE_STREAM_IDLE_SECONDS=1) as running,
        ExitStack() as stack,
    ):
        stalled = open_connection(stack, running, request)
        wait_for(lambda: "does not read" in log.read_text(), "the response is broken off")
        made = begun(running)
        with pytest.raises(ConnectionResetError):
            read_to_end(stalled)

        assert running.request("GET", "/parts?1")[0] == 200, "the thread is free again"
    # what the sockets of both sides hold is a few MiB
    assert made < 500
    assert '"bug"' not in log.read_text()


def test_body_is_not_made_for_a_client_that_has_left() -> None:
    request = b"GET /parts?100000 HTTP/1.1\r\nHost: a\r\n\r\n"
    with blocking_server() as running, ExitStack() as stack:
        for _ in range(THREADS):
            left = open_connection(stack, running, request)
            assert left.recv(1) == b"H"
            left.close()

        assert running.request("GET", "/parts?1")[0] == 200, "the threads are free again"
        assert begun(running) < 100_000


ADD_ORDERS = """
insert into shop.orders (order_id, user_id, status, total_minor, currency, payment_method,
  created_at, expires_at, hard_expires_at)
select ('01990000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
  (select max(user_id) from shop.users), 'PENDING', n, 'KRW', 'CARD',
  now() - make_interval(secs => 2000 - n), now() + interval '1 day', now() + interval '1 day'
from generate_series(1, 1500) n
returning order_id
"""
# no time of Python: the driver cannot read it
UNREADABLE = "update shop.orders set created_at = '-infinity' where total_minor = 1 returning 1"


@pytest.mark.parametrize("entry", ENTRIES)
def test_export_arrives_whole_or_as_an_incomplete_response_under_both_entries(
    processes: ProcessHarness, entry: str
) -> None:
    finance, environment = processes.account("finance"), processes.environment("manage_orders")
    processes.sql("delete from shop.orders where total_minor < 1501 returning order_id")
    assert len(processes.sql(ADD_ORDERS)) == 1_500

    with running_function(entry, "manage_orders", environment) as running:
        status, headers, body = running.request("GET", "/admin/orders.csv", headers=finance)
        assert processes.sql(UNREADABLE) == [(1,)]
        with pytest.raises((IncompleteRead, ConnectionError)):
            running.request("GET", "/admin/orders.csv", headers=finance)

    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    # other tests' orders are exported as well
    assert body.count(b"\r\n01990000-0000-7000-8000-") == 1_500
    assert body.endswith(b"\r\n")
