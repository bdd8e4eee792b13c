"""Processes are killed while a payment waits for its customer, and while goods come back.

The confirmation of the return, the deadline and the receipt take effect once.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from events import envelope
from events.vocabulary import class_of
from shop.adapters.signatures import Signer
from tests.chaos.test_process_crashes import order_body, started, tick
from tests.function_process import FunctionProcess, ProcessHarness, running_function
from tests.tools.payment_simulator.simulator_process import API_KEY, SimulatorProcess
from tests.waiting import wait_for
from tools.local_platform.secrets import Secrets

# JSON bodies of requests and responses
Document = dict[str, Any]
Headers = dict[str, str]

FUNCTIONS = ("place_order", "charge", "sweep", "cancel_order", "fulfil_orders")
PROVIDER = {"PAYMENT_PROVIDER_API_KEY": API_KEY}
STATE = """
select o.status, p.status, p.action_token is not null from shop.orders o
join shop.payments p using (order_id) where o.order_id = %s
"""
NEWEST_EVENT = """
select event_id, source, type, data, created_at from shop.outbox
where order_id = %s and type like %s order by event_id desc limit 1
"""
RETURNED = """
select (select count(*) from shop.returns where order_id = p.order_id),
  (select count(*) from shop.refunds r where r.payment_id = p.payment_id),
  (select s.on_hand from shop.stock s join shop.order_lines l using (product_id)
    where l.order_id = p.order_id)
from shop.payments p where p.order_id = %s
"""


class Shop:
    """Processes without a failpoint, and the steps of customers and staff."""

    def __init__(
        self,
        processes: ProcessHarness,
        simulator: SimulatorProcess,
        secrets: Secrets,
        running: dict[str, FunctionProcess],
    ) -> None:
        self.processes = processes
        self.simulator = simulator
        self.running = running
        self._secrets = secrets

    def order(self, method: str, customer: Headers) -> str:
        """An order whose charge was tried once."""
        body = {**order_body(self.processes), "paymentMethod": method}
        placed = self.running["place_order"].request("POST", "/orders", body, customer)
        order_id = str(json.loads(placed[2])["id"])
        self.deliver("charge", order_id, "%order.placed%")
        return order_id

    def deliver(self, function: str, order_id: str, name: str) -> None:
        """Delivers the order's newest event of this name."""
        headers, body = self.event(order_id, name)
        assert self.running[function].request("POST", "/events", body, headers)[0] == 204

    def event(self, order_id: str, name: str) -> tuple[Headers, bytes]:
        ((event_id, source, kind, data, at),) = self.processes.sql(NEWEST_EVENT, order_id, name)
        event = class_of(kind).from_data(data)
        wrapped = envelope.wrap(event, id=str(event_id), source=source, time=at)
        signer = Signer("ordering", self._secrets.event_keys["ordering"])
        return envelope.to_binary(signer.sign(wrapped))

    def tick(self) -> tuple[Headers, bytes]:
        """What wakes the sweep."""
        return tick(self._secrets, "sweep")

    def sweep(self) -> int:
        headers, body = self.tick()
        return self.running["sweep"].request("POST", "/events", body, headers)[0]

    def state(self, order_id: str) -> tuple[str, str, bool]:
        """The status of the order and of its payment, and whether it is to be confirmed."""
        ((order, payment, has_token),) = self.processes.sql(STATE, order_id)
        return order, payment, has_token

    def make_due(self, order_id: str) -> None:
        self.processes.sql(
            "update shop.payments set next_try_at = now() where order_id = %s", order_id
        )

    def captures(self, order_id: str) -> int:
        ((key,),) = self.processes.sql(
            "select provider_key from shop.payments where order_id = %s", order_id
        )
        return self.simulator.captures(key)

    def returned(self, order_id: str) -> tuple[str, Document]:
        """The customer acts at the provider: the path of the confirmation, and its body."""
        ((payment_id, key, amount),) = self.processes.sql(
            "select payment_id, provider_key, amount_minor from shop.payments where order_id = %s",
            order_id,
        )
        intents = self.simulator.records()["intents"]
        reference = next(i["provider_ref"] for i in intents if i["key"] == key)
        _, acted = self.simulator.request("POST", f"/pay/{reference}/finish", api_key="")
        path = f"/orders/{order_id}/payments/{payment_id}/confirm"
        return path, {"token": acted["token"], "amount": amount}


@pytest.fixture(scope="module")
def shop(
    processes: ProcessHarness, simulator: SimulatorProcess, secrets: Secrets
) -> Iterator[Shop]:
    with ExitStack() as stack:
        running = {
            name: stack.enter_context(
                running_function("container", name, processes.environment(name, **PROVIDER))
            )
            for name in FUNCTIONS
        }
        yield Shop(processes, simulator, secrets, running)


@pytest.fixture
def customer(processes: ProcessHarness) -> Headers:
    return processes.customer()


def crash(shop: Shop, folder: Path, failpoint: str, *request: Any) -> None:
    """Sends the request to a process that is killed at the failpoint."""
    function = failpoint.partition(":")[0]
    environment = shop.processes.environment(function, SHOP_CRASH=failpoint, **PROVIDER)
    with started(folder, environment, function) as running:
        with pytest.raises((OSError, HTTPException)):
            running.request(*request)
        assert running.process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("failpoint", "is_committed"), [("W1", False), ("W2", False), ("W3", True), ("W6", True)]
)
def test_return_is_confirmed_once_wherever_its_process_crashes(
    shop: Shop, customer: Headers, tmp_path: Path, failpoint: str, is_committed: bool
) -> None:
    order_id = shop.order("CARD_WIDGET", customer)
    assert shop.state(order_id) == ("PENDING", "REQUIRES_ACTION", False)
    path, body = shop.returned(order_id)
    headers = customer | {"Idempotency-Key": uuid4().hex}

    crash(shop, tmp_path, f"place_order:{failpoint}:1", "POST", path, body, headers)
    expected = ("PENDING", "REQUIRES_ACTION", is_committed)
    wait_for(lambda: shop.state(order_id) == expected, "PostgreSQL has ended the transaction")
    answers = [shop.running["place_order"].request("POST", path, body, headers) for _ in range(2)]
    for _ in range(2):
        shop.deliver("charge", order_id, "%payment.confirm-requested%")

    assert [answer[0] for answer in answers] == [202, 202]
    assert answers[0][2] == answers[1][2]
    assert shop.state(order_id) == ("PAID", "CAPTURED", False)
    assert shop.captures(order_id) == 1


@pytest.mark.parametrize("failpoint", ["W4", "W7", "W8", "W9"])
def test_confirmed_payment_is_collected_once_wherever_charge_crashes(
    shop: Shop, customer: Headers, tmp_path: Path, failpoint: str
) -> None:
    order_id = shop.order("CARD_WIDGET", customer)
    path, body = shop.returned(order_id)
    assert shop.running["place_order"].request("POST", path, body, customer)[0] == 202
    headers, event = shop.event(order_id, "%payment.confirm-requested%")

    crash(shop, tmp_path, f"charge:{failpoint}:1", "POST", "/events", event, headers)
    assert shop.state(order_id) == ("PENDING", "REQUIRES_ACTION", True)
    shop.deliver("charge", order_id, "%payment.confirm-requested%")  # has been received before
    shop.make_due(order_id)
    assert shop.sweep() == 204

    assert shop.state(order_id) == ("PAID", "CAPTURED", False)
    assert shop.captures(order_id) == 1


@pytest.mark.parametrize("failpoint", ["W7", "W8", "W9"])
def test_payment_is_voided_at_its_deadline_wherever_sweep_crashes(
    shop: Shop, customer: Headers, tmp_path: Path, failpoint: str
) -> None:
    order_id = shop.order("CARD_WIDGET", customer)
    path, body = shop.returned(order_id)
    shop.processes.sql(
        "update shop.payments set act_until = now() - interval '1 second', next_try_at = now() "
        "where order_id = %s",
        order_id,
    )
    headers, event = shop.tick()

    crash(shop, tmp_path, f"sweep:{failpoint}:1", "POST", "/events", event, headers)
    assert shop.state(order_id) == ("PENDING", "REQUIRES_ACTION", False)
    late = shop.running["place_order"].request("POST", path, body, customer)
    shop.make_due(order_id)
    assert shop.sweep() == 204

    assert (late[0], json.loads(late[2])["error"]) == (409, "ACTION_EXPIRED")
    assert shop.state(order_id) == ("PENDING", "VOIDED", False)
    assert shop.captures(order_id) == 0


@pytest.mark.parametrize(
    ("crashed", "failpoint"),
    [("request", "W2"), ("request", "W3"), ("receipt", "W2"), ("receipt", "W3"), ("receipt", "W6")],
)
def test_goods_are_returned_once_wherever_a_process_crashes(
    shop: Shop, customer: Headers, tmp_path: Path, crashed: str, failpoint: str
) -> None:
    order_id = shop.order("CARD", customer)
    ((_, _, on_hand),) = shop.processes.sql(RETURNED, order_id)
    staff, support = (shop.processes.account(role) for role in ("staff", "support"))
    fulfil, ask = shop.running["fulfil_orders"], shop.running["cancel_order"]
    path = f"/admin/orders/{order_id}"
    packed = json.loads(fulfil.request("POST", f"{path}/shipments", {}, staff)[2])
    sent = {"status": "SHIPPED", "carrier": "test", "trackingNumber": uuid4().hex}
    for change in (sent, {"status": "DELIVERED"}):
        changed = fulfil.request("PATCH", f"{path}/shipments/{packed['id']}", change, staff)
        assert changed[0] == 200
    line = {"productId": packed["items"][0]["productId"], "quantity": 1}
    body = {"items": [line], "reason": "too small"}
    asked = ("POST", f"/orders/{order_id}/returns", body, customer | _new_key())

    if crashed == "request":
        crash(shop, tmp_path, f"cancel_order:{failpoint}:1", *asked)
    answer = ask.request(*asked)
    assert answer[0] == 201
    return_path = f"{path}/returns/{json.loads(answer[2])['id']}"
    assert fulfil.request("PATCH", return_path, {"status": "APPROVED"}, support)[0] == 200
    receipt = ("POST", f"{return_path}/receipt", {"restocked": [line]}, staff | _new_key())
    if crashed == "receipt":
        crash(shop, tmp_path, f"fulfil_orders:{failpoint}:1", *receipt)
    answers = [fulfil.request(*receipt) for _ in range(2)]

    assert [each[0] for each in answers] == [200, 200]
    assert answers[0][2] == answers[1][2]
    assert [tuple(row) for row in shop.processes.sql(RETURNED, order_id)] == [(1, 1, on_hand + 1)]


def _new_key() -> Headers:
    return {"Idempotency-Key": uuid4().hex}
