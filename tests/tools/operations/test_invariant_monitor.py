"""``InvariantMonitor``: repeated snapshots, stored records, and reconnecting."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness import FlowHarness
from tests.waiting import wait_for
from tools.checker.evaluate import Violation
from tools.checker.monitor import DatabaseUnavailable, InvariantMonitor

UNMATCHED = ("shop:unmatched", 5, "CAPTURED")
CONNECTION = (
    "from pg_stat_activity where application_name = 'checker' and datname = current_database()"
)
APPLIED = (
    "insert into shop.inbox (consumer, source, event_id, outcome) "
    "values ('charge', '/shop/place_order', 'forged', 'taken')"
)


@pytest.fixture
def monitor(flow: FlowHarness) -> Iterator[InvariantMonitor]:
    monitor = InvariantMonitor(flow.shop.admin_url)
    yield monitor
    monitor.close()


def _named(found: list[Violation]) -> list[tuple[str, list[tuple[object, ...]]]]:
    return [(violation.id, violation.rows) for violation in found]


def _terminate_connection(flow: FlowHarness) -> None:
    """Ends the monitor's connection, as a restart of PostgreSQL would."""
    (ended,) = flow.shop.sql(f"select pg_terminate_backend(pid) as done {CONNECTION}")
    assert ended["done"]
    wait_for(lambda: not flow.shop.sql(f"select pid {CONNECTION}"), "the connection to end")


def test_each_evaluation_uses_a_new_snapshot(flow: FlowHarness, monitor: InvariantMonitor) -> None:
    product = flow.shop.product()
    assert monitor.evaluate([], [], []) == []

    flow.shop.sql("update shop.stock set on_hand = on_hand + 1 where product_id = %s", product)
    broken = monitor.evaluate([], [], [])
    flow.shop.sql("update shop.stock set on_hand = on_hand - 1 where product_id = %s", product)

    assert _named(broken) == [("I-03", [(product,)])]
    assert monitor.evaluate([], [], []) == []


def test_records_passed_once_are_kept(flow: FlowHarness, monitor: InvariantMonitor) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    key = flow.payment_key(order["id"])
    flow.shop.sql(APPLIED)

    assert monitor.evaluate([(key, 1000, "CAPTURED")], [], [("forged", "/shop/place_order")]) == []
    assert _named(monitor.evaluate([UNMATCHED], [], [])) == [("I-11", [("shop:unmatched",)])]
    assert _named(monitor.evaluate([], [], [])) == [("I-11", [("shop:unmatched",)])]


def test_last_status_of_a_charge_counts(flow: FlowHarness, monitor: InvariantMonitor) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    key = flow.payment_key(order["id"])

    assert monitor.evaluate([(key, 999, "CREATED")], [], []) == []
    found = monitor.evaluate([(key, 999, "CAPTURED")], [], [])

    assert _named(found) == [("I-11", [(key,)])]


def test_lost_connection_is_reported_and_records_are_inserted_again(
    flow: FlowHarness, monitor: InvariantMonitor
) -> None:
    flow.shop.sql(APPLIED)
    poison = [("forged", "/shop/place_order")]
    assert _named(monitor.evaluate([UNMATCHED], [], poison)) == [("I-11", [("shop:unmatched",)])]
    _terminate_connection(flow)

    other = ("shop:other", 5, "CAPTURED")
    with pytest.raises(DatabaseUnavailable):
        monitor.evaluate([other], [], [])
    found = monitor.evaluate([other], [], poison)

    assert _named(found) == [("I-11", [("shop:unmatched",), ("shop:other",)])]


def test_unreachable_database_raises_database_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        InvariantMonitor("postgresql://user@127.0.0.1:1/none").evaluate([], [], [])


def test_no_transaction_is_open_between_evaluations(
    flow: FlowHarness, monitor: InvariantMonitor
) -> None:
    monitor.evaluate([UNMATCHED], [], [])

    rows = flow.shop.sql(f"select state {CONNECTION}")

    assert rows == [{"state": "idle"}]


def test_role_with_hidden_rows_is_rejected(flow: FlowHarness) -> None:
    ordering = InvariantMonitor(flow.shop.role_url("ordering"))

    with pytest.raises(ValueError, match="hides rows from this role"):
        ordering.evaluate([], [], [])
    with pytest.raises(ValueError, match="hides rows from this role"):
        ordering.evaluate([], [], [])
