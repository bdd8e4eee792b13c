"""Measures POST /orders over HTTP, and pgbench with the same SQL in the same run.

    python -m tools.bench.orders [--rounds N] [--seconds S] [--clients N] [--users N]

One ``python -m shop.runtime place_order`` process does all its work: token, session, validation,
idempotency key, stock, outbox, log line.  There is no broker.  Two limits are off: open orders
(OPEN_ORDERS_MAX=0) and the rate limit (RATE_LIMIT_PER_MINUTE=0); the last row has the rate limit
on.  The function, the load generator and PostgreSQL share the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from urllib.parse import SplitResult, unquote, urlsplit

from tools.bench.environment import BenchEnvironment, bench_environment
from tools.bench.first_requests import http_request
from tools.bench.load import KEY, Load, load
from tools.bench.processes import Process, cpu_seconds_of_tree
from tools.bench.report import machine_description, median, percentile, table
from tools.bench.statements import as_pgbench, order_request, record_order
from tools.local_platform.servers import free_port, postgres_program

READY = http_request("GET", "/health/readiness")
PRODUCTS = 1000
WARM_SECONDS_MAX = 3.0


@dataclass
class Measurements:
    """The measured values of one program, one per round."""

    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    function_cpu_ms: list[float] = field(default_factory=list)
    postgres_cpu_ms: list[float] = field(default_factory=list)

    def add(
        self, latencies_ms: list[float], seconds: float, function: float, postgres: float
    ) -> None:
        """Adds one round: sorted latencies, and CPU times in seconds."""
        count = len(latencies_ms)
        self.per_second.append(count / seconds)
        self.p50_ms.append(percentile(latencies_ms, 0.50))
        self.p99_ms.append(percentile(latencies_ms, 0.99))
        self.function_cpu_ms.append(function * 1000 / count)
        self.postgres_cpu_ms.append(postgres * 1000 / count)

    def row(self, name: str) -> tuple[str, ...]:
        """The medians."""
        return (
            name,
            f"{median(self.per_second):,.0f}",
            f"{median(self.p50_ms):.1f}",
            f"{median(self.p99_ms):.1f}",
            f"{median(self.function_cpu_ms):.2f}",
            f"{median(self.postgres_cpu_ms):.2f}",
        )


@dataclass(frozen=True)
class Bench:
    """Customers, products and the load to apply."""

    environment: BenchEnvironment
    users: list[int]
    products: list[int]
    clients: int
    seconds: float

    def requests(self) -> list[bytes]:
        """One order of every user, of different products, each with a new idempotency key."""
        key = KEY.decode()
        return [
            order_request(
                self.environment, user, self.products[(user * 7) % len(self.products)], key
            )
            for user in self.users
        ]


@contextmanager
def running(
    environment: BenchEnvironment, function: str, **settings: str
) -> Generator[tuple[Process, int]]:
    """Starts a function and yields its process and port once it is ready."""
    port = free_port()
    variables = environment.of_function(function, **{"BROKER_URL": "", **settings})
    command = [sys.executable, "-m", "shop.runtime", function]
    process = Process(command, {**variables, "PORT": str(port)})
    process.start()
    try:
        process.first_response(port, READY)
        yield process, port
    finally:
        process.kill()


def measure_http(bench: Bench, port: int, process: Process, measurements: Measurements) -> None:
    """Measures one round of orders over HTTP."""
    requests = bench.requests()
    postmaster = bench.environment.postmaster()
    function, postgres = process.cpu_seconds(), cpu_seconds_of_tree(postmaster)
    result = load(port, requests, clients=bench.clients, seconds=bench.seconds)
    _check(result)
    function = process.cpu_seconds() - function
    postgres = cpu_seconds_of_tree(postmaster) - postgres
    measurements.add(result.latencies_ms, result.seconds, function, postgres)


def measure_pgbench(bench: Bench, script: str, run: int, measurements: Measurements) -> None:
    """Measures one round of the same prepared statements by pgbench, as the function's role."""
    postmaster = bench.environment.postmaster()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "order.sql"
        file.write_text(script)
        url = urlsplit(bench.environment.of_function("place_order")["DATABASE_URL"])
        command = _pgbench(bench, url, file, run)
        environment = {**os.environ, "PGPASSWORD": unquote(url.password or "")}
        postgres, began = cpu_seconds_of_tree(postmaster), perf_counter()
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        seconds = min(perf_counter() - began, bench.seconds + 1)
        postgres = cpu_seconds_of_tree(postmaster) - postgres
        if done.returncode != 0 or "number of failed transactions: 0 " not in done.stdout:
            raise RuntimeError(f"pgbench: {done.stdout}\n{done.stderr}")
        lines = [line for log in Path(folder).glob("latency*") for line in log.open()]
    latencies = sorted(int(line.split()[2]) / 1000 for line in lines)
    measurements.add(latencies, min(seconds, bench.seconds), 0.0, postgres)


def _pgbench(bench: Bench, url: SplitResult, file: Path, run: int) -> list[str]:
    variables = {
        "n": 0,
        "run": run,
        "user_first": bench.users[0],
        "user_last": bench.users[-1],
        "product_first": bench.products[0],
        "product_last": bench.products[-1],
    }
    return [
        str(postgres_program("pgbench")),
        *("-h", url.hostname or "", "-p", str(url.port), "-U", url.username or ""),
        *("--no-vacuum", "--protocol", "prepared", "--log", "--log-prefix", "latency"),
        *("--client", str(bench.clients), "--jobs", "2", "--time", f"{bench.seconds:.0f}"),
        *(word for name, value in variables.items() for word in ("-D", f"{name}={value}")),
        *("--file", str(file), url.path.lstrip("/")),
    ]


def _check(result: Load) -> None:
    if set(result.statuses) != {201}:
        raise RuntimeError(f"not every order was accepted: {result.statuses}")


def warm(bench: Bench, port: int) -> None:
    """Fills caches, tables and statistics, so that no query plan is that of empty tables."""
    load(
        port, bench.requests(), clients=bench.clients, seconds=min(WARM_SECONDS_MAX, bench.seconds)
    )
    bench.environment.sql("vacuum analyze")


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.orders")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--users", type=int, default=10_000)
    options = parser.parse_args()
    with bench_environment() as environment:
        users = environment.create_customers(options.users)
        products = environment.create_products(PRODUCTS)
        environment.sql("vacuum analyze")
        bench = Bench(environment, users, products, options.clients, options.seconds)
        report(bench, options.rounds)
    return 0


def report(bench: Bench, rounds: int) -> None:
    """Measures the function and pgbench in turn and prints the table."""
    groups = record_order(bench.environment, bench.users[0], bench.products[0])
    script = as_pgbench(groups)
    ours, pgbench, limited = Measurements(), Measurements(), Measurements()
    with running(bench.environment, "place_order") as (process, port):
        warm(bench, port)
        for run in range(1, rounds + 1):
            measure_http(bench, port, process, ours)
            measure_pgbench(bench, script, run, pgbench)
        _, pss = process.memory_kib()
    rate_limit = {"RATE_LIMIT_PER_MINUTE": "1000000"}
    with running(bench.environment, "place_order", **rate_limit) as (process, port):
        warm(bench, port)
        measure_http(bench, port, process, limited)
    load_description = f"{bench.clients} clients, {rounds} × {bench.seconds:.0f} s each"
    print(f"{machine_description()} · {load_description}\n")
    headings = ("orders", "per second", "p50 ms", "p99 ms", "function CPU ms", "PostgreSQL CPU ms")
    rows = [
        pgbench.row("pgbench, the same SQL"),
        ours.row("POST /orders"),
        limited.row("POST /orders, rate limit on"),
    ]
    print(table(headings, rows))
    share = median(a / b for a, b in zip(ours.per_second, pgbench.per_second, strict=True))
    print(f"\nPOST /orders / pgbench: {share:.2f}; PSS of the function {pss / 1024:.0f} MiB")
    print(f"round trips to PostgreSQL per order: {len(groups)}")


if __name__ == "__main__":
    sys.exit(main())
