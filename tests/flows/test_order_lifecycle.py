"""The life of an order across functions: events repeated, shuffled, concurrent or lost."""

from __future__ import annotations

import os
from typing import Any
from uuid import uuid4

import pytest

from shop.registry import spec_of
from shop.runtime.app import App
from tests.harness import (
    PAID,
    REFUNDED,
    FlowHarness,
    Message,
    Person,
    ShopHarness,
    assert_idle_and_consistent,
    assert_invariants,
    order_body,
    run_concurrently,
)
from tests.sample_requests import Samples
from tests.waiting import wait_for


def test_placed_order_is_charged_and_becomes_paid(shop: ShopHarness) -> None:
    buyer, product = shop.person(), shop.product(price=1000, stock=5)
    order = buyer.order(product, 2)

    shop.deliver_all()

    paid = buyer.get(f"/orders/{order['id']}").json
    payment = paid["payment"]
    assert (paid["status"], payment["status"], payment["attempt"]) == ("PAID", "CAPTURED", 1)
    (stock,) = shop.sql("select on_hand, reserved from shop.stock where product_id = %s", product)
    assert stock == {"on_hand": 3, "reserved": 0}
    (posting,) = shop.sql("select kind, amount_minor from shop.ledger")
    assert posting == {"kind": "CAPTURE", "amount_minor": 2000}


def test_paid_order_leaves_no_due_work(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(stock=3), 2)

    flow.deliver()

    assert flow.outcome(order) == PAID
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("at_once", [False, True])
def test_events_delivered_three_times_have_one_effect(flow: FlowHarness, at_once: bool) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=30)
    paid, cancelled = buyer.order(product), buyer.order(product)
    flow.deliver(times=3, at_once=at_once)
    assert buyer.patch(f"/orders/{cancelled['id']}/cancel").status == 200

    flow.deliver(times=3, at_once=at_once)

    assert flow.outcome(paid) == PAID
    assert flow.outcome(cancelled) == REFUNDED
    assert_idle_and_consistent(flow)
    assert flow.simulator.captures(flow.payment_key(paid["id"])) == 1


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_and_repeated_events_reach_the_same_state(flow: FlowHarness, seed: int) -> None:
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


def test_timers_alone_finish_every_order_when_all_events_are_lost(flow: FlowHarness) -> None:
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

    assert flow.outcome(paid) == PAID
    assert flow.outcome(cancelled) == REFUNDED
    assert flow.outcome(declined) == ("CANCELLED", ["DECLINED"], [], ["RELEASED"])
    assert_invariants(flow, at_rest=False)
    assert_idle_and_consistent(flow)  # lost events are sent again and consumed


def test_lost_payment_retry_event_is_recovered_by_the_timers(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product()
    order = buyer.order(product, method="CARD_DECLINED")
    flow.deliver()
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})

    flow.run_timers_only()

    assert flow.order_state(order["id"])["status"] == "PAID"
    assert_idle_and_consistent(flow)


def test_capture_after_an_ignored_void_is_refunded(flow: FlowHarness) -> None:
    flow.simulator.set_faults(late_seconds=3, probabilities={"tombstone_ignored": 1})
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_LATE")
    flow.deliver()
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_timers_only()
    assert flow.outcome(order) == ("CANCELLED", ["VOIDED"], [], ["RELEASED"])
    key = flow.payment_key(order["id"])
    wait_for(lambda: flow.simulator.captures(key), "the late capture")

    flow.reconcile()
    flow.run_until_idle()

    assert flow.outcome(order) == ("CANCELLED", ["CAPTURED late"], ["SUCCEEDED"], ["RELEASED"])
    assert_idle_and_consistent(flow)


def test_repeated_order_charge_and_cancel_have_one_effect_each(samples: Samples) -> None:
    """Retries of an order, its payment event and its cancel have one effect each."""
    key = uuid4().hex
    placed = [samples.owner.post("/orders", order_body(samples.product), key=key) for _ in range(3)]
    (event,) = samples.shop.outbox()
    for _ in range(3):
        samples.shop.deliver(event, "charge")
    order = placed[0].json["id"]
    cancelled = [samples.owner.patch(f"/orders/{order}/cancel", key=key[::-1]) for _ in range(3)]
    samples.shop.deliver_all()

    assert len({a.body for a in placed}) == len({a.body for a in cancelled}) == 1
    kinds = [row["kind"] for row in samples.shop.sql("select kind from shop.ledger order by seq")]
    assert kinds == ["CAPTURE", "REFUND"]
    assert samples.shop.stock_of(samples.product) == (100_000, 0)


ROUNDS = int(os.environ.get("RACE_ROUNDS", "20"))


def _charge_event(flow: FlowHarness) -> Message:
    """Takes the newest order.placed event from the broker; discards the others."""
    placed = [m for m in flow.broker.take() if m[0]["ce-type"].endswith("order.placed.v1")]
    return placed[-1]


def _cancel(buyer: Person, order_id: str) -> Any:
    return lambda: buyer.patch(f"/orders/{order_id}/cancel")


def test_concurrent_response_webhook_and_reconciliation_capture_once(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(price=900, stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.order(product)
        event = _charge_event(flow)
        flow.shop.post_event("charge", *event)
        flow.shop.sql("update shop.reconciliation set next_run_at = now()")
        key = flow.payment_key(order["id"])

        run_concurrently(
            lambda k=key: flow.send_webhook("charge.captured", k, 900),
            lambda: flow.shop.tick("sweep"),
            _cancel(buyer, order["id"]),
        )

        assert_invariants(flow, at_rest=False)
    assert_idle_and_consistent(flow)


def test_process_that_also_receives_dead_letters_consumes_its_events(shop: ShopHarness) -> None:
    specs = (spec_of("dead_letter"), spec_of("charge"), spec_of("refund"))
    shop.apps["charge"] = App(specs, shop.apps["charge"].services)
    buyer = shop.person()

    order = buyer.order(shop.product())
    shop.deliver_all()

    assert buyer.get(f"/orders/{order['id']}").json["status"] == "PAID"
    assert shop.sql("select 1 from shop.dead_letters") == []
