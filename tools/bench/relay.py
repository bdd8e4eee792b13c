"""Measures how fast sweepers relay due events of the outbox to a broker.

    python -m tools.bench.relay [--rounds N] [--events N] [--latency-ms MS]

``python -m shop.runtime sweep`` processes get one tick each, for events that are all due.  The
broker accepts every event after the latency and does nothing else, so that the rate is the relay's:
a real broker may be slower.  Sweepers, broker and PostgreSQL share the machine.  With the default
options the bench takes two minutes; the multiple of the broker's CPU depends least on other load.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter
from typing import LiteralString

from tools.bench.environment import BenchEnvironment, bench_environment
from tools.bench.first_requests import first_request
from tools.bench.orders import running
from tools.bench.processes import Process, content_length, cpu_seconds_of, cpu_seconds_of_tree
from tools.bench.report import machine_description, median, show_progress, table

SWEEPERS = (1, 2)
ACCEPTED = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"

# As a release of orders writes them: one event an order, for a consumer that is not there.
DUE_EVENTS: LiteralString = """
insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at)
select gen_random_uuid(), '/shop/place_order', 'order.placed', order_id::text,
  jsonb_build_object('orderId', order_id), '00-' || md5(order_id::text) || '-1234567890abcdef-01',
  now() - n * interval '1 millisecond'
from (select n, gen_random_uuid() as order_id from generate_series(1, %(count)s::int) n) o
"""
UNSENT: LiteralString = "select count(*) from shop.outbox where sent_at is null"
FORGET: LiteralString = "truncate shop.outbox"
ANALYZE: LiteralString = "analyze shop.outbox"


class _Broker(asyncio.Protocol):
    """One connection of a broker that accepts every event after a latency."""

    def __init__(self, latency_seconds: float) -> None:
        self._latency_seconds = latency_seconds
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or len(body) < content_length(head):
            return
        self._received = b""
        if self._latency_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(self._latency_seconds, self._transport.write, ACCEPTED)
        else:
            self._transport.write(ACCEPTED)


def _serve(ready: Connection, latency_seconds: float) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Broker(latency_seconds), "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


@contextmanager
def broker(latency_seconds: float) -> Generator[tuple[int, str]]:
    """Runs the broker in a process; yields its process id and URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, latency_seconds), daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid, f"http://127.0.0.1:{ours.recv()}/"
    finally:
        process.kill()
        process.join()


@dataclass
class Measurement:
    """A number of sweepers, and the measured values of each round, an event's CPU in ms."""

    sweepers: list[tuple[Process, int]]
    per_second: list[float] = field(default_factory=list)
    sweeper_cpu_ms: list[float] = field(default_factory=list)
    postgres_cpu_ms: list[float] = field(default_factory=list)
    broker_cpu_ms: list[float] = field(default_factory=list)

    def run(self, environment: BenchEnvironment, broker_pid: int, events: int) -> None:
        """Measures one round; raises RuntimeError if an event was not sent."""
        environment.sql(FORGET)
        environment.sql(DUE_EVENTS, count=events)
        environment.sql(ANALYZE)
        postmaster = environment.postmaster()
        sweeper, postgres, broker = self._cpu(postmaster, broker_pid)
        began = perf_counter()
        with ThreadPoolExecutor(len(self.sweepers)) as threads:
            requests = [(*each, first_request(environment, "sweep")) for each in self.sweepers]
            list(threads.map(_tick, requests))
        seconds = perf_counter() - began
        ended = self._cpu(postmaster, broker_pid)
        if unsent := environment.sql(UNSENT)[0][0]:
            raise RuntimeError(f"{unsent} of {events} events were not sent in one tick")
        self.per_second.append(events / seconds)
        self.sweeper_cpu_ms.append((ended[0] - sweeper) * 1000 / events)
        self.postgres_cpu_ms.append((ended[1] - postgres) * 1000 / events)
        self.broker_cpu_ms.append((ended[2] - broker) * 1000 / events)

    def _cpu(self, postmaster: int, broker_pid: int) -> tuple[float, float, float]:
        sweepers = sum(process.cpu_seconds() for process, _ in self.sweepers)
        return sweepers, cpu_seconds_of_tree(postmaster), cpu_seconds_of(broker_pid)

    def newest(self) -> str:
        """The result of the last round."""
        return f"{len(self.sweepers)} sweepers, {self.per_second[-1]:,.0f} events/s"

    @property
    def work(self) -> float:
        """An event's CPU in the sweepers, as a multiple of that in the broker."""
        broker = median(self.broker_cpu_ms)
        return median(self.sweeper_cpu_ms) / broker if broker else 0.0

    def row(self) -> tuple[str, ...]:
        """The medians."""
        return (
            str(len(self.sweepers)),
            f"{median(self.per_second):,.0f}",
            f"{median(self.sweeper_cpu_ms):.3f}",
            f"{median(self.postgres_cpu_ms):.3f}",
            f"{median(self.broker_cpu_ms):.3f}",
        )


def _tick(target: tuple[Process, int, tuple[bytes, int]]) -> None:
    process, port, (request, status) = target
    response = process.first_response(port, request)
    if not response.startswith(f"HTTP/1.1 {status} ".encode()):
        raise RuntimeError(f"sweep responded: {response[:200]!r}")


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.relay")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    options = parser.parse_args()
    with (
        bench_environment() as environment,
        broker(options.latency_ms / 1000) as (broker_pid, url),
        ExitStack() as processes,
    ):
        started = [
            processes.enter_context(running(environment, "sweep", BROKER_URL=url))
            for _ in range(max(SWEEPERS))
        ]
        measurements = [Measurement(started[:count]) for count in SWEEPERS]
        for number in range(1, options.rounds + 1):
            for measurement in measurements:
                measurement.run(environment, broker_pid, options.events)
                show_progress(f"round {number} of {options.rounds}: {measurement.newest()}")
    print(
        f"{machine_description()} · {options.events} events, {options.rounds} rounds, the broker "
        f"responds after {options.latency_ms:g} ms\n"
    )
    headings = ("sweepers", "events/s", "sweeper CPU ms", "PostgreSQL CPU ms", "broker CPU ms")
    print(table(headings, [measurement.row() for measurement in measurements]))
    one, two = (median(measurement.per_second) for measurement in measurements)
    works = median(measurement.work for measurement in measurements)
    print(
        f"\ntwo sweepers / one: {two / one:.2f}; an event's CPU in sweepers / broker: {works:.1f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
