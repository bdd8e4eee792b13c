"""Measures a webhook whose receiver is down for an hour in which events happen.

    python -m tools.bench.webhooks [--events N]

The hour has sixty minutes of which each adds its share of the events and gets one tick; instead of
waiting, all times of the webhook and its deliveries are set back by a minute.  Then the receiver
accepts, and ticks follow each other until nothing is due.  ``python -m shop.runtime
manage_webhooks`` sends as in a container; the receiver is a server in this process.  Every event
must arrive exactly once.
"""

from __future__ import annotations

import argparse
import sys
from time import perf_counter
from typing import LiteralString

from shop.primitives.ids import new_uuid
from tools.bench.environment import BenchEnvironment, bench_environment
from tools.bench.first_requests import place, tick
from tools.bench.orders import running
from tools.bench.processes import Process, cpu_seconds_of_tree
from tools.bench.report import machine_description, show_progress, table
from tools.webhook_receiver import Behaviour, Receiver, running_receiver

MINUTES = 60
ORDERS = 100
TICKS_MAX = 1_000
TYPE = "order.cancelled"
ADD_WEBHOOK: LiteralString = """
insert into shop.webhooks (webhook_id, url, event_types)
values (gen_random_uuid(), %(url)s, array[%(type)s])
"""
# Of the orders in turn, as cancel_order writes them; the trigger adds the deliveries.
EVENTS: LiteralString = """
insert into shop.outbox (event_id, source, type, subject, order_id, data, traceparent, next_try_at,
  sent_at, done_at)
select e.event_id, '/shop/cancel_order', %(type)s, o.order_id::text, o.order_id,
  jsonb_build_object('orderId', o.order_id, 'reason', 'USER'),
  '00-' || md5(e.n::text) || '-1234567890abcdef-01', now(), now(), now()
from unnest(%(ids)s::uuid[]) with ordinality e(event_id, n)
join (select order_id, row_number() over () as number from shop.orders) o
  on o.number = e.n %% %(orders)s::int + 1
"""
PASS_A_MINUTE: tuple[LiteralString, ...] = (
    "update shop.webhooks set next_run_at = next_run_at - interval '1 minute', "
    "failing_since = failing_since - interval '1 minute'",
    "update shop.webhook_deliveries set next_try_at = next_try_at - interval '1 minute', "
    "scheduled_at = scheduled_at - interval '1 minute' where state = 'PENDING'",
)
PENDING: LiteralString = """
select count(*) filter (where state = 'PENDING'), count(*) filter (where state = 'DELIVERED'),
  count(*) from shop.webhook_deliveries
"""
ANALYZE: LiteralString = "analyze shop.outbox, shop.webhook_deliveries"


def measure(environment: BenchEnvironment, receiver: Receiver, events: int) -> tuple[str, ...]:
    """The row of the table; raises RuntimeError when an event is lost or arrives twice."""
    for _ in range(ORDERS):
        place(environment)
    environment.sql(ADD_WEBHOOK, url=receiver.url("/events"), type=TYPE)
    settings = {"WEBHOOK_NETWORKS_ALLOWED": "127.0.0.0/8"}
    with running(environment, "manage_webhooks", **settings) as (process, port):
        receiver.behaves(Behaviour.ERROR)
        for minute in range(1, MINUTES + 1):
            count = events * minute // MINUTES - events * (minute - 1) // MINUTES
            ids = [new_uuid() for _ in range(count)]
            environment.sql(EVENTS, type=TYPE, ids=ids, orders=ORDERS)
            _tick(environment, process, port)
            for statement in PASS_A_MINUTE:
                environment.sql(statement)
            show_progress(f"minute {minute} of {MINUTES}")
        environment.sql(ANALYZE)
        attempts = len(receiver.received())
        receiver.behaves(Behaviour.ACCEPT)
        seconds, ticks, sender, postgres = _drain(environment, process, port)
    accepted = [each.id for each in receiver.received() if each.behaviour == Behaviour.ACCEPT]
    if len(accepted) != events or len(set(accepted)) != events:
        raise RuntimeError(
            f"{len(set(accepted))} of {events} events arrived, {len(accepted)} times"
        )
    return (
        f"{events:,}",
        str(attempts),
        f"{seconds:.1f}",
        str(ticks),
        f"{events / seconds:,.0f}",
        f"{sender * 1000 / events:.2f}",
        f"{postgres * 1000 / events:.2f}",
    )


def _drain(
    environment: BenchEnvironment, process: Process, port: int
) -> tuple[float, int, float, float]:
    """Ticks until nothing is due: seconds, ticks, and CPU seconds of the sender and PostgreSQL."""
    postmaster = environment.postmaster()
    sender, postgres = process.cpu_seconds(), cpu_seconds_of_tree(postmaster)
    seconds, ticks = 0.0, 0
    # at most 15 minutes after the last failure, which are not waited for
    environment.sql("update shop.webhooks set next_run_at = now()")
    while environment.sql(PENDING)[0][0]:
        if ticks == TICKS_MAX:
            raise RuntimeError(f"events are pending after {ticks} ticks")
        began = perf_counter()
        _tick(environment, process, port)
        seconds, ticks = seconds + perf_counter() - began, ticks + 1
    return (
        seconds,
        ticks,
        process.cpu_seconds() - sender,
        cpu_seconds_of_tree(postmaster) - postgres,
    )


def _tick(environment: BenchEnvironment, process: Process, port: int) -> None:
    request, status = tick("send-webhooks")(environment)
    response = process.first_response(port, request)
    if not response.startswith(f"HTTP/1.1 {status} ".encode()):
        raise RuntimeError(f"manage_webhooks responded: {response[:200]!r}")


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.webhooks")
    parser.add_argument("--events", type=int, default=10_000)
    options = parser.parse_args()
    with bench_environment() as environment, running_receiver() as receiver:
        row = measure(environment, receiver, options.events)
    print(f"{machine_description()} · the receiver fails for {MINUTES} minutes, then accepts\n")
    print(
        table(
            (
                "events",
                "attempts in the hour",
                "seconds to deliver",
                "ticks",
                "events/s",
                "sender CPU ms",
                "PostgreSQL CPU ms",
            ),
            [row],
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
