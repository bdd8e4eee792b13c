"""Settlements: exact totals of today, lists of days and months, invalid dates, access."""

from __future__ import annotations

import time
from dataclasses import dataclass
from urllib.parse import urlencode

from tools.e2e.client import JsonObject, NoResponse
from tools.e2e.context import ScenarioContext, UnexpectedResponse, expect
from tools.e2e.days import business_day
from tools.e2e.scenario import Scenario

STABLE_READS = 3
READ_INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class DayTotals:
    """Amounts and counts of a day's settlement."""

    captured: int = 0
    payments: int = 0
    refunded: int = 0
    refunds: int = 0

    def since(self, before: DayTotals) -> DayTotals:
        """The increase since ``before``."""
        return DayTotals(
            self.captured - before.captured,
            self.payments - before.payments,
            self.refunded - before.refunded,
            self.refunds - before.refunds,
        )

    def covers(self, other: DayTotals) -> bool:
        """True when no value is smaller than that of ``other``."""
        rest = self.since(other)
        return min(rest.captured, rest.payments, rest.refunded, rest.refunds) >= 0


def totals_rise_by_exactly_what_was_paid(context: ScenarioContext) -> None:
    """Paid, declined and cancelled orders change today's totals by exactly their amounts.

    A larger increase passes only with other traffic, which is detected by totals that change while
    the scenario sends no command; the title of the check mentions it.
    """
    day = business_day(context.run.time_zone)
    customer, product = context.customer(2), context.create_product(price=4321, stock=10)
    before = _wait_until_stable(context, day)
    paid = [context.place_paid_order(customer, (product["id"], n)) for n in (1, 2)]
    declined = context.place_order(customer, (product["id"], 1), method="CARD_DECLINED")
    context.wait_for_decline(customer, declined["id"])
    expect(context.write("PATCH", f"/orders/{declined['id']}/cancel", None, customer), 200)
    _check_increase(context, day, before, DayTotals(3 * 4321, 2), "two payments and a decline")
    before = _wait_until_stable(context, day)
    expect(context.write("PATCH", f"/orders/{paid[0]['id']}/cancel", None, customer), 200)
    context.wait_for_final_status(customer, paid[0]["id"])
    _check_increase(context, day, before, DayTotals(refunded=4321, refunds=1), "a refunded payment")
    if business_day(context.run.time_zone) != day:
        raise NoResponse("the business day ended during the scenario")


def _check_increase(
    context: ScenarioContext, day: str, before: DayTotals, expected: DayTotals, what: str
) -> None:
    increase = _read_totals(context, day).since(before)
    if increase != expected and increase.covers(expected) and _has_other_traffic(context, day):
        context.check.that(
            f"{what}: the totals rise by at least that (there is other traffic)",
            increase.covers(expected),
        )
        return
    context.check.equal(f"{what}: the totals rise by exactly that", increase, expected)


def _read_totals(context: ScenarioContext, day: str) -> DayTotals:
    response = context.get(f"/settlements/daily?date={day}", context.finance())
    if response.status_code == 404:
        return DayTotals()
    body = expect(response, 200).json()
    net = body["capturedAmount"] - body["refundedAmount"]
    if body["totalAmount"] != net:
        raise UnexpectedResponse(f"totalAmount is not captures less refunds: {response.text}")
    counts = (body["paymentCount"], body["refundedAmount"], body["refundCount"])
    return DayTotals(body["capturedAmount"], *counts)


def _wait_until_stable(context: ScenarioContext, day: str) -> DayTotals:
    """The totals once several reads in a row agree: earlier scenarios have finished."""
    seen = [_read_totals(context, day)]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(seen) < STABLE_READS:
        time.sleep(READ_INTERVAL_SECONDS)
        now = _read_totals(context, day)
        seen = [*seen, now] if now == seen[-1] else [now]
    return seen[-1]


def _has_other_traffic(context: ScenarioContext, day: str) -> bool:
    """True when the totals change while the scenario sends no command."""
    first = _read_totals(context, day)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(READ_INTERVAL_SECONDS)
        if _read_totals(context, day) != first:
            return True
    return False


def days_and_months_are_listed_newest_first(context: ScenarioContext) -> None:
    """Today is not closed; lists are newest first."""
    day, finance = business_day(context.run.time_zone), context.finance()
    product = context.create_product(price=100)
    context.place_paid_order(context.customer(2), (product["id"], 1))
    today = expect(context.get(f"/settlements/daily?date={day}", finance), 200).json()
    shown = (today["settlementDate"], today["closed"], today["currency"])
    context.check.equal("today: date, open, currency", shown, (day, False, product["currency"]))
    days = [one["settlementDate"] for one in _list(context, "/settlements/daily")]
    context.check.equal("days are newest first", days, sorted(days, reverse=True))
    context.check.that("at most 30 days, including today", day in days and len(days) <= 30, days)
    path = f"/settlements/monthly?yearMonth={day[:7]}"
    month = expect(context.get(path, finance), 200).json()
    context.check.equal("this month has a settlement", month["yearMonth"], day[:7])
    context.check.that(
        "the month has at least today's payments",
        month["paymentCount"] >= today["paymentCount"],
        month,
    )
    months = [one["yearMonth"] for one in _list(context, "/settlements/monthly")]
    context.check.equal("months are newest first", months, sorted(months, reverse=True))
    context.check.that("at most 12 months", len(months) <= 12, months)


def invalid_dates_answer_400_and_empty_days_404(context: ScenarioContext) -> None:
    """An invalid date or month: 400; one without payments: 404."""
    finance = context.finance()
    for date in ("2026-02-30", "2026-13-01", "yesterday", "2026-2-3", "' or 1", ""):
        response = context.get(f"/settlements/daily?{urlencode({'date': date})}", finance)
        context.check.problem(f"daily?date={date}: 400", response, 400)
    for month in ("2026-13", "2026-00", "26-01", "2026-1", "x"):
        response = context.get(f"/settlements/monthly?yearMonth={month}", finance)
        context.check.problem(f"monthly?yearMonth={month}: 400", response, 400)
    empty = context.get("/settlements/daily?date=2001-01-01", finance)
    context.check.problem("a day without payments: 404", empty, 404)
    empty = context.get("/settlements/monthly?yearMonth=2001-01", finance)
    context.check.problem("a month without payments: 404", empty, 404)


def settlements_are_readable_by_one_policy(context: ScenarioContext) -> None:
    """Read access follows one policy: finance only, any customer, or public."""
    path = "/settlements/daily"
    statuses = (context.get(path).status_code, context.get(path, context.customer(1)).status_code)
    policies = {(401, 403): "finance", (401, 200): "customer", (200, 200): "public"}
    name = policies.get(statuses, "none")
    context.check.that(
        f"requests without a token and by a customer follow the policy {name}",
        statuses in policies,
        f"without a token {statuses[0]}, customer {statuses[1]}",
    )
    finance = context.get(path, context.finance())
    context.check.status("finance may read", finance, 200)


def _list(context: ScenarioContext, path: str) -> list[JsonObject]:
    return expect(context.get(path, context.finance()), 200).json()


STAFF_AND_FINANCE = ("staff", "finance")
SCENARIOS = (
    Scenario(totals_rise_by_exactly_what_was_paid, STAFF_AND_FINANCE),
    Scenario(days_and_months_are_listed_newest_first, STAFF_AND_FINANCE),
    Scenario(invalid_dates_answer_400_and_empty_days_404, ("finance",)),
    Scenario(settlements_are_readable_by_one_policy, ("finance",)),
)
