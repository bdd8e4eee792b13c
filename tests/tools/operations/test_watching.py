"""The companion of fault runs: it remembers what it was told, and says when it cannot look."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness import FlowHarness
from tests.waiting import wait_for
from tools.checker.evaluate import Violation
from tools.checker.monitor import DatabaseUnavailable, InvariantMonitor

GHOST = ("shop:ghost", 5, "CAPTURED")
OWN = "from pg_stat_activity where application_name = 'checker' and datname = current_database()"
APPLIED = (
    "insert into shop.inbox (consumer, source, event_id, outcome) "
    "values ('charge', '/shop/place_order', 'forged', 'taken')"
)


@pytest.fixture
def watcher(flow: FlowHarness) -> Iterator[InvariantMonitor]:
    watcher = InvariantMonitor(flow.shop.admin_url)
    yield watcher
    watcher.close()


def _named(found: list[Violation]) -> list[tuple[str, list[tuple[object, ...]]]]:
    return [(violation.id, violation.rows) for violation in found]


def _hang_up(flow: FlowHarness) -> None:
    """What a restart of PostgreSQL is to the watcher: its connection and its tables are gone."""
    (ended,) = flow.shop.sql(f"select pg_terminate_backend(pid) as done {OWN}")
    assert ended["done"]
    wait_for(lambda: not flow.shop.sql(f"select pid {OWN}"), "the connection's end")


def test_each_look_is_a_snapshot_of_its_own(flow: FlowHarness, watcher: InvariantMonitor) -> None:
    product = flow.shop.product()
    assert watcher.evaluate([], [], []) == []

    flow.shop.sql("update shop.stock set on_hand = on_hand + 1 where product_id = %s", product)
    broken = watcher.evaluate([], [], [])
    flow.shop.sql("update shop.stock set on_hand = on_hand - 1 where product_id = %s", product)

    assert _named(broken) == [("I-03", [(product,)])]
    assert watcher.evaluate([], [], []) == []


def test_what_was_told_once_is_remembered(flow: FlowHarness, watcher: InvariantMonitor) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    key = flow.payment_key(order["id"])
    flow.shop.sql(APPLIED)

    assert watcher.evaluate([(key, 1000, "CAPTURED")], [], [("forged", "/shop/place_order")]) == []
    assert _named(watcher.evaluate([GHOST], [], [])) == [("I-11", [("shop:ghost",)])]
    assert _named(watcher.evaluate([], [], [])) == [("I-11", [("shop:ghost",)])]


def test_of_a_charge_the_last_word_counts(flow: FlowHarness, watcher: InvariantMonitor) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    key = flow.payment_key(order["id"])

    assert watcher.evaluate([(key, 999, "CREATED")], [], []) == []
    found = watcher.evaluate([(key, 999, "CAPTURED")], [], [])

    assert _named(found) == [("I-11", [(key,)])]


def test_a_lost_connection_is_said_and_everything_is_told_again(
    flow: FlowHarness, watcher: InvariantMonitor
) -> None:
    flow.shop.sql(APPLIED)
    poison = [("forged", "/shop/place_order")]
    assert _named(watcher.evaluate([GHOST], [], poison)) == [("I-11", [("shop:ghost",)])]
    _hang_up(flow)

    other = ("shop:other", 5, "CAPTURED")
    with pytest.raises(DatabaseUnavailable):
        watcher.evaluate([other], [], [])
    found = watcher.evaluate([other], [], poison)

    assert _named(found) == [("I-11", [("shop:ghost",), ("shop:other",)])]


def test_nobody_there_is_not_now() -> None:
    with pytest.raises(DatabaseUnavailable):
        InvariantMonitor("postgresql://nobody@127.0.0.1:1/none").evaluate([], [], [])


def test_between_two_looks_no_transaction_is_open(
    flow: FlowHarness, watcher: InvariantMonitor
) -> None:
    watcher.evaluate([GHOST], [], [])

    rows = flow.shop.sql(f"select state {OWN}")

    assert rows == [{"state": "idle"}]


def test_a_role_that_does_not_see_everything_is_refused(flow: FlowHarness) -> None:
    blind = InvariantMonitor(flow.shop.role_url("ordering"))

    with pytest.raises(ValueError, match="does not see every row"):
        blind.evaluate([], [], [])
    with pytest.raises(ValueError, match="does not see every row"):
        blind.evaluate([], [], [])
