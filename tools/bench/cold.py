"""Cold starts: from exec to the first right answer, every function beside the bare framework.

    python -m tools.bench.cold [--rounds N] [--function NAME]... [--check]

The yardstick is functions-framework's hello-world, which has no database.  ``eager`` is place_order
under the framework with the usual libraries imported at its start.  Rounds are interleaved and the
yardstick is measured again before every third contender, so a noisy neighbour disturbs all alike.
Figures are medians over the rounds, ratios those of the ratios to the yardstick just before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from tools.bench.firsts import first_request, http_request
from tools.bench.processes import Process
from tools.bench.report import judged, median, surroundings, table
from tools.bench.stand import Stand, specs_named, stand
from tools.local_platform.servers import free_port

BASELINES = Path(__file__).parent / "baselines"
HELLO, EAGER = "framework hello, no database", "framework, all eager, place_order"
TARGETS = {"place_order": 1.7, "list_products": 1.6}
TARGET_OF_ANY = 2.2
BETWEEN_YARDSTICKS = 3


@dataclass
class Contender:
    """Something that starts: how, its request, and what was measured of it."""

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

    def forget(self) -> None:
        """Begins anew."""
        for figures in (self.ratios, self.wall_ms, self.cpu_ms, self.rss_mib, self.pss_mib):
            figures.clear()


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


def measure(hello: Contender, others: list[Contender], rounds: int) -> None:
    """Warms the page cache once, then measures everyone once a round."""
    for contender in (hello, *others):
        contender.start_once()
        contender.forget()
    for _ in range(rounds):
        for place, contender in enumerate(others):
            if place % BETWEEN_YARDSTICKS == 0:
                hello.start_once()
            contender.start_once()
            contender.ratios.append(contender.wall_ms[-1] / hello.wall_ms[-1])
        sys.stderr.write(".")
        sys.stderr.flush()
    sys.stderr.write("\n")


def show(hello: Contender, others: list[Contender]) -> str:
    """The table: wall and CPU times, and how they compare with the yardstick's."""
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
    headings = ("from zero", "wall ms", "× hello", "CPU ms", "× hello", "RSS MiB", "PSS MiB")
    return table(headings, rows)


def verdicts(measured: list[Contender]) -> list[str]:
    """A line for every target."""
    functions = {each.name: median(each.ratios) for each in measured}
    lines = [
        judged(f"{name} / hello", functions[name], limit)
        for name, limit in TARGETS.items()
        if name in functions
    ]
    slowest = max(functions, key=lambda name: functions[name])
    return [*lines, judged(f"slowest ({slowest}) / hello", functions[slowest], TARGET_OF_ANY)]


def main() -> int:
    """0; with --check 1 when a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.cold")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--function", action="append", default=[], metavar="NAME")
    parser.add_argument("--check", action="store_true", help="exit 1 when a target is missed")
    options = parser.parse_args()
    with stand() as made:
        hello = framework(HELLO, "hello", made, (http_request("GET", "/"), 200))
        eager = framework(EAGER, "eager", made, None)
        ours = [function(spec.name, made) for spec in specs_named(options.function)]
        measure(hello, [eager, *ours], options.rounds)
    print(f"{surroundings()} · medians of {options.rounds} interleaved rounds\n")
    print(show(hello, [eager, *ours]))
    judgement = verdicts(ours)
    print("\n" + "\n".join(judgement))
    return int(options.check and any(line.startswith("MISSED") for line in judgement))


if __name__ == "__main__":
    sys.exit(main())
