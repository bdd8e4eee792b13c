"""POST /orders over HTTP, beside pgbench running the very same SQL in the same run.

    python -m tools.bench.orders [--rounds N] [--seconds S] [--clients N] [--users N]

One ``python -m shop.runtime place_order`` process answers with everything on: token, session,
validation, idempotency key, stock, outbox, log line.  No broker listens.  Two limits that a
customer would meet are off: open orders (OPEN_ORDERS_MAX=0) and the rate limit
(RATE_LIMIT_PER_MINUTE=0); the last line has the rate limit on.  Server, load and PostgreSQL share
the machine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from urllib.parse import urlsplit

from tools.bench.firsts import http_request
from tools.bench.load import KEY, Load, load
from tools.bench.processes import Process, cpu_seconds_of_tree
from tools.bench.proxy import CountingProxy
from tools.bench.report import median, percentile, surroundings, table
from tools.bench.stand import Stand, stand
from tools.bench.statements import as_pgbench, order_request, record_order
from tools.local_platform.servers import free_port, pgbench_program

READY = http_request("GET", "/health/readiness")
PRODUCTS = 1000
WARM_SECONDS = 3.0
ORDERS_COUNTED = 20


@dataclass
class Figures:
    """What was measured of one side, a value a round."""

    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    function_cpu_ms: list[float] = field(default_factory=list)
    postgres_cpu_ms: list[float] = field(default_factory=list)

    def add(
        self, latencies_ms: list[float], seconds: float, function: float, postgres: float
    ) -> None:
        """One round: latencies sorted, CPU in seconds."""
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
    """The people, the goods and the load."""

    stand: Stand
    users: list[int]
    products: list[int]
    clients: int
    seconds: float

    def requests(self) -> list[bytes]:
        """One order of every user, of products that differ, under keys that will be fresh."""
        key = KEY.decode()
        return [
            order_request(self.stand, user, self.products[(user * 7) % len(self.products)], key)
            for user in self.users
        ]


@contextmanager
def running(made: Stand, function: str, **settings: str) -> Iterator[tuple[Process, int]]:
    """A function's process that is ready, and its port."""
    port = free_port()
    environment = made.environment(function, **{"BROKER_URL": "", **settings})
    environment["PORT"] = str(port)
    process = Process([sys.executable, "-m", "shop.runtime", function], environment)
    process.start()
    try:
        process.first_answer(port, READY)
        yield process, port
    finally:
        process.kill()


def measure_http(bench: Bench, port: int, pid_tree: Process, figures: Figures) -> None:
    """One round of orders over HTTP."""
    requests = bench.requests()
    postmaster = bench.stand.postmaster()
    function, postgres = pid_tree.cpu_seconds(), cpu_seconds_of_tree(postmaster)
    result = load(port, requests, clients=bench.clients, seconds=bench.seconds)
    _check(result)
    function = pid_tree.cpu_seconds() - function
    postgres = cpu_seconds_of_tree(postmaster) - postgres
    figures.add(result.latencies_ms, result.seconds, function, postgres)


def measure_pgbench(bench: Bench, script: str, run: int, figures: Figures) -> None:
    """One round of the same statements by pgbench, prepared, as the function's own role."""
    postmaster = bench.stand.postmaster()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "order.sql"
        file.write_text(script)
        command = _pgbench(bench, file, run)
        postgres, began = cpu_seconds_of_tree(postmaster), perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        seconds = min(perf_counter() - began, bench.seconds + 1)
        postgres = cpu_seconds_of_tree(postmaster) - postgres
        if done.returncode != 0 or "number of failed transactions: 0 " not in done.stdout:
            raise RuntimeError(f"pgbench: {done.stdout}\n{done.stderr}")
        lines = [line for log in Path(folder).glob("took*") for line in log.open()]
    latencies = sorted(int(line.split()[2]) / 1000 for line in lines)
    figures.add(latencies, bench.seconds if seconds > bench.seconds else seconds, 0.0, postgres)


def _pgbench(bench: Bench, file: Path, run: int) -> list[str]:
    url = urlsplit(bench.stand.environment("place_order")["DATABASE_URL"])
    variables = {
        "n": 0,
        "run": run,
        "user_first": bench.users[0],
        "user_last": bench.users[-1],
        "product_first": bench.products[0],
        "product_last": bench.products[-1],
    }
    return [
        str(pgbench_program()),
        *("-h", url.hostname or "", "-p", str(url.port), "-U", url.username or ""),
        *("--no-vacuum", "--protocol", "prepared", "--log", "--log-prefix", "took"),
        *("--client", str(bench.clients), "--jobs", "2", "--time", f"{bench.seconds:.0f}"),
        *(word for name, value in variables.items() for word in ("-D", f"{name}={value}")),
        *("--file", str(file), url.path.lstrip("/")),
    ]


def _check(result: Load) -> None:
    if set(result.statuses) != {201}:
        raise RuntimeError(f"not every order was taken: {result.statuses}")


def warm(bench: Bench, port: int) -> None:
    """Fills caches, tables and their statistics: nobody's plans are those of an empty shop."""
    load(port, bench.requests(), clients=bench.clients, seconds=WARM_SECONDS)
    bench.stand.sql("vacuum analyze")


def round_trips(bench: Bench) -> float:
    """Round trips to PostgreSQL of one warm order, counted on the wire."""
    url = urlsplit(bench.stand.environment("place_order")["DATABASE_URL"])
    with CountingProxy(url.hostname or "", url.port or 0) as proxy:
        through = url._replace(netloc=f"{url.username}@127.0.0.1:{proxy.port}").geturl()
        with running(bench.stand, "place_order", DATABASE_URL=through) as (process, port):
            requests = [
                r.replace(KEY, f"{n:032x}".encode()) for n, r in enumerate(bench.requests())
            ]
            process.first_answer(port, requests[0])
            proxy.forget()
            for request in requests[1 : ORDERS_COUNTED + 1]:
                process.first_answer(port, request)
            return proxy.round_trips / ORDERS_COUNTED


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.orders")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--users", type=int, default=10_000)
    options = parser.parse_args()
    with stand() as made:
        users, products = made.people(options.users), made.goods(PRODUCTS)
        made.sql("vacuum analyze")
        bench = Bench(made, users, products, options.clients, options.seconds)
        report(bench, options.rounds)
    return 0


def report(bench: Bench, rounds: int) -> None:
    """Measures both sides in turn, and prints."""
    script = as_pgbench(record_order(bench.stand, bench.users[0], bench.products[0]))
    ours, theirs, limited = Figures(), Figures(), Figures()
    with running(bench.stand, "place_order") as (process, port):
        warm(bench, port)
        for run in range(1, rounds + 1):
            measure_http(bench, port, process, ours)
            measure_pgbench(bench, script, run, theirs)
        _, pss = process.memory_kib()
    with running(bench.stand, "place_order", RATE_LIMIT_PER_MINUTE="1000000") as (process, port):
        warm(bench, port)
        measure_http(bench, port, process, limited)
    print(f"{surroundings()} · {bench.clients} clients, {rounds} × {bench.seconds:.0f} s each\n")
    headings = ("orders", "a second", "p50 ms", "p99 ms", "function CPU ms", "PostgreSQL CPU ms")
    rows = [
        theirs.row("pgbench, the same SQL"),
        ours.row("POST /orders"),
        limited.row("POST /orders, rate limit on"),
    ]
    print(table(headings, rows))
    share = median(a / b for a, b in zip(ours.per_second, theirs.per_second, strict=True))
    print(f"\nPOST /orders / pgbench: {share:.2f}; PSS of the warm function {pss / 1024:.0f} MiB")
    print(f"round trips to PostgreSQL an order: {round_trips(bench):.2f} (at most 3)")


if __name__ == "__main__":
    sys.exit(main())
