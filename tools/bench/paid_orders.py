"""Measures what PostgreSQL spends on one paid order: CPU, commits, log, storage and events.

    python -m tools.bench.paid_orders [--orders N] [--clients N]

``shop dev`` runs the whole shop with its broker and payment simulator on a PostgreSQL of the bench.
Each client places orders of one line for new customers, and reads each until it is paid.  Included
are the order's events with all their consumers, its payment, its reads, and the ticks meanwhile.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import LiteralString
from uuid import uuid4

from shop.registry import all_specs
from tools.bench.environment import CLOSED_PORT_URL, BenchEnvironment
from tools.bench.first_requests import http_request
from tools.bench.processes import Process, cpu_seconds_of_tree
from tools.bench.report import machine_description, show_progress, table
from tools.local_platform import servers
from tools.local_platform.secrets import local_secrets
from tools.migrate import migrate

PRODUCTS = 1000
READY = http_request("GET", "/products?limit=1")
PLATFORM_SECONDS = 90.0
STOP_SECONDS = 60.0
SETTLE_SECONDS = 120.0
REQUEST_SECONDS = 60.0
PROGRESS_ORDERS = 100

LOG_POSITION: LiteralString = "select (pg_current_wal_lsn() - '0/0')::bigint"
STORAGE: LiteralString = """
select sum(pg_total_relation_size(oid))::bigint from pg_class
where relnamespace = 'shop'::regnamespace and relkind = 'r'
"""
COMMITS: LiteralString = """
select xact_commit from pg_stat_database where datname = current_database()
"""
EVENTS: LiteralString = "select count(*) from shop.outbox"
OPEN_EVENTS: LiteralString = "select count(*) from shop.outbox where done_at is null"


@dataclass(frozen=True)
class Spent:
    """What the server has used and holds so far; commits are complete once clients are gone."""

    cpu_seconds: float
    commits: int
    log_bytes: int
    storage_bytes: int
    events: int

    @classmethod
    def now(cls, environment: BenchEnvironment) -> Spent:
        """The present values."""
        commits, position, storage, events = (
            int(environment.sql(query)[0][0]) for query in (COMMITS, LOG_POSITION, STORAGE, EVENTS)
        )
        cpu = cpu_seconds_of_tree(environment.postmaster())
        return cls(cpu, commits, position, storage, events)


@contextmanager
def platform(folder: Path, admin_url: str, redis_url: str) -> Generator[tuple[Process, int]]:
    """Runs ``shop dev`` until the block ends; yields its process and public port."""
    port = servers.free_port()
    arguments = ["dev", "--port", str(port), "--data", str(folder / "shop"), "--idle", "600"]
    limits = {"RATE_LIMIT_PER_MINUTE": "0", "OPEN_ORDERS_MAX": "0", "UNPAID_STOCK_PERCENT": "0"}
    variables = {**os.environ, **limits, "DATABASE_URL": admin_url, "REDIS_URL": redis_url}
    command = [sys.executable, "-c", "from tools.cli import app; app()", *arguments]
    process = Process(command, variables, cwd=str(Path.cwd()))
    process.start()
    try:
        process.first_response(port, READY, start_seconds=PLATFORM_SECONDS)
        yield process, port
    finally:
        process.kill()


class Customer:
    """Places orders over one connection."""

    def __init__(self, environment: BenchEnvironment, port: int, products: list[int]) -> None:
        self._environment = environment
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
        self._products = products

    def buy(self, user_id: int) -> None:
        """Places one order as an account and reads it until it is paid."""
        token = self._environment.token(user_id, "customer")
        product = self._products[user_id % len(self._products)]
        body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
        order = self._send("POST", "/orders", 201, token, body)
        while order["status"] == "PENDING":
            order = self._send("GET", f"/orders/{order['id']}", 200, token)
        if order["status"] != "PAID":
            raise RuntimeError(f"an order is {order['status']}")

    def _send(
        self, method: str, path: str, expected: int, token: str, body: object = None
    ) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        if method == "POST":
            headers["Idempotency-Key"] = str(uuid4())
        else:
            headers["Prefer"] = "wait=20"
        self._connection.request(method, path, json.dumps(body) if body else None, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != expected:
            raise RuntimeError(f"{method} {path} responded {response.status}: {content[:300]!r}")
        found: dict[str, str] = json.loads(content)
        return found


def buy_all(
    environment: BenchEnvironment, port: int, products: list[int], users: list[int], clients: int
) -> float:
    """Places one paid order of each account; the seconds until every event is consumed."""
    began = perf_counter()

    def buy(some: list[int]) -> None:
        customer = Customer(environment, port, products)
        for number, user_id in enumerate(some, start=1):
            customer.buy(user_id)
            if some[0] == users[0] and number % PROGRESS_ORDERS == 0:
                show_progress(f"one of {clients} clients has placed {number} of {len(some)}")

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(buy, [users[number::clients] for number in range(clients)]))
    deadline = time.monotonic() + SETTLE_SECONDS
    while environment.sql(OPEN_EVENTS)[0][0]:
        if time.monotonic() > deadline:
            raise RuntimeError("events were not consumed")
        time.sleep(0.5)
    return perf_counter() - began


def report(before: Spent, after: Spent, orders: int) -> str:
    """The table of what one order takes."""
    cpu_ms = (after.cpu_seconds - before.cpu_seconds) * 1000 / orders
    rows = [
        ("PostgreSQL CPU ms", f"{cpu_ms:.2f}"),
        ("orders a second and core", f"{1000 / cpu_ms:,.0f}" if cpu_ms else "not measurable"),
        ("commits", f"{(after.commits - before.commits) / orders:.1f}"),
        ("write-ahead log bytes", f"{(after.log_bytes - before.log_bytes) / orders:,.0f}"),
        (
            "bytes of tables and indexes",
            f"{(after.storage_bytes - before.storage_bytes) / orders:,.0f}",
        ),
        ("outbox rows", f"{(after.events - before.events) / orders:.1f}"),
    ]
    return table(("a paid order", "PostgreSQL"), rows)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.paid_orders")
    parser.add_argument("--orders", type=int, default=5000)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="shop-bench-") as name,
        servers.postgres(Path(name) / "postgres") as admin_url,
        servers.redis() as redis_url,
    ):
        folder = Path(name)
        migrate(admin_url)
        secrets = local_secrets(folder / "shop" / "secrets", all_specs())
        environment = BenchEnvironment(admin_url, redis_url, CLOSED_PORT_URL, secrets)
        with platform(folder, admin_url, redis_url) as (process, port):
            accounts = environment.create_customers(options.clients + options.orders)
            warm, users = accounts[: options.clients], accounts[options.clients :]
            products = environment.create_products(PRODUCTS)
            show_progress(f"the shop runs; placing {options.orders:,} orders")
            buy_all(environment, port, products, warm, options.clients)
            environment.sql("vacuum analyze")
            environment.sql("checkpoint")
            before = Spent.now(environment)
            seconds = buy_all(environment, port, products, users, options.clients)
            after = Spent.now(environment)
            os.kill(process.pid, signal.SIGTERM)
            process.wait(STOP_SECONDS)
        # a connection adds its commits to the statistics when it ends, at the latest
        after = Spent(
            after.cpu_seconds,
            int(environment.sql(COMMITS)[0][0]),
            after.log_bytes,
            after.storage_bytes,
            after.events,
        )
    print(
        f"{machine_description()} · {options.orders:,} orders, {options.clients} clients, "
        f"{options.orders / seconds:,.0f} orders a second\n"
    )
    print(report(before, after, options.orders))
    return 0


if __name__ == "__main__":
    sys.exit(main())
