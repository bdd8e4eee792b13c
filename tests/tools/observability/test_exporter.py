"""The exporter: values equal the database's, queried as shop_ops in one statement per scrape."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.function_process import ROOT
from tests.harness import ShopHarness
from tools.exporter import FAMILIES, DatabaseCollector

Sample = dict[tuple[str, ...], float]


def scrape(shop: ShopHarness) -> dict[str, Sample]:
    """The samples of one scrape, by metric name and label values."""
    return {
        family.name: samples(family) for family in DatabaseCollector(shop.role_url("ops")).collect()
    }


def samples(family: Metric) -> Sample:
    labels = FAMILIES.get(family.name, ((), ""))[0]
    return {tuple(s.labels[label] for label in labels): s.value for s in family.samples}


def counted(shop: ShopHarness, query: str) -> Sample:
    """The last column of a query's rows by the other columns."""
    rows: list[dict[str, Any]] = shop.sql(query)
    return {tuple(list(row.values())[:-1]): float(list(row.values())[-1]) for row in rows}


@pytest.fixture
def busy(shop: ShopHarness) -> ShopHarness:
    """A shop with data for every metric."""
    product, buyer = shop.product(stock=100), shop.person()
    for _ in range(3):
        buyer.paid_order(product)
    cancelled = buyer.paid_order(product, 2)
    assert buyer.patch(f"/orders/{cancelled['id']}/cancel").status == 200
    shop.deliver_all()
    for _ in range(2):
        buyer.order(product)
    shop.sql("update shop.outbox set created_at = now() - interval '90 s' where done_at is null")
    shop.sql("update shop.orders set charge_at = now() - interval '1 h' where status = 'PENDING'")
    for kind in ("ghost_charge", "ghost_charge", "stuck_payment"):
        shop.sql(
            "insert into shop.alarms (alarm_id, kind, subject, detail) values (%s, %s, %s, 'x')",
            uuid4(),
            kind,
            uuid4().hex,
        )
    for status in ("SENT", "SENT", "FAILED"):
        shop.sql(
            "insert into shop.mails (event_id, kind, subject_id, status, tries, failure, "
            "next_try_at) values (%s, 'ORDER_PAID', 'x', %s, 1, %s, now())",
            uuid4(),
            status,
            "REJECTED" if status == "FAILED" else None,
        )
    shop.sql("insert into shop.audits (name, found) values ('check', true)")
    for replayed in ("now()", "null"):
        shop.sql(
            "insert into shop.dead_letters (dead_letter_id, event_id, source, type, destination, "
            f"headers, body, replayed_at) values (%s, %s, '/s', 't', 'd', '{{}}', '', {replayed})",
            uuid4(),
            uuid4().hex,
        )
    return shop


EXACT = {
    "shop_orders": "select status, count(*) from shop.orders group by 1",
    "shop_payments": "select status, count(*) from shop.payments group by 1",
    "shop_refunds": "select status, count(*) from shop.refunds group by 1",
    "shop_outbox_open": "select count(*) from shop.outbox where done_at is null",
    "shop_due_work": "select kind, count(*) from shop.due_work where due_at <= now() group by 1",
    "shop_overdue": "select kind, count(*) from shop.overdue group by 1",
    "shop_dead_letters_open": "select count(*) from shop.dead_letters where replayed_at is null",
    "shop_audit_found": "select name, found::int from shop.audits",
    "shop_alarms_open": "select kind, count(*) from shop.alarms group by 1",
    "shop_mails": "select status, count(*) from shop.mails group by 1",
    "shop_ledger_minor": "select kind, currency, sum(amount_minor) from shop.ledger group by 1, 2",
    "shop_ledger_postings": "select kind, currency, count(*) from shop.ledger group by 1, 2",
}


def test_metrics_equal_the_database(busy: ShopHarness) -> None:
    scraped = scrape(busy)

    for name, query in EXACT.items():
        expected = counted(busy, query)
        assert scraped[name] == expected, name
        assert expected and all(expected.values()), name
    assert scraped["shop_exporter_up"] == {(): 1}
    assert scraped["shop_orders"] == {("PAID",): 3, ("CANCELLED",): 1, ("PENDING",): 2}
    assert 89 < scraped["shop_outbox_lag_seconds"][()] < 150
    assert 3599 < scraped["shop_due_work_oldest_seconds"]["charge",] < 3660
    assert 0 <= scraped["shop_audit_age_seconds"]["check",] < 60
    assert scraped["shop_dead_letters_dropped"] == {(): 0}
    ends = scraped["shop_partitions_end_seconds"]
    assert ends.keys() == {("inbox",), ("ledger",), ("outbox",), ("stock_moves",), ("transitions",)}
    assert 58 < ends["inbox",] / 86_400 < 93, "two months ahead"
    assert scraped.keys() - EXACT.keys() == {
        "shop_audit_age_seconds",
        "shop_dead_letters_dropped",
        "shop_exporter_up",
        "shop_exporter_seconds",
        "shop_outbox_lag_seconds",
        "shop_due_work_oldest_seconds",
        "shop_partitions_end_seconds",
    }


def test_empty_shop_has_no_outbox_lag(shop: ShopHarness) -> None:
    scraped = scrape(shop)

    assert (scraped["shop_outbox_lag_seconds"], scraped["shop_outbox_open"]) == ({(): 0}, {(): 0})
    assert scraped["shop_orders"] == {}


def test_slow_or_unreachable_database_sets_up_to_0(
    busy: ShopHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    unreachable = {
        f.name: samples(f) for f in DatabaseCollector("postgresql://127.0.0.1:9/shop").collect()
    }
    with psycopg.connect(busy.admin_url) as connection:
        connection.execute("lock table shop.orders in access exclusive mode")
        locked = scrape(busy)

    for scraped in (unreachable, locked):
        assert scraped["shop_exporter_up"] == {(): 0}
        assert scraped.keys() == {"shop_exporter_up", "shop_exporter_seconds"}
    assert locked["shop_exporter_seconds"][()] < 4
    errors = capsys.readouterr().err
    assert errors.count("query failed: ") == 2
    assert "127.0.0.1" not in errors


def test_exporter_serves_until_sigterm(busy: ShopHarness) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.exporter", "--port", "0", "--host", "127.0.0.1"],
        env={
            "PATH": os.environ["PATH"],
            "SHOP_PROFILE": "local",
            "DATABASE_URL": busy.role_url("ops"),
        },
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        connection = HTTPConnection(url.split("/")[2], timeout=10)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        process.send_signal(signal.SIGTERM)
        ended = process.wait(10)
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()

    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert ended == 0
    assert samples(families["shop_orders"])["PAID",] == 3
    assert families.keys() >= FAMILIES.keys()


def test_missing_database_url_exits_2() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tools.exporter"],
        env={"PATH": os.environ["PATH"], "SHOP_PROFILE": "local"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert (ended.returncode, "DATABASE_URL is missing" in ended.stderr) == (2, True)
