"""Cold starts: from exec to the first right answer, every function beside the bare framework.

    python -m scripts.bench.cold [--rounds N] [--function NAME]... [--check]

The yardstick is functions-framework's hello-world, which has no database.  ``eager`` is place_order
under the framework with the usual libraries imported at its start.  Rounds are interleaved, so a
noisy neighbour disturbs all alike; each figure is the median over the rounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from scripts.bench.firsts import first_request, http_request
from scripts.bench.processes import Process
from scripts.bench.report import judged, median, surroundings, table
from scripts.bench.stand import Stand, specs_named, stand
from scripts.dev.servers import free_port

BASELINES = Path(__file__).parent / "baselines"
HELLO, EAGER = "framework hello, no database", "framework, all eager, place_order"
TARGETS = {"place_order": 1.7, "list_products": 1.6}
TARGET_OF_ANY = 2.2


@dataclass
class Contender:
    """Something that starts: how, its request, and what was measured of it."""

    name: str
    prepare: Callable[[], tuple[bytes, int]]
    command: Callable[[int], list[str]]
    environment: Mapping[str, str]
    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    rss_mib: list[float] = field(default_factory=list)
    pss_mib: list[float] = field(default_factory=list)

    def start_once(self) -> None:
        """One cold start, measured; raises when the answer is not the right one."""
        request, status = self.prepare()
        port = free_port()
        process = Process(self.command(port), {**self.environment, "PORT": str(port)})
        process.start()
        try:
            answer = process.first_answer(port, request)
            wall = perf_counter() - process.began
            rss, pss = process.memory_kib()
        finally:
            cpu = process.kill()
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.split(b" ", 2)[1] != str(status).encode():
            raise RuntimeError(f"{self.name} answered {head[:40]!r} {body[:400]!r}")
        self.wall_ms.append(wall * 1000)
        self.cpu_ms.append(cpu * 1000)
        self.rss_mib.append(rss / 1024)
        self.pss_mib.append(pss / 1024)


def framework(name: str, baseline: str, made: Stand, first: tuple[bytes, int] | None) -> Contender:
    """A baseline under the plain functions-framework."""

    def command(port: int) -> list[str]:
        source = str(BASELINES / baseline / "main.py")
        options = ["--source", source, "--target", "main", "--host", "127.0.0.1"]
        return [sys.executable, "-m", "functions_framework", *options, "--port", str(port)]

    def prepare() -> tuple[bytes, int]:
        return first or first_request(made, "place_order")

    return Contender(name, prepare, command, made.environment("place_order"))


def function(name: str, made: Stand) -> Contender:
    """A function in our own container entry."""
    return Contender(
        name,
        lambda: first_request(made, name),
        lambda _port: [sys.executable, "-m", "shop.runtime", name],
        made.environment(name),
    )


def measure(contenders: list[Contender], rounds: int) -> None:
    """Warms the page cache once, then measures everyone once a round."""
    for _ in range(rounds + 1):
        for contender in contenders:
            contender.start_once()
        sys.stderr.write(".")
        sys.stderr.flush()
    sys.stderr.write("\n")
    for contender in contenders:
        for figures in (contender.wall_ms, contender.cpu_ms, contender.rss_mib, contender.pss_mib):
            del figures[0]


def ratio(contender: Contender, hello: Contender) -> float:
    """Median of the rounds' ratios: both sides of each were measured moments apart."""
    return median(a / b for a, b in zip(contender.wall_ms, hello.wall_ms, strict=True))


def show(contenders: list[Contender]) -> str:
    """The table, with ratios to the first contender."""
    rows = [
        (
            each.name,
            f"{median(each.wall_ms):.0f}",
            f"{ratio(each, contenders[0]):.2f}",
            f"{median(each.cpu_ms):.0f}",
            f"{median(each.rss_mib):.0f}",
            f"{median(each.pss_mib):.0f}",
        )
        for each in contenders
    ]
    return table(("from zero", "wall ms", "× hello", "CPU ms", "RSS MiB", "PSS MiB"), rows)


def verdicts(contenders: list[Contender]) -> list[str]:
    """A line for every target."""
    hello = contenders[0]
    functions = {each.name: ratio(each, hello) for each in contenders[2:]}
    lines = [
        judged(f"{name} / hello", functions[name], limit)
        for name, limit in TARGETS.items()
        if name in functions
    ]
    slowest = max(functions, key=lambda name: functions[name])
    return [*lines, judged(f"slowest ({slowest}) / hello", functions[slowest], TARGET_OF_ANY)]


def main() -> int:
    """0; with --check 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench.cold")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--function", action="append", default=[], metavar="NAME")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    options = parser.parse_args()
    with stand() as made:
        hello = http_request("GET", "/"), 200
        contenders = [
            framework(HELLO, "hello", made, hello),
            framework(EAGER, "eager", made, None),
            *(function(spec.name, made) for spec in specs_named(options.function)),
        ]
        measure(contenders, options.rounds)
    print(f"{surroundings()} · medians of {options.rounds} interleaved rounds\n")
    print(show(contenders))
    judgement = verdicts(contenders)
    print("\n" + "\n".join(judgement))
    return int(options.check and any(line.startswith("MISSED") for line in judgement))


if __name__ == "__main__":
    sys.exit(main())
