"""charge: the payment of an order, collected once whatever the provider and the broker do."""

from __future__ import annotations

import os

import pytest

from events import envelope
from events.vocabulary import class_of
from tests.harness import (
    PAID,
    UNREACHABLE,
    FlowHarness,
    MakeShop,
    assert_idle_and_consistent,
    run_concurrently,
)
from tests.sample_requests import Samples


def test_payment_intent_is_committed_before_the_provider_is_called(make_shop: MakeShop) -> None:
    """The order and the payment intent are committed before the provider is called."""
    samples = Samples(make_shop(payment_provider_url=UNREACHABLE))
    order = samples.order()
    (placed,) = samples.shop.outbox()

    assert samples.shop.deliver(placed, "charge").status == 204

    (payment,) = samples.shop.sql("select order_id::text, status, provider_key from shop.payments")
    assert (payment["order_id"], payment["status"] in ("INTENT", "UNKNOWN")) == (order, True)
    assert payment["provider_key"]


def test_unreachable_provider_leaves_the_order_pending_and_its_stock_reserved(
    make_shop: MakeShop,
) -> None:
    """An unknown outcome is not a failure: stock stays reserved and the order pending."""
    samples = Samples(make_shop(payment_provider_url=UNREACHABLE))
    order = samples.order()
    (placed,) = samples.shop.outbox()
    samples.shop.deliver(placed, "charge")

    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"
    assert samples.shop.stock_of(samples.product) == (100_000, 1)
    idle = (
        "select 1 from pg_stat_activity where state = 'idle in transaction' "
        "and datname = current_database()"
    )
    assert samples.shop.sql(idle) == []


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
def test_unknown_outcome_is_retried_with_the_same_key(flow: FlowHarness, method: str) -> None:
    order = flow.shop.person().order(flow.shop.product(), method=method)

    flow.deliver()
    assert flow.order_state(order["id"])["status"] in ("PENDING", "PAID"), "unknown is not failed"
    flow.run_timers_only()

    assert flow.outcome(order) == PAID
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 1
    assert_idle_and_consistent(flow)


def test_voided_key_rejects_a_late_charge(flow: FlowHarness) -> None:
    flow.simulator.set_faults(late_seconds=2)
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_LATE")
    flow.deliver()
    buyer.patch(f"/orders/{order['id']}/cancel")

    flow.run_timers_only()

    assert flow.outcome(order) == ("CANCELLED", ["VOIDED"], [], ["RELEASED"])
    assert flow.simulator.captures(flow.payment_key(order["id"])) == 0
    assert_idle_and_consistent(flow)


def test_decline_leaves_the_order_pending_and_payable(samples: Samples) -> None:
    """The order shows the decline, and the client can pay again."""
    order = samples.owner.order(samples.product, method="CARD_DECLINED")["id"]

    samples.shop.deliver_all()

    shown = samples.owner.get(f"/orders/{order}").json
    assert (shown["status"], shown["payment"]) == (
        "PENDING",
        {"id": shown["payment"]["id"], "status": "DECLINED", "attempt": 1},
    )
    again = samples.owner.post(f"/orders/{order}/payments", {"paymentMethod": "CARD"})
    assert again.status == 201


def test_third_decline_cancels_the_order(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=1)
    order = buyer.order(product, method="CARD_DECLINED")
    for _ in range(2):
        flow.deliver()
        again = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD_DECLINED"})
        assert again.status == 201

    flow.deliver()

    assert flow.outcome(order) == ("CANCELLED", ["DECLINED"] * 3, [], ["RELEASED"])
    assert flow.order_state(order["id"])["reason"] == "DECLINED"
    again = buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    assert (again.status, again.error) == (409, "NOT_PAYABLE")
    assert_idle_and_consistent(flow)


ROUNDS = int(os.environ.get("RACE_ROUNDS", "20"))


def test_concurrent_duplicate_events_charge_once(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.order(product)
        charge = flow.take_charge_delivery()

        answers = run_concurrently(*[charge] * 4)

        assert {a.status for a in answers} <= {204, 503}
        assert flow.order_state(order["id"])["payments"] == ["CAPTURED"]
        assert flow.simulator.captures(flow.payment_key(order["id"])) == 1
    assert_idle_and_consistent(flow)


def test_unsigned_event_gets_401_and_charges_nothing(samples: Samples) -> None:
    """Every event needs the signature of the function that emitted it."""
    samples.order()
    (row,) = samples.shop.outbox()

    unsigned = envelope.wrap(
        class_of(row["type"]).from_data(row["data"]),
        id=str(row["event_id"]),
        source=row["source"],
        time=row["created_at"],
    )

    answer = samples.shop.post_event("charge", *envelope.to_binary(unsigned))

    assert answer.status == 401
    assert samples.shop.sql("select 1 from shop.payments") == []
