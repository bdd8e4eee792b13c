"""Measures CPU and memory of each function's process, from which its spec's requests are chosen.

    python -m tools.bench.resources [--requests N] [--function NAME]...

A process is started as its container starts it and gets N requests, one after another, each to a
handler that reads the database.  CPU time does not depend on the load of the machine as wall time
does.  The requests of CPU reserve ``REQUESTS_PER_SECOND``; those of memory the highest resident
size.  Limits are far above: a start uses a whole CPU.
"""

from __future__ import annotations

import argparse
import math
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from shop.primitives.spec import FunctionSpec
from tools.bench.environment import BenchEnvironment, bench_environment, specs_named
from tools.bench.first_requests import first_request
from tools.bench.processes import Process, read_response
from tools.bench.report import machine_description, table
from tools.local_platform.servers import free_port

REQUESTS_PER_SECOND = 1


@dataclass(frozen=True, kw_only=True)
class Usage:
    """CPU time of a start and of each further request, and the highest resident size."""

    name: str
    start_ms: float
    request_ms: float
    peak_mib: float

    @property
    def cpu_millis(self) -> int:
        """The CPU that ``REQUESTS_PER_SECOND`` use, in thousandths."""
        return math.ceil(self.request_ms * REQUESTS_PER_SECOND)


def measure(spec: FunctionSpec, environment: BenchEnvironment, requests: int) -> Usage:
    """Starts a function and sends requests; raises RuntimeError on an unexpected response."""
    port = free_port()
    command = [sys.executable, "-m", "shop.runtime", spec.name]
    process = Process(command, {**environment.of_function(spec.name), "PORT": str(port)})
    process.start()
    try:
        request, _ = first_request(environment, spec.name)
        process.first_response(port, request)
        started = process.cpu_seconds()
        for _ in range(requests):
            _send(port, first_request(environment, spec.name)[0])
        used = process.cpu_seconds() - started
        peak = max(_peak_kib(pid) for pid in process.tree())
    finally:
        process.kill()
    return Usage(
        name=spec.name,
        start_ms=started * 1000,
        request_ms=used * 1000 / requests,
        peak_mib=peak / 1024,
    )


def _send(port: int, request: bytes) -> None:
    """Sends a request; repeating the first one may be a client error, but not one of the server."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        response = read_response(connection)
    if response.split(b" ", 2)[1].startswith(b"5"):
        raise RuntimeError(f"unexpected response: {response[:200]!r}")


def _peak_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> int:
    """Prints one row per function."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.resources")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--function", action="append", default=[], metavar="NAME")
    options = parser.parse_args()
    with bench_environment() as environment:
        specs = specs_named(options.function)
        found = [measure(spec, environment, options.requests) for spec in specs]
    rows = [
        (
            usage.name,
            f"{usage.start_ms:.0f}",
            f"{usage.request_ms:.1f}",
            f"{usage.peak_mib:.0f}",
            f"{usage.cpu_millis}m",
        )
        for usage in found
    ]
    print(f"{machine_description()} · {options.requests} requests each\n")
    headings = ("function", "start, CPU ms", "request, CPU ms", "peak RSS MiB")
    print(table((*headings, f"CPU at {REQUESTS_PER_SECOND}/s"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
