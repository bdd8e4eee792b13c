"""Measures cold starts, from exec to the first correct response, against the bare framework.

    python -m tools.bench.cold [--rounds N] [--function NAME]... [--check]

The baseline is functions-framework's hello-world, which has no database.  ``eager`` is place_order
under the framework with the usual libraries imported at start.  Rounds are interleaved and the
baseline is measured again before every third candidate, so that load of other programs affects all
of them.  Times are medians over the rounds; each ratio is the median of the ratios to the baseline
measured just before.

``--check`` compares each function's ratio of CPU time with the budget in its spec.  CPU time, since
wall time also measures how many other programs run.  Functions above their budget are measured
once more, with twice the rounds; the second result counts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from shop.registry import spec_of
from tools.bench.environment import BenchEnvironment, bench_environment, specs_named
from tools.bench.first_requests import first_request, http_request
from tools.bench.processes import Process
from tools.bench.report import compare_with_target, machine_description, median, table
from tools.local_platform.servers import free_port

BASELINES = Path(__file__).parent / "baselines"
HELLO, EAGER = "framework hello, no database", "framework, all eager, place_order"
CANDIDATES_PER_BASELINE = 3
STARTS_MAX = 3


@dataclass
class Candidate:
    """A process to start: its command, its first request, and one measured value per round."""

    name: str
    prepare: Callable[[], tuple[bytes, int]]
    command: Callable[[int], list[str]]
    environment: Mapping[str, str]
    wall_ratios: list[float] = field(default_factory=list)
    cpu_ratios: list[float] = field(default_factory=list)
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)

    def start_once(self) -> None:
        """Measures one cold start; raises RuntimeError when three in a row fail.

        On a machine with much other load PostgreSQL may not answer a function in time.
        """
        for attempt in range(1, STARTS_MAX + 1):
            try:
                return self._start()
            except RuntimeError:
                if attempt == STARTS_MAX:
                    raise
        return None

    def _start(self) -> None:
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

    def compare_with(self, baseline: Candidate) -> None:
        """Adds the ratios of the last start to the baseline's last start."""
        self.wall_ratios.append(self.wall_ms[-1] / baseline.wall_ms[-1])
        self.cpu_ratios.append(self.cpu_ms[-1] / baseline.cpu_ms[-1])

    def reset(self) -> None:
        """Discards the measured values."""
        for values in (self.wall_ratios, self.cpu_ratios, self.wall_ms, self.cpu_ms):
            values.clear()
        self.rss_mib.clear()
        self.pss_mib.clear()


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
            candidate.compare_with(hello)
        sys.stderr.write(".")
        sys.stderr.flush()
    sys.stderr.write("\n")


def show(hello: Candidate, others: list[Candidate]) -> str:
    """The table of wall time, CPU time and memory, with ratios to the baseline."""
    rows = [
        (
            each.name,
            f"{median(each.wall_ms):.0f}",
            f"{median(each.wall_ratios or [1.0]):.2f}",
            f"{median(each.cpu_ms):.0f}",
            f"{median(each.cpu_ratios or [1.0]):.2f}",
            f"{median(each.rss_mib):.0f}",
            f"{median(each.pss_mib):.0f}",
        )
        for each in (hello, *others)
    ]
    headings = ("cold start", "wall ms", "× hello", "CPU ms", "× hello", "RSS MiB", "PSS MiB")
    return table(headings, rows)


def is_above_budget(candidate: Candidate) -> bool:
    """Whether a function uses more CPU time, relative to the baseline, than its spec allows."""
    return median(candidate.cpu_ratios) > spec_of(candidate.name).cold_start_budget


def budget_results(measured: list[Candidate]) -> list[str]:
    """One line for each function: its budget is reached or missed."""
    return [
        compare_with_target(
            f"CPU of {each.name} / hello",
            median(each.cpu_ratios),
            spec_of(each.name).cold_start_budget,
        )
        for each in measured
    ]


def repeat_above_budget(hello: Candidate, measured: list[Candidate], rounds: int) -> bool:
    """Measures functions above their budget again; whether one of them still is."""
    above = [each for each in measured if is_above_budget(each)]
    if not above:
        return False
    print(f"measured again: {', '.join(each.name for each in above)}\n")
    measure(hello, above, 2 * rounds)
    print("\n".join(budget_results(above)))
    return any(map(is_above_budget, above))


def main() -> int:
    """The exit status: 1 when ``--check`` is given and a budget was missed twice, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.cold")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--function", action="append", default=[], metavar="NAME")
    parser.add_argument(
        "--check", action="store_true", help="exit 1 when a function is above its budget"
    )
    options = parser.parse_args()
    with bench_environment() as environment:
        hello = framework(HELLO, "hello", environment, (http_request("GET", "/"), 200))
        eager = [] if options.check else [framework(EAGER, "eager", environment, None)]
        ours = [function(spec.name, environment) for spec in specs_named(options.function)]
        measure(hello, [*eager, *ours], options.rounds)
        print(f"{machine_description()} · medians of {options.rounds} interleaved rounds\n")
        print(show(hello, [*eager, *ours]))
        print("\n" + "\n".join(budget_results(ours)) + "\n")
        return int(options.check and repeat_above_budget(hello, ours, options.rounds))


if __name__ == "__main__":
    sys.exit(main())
