"""Measures GET /products (cached, uncached, not modified) and one product against two baselines.

    python -m tools.bench.catalog [--rounds N] [--seconds S] [--clients N]

The baselines are the readiness path of the same process, which is the least that this server and
app can do, and functions-framework's hello-world.  The uncached lists come from a process without
Redis, which receives 800 different queries in turn: more than its local cache holds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench.environment import BenchEnvironment, bench_environment
from tools.bench.first_requests import http_request
from tools.bench.load import load
from tools.bench.orders import READY, running
from tools.bench.processes import Process, cpu_seconds_of_tree
from tools.bench.report import machine_description, median, percentile, table
from tools.local_platform.servers import free_port

PRODUCTS = 1000
QUERIES = 800
LIST = "/products?limit=20"
HELLO = Path(__file__).parent / "baselines" / "hello" / "main.py"

Address = tuple[Process, int]


@dataclass
class Measurement:
    """Requests to one process, the expected status, and one measured value per round."""

    name: str
    process: Process
    port: int
    requests: list[bytes]
    status: int = 200
    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    postgres_cpu_ms: list[float] = field(default_factory=list)

    def run(self, environment: BenchEnvironment, clients: int, seconds: float) -> None:
        """Measures one round; raises RuntimeError on an unexpected status."""
        postmaster = environment.postmaster()
        cpu, postgres = self.process.cpu_seconds(), cpu_seconds_of_tree(postmaster)
        result = load(self.port, self.requests, clients=clients, seconds=seconds)
        if set(result.statuses) != {self.status}:
            raise RuntimeError(f"{self.name}: {result.statuses}")
        count = len(result.latencies_ms)
        self.per_second.append(result.per_second)
        self.p50_ms.append(percentile(result.latencies_ms, 0.50))
        self.p99_ms.append(percentile(result.latencies_ms, 0.99))
        self.cpu_ms.append((self.process.cpu_seconds() - cpu) * 1000 / count)
        self.postgres_cpu_ms.append((cpu_seconds_of_tree(postmaster) - postgres) * 1000 / count)

    def row(self, baseline: Measurement) -> tuple[str, ...]:
        """The medians, and the rate relative to the baseline."""
        share = median(a / b for a, b in zip(self.per_second, baseline.per_second, strict=True))
        return (
            self.name,
            f"{median(self.per_second):,.0f}",
            f"{share:.2f}",
            f"{median(self.p50_ms):.2f}",
            f"{median(self.p99_ms):.2f}",
            f"{median(self.cpu_ms):.3f}",
            f"{median(self.postgres_cpu_ms):.3f}",
        )


@contextmanager
def framework_hello(environment: BenchEnvironment) -> Generator[Address]:
    """Runs functions-framework's hello-world."""
    port = free_port()
    command = [sys.executable, "-m", "functions_framework", "--source", str(HELLO)]
    command += ["--target", "main", "--host", "127.0.0.1", "--port", str(port)]
    process = Process(command, environment.of_function("api_docs"))
    process.start()
    try:
        process.first_response(port, http_request("GET", "/"))
        yield process, port
    finally:
        process.kill()


def measurements_of(
    environment: BenchEnvironment,
    *,
    cached: Address,
    uncached: Address,
    hello: Address,
) -> list[Measurement]:
    """All measurements; the first is the baseline."""
    first = environment.create_products(PRODUCTS)
    environment.sql("vacuum analyze")
    response = cached[0].first_response(cached[1], http_request("GET", LIST))
    (etag,) = [line[6:] for line in response.split(b"\r\n") if line.lower().startswith(b"etag: ")]
    one = [http_request("GET", f"/products/{product_id}") for product_id in first]
    many = [http_request("GET", f"{LIST}&minPrice={price}") for price in range(1, QUERIES + 1)]
    known = http_request("GET", LIST, {"If-None-Match": etag.decode()})
    return [
        Measurement("readiness path, same process", *cached, [READY]),
        Measurement("list of 20, cached", *cached, [http_request("GET", LIST)]),
        Measurement("list of 20, not modified", *cached, [known], status=304),
        Measurement("list of 20, uncached", *uncached, many),
        Measurement("one product", *cached, one),
        Measurement("framework hello", *hello, [http_request("GET", "/")]),
    ]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.catalog")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with (
        bench_environment() as environment,
        running(environment, "list_products") as cached,
        running(environment, "list_products", REDIS_URL="") as uncached,
        framework_hello(environment) as hello,
    ):
        measurements = measurements_of(environment, cached=cached, uncached=uncached, hello=hello)
        for measurement in measurements:
            load(
                measurement.port,
                measurement.requests,
                clients=options.clients,
                seconds=min(1.0, options.seconds),
            )
        for _ in range(options.rounds):
            for measurement in measurements:
                measurement.run(environment, options.clients, options.seconds)
    print(f"{machine_description()} · {options.clients} clients, {options.rounds} rounds\n")
    headings = ("GET", "per second", "× hello", "p50 ms", "p99 ms", "CPU ms", "PostgreSQL CPU ms")
    print(table(headings, [each.row(measurements[0]) for each in measurements]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
