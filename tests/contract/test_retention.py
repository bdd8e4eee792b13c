"""No table grows for ever unnoticed: each declares its retention, and ``sweep`` carries it out."""

# The due jobs by name are private to the module.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import LiteralString

import psycopg
import pytest
from psycopg.sql import SQL, Identifier
from sqlalchemy import Table

from shop import due_jobs
from shop.schema.retention import changeable, retention_statement
from shop.schema.tables import (
    METADATA,
    Bounded,
    DeletedAfter,
    DeletedWith,
    Kept,
    deletions_of,
    retention_of,
)
from tests.harness import FlowHarness, ShopHarness
from tools.checker.evaluate import find_violations
from tools.migrate import migrate

# Inserts a row that is as old as %(age)s; %(user)s is an account.
INSERTS: dict[str, LiteralString] = {
    "alarms": "insert into shop.alarms (alarm_id, kind, subject, detail, resolved_at) "
    "values (gen_random_uuid(), 'test', 'x', '', now() - %(age)s::interval)",
    "dead_letters": "insert into shop.dead_letters (dead_letter_id, event_id, source, type, "
    "destination, headers, body, received_at) values (gen_random_uuid(), gen_random_uuid(), 's', "
    "'t', 'd', '{}', '', now() - %(age)s::interval)",
    "idempotency": "insert into shop.idempotency (user_id, scope, key, fingerprint, state, "
    "created_at) values (0, '', gen_random_uuid(), '', 'STARTED', now() - %(age)s::interval)",
    "inbox": "insert into shop.inbox (consumer, source, event_id, outcome, received_at) "
    "values ('webhook', 'provider', 'evt_' || gen_random_uuid(), 'taken', "
    "now() - %(age)s::interval)",
    "login_failures": "insert into shop.login_failures (account, source, is_known_device, "
    "failed_at) values (sha256('a'), sha256('s'), false, now() - %(age)s::interval)",
    "mails": "insert into shop.mails (event_id, kind, subject_id, status, created_at, next_try_at) "
    "values (gen_random_uuid(), 'ORDER_PAID', 'x', 'SENT', now() - %(age)s::interval, now())",
    "notes": "insert into shop.notes (note_id, user_id, author_id, text, at) "
    "values (gen_random_uuid(), %(user)s, %(user)s, 'x', now() - %(age)s::interval)",
    "one_time_links": "insert into shop.one_time_links (link_id, purpose, expires_at) "
    "values (gen_random_uuid(), 'SET_PASSWORD', now() - %(age)s::interval)",
    "order_addresses": "with o as (insert into shop.orders (order_id, user_id, status, "
    "total_minor, currency, payment_method, expires_at, hard_expires_at) values "
    "(gen_random_uuid(), %(user)s, 'PAID', 1, 'KRW', 'CARD', now(), now()) "
    "returning order_id, user_id) "
    "insert into shop.order_addresses (order_id, user_id, recipient, phone, country, line1, "
    "created_at) select order_id, user_id, 'x', 'x', 'US', 'x', now() - %(age)s::interval from o",
    "outbox": "insert into shop.outbox (event_id, source, type, subject, data, traceparent, "
    "next_try_at, sent_at, done_at) values (gen_random_uuid(), 's', 't', '1', '{}', '', now(), "
    "now() - %(age)s::interval, now() - %(age)s::interval)",
    "quarantined": "insert into shop.outbox (event_id, source, type, subject, data, traceparent, "
    "next_try_at, parked_at) values (gen_random_uuid(), 's', 't', '1', '{}', '', now(), "
    "now() - %(age)s::interval)",
    "webhook_deliveries": "with w as (insert into shop.webhooks (webhook_id, url, event_types) "
    "values (gen_random_uuid(), gen_random_uuid()::text, '{order.paid}') returning webhook_id) "
    "insert into shop.webhook_deliveries (webhook_id, event_id, type, created_at) "
    "select webhook_id, gen_random_uuid(), 'order.paid', now() - %(age)s::interval from w",
    "sessions": "insert into shop.sessions (session_id, user_id, expires_at) "
    "values (gen_random_uuid(), %(user)s, now() - %(age)s::interval)",
}
# As if the ids had been made before the months that have partitions.
MAKE_IDS_OLD: tuple[LiteralString, ...] = (
    "update shop.outbox set event_id = "
    "(left(shop.uuid_at('2020-01-01')::text, 13) || right(event_id::text, 23))::uuid",
    "update shop.transitions set event_id = "
    "(left(shop.uuid_at('2020-01-01')::text, 13) || right(event_id::text, 23))::uuid",
    "update shop.inbox set event_id = "
    "left(shop.uuid_at('2020-01-01')::text, 13) || right(event_id, 23)",
)
RULES = [(table, rule) for table in METADATA.sorted_tables for rule in deletions_of(table)]


@pytest.mark.parametrize("table", METADATA.sorted_tables, ids=lambda table: table.name)
def test_every_table_has_a_retention_or_a_reason_to_be_kept(table: Table) -> None:
    match retention_of(table):
        case Kept(reason, partition_plan):
            assert reason and partition_plan
        case Bounded(by):
            assert by
        case DeletedWith(parent):
            keys = [key for key in table.foreign_keys if key.column.table.name == parent]
            assert {key.ondelete for key in keys} == {"CASCADE"}
            assert isinstance(retention_of(METADATA.tables[f"shop.{parent}"]), tuple)
        case rules:
            assert rules and all(rule.column in table.columns for rule in rules)


def test_due_jobs_delete_exactly_what_the_tables_declare() -> None:
    assert {rule.job for _, rule in RULES} == set(due_jobs._RETENTION)


@pytest.mark.parametrize("job", sorted(changeable()))
def test_deletion_asks_the_database_how_long_rows_are_kept(job: str) -> None:
    assert f"shop.retention('{job}')" in due_jobs._RETENTION[job](1).sql


def test_setting_replaces_how_long_rows_are_kept(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETENTION", "idempotency=2 days, sessions=10 days")
    insert = INSERTS["idempotency"]
    with psycopg.connect(shop.admin_url) as connection:
        connection.execute("delete from shop.idempotency")
        for age in ("3 days", "1 day"):
            connection.execute(insert, {"age": age})

    shop.tick("sweep")
    before = len(shop.sql("select 1 from shop.idempotency"))
    migrate(shop.admin_url)
    shop.tick("sweep")

    assert (before, len(shop.sql("select 1 from shop.idempotency"))) == (2, 1)
    ages = shop.sql("select shop.retention('sessions')::text, shop.retention('alarms')::text as a")
    assert ages == [{"retention": "10 days", "a": "180 days"}]


@pytest.mark.parametrize(
    "setting",
    ["carts=1 day", "sessions", "sessions=", "sessions=long", "sessions=-1 days",
     "sessions=1 month", "idempotency=1 hour", "login_failures=14 minutes", "outbox=90 days",
     "sessions=1 day'; x"],
)  # fmt: skip
def test_setting_that_is_no_retention_is_rejected_by_name(setting: str) -> None:
    with pytest.raises(ValueError, match=r"^RETENTION: "):
        retention_statement(setting)


@pytest.mark.parametrize(("table", "rule"), RULES, ids=[rule.job for _, rule in RULES])
def test_sweep_deletes_rows_past_their_retention_and_no_younger_ones(
    shop: ShopHarness, table: Table, rule: DeletedAfter
) -> None:
    user = shop.person().user_id
    with psycopg.connect(shop.admin_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")  # an old row of the inbox
        connection.execute(SQL("delete from shop.{}").format(Identifier(table.name)))
        connection.execute("set session_replication_role = origin")
        for distance in ("2 hours", "-1 minute"):
            row = connection.execute(
                "select %s::interval + %s::interval", (rule.age, distance)
            ).fetchone()
            assert row is not None
            values = {"age": row[0], "user": user}
            connection.execute(INSERTS[rule.job], values)

    assert shop.tick("sweep").status == 204

    left = shop.sql(
        f"select {rule.column} > now() - interval '{rule.age}' as is_younger "
        f"from shop.{table.name} where {rule.column} is not null"
    )
    assert left == [{"is_younger": True}]
    assert shop.sql("select 1 from shop.due_work where kind = 'retention' and due_at < now()") == []


def test_claim_is_kept_while_its_event_is_in_the_outbox(shop: ShopHarness) -> None:
    (event,) = shop.sql(
        "insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at) "
        "values (gen_random_uuid(), '/shop/x', 't', '1', '{}', '', now() + interval '1 day') "
        "returning event_id::text as id"
    )
    claim = (
        "insert into shop.inbox (consumer, source, event_id, outcome, received_at) "
        "values ('c', '/shop/x', %s, 'taken', now() - interval '61 days')"
    )
    for event_id in (event["id"], "01800000-883c-7def-a582-8efff12f0746"):
        shop.sql(claim, event_id)

    shop.tick("sweep")

    assert shop.sql("select event_id from shop.inbox") == [{"event_id": event["id"]}]


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("delete from shop.inbox where event_id = 'young'", psycopg.errors.RestrictViolation),
        ("update shop.inbox set outcome = 'x'", psycopg.errors.RestrictViolation),
        ("truncate shop.inbox", psycopg.errors.RestrictViolation),
    ],
)
def test_claim_of_less_than_60_days_is_not_deleted_and_none_is_updated(
    shop: ShopHarness, statement: LiteralString, error: type[psycopg.Error]
) -> None:
    shop.sql(
        "insert into shop.inbox (consumer, source, event_id, outcome, received_at) "
        "values ('c', 's', 'young', '', now() - interval '59 days'), "
        "('c', 's', 'old', '', now() - interval '61 days')"
    )

    with pytest.raises(error):
        shop.sql(statement)

    assert len(shop.sql("select 1 from shop.inbox")) == 2


def test_invariants_hold_for_an_order_whose_events_were_deleted(flow: FlowHarness) -> None:
    """I-17, I-20 and Q-07 compare the history, the outbox and the inbox."""
    flow.shop.person().paid_order(flow.shop.product())
    flow.run_until_idle()
    with psycopg.connect(flow.shop.admin_url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        for table, column in (
            ("outbox", "created_at"),
            ("outbox", "done_at"),
            ("inbox", "received_at"),
            ("transitions", "at"),
        ):
            update = SQL("update shop.{} set {} = {} - interval '61 days'")
            names = (Identifier(table), Identifier(column), Identifier(column))
            connection.execute(update.format(*names))
        for statement in MAKE_IDS_OLD:
            connection.execute(statement)

    (placed,) = [row for row in flow.shop.outbox(undone=False) if row["type"] == "order.placed"]
    assert flow.shop.deliver(placed, "charge").status == 204, "a known event, consumed before"

    flow.shop.tick("sweep")

    for table in ("outbox", "inbox"):
        assert flow.shop.sql(f"select 1 from shop.{table}") == []
    found = find_violations(flow.shop.admin_url, flow.external_records(), at_rest=True)
    assert not {"I-17", "I-20", "Q-07"} & {violation.id for violation in found}
    assert flow.shop.deliver(placed, "charge").error == "STALE_EVENT"
