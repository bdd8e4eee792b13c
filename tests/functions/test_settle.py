"""settle: closes each finished business day once, from the ledger, when no posting can be added."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from functions.settle import handler
from shop import settlement
from shop.adapters.db import Database
from shop.adapters.statements import Query
from shop.primitives import failpoints
from shop.primitives.failpoints import Failpoint
from tests.harness import (
    FlowHarness,
    MakeShop,
    ShopHarness,
    assert_idle_and_consistent,
    run_concurrently,
)
from tests.ledger_postings import insert_posting
from tests.sample_requests import Samples
from tests.waiting import wait_for
from tools.checker.invariants import INVARIANTS

SEOUL = "Asia/Seoul"

# every other backend's transaction looks as if it had begun two days ago
PLANTED_ACTIVITY = """
create schema planted;
create view planted.pg_stat_activity as
  select a.pid, a.backend_type, a.datname, a.state,
    case when a.pid = pg_backend_pid() then a.xact_start else a.xact_start - interval '2 days' end
      as xact_start
  from pg_catalog.pg_stat_activity a;
grant usage on schema planted to shop_settlement;
grant select on planted.pg_stat_activity to shop_settlement;
"""


class ProcessEnds(BaseException):
    """What no handler catches: like a kill, it leaves a transaction where it is."""


def settlements(shop: ShopHarness) -> list[tuple[Any, ...]]:
    """What is closed: day, currency, captures and refunds in money and in number."""
    rows = shop.sql("select * from shop.settlements order by day, currency")
    return [
        (
            row["day"].isoformat(),
            row["currency"],
            row["captures_minor"],
            row["refunds_minor"],
            row["captures"],
            row["n"],
        )
        for row in rows
    ]


def zone_where_midnight_was(ago: timedelta) -> str:
    """A POSIX time zone in which the day changed that long ago."""
    now = datetime.now(UTC)
    since_midnight = timedelta(hours=now.hour, minutes=now.minute, seconds=now.second)
    east = round((ago - since_midnight).total_seconds())
    if east < -12 * 3600:
        east += 24 * 3600
    hours, seconds = divmod(abs(east), 3600)
    sign = "-" if east >= 0 else "+"  # POSIX counts westward
    return f"<test>{sign}{hours}:{seconds // 60:02}:{seconds % 60:02}"


def test_finished_days_are_closed_with_sums_lines_and_an_event(
    shop: ShopHarness,
) -> None:
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 00:00:00+09")
    insert_posting(shop, "CAPTURE", 5_000, "2026-02-01 12:00:00+09")
    insert_posting(shop, "REFUND", 3_000, "2026-02-01 23:59:59.999999+09")
    insert_posting(shop, "CAPTURE", 700, "2026-02-02 00:00:00+09")

    answer = shop.tick("settle")

    assert (answer.status, answer.body) == (204, b"")
    assert settlements(shop) == [
        ("2026-02-01", "KRW", 15_000, 3_000, 2, 3),
        ("2026-02-02", "KRW", 700, 0, 1, 1),
    ]
    lines = shop.sql("select day, count(*) n from shop.settlement_lines group by day order by day")
    assert [(row["day"].isoformat(), row["n"]) for row in lines] == [
        ("2026-02-01", 3),
        ("2026-02-02", 1),
    ]
    announced = [(e["type"], e["source"], e["data"]) for e in shop.outbox(undone=False)]
    assert announced == [
        ("settlement.closed", "/shop/settle", {"settlementDate": day, "currency": "KRW"})
        for day in ("2026-02-01", "2026-02-02")
    ]


def test_second_tick_changes_no_closed_day(shop: ShopHarness) -> None:
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")
    shop.tick("settle")
    insert_posting(shop, "REFUND", 10_000, "2026-02-03 12:00+09")

    first = shop.tick("settle")
    second = shop.tick("settle")

    assert (first.status, second.status) == (204, 204)
    assert settlements(shop) == [
        ("2026-02-01", "KRW", 10_000, 0, 1, 1),
        ("2026-02-03", "KRW", 0, 10_000, 0, 1),
    ]
    assert len(shop.outbox(undone=False)) == 2


def test_today_stays_open(shop: ShopHarness) -> None:
    insert_posting(shop, "CAPTURE", 10_000, "now")

    answer = shop.tick("settle")

    assert answer.status == 204
    assert settlements(shop) == []
    assert shop.outbox(undone=False) == []


def test_each_currency_of_a_day_is_closed_separately(shop: ShopHarness) -> None:
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")
    insert_posting(shop, "CAPTURE", 25, "2026-02-01 12:00+09", currency="USD")

    shop.tick("settle")

    assert settlements(shop) == [
        ("2026-02-01", "KRW", 10_000, 0, 1, 1),
        ("2026-02-01", "USD", 25, 0, 1, 1),
    ]


def test_days_of_23_and_25_hours_follow_the_time_zone(make_shop: MakeShop) -> None:
    shop = make_shop(business_time_zone="Europe/Berlin")
    insert_posting(shop, "CAPTURE", 1, "2026-03-28 22:59:59Z")  # 28 March, 23:59:59 winter time
    insert_posting(shop, "CAPTURE", 2, "2026-03-28 23:00Z")
    insert_posting(shop, "CAPTURE", 4, "2026-03-29 21:59:59Z")  # 29 March, 23:59:59 summer time
    insert_posting(shop, "CAPTURE", 8, "2026-03-29 22:00Z")
    insert_posting(shop, "CAPTURE", 16, "2026-10-24 22:00Z")  # 25 October, 00:00 summer time
    insert_posting(shop, "CAPTURE", 32, "2026-10-25 22:59:59Z")  # 25 October, 23:59:59 winter time
    insert_posting(shop, "CAPTURE", 64, "2026-10-25 23:00Z")

    shop.tick("settle")

    assert [(row[0], row[2]) for row in settlements(shop)] == [
        ("2026-03-28", 1),
        ("2026-03-29", 2 + 4),
        ("2026-03-30", 8),
        ("2026-10-25", 16 + 32),
        ("2026-10-26", 64),
    ]


def test_day_that_ended_a_minute_ago_stays_open(make_shop: MakeShop) -> None:
    shop = make_shop(business_time_zone=zone_where_midnight_was(timedelta(seconds=60)))
    insert_posting(shop, "CAPTURE", 10_000, (datetime.now(UTC) - timedelta(minutes=5)).isoformat())

    answer = shop.tick("settle")

    assert answer.status == 204
    assert settlements(shop) == []


def test_day_that_ended_three_minutes_ago_is_closed(make_shop: MakeShop) -> None:
    shop = make_shop(business_time_zone=zone_where_midnight_was(timedelta(minutes=3)))
    insert_posting(shop, "CAPTURE", 10_000, (datetime.now(UTC) - timedelta(minutes=5)).isoformat())

    shop.tick("settle")

    assert [row[2:] for row in settlements(shop)] == [(10_000, 0, 1, 1)]


def test_older_open_transaction_delays_the_closing(shop: ShopHarness) -> None:
    yesterday = shop.sql("select ((now() - interval '1 day') at time zone %s)::date as day", SEOUL)
    insert_posting(shop, "CAPTURE", 10_000, f"{yesterday[0]['day']} 12:00+09")
    shop.sql(PLANTED_ACTIVITY)
    with psycopg.connect(shop.admin_url, autocommit=True) as admin:
        admin.execute(
            SQL(
                "alter role shop_settlement in database {} set search_path = planted, pg_catalog"
            ).format(Identifier(admin.info.dbname))
        )

    with psycopg.connect(shop.admin_url) as slow:
        slow.execute("select 1")
        held_up = shop.tick("settle")
        open_still = settlements(shop)
    shop.tick("settle")

    assert held_up.status == 204
    assert open_still == []
    assert [row[2:] for row in settlements(shop)] == [(10_000, 0, 1, 1)]


def test_role_that_cannot_see_other_transactions_closes_nothing(shop: ShopHarness) -> None:
    blind = Database(shop.role_url("ops"), source="/shop/settle")

    with blind.transaction() as session:
        day = session.tx.fetch_one(settlement.is_over(date(2026, 2, 1), time_zone=SEOUL))
    blind.close()

    assert day is not None and not day.over


def test_eight_concurrent_ticks_close_each_day_once(shop: ShopHarness) -> None:
    for day in range(1, 5):
        for amount in (1_000, 200, 30):
            insert_posting(shop, "CAPTURE", amount, f"2026-02-0{day} 12:00+09")

    answers = run_concurrently(*[lambda: shop.tick("settle").status] * 8)

    assert answers == [204] * 8
    assert settlements(shop) == [(f"2026-02-0{day}", "KRW", 1_230, 0, 3, 3) for day in range(1, 5)]
    assert shop.sql("select count(*) as n from shop.settlement_lines") == [{"n": 12}]
    assert len(shop.outbox(undone=False)) == 4


def violations(shop: ShopHarness) -> list[Any]:
    """What breaks the invariants of settlements (the postings of these tests have no orders)."""
    queries = [rule.query for rule in INVARIANTS if rule.id in ("I-19", "Q-10")]
    assert len(queries) == 2
    return [row for query in queries for row in shop.sql(query)]


def insert_two_days(shop: ShopHarness) -> None:
    """Nine postings of two currencies on 1 February, most at the same time, and one on the 2nd."""
    for amount in (1, 2, 4, 8, 16):
        insert_posting(shop, "CAPTURE", amount, "2026-02-01 12:00+09")
    insert_posting(shop, "REFUND", 5, "2026-02-01 12:00+09")
    insert_posting(shop, "CAPTURE", 700, "2026-02-01 12:00+09", currency="USD")
    insert_posting(shop, "CAPTURE", 32, "2026-02-01 11:00+09")
    insert_posting(shop, "CAPTURE", 64, "2026-02-01 23:00+09")
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-02 12:00+09")


TWO_DAYS = [
    ("2026-02-01", "KRW", 127, 5, 7, 8),
    ("2026-02-01", "USD", 700, 0, 1, 1),
    ("2026-02-02", "KRW", 10_000, 0, 1, 1),
]


def test_day_is_open_with_all_its_postings_until_its_last_batch_is_settled(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "BATCH_POSTINGS", 2)
    monkeypatch.setattr(handler, "BATCHES_PER_TICK", 1)
    insert_two_days(samples.shop)
    finance = samples.people["finance"]

    read: list[tuple[bool, int, int]] = []
    for _ in range(6):
        day = finance.get("/settlements/daily?date=2026-02-01&currency=KRW").json
        read.append((day["closed"], day["totalAmount"], day["paymentCount"]))
        month = finance.get("/settlements/monthly?yearMonth=2026-02&currency=KRW").json
        assert (month["totalAmount"], month["refundCount"]) == (10_122, 1)
        samples.shop.tick("settle")

    assert read == [(False, 122, 7)] * 5 + [(True, 122, 7)]
    assert settlements(samples.shop) == TWO_DAYS
    batches = samples.shop.sql("select count(distinct batch) as n from shop.settlement_batches")
    assert batches == [{"n": 5}]


@pytest.mark.parametrize(
    "failpoint", [Failpoint.BEFORE_COMMIT, Failpoint.COMMIT_SENT, Failpoint.COMMITTED]
)
@pytest.mark.parametrize("batch", [1, 3, 5, 6])
def test_tick_that_ends_between_two_batches_is_continued_to_the_exact_sums(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch, failpoint: Failpoint, batch: int
) -> None:
    monkeypatch.setattr(settlement, "BATCH_POSTINGS", 2)
    insert_two_days(shop)
    reached: list[Failpoint] = []

    def end_at_the_batch(hit: Failpoint) -> None:
        reached.append(hit)
        if reached.count(failpoint) == batch and hit == failpoint:
            raise ProcessEnds

    with monkeypatch.context() as killed, pytest.raises(ProcessEnds):
        killed.setattr(failpoints, "hit", end_at_the_batch)
        shop.tick("settle")
    assert violations(shop) == []
    shop.close()  # as a new process would begin
    continued = shop.tick("settle")

    assert continued.status == 204
    assert settlements(shop) == TWO_DAYS
    announced = sorted(
        (event["data"]["settlementDate"], event["data"]["currency"])
        for event in shop.outbox(undone=False)
    )
    assert announced == [row[:2] for row in TWO_DAYS]
    assert violations(shop) == []


def test_day_with_a_settled_batch_cannot_be_closed_with_other_sums(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 0.1.0, which closes a day with the rest of its postings, may still be running."""
    monkeypatch.setattr(settlement, "BATCH_POSTINGS", 2)
    monkeypatch.setattr(handler, "BATCHES_PER_TICK", 1)
    insert_two_days(shop)
    shop.tick("settle")

    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="differs from its batch"):
        shop.sql(
            "insert into shop.settlements (day, currency, captures_minor, refunds_minor, captures, "
            "n) values ('2026-02-01', 'KRW', 94, 5, 5, 6) returning day"
        )


def test_concurrent_ticks_settle_each_posting_once(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "BATCH_POSTINGS", 2)
    insert_two_days(shop)

    answers = run_concurrently(*[lambda: shop.tick("settle").status] * 4)

    assert answers == [204] * 4
    assert settlements(shop) == TWO_DAYS


def test_concurrent_ticks_close_the_business_day_of_the_time_zone_once(samples: Samples) -> None:
    """Any number of ticks close a day once, in the time zone of the business."""
    samples.owner.paid_order(samples.product)
    samples.shop.sql("alter table shop.ledger disable trigger user")
    # the last minute of yesterday in Seoul is three in the afternoon in UTC
    samples.shop.sql(
        "update shop.ledger set posted_at = "
        "((now() at time zone 'Asia/Seoul')::date - interval '1 minute') at time zone 'Asia/Seoul'"
    )
    samples.shop.sql("alter table shop.ledger enable trigger user")
    (day,) = samples.shop.sql("select (now() at time zone 'Asia/Seoul')::date - 1 as yesterday")

    answers = run_concurrently(*[lambda: samples.shop.tick("settle")] * 4)
    again = samples.shop.tick("settle")

    assert {a.status for a in [*answers, again]} <= {204, 503} and again.status == 204
    asked = samples.people["finance"].get(f"/settlements/daily?date={day['yesterday']}").json
    assert (asked["closed"], asked["totalAmount"], asked["paymentCount"]) == (True, 1000, 1)
    (closed,) = samples.shop.sql("select count(*) from shop.settlements")
    assert closed["count"] == 1


def _close(flow: FlowHarness, day: Any, zone: str) -> list[str] | None:
    database = flow.shop.apps["settle"].services.database
    with database.transaction() as session:
        lock = session.tx.fetch_one(settlement.lock())
        is_over = session.tx.fetch_one(settlement.is_over(day, time_zone=zone))
        assert lock is not None and is_over is not None
        if not lock.locked:
            return []
        if not is_over.over:
            return None
        _, closed = session.tx.pipeline(
            settlement.settle_batch(day, time_zone=zone), settlement.close_day(day, time_zone=zone)
        )
        session.commit()
    return [row.currency for row in closed]


def _zone_whose_midnight_is_near() -> tuple[str, datetime]:
    """A POSIX time zone in which a new day begins in about a second, and that moment in UTC."""
    midnight = (datetime.now(UTC) + timedelta(seconds=1.2)).replace(microsecond=0)
    midnight += timedelta(seconds=1)
    behind = midnight - midnight.replace(hour=0, minute=0, second=0)
    sign = "+" if behind < timedelta(hours=12) else "-"
    offset = behind if sign == "+" else timedelta(days=1) - behind
    minutes, seconds = divmod(int(offset.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"<TEST>{sign}{hours:02}:{minutes:02}:{seconds:02}", midnight


def test_day_with_an_open_posting_stays_open_until_it_is_committed(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the test's time zone the day ends in a second; a posting begun before it counts."""
    margin = "interval '2 minutes'"
    assert margin in settlement.IS_OVER.sql
    without_margin = settlement.IS_OVER.sql.replace(margin, "interval '0 seconds'")
    monkeypatch.setattr(settlement, "IS_OVER", Query(settlement.DayIsOver, without_margin))
    paid = flow.shop.person().paid_order(flow.shop.product(price=500))
    flow.run_until_idle()
    zone, midnight = _zone_whose_midnight_is_near()
    (row,) = flow.shop.sql("select (now() at time zone %s)::date as day", zone)
    flow.shop.close()  # connections that are idle, not in a transaction
    with psycopg.connect(flow.shop.admin_url) as posting:
        posting.execute(
            "insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, "
            "currency) select 'REFUND', gen_random_uuid(), order_id, 'order_escrow', "
            "'psp_receivable', 200, currency from shop.orders where order_id = %s",
            (paid["id"],),
        )
        wait_for(lambda: datetime.now(UTC) > midnight, "midnight")
        assert _close(flow, row["day"], zone) is None
        posting.commit()

    assert _close(flow, row["day"], zone) == ["KRW"]
    (closed,) = flow.shop.sql("select captures_minor, refunds_minor, n from shop.settlements")
    assert closed == {"captures_minor": 500, "refunds_minor": 200, "n": 2}
    assert _close(flow, row["day"], zone) == []


def test_concurrent_calls_close_a_day_once(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow.shop.person().paid_order(flow.shop.product(price=500))
    flow.run_until_idle()
    monkeypatch.setattr(settlement, "IS_OVER", Query(settlement.DayIsOver, "select true as over"))
    (row,) = flow.shop.sql("select (now() at time zone 'Asia/Seoul')::date as day")

    answers = run_concurrently(*[lambda: _close(flow, row["day"], "Asia/Seoul")] * 4)

    assert sorted(answers, key=str) == [["KRW"], [], [], []]
    assert_idle_and_consistent(flow)
