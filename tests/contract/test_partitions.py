"""Monthly partitions: rows, uniqueness, and the job that maintains them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest

from shop.adapters.statements import Query, Row
from shop.messaging import inbox, outbox
from shop.orders import queries
from shop.runtime.event_pipeline import KNOWN_TO_OUTBOX
from shop.schema.grants import GRANTS
from shop.schema.partitions import FUNCTIONS, partitioned_tables
from tests.contract.test_sql_constants import PARAMETER, numbered
from tests.harness import ShopHarness
from tests.ledger_postings import insert_posting
from tools.migrate import migrate
from tools.operations import doctor

TABLES = [table.name for table, _ in partitioned_tables()]
EVENT: LiteralString = (
    "insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at, "
    "created_at, sent_at, done_at, parked_at) values (%s, '/shop/x', 't', '1', '{}', '', now(), "
    "now() - interval '1 year', now() - %s::interval, now() - %s::interval, now() - %s::interval)"
)
CLAIM: LiteralString = (
    "insert into shop.inbox (consumer, source, event_id, outcome, received_at) "
    "values ('c', '/shop/x', %s, 'taken', now() - %s::interval)"
)
CHANGE: LiteralString = (
    "insert into shop.transitions (entity, entity_id, order_id, from_status, to_status, event_id, "
    "actor) values ('order', %s, %s, '-', 'PENDING', %s, 'x')"
)
MOVE: LiteralString = (
    "insert into shop.stock_moves (product_id, kind, qty, reservation_id) "
    "values (%s, 'COMMIT', -1, %s)"
)
KEY = {table.name: monthly.key for table, monthly in partitioned_tables()}
# the column in which ``store`` puts the id
ID = KEY | {"ledger": "source_id"}
KEPT = ("ledger", "stock_moves", "transitions")
DONE = ("31 days", "31 days", None)
NOW = datetime.now(UTC)


def month(offset: int) -> datetime:
    """The first of the month that is ``offset`` months from now."""
    number = NOW.year * 12 + NOW.month - 1 + offset
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)


def event_id(time: datetime) -> UUID:
    """A UUIDv7 of ``time``, with random bits that sort after those of no other id."""
    milliseconds = round(time.timestamp() * 1000)
    return UUID(int=milliseconds << 80 | 7 << 76 | 2 << 62 | uuid4().int & (1 << 62) - 1)


def bound(table: str, offset: int) -> str:
    """The least key of the month that is ``offset`` months from now."""
    first = month(offset)
    return (
        first.isoformat() if table == "ledger" else str(UUID(int=event_id(first).int >> 80 << 80))
    )


def name(table: str, offset: int) -> str:
    """The partition of the month that is ``offset`` months from now."""
    return f"{table}_{month(offset):%Y_%m}"


def months(shop: ShopHarness, table: str) -> list[str]:
    """The names of the months that have a partition."""
    rows = shop.sql("select name from shop.months where table_name = %s order by 1", table)
    return [row["name"] for row in rows]


def store(shop: ShopHarness, table: str, key: UUID) -> None:
    """Stores a row of ``table`` with this key."""
    match table:
        case "outbox":
            shop.sql(EVENT, key, "0", "0", None)
        case "inbox":
            shop.sql(CLAIM, str(key), "0")
        case "transitions":
            shop.sql(CHANGE, key, key, uuid4())
        case "ledger":
            at = datetime.fromtimestamp((key.int >> 80) / 1000, UTC).isoformat()
            order = shop.person().order(shop.product())
            insert_posting(shop, "CAPTURE", 1, at, source_id=key, order_id=order["id"])
        case _:
            product = shop.product()
            shop.person().order(product)
            shop.sql(
                "update shop.reservations set reservation_id = %s, status = 'COMMITTED' "
                "where product_id = %s",
                key,
                product,
            )
            shop.sql(MOVE, product, key)


def remove_months(shop: ShopHarness, table: str, *offsets: int) -> None:
    """As if the job had not run."""
    for offset in offsets:
        shop.sql(f"drop table shop.{name(table, offset)}")


def begin_months_earlier(shop: ShopHarness, table: str) -> None:
    """As if the table's partitions had begun five months ago."""
    (end,) = shop.sql(
        "select pg_get_expr(relpartbound, oid) as bounds from pg_class "
        f"where oid = 'shop.{table}_months'::regclass"
    )
    upper = end["bounds"].split(" TO ")[1]
    shop.sql(f"alter table shop.{table} detach partition shop.{table}_months")
    shop.sql(
        f"alter table shop.{table} attach partition shop.{table}_months "
        f"for values from ('{bound(table, -5)}') to {upper}"
    )
    for offset in range(-5, 0):
        shop.sql(
            f"create table shop.{name(table, offset)} partition of shop.{table}_months "
            f"for values from ('{bound(table, offset)}') to ('{bound(table, offset + 1)}')"
        )


@pytest.fixture
def old_shop(shop: ShopHarness) -> ShopHarness:
    """A shop whose partitions began five months ago."""
    for table in TABLES:
        begin_months_earlier(shop, table)
    return shop


def test_tables_are_partitioned_as_declared(shop: ShopHarness) -> None:
    rows = shop.sql(
        "select relname, pg_get_partkeydef(oid) as key from pg_class where relkind = 'p' "
        "and relnamespace = 'shop'::regnamespace and not relispartition"
    )

    declared = {table.name: f"RANGE ({monthly.key})" for table, monthly in partitioned_tables()}
    assert {row["relname"]: row["key"] for row in rows} == declared
    assert set(TABLES) == {"inbox", "ledger", "outbox", "stock_moves", "transitions"}
    for table in TABLES:
        assert months(shop, table) == [name(table, offset) for offset in range(3)]


KEYS: dict[str, tuple[Callable[[], object], str]] = {
    "first of this month": (lambda: event_id(month(0)), name("inbox", 0)),
    "last of this month": (
        lambda: event_id(month(1) - timedelta(milliseconds=1)),
        name("inbox", 0),
    ),
    "first of the next month": (lambda: event_id(month(1)), name("inbox", 1)),
    "month without a partition": (lambda: event_id(month(7)), "inbox_without_month"),
    "before the partitions": (lambda: event_id(month(-40)), "inbox_other"),
    "webhook": (lambda: f"evt_{uuid4().hex}", "inbox_other"),
    "no id": (lambda: "", "inbox_other"),
}


@pytest.mark.parametrize(("make_id", "partition"), KEYS.values(), ids=KEYS)
def test_event_is_claimed_once_whatever_its_month(
    shop: ShopHarness, make_id: Callable[[], object], partition: str
) -> None:
    claim = inbox.claim(consumer="charge", source="/shop/x", event_id=str(make_id()))
    with psycopg.connect(shop.role_url("payment"), autocommit=True) as connection:
        returned = [
            len(connection.execute(claim.sql.encode(), claim.parameters).fetchall())
            for _ in range(3)
        ]

    assert returned == [1, 0, 0]
    rows = shop.sql("select tableoid::regclass::text as partition from shop.inbox")
    assert rows == [{"partition": f"shop.{partition}"}]


def test_events_with_the_same_id_violate_the_primary_key_in_every_partition(
    shop: ShopHarness,
) -> None:
    for time in (month(0), month(2), month(9), month(-40)):
        same = event_id(time)
        shop.sql(EVENT, same, *DONE)
        with pytest.raises(psycopg.errors.UniqueViolation):
            shop.sql(EVENT, same, *DONE)


@pytest.mark.parametrize("table", TABLES)
def test_sweep_creates_missing_months_and_moves_their_rows(shop: ShopHarness, table: str) -> None:
    """A claim that may not be deleted is moved all the same; nothing is claimed again."""
    remove_months(shop, table, 1, 2)
    ids = [event_id(month(offset)) for offset in (0, 1, 2, 8)]
    for each in ids:
        store(shop, table, each)
    assert shop.sql(
        "select 1 from shop.due_work where kind = 'partitions' and id = %s and due_at <= now()",
        table,
    )

    assert shop.tick("sweep").status == 204

    assert months(shop, table) == [name(table, offset) for offset in range(3)]
    rows = shop.sql(
        f"select {ID[table]}::text as id, tableoid::regclass::text as partition "
        f"from shop.{table} where {ID[table]}::text = any(%s)",
        [str(each) for each in ids],
    )
    expected = [name(table, 0), name(table, 1), name(table, 2), f"{table}_without_month"]
    assert {row["id"]: row["partition"] for row in rows} == {
        str(each): f"shop.{partition}" for each, partition in zip(ids, expected, strict=True)
    }
    assert (
        shop.sql("select 1 from shop.due_work where kind = 'partitions' and due_at <= now()") == []
    )
    # postings of past days, which are not settled
    alerts = shop.sql("select kind, subject, detail from shop.alarms")
    assert [each for each in alerts if each["kind"] != "overdue_settlement_day"] == []


def test_months_are_created_once_by_concurrent_jobs(shop: ShopHarness) -> None:
    remove_months(shop, "outbox", 1, 2)

    def create(_: int) -> None:
        with psycopg.connect(shop.role_url("relay"), autocommit=True) as connection:
            connection.execute("select shop.create_partitions('outbox')")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(create, range(8)))

    assert months(shop, "outbox") == [name("outbox", offset) for offset in range(3)]


def test_created_month_has_the_indexes_and_triggers_of_the_others(shop: ShopHarness) -> None:
    for table in TABLES:
        remove_months(shop, table, 2)
    shop.tick("sweep")

    for table in TABLES:
        described: list[list[Any]] = []
        for offset in (1, 2):
            partition = name(table, offset)
            rows = shop.sql(
                "select replace(indexdef, %s, '') as text from pg_indexes where tablename = %s "
                "union all select replace(pg_get_triggerdef(t.oid), %s, '') from pg_trigger t "
                "where tgrelid = %s::regclass and not tgisinternal "
                "union all select pg_get_constraintdef(oid) from pg_constraint "
                "where conrelid = %s::regclass order by 1",
                partition,
                partition,
                partition,
                f"shop.{partition}",
                f"shop.{partition}",
            )
            described.append([row["text"] for row in rows])
        assert described[0] == described[1]
    for table in ("inbox", *KEPT):
        with pytest.raises(psycopg.errors.RestrictViolation):
            shop.sql(f"truncate shop.{name(table, 2)}")


@pytest.mark.parametrize("table", TABLES)
def test_missing_month_is_an_overdue_job_and_a_finding_of_doctor(
    shop: ShopHarness, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def findings() -> list[str]:
        monkeypatch.setenv("AUDITOR_DATABASE_URL", shop.role_url("auditor"))
        found = [f for f in doctor.examine() if f.what.startswith("partitions")]
        return [f"{f.what} {f.state}" for f in found if not f.is_right]

    assert findings() == []
    remove_months(shop, table, 1, 2)

    assert shop.sql("select kind, subject from shop.overdue") == [
        {"kind": "overdue_due_job", "subject": f"partitions {table}"}
    ]
    assert findings() == [f"partitions of {table} until {month(1):%Y-%m-%d}"]


# how an event of a past month was last used, and whether the month is dropped
EVENTS: dict[str, tuple[tuple[str | None, str | None, str | None], bool]] = {
    "done 31 days ago": (DONE, True),
    "done 29 days ago": (("31 days", "29 days", None), False),
    "quarantined 31 days ago": (("31 days", None, "31 days"), True),
    "quarantined 29 days ago": (("31 days", None, "29 days"), False),
    "not consumed": (("31 days", None, None), False),
    "never sent": ((None, None, None), False),
}


@pytest.mark.parametrize(("times", "is_dropped"), EVENTS.values(), ids=EVENTS)
def test_month_of_the_outbox_is_dropped_when_all_of_its_events_are_past_their_retention(
    old_shop: ShopHarness, times: tuple[str | None, ...], is_dropped: bool
) -> None:
    for offset in (-5, -4):
        old_shop.sql(EVENT, event_id(month(offset)), *DONE)
        old_shop.sql(EVENT, event_id(month(offset) + timedelta(days=1)), *times)

    _drop(old_shop, "outbox")

    left = [name("outbox", offset) for offset in range(-5, 3)]
    # without an event that is needed, all months that ended 30 days ago are past their retention
    assert (months(old_shop, "outbox")[0] >= name("outbox", -2)) is is_dropped
    assert is_dropped or months(old_shop, "outbox") == left
    assert len(old_shop.sql("select 1 from shop.outbox")) == (0 if is_dropped else 4)


@pytest.mark.parametrize(
    ("age", "is_in_outbox", "is_dropped"),
    [("61 days", False, True), ("59 days", False, False), ("61 days", True, False)],
)
def test_month_of_the_inbox_is_dropped_when_no_event_of_it_can_be_delivered_again(
    old_shop: ShopHarness, age: str, is_in_outbox: bool, is_dropped: bool
) -> None:
    for offset in (-5, -4):
        old_shop.sql(CLAIM, str(event_id(month(offset))), age)
    if is_in_outbox:
        old_shop.sql(EVENT, event_id(month(-5) + timedelta(days=3)), "31 days", "1 day", None)

    _drop(old_shop, "inbox")

    assert (name("inbox", -5) not in months(old_shop, "inbox")) is is_dropped
    assert len(old_shop.sql("select 1 from shop.inbox")) == (0 if is_dropped else 2)


def test_event_of_a_dropped_month_is_stored_claimed_once_and_deleted_by_age(
    old_shop: ShopHarness,
) -> None:
    old_shop.tick("sweep")
    assert name("outbox", -5) not in months(old_shop, "outbox")
    late = event_id(month(-5))

    old_shop.sql(EVENT, late, *DONE)
    old_shop.sql(CLAIM, str(late), "0")
    with pytest.raises(psycopg.errors.UniqueViolation):
        old_shop.sql(CLAIM, str(late), "0")
    old_shop.tick("sweep")

    assert old_shop.sql("select 1 from shop.outbox") == []
    assert len(old_shop.sql("select 1 from shop.inbox")) == 1


def test_past_months_are_dropped_by_sweep_and_then_nothing_is_due(old_shop: ShopHarness) -> None:
    old_shop.sql(EVENT, event_id(month(-4)), *DONE)
    old_shop.sql(EVENT, event_id(NOW), "0", "0", None)
    old_shop.sql(CLAIM, str(event_id(month(-4))), "70 days")

    assert old_shop.tick("sweep").status == 204
    assert old_shop.tick("sweep").status == 204, "the inbox waits for the outbox"

    assert len(old_shop.sql("select 1 from shop.outbox")) == 1
    assert old_shop.sql("select 1 from shop.inbox") == []
    due = "select 1 from shop.due_work where kind = 'partitions' and due_at <= now()"
    assert old_shop.sql(due) == []
    assert months(old_shop, "inbox")[0] in (name("inbox", -2), name("inbox", -3))


def test_only_the_relay_may_maintain_partitions_and_only_of_partitioned_tables(
    shop: ShopHarness,
) -> None:
    for role in sorted(GRANTS):
        with psycopg.connect(shop.role_url(role.removeprefix("shop_")), autocommit=True) as own:
            for function in FUNCTIONS:
                call = f"select shop.{function}('outbox')".encode()
                if role == "shop_relay":
                    own.execute(call)
                else:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        own.execute(call)
            for statement in (
                f"drop table shop.{name('outbox', 0)}",
                f"select 1 from shop.{name('outbox', 0)}",
                "create table shop.x ()",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    own.execute(statement.encode())
    with psycopg.connect(shop.role_url("relay"), autocommit=True) as connection:
        for table in ("orders", "x; drop table shop.outbox", None):
            for function in ("create_partitions", "analyze_partitions"):
                with pytest.raises(psycopg.errors.InvalidParameterValue):
                    connection.execute(f"select shop.{function}(%s)".encode(), (table,))
            connection.execute("select shop.drop_partitions(%s)", (table,))


def test_sweep_analyzes_partitioned_tables_once_a_month(shop: ShopHarness) -> None:
    """Joins with the whole table are planned with its statistics, which autovacuum never makes."""
    statistics = (
        "select distinct tablename::text from pg_stats where schemaname = 'shop' and inherited "
        "order by 1"
    )
    analyzed = (
        "select last_analyze from pg_stat_user_tables where schemaname = 'shop' "
        "and relname = 'transitions'"
    )
    for table in TABLES:
        remove_months(shop, table, 2)
        store(shop, table, event_id(NOW))
    shop.sql("select pg_stat_reset()")
    assert shop.sql(statistics) == []

    assert shop.tick("sweep").status == 204

    assert [row["tablename"] for row in shop.sql(statistics)] == sorted(TABLES)
    first = shop.sql(analyzed)
    assert first[0]["last_analyze"] is not None
    remove_months(shop, "transitions", 2)
    assert shop.tick("sweep").status == 204
    assert shop.sql(analyzed) == first


def test_migration_analyzes_partitioned_tables(shop: ShopHarness) -> None:
    """A table that a migration has just partitioned has no statistics as a whole."""
    store(shop, "transitions", event_id(NOW))
    shop.sql("select pg_stat_reset()")

    migrate(shop.admin_url)

    statistics = "select tablename::text from pg_stats where tablename = %s and inherited limit 1"
    assert shop.sql(statistics, "transitions") == [{"tablename": "transitions"}]


def test_month_of_a_table_whose_rows_are_kept_is_not_dropped(old_shop: ShopHarness) -> None:
    kept = event_id(month(-4))
    for table in ("transitions", "ledger"):
        store(old_shop, table, kept)

    assert old_shop.tick("sweep").status == 204

    for table in KEPT:
        assert months(old_shop, table)[0] == name(table, -5)
    for table in ("transitions", "ledger"):
        where = f"where {ID[table]} = %s"
        assert len(old_shop.sql(f"select 1 from shop.{table} {where}", kept)) == 1


@pytest.mark.parametrize("offset", [0, 2, 9, -40])
def test_second_move_of_a_reservation_and_second_change_by_an_event_are_rejected(
    shop: ShopHarness, offset: int
) -> None:
    key = event_id(month(offset))
    store(shop, "stock_moves", key)
    shop.sql(CHANGE, key, key, key)

    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.sql(
            "insert into shop.stock_moves (product_id, kind, qty, reservation_id) "
            "select product_id, kind, qty, reservation_id from shop.stock_moves "
            "where reservation_id = %s",
            key,
        )
    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.sql(CHANGE, key, key, key)


@pytest.mark.parametrize("offset", [0, 9, -40])
def test_move_of_no_reservation_and_change_that_is_not_allowed_are_rejected_in_every_partition(
    shop: ShopHarness, offset: int
) -> None:
    key = event_id(month(offset))
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        shop.sql(MOVE, shop.product(), key)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        shop.sql(CHANGE.replace("PENDING", "REFUNDED"), key, key, None)


@pytest.mark.parametrize("table", KEPT)
@pytest.mark.parametrize("offset", [0, 9, -40])
def test_row_of_an_append_only_partition_is_not_changed_or_deleted(
    shop: ShopHarness, table: str, offset: int
) -> None:
    store(shop, table, event_id(month(offset)))
    rows = shop.sql(
        f"select distinct tableoid::regclass::text as partition from shop.{table} "
        f"where {KEY[table]} is not null"
    )
    for partition in (row["partition"] for row in rows):
        for statement in ("update {} set seq = default", "delete from {}", "truncate {}"):
            with pytest.raises(psycopg.errors.RestrictViolation):
                shop.sql(statement.format(partition))


def test_first_stock_and_restocking_are_of_no_month(shop: ShopHarness) -> None:
    product = shop.product()
    shop.sql(
        "insert into shop.stock_moves (product_id, kind, qty) values (%s, 'RESTOCK', 1)", product
    )

    rows = shop.sql(
        "select kind, tableoid::regclass::text as partition from shop.stock_moves "
        "where product_id = %s order by seq",
        product,
    )
    assert rows == [
        {"kind": kind, "partition": "shop.stock_moves_other"} for kind in ("INITIAL", "RESTOCK")
    ]


BY_KEY: dict[str, Query[Any]] = {
    "KNOWN_TO_OUTBOX": KNOWN_TO_OUTBOX,
    "MARK_CONSUMED": outbox.MARK_CONSUMED,
    "MARK_SENT": outbox.MARK_SENT,
    "MARK_DONE": outbox.MARK_DONE,
    "LEASE": outbox.LEASE,
    "STATUS_HISTORY": queries.STATUS_HISTORY,
}


@pytest.mark.parametrize("query", BY_KEY.values(), ids=BY_KEY)
def test_prepared_statement_by_key_reads_the_one_partition_of_its_month(
    shop: ShopHarness, query: Query[Row]
) -> None:
    names = dict.fromkeys(match[1] for match in PARAMETER.finditer(query.sql))
    key = str(event_id(month(2)))
    values = {
        "event_id": key,
        "event_ids": f"{{{key}}}",
        "source": "/shop/x",
        "consumer": "charge",
        "order_id": key,
        "limit": "100",
    }
    arguments = ", ".join(f"'{values[each]}'" for each in names)
    with psycopg.connect(shop.admin_url, autocommit=True) as connection:
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute(f"prepare planned as {numbered(query.sql)}".encode())
        lines = connection.execute(f"explain (analyze) execute planned({arguments})".encode())
        plan = "\n".join(line for (line,) in lines)

    lines = [each for each in plan.splitlines() if "Scan" in each and "Bitmap Index" not in each]
    scans = {each.split(" on ")[1].split()[0] for each in lines}
    read = {table for table in scans if table.startswith(tuple(f"{table}_" for table in TABLES))}
    assert read, plan
    assert read <= {name(table, 2) for table in TABLES}, plan


def _drop(shop: ShopHarness, table: str) -> None:
    with psycopg.connect(shop.role_url("relay"), autocommit=True) as connection:
        connection.execute("select shop.drop_partitions(%s)", (table,))
        connection.execute("select shop.drop_partitions(%s)", (table,))
