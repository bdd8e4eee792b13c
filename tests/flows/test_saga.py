"""The whole saga on real servers, with all that goes wrong on the way; rest is always right."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from shop import due_jobs, reconciliation
from shop.primitives.errors import Unavailable
from tests.harness import FlowHarness, assert_idle_and_consistent, assert_invariants
from tests.tools.payment_simulator.simulator_process import charge_call
from tests.waiting import wait_for


def _of(flow: FlowHarness, order: dict[str, Any]) -> tuple[Any, ...]:
    row = flow.order_state(order["id"])
    return row["status"], row["payments"], row["refunds"], row["stock"]


PAID_FOR = ("PAID", ["CAPTURED"], [], ["COMMITTED"])
GIVEN_BACK = ("CANCELLED", ["CAPTURED"], ["SUCCEEDED"], ["RETURNED"])
NEVER_PAID = ("CANCELLED", [], [], ["RELEASED"])

# ---------------------------------------------------------------- delivery


def test_an_order_is_paid_and_everything_rests(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(stock=3), 2)

    flow.deliver()

    assert _of(flow, order) == PAID_FOR
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("at_once", [False, True])
def test_every_event_three_times(flow: FlowHarness, at_once: bool) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=30)
    paid, cancelled = buyer.order(product), buyer.order(product)
    flow.deliver(times=3, at_once=at_once)
    assert buyer.patch(f"/orders/{cancelled['id']}/cancel").status == 200

    flow.deliver(times=3, at_once=at_once)

    assert _of(flow, paid) == PAID_FOR
    assert _of(flow, cancelled) == GIVEN_BACK
    assert_idle_and_consistent(flow)
    assert flow.simulator.captures(flow.payment_key(paid["id"])) == 1


@pytest.mark.parametrize("seed", range(3))
def test_events_in_any_order_again_and_after_rest(flow: FlowHarness, seed: int) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=30)
    orders = [buyer.order(product) for _ in range(4)]
    for order in orders[::2]:
        buyer.patch(f"/orders/{order['id']}/cancel")

    flow.deliver(times=2, shuffled_by=seed)
    assert_idle_and_consistent(flow)
    flow.broker.messages = list(flow.broker.all)
    flow.deliver(shuffled_by=seed + 1)

    assert [flow.order_state(order["id"])["status"] for order in orders] == [
        "CANCELLED",
        "PAID",
        "CANCELLED",
        "PAID",
    ]
    assert_idle_and_consistent(flow)


def test_every_event_is_lost_and_the_timers_alone_bring_rest(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=30)
    paid, cancelled, declined = (
        buyer.order(product),
        buyer.order(product),
        buyer.order(product, method="CARD_DECLINED"),
    )
    flow.run_timers_only()
    assert buyer.patch(f"/orders/{cancelled['id']}/cancel").status == 200
    flow.expire_order(declined["id"])

    flow.run_timers_only()
    flow.sweep_all()

    assert _of(flow, paid) == PAID_FOR
    assert _of(flow, cancelled) == GIVEN_BACK
    assert _of(flow, declined) == ("CANCELLED", ["DECLINED"], [], ["RELEASED"])
    assert_invariants(flow, at_rest=False)
    assert_idle_and_consistent(flow)  # what was lost is sent again, and taken


def test_a_lost_event_is_sent_again_with_its_own_id(flow: FlowHarness) -> None:
    flow.shop.person().order(flow.shop.product())
    first = {headers["ce-id"] for headers, _ in flow.broker.take()}

    flow.shop.sql("update shop.outbox set next_try_at = now()")
    flow.shop.tick("sweep")

    again = {headers["ce-id"] for headers, _ in flow.broker.take()}
    assert first and first <= again


# ---------------------------------------------------------------- declines


def test_declined_then_paid_again(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product()
    order = buyer.order(product, method="CARD_DECLINED")
    flow.deliver()
    assert _of(flow, order) == ("PENDING", ["DECLINED"], [], ["HELD"])

    answer = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    assert answer.status == 201
    flow.deliver()

    assert _of(flow, order) == ("PAID", ["DECLINED", "CAPTURED"], [], ["COMMITTED"])
    assert_idle_and_consistent(flow)


def test_pay_again_whose_event_is_lost(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product()
    order = buyer.order(product, method="CARD_DECLINED")
    flow.deliver()
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})

    flow.run_timers_only()

    assert flow.order_state(order["id"])["status"] == "PAID"
    assert_idle_and_consistent(flow)


def test_declined_too_often(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=1)
    order = buyer.order(product, method="CARD_DECLINED")
    for _ in range(2):
        flow.deliver()
        again = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD_DECLINED"})
        assert again.status == 201

    flow.deliver()

    assert _of(flow, order) == ("CANCELLED", ["DECLINED"] * 3, [], ["RELEASED"])
    assert flow.order_state(order["id"])["reason"] == "DECLINED"
    again = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    assert (again.status, again.error) == (409, "NOT_PAYABLE")
    assert_idle_and_consistent(flow)


# ---------------------------------------------------------------- unclear answers


@pytest.mark.parametrize(
    "method",
    [
        "CARD_TIMEOUT_BEFORE",
        "CARD_TIMEOUT_AFTER",
        "CARD_ERROR_BEFORE",
        "CARD_ERROR_AFTER",
        "CARD_RATE_LIMITED",
        "CARD_WRONG_AMOUNT",
        "CARD_WRONG_CURRENCY",
        "CARD_WRONG_KEY",
    ],
)
def test_an_unclear_answer_is_asked_again_with_the_same_key(flow: FlowHarness, method: str) -> None:
    order = flow.shop.person().order(flow.shop.product(), method=method)

    flow.deliver()
    assert flow.order_state(order["id"])["status"] in ("PENDING", "PAID"), "unknown is not failed"
    flow.run_timers_only()

    assert _of(flow, order) == PAID_FOR
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 1
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize(
    ("method", "payment", "refunds"),
    [
        ("CARD_TIMEOUT_BEFORE", "VOIDED", []),
        ("CARD_TIMEOUT_AFTER", "CAPTURED", ["SUCCEEDED"]),
        ("CARD_ERROR_AFTER", "CAPTURED", ["SUCCEEDED"]),
    ],
)
def test_cancelled_while_the_payment_is_unclear(
    flow: FlowHarness, method: str, payment: str, refunds: list[str]
) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(stock=1), method=method)
    flow.deliver()

    cancelled = buyer.patch(f"/orders/{order['id']}/cancel").json
    assert cancelled["status"] == "CANCELLING"
    assert flow.order_state(order["id"])["stock"] == ["RELEASED"], "stock is back at once"
    flow.run_timers_only()

    assert _of(flow, order) == ("CANCELLED", [payment], refunds, ["RELEASED"])
    assert_idle_and_consistent(flow)


def test_a_cancelled_orders_open_payment_is_asked_about_at_once(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    assert "payment" not in flow.due_jobs()

    buyer.patch(f"/orders/{order['id']}/cancel")

    assert "payment" in flow.due_jobs()


def test_money_that_comes_after_the_tombstone_was_ignored(flow: FlowHarness) -> None:
    flow.simulator.set_faults(late_seconds=0.8, probabilities={"tombstone_ignored": 1})
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_LATE")
    flow.deliver()
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_timers_only()
    assert _of(flow, order) == ("CANCELLED", ["VOIDED"], [], ["RELEASED"])
    key = flow.payment_key(order["id"])
    wait_for(lambda: flow.simulator.captures(key), "the late capture")

    flow.reconcile()
    flow.run_until_idle()

    assert _of(flow, order) == ("CANCELLED", ["CAPTURED late"], ["SUCCEEDED"], ["RELEASED"])
    assert_idle_and_consistent(flow)


def test_a_tombstone_refuses_the_charge_that_was_still_on_its_way(flow: FlowHarness) -> None:
    flow.simulator.set_faults(late_seconds=0.5)
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_LATE")
    flow.deliver()
    buyer.patch(f"/orders/{order['id']}/cancel")

    flow.run_timers_only()

    assert _of(flow, order) == ("CANCELLED", ["VOIDED"], [], ["RELEASED"])
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 0
    assert_idle_and_consistent(flow)


def test_money_that_comes_while_the_next_attempt_is_wanted(flow: FlowHarness) -> None:
    """Attempt 1 is captured after all, though it was closed: it is booked and goes back."""
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(price=700))
    flow.discard_events()
    flow.shop.sql(
        "update shop.orders set payment_method = 'CARD_DECLINED' where order_id = %s", order["id"]
    )
    flow.run_timers_only()
    key = flow.payment_key(order["id"])
    flow.send_webhook("charge.captured", key, 700)

    assert _of(flow, order)[:3] == ("PENDING", ["CAPTURED late"], ["INTENT"])
    assert_invariants(flow, at_rest=False)
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    flow.deliver()

    assert flow.order_state(order["id"])["payments"] == ["CAPTURED late", "CAPTURED"]
    assert_invariants(flow, at_rest=False)


# ---------------------------------------------------------------- cancelling


def test_cancelled_before_anything_happened(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(stock=1))

    answer = buyer.patch(f"/orders/{order['id']}/cancel")

    assert (answer.status, answer.json["status"]) == (200, "CANCELLED")
    assert_idle_and_consistent(flow)  # the charge event comes too late
    assert _of(flow, order) == NEVER_PAID


def test_cancelled_after_payment(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.paid_order(flow.shop.product(stock=1))
    flow.deliver()

    answer = buyer.patch(f"/orders/{order['id']}/cancel")

    assert answer.json["status"] == "CANCELLING"
    again = buyer.patch(f"/orders/{order['id']}/cancel")
    assert (again.status, again.error) == (409, "NOT_CANCELLABLE")
    assert_idle_and_consistent(flow)
    assert _of(flow, order) == GIVEN_BACK


def test_cancelled_after_a_decline(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_DECLINED")
    flow.deliver()

    assert buyer.patch(f"/orders/{order['id']}/cancel").json["status"] == "CANCELLED"

    assert_idle_and_consistent(flow)


# ---------------------------------------------------------------- refunds


def test_partial_refunds_and_then_a_cancel_give_back_exactly_the_capture(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    order = buyer.paid_order(flow.shop.product(price=1000))
    for amount in (300, 150):
        refund = {"amount": amount, "reason": "dented"}
        assert support.post(f"/orders/{order['id']}/refunds", refund).status == 201
    flow.deliver()
    assert flow.order_state(order["id"])["refunds"] == ["SUCCEEDED", "SUCCEEDED"]

    buyer.patch(f"/orders/{order['id']}/cancel")
    assert_idle_and_consistent(flow)

    amounts = flow.shop.sql("select amount_minor from shop.refunds order by created_at")
    assert [row["amount_minor"] for row in amounts] == [300, 150, 550]
    assert flow.order_state(order["id"])["status"] == "CANCELLED"
    shown = buyer.get(f"/orders/{order['id']}").json
    assert shown["refundedAmount"] == 1000


def test_a_whole_refund_and_then_a_cancel(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    order = buyer.paid_order(flow.shop.product(price=1000))
    support.post(f"/orders/{order['id']}/refunds", {"amount": 1000, "reason": "sorry"})

    assert buyer.patch(f"/orders/{order['id']}/cancel").json["status"] == "CANCELLING"

    assert_idle_and_consistent(flow)
    assert _of(flow, order) == GIVEN_BACK


def test_a_rejected_refund_waits_for_a_person(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_REFUND_REJECTED")
    flow.deliver()
    assert flow.order_state(order["id"])["status"] == "PAID"

    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_until_idle()

    assert _of(flow, order) == ("CANCELLING", ["CAPTURED"], ["REJECTED"], ["RETURNED"])
    assert flow.operator_alerts() == ["refund_rejected"]
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize(
    "fault", ["timeout_before", "timeout_after", "error_after", "rate_limited"]
)
def test_an_unclear_refund_is_sent_again_with_its_key(flow: FlowHarness, fault: str) -> None:
    buyer = flow.shop.person()
    order = buyer.paid_order(flow.shop.product())
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.simulator.set_faults(probabilities={fault: 1})
    flow.deliver()
    assert flow.order_state(order["id"])["refunds"] == ["UNKNOWN"]

    flow.simulator.set_faults()
    flow.run_timers_only()

    assert _of(flow, order) == GIVEN_BACK
    assert_idle_and_consistent(flow)


# ---------------------------------------------------------------- expiry


def test_nobody_pays(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(stock=1), method="CARD_DECLINED")
    flow.deliver()
    assert "expire" not in flow.due_jobs()

    flow.expire_order(order["id"])
    flow.sweep_all()

    assert _of(flow, order) == ("CANCELLED", ["DECLINED"], [], ["RELEASED"])
    assert flow.order_state(order["id"])["reason"] == "EXPIRED"
    assert_idle_and_consistent(flow)


def test_soft_expiry_spares_an_open_payment_and_hard_expiry_does_not(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(), method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    flow.expire_order(order["id"])
    assert flow.due_jobs() == []

    flow.expire_order(order["id"], hard=True)
    assert flow.due_jobs() == ["expire"]
    flow.shop.tick("sweep")

    assert flow.order_state(order["id"])["reason"] == "EXPIRED"
    assert_idle_and_consistent(flow)
    assert _of(flow, order) == ("CANCELLED", ["CAPTURED"], ["SUCCEEDED"], ["RELEASED"])


# ---------------------------------------------------------------- webhooks and books


def test_the_webhook_comes_instead_of_the_answer(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(price=900), method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    key = flow.payment_key(order["id"])

    assert [flow.send_webhook("charge.captured", key, 900, event_id="evt_1") for _ in range(3)] == [
        204
    ] * 3

    assert flow.order_state(order["id"])["status"] == "PAID"
    assert_idle_and_consistent(flow)


def test_a_webhook_with_another_amount_is_not_believed(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(price=900), method="CARD_TIMEOUT_AFTER")
    flow.deliver()

    assert flow.send_webhook("charge.captured", flow.payment_key(order["id"]), 901) == 202

    assert flow.order_state(order["id"])["status"] == "PENDING"
    assert flow.operator_alerts() == ["amount_mismatch"]
    assert_idle_and_consistent(flow)  # the books say 900
    assert flow.order_state(order["id"])["status"] == "PAID"


def test_a_refund_webhook_with_another_amount_is_not_believed(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.paid_order(flow.shop.product(price=900))
    buyer.patch(f"/orders/{order['id']}/cancel")
    (refund,) = flow.shop.sql("select provider_key from shop.refunds")

    assert flow.send_webhook("refund.succeeded", refund["provider_key"], 901) == 202

    assert flow.order_state(order["id"])["status"] == "CANCELLING"
    assert flow.operator_alerts() == ["amount_mismatch"]
    flow.run_until_idle()
    assert flow.order_state(order["id"])["status"] == "CANCELLED"
    (posting,) = flow.shop.sql("select amount_minor from shop.ledger where kind = 'REFUND'")
    assert posting["amount_minor"] == 900


def test_a_declined_webhook_of_the_first_attempt_after_the_second_was_captured(
    flow: FlowHarness,
) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(price=900), method="CARD_DECLINED")
    flow.deliver()
    first_key = flow.payment_key(order["id"])
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    flow.deliver()

    assert flow.send_webhook("charge.declined", first_key, 900) == 204

    assert flow.order_state(order["id"])["status"] == "PAID"
    assert_idle_and_consistent(flow)


def test_a_charge_that_only_the_provider_knows_rings(flow: FlowHarness) -> None:
    ghost = charge_call()
    assert flow.simulator.provider().charge(ghost).kind == "captured"

    flow.reconcile()
    flow.reconcile()

    assert flow.operator_alerts() == ["ghost_charge"]


def test_the_books_are_read_five_minutes_after_a_payment_and_then_left_alone(
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


def test_whoever_dies_in_long_books_has_not_read_them_for_nothing(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = flow.simulator.provider()
    for _ in range(3):
        assert provider.charge(charge_call()).kind == "captured"
    monkeypatch.setattr(due_jobs, "PAGE", 1)
    compare, seen = due_jobs._compare, []

    def die_at_the_third(work: Any, entry: Any) -> None:
        seen.append(entry.key)
        if len(seen) == 3:
            raise Unavailable("the process dies here")
        compare(work, entry)

    monkeypatch.setattr(due_jobs, "_compare", die_at_the_third)
    flow.reconcile()
    first_run = list(seen)
    flow.reconcile()

    assert len(first_run) == 3
    assert seen[3] == first_run[2], "it goes on where it was, not at the beginning"


def test_of_two_sweepers_that_find_the_books_due_one_reads_them(flow: FlowHarness) -> None:
    flow.shop.sql("update shop.reconciliation set next_run_at = now()")

    (provider,) = flow.shop.sql("select provider from shop.reconciliation")

    with psycopg.connect(flow.shop.admin_url, autocommit=True) as connection:
        sweepers = [connection.execute(reconciliation.TAKE, provider) for _ in range(2)]

    assert [sweeper.rowcount for sweeper in sweepers] == [1, 0]


def test_what_our_stories_end_with_is_not_told_again(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer = flow.shop.person()
    kept, given_back = (buyer.paid_order(flow.shop.product()) for _ in range(2))
    buyer.patch(f"/orders/{given_back['id']}/cancel")
    flow.run_until_idle()
    told: list[str] = []
    monkeypatch.setattr(due_jobs, "_compare", lambda _work, entry: told.append(entry.key))
    flow.shop.sql("update shop.reconciliation set cursor = ''")

    flow.reconcile()
    key = flow.payment_key(kept["id"])
    (refund,) = flow.shop.sql("select provider_key from shop.refunds")
    assert not {key, refund["provider_key"]} & set(told)

    flow.shop.sql("update shop.reconciliation set cursor = ''")
    flow.shop.sql("update shop.payments set status = 'UNKNOWN' where provider_key = %s", key)
    flow.reconcile()
    assert key in told, "what the provider took and we do not know is news"


def test_books_too_long_for_one_tick_are_read_on_in_the_next(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = flow.simulator.provider()
    calls = [charge_call() for _ in range(3)]
    for call in calls:
        assert provider.charge(call).kind == "captured"
    monkeypatch.setattr(due_jobs, "PAGE", 1)
    monkeypatch.setattr(due_jobs, "BOOKS_SECONDS", 0.0)
    told: list[str] = []
    monkeypatch.setattr(due_jobs, "_compare", lambda _work, entry: told.append(entry.key))

    flow.reconcile()
    assert told == [], "its time was over before it began"
    assert flow.due_jobs() == ["reconcile"]

    monkeypatch.setattr(due_jobs, "BOOKS_SECONDS", 15.0)
    flow.shop.tick("sweep")
    assert told == [call.key for call in calls]
    assert flow.due_jobs() == []


def test_what_is_too_old_is_forgotten_in_short_transactions(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_jobs, "FORGOTTEN_AT_ONCE", 2)
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


def test_books_that_cannot_be_read_are_asked_for_later_not_at_once(flow: FlowHarness) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    assert_idle_and_consistent(flow)
    flow.shop.sql("update shop.reconciliation set next_run_at = now()")
    flow.simulator.stop()
    try:
        assert flow.shop.tick("sweep").status == 204
    finally:
        flow.simulator.start()

    assert flow.due_jobs() == [], "a provider that is down must not keep the sweep awake"


# ---------------------------------------------------------------- dead letters


def test_poison_is_kept_once_and_nothing_else_is(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product())
    headers, body = flow.broker.all[0]
    poison = {**headers, "ce-id": "poison", "ce-source": "/evil", "knativeerrorcode": "401"}
    assert flow.shop.post_event("charge", poison, body).status == 401

    for _ in range(2):
        assert flow.shop.post_event("dead_letter", poison, body).status == 204

    flow.injected_poison.append(("poison", "/evil"))
    assert flow.operator_alerts() == ["dead_letter"]
    flow.deliver()
    assert _of(flow, order) == PAID_FOR
    assert_idle_and_consistent(flow)


# ---------------------------------------------------------------- one bad row, one busy row


def test_a_row_that_a_constraint_refuses_rings_and_its_neighbours_are_swept(
    flow: FlowHarness,
) -> None:
    """The provider names one reference for two payments: the second is refused, for a person."""
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

    assert flow.order_state(free["id"])["status"] == "PAID"
    assert flow.order_state(stuck["id"])["status"] == "PENDING"
    assert flow.operator_alerts() == ["stuck_payment"]


def test_an_order_that_is_being_worked_on_answers_503_not_that_the_key_is_in_use(
    flow: FlowHarness,
) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product())
    with psycopg.connect(flow.shop.admin_url) as connection:
        connection.execute("select from shop.orders for update")

        answer = buyer.patch(f"/orders/{order['id']}/cancel", key="cancel-key-000001")

    assert answer.status == 503
    assert int(answer.headers["retry-after"]) <= 5
    again = buyer.patch(f"/orders/{order['id']}/cancel", key="cancel-key-000001")
    assert again.json["status"] == "CANCELLED"


def test_a_key_older_than_its_answer_finds_its_order(flow: FlowHarness) -> None:
    """Answers are forgotten after a week; a key makes one order for ever."""
    buyer, product = flow.shop.person(), flow.shop.product(stock=5)
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    first = buyer.post("/orders", body, key="an-old-key-000001").json
    flow.deliver()
    flow.shop.sql("update shop.idempotency set created_at = now() - interval '8 days'")
    flow.shop.tick("sweep")
    assert flow.shop.sql("select 1 from shop.idempotency") == []

    again = buyer.post("/orders", body, key="an-old-key-000001")

    assert (again.status, again.json["id"], again.json["status"]) == (201, first["id"], "PAID")
    assert len(flow.shop.sql("select 1 from shop.orders")) == 1
    assert_idle_and_consistent(flow)


def test_sold_out_is_answered_the_same_again_even_after_a_restock(flow: FlowHarness) -> None:
    buyer, staff, product = flow.shop.person(), flow.shop.person("staff"), flow.shop.product()
    body = {"productId": product, "quantity": 11, "paymentMethod": "CARD"}
    refused = buyer.post("/orders", body, key="a-refused-key-0001")
    assert (refused.status, refused.error) == (409, "OUT_OF_STOCK")
    restocked = staff.post(f"/products/{product}/stock", {"quantity": 5})
    assert restocked.status in (200, 201), restocked

    again = buyer.post("/orders", body, key="a-refused-key-0001")

    assert (again.status, again.body) == (refused.status, refused.body)
    assert_idle_and_consistent(flow)
