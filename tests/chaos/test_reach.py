"""Every pair of a function and a window is passed by the shop's ordinary work, in its order."""

from __future__ import annotations

import pytest

from chaos.failpoint_pairs import Pair, pairs
from shop.primitives import failpoints
from shop.registry import all_specs
from shop.runtime import message_context
from shop.runtime.http_messages import HttpRequest, HttpResponse
from shop.runtime.wsgi import body_of
from tests.functions.ledger_book import post
from tests.functions.test_dead_letter import send as send_dead_letter
from tests.harness import FlowHarness
from tests.sample_requests import ROUTES, Samples, sample_request


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """Which windows were passed, by whom, in this order."""
    found: list[Pair] = []

    def note(window: str) -> None:
        message = message_context.current()
        assert message is not None, "windows are passed by messages"
        found.append(Pair(message.function, window))

    monkeypatch.setattr(failpoints, "hit", note)
    return found


def windows(passed: list[Pair], function: str) -> str:
    taken = " ".join(pair.window for pair in passed if pair.function == function)
    passed.clear()
    return taken


def test_windows_are_passed_in_their_order(flow: FlowHarness, passed: list[Pair]) -> None:
    buyer, product = flow.shop.person(), flow.shop.product()
    passed.clear()

    order = buyer.order(product, key="0123456789abcdef")
    assert windows(passed, "place_order") == "W0 W1 W2 W3 W4 W5 W6"
    buyer.order(product, key="0123456789abcdef")
    assert windows(passed, "place_order") == "W0 W6", "a replay changes nothing"

    flow.deliver()
    assert windows(passed, "charge") == "W0 W1 W2 W3 W4 W7 W8 W9 W3 W4 W5 W6"

    assert flow.send_webhook("charge.captured", flow.payment_key(order["id"]), 1000) == 204
    assert windows(passed, "payment_webhook") == "W0 W1 W2 W3 W4 W6", "it announces nothing new"

    buyer.get(f"/orders/{order['id']}")
    assert passed == [], "reading has no windows"


def test_every_pair_is_reached(flow: FlowHarness, passed: list[Pair]) -> None:
    samples = Samples(flow.shop)
    with_a_body = {
        function
        for spec in all_specs()
        for route in spec.routes
        if route.writes and route.auth != "provider"
        if (function := spec.name) and _answers_with_a_body(samples, route.method, route.path)
    }
    flow.run_until_idle()
    _notice_comes_first(flow)
    _sweep_charges(flow)
    post(flow.shop, "CAPTURE", 100, "2026-02-01 12:00+09")
    assert flow.shop.tick("settle").status == 204
    assert send_dead_letter(flow.shop).status == 204

    reached = set(passed) | {Pair(function, "W10") for function in with_a_body}

    assert set(pairs(all_specs())) == reached


def _answers_with_a_body(samples: Samples, method: str, path: str) -> bool:
    route = ROUTES[method, path]
    person = samples.person_for(route)
    answer = samples.send(
        route,
        sample_request(samples, route),
        token=person.token if person else None,
        key=f"{method}-{path.count('/')}-0123456789abcdef" if route.idempotent else None,
    )
    return answer.status < 400 and bool(answer.body)


def _notice_comes_first(flow: FlowHarness) -> None:
    """The provider's notice is there before charging has recorded the answer."""
    order = flow.shop.person().order(flow.shop.product())
    flow.simulator.set_faults(probabilities={"timeout_after": 1})
    flow.deliver()
    assert flow.send_webhook("charge.captured", flow.payment_key(order["id"]), 1000) == 204
    flow.simulator.set_faults()
    flow.run_until_idle()


def _sweep_charges(flow: FlowHarness) -> None:
    """No event gets through: the sweep alone moves the order on."""
    flow.shop.person().order(flow.shop.product())
    flow.run_timers_only()


# ---------------------------------------------------------------- half an answer


@pytest.mark.parametrize(
    ("method", "answer", "pieces"),
    [
        ("POST", HttpResponse(201, b"12345"), [b"123", b"45"]),
        ("PATCH", HttpResponse(200, b"1"), [b"1", b""]),
        ("DELETE", HttpResponse(204), [b""]),
        ("POST", HttpResponse(409, b"12345"), [b"12345"]),
        ("GET", HttpResponse(200, b"12345"), [b"12345"]),
    ],
)
def test_only_what_tells_of_a_change_is_cut(
    method: str, answer: HttpResponse, pieces: list[bytes]
) -> None:
    wire = HttpRequest(method, "/", "", {}, "", lambda _: b"", None)
    failpoints.arm("cart:W10:2")
    try:
        assert list(body_of(wire, answer)) == pieces
    finally:
        failpoints.arm("")
    assert list(body_of(wire, answer)) == [answer.body]
