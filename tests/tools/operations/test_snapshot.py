"""``snapshot``: repeatable read, read only, every row visible, rolled back."""

from __future__ import annotations

import psycopg
import pytest

from tests.harness import ShopHarness
from tools.operations.snapshot import snapshot

COUNT = "select count(*) from shop.alarms"
INSERT_ALERT = (
    "insert into shop.alarms (alarm_id, kind, subject, detail) "
    "values (gen_random_uuid(), 'x', gen_random_uuid()::text, 'x')"
)


def test_concurrent_commit_is_invisible_in_the_snapshot(shop: ShopHarness) -> None:
    with snapshot(shop.role_url("auditor")) as connection:
        shop.sql(INSERT_ALERT)
        assert connection.execute(COUNT).fetchone() == (0,)

    with snapshot(shop.role_url("auditor")) as connection:
        assert connection.execute(COUNT).fetchone() == (1,)


def test_second_connection_to_a_snapshot_sees_no_later_commit(shop: ShopHarness) -> None:
    with snapshot(shop.role_url("auditor")) as first:
        shop.sql(INSERT_ALERT)
        with snapshot(shop.role_url("auditor"), same_as=first) as second:
            assert second.execute(COUNT).fetchone() == (0,)


def test_administrator_cannot_write_in_the_snapshot(shop: ShopHarness) -> None:
    with (
        snapshot(shop.admin_url) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        connection.execute(INSERT_ALERT)

    assert shop.sql("select 1 from shop.alarms") == []


def test_prepared_tables_are_dropped_at_the_end(shop: ShopHarness) -> None:
    def prepare(connection: psycopg.Connection) -> None:
        connection.execute("create temporary table seen (n int)")
        connection.execute("insert into seen values (7)")

    with snapshot(shop.role_url("auditor"), prepare=prepare) as connection:
        assert connection.execute("select n from seen").fetchone() == (7,)
        connection.execute("rollback")
        assert connection.execute("select to_regclass('seen')").fetchone() == (None,)


def test_auditor_sees_every_order(shop: ShopHarness) -> None:
    shop.person().paid_order(shop.product())

    with snapshot(shop.role_url("auditor")) as connection:
        assert connection.execute("select count(*) from shop.orders").fetchone() == (1,)


@pytest.mark.parametrize("role", ["ops", "payment"])
def test_role_without_access_to_carts_is_rejected(shop: ShopHarness, role: str) -> None:
    with (
        pytest.raises(
            ValueError,
            match=r"hides rows from this role: cart_items, idempotency, notes, saved_addresses$",
        ),
        snapshot(shop.role_url(role)),
    ):
        raise AssertionError("the snapshot was opened")
