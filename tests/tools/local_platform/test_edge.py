"""Routing by exact paths, and removal of headers in which a client claims an identity."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from shop.primitives.spec import FunctionSpec, Schedule
from tests.tools.local_platform.platform_under_test import route, running_platform, send
from tests.waiting import wait_until
from tools.local_platform.activator import ScalingLimits
from tools.local_platform.edge import RouteTable

TABLE = RouteTable(
    (
        FunctionSpec(
            name="place_order",
            summary="s",
            database_role=None,
            routes=(route("POST", "/orders"), route("POST", "/orders/{orderId}/payments")),
        ),
        FunctionSpec(
            name="read_orders",
            summary="s",
            database_role=None,
            routes=(route("GET", "/orders/me"), route("GET", "/orders/{orderId}")),
        ),
        FunctionSpec(
            name="cancel_order",
            summary="s",
            database_role=None,
            routes=(route("PATCH", "/orders/{orderId}/cancel"), route("PATCH", "/orders/{id}")),
        ),
        FunctionSpec(
            name="settle",
            summary="s",
            database_role=None,
            schedules=(Schedule(name="d", cron="* * * * *", handler="h", summary="s"),),
        ),
    )
)

ROUTED = (
    ("POST", "/orders", "place_order"),
    ("POST", "/orders/7/payments", "place_order"),
    ("GET", "/orders/me", "read_orders"),
    ("HEAD", "/orders/me", "read_orders"),
    ("GET", "/orders/0198c0de-0000-7000-8000-000000000001", "read_orders"),
    ("PATCH", "/orders/7/cancel", "cancel_order"),
    ("PATCH", "/orders/7", "cancel_order"),
)
UNKNOWN = (
    "//orders",
    "/orders/",
    "/orders//",
    "/orders;x=1",
    "/orders/7;x=1",
    "/%6frders",
    "/orders%2f7",
    "/orders/7%2fcancel",
    "/orders/%37",
    "/ORDERS",
    "/Orders/7",
    "/orders/.",
    "/orders/..",
    "/orders/../orders",
    "/orders/7/cancel/",
    "/orders/7/8/cancel",
    "/orders\\7",
    "/orders/7 ",
    "/",
    "",
    "*",
    "/events",
    "/metrics",
    "/settle",
    "/sweep",
    "/dead_letter",
    "/docs",
    "/openapi.json",
    "/debug",
    "/.git/config",
    "/actuator/health",
    "/_/ready",
    "/orders/7\n",
)


@pytest.mark.parametrize(("method", "path", "function"), ROUTED)
def test_declared_path_is_routed_to_its_function(method: str, path: str, function: str) -> None:
    assert TABLE.find(path).function(method) == function


@pytest.mark.parametrize("path", UNKNOWN)
def test_other_spelling_of_a_path_is_unknown(path: str) -> None:
    assert TABLE.find(path).functions == {}


def test_health_and_counters_are_served_at_the_paths_of_the_replaced_system(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            health = await send(platform.port, "GET", "/actuator/health")
            metrics = await send(platform.port, "GET", "/actuator/prometheus")
            posted = await send(platform.port, "POST", "/actuator/health")

        assert (health.status, json.loads(health.body)) == (200, {"status": "UP"})
        assert "shop_local_requests_total 2" in metrics.body.decode().splitlines()
        assert posted.status == 404

    asyncio.run(scenario())


def test_allow_lists_the_methods_of_the_path() -> None:
    assert TABLE.find("/orders").allow == "OPTIONS, POST"
    assert TABLE.find("/orders/7").allow == "GET, HEAD, OPTIONS, PATCH"
    assert TABLE.find("/orders").function("GET") is None
    assert TABLE.find("/orders").function("HEAD") is None


def test_request_is_forwarded_unchanged(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            response = await send(
                platform.port,
                "POST",
                "/echo?a=1&b=%20c",
                b'{"x":1}',
                {"content-type": "application/json"},
            )

            seen = json.loads(response.body)
            assert (seen["method"], seen["target"]) == ("POST", "/echo?a=1&b=%20c")
            assert seen["body"] == '{"x":1}'
            assert seen["headers"]["host"] == "shop.test"
            assert seen["headers"]["content-type"] == "application/json"

    asyncio.run(scenario())


def test_identity_and_origin_headers_are_removed(tmp_path: Path) -> None:
    headers = {
        "X-User-Id": "1",
        "X-Forwarded-User": "root",
        "X-Forwarded-Host": "settle",
        "X-Role": "staff",
        "X-Roles": "staff",
        "Forwarded": "for=1.2.3.4",
        "X-Real-Ip": "1.2.3.4",
        "X-Original-URL": "/internal",
        "X-Rewrite-Url": "/internal",
        "X-HTTP-Method-Override": "DELETE",
        "Connection": "X-Hop",
        "X-Hop": "1",
    }

    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            response = await platform.get(
                "/echo", **headers, X_Forwarded_For="1.2.3.4", Prefer="wait=5"
            )

            received = json.loads(response.body)["headers"]
            assert set(received) == {"host", "prefer", "x-forwarded-for", "x-forwarded-proto"}
            assert received["x-forwarded-for"] == "1.2.3.4, 127.0.0.1"

    asyncio.run(scenario())


def test_header_with_an_underscore_is_removed(tmp_path: Path) -> None:
    async def scenario() -> bytes:
        async with running_platform(tmp_path) as platform:
            reader, writer = await asyncio.open_connection("127.0.0.1", platform.port)
            writer.write(
                b"GET /echo HTTP/1.1\r\nhost: a\r\nx_user_id: 1\r\nconnection: close\r\n\r\n"
            )
            response = await reader.read()
            writer.close()
            return response

    response = asyncio.run(scenario())

    assert response.startswith(b"HTTP/1.1 200")
    assert b"x_user_id" not in response


def test_edge_answers_unknown_paths_methods_options_and_liveness_itself(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            unknown = await platform.get("/events")
            wrong = await send(platform.port, "DELETE", "/echo")
            options = await send(platform.port, "OPTIONS", "/echo")
            alive = await platform.get("/health/liveness")

            assert (unknown.status, json.loads(unknown.body)["error"]) == (404, "NOT_FOUND")
            assert json.loads(unknown.body)["instance"] == "/events"
            assert unknown.header(b"content-type") == b"application/problem+json"
            assert unknown.header(b"cache-control") == b"no-store"
            assert (wrong.status, wrong.header(b"allow")) == (405, b"GET, HEAD, OPTIONS, POST")
            assert (options.status, options.body) == (204, b"")
            assert options.header(b"allow") == b"GET, HEAD, OPTIONS, POST"
            assert alive.status == 200
            assert (await send(platform.port, "POST", "/events")).status == 404
            assert platform.activator.processes() == {}

    asyncio.run(scenario())


def test_body_over_the_limit_answers_413_and_starts_no_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            too_large = await send(platform.port, "POST", "/echo", b"x" * 70_000)
            assert too_large.status == 413
            assert platform.activator.processes() == {}

            largest = await send(platform.port, "POST", "/echo", b"x" * 64 * 1024)
            assert len(json.loads(largest.body)["body"]) == 64 * 1024

    asyncio.run(scenario())


def test_head_answers_without_a_body(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            response = await send(platform.port, "HEAD", "/echo")

            assert (response.status, response.body) == (200, b"")
            assert int(response.header(b"content-length") or 0) > 0

    asyncio.run(scenario())


def test_disconnected_client_frees_its_slot(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path) as platform:
            await platform.get("/echo")
            for _ in range(2):
                _, writer = await asyncio.open_connection("127.0.0.1", platform.port)
                writer.write(b"GET /slow?seconds=0.3 HTTP/1.1\r\nhost: a\r\n\r\n")
                await writer.drain()
                writer.close()
            pool = platform.activator.pools["web"]
            await wait_until(lambda: all(process.in_flight == 0 for process in pool.processes))

            assert (await platform.get("/echo")).status == 200

    asyncio.run(scenario())


def test_queued_request_of_a_client_that_left_is_dropped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, limits=ScalingLimits(processes_max=1)) as platform:
            await platform.get("/echo")
            pool = platform.activator.pools["web"]
            busy = [asyncio.create_task(platform.get("/slow?seconds=1")) for _ in range(2)]
            await wait_until(lambda: sum(each.in_flight for each in pool.processes) == 2)
            writers: list[asyncio.StreamWriter] = []
            for _ in range(3):
                _, writer = await asyncio.open_connection("127.0.0.1", platform.port)
                writer.write(b"GET /slow?seconds=5 HTTP/1.1\r\nhost: a\r\n\r\n")
                writers.append(writer)
            await wait_until(lambda: pool.queued == 3)
            for writer in writers:
                writer.close()
            await wait_until(lambda: pool.queued == 0)

            assert [response.status for response in await asyncio.gather(*busy)] == [200, 200]
            assert sum(each.in_flight for each in pool.processes) == 0

    asyncio.run(scenario())


HEAD = b"GET /orders/me HTTP/1.1\r\n"
REJECTED = {
    "no host": (HEAD + b"\r\n", 400),
    "two hosts": (HEAD + b"host: a\r\nhost: b\r\n\r\n", 400),
    "host with a path": (HEAD + b"host: a/b\r\n\r\n", 400),
    "host with credentials": (HEAD + b"host: a@b\r\n\r\n", 400),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    "header without a name": (HEAD + b"host: a\r\n: x\r\n\r\n", 400),
    "101 headers": (HEAD + b"host: a\r\n" + b"x: y\r\n" * 100 + b"\r\n", 431),
    "17 KiB of headers": (HEAD + b"host: a\r\nx: " + b"y" * 17_000 + b"\r\n\r\n", 431),
    "a head that does not end": (HEAD + b"x: " + b"y" * 70_000, 431),
}


@pytest.mark.parametrize("case", REJECTED)
def test_rejected_head_is_answered_with_a_problem_document(case: str, tmp_path: Path) -> None:
    sent, status = REJECTED[case]

    async def exchange() -> bytes:
        async with running_platform(tmp_path) as platform:
            reader, writer = await asyncio.open_connection("127.0.0.1", platform.port)
            writer.write(sent)
            async with asyncio.timeout(10):
                received = await reader.read()
            writer.close()
            return received

    head, _, body = asyncio.run(exchange()).partition(b"\r\n\r\n")

    assert head.split(b" ")[1] == str(status).encode()
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    assert json.loads(body)["status"] == status


def test_head_within_the_limits_reaches_the_function(tmp_path: Path) -> None:
    async def exchange() -> int:
        async with running_platform(tmp_path) as platform:
            headers = {f"x-{number}": "y" * 150 for number in range(90)}
            response = await platform.get("/echo", **headers)
            return response.status

    assert asyncio.run(exchange()) == 200
