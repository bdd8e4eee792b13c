"""sweep and settle: one row that cannot be handled raises an alert and does not stop the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID, uuid4

import pytest

from shop.due_jobs import JobKind
from tests.harness import PAID, EventBroker, FlowHarness, MakeShop, ShopHarness, event_name
from tests.ledger_postings import insert_posting
from tests.tools.payment_simulator.simulator_process import charge_call
from tools.operations.quarantine import run_release

PRODUCT_CHANGED = '{"productId": 1, "productVersion": 1}'


def _plant_due_job(shop: ShopHarness, kind: JobKind, subject: str) -> None:
    """Makes the view return one more row, which was due before all others."""
    (view,) = shop.sql("select pg_get_viewdef('shop.due_work'::regclass) as sql")
    shop.sql(
        f"create or replace view shop.due_work as {view['sql'].rstrip().rstrip(';')} "
        f"union all select '{kind}', '{subject}', now() - interval '1 day'"
    )


def _insert_event(shop: ShopHarness, **columns: str) -> UUID:
    """A row of the outbox that is due before all others."""
    values = {
        "type": "product.changed",
        "source": "/shop/manage_products",
        "data": PRODUCT_CHANGED,
        "traceparent": "",
    } | columns
    (row,) = shop.sql(
        "insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at) "
        "values (%s, %s, %s, '1', %s, %s, now() - interval '1 day') returning event_id",
        uuid4(),
        values["source"],
        values["type"],
        values["data"],
        values["traceparent"],
    )
    event_id: UUID = row["event_id"]
    return event_id


def _published(broker: EventBroker) -> list[str]:
    return [event_name(message) for message in broker.take()]


@pytest.mark.parametrize(
    "kind",
    [
        kind
        for kind in JobKind
        # their ids are not read, or an unknown name means no work
        if kind not in (JobKind.OUTBOX, JobKind.RECONCILE, JobKind.AGE_LIMIT)
    ],
)
def test_due_job_with_an_unparsable_id_raises_an_alert_and_the_others_run(
    flow: FlowHarness, kind: JobKind
) -> None:
    order = flow.shop.person().order(flow.shop.product())
    flow.discard_events()
    _plant_due_job(flow.shop, kind, "not-an-id")

    flow.sweep_all()

    assert flow.outcome(order) == PAID
    assert flow.operator_alerts() == [f"stuck_{kind}"]


@pytest.mark.parametrize("kind", [JobKind.EXPIRE, JobKind.FINISH])
def test_order_that_a_constraint_rejects_raises_an_alert_and_the_others_run(
    flow: FlowHarness, kind: JobKind
) -> None:
    buyer, product = flow.shop.person(), flow.shop.product()
    stuck, other = (buyer.order(product, method="CARD_DECLINED") for _ in range(2))
    flow.deliver()
    flow.shop.sql(
        "create function shop.reject() returns trigger language plpgsql as "
        "$$ begin raise exception using errcode = 'check_violation'; end $$"
    )
    flow.shop.sql(
        "create trigger reject before insert on shop.transitions for each row "
        f"when (new.order_id = '{stuck['id']}') execute function shop.reject()"
    )
    for order in (stuck, other):
        if kind == JobKind.EXPIRE:
            flow.expire_order(order["id"])
        else:
            flow.shop.sql(
                "update shop.orders set status = 'CANCELLING', reason = 'USER' where order_id = %s",
                order["id"],
            )

    flow.sweep_all()

    assert flow.order_state(other["id"])["status"] == "CANCELLED"
    assert flow.order_state(stuck["id"])["status"] != "CANCELLED"
    assert flow.operator_alerts() == [f"stuck_{kind}"]


@pytest.mark.parametrize(
    "columns",
    [
        {"type": "order.teleported"},
        {"type": "teleport.ordered"},
        {"type": ""},
        {"data": "{}"},
        {"data": "null"},
        {"data": '{"productId": "1", "productVersion": 1}'},
        {"data": '{"productId": 1, "productVersion": 1, "price": 5}'},
        {"source": ""},
        {"source": "/shop/\u0007bell"},
        {"source": "/shop/" + "x" * 5_000},
    ],
)
def test_invalid_event_is_quarantined_at_once_and_the_others_are_published(
    flow: FlowHarness, columns: dict[str, str]
) -> None:
    invalid = _insert_event(flow.shop, **columns)
    _insert_event(flow.shop)

    flow.shop.tick("sweep")

    assert _published(flow.broker) == ["product.changed"]
    assert flow.operator_alerts() == ["event_parked"]
    (row,) = flow.shop.sql(
        "select parked_at, done_at from shop.outbox where event_id = %s", invalid
    )
    assert row["parked_at"] is not None and row["done_at"] is None
    assert flow.due_jobs() == []


@pytest.mark.parametrize("traceparent", ["\r\nx: y", "추적", "00-0-0-00"])
def test_event_with_an_invalid_traceparent_is_published_without_it(
    flow: FlowHarness, traceparent: str
) -> None:
    _insert_event(flow.shop, traceparent=traceparent)

    flow.shop.tick("sweep")

    ((headers, _),) = flow.broker.take()
    assert "traceparent" not in headers and "ce-traceparent" not in headers
    assert flow.operator_alerts() == []


def test_event_that_the_broker_rejects_stays_due_and_the_others_are_published(
    flow: FlowHarness,
) -> None:
    rejected = _insert_event(flow.shop)
    _insert_event(flow.shop)
    flow.broker.statuses[str(rejected)] = 413

    flow.shop.tick("sweep")

    assert _published(flow.broker) == ["product.changed"]
    (alert,) = flow.shop.sql("select kind, subject, detail from shop.alarms")
    assert (alert["kind"], alert["subject"]) == ("event_rejected", "product.changed")
    assert str(rejected) in alert["detail"]
    (row,) = flow.shop.sql(
        "select parked_at, sent_at from shop.outbox where event_id = %s", rejected
    )
    assert row == {"parked_at": None, "sent_at": None}


def test_event_that_is_a_day_old_is_quarantined_only_if_it_was_published(
    flow: FlowHarness,
) -> None:
    sent, never_sent = _insert_event(flow.shop), _insert_event(flow.shop)
    flow.shop.sql("update shop.outbox set created_at = now() - interval '25 hours'")
    flow.shop.sql("update shop.outbox set tries = 1, sent_at = now() where event_id = %s", sent)

    flow.shop.tick("sweep")

    parked = flow.shop.sql("select event_id from shop.outbox where parked_at is not null")
    assert [row["event_id"] for row in parked] == [sent]
    assert [headers["ce-id"] for headers, _ in flow.broker.take()] == [str(never_sent)]


def test_released_event_is_published_and_its_alert_resolved(flow: FlowHarness) -> None:
    event = _insert_event(flow.shop, type="order.teleported")
    flow.shop.tick("sweep")
    flow.shop.sql("update shop.outbox set type = 'product.changed'")

    released = run_release(flow.shop.role_url("ops"), [str(event)], as_json=False)
    again = run_release(flow.shop.role_url("ops"), [str(event)], as_json=False)
    flow.shop.tick("sweep")

    assert (released, again) == (0, 1)
    assert [headers["ce-id"] for headers, _ in flow.broker.take()] == [str(event)]
    assert flow.shop.sql("select 1 from shop.alarms where resolved_at is null") == []


def test_transaction_that_a_constraint_rejects_does_not_stop_reconciliation(
    flow: FlowHarness,
) -> None:
    buyer, product = flow.shop.person(), flow.shop.product()
    stuck = buyer.order(product, method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    stuck_key = flow.payment_key(stuck["id"])
    flow.shop.sql(
        "create function shop.reject() returns trigger language plpgsql as "
        "$$ begin raise exception using errcode = 'check_violation'; end $$"
    )
    flow.shop.sql(
        "create trigger reject before insert on shop.transitions for each row "
        f"when (new.order_id = '{stuck['id']}') execute function shop.reject()"
    )
    unmatched = charge_call()
    assert flow.simulator.provider().charge(unmatched).kind == "captured"
    flow.shop.sql("update shop.reconciliation set cursor = '', next_run_at = now()")

    flow.shop.tick("sweep")

    alerts = flow.shop.sql("select kind, subject from shop.alarms order by kind")
    assert {"kind": "ghost_charge", "subject": unmatched.key} in alerts
    assert {"kind": "stuck_reconcile", "subject": stuck_key} in alerts
    assert "reconcile" not in flow.due_jobs()


@contextmanager
def _provider_listing(*entries: dict[str, Any]) -> Generator[str]:
    """A provider that lists these entries and nothing else."""
    body = json.dumps({"entries": entries, "next_cursor": "9", "has_more": False}).encode()

    class Listing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Suppresses the access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Listing)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_invalid_entry_of_the_provider_raises_an_alert_and_the_others_are_compared(
    make_shop: MakeShop,
) -> None:
    entry = {
        "kind": "charge",
        "key": "shop:valid",
        "charge_key": "shop:valid",
        "amount_minor": 500,
        "currency": "KRW",
        "provider_ref": "r-1",
        "at": 1_700_000_000,
    }
    invalid = (
        {"key": "shop:kind", "kind": "dispute"},
        entry | {"key": "shop:money", "currency": "₩"},
    )
    with _provider_listing(*(entry | change for change in invalid), entry) as url:
        shop = make_shop(payment_provider_url=url)
        shop.sql("update shop.reconciliation set next_run_at = now()")

        assert shop.tick("sweep").status == 204

    alerts = shop.sql("select kind, subject from shop.alarms order by subject")
    assert [tuple(alert.values()) for alert in alerts] == [
        ("stuck_reconcile", "shop:kind"),
        ("stuck_reconcile", "shop:money"),
        ("ghost_charge", "shop:valid"),
    ]
    (row,) = shop.sql("select cursor from shop.reconciliation")
    assert row["cursor"] == "9"


def test_day_with_a_currency_that_no_event_can_name_is_closed_with_an_alert(
    shop: ShopHarness,
) -> None:
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")
    insert_posting(shop, "CAPTURE", 700, "2026-02-01 12:00+09", currency="kr1")
    insert_posting(shop, "CAPTURE", 900, "2026-02-02 12:00+09")

    assert shop.tick("settle").status == 204

    closed = shop.sql("select day::text, currency from shop.settlements order by day, currency")
    assert [tuple(row.values()) for row in closed] == [
        ("2026-02-01", "KRW"),
        ("2026-02-01", "kr1"),
        ("2026-02-02", "KRW"),
    ]
    (alert,) = shop.sql("select kind, subject from shop.alarms")
    assert tuple(alert.values()) == ("stuck_close_day", "2026-02-01 kr1")
    assert [event["data"]["settlementDate"] for event in shop.outbox(undone=False)] == [
        "2026-02-01",
        "2026-02-02",
    ]


def test_day_that_cannot_be_closed_raises_an_alert(shop: ShopHarness) -> None:
    insert_posting(shop, "CAPTURE", 10_000, "2026-02-01 12:00+09")
    shop.sql(
        "create function shop.reject() returns trigger language plpgsql as "
        "$$ begin raise exception using errcode = 'check_violation'; end $$"
    )
    shop.sql(
        "create trigger reject before insert on shop.settlements "
        "for each row execute function shop.reject()"
    )

    assert shop.tick("settle").status == 204

    (alert,) = shop.sql("select kind, subject from shop.alarms")
    assert tuple(alert.values()) == ("stuck_close_day", "2026-02-01")
