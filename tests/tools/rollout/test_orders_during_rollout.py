"""No order is lost or doubled by a roll-out of ``place_order`` whose new version cannot work.

The functions are real processes on a real PostgreSQL, ``kubectl`` is real; Serving's routing is the
stand-in's.  The new version passes its smoke requests and fails with the customers'.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from tests.function_process import FunctionProcess, ProcessHarness
from tests.tools.rollout.conftest import FAST, ROOT, Shop
from tests.tools.rollout.serving import Revision
from tests.waiting import wait_for

SERVICE = "shop-place-order"
STABLE, CANDIDATE = f"{SERVICE}-00001", f"{SERVICE}-00002"
NO_DATABASE = "postgresql://shop_ordering:none@127.0.0.1:9/shop"


@contextmanager
def pod(processes: ProcessHarness, log: Path, **settings: str) -> Generator[FunctionProcess]:
    """A process of ``place_order`` that writes its log to a file."""
    environment = processes.environment("place_order", OPEN_ORDERS_MAX="0", **settings)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "shop.runtime", "place_order"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    running = FunctionProcess(process, int(environment["PORT"]))
    try:
        wait_for(running.is_up, f"{log.name} is healthy", 60)
        yield running
    finally:
        process.kill()
        process.wait()


class Customers:
    """Two customers who place orders one after another, and repeat what fails with its key."""

    def __init__(self, shop: Shop, processes: ProcessHarness, pods: dict[str, FunctionProcess]):
        self._shop, self._processes, self._pods = shop, processes, pods
        self._ended = threading.Event()
        self.placed: list[str] = []
        self.repeated: list[int] = []
        self.failed_at = float("inf")

    @contextmanager
    def ordering(self) -> Generator[None]:
        """Orders are placed while the block runs, and the last ones are completed."""
        threads = [threading.Thread(target=self._place_orders, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def _place_orders(self, seed: int) -> None:
        random, signed_in = Random(seed), self._processes.customer()
        ((product,),) = self._processes.sql("select max(product_id) from shop.products")
        order = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
        while not self._ended.is_set():
            key = {"Idempotency-Key": uuid4().hex}
            while (status := self._send(random, order, signed_in | key)) != 201:
                self.repeated.append(status)
                self.failed_at = min(self.failed_at, time.monotonic())
            self.placed.append(key["Idempotency-Key"])

    def _send(self, random: Random, order: object, headers: dict[str, str]) -> int:
        revision = self._shop.serving.route(SERVICE, random)
        return self._pods[revision.name].request("POST", "/orders", order, headers)[0]


def deploy(shop: Shop, name: str, running: FunctionProcess, log: Path) -> None:
    """A revision with one process."""

    def lines() -> list[str]:
        return [line for line in log.read_text("utf-8").splitlines() if line.startswith("{")]

    url = f"http://127.0.0.1:{running.port}"
    shop.serving.deploy(SERVICE, Revision(name, url, log=lines))


@pytest.mark.timeout(300)
def test_every_order_is_placed_once_when_the_new_version_has_no_database(
    make_shop: Callable[[], Shop], processes: ProcessHarness, tmp_path: Path
) -> None:
    shop = make_shop()
    logs = {name: tmp_path / f"{name}.log" for name in (STABLE, CANDIDATE)}
    ((product,),) = processes.sql("select max(product_id) from shop.products")
    processes.sql("update shop.stock set on_hand = 1000000 where product_id = %s", product)
    with ExitStack() as stack:
        stable = stack.enter_context(pod(processes, logs[STABLE]))
        broken = pod(processes, logs[CANDIDATE], DATABASE_URL=NO_DATABASE)
        pods = {STABLE: stable, CANDIDATE: stack.enter_context(broken)}
        customers = Customers(shop, processes, pods)
        deploy(shop, STABLE, pods[STABLE], logs[STABLE])
        assert shop.rollout("pin", "place_order").returncode == 0
        deploy(shop, CANDIDATE, pods[CANDIDATE], logs[CANDIDATE])
        patched_at: list[float] = []
        shop.serving.on_patch = lambda _name: patched_at.append(time.monotonic())
        with customers.ordering():
            result = shop.rollout("run", "place_order", *FAST, "--steps=40,100")

    assert result.returncode == 1, result.stderr
    assert "answers as it should" in result.stderr
    assert "responses are 5xx" in result.stderr
    assert shop.serving.targets(SERVICE) == {STABLE: 100}
    assert set(customers.repeated) == {503}
    # with the default intervals a check comes 5 s later at most, and Prometheus's scrape 15 s
    returned_after = patched_at[-1] - customers.failed_at
    print(f"returned {returned_after:.1f} s after the first failed request")
    assert 0 < returned_after < 60 - 5 - 15
    ((orders,),) = processes.sql("select count(*) from shop.orders")
    assert orders == len(customers.placed) > 0
