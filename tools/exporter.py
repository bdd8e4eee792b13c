"""``shop exporter``: business metrics for Prometheus, queried from the database.

    python -m tools.exporter [--port 9187] [--host 0.0.0.0]

The values are exact even when functions are stopped or killed, because the database holds them.
Connects as ``shop_ops``; each scrape runs one query of at most two seconds.  When the database is
unavailable, ``shop_exporter_up`` is 0 and the other metrics are missing.
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

STATEMENT_TIMEOUT: LiteralString = "set local statement_timeout = '2s'"

# Orders, payments, refunds and the ledger are scanned; with tens of millions of orders point
# DATABASE_URL at a replica and scrape once a minute.
METRICS: LiteralString = """
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
select 'shop_overdue', array[kind], count(*) from shop.overdue group by kind
union all
select 'shop_dead_letters_open', '{}', count(*)
  from shop.dead_letters where replayed_at is null and dropped_at is null
union all
select 'shop_dead_letters_dropped', '{}', count(*)
  from shop.dead_letters where dropped_at is not null
union all
select 'shop_audit_found', array[name], found::int from shop.audits
union all
select 'shop_audit_age_seconds', array[name], extract(epoch from now() - ran_at) from shop.audits
union all
select 'shop_partitions_end_seconds', array[table_name], extract(epoch from max(ends_at) - now())
  from shop.months group by table_name
union all
select 'shop_alarms_open', array[kind], count(*)
  from shop.alarms where resolved_at is null group by kind
union all
select 'shop_mails', array[status], count(*) from shop.mails group by status
union all
select 'shop_ledger_minor', array[kind, currency], sum(amount_minor)
  from shop.ledger group by kind, currency
union all
select 'shop_ledger_postings', array[kind, currency], count(*)
  from shop.ledger group by kind, currency
"""

FAMILIES: dict[str, tuple[tuple[str, ...], str]] = {
    "shop_orders": (("status",), "Orders by status."),
    "shop_payments": (("status",), "Payments by status."),
    "shop_refunds": (("status",), "Refunds by status."),
    "shop_outbox_open": ((), "Events that not every consumer has processed."),
    "shop_outbox_lag_seconds": (
        (),
        "Age of the oldest event that not every consumer has processed.",
    ),
    "shop_due_work": (("kind",), "Jobs that are due now."),
    "shop_due_work_oldest_seconds": (("kind",), "Time since the oldest due job became due."),
    "shop_overdue": (("kind",), "Rows over their age limit, by the kind of their alert."),
    "shop_dead_letters_open": ((), "Dead letters that are neither replayed nor dropped."),
    "shop_dead_letters_dropped": (
        (),
        "Dead letters that an operator dropped, of the last 90 days.",
    ),
    "shop_audit_found": (("audit",), "1 when the last run of an audit found something."),
    "shop_audit_age_seconds": (("audit",), "Time since the last run of an audit."),
    "shop_partitions_end_seconds": (
        ("table",),
        "Time until the end of the last month that has a partition.",
    ),
    "shop_alarms_open": (("kind",), "Open operator alerts."),
    "shop_mails": (("status",), "Mails that are kept, by status."),
    "shop_ledger_minor": (("kind", "currency"), "Sum of the ledger, in minor units."),
    "shop_ledger_postings": (("kind", "currency"), "Postings in the ledger."),
}
# Exported even when the database is unavailable.
EXPORTER_METRICS: dict[str, str] = {
    "shop_exporter_up": "1 when the database responded, otherwise 0.",
    "shop_exporter_seconds": "Duration of the query.",
}


class DatabaseCollector(Collector):
    """Queries the database at each scrape."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    def describe(self) -> list[Metric]:
        """The exporter's own metrics only, so that registration does not query the database."""
        return [GaugeMetricFamily(name, text) for name, text in EXPORTER_METRICS.items()]

    def collect(self) -> Iterator[Metric]:
        """All metric families; only the exporter's own when the query fails."""
        began = time.monotonic()
        try:
            rows = self._query()
        except psycopg.Error as error:
            print(f"query failed: {type(error).__name__}", file=sys.stderr)
            rows = None
        values = {
            "shop_exporter_up": float(rows is not None),
            "shop_exporter_seconds": time.monotonic() - began,
        }
        for name, text in EXPORTER_METRICS.items():
            yield GaugeMetricFamily(name, text, value=values[name])
        if rows is not None:
            yield from _families(rows)

    def _query(self) -> list[tuple[str, list[str], float]]:
        with psycopg.connect(
            self._database_url,
            connect_timeout=CONNECT_SECONDS,
            prepare_threshold=None,  # a new connection each time, perhaps through PgBouncer
            application_name="shop exporter",
        ) as connection:
            connection.execute(STATEMENT_TIMEOUT)
            return connection.execute(METRICS).fetchall()


def _families(rows: list[tuple[str, list[str], float]]) -> Iterator[Metric]:
    for name, (labels, documentation) in FAMILIES.items():
        family = GaugeMetricFamily(name, documentation, labels=labels)
        for row_name, values, value in rows:
            if row_name == name:
                family.add_metric(values, float(value))
        yield family


def run_exporter(database_url: str, *, host: str, port: int) -> int:
    """Serves ``/metrics`` until SIGTERM or Ctrl-C.  Raises OSError when the port is in use."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopped.set())
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(database_url))
    server, thread = start_http_server(port, addr=host, registry=registry)
    print(f"exporter ready http://{host}:{server.server_port}/metrics", flush=True)
    stopped.wait()
    server.shutdown()
    server.server_close()
    thread.join()
    return 0


def main() -> int:
    """Entry point of the container: settings from the environment; 2 when they are invalid."""
    parser = argparse.ArgumentParser(prog="python -m tools.exporter")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 (a container's only address)
    options = parser.parse_args()
    try:
        settings = config.load(needs=("postgres",))
    except config.ConfigurationError as error:
        print(f"invalid settings:\n{error}", file=sys.stderr)
        return 2
    return run_exporter(settings.database_url.reveal(), host=options.host, port=options.port)


if __name__ == "__main__":
    sys.exit(main())
