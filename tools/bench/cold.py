"""Measures cold starts, from exec to the first correct response, against the bare framework.

    python -m tools.bench.cold [--rounds N] [--function NAME]... [--check]

The baseline is functions-framework's hello-world, which has no database.  ``eager`` is place_order
under the framework with the usual libraries imported at start.  Rounds are interleaved and the
baseline is measured again before every third candidate, so that load of other programs affects all
of them.  Times are medians over the rounds; each ratio is the median of the ratios to the baseline
measured just before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from tools.bench.environment import BenchEnvironment, bench_environment, specs_named
from tools.bench.first_requests import first_request, http_request
from tools.bench.processes import Process
from tools.bench.report import compare_with_target, machine_description, median, table
from tools.local_platform.servers import free_port

BASELINES = Path(__file__).parent / "baselines"
HELLO, EAGER = "framework hello, no database", "framework, all eager, place_order"
TARGETS = {"place_order": 1.7, "list_products": 1.6}
TARGET_SLOWEST = 2.2
CANDIDATES_PER_BASELINE = 3


@dataclass
class Candidate:
    """A process to start: its command, its first request, and one measured value per round."""

    name: str
    prepare: Callable[[], tuple[bytes, int]]
    command: Callable[[int], list[str]]
    environment: Mapping[str, str]
    ratios: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)

    def start_once(self) -> None:
        """Measures one cold start; raises RuntimeError on an unexpected response."""
        request, status = self.prepare()
        port = free_port()
        process = Process(self.command(port), {**self.environment, "PORT": str(port)})
        process.start()
        try:
            response = process.first_response(port, request)
            wall = perf_counter() - process.began
            rss, pss = process.memory_kib()
        finally:
            cpu = process.kill()
        head, _, body = response.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != str(status).encode():
            raise RuntimeError(f"{self.name} responded {head[:40]!r} {body[:400]!r}")
        self.wall_ms.append(wall * 1000)
        self.cpu_ms.append(cpu * 1000)
        self.rss_mib.append(rss / 1024)
        self.pss_mib.append(pss / 1024)

    def reset(self) -> None:
        """Discards the measured values."""
        for values in (self.ratios, self.wall_ms, self.cpu_ms, self.rss_mib, self.pss_mib):
            values.clear()


def framework(
    name: str, baseline: str, environment: BenchEnvironment, first: tuple[bytes, int] | None
) -> Candidate:
    """A program of ``baselines`` under the plain functions-framework."""

    def command(port: int) -> list[str]:
        source = str(BASELINES / baseline / "main.py")
        options = ["--source", source, "--target", "main", "--host", "127.0.0.1"]
        return [sys.executable, "-m", "functions_framework", *options, "--port", str(port)]

    def prepare() -> tuple[bytes, int]:
        return first or first_request(environment, "place_order")

    return Candidate(name, prepare, command, environment.of_function("place_order"))


def function(name: str, environment: BenchEnvironment) -> Candidate:
    """A function started as its container starts it."""
    return Candidate(
        name,
        lambda: first_request(environment, name),
        lambda _port: [sys.executable, "-m", "shop.runtime", name],
        environment.of_function(name),
    )


def measure(hello: Candidate, others: list[Candidate], rounds: int) -> None:
    """Starts each candidate once to fill the page cache, then once a round."""
    for candidate in (hello, *others):
        candidate.start_once()
        candidate.reset()
    for _ in range(rounds):
        for position, candidate in enumerate(others):
            if position % CANDIDATES_PER_BASELINE == 0:
                hello.start_once()
            candidate.start_once()
            candidate.ratios.append(candidate.wall_ms[-1] / hello.wall_ms[-1])
        sys.stderr.write(".")
        sys.stderr.flush()
    sys.stderr.write("\n")


def show(hello: Candidate, others: list[Candidate]) -> str:
    """The table of wall time, CPU time and memory, with ratios to the baseline."""
    rows = [
        (
            each.name,
            f"{median(each.wall_ms):.0f}",
            f"{median(each.ratios):.2f}" if each.ratios else "1.00",
            f"{median(each.cpu_ms):.0f}",
            f"{median(each.cpu_ms) / median(hello.cpu_ms):.2f}",
            f"{median(each.rss_mib):.0f}",
            f"{median(each.pss_mib):.0f}",
        )
        for each in (hello, *others)
    ]
    headings = ("cold start", "wall ms", "× hello", "CPU ms", "× hello", "RSS MiB", "PSS MiB")
    return table(headings, rows)


def target_results(measured: list[Candidate]) -> list[str]:
    """One line for each target: reached or missed."""
    functions = {each.name: median(each.ratios) for each in measured}
    lines = [
        compare_with_target(f"{name} / hello", functions[name], limit)
        for name, limit in TARGETS.items()
        if name in functions
    ]
    slowest = max(functions, key=lambda name: functions[name])
    return [
        *lines,
        compare_with_target(f"slowest ({slowest}) / hello", functions[slowest], TARGET_SLOWEST),
    ]


def main() -> int:
    """The exit status: 1 when a target was missed and ``--check`` is given, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.cold")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--function", action="append", default=[], metavar="NAME")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    options = parser.parse_args()
    with bench_environment() as environment:
        hello = framework(HELLO, "hello", environment, (http_request("GET", "/"), 200))
        eager = framework(EAGER, "eager", environment, None)
        ours = [function(spec.name, environment) for spec in specs_named(options.function)]
        measure(hello, [eager, *ours], options.rounds)
    print(f"{machine_description()} · medians of {options.rounds} interleaved rounds\n")
    print(show(hello, [eager, *ours]))
    results = target_results(ours)
    print("\n" + "\n".join(results))
    return int(options.check and any(line.startswith("MISSED") for line in results))


if __name__ == "__main__":
    sys.exit(main())
