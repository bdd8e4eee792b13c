"""GET /products: cached, uncached, not modified; one product; beside two servers' own hello.

    python -m tools.bench.catalog [--rounds N] [--seconds S] [--clients N]

``hello`` is the same process's probe path, the least that this server and app can answer.  Uncached
is a process without Redis that is asked for 800 lists in turn, more than it keeps copies of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.bench.firsts import http_request
from tools.bench.load import load
from tools.bench.orders import READY, running
from tools.bench.processes import Process, cpu_seconds_of_tree
from tools.bench.report import median, percentile, surroundings, table
from tools.bench.stand import Stand, stand
from tools.local_platform.servers import free_port

PRODUCTS = 1000
LISTS = 800
LIST = "/products?limit=20"
HELLO = Path(__file__).parent / "baselines" / "hello" / "main.py"


@dataclass
class Question:
    """What is asked of which process, the right status, and what was measured."""

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

    def ask(self, made: Stand, clients: int, seconds: float) -> None:
        """One round."""
        postmaster = made.postmaster()
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

    def row(self, hello: Question) -> tuple[str, ...]:
        """The medians, and the share of the yardstick's rate."""
        share = median(a / b for a, b in zip(self.per_second, hello.per_second, strict=True))
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
def framework_hello(made: Stand) -> Iterator[tuple[Process, int]]:
    """functions-framework's hello-world, serving."""
    port = free_port()
    command = [sys.executable, "-m", "functions_framework", "--source", str(HELLO)]
    command += ["--target", "main", "--host", "127.0.0.1", "--port", str(port)]
    process = Process(command, made.environment("api_docs"))
    process.start()
    try:
        process.first_answer(port, http_request("GET", "/"))
        yield process, port
    finally:
        process.kill()


def questions(
    made: Stand, cached: tuple[Process, int], bare: tuple[Process, int], hello: tuple[Process, int]
) -> list[Question]:
    """Everything that is asked; the first is the yardstick."""
    first = made.goods(PRODUCTS)
    made.sql("vacuum analyze")
    answer = cached[0].first_answer(cached[1], http_request("GET", LIST))
    (etag,) = [line[6:] for line in answer.split(b"\r\n") if line.lower().startswith(b"etag: ")]
    one = [http_request("GET", f"/products/{product_id}") for product_id in first]
    many = [http_request("GET", f"{LIST}&minPrice={price}") for price in range(1, LISTS + 1)]
    known = http_request("GET", LIST, {"If-None-Match": etag.decode()})
    return [
        Question("hello of the same process", *cached, [READY]),
        Question("list of 20, cached", *cached, [http_request("GET", LIST)]),
        Question("list of 20, not modified", *cached, [known], status=304),
        Question("list of 20, uncached", *bare, many),
        Question("one product", *cached, one),
        Question("framework hello", *hello, [http_request("GET", "/")]),
    ]


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.catalog")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args()
    with (
        stand() as made,
        running(made, "list_products") as cached,
        running(made, "list_products", REDIS_URL="") as bare,
        framework_hello(made) as hello,
    ):
        asked = questions(made, cached, bare, hello)
        for question in asked:
            load(question.port, question.requests, clients=options.clients, seconds=1)
        for _ in range(options.rounds):
            for question in asked:
                question.ask(made, options.clients, options.seconds)
    print(f"{surroundings()} · {options.clients} clients, {options.rounds} rounds\n")
    headings = ("GET", "a second", "× hello", "p50 ms", "p99 ms", "CPU ms", "PostgreSQL CPU ms")
    print(table(headings, [question.row(asked[0]) for question in asked]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
