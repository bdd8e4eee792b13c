"""Compares two servers on one app: gunicorn with threads, and the one of ``shop.runtime``.

    python -m tools.bench.servers [--rounds N] [--seconds S] [--clients N]

Both serve the same list_products app with the same number of threads: cold start, readiness path,
cached list.  Three checks follow: SIGTERM during a request, a connection that is idle for longer
than queue-proxy keeps connections, and a start as PID 1 with a read-only root (where unshare is
allowed).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from tools.bench.environment import BenchEnvironment, bench_environment
from tools.bench.first_requests import http_request
from tools.bench.load import load
from tools.bench.processes import Process, read_response
from tools.bench.report import machine_description, median, percentile, table
from tools.local_platform.servers import free_port

FUNCTION = "list_products"
THREADS = 8
PROBE = http_request("GET", "/health/readiness")
LIST = http_request("GET", "/products?limit=20")
IDLE_SECONDS = 95  # queue-proxy keeps its connections for 90
SLOW_QUERY_SECONDS = 0.8  # the function's role waits for a lock at most 1 s
SHARED_MEMORY = "/dev/shm"  # noqa: S108 (gunicorn's heartbeat file; the root is read-only)

GUNICORN = [
    sys.executable,
    *("-m", "gunicorn", "tools.bench.wsgi_app:make()", "--worker-class", "gthread"),
    *("--workers", "1", "--threads", str(THREADS), "--keep-alive", "120"),
    *("--graceful-timeout", "20", "--no-control-socket", "--worker-tmp-dir", SHARED_MEMORY),
]
OWN = [sys.executable, "-m", "shop.runtime", FUNCTION]


@dataclass
class Server:
    """One server and its measured values."""

    name: str
    command: list[str]
    cold_ms: list[float] = field(default_factory=list)
    cold_cpu_ms: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)
    measurements: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)

    @contextmanager
    def running(self, environment: BenchEnvironment) -> Generator[tuple[Process, int]]:
        """Starts the server; kills it when the block ends."""
        port = free_port()
        settings = {"THREADS": str(THREADS), "FUNCTION_NAME": FUNCTION, "BROKER_URL": ""}
        variables = {**environment.of_function(FUNCTION, **settings), "PORT": str(port)}
        command = self.command
        if "gunicorn" in command:
            command = [*command, "--bind", f"127.0.0.1:{port}"]
        process = Process(command, variables)
        process.start()
        try:
            yield process, port
        finally:
            self.cold_cpu_ms.append(process.kill() * 1000)

    def start_once(self, environment: BenchEnvironment) -> None:
        """Measures one cold start, up to the first list response."""
        with self.running(environment) as (process, port):
            response = process.first_response(port, LIST)
            self.cold_ms.append((perf_counter() - process.began) * 1000)
            self.pss_mib.append(process.memory_kib()[1] / 1024)
        if not response.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{self.name} responded {response[:200]!r}")

    def serve_once(self, environment: BenchEnvironment, clients: int, seconds: float) -> None:
        """Measures one round of each load."""
        with self.running(environment) as (process, port):
            process.first_response(port, LIST)
            for name, request in (("readiness path", PROBE), ("list, cached", LIST)):
                load(port, [request], clients=clients, seconds=0.5)
                cpu = process.cpu_seconds()
                result = load(port, [request], clients=clients, seconds=seconds)
                if set(result.statuses) != {200}:
                    raise RuntimeError(f"{self.name}: {result.statuses}")
                cpu = (process.cpu_seconds() - cpu) * 1000 / len(result.latencies_ms)
                p99 = percentile(result.latencies_ms, 0.99)
                self.measurements.setdefault(name, []).append((result.per_second, p99, cpu))
        self.cold_cpu_ms.pop()  # this start was not measured

    def row(self) -> tuple[str, ...]:
        """The medians."""
        cells = [self.name]
        cells += [f"{median(self.cold_ms):.0f}", f"{median(self.cold_cpu_ms):.0f}"]
        cells.append(f"{median(self.pss_mib):.0f}")
        for rounds in self.measurements.values():
            rates, tails, cpus = zip(*rounds, strict=True)
            cells += [f"{median(rates):,.0f}", f"{median(tails):.1f}", f"{median(cpus):.3f}"]
        return tuple(cells)


def terminate_during_request(server: Server, environment: BenchEnvironment) -> str:
    """Sends SIGTERM while a request waits for PostgreSQL; returns both statuses."""
    with server.running(environment) as (process, port):
        process.first_response(port, LIST)
        lock = f"begin; lock shop.products; select pg_sleep({SLOW_QUERY_SECONDS}); rollback"
        locking = subprocess.Popen(
            [sys.executable, "-c", _LOCKING_PROGRAM, environment.admin_url, lock],
            stdout=subprocess.PIPE,
        )
        assert locking.stdout is not None
        locking.stdout.readline()
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(http_request("GET", "/products/1"))
            time.sleep(0.2)  # long enough for the request to reach the lock
            os.kill(process.pid, signal.SIGTERM)
            try:
                status = read_response(connection)[9:12].decode()
            except ConnectionError:
                status = "connection closed"
        locking.wait()
        return f"response {status}, exit status {process.wait(30)}"


_LOCKING_PROGRAM = """
import sys, psycopg
connection = psycopg.connect(sys.argv[1], autocommit=True)
first, *rest = sys.argv[2].split("; ")
connection.execute(first)
connection.execute(rest[0])
print("locked", flush=True)
for statement in rest[1:]:
    connection.execute(statement)
"""


def keep_idle_connection(server: Server, environment: BenchEnvironment) -> str:
    """Sends a second request on a connection after 95 idle seconds."""
    with server.running(environment) as (process, port):
        process.first_response(port, PROBE)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(PROBE)
            read_response(connection)
            time.sleep(IDLE_SECONDS)
            try:
                connection.sendall(PROBE)
                return f"response {read_response(connection)[9:12].decode()} after {IDLE_SECONDS} s"
            except ConnectionError:
                return f"connection closed within {IDLE_SECONDS} s"


def run_as_first_process(server: Server, environment: BenchEnvironment) -> str:
    """Runs as PID 1 with a read-only root; returns the status and the time to stop."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    read_only = 'mount -o remount,bind,ro / 2>/dev/null || mount -o remount,ro /; exec "$@"'
    prefix = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", read_only, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        return "unshare is not permitted here"
    contained = Server(server.name, [*prefix, *server.command])
    with contained.running(environment) as (process, port):
        status = process.first_response(port, LIST)[9:12].decode()
        first = process.tree()[1]
        began = perf_counter()
        os.kill(first, signal.SIGTERM)
        process.wait(30)
        return f"response {status}, ended {perf_counter() - began:.1f} s after SIGTERM"


def main() -> int:
    """Prints the table and the results of the checks."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.servers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--load-rounds", type=int, default=3)
    parser.add_argument(
        "--no-idle", action="store_true", help="skip the check that waits for 95 seconds"
    )
    options = parser.parse_args()
    servers = [Server("gunicorn gthread", GUNICORN), Server("shop.runtime", OWN)]
    with bench_environment() as environment:
        for _ in range(options.rounds):
            for server in servers:
                server.start_once(environment)
        for _ in range(options.load_rounds):
            for server in servers:
                server.serve_once(environment, options.clients, options.seconds)
        checks = [
            terminate_during_request,
            run_as_first_process,
            *([] if options.no_idle else [keep_idle_connection]),
        ]
        results = [f"{s.name}: {c.__name__}: {c(s, environment)}" for c in checks for s in servers]
    print(f"{machine_description()} · {options.clients} clients, {THREADS} threads\n")
    print(table(HEADINGS, [server.row() for server in servers]))
    print("\n" + "\n".join(results))
    return 0


HEADINGS = (
    "server",
    "cold ms",
    "cold CPU ms",
    "PSS MiB",
    *("readiness per second", "p99 ms", "CPU ms"),
    *("lists per second", "p99 ms", "CPU ms"),
)


if __name__ == "__main__":
    sys.exit(main())
