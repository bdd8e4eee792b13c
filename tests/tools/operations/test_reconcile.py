"""``shop reconcile --date``: lists exactly the differences between the three sources."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tests.harness import FlowHarness
from tests.tools.operations.conftest import CommandLine
from tests.tools.payment_simulator.simulator_process import charge_call, refund_call

SEOUL = ZoneInfo("Asia/Seoul")

# A change to each of eight orders, and the differences that it causes.
CHANGES = (
    "delete from shop.ledger where order_id = %s",
    "update shop.ledger set amount_minor = 999 where order_id = %s",
    "update shop.payments set amount_minor = 1001 where order_id = %s",
    "update shop.payments set status = 'UNKNOWN' where order_id = %s",
    "update shop.payments set provider_key = 'shop:other' where order_id = %s",
    "update shop.ledger set currency = 'USD' where order_id = %s",
    "update shop.refunds set status = 'REJECTED' "
    "where payment_id = (select payment_id from shop.payments where order_id = %s)",
    "delete from shop.ledger where order_id = %s and kind = 'REFUND'",
)
EXPECTED = (
    (0, "not posted to the ledger"),
    (1, "the ledger has another amount"),
    (2, "the provider has another amount"),
    (2, "the ledger has another amount"),
    (3, "completed at the provider, ours is UNKNOWN"),
    (3, "posted to the ledger, ours is UNKNOWN"),
    (4, "ours is CAPTURED, the provider has no transaction"),
    (5, "the ledger has USD, ours is KRW"),
    (6, "completed at the provider, ours is REJECTED"),
    (6, "posted to the ledger, ours is REJECTED"),
    (7, "not posted to the ledger"),
)


def _today(flow: FlowHarness) -> str:
    (row,) = flow.shop.sql("select (now() at time zone 'Asia/Seoul')::date::text as day")
    day: str = row["day"]
    return day


def _reconcile(operator: CommandLine, day: str) -> tuple[int, list[tuple[str, str]], Any]:
    result = operator.run("reconcile", "--date", day, "--json")
    found = json.loads(result.stdout)
    differences = [(d["what"], d["order_id"] or d["key"]) for d in found["differences"]]
    return result.exit_code, sorted(differences), found


def _change_unchecked(flow: FlowHarness, statement: str, *parameters: Any) -> None:
    """Changes one row without triggers and foreign keys."""
    with psycopg.connect(flow.shop.admin_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        assert connection.execute(statement.encode(), parameters).rowcount == 1, statement


def _create_history(flow: FlowHarness) -> list[str]:
    """Eight paid orders of 1,000; one is cancelled, one is partially refunded."""
    customer, product = flow.shop.person(), flow.shop.product(stock=99)
    support = flow.shop.person("support")
    orders = [customer.paid_order(product)["id"] for _ in range(8)]
    customer.patch(f"/orders/{orders[6]}/cancel")
    support.post(f"/orders/{orders[7]}/refunds", {"amount": 300, "reason": "dented"})
    customer.order(product, method="CARD_DECLINED")
    flow.run_until_idle()
    return orders


def test_agreeing_sources_have_no_difference(flow: FlowHarness, auditor: CommandLine) -> None:
    _create_history(flow)

    status, differences, found = _reconcile(auditor, _today(flow))

    assert (status, differences, found["other_days"]) == (0, [], [])
    assert found["totals"] == {"provider": {"KRW": 6700}, "ledger": {"KRW": 6700}}


def test_each_difference_is_listed_once(flow: FlowHarness, auditor: CommandLine) -> None:
    orders = _create_history(flow)
    provider = flow.simulator.provider()
    unmatched = charge_call(amount_minor=70)
    unmatched_ref = provider.charge(unmatched).provider_ref
    assert unmatched_ref
    unmatched_refund = refund_call(unmatched, unmatched_ref, 5)
    assert provider.refund(unmatched_refund).kind == "succeeded"
    (known,) = flow.shop.sql(
        "select provider_key from shop.payments where order_id = %s", orders[4]
    )
    for statement, order in zip(CHANGES, orders, strict=True):
        _change_unchecked(flow, statement, order)

    status, differences, found = _reconcile(auditor, _today(flow))

    only_there = (known["provider_key"], unmatched.key, unmatched_refund.key)
    assert status == 1
    assert differences == sorted(
        [(what, orders[place]) for place, what in EXPECTED]
        + [("only the provider has it", key) for key in only_there]
    )
    (other,) = [d for d in found["differences"] if d["order_id"] == orders[1]]
    assert (other["provider_minor"], other["ours_minor"], other["ledger_minor"]) == (
        1000,
        1000,
        999,
    )


def test_what_the_provider_did_without_a_request_is_listed_by_name_until_it_is_booked(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    customer, product = flow.shop.person(), flow.shop.product()
    refunded, disputed = (customer.paid_order(product)["id"] for _ in range(2))
    refund = flow.simulator.act("refunds", charge_key=flow.payment_key(refunded), amount_minor=300)
    dispute = flow.simulator.act("disputes", charge_key=flow.payment_key(disputed), fee_minor=15)

    unbooked = _reconcile(auditor, _today(flow))
    flow.reconcile()
    booked = _reconcile(auditor, _today(flow))

    status, _, found = unbooked
    assert status == 1
    assert sorted(
        (d["what"], d["kind"], d["key"], d["provider_minor"]) for d in found["differences"]
    ) == [
        ("only the provider has it", "dispute", dispute["key"], 1000),
        ("only the provider has it", "dispute_fee", dispute["key"], 15),
        ("only the provider has it", "refund", refund["key"], 300),
    ]
    assert booked[:2] == (0, [])
    assert booked[2]["totals"] == {"provider": {"KRW": 685}, "ledger": {"KRW": 685}}


def test_refund_that_failed_after_it_succeeded_is_a_difference_until_it_is_posted_back(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())["id"]
    refund = flow.simulator.act("refunds", charge_key=flow.payment_key(order), amount_minor=300)
    flow.reconcile()
    flow.simulator.act(f"refunds/{refund['key']}/failed")

    unbooked = _reconcile(auditor, _today(flow))
    flow.reconcile()
    booked = _reconcile(auditor, _today(flow))

    assert [key for _, key in unbooked[1]] == [order]
    assert booked[:2] == (0, [])
    assert booked[2]["totals"] == {"provider": {"KRW": 1000}, "ledger": {"KRW": 1000}}


def test_what_other_shops_on_the_account_did_is_left_out(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    other = flow.simulator.act("other-shop-charges", amount_minor=70, currency="KRW")
    flow.simulator.act("refunds", charge_key=other["key"], amount_minor=5)
    flow.simulator.act("disputes", charge_key=other["key"], amount_minor=65)

    status, differences, found = _reconcile(auditor, _today(flow))

    assert (status, differences) == (0, [])
    assert found["totals"] == {"provider": {"KRW": 1000}, "ledger": {"KRW": 1000}}


def test_charge_executed_twice_is_listed(flow: FlowHarness, auditor: CommandLine) -> None:
    """The provider discards keys soon, so a second call with the same key charges again."""
    order = flow.shop.person().paid_order(flow.shop.product())
    (payment,) = flow.shop.sql("select * from shop.payments where order_id = %s", order["id"])
    flow.simulator.set_faults(key_life_seconds=0.001)
    body = {
        "key": payment["provider_key"],
        "amount_minor": 1000,
        "currency": "KRW",
        "payment_method": "CARD",
        "order_id": order["id"],
        "payment_id": str(payment["payment_id"]),
    }
    flow.simulator.request("POST", "/intents", body)
    flow.simulator.request("POST", f"/intents/{payment['provider_key']}/confirm", {})
    assert flow.simulator.captures(payment["provider_key"]) == 2

    status, differences, _ = _reconcile(auditor, _today(flow))

    assert (status, differences) == (1, [("the provider executed it 2 times", order["id"])])


def test_dates_on_two_days_are_a_note_on_both_days(flow: FlowHarness, auditor: CommandLine) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    today = _today(flow)
    tomorrow = (datetime.fromisoformat(today) + timedelta(days=1)).date().isoformat()
    later = datetime.fromisoformat(tomorrow).replace(tzinfo=SEOUL)
    for statement in (
        "update shop.ledger set posted_at = %s where order_id = %s",
        "update shop.transitions set at = %s where order_id = %s and to_status = 'CAPTURED'",
    ):
        _change_unchecked(flow, statement, later, order["id"])

    for day, totals in (
        (today, {"provider": {"KRW": 1000}, "ledger": {}}),
        (tomorrow, {"provider": {}, "ledger": {"KRW": 1000}}),
    ):
        status, differences, found = _reconcile(auditor, day)
        assert (status, differences, found["totals"]) == (0, [], totals)
        (note,) = found["other_days"]
        assert note["what"] == f"the provider dates it {today}, the ledger {tomorrow}"


def test_settlement_that_differs_from_its_postings_is_listed(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    day = _today(flow)
    flow.shop.sql(
        "insert into shop.settlements (day, currency, captures_minor, refunds_minor, captures, n) "
        "values (%s::date, 'KRW', 1000, 7, 1, 1)",
        day,
    )

    result = auditor.run("reconcile", "--date", day)

    assert result.exit_code == 1
    header, line, *foot = result.stdout.splitlines()
    assert " ".join(line.split()) == "the settlement has another sum refund 7 0"
    assert foot[-1] == "1 differences, 0 on another day"
    assert header.split() == ["what", "kind", "key", "order", "provider", "ours", "ledger"]


def test_day_without_payments_has_no_difference(flow: FlowHarness, auditor: CommandLine) -> None:
    _create_history(flow)

    status, differences, found = _reconcile(auditor, "2020-02-29")

    assert (status, differences, found["totals"]) == (0, [], {"provider": {}, "ledger": {}})


@pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "20260201"])
def test_invalid_date_exits_2(auditor: CommandLine, day: str) -> None:
    assert auditor.run("reconcile", "--date", day).exit_code == 2


def test_unreachable_provider_exits_2(flow: FlowHarness, auditor: CommandLine) -> None:
    day = _today(flow)
    flow.simulator.stop()

    result = auditor.run("reconcile", "--date", day)

    assert (result.exit_code, result.stdout) == (2, "")
    flow.simulator.start()
