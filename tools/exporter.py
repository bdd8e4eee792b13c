"""``shop exporter``: the business in numbers for Prometheus, counted in the database.

    python -m tools.exporter [--port 9187] [--host 0.0.0.0]

Exact whatever sleeps or dies, since nothing is counted on the way.  Connects as ``shop_ops``; one
snapshot, one statement and at most two seconds a scrape.  What cannot be counted is not shown, and
``shop_exporter_up`` is 0.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import LiteralString

import psycopg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shop.runtime import config

CONNECT_SECONDS = 3
PORT = 9187

LIMIT: LiteralString = "set local statement_timeout = '2s'"

# Orders, payments, refunds and the ledger are counted whole; a shop with tens of millions of orders
# points DATABASE_URL at a replica and scrapes once a minute.
FIGURES: LiteralString = """
with due as materialized (
  select kind, due_at from shop.due_work where due_at <= now()
), open_rows as materialized (
  select created_at from shop.outbox where done_at is null and parked_at is null
)
select 'shop_orders' as name, array[status] as labels, count(*)::float8 as value
  from shop.orders group by status
union all
select 'shop_payments', array[status], count(*) from shop.payments group by status
union all
select 'shop_refunds', array[status], count(*) from shop.refunds group by status
union all
select 'shop_outbox_open', '{}', count(*) from open_rows
union all
select 'shop_outbox_lag_seconds', '{}', coalesce(extract(epoch from now() - min(created_at)), 0)
  from open_rows
union all
select 'shop_due_work', array[kind], count(*) from due group by kind
union all
select 'shop_due_work_oldest_seconds', array[kind], extract(epoch from now() - min(due_at))
  from due group by kind
union all
select 'shop_dead_letters_open', '{}', count(*) from shop.dead_letters where replayed_at is null
union all
select 'shop_alarms_open', array[kind], count(*)
  from shop.alarms where resolved_at is null group by kind
union all
select 'shop_ledger_minor', array[kind, currency], sum(amount_minor)
  from shop.ledger group by kind, currency
union all
select 'shop_ledger_postings', array[kind, currency], count(*)
  from shop.ledger group by kind, currency
"""

FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "shop_orders": (("status",), "Orders by state."),
    "shop_payments": (("status",), "Payments by state."),
    "shop_refunds": (("status",), "Refunds by state."),
    "shop_outbox_open": ((), "Announced events that not every consumer has taken."),
    "shop_outbox_lag_seconds": ((), "Age of the oldest of them."),
    "shop_due_work": (("kind",), "Work that is due now."),
    "shop_due_work_oldest_seconds": (("kind",), "How long the oldest of it has been due."),
    "shop_dead_letters_open": ((), "Events given up by the broker and not replayed."),
    "shop_alarms_open": (("kind",), "Alarms that nobody has resolved."),
    "shop_ledger_minor": (("kind", "currency"), "Sum of the ledger, in minor units."),
    "shop_ledger_postings": (("kind", "currency"), "Postings in the ledger."),
}
# What is known even when the database cannot be asked.
OWN: dict[str, str] = {
    "shop_exporter_up": "1 when the database could be asked.",
    "shop_exporter_seconds": "How long that took.",
}


class Figures(Collector):
    """Asks the database each time it is asked."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    def describe(self) -> list[Metric]:
        """The families' names, so that registering asks nothing."""
        return [GaugeMetricFamily(name, OWN[name]) for name in OWN]

    def collect(self) -> Iterator[Metric]:
        """All families; only ``OWN`` when the database does not answer in time."""
        began = time.monotonic()
        try:
            rows = self._ask()
        except psycopg.Error as error:
            print(f"could not count: {type(error).__name__}", file=sys.stderr)
            rows = None
        yield GaugeMetricFamily("shop_exporter_up", OWN["shop_exporter_up"], value=rows is not None)
        seconds = time.monotonic() - began
        yield GaugeMetricFamily(
            "shop_exporter_seconds", OWN["shop_exporter_seconds"], value=seconds
        )
        if rows is not None:
            yield from _families(rows)

    def _ask(self) -> list[tuple[str, list[str], float]]:
        with psycopg.connect(
            self._database_url,
            connect_timeout=CONNECT_SECONDS,
            prepare_threshold=None,  # a new connection each time, perhaps through PgBouncer
            application_name="shop exporter",
        ) as connection:
            connection.execute(LIMIT)
            return connection.execute(FIGURES).fetchall()


def _families(rows: list[tuple[str, list[str], float]]) -> Iterator[Metric]:
    for name, (labels, meaning) in FAMILIES.items():
        family = GaugeMetricFamily(name, meaning, labels=labels)
        for found, values, value in rows:
            if found == name:
                family.add_metric(values, float(value))
        yield family


def run_exporter(database_url: str, *, host: str, port: int) -> int:
    """Serves ``/metrics`` until SIGTERM or Ctrl-C; 0.  Raises OSError when the port is taken."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    registry = CollectorRegistry()
    registry.register(Figures(database_url))
    server, thread = start_http_server(port, addr=host, registry=registry)
    print(f"exporter ready http://{host}:{server.server_port}/metrics", flush=True)
    ended.wait()
    server.shutdown()
    server.server_close()
    thread.join()
    return 0


def main() -> int:
    """For containers: DATABASE_URL comes as every setting does, 2 when it is missing."""
    parser = argparse.ArgumentParser(prog="python -m tools.exporter")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 (a container's only address)
    options = parser.parse_args()
    try:
        settings = config.load(needs=("postgres",))
    except config.ConfigurationError as error:
        print(f"the settings are wrong:\n{error}", file=sys.stderr)
        return 2
    return run_exporter(settings.database_url.reveal(), host=options.host, port=options.port)


if __name__ == "__main__":
    sys.exit(main())
