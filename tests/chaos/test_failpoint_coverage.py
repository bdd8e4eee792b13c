"""Ordinary operations of the shop pass every pair of function and failpoint, in order."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from chaos.failpoint_pairs import FailpointPair, failpoint_pairs
from chaos.kill_driver import BUSY, WITH_TICKS
from chaos.kill_requests import PASSWORDS, Send, requests_by_function
from shop.primitives import failpoints
from shop.primitives.failpoints import Failpoint
from shop.registry import all_specs, spec_of
from shop.runtime import message_context
from shop.runtime.http_messages import HttpRequest, HttpResponse
from shop.runtime.wsgi import body_of
from tests.functions.test_dead_letter import send as send_dead_letter
from tests.harness import FlowHarness
from tests.ledger_postings import insert_posting
from tests.sample_requests import ROUTES, Samples, sample_request

KEY = "0123456789abcdef"


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[FailpointPair]:
    """The pairs that have been passed, in this order."""
    found: list[FailpointPair] = []

    def record(failpoint: Failpoint) -> None:
        message = message_context.current()
        assert message is not None, "failpoints are passed while a message is handled"
        found.append(FailpointPair(message.function, failpoint))

    monkeypatch.setattr(failpoints, "hit", record)
    return found


def take_failpoints(passed: list[FailpointPair], function: str) -> str:
    """The failpoints that the function has passed since the previous call."""
    names = " ".join(pair.failpoint for pair in passed if pair.function == function)
    passed.clear()
    return names


def test_failpoints_are_passed_in_order(flow: FlowHarness, passed: list[FailpointPair]) -> None:
    customer, product = flow.shop.person(), flow.shop.product()
    passed.clear()

    order = customer.order(product, key=KEY)
    assert take_failpoints(passed, "place_order") == "W0 W1 W2 W3 W4 W5 W6"
    customer.order(product, key=KEY)
    assert take_failpoints(passed, "place_order") == "W0 W6", "a replay changes nothing"

    flow.deliver()
    assert take_failpoints(passed, "charge") == "W0 W1 W2 W3 W4 W7 W8 W9 W3 W4 W5 W6"

    assert flow.send_webhook("charge.captured", flow.payment_key(order["id"]), 1000) == 204
    assert take_failpoints(passed, "payment_webhook") == "W0 W1 W2 W3 W4 W6", "no new event"

    customer.get(f"/orders/{order['id']}")
    assert passed == [], "reads have no failpoints"


def test_every_pair_is_passed(flow: FlowHarness, passed: list[FailpointPair]) -> None:
    samples = Samples(flow.shop)
    with_body = {
        spec.name
        for spec in all_specs()
        for route in spec.routes
        if route.writes and route.auth != "provider"
        if _has_response_body(samples, route.method, route.path)
    }
    flow.run_until_idle()
    _receive_webhook_before_the_response(flow)
    _charge_by_sweep(flow)
    insert_posting(flow.shop, "CAPTURE", 100, "2026-02-01 12:00+09")
    assert flow.shop.tick("settle").status == 204
    assert send_dead_letter(flow.shop).status == 204

    half_responses = {FailpointPair(name, Failpoint.HALF_RESPONSE_SENT) for name in with_body}

    assert set(failpoint_pairs(all_specs())) == set(passed) | half_responses


def _has_response_body(samples: Samples, method: str, path: str) -> bool:
    """Sends a sample request; whether its response has a body."""
    route = ROUTES[method, path]
    person = samples.person_for(route)
    response = samples.send(
        route,
        sample_request(samples, route),
        token=person.token if person else None,
        key=f"{method}-{path.count('/')}-{KEY}" if route.idempotent else None,
    )
    return response.status < 400 and bool(response.body)


class _HarnessTransport(httpx.AsyncBaseTransport):
    """Sends requests to the functions of the harness; lists those whose response has a body."""

    def __init__(self, flow: FlowHarness) -> None:
        self._flow = flow
        self.written_with_body: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The response of the function that has the route."""
        response = self._flow.shop.call(
            request.method,
            request.url.raw_path.decode(),
            raw=await request.aread(),
            headers={k: v for k, v in request.headers.items() if k != "content-length"},
        )
        assert response.status < 300, (request.url, response.body)
        if request.method != "GET" and response.body:
            self.written_with_body.append(request)
        return httpx.Response(response.status, headers=response.headers, content=response.body)


@pytest.mark.parametrize("function", list(requests_by_function(httpx.AsyncClient())))
def test_requests_of_the_kill_driver_pass_every_failpoint_of_the_function(
    flow: FlowHarness, passed: list[FailpointPair], function: str
) -> None:
    _add_seeded_accounts(flow)
    samples = Samples(flow.shop)
    samples.webhook()
    assert samples.paid, "an order to pack"
    passed.clear()
    transport = _HarnessTransport(flow)
    client = httpx.AsyncClient(transport=transport, base_url="http://shop")

    asyncio.run(_await(requests_by_function(client)[function]))

    expected = set(failpoint_pairs((spec_of(function),)))
    half = FailpointPair(function, Failpoint.HALF_RESPONSE_SENT)
    assert bool(transport.written_with_body) or half not in expected
    assert expected - {half} <= set(passed)


def test_kill_driver_has_messages_for_every_function_that_is_not_busy() -> None:
    with_pairs = {pair.function for pair in failpoint_pairs(all_specs())}

    assert set(requests_by_function(httpx.AsyncClient())) | WITH_TICKS | BUSY == with_pairs - {
        "dead_letter"
    }


def _add_seeded_accounts(flow: FlowHarness) -> None:
    for role, (email, password) in PASSWORDS.items():
        flow.shop.register(email, password)
        flow.shop.sql("update shop.users set role = %s where email = %s", role, email)


async def _await(send: Send) -> None:
    await send()


def _receive_webhook_before_the_response(flow: FlowHarness) -> None:
    """The webhook of a charge is received while its response is missing."""
    order = flow.shop.person().order(flow.shop.product())
    flow.simulator.set_faults(probabilities={"timeout_after": 1})
    flow.deliver()
    assert flow.send_webhook("charge.captured", flow.payment_key(order["id"]), 1000) == 204
    flow.simulator.set_faults()
    flow.run_until_idle()


def _charge_by_sweep(flow: FlowHarness) -> None:
    """Without the delivery of events, the sweep alone charges the order."""
    flow.shop.person().order(flow.shop.product())
    flow.run_timers_only()


@pytest.mark.parametrize(
    ("method", "response", "pieces"),
    [
        ("POST", HttpResponse(201, b"12345"), [b"123", b"45"]),
        ("PATCH", HttpResponse(200, b"1"), [b"1", b""]),
        ("DELETE", HttpResponse(204), [b""]),
        ("POST", HttpResponse(409, b"12345"), [b"12345"]),
        ("GET", HttpResponse(200, b"12345"), [b"12345"]),
    ],
)
def test_only_successful_responses_to_writes_are_sent_in_halves(
    method: str, response: HttpResponse, pieces: list[bytes]
) -> None:
    request = HttpRequest(method, "/", "", {}, "", lambda _: b"", None)
    failpoints.arm("cart:W10:2")
    try:
        assert list(body_of(request, response)) == pieces
    finally:
        failpoints.arm("")
    assert list(body_of(request, response)) == [response.body]
