"""The partitioned ledger rejects what the ledger in one table rejected, and reads few months."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from shop import ledger, settlement
from shop.adapters.statements import Query
from shop.orders import disputes
from shop.primitives.statuses import PostingKind
from shop.schema.grants import GRANTS
from tests.contract.test_partitions import begin_months_earlier, month, name, remove_months
from tests.contract.test_sql_constants import PARAMETER, numbered
from tests.harness import FlowHarness, ShopHarness, assert_invariants
from tests.ledger_postings import insert_posting
from tests.waiting import wait_for
from tools.checker import evaluate

# in a month's partition, in one of the future, in no month's, and in the table of before
MONTHS = (0, 2, 9, -40)
POSTERS = sorted(role for role in GRANTS if "insert" in GRANTS[role].get("ledger", {}))
WITH_SEQ = (
    "insert into shop.ledger (seq, kind, source_id, order_id, debit, credit, amount_minor, "
    "currency) overriding system value "
    "values (%s, 'REFUND', %s, %s, 'order_escrow', 'psp_receivable', 1, 'KRW')"
)
WITH_TIME = (
    "insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, currency, "
    "posted_at) values ('CAPTURE', %s, %s, 'psp_receivable', 'order_escrow', 1, 'KRW', {})"
)
LINE = "insert into shop.settlement_lines (seq, day, currency) values (%s, '2026-02-01', 'KRW')"


@pytest.fixture
def order_id(shop: ShopHarness) -> UUID:
    """An order without postings."""
    return UUID(shop.person().order(shop.product())["id"])


def post(connection: psycopg.Connection[Any], order_id: UUID, source_id: UUID) -> int:
    """Posts a capture as the functions do; returns its number."""
    statement = ledger.post(
        kind=PostingKind.CAPTURE,
        source_id=source_id,
        order_id=order_id,
        amount_minor=1,
        currency="KRW",
    )
    row = connection.execute(statement.sql.encode(), statement.parameters).fetchone()
    assert row is not None
    seq: int = row[0]
    return seq


def posted(shop: ShopHarness, order_id: UUID, offset: int) -> tuple[int, UUID]:
    """Posts a capture, and moves it to another month; its number and source."""
    source_id = uuid4()
    with psycopg.connect(shop.admin_url, autocommit=True) as connection:
        seq = post(connection, order_id, source_id)
        if offset != 0:
            connection.execute("set session_replication_role = replica")
            connection.execute("update shop.ledger set posted_at = %s", (month(offset),))
    return seq, source_id


def places(shop: ShopHarness) -> list[str]:
    """The partition of each posting."""
    rows = shop.sql("select tableoid::regclass::text as name from shop.ledger order by seq")
    return [row["name"].removeprefix("shop.") for row in rows]


@pytest.mark.parametrize("offset", MONTHS)
def test_source_is_posted_once_whatever_the_month_of_its_posting(
    shop: ShopHarness, order_id: UUID, offset: int
) -> None:
    _, source_id = posted(shop, order_id, offset)
    heads = shop.sql("select * from shop.ledger_chains order by chain")

    for role in POSTERS:
        with psycopg.connect(shop.role_url(role.removeprefix("shop_"))) as connection:
            with pytest.raises(psycopg.errors.UniqueViolation) as error:
                post(connection, order_id, source_id)
            assert error.value.diag.constraint_name == "one_posting_per_source"

    assert len(places(shop)) == 1
    assert shop.sql("select * from shop.ledger_chains order by chain") == heads


@pytest.mark.parametrize("is_committed", [True, False])
def test_session_that_posts_a_source_of_an_open_transaction_waits_for_its_end(
    shop: ShopHarness, order_id: UUID, is_committed: bool
) -> None:
    source_id = uuid4()

    def post_again() -> int:
        with psycopg.connect(shop.admin_url, autocommit=True) as second:
            return post(second, order_id, source_id)

    with ThreadPoolExecutor(1) as pool, psycopg.connect(shop.admin_url) as first:
        post(first, order_id, source_id)
        again: Future[int] = pool.submit(post_again)
        wait_for(
            lambda: shop.sql(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock' "
                "and datname = current_database()"
            ),
            "the second session to wait",
        )
        assert not again.done()
        if is_committed:
            first.commit()
            with pytest.raises(psycopg.errors.UniqueViolation, match="one_posting_per_source"):
                again.result()
        else:
            first.rollback()
            again.result()

    assert len(places(shop)) == 1


@pytest.mark.parametrize("offset", MONTHS)
def test_second_posting_at_a_place_of_a_chain_is_rejected_whatever_its_month(
    shop: ShopHarness, order_id: UUID, offset: int
) -> None:
    """A head that was set back, which no function may do, forks no chain."""
    posted(shop, order_id, offset)
    shop.sql("update shop.ledger_chains set chain_seq = 0")

    with (
        psycopg.connect(shop.role_url("payment")) as connection,
        pytest.raises(psycopg.errors.UniqueViolation, match="one_link_per_place"),
    ):
        post(connection, order_id, uuid4())

    assert len(places(shop)) == 1


@pytest.mark.parametrize("offset", MONTHS)
def test_second_posting_with_a_number_is_rejected_whatever_its_month(
    shop: ShopHarness, order_id: UUID, offset: int
) -> None:
    seq, _ = posted(shop, order_id, offset)

    with (
        psycopg.connect(shop.role_url("payment")) as connection,
        pytest.raises(psycopg.errors.UniqueViolation, match="ledger_keys_pkey"),
    ):
        connection.execute(WITH_SEQ, (seq, uuid4(), order_id))

    assert len(places(shop)) == 1


@pytest.mark.parametrize(
    "time",
    [
        "now() + interval '1 microsecond'",
        "now() - interval '1 month'",
        "now() + interval '1 month'",
        "now() + interval '1 year'",
        "clock_timestamp()",
        "'-infinity'",
        "'infinity'",
        "null",
    ],
)
def test_posting_with_another_time_than_the_transactions_is_rejected(
    shop: ShopHarness, order_id: UUID, time: str
) -> None:
    for role in POSTERS:
        with psycopg.connect(shop.role_url(role.removeprefix("shop_"))) as connection:
            connection.execute("select 1")  # clock_timestamp() is later than now()
            with pytest.raises(psycopg.errors.CheckViolation, match="time of the transaction"):
                connection.execute(WITH_TIME.format(time).encode(), (uuid4(), order_id))

    assert places(shop) == []
    assert shop.sql("select max(chain_seq) as seq from shop.ledger_chains") == [{"seq": 0}]


def test_posting_that_names_the_transactions_time_is_stored(
    shop: ShopHarness, order_id: UUID
) -> None:
    with psycopg.connect(shop.role_url("payment")) as connection:
        connection.execute(WITH_TIME.format("now()").encode(), (uuid4(), order_id))

    assert places(shop) == [name("ledger", 0)]


@pytest.mark.parametrize("offset", MONTHS)
def test_settlement_line_needs_a_posting_of_any_month(
    shop: ShopHarness, order_id: UUID, offset: int
) -> None:
    seq, _ = posted(shop, order_id, offset)
    with psycopg.connect(shop.role_url("settlement"), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(LINE, (seq + 1,))
        connection.execute(LINE, (seq,))
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute(LINE, (seq,))


def test_posting_of_no_order_is_rejected(shop: ShopHarness) -> None:
    with (
        psycopg.connect(shop.role_url("payment")) as connection,
        pytest.raises(psycopg.errors.ForeignKeyViolation),
    ):
        post(connection, uuid4(), uuid4())


def test_no_role_and_not_the_owner_changes_or_empties_any_partition(shop: ShopHarness) -> None:
    """New partitions included; rows of a partition: see test_partitions.py."""
    remove_months(shop, "ledger", 2)
    shop.tick("sweep")
    partitions = [
        row["name"]
        for row in shop.sql(
            "select relid::regclass::text as name from pg_partition_tree('shop.ledger') "
            "union select 'shop.ledger_keys'"
        )
    ]
    assert len(partitions) == 8
    for table in partitions:
        with pytest.raises(psycopg.errors.RestrictViolation):
            shop.sql(f"truncate {table} cascade")
    for role in sorted(GRANTS):
        with psycopg.connect(shop.role_url(role.removeprefix("shop_")), autocommit=True) as own:
            for table in partitions:
                statements = [f"update {table} set kind = kind", f"delete from {table}"]
                statements.append(f"truncate {table}")
                if table != "shop.ledger":
                    statements.append(f"insert into {table} default values")
                for statement in statements:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        own.execute(statement.encode())


def _clock_behind_the_first_month(shop: ShopHarness) -> None:
    shop.sql("alter table shop.ledger detach partition shop.ledger_months")
    shop.sql(f"drop table shop.{name('ledger', 0)}")
    shop.sql(
        "alter table shop.ledger attach partition shop.ledger_months "
        f"for values from ('{month(1).isoformat()}') to (maxvalue)"
    )


def _clock_ahead_of_the_last_month(shop: ShopHarness) -> None:
    begin_months_earlier(shop, "ledger")
    remove_months(shop, "ledger", 0, 1, 2)


CLOCKS: dict[str, tuple[Callable[[ShopHarness], None], str]] = {
    "behind the first month": (_clock_behind_the_first_month, "ledger_other"),
    "ahead of the last month": (_clock_ahead_of_the_last_month, "ledger_without_month"),
}


@pytest.mark.parametrize(("skew", "partition"), CLOCKS.values(), ids=CLOCKS)
def test_posting_of_a_skewed_clock_is_stored_once(
    shop: ShopHarness,
    order_id: UUID,
    skew: Callable[[ShopHarness], None],
    partition: str,
) -> None:
    skew(shop)
    _, source_id = posted(shop, order_id, 0)

    with (
        psycopg.connect(shop.role_url("payment")) as connection,
        pytest.raises(psycopg.errors.UniqueViolation),
    ):
        post(connection, order_id, source_id)

    assert places(shop) == [partition]


def test_postings_of_a_month_without_partition_move_into_it_and_stay_valid(
    flow: FlowHarness,
) -> None:
    _clock_ahead_of_the_last_month(flow.shop)
    buyer, product = flow.shop.person(), flow.shop.product()
    buyer.paid_order(product)
    assert places(flow.shop) == ["ledger_without_month"]

    flow.shop.tick("sweep")
    buyer.paid_order(product)
    flow.run_until_idle()

    assert places(flow.shop) == [name("ledger", 0)] * 2
    assert_invariants(flow)


CORRUPTIONS = {
    "changed": ("update shop.{} set amount_minor = amount_minor + 1", {"I-13", "I-21"}),
    "removed": ("delete from shop.{}", {"I-13", "I-22"}),
    "moved to another month": (
        "update shop.ledger set posted_at = posted_at - interval '40 days'",
        {"I-21"},
    ),
}


@pytest.mark.parametrize(("change", "expected"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_corruption_of_a_months_partition_violates_its_invariants(
    flow: FlowHarness, change: str, expected: set[str]
) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    flow.run_until_idle()
    assert_invariants(flow)
    with psycopg.connect(flow.shop.admin_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(change.format(name("ledger", 0)).encode())

    found = evaluate.find_violations(flow.shop.admin_url, flow.external_records(), at_rest=False)

    assert expected <= {violation.id for violation in found}


DAY = month(-3).date() + timedelta(days=10)
SETTLEMENT = "insert into shop.settlements values (%s, 'KRW', 1, 0, 1, 1)"
BATCH = "insert into shop.settlement_batches values (%s, 1, 'KRW', 1, 0, 1, 1, %s, 0)"
SINCE = [*(name("ledger", offset) for offset in range(-3, 3)), "ledger_without_month"]
ONE_MONTH = [name("ledger", -3)]
# the partitions that a statement may read; months of the past are not all kept in memory
READS: dict[str, tuple[Query[Any], list[str]]] = {
    "the oldest open day": (settlement.OLDEST_OPEN_DAY, SINCE),
    "a batch of a day": (settlement.SETTLE_BATCH, ONE_MONTH),
    "a day to be closed": (settlement.CLOSE, ONE_MONTH),
    "a day's settlement": (settlement.DAILY, ONE_MONTH),
    "a month's settlement": (settlement.MONTHLY, SINCE),
    "an order's disputes": (disputes.OF_ORDER, []),
    "disputes of the provider": (disputes.RECORDED, []),
}


@pytest.fixture
def old_ledger(shop: ShopHarness) -> ShopHarness:
    """A shop with a posting in each of eight months, settled until the day before ``DAY``."""
    begin_months_earlier(shop, "ledger")
    for offset in range(-5, 3):
        at = month(offset) + timedelta(days=10, hours=2)
        insert_posting(shop, "CAPTURE", 1, at.isoformat())
    insert_posting(shop, "CAPTURE", 1, month(-40).isoformat())
    shop.sql(SETTLEMENT, DAY - timedelta(days=1))
    return shop


@pytest.mark.parametrize(("query", "months"), READS.values(), ids=READS)
def test_prepared_statement_reads_the_months_since_the_last_closed_day(
    old_ledger: ShopHarness, query: Query[Any], months: list[str]
) -> None:
    if query is settlement.CLOSE:
        old_ledger.sql(BATCH, DAY, month(-3) + timedelta(days=10, hours=1))
    values: dict[str, object] = {
        "day": DAY,
        "first_day": DAY,
        "last_day": DAY,
        "rows": 30,
        "month": f"{month(0):%Y-%m}",
        "time_zone": "Asia/Seoul",
        "postings": 10,
        "days": 30,
        "months": 12,
        "currency": "KRW",
        "default_currency": "KRW",
        "order_id": uuid4(),
        "provider_refs": "{dp_1}",
    }
    names = dict.fromkeys(match[1] for match in PARAMETER.finditer(query.sql))
    arguments = ", ".join(f"'{values[each]}'" for each in names)
    with psycopg.connect(old_ledger.admin_url) as connection:
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute(f"prepare planned as {numbered(query.sql)}".encode())
        lines = [
            line
            for (line,) in connection.execute(
                f"explain (analyze) execute planned({arguments})".encode()
            )
        ]
        connection.rollback()

    unread = ("never executed", "Bitmap Index")
    scans = [line for line in lines if "Scan" in line and not any(each in line for each in unread)]
    read = {line.split(" on ")[1].split()[0] for line in scans if " on ledger_" in line}
    read -= {each for each in read if each.startswith(("ledger_keys", "ledger_chains"))}
    assert read <= set(months), "\n".join(lines)
    assert bool(read) is bool(months), "\n".join(lines)


def test_look_at_due_work_reads_no_month_before_the_last_closed_day(
    old_ledger: ShopHarness,
) -> None:
    with psycopg.connect(old_ledger.admin_url, autocommit=True) as connection:
        connection.execute("select pg_stat_reset()")
        (row,) = connection.execute(
            "select id from shop.due_work where kind = 'close_day'"
        ).fetchall()
        connection.execute("select pg_stat_force_next_flush()")
        connection.execute("select 1")
        read = connection.execute(
            "select relname from pg_stat_user_tables where relname like 'ledger\\_%' "
            "and relname not in ('ledger_keys', 'ledger_chains') and seq_scan + idx_scan > 0"
        ).fetchall()

    assert date.fromisoformat(row[0]) == DAY
    assert read
    assert {table for (table,) in read} <= set(SINCE)
