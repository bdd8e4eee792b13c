"""sweep: due jobs: unsent events, open payments, expiry, reconciliation and retention."""

# Reconciliation is interrupted between two comparisons.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from shop import due_jobs, reconciliation
from shop.adapters.payment_provider.protocol import ProviderTransaction
from shop.adapters.statements import Statement
from shop.primitives.errors import Unavailable
from shop.registry import spec_of
from shop.runtime.event_context import EventContext
from tests.harness import (
    PAID,
    UNREACHABLE,
    FlowHarness,
    MakeShop,
    assert_idle_and_consistent,
    order_body,
    run_concurrently,
)
from tests.rows import rows_of
from tests.sample_requests import Samples
from tests.tools.payment_simulator.simulator_process import charge_call


def test_unconsumed_event_is_sent_again_with_the_same_id(flow: FlowHarness) -> None:
    flow.shop.person().order(flow.shop.product())
    first = {headers["ce-id"] for headers, _ in flow.broker.take()}

    flow.shop.sql("update shop.outbox set next_try_at = now()")
    flow.shop.tick("sweep")

    again = {headers["ce-id"] for headers, _ in flow.broker.take()}
    assert first and first <= again


def test_one_tick_relays_every_due_event_once(flow: FlowHarness) -> None:
    """More than one batch, all due at the same time."""
    events = due_jobs.RELAY_BATCH + 500
    flow.shop.sql(
        "insert into shop.outbox (event_id, source, type, subject, data, traceparent, next_try_at) "
        "select gen_random_uuid(), '/shop/place_order', 'order.placed', id::text, "
        "jsonb_build_object('orderId', id), '', now() "
        "from (select gen_random_uuid() as id from generate_series(1, %s)) o",
        events,
    )

    flow.shop.tick("sweep")

    published = [headers["ce-id"] for headers, _ in flow.broker.take()]
    assert len(published) == len(set(published)) == events
    assert flow.shop.sql("select count(*) from shop.outbox where sent_at is null") == [{"count": 0}]


def test_unreachable_broker_keeps_the_event_due(make_shop: MakeShop) -> None:
    """The outbox row stays due until the broker accepts the event."""
    samples = Samples(make_shop(broker_url=UNREACHABLE))
    samples.order()
    for _ in range(3):
        samples.shop.sql("update shop.outbox set next_try_at = now()")
        assert samples.shop.tick("sweep").status == 204

    (row,) = [r for r in samples.shop.outbox(undone=False) if r["type"] == "order.placed"]
    assert row["parked_at"] is None
    if row["done_at"] is None:
        assert row["next_try_at"] > datetime.now(UTC) - timedelta(minutes=1)


def test_expired_order_is_cancelled_and_its_stock_released(make_shop: MakeShop) -> None:
    """Reservations expire with their order."""
    samples = Samples(make_shop(order_soft_expiry_seconds=0, payment_provider_url=UNREACHABLE))
    order = samples.order()
    (held,) = samples.shop.sql("select order_id::text, status from shop.reservations")
    assert held == {"order_id": order, "status": "HELD"}
    samples.shop.sql("update shop.orders set charge_at = null")  # the charge was tried

    assert samples.shop.tick("sweep").status == 204

    assert samples.owner.get(f"/orders/{order}").json["status"] == "CANCELLED"
    assert samples.shop.stock_of(samples.product) == (100_000, 0)


def test_declined_order_expires_unpaid(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(stock=1), method="CARD_DECLINED")
    flow.deliver()
    assert "expire" not in flow.due_jobs()

    flow.expire_order(order["id"])
    flow.sweep_all()

    assert flow.outcome(order) == ("CANCELLED", ["DECLINED"], [], ["RELEASED"])
    assert flow.order_state(order["id"])["reason"] == "EXPIRED"
    assert_idle_and_consistent(flow)


def test_open_payment_delays_expiry_until_the_hard_limit(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(), method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    flow.expire_order(order["id"])
    assert flow.due_jobs() == []

    flow.expire_order(order["id"], hard=True)
    assert flow.due_jobs() == ["expire"]
    flow.shop.tick("sweep")

    assert flow.order_state(order["id"])["reason"] == "EXPIRED"
    assert_idle_and_consistent(flow)
    assert flow.outcome(order) == ("CANCELLED", ["CAPTURED"], ["SUCCEEDED"], ["RELEASED"])


ROUNDS = int(os.environ.get("RACE_ROUNDS", "20"))


def test_concurrent_expiry_and_accepted_charge_end_paid(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.order(product)
        charge = flow.take_charge_delivery()
        flow.expire_order(order["id"], waits_for_charge=True)

        run_concurrently(charge, lambda: flow.shop.tick("sweep"))

        flow.run_until_idle()
        assert flow.outcome(order) == PAID
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("hard", [False, True])
def test_payment_accepted_before_the_expiry_is_tried_after_it(
    flow: FlowHarness, hard: bool
) -> None:
    """Neither the timer nor the next buyer takes the stock of an accepted payment."""
    buyer, other, product = flow.shop.person(), flow.shop.person(), flow.shop.product(stock=1)
    order = buyer.order(product, method="CARD_DECLINED")
    flow.deliver()
    accepted = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    flow.discard_events()
    flow.expire_order(order["id"], hard=hard, waits_for_charge=True)

    assert "expire" not in flow.due_jobs()
    refused = other.post("/orders", order_body(product))
    flow.shop.sql("update shop.orders set charge_at = now()")
    flow.shop.tick("sweep")

    assert accepted.status == 201
    assert (refused.status, refused.error) == (409, "OUT_OF_STOCK")
    assert flow.outcome(order) == ("PAID", ["DECLINED", "CAPTURED"], [], ["COMMITTED"])
    assert_idle_and_consistent(flow)


def test_concurrent_sweeps_and_deliveries_charge_each_order_once(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS * 6)
    for _ in range(max(ROUNDS // 4, 3)):
        orders = [buyer.order(product) for _ in range(6)]
        for order in orders[::2]:
            buyer.patch(f"/orders/{order['id']}/cancel")
        flow.shop.sql("update shop.orders set charge_at = now() where charge_at is not null")
        flow.shop.sql("update shop.outbox set next_try_at = now() where done_at is null")

        answers = run_concurrently(*[lambda: flow.shop.tick("sweep").status] * 2, flow.deliver)

        assert answers[:2] == [204, 204]
    assert_idle_and_consistent(flow)
    captured = flow.shop.sql("select provider_key from shop.payments where status = 'CAPTURED'")
    assert all(flow.simulator.captures(row["provider_key"]) == 1 for row in captured)


def test_payment_with_the_reference_of_another_raises_an_alert_and_the_others_are_swept(
    flow: FlowHarness,
) -> None:
    """The provider returns one reference for two payments, which a unique constraint rejects."""
    buyer, product = flow.shop.person(), flow.shop.product(price=900, stock=9)
    first = buyer.paid_order(product)
    stuck, free = (buyer.order(product, method="CARD_TIMEOUT_AFTER") for _ in range(2))
    flow.deliver()
    intents = {i["key"]: i["provider_ref"] for i in flow.simulator.records()["intents"]}
    stuck_key = flow.payment_key(stuck["id"])
    flow.shop.sql(
        "update shop.payments set provider_ref = %s where order_id = %s",
        intents[stuck_key],
        first["id"],
    )

    flow.sweep_all()
    flow.reconcile()

    assert flow.order_state(free["id"])["status"] == "PAID"
    assert flow.order_state(stuck["id"])["status"] == "PENDING"
    assert flow.operator_alerts() == ["reference_conflict"]


def test_row_that_violates_a_constraint_raises_an_alert_and_the_others_are_swept(
    flow: FlowHarness,
) -> None:
    """A posting without its capture, which a bug could write, collides with the real one."""
    buyer, product = flow.shop.person(), flow.shop.product(price=900, stock=9)
    stuck, free = (buyer.order(product, method="CARD_TIMEOUT_AFTER") for _ in range(2))
    flow.deliver()
    flow.shop.sql(
        "insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, "
        "currency) select 'CAPTURE', payment_id, order_id, 'psp_receivable', 'order_escrow', 900, "
        "'KRW' from shop.payments where order_id = %s",
        stuck["id"],
    )

    flow.sweep_all()

    assert flow.order_state(free["id"])["status"] == "PAID"
    assert flow.order_state(stuck["id"])["status"] == "PENDING"
    assert flow.operator_alerts() == ["stuck_payment"]


def test_unmatched_charge_raises_one_operator_alert(flow: FlowHarness) -> None:
    unmatched = charge_call()
    assert flow.simulator.provider().charge(unmatched).kind == "captured"

    flow.reconcile()
    flow.reconcile()

    assert flow.operator_alerts() == ["ghost_charge"]


def test_reconciliation_is_due_five_minutes_after_a_payment_and_then_hourly(
    flow: FlowHarness,
) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    assert_idle_and_consistent(flow)
    flow.shop.sql("update shop.reconciliation set ran_at = now() - interval '1 hour'")
    for minutes, kinds in ((4, []), (6, ["reconcile"])):
        flow.shop.sql(
            "update shop.payments set created_at = now() - %s", timedelta(minutes=minutes)
        )
        assert flow.due_jobs() == kinds

    flow.shop.tick("sweep")

    (row,) = flow.shop.sql(
        "select min(due_at) > now() + interval '50 minutes' as later from shop.due_work "
        "where kind = 'reconcile'"
    )
    assert row["later"]


def test_reconciliation_is_claimed_by_one_of_two_sweeps(flow: FlowHarness) -> None:
    flow.shop.sql("update shop.reconciliation set next_run_at = now()")

    (provider,) = flow.shop.sql("select provider from shop.reconciliation")

    with psycopg.connect(flow.shop.admin_url, autocommit=True) as connection:
        sweepers = [connection.execute(reconciliation.TAKE.sql, provider) for _ in range(2)]

    assert [sweeper.rowcount for sweeper in sweepers] == [1, 0]


@pytest.mark.parametrize(
    ("page", "read"), [(2, [0, 1, 0, 1]), (1, [0, 0, 1])], ids=["at its end", "after a page"]
)
def test_start_over_during_a_reconciliation_is_not_overwritten_by_it(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch, page: int, read: list[int]
) -> None:
    """The operator starts over after the run has read a page and before it saves its position."""
    charges = [charge_call() for _ in range(2)]
    for charge in charges:
        assert flow.simulator.provider().charge(charge).kind == "captured"
    keys = [charge.key for charge in charges]
    compared: list[str] = []

    def start_over_at_the_first(_context: EventContext, entry: ProviderTransaction) -> None:
        if not compared:
            flow.shop.sql(reconciliation.start_over().sql)
        compared.append(entry.key)

    monkeypatch.setattr(due_jobs, "PAGE", page)
    monkeypatch.setattr(due_jobs, "_compare", start_over_at_the_first)
    flow.shop.sql("update shop.reconciliation set next_run_at = now()")
    flow.shop.tick("sweep")
    is_due = "select next_run_at <= now() as is_due from shop.reconciliation"
    assert flow.shop.sql(is_due) == [{"is_due": True}]

    for _ in range(3):  # a run to which the provider did not answer in time is made again
        flow.shop.sql("update shop.reconciliation set next_run_at = now()")
        flow.shop.tick("sweep")

    assert [keys.index(key) for key in compared if key in keys] == read


def test_run_that_a_later_one_has_overtaken_changes_nothing(flow: FlowHarness) -> None:
    (provider,) = (
        row["provider"] for row in flow.shop.sql("select provider from shop.reconciliation")
    )
    with psycopg.connect(flow.shop.admin_url, autocommit=True) as connection:

        def run(statement: Statement[Any]) -> list[tuple[Any, ...]]:
            return rows_of(connection.execute(statement.sql, statement.parameters))

        def claim() -> int:
            connection.execute("update shop.reconciliation set next_run_at = now()")
            return int(run(reconciliation.take(provider))[0][0])

        paused, later = claim(), claim()
        assert run(reconciliation.save_position(provider, later, "later")) == [(provider,)]
        assert run(reconciliation.save_position(provider, paused, "paused")) == []
        run(reconciliation.continue_now(provider, paused))
        run(reconciliation.finish(provider, paused, "paused", found=True))

    (row,) = flow.shop.sql(
        "select cursor, next_run_at - now() between interval '1 minute' and interval '2 minutes' "
        "as is_claimed from shop.reconciliation"
    )
    assert row == {"cursor": "later", "is_claimed": True}


def _record_compared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the comparison; returns the list to which it appends each transaction's key."""
    compared: list[str] = []

    def record(_context: EventContext, entry: ProviderTransaction) -> None:
        compared.append(entry.key)

    monkeypatch.setattr(due_jobs, "_compare", record)
    return compared


def test_reconciliation_skips_transactions_that_the_shop_has_recorded(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer = flow.shop.person()
    kept, given_back = (buyer.paid_order(flow.shop.product()) for _ in range(2))
    buyer.patch(f"/orders/{given_back['id']}/cancel")
    flow.run_until_idle()
    compared = _record_compared(monkeypatch)
    flow.shop.sql("update shop.reconciliation set cursor = ''")

    flow.reconcile()
    key = flow.payment_key(kept["id"])
    (refund,) = flow.shop.sql("select provider_key from shop.refunds")
    assert not {key, refund["provider_key"]} & set(compared)

    flow.shop.sql("update shop.reconciliation set cursor = ''")
    flow.shop.sql("update shop.payments set status = 'UNKNOWN' where provider_key = %s", key)
    flow.reconcile()
    assert key in compared, "a capture that the shop has not recorded is compared"


def test_interrupted_reconciliation_resumes_where_it_stopped(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = flow.simulator.provider()
    for _ in range(3):
        assert provider.charge(charge_call()).kind == "captured"
    monkeypatch.setattr(due_jobs, "PAGE", 1)
    compare = due_jobs._compare
    seen: list[str] = []

    def fail_at_the_third(context: EventContext, entry: ProviderTransaction) -> None:
        seen.append(entry.key)
        if len(seen) == 3:
            raise Unavailable("the third comparison fails")
        compare(context, entry)

    monkeypatch.setattr(due_jobs, "_compare", fail_at_the_third)
    flow.reconcile()
    first_run = list(seen)
    flow.reconcile()

    assert len(first_run) == 3
    assert seen[3] == first_run[2], "it resumes at its cursor"


def test_reconciliation_over_its_time_limit_continues_in_the_next_tick(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = flow.simulator.provider()
    calls = [charge_call() for _ in range(3)]
    for call in calls:
        assert provider.charge(call).kind == "captured"
    monkeypatch.setattr(due_jobs, "PAGE", 1)
    monkeypatch.setattr(due_jobs, "RECONCILE_SECONDS", 0.0)
    compared = _record_compared(monkeypatch)

    flow.reconcile()
    assert compared == [], "the time limit was zero"
    assert flow.due_jobs() == ["reconcile"]

    monkeypatch.setattr(due_jobs, "RECONCILE_SECONDS", 15.0)
    flow.shop.tick("sweep")
    assert compared == [call.key for call in calls]
    assert flow.due_jobs() == []


def test_unreachable_provider_postpones_reconciliation(flow: FlowHarness) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    assert_idle_and_consistent(flow)
    flow.shop.sql("update shop.reconciliation set next_run_at = now()")
    flow.simulator.stop()
    try:
        assert flow.shop.tick("sweep").status == 204
    finally:
        flow.simulator.start()

    assert flow.due_jobs() == [], "a provider that is down must not keep the sweep awake"


def test_retention_deletes_in_short_transactions(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_jobs, "DELETE_BATCH", 2)
    flow.shop.sql("create table shop.deletions (transaction_id xid8)")
    flow.shop.sql(
        "create function shop.note_deletion() returns trigger language plpgsql security definer as "
        "$$ begin insert into shop.deletions values (pg_current_xact_id()); return old; end $$"
    )
    flow.shop.sql(
        "create trigger note_deletion before delete on shop.idempotency "
        "for each row execute function shop.note_deletion()"
    )
    flow.shop.sql(
        "insert into shop.idempotency (user_id, scope, key, fingerprint, state, created_at) "
        "select 0, 'POST /test', 'key-of-this-test-' || n, 'x', 'STARTED', "
        "now() - interval '8 days' from generate_series(1, 5) n"
    )

    flow.shop.tick("sweep")

    deletions = flow.shop.sql("select count(*) as n from shop.deletions group by transaction_id")
    assert sorted(row["n"] for row in deletions) == [1, 2, 2]


def test_every_kind_of_due_job_starts_a_tick() -> None:
    (schedule,) = spec_of("sweep").schedules

    assert set(schedule.due_kinds) == set(due_jobs.JobKind)
