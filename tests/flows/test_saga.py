"""The whole saga on real servers, with all that goes wrong on the way; rest is always right."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

from shop import due_jobs, reconciliation
from shop.primitives.errors import Unavailable
from tests.flows.stage import Stage, assert_invariants, assert_rests
from tests.tools.payment_simulator.simulator_process import charge_call
from tests.waiting import wait_for


def _of(stage: Stage, order: dict[str, Any]) -> tuple[Any, ...]:
    row = stage.order(order["id"])
    return row["status"], row["payments"], row["refunds"], row["stock"]


PAID_FOR = ("PAID", ["CAPTURED"], [], ["COMMITTED"])
GIVEN_BACK = ("CANCELLED", ["CAPTURED"], ["SUCCEEDED"], ["RETURNED"])
NEVER_PAID = ("CANCELLED", [], [], ["RELEASED"])

# ---------------------------------------------------------------- delivery


def test_an_order_is_paid_and_everything_rests(stage: Stage) -> None:
    order = stage.shop.person().order(stage.shop.product(stock=3), 2)

    stage.deliver()

    assert _of(stage, order) == PAID_FOR
    assert_rests(stage)


@pytest.mark.parametrize("at_once", [False, True])
def test_every_event_three_times(stage: Stage, at_once: bool) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=30)
    paid, cancelled = buyer.order(product), buyer.order(product)
    stage.deliver(times=3, at_once=at_once)
    assert buyer.patch(f"/orders/{cancelled['id']}/cancel").status == 200

    stage.deliver(times=3, at_once=at_once)

    assert _of(stage, paid) == PAID_FOR
    assert _of(stage, cancelled) == GIVEN_BACK
    assert_rests(stage)
    assert stage.simulator.captures(stage.payment_key(paid["id"])) == 1


@pytest.mark.parametrize("seed", range(3))
def test_events_in_any_order_again_and_after_rest(stage: Stage, seed: int) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=30)
    orders = [buyer.order(product) for _ in range(4)]
    for order in orders[::2]:
        buyer.patch(f"/orders/{order['id']}/cancel")

    stage.deliver(times=2, shuffled_by=seed)
    assert_rests(stage)
    stage.broker.messages = list(stage.broker.all)
    stage.deliver(shuffled_by=seed + 1)

    assert [stage.order(order["id"])["status"] for order in orders] == [
        "CANCELLED",
        "PAID",
        "CANCELLED",
        "PAID",
    ]
    assert_rests(stage)


def test_every_event_is_lost_and_the_timers_alone_bring_rest(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=30)
    paid, cancelled, declined = (
        buyer.order(product),
        buyer.order(product),
        buyer.order(product, method="CARD_DECLINED"),
    )
    stage.timers_alone()
    assert buyer.patch(f"/orders/{cancelled['id']}/cancel").status == 200
    stage.expire(declined["id"])

    stage.timers_alone()
    stage.tick()

    assert _of(stage, paid) == PAID_FOR
    assert _of(stage, cancelled) == GIVEN_BACK
    assert _of(stage, declined) == ("CANCELLED", ["DECLINED"], [], ["RELEASED"])
    assert_invariants(stage, at_rest=False)
    assert_rests(stage)  # what was lost is sent again, and taken


def test_a_lost_event_is_sent_again_with_its_own_id(stage: Stage) -> None:
    stage.shop.person().order(stage.shop.product())
    first = {headers["ce-id"] for headers, _ in stage.broker.take()}

    stage.shop.sql("update shop.outbox set next_try_at = now()")
    stage.shop.tick("sweep")

    again = {headers["ce-id"] for headers, _ in stage.broker.take()}
    assert first and first <= again


# ---------------------------------------------------------------- declines


def test_declined_then_paid_again(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product()
    order = buyer.order(product, method="CARD_DECLINED")
    stage.deliver()
    assert _of(stage, order) == ("PENDING", ["DECLINED"], [], ["HELD"])

    answer = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    assert answer.status == 201
    stage.deliver()

    assert _of(stage, order) == ("PAID", ["DECLINED", "CAPTURED"], [], ["COMMITTED"])
    assert_rests(stage)


def test_pay_again_whose_event_is_lost(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product()
    order = buyer.order(product, method="CARD_DECLINED")
    stage.deliver()
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})

    stage.timers_alone()

    assert stage.order(order["id"])["status"] == "PAID"
    assert_rests(stage)


def test_declined_too_often(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=1)
    order = buyer.order(product, method="CARD_DECLINED")
    for _ in range(2):
        stage.deliver()
        again = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD_DECLINED"})
        assert again.status == 201

    stage.deliver()

    assert _of(stage, order) == ("CANCELLED", ["DECLINED"] * 3, [], ["RELEASED"])
    assert stage.order(order["id"])["reason"] == "DECLINED"
    again = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    assert (again.status, again.error) == (409, "NOT_PAYABLE")
    assert_rests(stage)


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
def test_an_unclear_answer_is_asked_again_with_the_same_key(stage: Stage, method: str) -> None:
    order = stage.shop.person().order(stage.shop.product(), method=method)

    stage.deliver()
    assert stage.order(order["id"])["status"] in ("PENDING", "PAID"), "unknown is not failed"
    stage.timers_alone()

    assert _of(stage, order) == PAID_FOR
    assert stage.simulator.captures(stage.payment_key(order["id"])) == 1
    assert_rests(stage)


@pytest.mark.parametrize(
    ("method", "payment", "refunds"),
    [
        ("CARD_TIMEOUT_BEFORE", "VOIDED", []),
        ("CARD_TIMEOUT_AFTER", "CAPTURED", ["SUCCEEDED"]),
        ("CARD_ERROR_AFTER", "CAPTURED", ["SUCCEEDED"]),
    ],
)
def test_cancelled_while_the_payment_is_unclear(
    stage: Stage, method: str, payment: str, refunds: list[str]
) -> None:
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(stock=1), method=method)
    stage.deliver()

    cancelled = buyer.patch(f"/orders/{order['id']}/cancel").json
    assert cancelled["status"] == "CANCELLING"
    assert stage.order(order["id"])["stock"] == ["RELEASED"], "stock is back at once"
    stage.timers_alone()

    assert _of(stage, order) == ("CANCELLED", [payment], refunds, ["RELEASED"])
    assert_rests(stage)


def test_a_cancelled_orders_open_payment_is_asked_about_at_once(stage: Stage) -> None:
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(), method="CARD_TIMEOUT_AFTER")
    stage.deliver()
    assert "payment" not in stage.due_now()

    buyer.patch(f"/orders/{order['id']}/cancel")

    assert "payment" in stage.due_now()


def test_money_that_comes_after_the_tombstone_was_ignored(stage: Stage) -> None:
    stage.simulator.set_faults(late_seconds=0.8, probabilities={"tombstone_ignored": 1})
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(), method="CARD_LATE")
    stage.deliver()
    buyer.patch(f"/orders/{order['id']}/cancel")
    stage.timers_alone()
    assert _of(stage, order) == ("CANCELLED", ["VOIDED"], [], ["RELEASED"])
    key = stage.payment_key(order["id"])
    wait_for(lambda: stage.simulator.captures(key), "the late capture")

    stage.reconcile()
    stage.come_to_rest()

    assert _of(stage, order) == ("CANCELLED", ["CAPTURED late"], ["SUCCEEDED"], ["RELEASED"])
    assert_rests(stage)


def test_a_tombstone_refuses_the_charge_that_was_still_on_its_way(stage: Stage) -> None:
    stage.simulator.set_faults(late_seconds=0.5)
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(), method="CARD_LATE")
    stage.deliver()
    buyer.patch(f"/orders/{order['id']}/cancel")

    stage.timers_alone()

    assert _of(stage, order) == ("CANCELLED", ["VOIDED"], [], ["RELEASED"])
    assert stage.simulator.captures(stage.payment_key(order["id"])) == 0
    assert_rests(stage)


def test_money_that_comes_while_the_next_attempt_is_wanted(stage: Stage) -> None:
    """Attempt 1 is captured after all, though it was closed: it is booked and goes back."""
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(price=700))
    stage.lose_events()
    stage.shop.sql(
        "update shop.orders set payment_method = 'CARD_DECLINED' where order_id = %s", order["id"]
    )
    stage.timers_alone()
    key = stage.payment_key(order["id"])
    stage.notify("charge.captured", key, 700)

    assert _of(stage, order)[:3] == ("PENDING", ["CAPTURED late"], ["INTENT"])
    assert_invariants(stage, at_rest=False)
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    stage.deliver()

    assert stage.order(order["id"])["payments"] == ["CAPTURED late", "CAPTURED"]
    assert_invariants(stage, at_rest=False)


# ---------------------------------------------------------------- cancelling


def test_cancelled_before_anything_happened(stage: Stage) -> None:
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(stock=1))

    answer = buyer.patch(f"/orders/{order['id']}/cancel")

    assert (answer.status, answer.json["status"]) == (200, "CANCELLED")
    assert_rests(stage)  # the charge event comes too late
    assert _of(stage, order) == NEVER_PAID


def test_cancelled_after_payment(stage: Stage) -> None:
    buyer = stage.shop.person()
    order = buyer.paid_order(stage.shop.product(stock=1))
    stage.deliver()

    answer = buyer.patch(f"/orders/{order['id']}/cancel")

    assert answer.json["status"] == "CANCELLING"
    again = buyer.patch(f"/orders/{order['id']}/cancel")
    assert (again.status, again.error) == (409, "NOT_CANCELLABLE")
    assert_rests(stage)
    assert _of(stage, order) == GIVEN_BACK


def test_cancelled_after_a_decline(stage: Stage) -> None:
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(), method="CARD_DECLINED")
    stage.deliver()

    assert buyer.patch(f"/orders/{order['id']}/cancel").json["status"] == "CANCELLED"

    assert_rests(stage)


# ---------------------------------------------------------------- refunds


def test_partial_refunds_and_then_a_cancel_give_back_exactly_the_capture(stage: Stage) -> None:
    buyer, support = stage.shop.person(), stage.shop.person("support")
    order = buyer.paid_order(stage.shop.product(price=1000))
    for amount in (300, 150):
        refund = {"amount": amount, "reason": "dented"}
        assert support.post(f"/orders/{order['id']}/refunds", refund).status == 201
    stage.deliver()
    assert stage.order(order["id"])["refunds"] == ["SUCCEEDED", "SUCCEEDED"]

    buyer.patch(f"/orders/{order['id']}/cancel")
    assert_rests(stage)

    amounts = stage.shop.sql("select amount_minor from shop.refunds order by created_at")
    assert [row["amount_minor"] for row in amounts] == [300, 150, 550]
    assert stage.order(order["id"])["status"] == "CANCELLED"
    shown = buyer.get(f"/orders/{order['id']}").json
    assert shown["refundedAmount"] == 1000


def test_a_whole_refund_and_then_a_cancel(stage: Stage) -> None:
    buyer, support = stage.shop.person(), stage.shop.person("support")
    order = buyer.paid_order(stage.shop.product(price=1000))
    support.post(f"/orders/{order['id']}/refunds", {"amount": 1000, "reason": "sorry"})

    assert buyer.patch(f"/orders/{order['id']}/cancel").json["status"] == "CANCELLING"

    assert_rests(stage)
    assert _of(stage, order) == GIVEN_BACK


def test_a_rejected_refund_waits_for_a_person(stage: Stage) -> None:
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(), method="CARD_REFUND_REJECTED")
    stage.deliver()
    assert stage.order(order["id"])["status"] == "PAID"

    buyer.patch(f"/orders/{order['id']}/cancel")
    stage.come_to_rest()

    assert _of(stage, order) == ("CANCELLING", ["CAPTURED"], ["REJECTED"], ["RETURNED"])
    assert stage.alarms() == ["refund_rejected"]
    assert_rests(stage)


@pytest.mark.parametrize(
    "fault", ["timeout_before", "timeout_after", "error_after", "rate_limited"]
)
def test_an_unclear_refund_is_sent_again_with_its_key(stage: Stage, fault: str) -> None:
    buyer = stage.shop.person()
    order = buyer.paid_order(stage.shop.product())
    buyer.patch(f"/orders/{order['id']}/cancel")
    stage.simulator.set_faults(probabilities={fault: 1})
    stage.deliver()
    assert stage.order(order["id"])["refunds"] == ["UNKNOWN"]

    stage.simulator.set_faults()
    stage.timers_alone()

    assert _of(stage, order) == GIVEN_BACK
    assert_rests(stage)


# ---------------------------------------------------------------- expiry


def test_nobody_pays(stage: Stage) -> None:
    order = stage.shop.person().order(stage.shop.product(stock=1), method="CARD_DECLINED")
    stage.deliver()
    assert "expire" not in stage.due_now()

    stage.expire(order["id"])
    stage.tick()

    assert _of(stage, order) == ("CANCELLED", ["DECLINED"], [], ["RELEASED"])
    assert stage.order(order["id"])["reason"] == "EXPIRED"
    assert_rests(stage)


def test_soft_expiry_spares_an_open_payment_and_hard_expiry_does_not(stage: Stage) -> None:
    order = stage.shop.person().order(stage.shop.product(), method="CARD_TIMEOUT_AFTER")
    stage.deliver()
    stage.expire(order["id"])
    assert stage.due_now() == []

    stage.expire(order["id"], hard=True)
    assert stage.due_now() == ["expire"]
    stage.shop.tick("sweep")

    assert stage.order(order["id"])["reason"] == "EXPIRED"
    assert_rests(stage)
    assert _of(stage, order) == ("CANCELLED", ["CAPTURED"], ["SUCCEEDED"], ["RELEASED"])


# ---------------------------------------------------------------- webhooks and books


def test_the_webhook_comes_instead_of_the_answer(stage: Stage) -> None:
    order = stage.shop.person().order(stage.shop.product(price=900), method="CARD_TIMEOUT_AFTER")
    stage.deliver()
    key = stage.payment_key(order["id"])

    assert [stage.notify("charge.captured", key, 900, event_id="evt_1") for _ in range(3)] == [
        204
    ] * 3

    assert stage.order(order["id"])["status"] == "PAID"
    assert_rests(stage)


def test_a_webhook_with_another_amount_is_not_believed(stage: Stage) -> None:
    order = stage.shop.person().order(stage.shop.product(price=900), method="CARD_TIMEOUT_AFTER")
    stage.deliver()

    assert stage.notify("charge.captured", stage.payment_key(order["id"]), 901) == 202

    assert stage.order(order["id"])["status"] == "PENDING"
    assert stage.alarms() == ["amount_mismatch"]
    assert_rests(stage)  # the books say 900
    assert stage.order(order["id"])["status"] == "PAID"


def test_a_refund_webhook_with_another_amount_is_not_believed(stage: Stage) -> None:
    buyer = stage.shop.person()
    order = buyer.paid_order(stage.shop.product(price=900))
    buyer.patch(f"/orders/{order['id']}/cancel")
    (refund,) = stage.shop.sql("select provider_key from shop.refunds")

    assert stage.notify("refund.succeeded", refund["provider_key"], 901) == 202

    assert stage.order(order["id"])["status"] == "CANCELLING"
    assert stage.alarms() == ["amount_mismatch"]
    stage.come_to_rest()
    assert stage.order(order["id"])["status"] == "CANCELLED"
    (posting,) = stage.shop.sql("select amount_minor from shop.ledger where kind = 'REFUND'")
    assert posting["amount_minor"] == 900


def test_a_declined_webhook_of_the_first_attempt_after_the_second_was_captured(
    stage: Stage,
) -> None:
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product(price=900), method="CARD_DECLINED")
    stage.deliver()
    first_key = stage.payment_key(order["id"])
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    stage.deliver()

    assert stage.notify("charge.declined", first_key, 900) == 204

    assert stage.order(order["id"])["status"] == "PAID"
    assert_rests(stage)


def test_a_charge_that_only_the_provider_knows_rings(stage: Stage) -> None:
    ghost = charge_call()
    assert stage.simulator.provider().charge(ghost).kind == "captured"

    stage.reconcile()
    stage.reconcile()

    assert stage.alarms() == ["ghost_charge"]


def test_the_books_are_read_five_minutes_after_a_payment_and_then_left_alone(
    stage: Stage,
) -> None:
    stage.shop.person().paid_order(stage.shop.product())
    assert_rests(stage)
    stage.shop.sql("update shop.reconciliation set ran_at = now() - interval '1 hour'")
    for minutes, kinds in ((4, []), (6, ["reconcile"])):
        stage.shop.sql(
            "update shop.payments set created_at = now() - %s", timedelta(minutes=minutes)
        )
        assert stage.due_now() == kinds

    stage.shop.tick("sweep")

    (row,) = stage.shop.sql(
        "select min(due_at) > now() + interval '50 minutes' as later from shop.due_work "
        "where kind = 'reconcile'"
    )
    assert row["later"]


def test_whoever_dies_in_long_books_has_not_read_them_for_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = stage.simulator.provider()
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
    stage.reconcile()
    first_run = list(seen)
    stage.reconcile()

    assert len(first_run) == 3
    assert seen[3] == first_run[2], "it goes on where it was, not at the beginning"


def test_of_two_sweepers_that_find_the_books_due_one_reads_them(stage: Stage) -> None:
    stage.shop.sql("update shop.reconciliation set next_run_at = now()")

    (provider,) = stage.shop.sql("select provider from shop.reconciliation")

    with psycopg.connect(stage.shop.admin_url, autocommit=True) as connection:
        sweepers = [connection.execute(reconciliation.TAKE, provider) for _ in range(2)]

    assert [sweeper.rowcount for sweeper in sweepers] == [1, 0]


def test_what_our_stories_end_with_is_not_told_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer = stage.shop.person()
    kept, given_back = (buyer.paid_order(stage.shop.product()) for _ in range(2))
    buyer.patch(f"/orders/{given_back['id']}/cancel")
    stage.come_to_rest()
    told: list[str] = []
    monkeypatch.setattr(due_jobs, "_compare", lambda _work, entry: told.append(entry.key))
    stage.shop.sql("update shop.reconciliation set cursor = ''")

    stage.reconcile()
    key = stage.payment_key(kept["id"])
    (refund,) = stage.shop.sql("select provider_key from shop.refunds")
    assert not {key, refund["provider_key"]} & set(told)

    stage.shop.sql("update shop.reconciliation set cursor = ''")
    stage.shop.sql("update shop.payments set status = 'UNKNOWN' where provider_key = %s", key)
    stage.reconcile()
    assert key in told, "what the provider took and we do not know is news"


def test_books_too_long_for_one_tick_are_read_on_in_the_next(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = stage.simulator.provider()
    calls = [charge_call() for _ in range(3)]
    for call in calls:
        assert provider.charge(call).kind == "captured"
    monkeypatch.setattr(due_jobs, "PAGE", 1)
    monkeypatch.setattr(due_jobs, "BOOKS_SECONDS", 0.0)
    told: list[str] = []
    monkeypatch.setattr(due_jobs, "_compare", lambda _work, entry: told.append(entry.key))

    stage.reconcile()
    assert told == [], "its time was over before it began"
    assert stage.due_now() == ["reconcile"]

    monkeypatch.setattr(due_jobs, "BOOKS_SECONDS", 15.0)
    stage.shop.tick("sweep")
    assert told == [call.key for call in calls]
    assert stage.due_now() == []


def test_what_is_too_old_is_forgotten_in_short_transactions(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(due_jobs, "FORGOTTEN_AT_ONCE", 2)
    stage.shop.sql("create table shop.deletions (transaction_id xid8)")
    stage.shop.sql(
        "create function shop.note_deletion() returns trigger language plpgsql security definer as "
        "$$ begin insert into shop.deletions values (pg_current_xact_id()); return old; end $$"
    )
    stage.shop.sql(
        "create trigger note_deletion before delete on shop.idempotency "
        "for each row execute function shop.note_deletion()"
    )
    stage.shop.sql(
        "insert into shop.idempotency (user_id, scope, key, fingerprint, state, created_at) "
        "select 0, 'POST /test', 'key-of-this-test-' || n, 'x', 'STARTED', "
        "now() - interval '8 days' from generate_series(1, 5) n"
    )

    stage.shop.tick("sweep")

    deletions = stage.shop.sql("select count(*) as n from shop.deletions group by transaction_id")
    assert sorted(row["n"] for row in deletions) == [1, 2, 2]


def test_books_that_cannot_be_read_are_asked_for_later_not_at_once(stage: Stage) -> None:
    stage.shop.person().paid_order(stage.shop.product())
    assert_rests(stage)
    stage.shop.sql("update shop.reconciliation set next_run_at = now()")
    stage.simulator.stop()
    try:
        assert stage.shop.tick("sweep").status == 204
    finally:
        stage.simulator.start()

    assert stage.due_now() == [], "a provider that is down must not keep the sweep awake"


# ---------------------------------------------------------------- dead letters


def test_poison_is_kept_once_and_nothing_else_is(stage: Stage) -> None:
    order = stage.shop.person().order(stage.shop.product())
    headers, body = stage.broker.all[0]
    poison = {**headers, "ce-id": "poison", "ce-source": "/evil", "knativeerrorcode": "401"}
    assert stage.shop.post_event("charge", poison, body).status == 401

    for _ in range(2):
        assert stage.shop.post_event("dead_letter", poison, body).status == 204

    stage.poison.append(("poison", "/evil"))
    assert stage.alarms() == ["dead_letter"]
    stage.deliver()
    assert _of(stage, order) == PAID_FOR
    assert_rests(stage)


# ---------------------------------------------------------------- one bad row, one busy row


def test_a_row_that_a_constraint_refuses_rings_and_its_neighbours_are_swept(stage: Stage) -> None:
    """The provider names one reference for two payments: the second is refused, for a person."""
    buyer, product = stage.shop.person(), stage.shop.product(price=900, stock=9)
    first = buyer.paid_order(product)
    stuck, free = (buyer.order(product, method="CARD_TIMEOUT_AFTER") for _ in range(2))
    stage.deliver()
    intents = {i["key"]: i["provider_ref"] for i in stage.simulator.records()["intents"]}
    stuck_key = stage.payment_key(stuck["id"])
    stage.shop.sql(
        "update shop.payments set provider_ref = %s where order_id = %s",
        intents[stuck_key],
        first["id"],
    )

    stage.tick()

    assert stage.order(free["id"])["status"] == "PAID"
    assert stage.order(stuck["id"])["status"] == "PENDING"
    assert stage.alarms() == ["stuck_payment"]


def test_an_order_that_is_being_worked_on_answers_503_not_that_the_key_is_in_use(
    stage: Stage,
) -> None:
    buyer = stage.shop.person()
    order = buyer.order(stage.shop.product())
    with psycopg.connect(stage.shop.admin_url) as connection:
        connection.execute("select from shop.orders for update")

        answer = buyer.patch(f"/orders/{order['id']}/cancel", key="cancel-key-000001")

    assert answer.status == 503
    assert int(answer.headers["retry-after"]) <= 5
    again = buyer.patch(f"/orders/{order['id']}/cancel", key="cancel-key-000001")
    assert again.json["status"] == "CANCELLED"


def test_a_key_older_than_its_answer_finds_its_order(stage: Stage) -> None:
    """Answers are forgotten after a week; a key makes one order for ever."""
    buyer, product = stage.shop.person(), stage.shop.product(stock=5)
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    first = buyer.post("/orders", body, key="an-old-key-000001").json
    stage.deliver()
    stage.shop.sql("update shop.idempotency set created_at = now() - interval '8 days'")
    stage.shop.tick("sweep")
    assert stage.shop.sql("select 1 from shop.idempotency") == []

    again = buyer.post("/orders", body, key="an-old-key-000001")

    assert (again.status, again.json["id"], again.json["status"]) == (201, first["id"], "PAID")
    assert len(stage.shop.sql("select 1 from shop.orders")) == 1
    assert_rests(stage)


def test_sold_out_is_answered_the_same_again_even_after_a_restock(stage: Stage) -> None:
    buyer, staff, product = stage.shop.person(), stage.shop.person("staff"), stage.shop.product()
    body = {"productId": product, "quantity": 11, "paymentMethod": "CARD"}
    refused = buyer.post("/orders", body, key="a-refused-key-0001")
    assert (refused.status, refused.error) == (409, "OUT_OF_STOCK")
    restocked = staff.post(f"/products/{product}/stock", {"quantity": 5})
    assert restocked.status in (200, 201), restocked

    again = buyer.post("/orders", body, key="a-refused-key-0001")

    assert (again.status, again.body) == (refused.status, refused.body)
    assert_rests(stage)
