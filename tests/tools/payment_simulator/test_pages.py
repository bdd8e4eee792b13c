"""The page of the simulator on which a customer approves or declines a payment."""

from __future__ import annotations

from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from tests.tools.payment_simulator.simulator_process import SimulatorProcess, charge_call

RETURN_URL = "http://127.0.0.1:9/?order={orderId}&payment={paymentId}"


@pytest.fixture
def simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatorProcess]:
    monkeypatch.setenv("PAYMENT_RETURN_URL", RETURN_URL)
    process = SimulatorProcess(tmp_path / "records.sqlite")
    yield process
    process.stop()


def browse(simulator: SimulatorProcess, path: str, method: str = "GET") -> tuple[HTTPResponse, str]:
    connection = HTTPConnection(simulator.url.removeprefix("http://"), timeout=10)
    connection.request(method, path, headers={"accept": "text/html,*/*"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def open_payment(simulator: SimulatorProcess, order_id: str = "o-1") -> str:
    """A payment that waits for its customer; returns its page."""
    fields = {
        "key": charge_call().key, "amount_minor": 12_345, "currency": "KRW",
        "payment_method": "CARD_REDIRECT", "order_id": order_id, "payment_id": "p-1",
    }  # fmt: skip
    assert simulator.request("POST", "/intents", fields)[0] == 200
    _, confirmed = simulator.request("POST", f"/intents/{fields['key']}/confirm", {})
    return str(confirmed["next_action"]["path"])


@pytest.mark.parametrize(("step", "status"), [("finish", "captured"), ("fail", "declined")])
def test_button_ends_the_payment_and_returns_each_time(
    simulator: SimulatorProcess, step: str, status: str
) -> None:
    path = open_payment(simulator)
    response, page = browse(simulator, path)
    assert response.status == 200
    assert f'action="{path}/{step}"' in page
    assert "12,345 KRW" in page
    for _ in range(2):
        response, _ = browse(simulator, f"{path}/{step}", "POST")
        assert response.status == 303
    _, page = browse(simulator, path)
    assert status in page
    assert "<form" not in page


def test_return_address_names_the_order(simulator: SimulatorProcess) -> None:
    path = open_payment(simulator, "o/1&x=2")
    response, _ = browse(simulator, f"{path}/finish", "POST")
    assert response.headers["location"] == "http://127.0.0.1:9/?order=o%2F1%26x%3D2&payment=p-1"


def test_late_customer_sees_that_the_payment_is_over(simulator: SimulatorProcess) -> None:
    path = open_payment(simulator)
    reference = path.rsplit("/", 1)[1]
    (intent,) = [
        each
        for each in simulator.request("GET", "/records")[1]["intents"]
        if each["provider_ref"] == reference
    ]
    assert simulator.request("POST", f"/intents/{intent['key']}/cancel", {})[0] == 200
    response, _ = browse(simulator, f"{path}/finish", "POST")
    assert (response.status, response.headers["location"]) == (303, path)
    assert "voided" in browse(simulator, path)[1]


def test_unknown_payment_has_a_page_without_buttons(simulator: SimulatorProcess) -> None:
    response, page = browse(simulator, "/pay/%3Cscript%3E")
    assert response.status == 404
    assert "<form" not in page
    assert "<script" not in page
    assert browse(simulator, "/pay/%3Cscript%3E/finish", "POST")[0].status == 404
