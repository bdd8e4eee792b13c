"""Function processes: the container entry and functions-framework serve the same contract.

Each process is started as a platform starts it, with its settings in the environment.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from shop.registry import all_specs
from shop.runtime.config import Secret
from tests.function_process import (
    ROOT,
    FunctionProcess,
    ProcessHarness,
    command,
    request_on,
    running_function,
)
from tests.harness import MakeShop
from tests.sample_requests import PASSWORD
from tests.waiting import wait_for
from tools.local_platform.servers import free_port

ENTRIES = ("container", "framework")
HEALTH = ("/health/liveness", "/health/readiness", "/_/health", "/_/ready")
COMPARED = (
    "content-type", "allow", "www-authenticate", "retry-after", "cache-control", "etag", "link",
    "x-content-type-options", "idempotent-replayed", "location", "ratelimit-policy",
)  # fmt: skip
CHANGING = re.compile(r'[0-9a-f]{8}-[0-9a-f-]{27}|\d{4}-\d\d-\d\dT[0-9:.+Z]+|[0-9a-f]{32}[@"]')


# ---------------------------------------------------------------- one contract, two adapters

Asked = tuple[str, str, Any, dict[str, str]]


COMMON: list[Asked] = [
    ("GET", "/nowhere", None, {}),
    ("GET", "/" + "a" * 3000, None, {}),
    ("GET", "/health/liveness", None, {}),
    ("HEAD", "/_/ready", None, {}),
    ("POST", "/nowhere", b"x" * 70_000, {}),
]


def of_placing(signed_in: dict[str, str], product: int) -> list[Asked]:
    order = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    key = {"Idempotency-Key": uuid4().hex}
    return [
        ("POST", "/orders", order, {}),
        ("POST", "/orders", order, signed_in | key),
        ("POST", "/orders", order, signed_in | key),
        ("POST", "/orders", order | {"quantity": 2}, signed_in | key),
        ("POST", "/orders", order | {"quantity": 0}, signed_in),
        ("POST", "/orders", order | {"paymentMethod": "카드"}, signed_in),
        ("POST", "/orders", b"{", signed_in),
        ("POST", "/orders", b"", signed_in),
        ("POST", "/orders", b"\xff", signed_in | {"Content-Type": "text/plain"}),
        ("POST", "/orders", b" " * 65_537, signed_in),
        ("POST", "/orders", order, signed_in | {"Content-Encoding": "gzip"}),
        ("POST", "/orders?x=1", order, signed_in),
        ("POST", "/orders", order, signed_in | {"Idempotency-Key": "short"}),
        ("POST", "/orders", order, signed_in | {"Accept": "text/html"}),
        ("PUT", "/orders", order, signed_in),
        ("OPTIONS", "/orders", None, {}),
        ("GET", "/orders", None, signed_in),
        ("DELETE", "/orders/from-cart", None, signed_in),
        ("POST", "/orders/from-cart", {"paymentMethod": "CARD"}, signed_in),
        ("POST", f"/orders/{UUID(int=7)}/payments", {"paymentMethod": "CARD"}, signed_in),
    ]


def of_listing(_signed_in: dict[str, str], product: int) -> list[Asked]:
    return [
        ("GET", "/products?limit=2", None, {}),
        ("HEAD", "/products?limit=2", None, {}),
        ("GET", "/products?limit=2&limit=3", None, {}),
        ("GET", "/products?name=%EB%AC%BC%EA%B1%B4", None, {}),
        ("GET", "/products?name=%ff", None, {}),
        ("GET", f"/products/{product}", None, {}),
        ("HEAD", f"/products/{product}", None, {}),
        ("GET", f"/products/{product}", None, {"If-None-Match": "*"}),
        ("GET", "/products/0", None, {}),
        ("GET", "/categories", None, {"Accept": "application/xml"}),
        ("POST", "/events", b"{}", {}),
        ("GET", "/events", None, {}),
        ("OPTIONS", "/events", None, {}),
        ("POST", "/events", b"[]", {"Content-Type": "application/cloudevents-batch+json"}),
    ]


def of_registering(signed_in: dict[str, str], _product: int) -> list[Asked]:
    return [
        ("GET", "/users/me", None, {}),
        ("GET", "/users/me", None, signed_in),
        ("HEAD", "/users/me", None, signed_in),
        ("GET", "/users/me", None, {"X-User-Id": "1"}),
        ("POST", "/users", {"email": "a", "password": PASSWORD, "name": "x"}, {}),
        ("POST", "/users", {"email": "kim@test.kr", "password": PASSWORD, "name": "김"}, {}),
        ("PATCH", "/users/me", {}, signed_in),
    ]


QUESTIONS = {
    "place_order": of_placing,
    "list_products": of_listing,
    "register": of_registering,
}


@pytest.mark.parametrize("function", QUESTIONS)
def test_container_and_framework_entries_respond_alike(
    processes: ProcessHarness, function: str
) -> None:
    signed_in = [processes.customer() for _ in ENTRIES]
    ((product,),) = processes.sql("select max(product_id) from shop.products")
    answers: dict[str, list[Any]] = {}
    for entry, header in zip(ENTRIES, signed_in, strict=True):
        processes.sql("delete from shop.users where email = 'kim@test.kr'")
        with running_function(entry, function, processes.environment(function)) as running:
            answers[entry] = [
                comparable(method, path, *running.request(method, path, body, headers))
                for method, path, body, headers in QUESTIONS[function](header, product) + COMMON
            ]

    assert len(answers["container"]) > 10
    for ours, theirs in zip(answers["container"], answers["framework"], strict=True):
        assert ours == theirs


def comparable(
    method: str, path: str, status: int, headers: dict[str, str], body: bytes
) -> tuple[Any, ...]:
    assert status < 500, (method, path, body)
    kept = {name: CHANGING.sub("*", headers[name]) for name in COMPARED if name in headers}
    text = re.sub(r'"(id|userId|stockQuantity)":\d+', r'"\1":0', CHANGING.sub("*", body.decode()))
    return method, path[:60], status, kept, text


# ---------------------------------------------------------------- the container entry


def test_head_is_get_without_body_and_the_connection_is_kept(processes: ProcessHarness) -> None:
    with running_function(
        "container", "list_products", processes.environment("list_products")
    ) as running:
        connection = HTTPConnection("127.0.0.1", running.port, timeout=10)
        status, headers, body = request_on(connection, "GET", "/products?limit=3")
        kept = connection.sock
        head_status, head_headers, head_body = request_on(connection, "HEAD", "/products?limit=3")
        assert connection.sock is kept
        connection.close()

    assert (status, head_status, head_body) == (200, 200, b"")
    assert int(head_headers["content-length"]) == len(body)
    drop = ("date",)
    assert {k: v for k, v in headers.items() if k not in drop} == {
        k: v for k, v in head_headers.items() if k not in drop
    }


def test_sigterm_completes_the_running_request_and_exits_with_zero(
    processes: ProcessHarness,
) -> None:
    customer = processes.customer()
    ((product,),) = processes.sql("select max(product_id) from shop.products")
    with running_function(
        "container", "place_order", processes.environment("place_order")
    ) as placing:
        order = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
        status, headers, _ = placing.request("POST", "/orders", order, customer)
        assert status == 201
    environment = processes.environment("read_orders")
    with running_function("container", "read_orders", environment) as running:
        answers: list[tuple[int, dict[str, str], bytes]] = []
        waiting = threading.Thread(
            target=lambda: answers.append(
                running.request("GET", headers["location"], None, customer | {"Prefer": "wait=2"})
            )
        )
        waiting.start()
        wait_for(lambda: processes.sql(IS_READING), "the request is at work")
        running.process.send_signal(signal.SIGTERM)
        waiting.join(15)
        ended = running.process.wait(15)

    assert (answers[0][0], answers[0][1]["preference-applied"], ended) == (200, "wait=2", 0)


IS_READING = """
select 1 from pg_stat_activity where usename = 'shop_ordering' and datname = current_database()
  and state = 'idle' and query ilike 'commit'
"""


def test_sigterm_while_a_process_loads_exits_with_zero_and_records_its_end() -> None:
    environment = {"PATH": os.environ["PATH"], "SHOP_PROFILE": "local"}
    environment["PORT"] = str(free_port())
    done = subprocess.run(
        [sys.executable, "-c", ENDED_WHILE_LOADING],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    (ended,) = [json.loads(line) for line in done.stdout.splitlines()]
    fields = {name: ended[name] for name in ("message", "function", "database_seconds", "answered")}
    assert fields == {
        "message": "ended",
        "function": "api_docs",
        "database_seconds": 0.0,
        "answered": False,
    }
    assert 0 < ended["seconds"] < 60


ENDED_WHILE_LOADING = """
import os, signal, sys, time
from shop.runtime import server

def load(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)

server._load = load
sys.exit(server.serve(["api_docs"]))
"""


def test_without_a_database_health_is_200_and_routes_get_503(
    processes: ProcessHarness,
) -> None:
    away = {"DATABASE_URL": "postgresql://shop_identity@127.0.0.1:9/shop"}
    customer = processes.customer()
    with running_function(
        "container", "register", processes.environment("register", **away)
    ) as running:
        for path in HEALTH:
            assert running.request("GET", path)[0] == 200
        status, headers, body = running.request("GET", "/users/me", None, customer)

    assert (status, json.loads(body)["error"], headers["retry-after"]) == (503, "UNAVAILABLE", "1")
    assert b"127.0.0.1" not in body and b"connect" not in body


def test_process_writes_no_files(processes: ProcessHarness, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    places = {"HOME": str(home), "TMPDIR": str(home), "PYTHONPATH": str(ROOT)}
    tmp_path.chmod(0o555)
    with running_function(
        "container", "register", processes.environment("register", **places), cwd=tmp_path
    ) as running:
        answer = running.request("GET", "/users/me", None, processes.customer())

    assert answer[0] == 200
    assert [p for p in tmp_path.rglob("*") if p != home] == []


def test_invalid_settings_exit_with_every_mistake_and_no_traceback(
    processes: ProcessHarness,
) -> None:
    environment = processes.environment("place_order", DATABASE_URL="", SHOP_PROFILE="laptop")
    del environment["JWT_JWKS"]

    ended = subprocess.run(
        command("container", "place_order", ""),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        timeout=20,
        check=False,
    )

    assert ended.returncode == 2
    for name in (b"DATABASE_URL", b"SHOP_PROFILE", b"JWT_JWKS"):
        assert name in ended.stderr
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("names", [["no_such_function"], [], ["../register"]])
def test_unknown_function_exits_with_an_error(names: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "shop.runtime", *names],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        timeout=20,
        check=False,
    )

    assert ended.returncode == 2
    assert b"Traceback" not in ended.stderr


# ---------------------------------------------------------------- bytes no client library sends


@pytest.fixture(scope="module")
def wired(processes: ProcessHarness) -> Iterator[FunctionProcess]:
    with running_function(
        "container", "place_order", processes.environment("place_order")
    ) as running:
        yield running


def status_of(answer: bytes) -> int:
    """The first answer's status; 0 for a connection that was closed without one."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


CHUNKED = b"Transfer-Encoding: chunked\r\n"
MANY = b"".join(b"X-%d: 1\r\n" % i for i in range(1000))
HOST = b"Host: shop\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    "spelled",
    [
        b"/%6frders", b"/orders/", b"//orders", b"/ORDERS", b"/orders;x=1", b"/orders%2ffrom-cart",
        b"/products/../orders", b"/./orders", b"http://evil.test/orders", b"/orders%00",
        b"/orders#x",
        b"/orders%0d%0aX-Y:1", b"*", b"/\xc3\xb6rders",
    ],
)  # fmt: skip
def test_no_spelling_of_a_path_bypasses_the_token(wired: FunctionProcess, spelled: bytes) -> None:
    body = b"X-User-Id: 1\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"

    answer = wired.send_bytes(b"POST " + spelled + b" HTTP/1.1\r\n" + HOST + body)

    assert status_of(answer) in (0, 400, 401, 404, 405)
    assert b"X-Y:" not in answer.partition(b"\r\n\r\n")[0]


@pytest.mark.parametrize(
    ("case", "head", "body", "statuses"),
    [
        ("two lengths", b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{}x", (0, 400)),
        ("length no number", b"Content-Length: x\r\n", b"{}", (0, 400)),
        ("length negative", b"Content-Length: -1\r\n", b"{}", (0, 400)),
        ("length of other digits", "Content-Length: ²\r\n".encode(), b"{}", (0, 400)),
        ("length too long", b"Content-Length: 65537\r\n", b"{}", (0, 401, 413)),
        ("chunks no chunks", CHUNKED, b"zz\r\n{}\r\n0\r\n\r\n", (0, 400, 401)),
        ("length and chunks", b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n", (400,)),
        ("unknown encoding", b"Transfer-Encoding: gzip\r\n", b"{}", (0, 400, 401)),
        ("header without a name", b": x\r\n", b"", (0, 400)),
        ("header with a blank", b"X A: 1\r\n", b"", (0, 400)),
        ("folded header", b"X-A: 1\r\n 2\r\n", b"", (0, 400, 401)),
        ("NUL in a header", b"X-A: a\x00b\r\n", b"", (0, 400)),
        ("17 KiB of headers", b"X-A: " + b"a" * 17_000 + b"\r\n", b"", (431,)),
        ("a thousand headers", MANY, b"", (431,)),
        ("two tokens", b"Authorization: Bearer a.b.c\r\n" * 2, b"", (401,)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)  # fmt: skip
def test_malformed_http_messages_get_an_error(
    wired: FunctionProcess, case: str, head: bytes, body: bytes, statuses: tuple[int, ...]
) -> None:
    answer = wired.send_bytes(b"POST /orders HTTP/1.1\r\n" + HOST + head + b"\r\n" + body)

    assert status_of(answer) in statuses, (case, answer[:200])
    assert answer.count(b"HTTP/1.1 ") <= 1, "the bytes are one request"
    assert wired.request("GET", "/health/liveness")[0] == 200


def test_two_idempotency_keys_get_400(wired: FunctionProcess, processes: ProcessHarness) -> None:
    ((product,),) = processes.sql("select max(product_id) from shop.products")
    body = json.dumps({"productId": product, "quantity": 1, "paymentMethod": "CARD"}).encode()
    token = processes.customer()["Authorization"].encode()
    keys = b"".join(b"Idempotency-Key: %s\r\n" % uuid4().hex.encode() for _ in range(2))
    head = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)

    answer = wired.send_bytes(
        b"POST /orders HTTP/1.1\r\n"
        + HOST
        + head
        + keys
        + b"Authorization: "
        + token
        + b"\r\n\r\n",
        body,
    )

    assert status_of(answer) == 400 and b"BAD_IDEMPOTENCY_KEY" in answer


def test_every_function_has_a_main_module_for_functions_framework() -> None:
    for spec in all_specs():
        source = (ROOT / "functions" / spec.name / "main.py").read_text()
        assert f'main = entry_point("{spec.name}")' in source


def test_health_of_every_function_needs_neither_database_nor_redis(make_shop: MakeShop) -> None:
    """A database outage must not restart containers."""
    away = Secret("postgresql://shop_ordering@127.0.0.1:9/shop")
    shop = make_shop(database_url=away, redis_url=Secret("redis://127.0.0.1:9/0"))

    for spec in all_specs():
        for path in ("/health/liveness", "/health/readiness", "/_/health", "/_/ready"):
            assert shop.call("GET", path, function=spec.name).status == 200
