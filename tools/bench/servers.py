"""The WSGI servers that were in the running: gunicorn with threads, and granian; one app on both.

    python -m tools.bench.servers [--rounds N] [--seconds S] [--clients N]

Both serve the same list_products app with the same threads: cold start, probe path, cached list.
Then what a platform does to a server: SIGTERM in the middle of a request, a connection left idle
longer than queue-proxy keeps its own, a start as PID 1 in a read-only root (where unshare may make
one).
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from tools.bench.firsts import http_request
from tools.bench.load import load
from tools.bench.processes import Process, read_answer
from tools.bench.report import median, percentile, surroundings, table
from tools.bench.stand import Stand, stand
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
GRANIAN = [sys.executable, "-m", "shop.runtime", FUNCTION]


@dataclass
class Server:
    """One server and what was measured of it."""

    name: str
    command: list[str]
    cold_ms: list[float] = field(default_factory=list)
    cold_cpu_ms: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)
    figures: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)

    @contextmanager
    def running(self, made: Stand) -> Iterator[tuple[Process, int]]:
        """The server, listening; killed afterwards."""
        port = free_port()
        settings = {"THREADS": str(THREADS), "FUNCTION_NAME": FUNCTION, "BROKER_URL": ""}
        environment = {**made.environment(FUNCTION, **settings), "PORT": str(port)}
        command = self.command
        if "gunicorn" in command:
            command = [*command, "--bind", f"127.0.0.1:{port}"]
        process = Process(command, environment)
        process.start()
        try:
            yield process, port
        finally:
            self.cold_cpu_ms.append(process.kill() * 1000)

    def start_once(self, made: Stand) -> None:
        """One cold start, to the first list."""
        with self.running(made) as (process, port):
            answer = process.first_answer(port, LIST)
            self.cold_ms.append((perf_counter() - process.began) * 1000)
            self.pss_mib.append(process.memory_kib()[1] / 1024)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{self.name} answered {answer[:200]!r}")

    def serve_once(self, made: Stand, clients: int, seconds: float) -> None:
        """One round of each load."""
        with self.running(made) as (process, port):
            process.first_answer(port, LIST)
            for name, request in (("probe path", PROBE), ("list, cached", LIST)):
                load(port, [request], clients=clients, seconds=0.5)
                cpu = process.cpu_seconds()
                result = load(port, [request], clients=clients, seconds=seconds)
                if set(result.statuses) != {200}:
                    raise RuntimeError(f"{self.name}: {result.statuses}")
                cpu = (process.cpu_seconds() - cpu) * 1000 / len(result.latencies_ms)
                p99 = percentile(result.latencies_ms, 0.99)
                self.figures.setdefault(name, []).append((result.per_second, p99, cpu))
        self.cold_cpu_ms.pop()  # that was no cold start

    def row(self) -> tuple[str, ...]:
        """The medians."""
        cells = [self.name]
        cells += [f"{median(self.cold_ms):.0f}", f"{median(self.cold_cpu_ms):.0f}"]
        cells.append(f"{median(self.pss_mib):.0f}")
        for rounds in self.figures.values():
            rates, tails, cpus = zip(*rounds, strict=True)
            cells += [f"{median(rates):,.0f}", f"{median(tails):.1f}", f"{median(cpus):.3f}"]
        return tuple(cells)


def drains(server: Server, made: Stand) -> str:
    """SIGTERM while a request waits for PostgreSQL: is it answered, and does the process end?"""
    with server.running(made) as (process, port):
        process.first_answer(port, LIST)
        lock = f"begin; lock shop.products; select pg_sleep({SLOW_QUERY_SECONDS}); rollback"
        locker = subprocess.Popen(
            [sys.executable, "-c", _LOCKER, made.admin_url, lock], stdout=subprocess.PIPE
        )
        assert locker.stdout is not None
        locker.stdout.readline()
        with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:
            wire.sendall(http_request("GET", "/products/1"))
            time.sleep(0.2)  # the request is inside by then; a bench may wait where a test may not
            os.kill(process.pid, signal.SIGTERM)
            try:
                answer = read_answer(wire)[9:12].decode()
            except ConnectionError:
                answer = "cut off"
        locker.wait()
        return f"answer {answer}, exit status {process.wait(30)}"


_LOCKER = """
import sys, psycopg
connection = psycopg.connect(sys.argv[1], autocommit=True)
first, *rest = sys.argv[2].split("; ")
connection.execute(first)
connection.execute(rest[0])
print("locked", flush=True)
for statement in rest[1:]:
    connection.execute(statement)
"""


def keeps_idle(server: Server, made: Stand) -> str:
    """Is a connection still good after 95 idle seconds?"""
    with server.running(made) as (process, port):
        process.first_answer(port, PROBE)
        with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:
            wire.sendall(PROBE)
            read_answer(wire)
            time.sleep(IDLE_SECONDS)
            try:
                wire.sendall(PROBE)
                return f"answer {read_answer(wire)[9:12].decode()} after {IDLE_SECONDS} s idle"
            except ConnectionError:
                return f"hung up within {IDLE_SECONDS} s"


def is_safe_as_first_process(server: Server, made: Stand) -> str:
    """PID 1 of its own namespace, everything read-only: does it answer and stop on SIGTERM?"""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    read_only = 'mount -o remount,bind,ro / 2>/dev/null || mount -o remount,ro /; exec "$@"'
    prefix = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", read_only, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode != 0:
        return "this machine may not unshare"
    contained = Server(server.name, [*prefix, *server.command])
    with contained.running(made) as (process, port):
        answer = process.first_answer(port, LIST)[9:12].decode()
        first = process.tree()[1]
        began = perf_counter()
        os.kill(first, signal.SIGTERM)
        process.wait(30)
        return f"answer {answer}, gone {perf_counter() - began:.1f} s after SIGTERM"


def main() -> int:
    """Prints the table and the checks."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.servers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--no-idle", action="store_true", help="leave out the 95 idle seconds")
    options = parser.parse_args()
    servers = [Server("gunicorn gthread", GUNICORN), Server("granian", GRANIAN)]
    with stand() as made:
        for _ in range(options.rounds):
            for server in servers:
                server.start_once(made)
        for _ in range(3):
            for server in servers:
                server.serve_once(made, options.clients, options.seconds)
        checks = [drains, is_safe_as_first_process, *([] if options.no_idle else [keeps_idle])]
        said = [f"{s.name}: {c.__name__}: {c(s, made)}" for c in checks for s in servers]
    print(f"{surroundings()} · {options.clients} clients, {THREADS} threads\n")
    print(table(HEADINGS, [server.row() for server in servers]))
    print("\n" + "\n".join(said))
    return 0


HEADINGS = (
    "server",
    "cold ms",
    "cold CPU ms",
    "PSS MiB",
    *("probes a second", "p99 ms", "CPU ms"),
    *("lists a second", "p99 ms", "CPU ms"),
)


if __name__ == "__main__":
    sys.exit(main())
