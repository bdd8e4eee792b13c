"""Only the routes of the specs, spelled exactly, and none of the client's claims."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shop.primitives.spec import FunctionSpec, Schedule
from tests.tools.local_platform.bench import Bench, ask, bench, route
from tests.waiting import wait_until
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
def test_known_paths_lead_to_their_function(method: str, path: str, function: str) -> None:
    assert TABLE.find(path).function(method) == function


@pytest.mark.parametrize("path", UNKNOWN)
def test_other_spellings_lead_nowhere(path: str) -> None:
    assert TABLE.find(path).functions == {}


def test_allow_names_what_is_possible() -> None:
    assert TABLE.find("/orders").allow == "OPTIONS, POST"
    assert TABLE.find("/orders/7").allow == "GET, HEAD, OPTIONS, PATCH"
    assert TABLE.find("/orders").function("GET") is None
    assert TABLE.find("/orders").function("HEAD") is None


@asynccontextmanager
async def edge_bench(folder: Path) -> AsyncIterator[Bench]:
    async with bench(folder) as desk:
        yield desk


def test_a_request_arrives_as_it_was_sent(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge_bench(tmp_path) as desk:
            answer = await ask(
                desk.port, "POST", "/echo?a=1&b=%20c", b'{"x":1}', content_type="application/json"
            )

            seen = json.loads(answer.body)
            assert (seen["method"], seen["target"]) == ("POST", "/echo?a=1&b=%20c")
            assert seen["body"] == '{"x":1}'
            assert seen["headers"]["host"] == "shop.test"
            assert seen["headers"]["content-type"] == "application/json"

    asyncio.run(story())


def test_claims_about_identity_and_origin_are_removed(tmp_path: Path) -> None:
    claims = {
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

    async def story() -> None:
        async with edge_bench(tmp_path) as desk:
            answer = await desk.get("/echo", **claims, X_Forwarded_For="1.2.3.4", Prefer="wait=5")

            headers = json.loads(answer.body)["headers"]
            assert set(headers) == {"host", "prefer", "x-forwarded-for", "x-forwarded-proto"}
            assert headers["x-forwarded-for"] == "1.2.3.4, 127.0.0.1"

    asyncio.run(story())


def test_a_header_with_an_underscore_does_not_pass(tmp_path: Path) -> None:
    async def story() -> bytes:
        async with edge_bench(tmp_path) as desk:
            reader, writer = await asyncio.open_connection("127.0.0.1", desk.port)
            writer.write(
                b"GET /echo HTTP/1.1\r\nhost: a\r\nx_user_id: 1\r\nconnection: close\r\n\r\n"
            )
            answer = await reader.read()
            writer.close()
            return answer

    answer = asyncio.run(story())

    assert answer.startswith(b"HTTP/1.1 200")
    assert b"x_user_id" not in answer


def test_what_the_edge_answers_itself(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge_bench(tmp_path) as desk:
            unknown = await desk.get("/events")
            wrong = await ask(desk.port, "DELETE", "/echo")
            options = await ask(desk.port, "OPTIONS", "/echo")
            alive = await desk.get("/health/liveness")

            assert (unknown.status, json.loads(unknown.body)["error"]) == (404, "NOT_FOUND")
            assert json.loads(unknown.body)["instance"] == "/events"
            assert unknown.header(b"content-type") == b"application/problem+json"
            assert unknown.header(b"cache-control") == b"no-store"
            assert (wrong.status, wrong.header(b"allow")) == (405, b"GET, HEAD, OPTIONS, POST")
            assert (options.status, options.body) == (204, b"")
            assert options.header(b"allow") == b"GET, HEAD, OPTIONS, POST"
            assert alive.status == 200
            assert (await ask(desk.port, "POST", "/events")).status == 404
            assert desk.activator.processes() == {}

    asyncio.run(story())


def test_a_body_over_the_limit_is_413_and_wakes_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge_bench(tmp_path) as desk:
            too_large = await ask(desk.port, "POST", "/echo", b"x" * 70_000)
            assert too_large.status == 413
            assert desk.activator.processes() == {}

            largest = await ask(desk.port, "POST", "/echo", b"x" * 64 * 1024)
            assert len(json.loads(largest.body)["body"]) == 64 * 1024

    asyncio.run(story())


def test_head_is_answered_without_a_body(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge_bench(tmp_path) as desk:
            answer = await ask(desk.port, "HEAD", "/echo")

            assert (answer.status, answer.body) == (200, b"")
            assert int(answer.header(b"content-length") or 0) > 0

    asyncio.run(story())


def test_a_client_that_leaves_does_not_keep_a_slot(tmp_path: Path) -> None:
    async def story() -> None:
        async with edge_bench(tmp_path) as desk:
            await desk.get("/echo")
            for _ in range(2):
                _, writer = await asyncio.open_connection("127.0.0.1", desk.port)
                writer.write(b"GET /slow?seconds=0.3 HTTP/1.1\r\nhost: a\r\n\r\n")
                await writer.drain()
                writer.close()
            pool = desk.activator.pools["web"]
            await wait_until(lambda: all(process.in_flight == 0 for process in pool.processes))

            assert (await desk.get("/echo")).status == 200

    asyncio.run(story())
