"""Requests to functions that run at fixed addresses."""

from __future__ import annotations

import asyncio

import pytest

from shop.registry import all_specs
from tests.tools.local_platform.function_server import function_server
from tests.tools.local_platform.platform_under_test import SPECS
from tools.local_platform.http_messages import HttpRequest
from tools.local_platform.running_functions import RunningFunctions
from tools.local_platform.servers import free_port

EVENT = HttpRequest("POST", b"/events", [(b"host", b"subscriber")], b"{}")


def send_events(pattern: str, times: int = 1) -> list[int]:
    """The statuses of an event that is sent repeatedly."""

    async def send() -> list[int]:
        functions = RunningFunctions(SPECS, pattern)
        statuses = [(await functions.send("subscriber", EVENT)).status for _ in range(times)]
        functions.close()
        return statuses

    return asyncio.run(send())


def test_requests_reach_the_address_over_one_connection() -> None:
    with function_server() as (pattern, received):
        assert send_events(pattern, times=3) == [204, 204, 204]
    assert [headers["host"] for headers in received] == ["subscriber"] * 3


def test_response_is_returned_and_a_closed_connection_answers_502() -> None:
    with function_server(503, 0, 204) as (pattern, _):
        assert send_events(pattern, times=3) == [503, 502, 204]


def test_unreachable_function_answers_503() -> None:
    assert send_events(f"http://{{name}}@127.0.0.1:{free_port()}") == [503]


def test_path_of_the_pattern_precedes_the_path_of_the_request() -> None:
    with function_server() as (pattern, received):
        address = pattern.replace("{name}@", "")
        assert send_events(f"{address}/function/shop-{{name}}/") == [204]
    assert [headers[":path"] for headers in received] == ["/function/shop-subscriber/events"]


def test_group_of_the_pattern_is_the_function_of_the_stack_file() -> None:
    async def send() -> None:
        functions = RunningFunctions(all_specs(), f"{address}/function/shop-{{group}}")
        for name in ("settle", "read_settlements", "charge"):
            await functions.send(name, EVENT)
        functions.close()

    with function_server() as (pattern, received):
        address = pattern.replace("{name}@", "")
        asyncio.run(send())
    assert [headers[":path"] for headers in received] == [
        "/function/shop-settlements/events",
        "/function/shop-settlements/events",
        "/function/shop-charge/events",
    ]


def test_functions_that_do_not_answer_are_returned_with_status_and_address() -> None:
    async def check() -> dict[str, str]:
        functions = RunningFunctions(all_specs(), f"{address}/{{name}}")
        unanswered = await functions.unanswered(["charge", "refund", "settle"])
        functions.close()
        return unanswered

    health = {"/charge/health/readiness": 200, "/refund/health/readiness": 503}
    with function_server(health=health) as (pattern, _):
        address = pattern.replace("{name}@", "")
        unanswered = asyncio.run(check())

    assert unanswered == {
        "refund": f"503 from {address}/refund",
        "settle": f"404 from {address}/settle",
    }


@pytest.mark.parametrize("pattern", ["http://functions:8080", "https://{name}", "{name}:80"])
def test_pattern_without_name_or_http_raises_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="not an http URL"):
        RunningFunctions(SPECS, pattern)


@pytest.mark.parametrize("pattern", ["http://functions?function={name}", "http://{name}/#events"])
def test_pattern_with_query_or_fragment_raises_value_error(pattern: str) -> None:
    with pytest.raises(ValueError, match="no query and no fragment"):
        RunningFunctions(SPECS, pattern)
