"""A look at the shop: of one moment, at every row, and without a trace."""

from __future__ import annotations

import psycopg
import pytest

from tests.harness import ShopHarness
from tools.operations.snapshot import snapshot

COUNT = "select count(*) from shop.alarms"
RING = (
    "insert into shop.alarms (alarm_id, kind, subject, detail) "
    "values (gen_random_uuid(), 'x', gen_random_uuid()::text, 'x')"
)


def test_what_others_commit_meanwhile_is_not_seen(shop: ShopHarness) -> None:
    with snapshot(shop.role_url("auditor")) as connection:
        shop.sql(RING)
        assert connection.execute(COUNT).fetchone() == (0,)

    with snapshot(shop.role_url("auditor")) as connection:
        assert connection.execute(COUNT).fetchone() == (1,)


def test_not_even_the_administrator_writes_in_it(shop: ShopHarness) -> None:
    with (
        snapshot(shop.admin_url) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        connection.execute(RING)

    assert shop.sql("select 1 from shop.alarms") == []


def test_what_was_prepared_is_gone_afterwards(shop: ShopHarness) -> None:
    def prepare(connection: psycopg.Connection) -> None:
        connection.execute("create temporary table seen (n int)")
        connection.execute("insert into seen values (7)")

    with snapshot(shop.role_url("auditor"), prepare=prepare) as connection:
        assert connection.execute("select n from seen").fetchone() == (7,)
        connection.execute("rollback")
        assert connection.execute("select to_regclass('seen')").fetchone() == (None,)


def test_the_auditor_sees_every_row(shop: ShopHarness) -> None:
    shop.person().paid_order(shop.product())

    with snapshot(shop.role_url("auditor")) as connection:
        assert connection.execute("select count(*) from shop.orders").fetchone() == (1,)


@pytest.mark.parametrize("role", ["ops", "payment"])
def test_a_role_that_sees_every_order_but_no_cart_is_refused(shop: ShopHarness, role: str) -> None:
    with (
        pytest.raises(ValueError, match=r"does not see every row of cart_items$"),
        snapshot(shop.role_url(role)),
    ):
        raise AssertionError("it was let in")
