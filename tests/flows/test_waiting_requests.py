"""``Prefer: wait`` on a real process: waiting takes nothing that other requests need."""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException

import pytest

from shop.registry import spec_of
from shop.runtime.waiting import ACCOUNT_WAITING_MAX
from tests.function_process import FunctionProcess, HttpResult, ProcessHarness, running_function
from tests.waiting import wait_for

WAITING_MAX = spec_of("read_orders").scale.waiting_max
Headers = dict[str, str]


@dataclass
class Readers:
    """A process of read_orders, and requests that wait in threads of the test."""

    running: FunctionProcess
    processes: ProcessHarness
    results: list[HttpResult] = field(default_factory=list[HttpResult])
    threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def wait(self, customer: Headers, path: str, times: int, seconds: int = 20) -> None:
        """Sends requests that ask to wait, in the background."""
        sent = customer | {"Prefer": f"wait={seconds}"}

        def read() -> None:
            with suppress(OSError, HTTPException):  # the process ends before the wait
                self.results.append(self.running.request("GET", path, None, sent))

        for _ in range(times):
            self.threads.append(threading.Thread(target=read, daemon=True))
            self.threads[-1].start()

    def at_once(self, count: int) -> list[HttpResult]:
        """The first responses, as soon as there are this many."""
        wait_for(lambda: len(self.results) >= count, f"{count} responses", 15)
        return list(self.results)


@pytest.fixture(scope="module")
def orders(processes: ProcessHarness) -> tuple[list[Headers], list[str]]:
    """Customers with a pending order each: their headers and the paths of the orders."""
    ((product,),) = processes.sql("select max(product_id) from shop.products")
    processes.sql("update shop.stock set on_hand = on_hand + 100 where product_id = %s", product)
    order = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    customers = [processes.customer() for _ in range(WAITING_MAX // ACCOUNT_WAITING_MAX + 2)]
    environment = processes.environment("place_order", BROKER_URL="")
    with running_function("container", "place_order", environment) as running:
        placed = [running.request("POST", "/orders", order, each) for each in customers]
    assert {status for status, _, _ in placed} == {201}
    return customers, [headers["location"] for _, headers, _ in placed]


@pytest.fixture(params=["container", "framework"])
def readers(request: pytest.FixtureRequest, processes: ProcessHarness) -> Iterator[Readers]:
    threads = {"THREADS": "4"} if request.param == "framework" else {}
    environment = processes.environment("read_orders", **threads)
    with running_function(request.param, "read_orders", environment) as running:
        yield Readers(running, processes)


@pytest.fixture
def container(processes: ProcessHarness) -> Iterator[Readers]:
    with running_function("container", "read_orders", processes.environment("read_orders")) as run:
        yield Readers(run, processes)


def test_waiting_requests_of_one_account_do_not_delay_other_customers(
    readers: Readers, orders: tuple[list[Headers], list[str]]
) -> None:
    (account, other, *_), (path, _, *_) = orders

    readers.wait(account, path, times=40)
    at_once = readers.at_once(40 - ACCOUNT_WAITING_MAX)
    status, _, body = readers.running.request("GET", "/orders/me", None, other)

    assert (status, len(json.loads(body))) == (200, 1)
    assert len(readers.results) == 40 - ACCOUNT_WAITING_MAX, "two requests still wait"
    assert {status for status, _, _ in at_once} == {200}
    assert not [headers for _, headers, _ in at_once if "preference-applied" in headers]


def test_waiting_requests_of_many_accounts_leave_all_threads_to_others(
    container: Readers, orders: tuple[list[Headers], list[str]]
) -> None:
    customers, paths = orders[0][:-1], orders[1][:-1]
    for customer, path in zip(customers[:-1], paths, strict=False):
        container.wait(customer, path, times=ACCOUNT_WAITING_MAX + 1)
    container.at_once(len(customers) - 1)

    container.wait(customers[-1], paths[-1], times=1)
    beyond = container.at_once(len(customers))

    assert "preference-applied" not in beyond[-1][1], "the process has no room for more"
    threads = spec_of("read_orders").scale.concurrency
    for _ in range(threads + 1):
        assert container.running.request("GET", "/orders/me", None, customers[-1])[0] == 200
    assert len(container.results) == len(customers), "the others still wait"


def test_client_that_leaves_makes_room_for_another_request(
    container: Readers, orders: tuple[list[Headers], list[str]]
) -> None:
    (account, *_), (path, *_) = orders
    head = f"GET {path} HTTP/1.1\r\nHost: a\r\nPrefer: wait=20\r\n"
    sent = f"{head}Authorization: {account['Authorization']}\r\n\r\n".encode()
    address = ("127.0.0.1", container.running.port)
    left = [socket.create_connection(address) for _ in range(ACCOUNT_WAITING_MAX + 1)]
    for connection in left:
        connection.sendall(sent)
    at_once, _, _ = select.select(left, [], [], 15)
    assert len(at_once) == 1, "the account has room for all but one"
    assert not _waits(container, account, path)
    for connection in left:
        connection.close()

    assert wait_for(lambda: _waits(container, account, path), "the account has room again")


def _waits(readers: Readers, account: Headers, path: str) -> bool:
    """Whether a request of this account may wait."""
    sent = account | {"Prefer": "wait=1"}
    return "preference-applied" in readers.running.request("GET", path, None, sent)[1]


def test_waiting_request_gets_the_final_order(
    container: Readers, orders: tuple[list[Headers], list[str]], processes: ProcessHarness
) -> None:
    (*_, account), (*_, path) = orders
    container.wait(account, path, times=1)
    environment = processes.environment("cancel_order", BROKER_URL="")
    with running_function("container", "cancel_order", environment) as cancelling:
        assert cancelling.request("PATCH", f"{path}/cancel", {}, account)[0] == 200

    ((status, headers, body),) = container.at_once(1)

    assert (status, headers["preference-applied"]) == (200, "wait=20")
    assert json.loads(body)["status"] == "CANCELLED"
