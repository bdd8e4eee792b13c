"""Settlements: today live from the ledger, exactly what was paid; days and months that are none."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tools.e2e.client import NoAnswer
from tools.e2e.days import business_day
from tools.e2e.harness import Stage, Unexpected, expect
from tools.e2e.scenario import Scenario

CALM_LOOKS = 3
CALM_SECONDS = 1.0


@dataclass(frozen=True)
class Day:
    """What a day's settlement says: money in and out, and how often."""

    captured: int = 0
    payments: int = 0
    refunded: int = 0
    refunds: int = 0

    def since(self, before: Day) -> Day:
        """What came on top."""
        return Day(
            self.captured - before.captured,
            self.payments - before.payments,
            self.refunded - before.refunded,
            self.refunds - before.refunds,
        )

    def covers(self, other: Day) -> bool:
        """True when nothing of the other is missing here."""
        rest = self.since(other)
        return min(rest.captured, rest.payments, rest.refunded, rest.refunds) >= 0


def count_exactly_what_happened(stage: Stage) -> None:
    """Orders paid, declined and cancelled: today's numbers rise by exactly what that was.

    Other traffic may run.  It is told from a wrong count by watching: numbers that go on changing
    while we do nothing are others'; only then is "at least" enough, and the line says so.
    """
    day = business_day(stage.cast.time_zone)
    buyer, product = stage.customer(2), stage.product(price=4321, stock=10)
    before = _calm(stage, day)
    paid = [stage.paid(buyer, (product["id"], n)) for n in (1, 2)]
    declined = stage.placed(buyer, (product["id"], 1), method="CARD_DECLINED")
    stage.declined(buyer, declined["id"])
    expect(stage.write("PATCH", f"/orders/{declined['id']}/cancel", None, buyer), 200)
    _check_rise(stage, day, before, Day(3 * 4321, 2), "two payments and a decline")
    before = _calm(stage, day)
    expect(stage.write("PATCH", f"/orders/{paid[0]['id']}/cancel", None, buyer), 200)
    stage.at_rest(buyer, paid[0]["id"])
    _check_rise(stage, day, before, Day(refunded=4321, refunds=1), "a cancelled payment")
    if business_day(stage.cast.time_zone) != day:
        raise NoAnswer("the business day ended in the middle of the story")


def _check_rise(stage: Stage, day: str, before: Day, wanted: Day, what: str) -> None:
    risen = _seen(stage, day).since(before)
    if risen != wanted and risen.covers(wanted) and _is_busy(stage, day):
        stage.check.that(f"{what}: today rises by at least that (others are paying too)", True)
        return
    stage.check.equal(f"{what}: today rises by exactly that", risen, wanted)


def _seen(stage: Stage, day: str) -> Day:
    answer = stage.get(f"/settlements/daily?date={day}", stage.finance())
    if answer.status_code == 404:
        return Day()
    body = expect(answer, 200).json()
    net = body["capturedAmount"] - body["refundedAmount"]
    if body["totalAmount"] != net:
        raise Unexpected(f"totalAmount is not captures less refunds: {answer.text}")
    counts = (body["paymentCount"], body["refundedAmount"], body["refundCount"])
    return Day(body["capturedAmount"], *counts)


def _calm(stage: Stage, day: str) -> Day:
    """The day once it looks the same a few times in a row: earlier stories have settled."""
    seen = [_seen(stage, day)]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and len(seen) < CALM_LOOKS:
        time.sleep(CALM_SECONDS)
        now = _seen(stage, day)
        seen = [*seen, now] if now == seen[-1] else [now]
    return seen[-1]


def _is_busy(stage: Stage, day: str) -> bool:
    """True when the numbers change although we do nothing."""
    first = _seen(stage, day)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        time.sleep(CALM_SECONDS)
        if _seen(stage, day) != first:
            return True
    return False


def show_days_and_months(stage: Stage) -> None:
    """The open day is marked as open; lists are newest first."""
    day, finance = business_day(stage.cast.time_zone), stage.finance()
    stage.paid(stage.customer(2), (stage.product(price=100)["id"], 1))
    today = expect(stage.get(f"/settlements/daily?date={day}", finance), 200).json()
    shown = (today["settlementDate"], today["closed"], today["currency"])
    stage.check.equal("today: date, open, currency", shown, (day, False, "KRW"))
    days = [one["settlementDate"] for one in _json(stage, "/settlements/daily")]
    stage.check.equal("days are newest first", days, sorted(days, reverse=True))
    stage.check.that("at most 30, today among them", day in days and len(days) <= 30, days)
    month = _json(stage, f"/settlements/monthly?yearMonth={day[:7]}")
    stage.check.equal("this month is shown", month["yearMonth"], day[:7])
    stage.check.that(
        "a month has at least its last day's payments",
        month["paymentCount"] >= today["paymentCount"],
        month,
    )
    months = [one["yearMonth"] for one in _json(stage, "/settlements/monthly")]
    stage.check.equal("months are newest first", months, sorted(months, reverse=True))
    stage.check.that("at most 12", len(months) <= 12, months)


def refuse_days_that_are_none(stage: Stage) -> None:
    """A date that is none: 400; a day without payments: 404."""
    finance = stage.finance()
    for date in ("2026-02-30", "2026-13-01", "yesterday", "2026-2-3", "' or 1", ""):
        answer = stage.get(f"/settlements/daily?{urlencode({'date': date})}", finance)
        stage.check.problem(f"daily?date={date}: 400", answer, 400)
    for month in ("2026-13", "2026-00", "26-01", "2026-1", "x"):
        answer = stage.get(f"/settlements/monthly?yearMonth={month}", finance)
        stage.check.problem(f"monthly?yearMonth={month}: 400", answer, 400)
    none = stage.get("/settlements/daily?date=2001-01-01", finance)
    stage.check.problem("a day without payments: 404", none, 404)
    none = stage.get("/settlements/monthly?yearMonth=2001-01", finance)
    stage.check.problem("a month without payments: 404", none, 404)


def keep_to_the_policy(stage: Stage) -> None:
    """Who may read is one policy: finance, any customer, or everyone."""
    path = "/settlements/daily"
    statuses = (stage.get(path).status_code, stage.get(path, stage.customer(1)).status_code)
    policies = {(401, 403): "finance", (401, 200): "customer", (200, 200): "public"}
    name = policies.get(statuses, "none")
    stage.check.that(
        f"nobody and a customer are answered by the policy {name}",
        statuses in policies,
        f"nobody {statuses[0]}, a customer {statuses[1]}",
    )
    finance = stage.get(path, stage.finance())
    stage.check.status("finance may always read", finance, 200)


def _json(stage: Stage, path: str) -> Any:
    return expect(stage.get(path, stage.finance()), 200).json()


PEOPLE = ("staff", "finance")
SCENARIOS = (
    Scenario(count_exactly_what_happened, PEOPLE),
    Scenario(show_days_and_months, PEOPLE),
    Scenario(refuse_days_that_are_none, ("finance",)),
    Scenario(keep_to_the_policy, ("finance",)),
)
