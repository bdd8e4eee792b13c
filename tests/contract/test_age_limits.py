"""Whatever stays too long in a status that is not final raises one operator alert."""

from __future__ import annotations

from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
import yaml

from shop import operator_alerts
from shop.primitives.statuses import (
    OPEN_MAIL,
    OPEN_PAYMENT,
    OPEN_REFUND,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
)
from shop.registry import spec_of
from shop.runtime.event_context import EventContext
from shop.schema.age_limits import AGE_LIMITS, AgeLimit
from tests.harness import ShopHarness

ROOT = Path(__file__).resolve().parents[2]
FINAL_ORDER = {OrderStatus.PAID, OrderStatus.REFUNDED, OrderStatus.CANCELLED}

# The settings that an order keeps, and the columns that it has without triggers and foreign keys.
ORDER: LiteralString = (
    "insert into shop.orders (order_id, user_id, status, reason, total_minor, currency, "
    "payment_method, expires_at, hard_expires_at, updated_at) values (%(id)s, 1, "
)
# For each limit: inserts a row that is %(age)s old, and makes it done.
OPEN_AND_DONE: dict[str, tuple[LiteralString, LiteralString]] = {
    "order": (
        ORDER + "'PENDING', null, 1, 'KRW', 'CARD', now() - %(age)s, now() + interval '1 year', "
        "now())",
        "update shop.orders set status = 'PAID' where order_id = %(id)s",
    ),
    "cancellation": (
        ORDER + "'CANCELLING', 'USER', 1, 'KRW', 'CARD', now(), now(), now() - %(age)s)",
        "update shop.orders set status = 'CANCELLED' where order_id = %(id)s",
    ),
    "payment": (
        "insert into shop.payments (payment_id, order_id, user_id, attempt, status, amount_minor, "
        "currency, payment_method, provider_key, created_at, charge_not_after, next_try_at) "
        "values (%(id)s, %(id)s, 1, 1, 'UNKNOWN', 1, 'KRW', 'CARD', 'k', now() - %(age)s, now(), "
        "now() + interval '1 day')",
        "update shop.payments set status = 'DECLINED' where payment_id = %(id)s",
    ),
    "payment_action": (
        "insert into shop.payments (payment_id, order_id, user_id, attempt, status, amount_minor, "
        "currency, payment_method, provider_key, action, act_until, charge_not_after, next_try_at) "
        "values (%(id)s, %(id)s, 1, 1, 'REQUIRES_ACTION', 1, 'KRW', 'CARD', 'k', "
        """'{"type": "redirect"}', now() - %(age)s, now(), now() + interval '1 day')""",
        "update shop.payments set status = 'VOIDED', action = null where payment_id = %(id)s",
    ),
    "refund": (
        "insert into shop.refunds (refund_id, payment_id, amount_minor, currency, status, reason, "
        "provider_key, created_at, next_try_at) values (%(id)s, %(id)s, 1, 'KRW', 'UNKNOWN', 'x', "
        "'k', now() - %(age)s, now() + interval '1 day')",
        "update shop.refunds set status = 'SUCCEEDED' where refund_id = %(id)s",
    ),
    "dispute": (
        "insert into shop.disputes (dispute_id, payment_id, provider_ref, amount_minor, currency, "
        "status, created_at) values (%(id)s, %(id)s, 'dp', 1, 'KRW', 'OPEN', now() - %(age)s)",
        "update shop.disputes set status = 'LOST' where dispute_id = %(id)s",
    ),
    "shipment": (
        "insert into shop.shipments (shipment_id, order_id, status, created_at) "
        "values (%(id)s, %(id)s, 'PREPARING', now() - %(age)s)",
        "update shop.shipments set status = 'CANCELLED' where shipment_id = %(id)s",
    ),
    "delivery": (
        "insert into shop.shipments (shipment_id, order_id, status, carrier, tracking_number, "
        "shipped_at) values (%(id)s, %(id)s, 'SHIPPED', 'cj', '1234', now() - %(age)s)",
        "update shop.shipments set status = 'DELIVERED', delivered_at = now() "
        "where shipment_id = %(id)s",
    ),
    "return": (
        "insert into shop.returns (return_id, order_id, status, reason, updated_at) "
        "values (%(id)s, %(id)s, 'APPROVED', '', now() - %(age)s)",
        "update shop.returns set status = 'REJECTED' where return_id = %(id)s",
    ),
    "mail": (
        "insert into shop.mails (event_id, kind, subject_id, status, created_at, next_try_at) "
        "values (%(id)s, 'ORDER_PAID', 'x', 'PENDING', now() - %(age)s, now() + interval '1 day')",
        "update shop.mails set status = 'SENT' where event_id = %(id)s",
    ),
    "unmatched_charge": (
        "insert into shop.alarms (alarm_id, kind, subject, detail, raised_at) "
        "values (%(id)s, 'ghost_charge', 'shop:x', '', now() - %(age)s)",
        "update shop.alarms set resolved_at = now() where alarm_id = %(id)s",
    ),
    "settlement_day": (
        "insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, "
        "currency, posted_at, chain, chain_seq, prev_hash, hash) values ('CAPTURE', %(id)s, "
        "%(id)s, 'a', 'b', 1, 'KRW', date_trunc('day', now() - %(age)s - interval '3 minutes', "
        "'Asia/Seoul') - interval '1 second', 0, 1, '', '')",
        "insert into shop.settlements (day, currency, captures_minor, refunds_minor, captures, n) "
        "values ((now() at time zone 'Asia/Seoul')::date, 'KRW', 0, 0, 0, 0)",
    ),
    "due_job": (
        "update shop.reconciliation set next_run_at = now() - %(age)s",
        "update shop.reconciliation set next_run_at = now() + interval '1 day'",
    ),
    "event": (
        "insert into shop.outbox (event_id, source, type, subject, data, traceparent, created_at, "
        "next_try_at) values (%(id)s, 's', 't', '1', '{}', '', now() - %(age)s, "
        "now() + interval '1 day')",
        "update shop.outbox set done_at = now() where event_id = %(id)s",
    ),
    "dead_letter": (
        "insert into shop.dead_letters (dead_letter_id, event_id, source, type, destination, "
        "headers, body, received_at) values (%(id)s, 'e', 's', 't', 'd', '{}', '', "
        "now() - %(age)s)",
        "update shop.dead_letters set replayed_at = now() where dead_letter_id = %(id)s",
    ),
}
limits = pytest.mark.parametrize("limit", AGE_LIMITS, ids=lambda limit: limit.name)


class _Rows:
    """Inserts and finishes the row of one limit, without triggers and foreign keys."""

    def __init__(self, shop: ShopHarness, limit: AgeLimit) -> None:
        self._shop = shop
        self._limit = limit
        self._id = uuid4()

    def insert(self, distance: str) -> None:
        """A row that is older than the limit by ``distance``."""
        self._run(OPEN_AND_DONE[self._limit.name][0], distance)

    def finish(self) -> None:
        self._run(OPEN_AND_DONE[self._limit.name][1], "0")

    def _run(self, statement: LiteralString, distance: str) -> None:
        with psycopg.connect(self._shop.admin_url, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica")
            row = connection.execute(
                "select %s::interval + %s::interval", (self._limit.age, distance)
            ).fetchone()
            assert row is not None
            connection.execute(statement, {"id": self._id, "age": row[0]})


def _check(shop: ShopHarness, limit: AgeLimit) -> list[dict[str, Any]]:
    """Runs the limit's job if it is due; returns its alerts."""
    due = shop.sql(
        "select 1 from shop.due_work where kind = 'age_limit' and id = %s and due_at <= now()",
        limit.alert_kind,
    )
    if due:
        context = EventContext(shop.apps["sweep"].services, spec_of("sweep"))
        with context.transaction() as tx:
            tx.pipeline(*operator_alerts.check_age_limit(limit.alert_kind, 100))
    return shop.sql(
        "select subject, resolved_at is not null as resolved from shop.alarms where kind = %s",
        limit.alert_kind,
    )


@limits
def test_row_over_its_age_limit_raises_one_alert_that_is_resolved_when_it_is_done(
    shop: ShopHarness, limit: AgeLimit
) -> None:
    rows = _Rows(shop, limit)
    rows.insert("1 hour")

    first = _check(shop, limit)
    second = _check(shop, limit)
    rows.finish()
    done = _check(shop, limit)

    assert [alert["resolved"] for alert in first] == [False]
    assert second == first
    assert [alert["resolved"] for alert in done] == [True]


@limits
def test_row_within_its_age_limit_raises_no_alert(shop: ShopHarness, limit: AgeLimit) -> None:
    distance = "-1 day -1 hour" if limit.name == "settlement_day" else "-1 minute"
    _Rows(shop, limit).insert(distance)

    assert _check(shop, limit) == []


@limits
def test_alert_that_an_operator_resolved_is_not_raised_again(
    shop: ShopHarness, limit: AgeLimit
) -> None:
    _Rows(shop, limit).insert("1 hour")
    _check(shop, limit)
    shop.sql("update shop.alarms set resolved_at = now() where kind = %s", limit.alert_kind)

    assert [alert["resolved"] for alert in _check(shop, limit)] == [True]


def test_sweep_checks_the_age_limits_that_are_due(shop: ShopHarness) -> None:
    (limit,) = [limit for limit in AGE_LIMITS if limit.name == "refund"]
    _Rows(shop, limit).insert("1 hour")

    assert shop.tick("sweep").status == 204

    assert [row["kind"] for row in shop.sql("select kind from shop.alarms")] == ["overdue_refund"]


def test_every_status_that_is_not_final_has_an_age_limit() -> None:
    limited = {limit.name: limit.is_open for limit in AGE_LIMITS}

    for status in set(OrderStatus) - FINAL_ORDER:
        assert any(f"'{status}'" in limited[name] for name in ("order", "cancellation")), status
    for statuses, name in (
        ({*OPEN_PAYMENT} - {PaymentStatus.REQUIRES_ACTION}, "payment"),
        ((PaymentStatus.REQUIRES_ACTION,), "payment_action"),
        (OPEN_REFUND, "refund"),
        ((DisputeStatus.OPEN,), "dispute"),
        (OPEN_MAIL, "mail"),
    ):
        assert all(f"'{status}'" in limited[name] for status in statuses)
    assert {limit.name for limit in AGE_LIMITS} == set(OPEN_AND_DONE)


def test_every_age_limit_has_one_alert_rule() -> None:
    text = (ROOT / "infra/observability/alerts/age-limits.yaml").read_text("utf-8")
    (group,) = yaml.safe_load(text)["groups"]

    assert {(rule["alert"], rule["expr"]) for rule in group["rules"]} == {
        (limit.rule, f'max(shop_overdue{{kind="{limit.alert_kind}"}}) > 0') for limit in AGE_LIMITS
    }
