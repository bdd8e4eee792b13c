"""``shop order list``, ``events tail``, ``status`` and ``doctor``: the shop at a glance."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from tests.harness import FlowHarness
from tests.tools.operations.conftest import CommandLine
from tests.waiting import wait_for


def _listed(auditor: CommandLine, *options: object) -> list[str]:
    """The ids of the orders that are listed with these options."""
    result = auditor.run("order", "list", "--json", *options)
    assert result.exit_code == 0, result.stderr
    return [order["order_id"] for order in json.loads(result.stdout)]


def test_orders_are_listed_by_status_product_customer_and_age(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    first, second = flow.shop.person(), flow.shop.person()
    pen, book = flow.shop.product(), flow.shop.product()
    paid = first.paid_order(pen)["id"]
    pending = first.order(book)["id"]
    other = second.order(pen)["id"]

    assert _listed(auditor) == [other, pending, paid]
    assert _listed(auditor, "--status", "paid") == [paid]
    assert _listed(auditor, "--product", pen) == [other, paid]
    assert _listed(auditor, "--customer", second.user_id) == [other]
    assert _listed(auditor, "--status", "PENDING", "--product", pen, "--limit", 1) == [other]
    assert _listed(auditor, "--older-than", 10) == []
    table = auditor.run("order", "list", "--limit", 1)
    assert table.stdout.splitlines()[1].split()[:3] == [other, str(second.user_id), "PENDING"]
    assert auditor.run("order", "list", "--status", "LOST").exit_code == 2


def test_events_are_printed_once_and_filtered(flow: FlowHarness, auditor: CommandLine) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    flow.shop.person().order(flow.shop.product())

    def tail(*options: str) -> list[dict[str, Any]]:
        result = auditor.run("events", "tail", "--no-follow", "--json", *options)
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    every = tail()

    assert len({event["event_id"] for event in every}) == len(every)
    assert [event["type"] for event in every].count("order.placed") == 2
    assert {e["subject"] for e in tail("--type", "order.placed", "--order", order["id"])} == {
        order["id"]
    }
    assert tail("--since", "0") == []
    assert order["id"] in auditor.run("events", "tail", "--no-follow").stdout


def test_new_event_appears_and_interrupt_ends_with_0(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.cli", "events", "tail", "--json", "--type=order.placed"],
        env=auditor.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        reads_outbox = "select 1 from pg_stat_activity where query like '%shop.outbox%' and pid <> "
        wait_for(lambda: flow.shop.sql(f"{reads_outbox} pg_backend_pid()"), "the tail to read")
        order = flow.shop.person().order(flow.shop.product())
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()

    assert json.loads(line)["subject"] == order["id"]
    assert (process.returncode, errors) == (0, "")


def test_status_is_0_until_something_needs_an_operator(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    flow.shop.person().paid_order(flow.shop.product())

    well = auditor.run("status")
    flow.shop.sql(
        "insert into shop.alarms (alarm_id, kind, subject, detail) "
        "values (gen_random_uuid(), 'amount_mismatch', 's', 'd')"
    )
    ill = auditor.run("status")
    document = json.loads(auditor.run("status", "--json").stdout)

    assert (well.exit_code, ill.exit_code) == (0, 1)
    assert "orders        PAID 1" in well.stdout.splitlines()
    assert "alerts        none" in well.stdout.splitlines()
    assert "alerts        amount_mismatch 1" in ill.stdout.splitlines()
    assert document["metrics"]["shop_orders"] == {"PAID": 1.0}


def _findings(command_line: CommandLine, **variables: str) -> tuple[int, dict[str, dict[str, Any]]]:
    result = command_line.run("doctor", "--json", **variables)
    return result.exit_code, {finding["what"]: finding for finding in json.loads(result.stdout)}


def test_doctor_finds_nothing_wrong_with_a_complete_set_up(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    status, findings = _findings(
        auditor,
        OPS_DATABASE_URL=flow.shop.role_url("ops"),
        ACCOUNTS_DATABASE_URL=flow.shop.role_url("accounts"),
        BROKER_URL=flow.broker.url,
        REDIS_URL=flow.shop.redis_url,
    )

    assert {what: finding for what, finding in findings.items() if not finding["is_right"]} == {}
    assert status == 0
    assert set(findings) == {
        "database as shop_auditor",
        "database as shop_ops",
        "database as shop_accounts",
        "PostgreSQL",
        "clock",
        "business time zone",
        "views and rights",
        "partitions of inbox",
        "partitions of ledger",
        "partitions of outbox",
        "partitions of stock_moves",
        "partitions of transitions",
        "payment provider",
        "broker",
        "Redis",
    }


def test_doctor_says_what_is_missing_and_how_to_give_it(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    status, findings = _findings(
        auditor,
        DATABASE_URL="",
        OPS_DATABASE_URL=flow.shop.role_url("auditor"),
        PAYMENT_PROVIDER_URL="http://127.0.0.1:9",
        REDIS_URL="redis://127.0.0.1:9/0",
        BROKER_URL="",
    )

    assert status == 1
    wrong = {what: finding for what, finding in findings.items() if not finding["is_right"]}
    assert set(wrong) == {
        "AUDITOR_DATABASE_URL",
        "database as shop_ops",
        "ACCOUNTS_DATABASE_URL",
        "PAYMENT_PROVIDER_URL",
        "BROKER_URL",
        "REDIS_URL",
    }
    assert "mount the secret file auditor-database-url" in wrong["AUDITOR_DATABASE_URL"]["advice"]
    assert "use a URL of shop_ops" in wrong["database as shop_ops"]["advice"]
    table = auditor.run("doctor", DATABASE_URL="")
    assert table.exit_code == 1
    assert "AUDITOR_DATABASE_URL or DATABASE_URL" in table.stdout
