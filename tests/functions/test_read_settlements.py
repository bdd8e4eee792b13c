"""read_settlements: closed days as closed, open days from the ledger, for permitted roles."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from shop.registry import all_specs
from shop.runtime.config import Settings
from tests.harness import MakeShop, ShopHarness
from tests.ledger_postings import insert_posting
from tests.sample_requests import Samples


def values(captured: int, refunded: int, n: tuple[int, int], *, closed: bool) -> dict[str, Any]:
    """The members of a settlement beside its date."""
    return {
        "totalAmount": captured - refunded,
        "capturedAmount": captured,
        "refundedAmount": refunded,
        "paymentCount": n[0],
        "refundCount": n[1],
        "currency": "KRW",
        "closed": closed,
    }


def today(shop: ShopHarness) -> date:
    """The shop's business day."""
    day: date = shop.sql("select (now() at time zone 'Asia/Seoul')::date as day")[0]["day"]
    return day


def test_day_without_postings_is_shown_with_zeros(shop: ShopHarness) -> None:
    finance = shop.person("finance")
    day = today(shop).isoformat()

    one = finance.get(f"/settlements/daily?date={day}")
    newest = finance.get("/settlements/daily")
    month = finance.get(f"/settlements/monthly?yearMonth={day[:7]}")

    nothing = values(0, 0, (0, 0), closed=False)
    assert (one.status, one.json) == (200, {"settlementDate": day, **nothing})
    assert (newest.status, newest.json) == (200, [{"settlementDate": day, **nothing}])
    assert (month.status, month.json) == (200, {"yearMonth": day[:7], **nothing})


def test_day_has_the_same_values_open_and_closed(shop: ShopHarness) -> None:
    finance = shop.person("finance")
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 00:00+09")
    insert_posting(shop, "REFUND", 12_000, "2026-02-01 23:59:59+09")
    insert_posting(shop, "CAPTURE", 99, "2026-02-02 00:00+09")

    live = finance.get("/settlements/daily?date=2026-02-01").json
    shop.tick("settle")
    closed = finance.get("/settlements/daily?date=2026-02-01").json

    day = {"settlementDate": "2026-02-01"}
    assert live == day | values(10_000, 12_000, (1, 1), closed=False)
    assert closed == day | values(10_000, 12_000, (1, 1), closed=True)


def test_paid_order_is_in_the_settlement_of_today(shop: ShopHarness) -> None:
    finance = shop.person("finance")
    shop.person().paid_order(shop.product(price=19_500), 2)

    newest = finance.get("/settlements/daily").json

    assert newest == [
        {"settlementDate": today(shop).isoformat()} | values(39_000, 0, (1, 0), closed=False)
    ]


def test_request_without_a_date_lists_the_newest_30_days(shop: ShopHarness) -> None:
    finance = shop.person("finance")
    for days in range(1, 41):
        insert_posting(shop, "CAPTURE", days, f"{today(shop) - timedelta(days=days)} 12:00+09")
    shop.tick("settle")

    newest = finance.get("/settlements/daily").json

    assert [day["totalAmount"] for day in newest] == list(range(30))
    assert [day["closed"] for day in newest] == [False] + [True] * 29
    dates = [day["settlementDate"] for day in newest]
    assert dates == sorted(dates, reverse=True)


def test_request_without_a_month_lists_the_sums_of_the_newest_12_months(shop: ShopHarness) -> None:
    finance = shop.person("finance")
    for month in range(1, 13):
        insert_posting(shop, "CAPTURE", 1_000 * month, f"2024-{month:02}-01 00:00+09")
        insert_posting(shop, "REFUND", 1, f"2024-{month:02}-28 23:59+09")
    shop.tick("settle")

    newest = finance.get("/settlements/monthly").json
    december = finance.get("/settlements/monthly?yearMonth=2024-12").json

    assert [month["yearMonth"] for month in newest] == [
        f"{today(shop):%Y-%m}",
        *(f"2024-{month:02}" for month in range(12, 1, -1)),
    ]
    assert december == {"yearMonth": "2024-12"} | values(12_000, 1, (1, 1), closed=True)
    assert [month["closed"] for month in newest] == [False] + [True] * 11


@pytest.mark.parametrize("settled", [False, True])
def test_currencies_of_a_period_are_shown_separately(shop: ShopHarness, *, settled: bool) -> None:
    finance = shop.person("finance")
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")
    insert_posting(shop, "CAPTURE", 25, "2026-02-01 12:00+09", currency="USD")
    if settled:
        shop.tick("settle")
    won = values(10_000, 0, (1, 0), closed=settled)
    dollars = values(25, 0, (1, 0), closed=settled) | {"currency": "USD"}

    for path, query, period in (
        ("/settlements/daily", "date=2026-02-01", {"settlementDate": "2026-02-01"}),
        ("/settlements/monthly", "yearMonth=2026-02", {"yearMonth": "2026-02"}),
    ):
        either = finance.get(f"{path}?{query}")

        assert finance.get(path).json[1:] == [period | won, period | dollars]
        assert (either.status, either.error) == (400, "CURRENCY_REQUIRED")
        assert finance.get(f"{path}?{query}&currency=KRW").json == period | won
        assert finance.get(f"{path}?{query}&currency=USD").json == period | dollars
        assert finance.get(f"{path}?{query}&currency=EUR").status == 404
        assert finance.get(f"{path}?{query}&currency=usd").status == 400


def test_month_with_an_open_day_is_open(shop: ShopHarness) -> None:
    finance = shop.person("finance")
    insert_posting(shop, "CAPTURE", 1_000, "2026-02-01 12:00+09")
    shop.tick("settle")
    insert_posting(shop, "CAPTURE", 500, "2026-02-28 12:00+09")

    month = finance.get("/settlements/monthly?yearMonth=2026-02").json

    assert month == {"yearMonth": "2026-02"} | values(1_500, 0, (2, 0), closed=False)


@pytest.mark.parametrize(
    "path",
    ["/settlements/daily?date=2026-02-03", "/settlements/monthly?yearMonth=2026-03"],
)
def test_period_without_postings_gets_404(shop: ShopHarness, path: str) -> None:
    finance = shop.person("finance")
    insert_posting(shop, "CAPTURE", 1_000, "2026-02-01 12:00+09")

    answer = finance.get(path)

    assert (answer.status, answer.error) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    "query",
    [
        "daily?date=2026-02-30",
        "daily?date=9999-12-31",
        "daily?date=1999-12-31",
        "daily?date=2026-2-1",
        "daily?date=20260201",
        "daily?date=2026-W05-1",
        "daily?date=1769904000",
        "daily?date=2026-02-01T00:00:00",
        "daily?date=2026-02-01%0A",
        "daily?date='%20or%201",
        "daily?date=",
        "daily?date=2026-02-01&date=2026-02-01",
        "daily?day=2026-02-01",
        "daily?yearMonth=2026-02",
        "monthly?yearMonth=2026-13",
        "monthly?yearMonth=2026-00",
        "monthly?yearMonth=2026-02-01",
        "monthly?yearMonth=9999-12",
        "monthly?yearMonth=2026-02%0A",
        "monthly?yearMonth=",
        "monthly?date=2026-02-01",
    ],
)
def test_invalid_date_gets_400(shop: ShopHarness, query: str) -> None:
    finance = shop.person("finance")

    answer = finance.get(f"/settlements/{query}")

    assert (answer.status, answer.error) == (400, "BAD_QUERY")


@pytest.mark.parametrize("path", ["/settlements/daily", "/settlements/monthly"])
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("finance", {"anonymous": 401, "customer": 403, "staff": 403, "finance": 200}),
        ("customer", {"anonymous": 401, "customer": 200, "staff": 200, "finance": 200}),
        ("public", {"anonymous": 200, "customer": 200, "staff": 200, "finance": 200}),
    ],
)
def test_policy_decides_which_roles_may_read(
    make_shop: MakeShop, policy: str, expected: dict[str, int], path: str
) -> None:
    shop = make_shop(settlements_auth=policy)
    roles = [role for role in expected if role != "anonymous"]

    answers = {"anonymous": shop.call("GET", path).status}
    answers |= {role: shop.person(role).get(path).status for role in roles}

    assert answers == expected


def test_cancelled_payment_is_subtracted_and_repeated_events_count_once(samples: Samples) -> None:
    """A refund is subtracted from the settlement, and repeated events do not change it."""
    kept = samples.owner.paid_order(samples.product, 2)
    gone = samples.owner.paid_order(samples.product, 1)
    samples.owner.patch(f"/orders/{gone['id']}/cancel")
    samples.shop.deliver_all()
    for event in samples.shop.outbox(undone=False):
        for spec in all_specs():
            if any(s.event == event["type"] for s in spec.subscriptions):
                samples.shop.deliver(event, spec.name)

    (today,) = list(samples.people["finance"].get("/settlements/daily").json)[:1]

    assert kept["totalAmount"] == 2000
    assert (today["capturedAmount"], today["refundedAmount"], today["totalAmount"]) == (
        3000,
        1000,
        2000,
    )
    assert (today["paymentCount"], today["refundCount"]) == (2, 1)


def test_settlements_need_the_finance_role_by_default(
    samples: Samples, make_shop: MakeShop
) -> None:
    """Settlements are readable by finance unless the operator configures another policy."""
    assert Settings().settlements_auth == "finance"
    assert samples.shop.call("GET", "/settlements/daily").status == 401
    assert samples.owner.get("/settlements/daily").status == 403
    assert samples.people["finance"].get("/settlements/monthly").status == 200


# ---------------------------------------------------------------- CSV

HEAD = "totalAmount,capturedAmount,refundedAmount,paymentCount,refundCount,currency,closed"


def test_days_of_a_month_are_exported_newest_first(shop: ShopHarness) -> None:
    finance = shop.person("finance")
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 00:00+09")
    insert_posting(shop, "REFUND", 12_000, "2026-02-01 23:59:59+09")
    shop.tick("settle")
    insert_posting(shop, "CAPTURE", 99, "2026-02-28 23:59:59+09")
    insert_posting(shop, "CAPTURE", 7, "2026-03-01 00:00+09")

    answer = finance.get("/settlements/daily.csv?yearMonth=2026-02")

    assert (answer.status, answer.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    disposition = 'attachment; filename="settlements-2026-02.csv"'
    assert answer.headers["content-disposition"] == disposition
    assert answer.body.decode() == (
        f"settlementDate,{HEAD}\r\n"
        "2026-02-28,99,99,0,1,0,KRW,false\r\n"
        "2026-02-01,-2000,10000,12000,1,1,KRW,true\r\n"
    )
    other = finance.get("/settlements/daily.csv?yearMonth=2026-02&currency=USD")
    assert other.body.decode() == f"settlementDate,{HEAD}\r\n"


def test_months_of_a_year_are_exported_with_a_byte_order_mark_on_request(
    shop: ShopHarness,
) -> None:
    finance = shop.person("finance")
    insert_posting(shop, "CAPTURE", 5, "2025-12-31 23:59:59+09")
    insert_posting(shop, "CAPTURE", 7, "2026-01-01 00:00+09")
    insert_posting(shop, "CAPTURE", 9, "2027-01-01 00:00+09")

    plain = finance.get("/settlements/monthly.csv?year=2025")
    marked = finance.get("/settlements/monthly.csv?year=2025&bom=true")

    assert plain.body.decode().splitlines()[1:] == ["2025-12,5,5,0,1,0,KRW,false"]
    assert marked.body == b"\xef\xbb\xbf" + plain.body


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("daily.csv", "yearMonth"),
        ("daily.csv?yearMonth=2026-13", "yearMonth"),
        ("daily.csv?yearMonth=2026-02&bom=1", "bom"),
        ("daily.csv?yearMonth=2026-02&date=2026-02-01", "date"),
        ("monthly.csv", "year"),
        ("monthly.csv?year=1999", "year"),
        ("monthly.csv?year=2026&currency=krw", "currency"),
    ],
)
def test_invalid_parameter_of_an_export_is_400_and_named(
    shop: ShopHarness, query: str, field: str
) -> None:
    answer = shop.person("finance").get(f"/settlements/{query}")

    assert (answer.status, answer.error) == (400, "BAD_QUERY")
    assert [error["field"] for error in answer.json["errors"]] == [field]
