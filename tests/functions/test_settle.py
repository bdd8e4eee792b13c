"""settle: a finished day is closed once, from the ledger, when nothing can be added to it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg

from shop import settlement
from shop.adapters.db import Database
from tests.functions.ledger_book import post
from tests.harness import ShopHarness

MakeShop = Callable[..., ShopHarness]
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


def test_closes_each_finished_day_with_its_sums_its_lines_and_an_event(
    shop: ShopHarness,
) -> None:
    post(shop, "CAPTURE", 10_000, "2026-02-01 00:00:00+09")
    post(shop, "CAPTURE", 5_000, "2026-02-01 12:00:00+09")
    post(shop, "REFUND", 3_000, "2026-02-01 23:59:59.999999+09")
    post(shop, "CAPTURE", 700, "2026-02-02 00:00:00+09")

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


def test_a_closed_day_never_changes_and_a_second_tick_finds_nothing(shop: ShopHarness) -> None:
    post(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")
    shop.tick("settle")
    post(shop, "REFUND", 10_000, "2026-02-03 12:00+09")

    first = shop.tick("settle")
    second = shop.tick("settle")

    assert (first.status, second.status) == (204, 204)
    assert settlements(shop) == [
        ("2026-02-01", "KRW", 10_000, 0, 1, 1),
        ("2026-02-03", "KRW", 0, 10_000, 0, 1),
    ]
    assert len(shop.outbox(undone=False)) == 2


def test_today_stays_open(shop: ShopHarness) -> None:
    post(shop, "CAPTURE", 10_000, "now")

    answer = shop.tick("settle")

    assert answer.status == 204
    assert settlements(shop) == []
    assert shop.outbox(undone=False) == []


def test_each_currency_of_a_day_is_closed_for_itself(shop: ShopHarness) -> None:
    post(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")
    post(shop, "CAPTURE", 25, "2026-02-01 12:00+09", currency="USD")

    shop.tick("settle")

    assert settlements(shop) == [
        ("2026-02-01", "KRW", 10_000, 0, 1, 1),
        ("2026-02-01", "USD", 25, 0, 1, 1),
    ]


def test_days_of_23_and_25_hours_begin_and_end_where_the_zone_says(make_shop: MakeShop) -> None:
    shop = make_shop(business_time_zone="Europe/Berlin")
    post(shop, "CAPTURE", 1, "2026-03-28 22:59:59Z")  # 28 March, 23:59:59 winter time
    post(shop, "CAPTURE", 2, "2026-03-28 23:00Z")
    post(shop, "CAPTURE", 4, "2026-03-29 21:59:59Z")  # 29 March, 23:59:59 summer time
    post(shop, "CAPTURE", 8, "2026-03-29 22:00Z")
    post(shop, "CAPTURE", 16, "2026-10-24 22:00Z")  # 25 October, 00:00 summer time
    post(shop, "CAPTURE", 32, "2026-10-25 22:59:59Z")  # 25 October, 23:59:59 winter time
    post(shop, "CAPTURE", 64, "2026-10-25 23:00Z")

    shop.tick("settle")

    assert [(row[0], row[2]) for row in settlements(shop)] == [
        ("2026-03-28", 1),
        ("2026-03-29", 2 + 4),
        ("2026-03-30", 8),
        ("2026-10-25", 16 + 32),
        ("2026-10-26", 64),
    ]


def test_a_day_that_ended_a_minute_ago_is_left_to_the_next_tick(make_shop: MakeShop) -> None:
    shop = make_shop(business_time_zone=zone_where_midnight_was(timedelta(seconds=60)))
    post(shop, "CAPTURE", 10_000, (datetime.now(UTC) - timedelta(minutes=5)).isoformat())

    answer = shop.tick("settle")

    assert answer.status == 204
    assert settlements(shop) == []


def test_a_day_that_ended_three_minutes_ago_is_closed(make_shop: MakeShop) -> None:
    shop = make_shop(business_time_zone=zone_where_midnight_was(timedelta(minutes=3)))
    post(shop, "CAPTURE", 10_000, (datetime.now(UTC) - timedelta(minutes=5)).isoformat())

    shop.tick("settle")

    assert [row[2:] for row in settlements(shop)] == [(10_000, 0, 1, 1)]


def test_waits_for_a_transaction_that_began_before_the_day_ended(shop: ShopHarness) -> None:
    yesterday = shop.sql("select ((now() - interval '1 day') at time zone %s)::date as day", SEOUL)
    post(shop, "CAPTURE", 10_000, f"{yesterday[0]['day']} 12:00+09")
    shop.sql(PLANTED_ACTIVITY)
    with psycopg.connect(shop.admin_url, autocommit=True) as admin:
        admin.execute(
            f"alter role shop_settlement in database {admin.info.dbname} "
            "set search_path = planted, pg_catalog"
        )

    with psycopg.connect(shop.admin_url) as slow:
        slow.execute("select 1")
        held_up = shop.tick("settle")
        open_still = settlements(shop)
    shop.tick("settle")

    assert held_up.status == 204
    assert open_still == []
    assert [row[2:] for row in settlements(shop)] == [(10_000, 0, 1, 1)]


def test_who_may_not_see_other_transactions_closes_nothing(shop: ShopHarness) -> None:
    blind = Database(shop.role_url("ops"), source="/shop/settle")

    with blind.transaction() as session:
        closed = settlement.close_day(session.tx, date(2026, 2, 1), time_zone=SEOUL)
    blind.close()

    assert closed is None


def test_eight_replicas_at_once_close_each_day_once(shop: ShopHarness) -> None:
    for day in range(1, 5):
        for amount in (1_000, 200, 30):
            post(shop, "CAPTURE", amount, f"2026-02-0{day} 12:00+09")

    with ThreadPoolExecutor(8) as replicas:
        answers = list(replicas.map(lambda _: shop.tick("settle").status, range(8)))

    assert answers == [204] * 8
    assert settlements(shop) == [(f"2026-02-0{day}", "KRW", 1_230, 0, 3, 3) for day in range(1, 5)]
    assert shop.sql("select count(*) as n from shop.settlement_lines") == [{"n": 12}]
    assert len(shop.outbox(undone=False)) == 4
