"""The races of correctness.md 5.8, each from a barrier, and their only outcomes.

``RACE_ROUNDS`` makes a run longer.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from shop import settlement
from tests.harness import (
    FlowHarness,
    Message,
    Person,
    assert_idle_and_consistent,
    assert_invariants,
    run_concurrently,
)
from tests.waiting import wait_for

ROUNDS = int(os.environ.get("RACE_ROUNDS", "20"))


def _charge_event(flow: FlowHarness) -> Message:
    """The order.placed that came last; everything else is lost."""
    placed = [m for m in flow.broker.take() if m[0]["ce-type"].endswith("order.placed.v1")]
    return placed[-1]


def _charge(flow: FlowHarness, message: Message) -> Any:
    return lambda: flow.shop.post_event("charge", *message)


def _cancel(buyer: Person, order_id: str) -> Any:
    return lambda: buyer.patch(f"/orders/{order_id}/cancel")


def _refund(support: Person, order_id: str, amount: int) -> Any:
    body = {"amount": amount, "reason": "race"}
    return lambda: support.post(f"/orders/{order_id}/refunds", body)


def test_cancel_against_capture(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=1)
    ends: Counter[str] = Counter()
    for _ in range(ROUNDS):
        order = buyer.order(product)
        event = _charge_event(flow)

        charged, cancelled = run_concurrently(_charge(flow, event), _cancel(buyer, order["id"]))

        assert charged.status == 204
        assert cancelled.status == 200
        ends[cancelled.json["status"]] += 1
        flow.run_until_idle()
        row = flow.order_state(order["id"])
        assert row["status"] == "CANCELLED"
        assert row["stock"][0] in ("RELEASED", "RETURNED")
    assert sum(ends.values()) == ROUNDS
    assert_idle_and_consistent(flow)


def test_cancel_against_cancel(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    for number in range(ROUNDS):
        order = buyer.paid_order(product) if number % 2 else buyer.order(product)

        answers = run_concurrently(*[_cancel(buyer, order["id"])] * 4)

        assert sorted(a.status for a in answers) == [200, 409, 409, 409]
        assert {a.error for a in answers if a.status == 409} == {"NOT_CANCELLABLE"}
    assert_idle_and_consistent(flow)


def test_the_same_charge_event_at_once(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.order(product)
        event = _charge_event(flow)

        answers = run_concurrently(*[_charge(flow, event)] * 4)

        assert {a.status for a in answers} <= {204, 503}
        assert flow.order_state(order["id"])["payments"] == ["CAPTURED"]
        assert flow.simulator.captures(flow.payment_key(order["id"])) == 1
    assert_idle_and_consistent(flow)


def test_expiry_against_charge(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    ends: Counter[str] = Counter()
    for _ in range(ROUNDS):
        order = buyer.order(product)
        event = _charge_event(flow)
        flow.expire_order(order["id"])

        run_concurrently(_charge(flow, event), lambda: flow.shop.tick("sweep"))

        flow.run_until_idle()
        row = flow.order_state(order["id"])
        assert (row["status"], row["payments"], row["stock"]) in (
            ("PAID", ["CAPTURED"], ["COMMITTED"]),
            ("CANCELLED", [], ["RELEASED"]),
        )
        ends[row["status"]] += 1
    assert_idle_and_consistent(flow)


def test_refund_against_refund(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    product = flow.shop.product(price=1000, stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.paid_order(product)

        answers = run_concurrently(*[_refund(support, order["id"], 400)] * 4)

        assert sorted(a.status for a in answers) == [201, 201, 409, 409]
        assert {a.error for a in answers if a.status == 409} == {"EXCEEDS_CAPTURE"}
    assert_idle_and_consistent(flow)


def test_partial_refund_against_cancel(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    product = flow.shop.product(price=1000, stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.paid_order(product)

        refunded, cancelled = run_concurrently(
            _refund(support, order["id"], 300), _cancel(buyer, order["id"])
        )

        assert cancelled.status == 200
        assert (refunded.status, refunded.json.get("error")) in (
            (201, None),
            (409, "NOT_REFUNDABLE"),
        )
        flow.run_until_idle()
        (row,) = flow.shop.sql(
            "select sum(r.amount_minor)::int as total from shop.refunds r "
            "join shop.payments p using (payment_id) where p.order_id = %s",
            order["id"],
        )
        assert row["total"] == 1000
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("stock", [1, 3])
def test_the_last_units_against_many_buyers(flow: FlowHarness, stock: int) -> None:
    buyers = [flow.shop.person() for _ in range(10)]
    for _ in range(max(ROUNDS // 4, 3)):
        product = flow.shop.product(stock=stock)
        body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}

        answers = run_concurrently(
            *(lambda b=b, body=body: b.post("/orders", body) for b in buyers)
        )

        assert Counter(a.status for a in answers) == {201: stock, 409: len(buyers) - stock}
        assert {a.error for a in answers if a.status == 409} == {"OUT_OF_STOCK"}
    assert_idle_and_consistent(flow)


def test_crossed_baskets(flow: FlowHarness) -> None:
    """The same two products in both orders: locks in ascending order, so nobody waits in a ring."""
    products = [flow.shop.product(stock=ROUNDS * 4) for _ in range(2)]
    buyers = [flow.shop.person() for _ in range(4)]
    for _ in range(ROUNDS):
        for number, buyer in enumerate(buyers):
            for product in products if number % 2 else reversed(products):
                buyer.post("/cart/items", {"productId": product, "quantity": 1})

        answers = run_concurrently(
            *(lambda b=b: b.post("/orders/from-cart", {"paymentMethod": "CARD"}) for b in buyers)
        )

        assert [a.status for a in answers] == [201] * len(buyers)
    assert_idle_and_consistent(flow)


def test_one_cart_ordered_twice_at_once(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    for _ in range(ROUNDS):
        buyer.post("/cart/items", {"productId": product, "quantity": 1})

        answers = run_concurrently(
            *[lambda: buyer.post("/orders/from-cart", {"paymentMethod": "CARD"})] * 3
        )

        assert sorted(a.status for a in answers) == [201, 400, 400]
    assert_idle_and_consistent(flow)


def test_one_idempotency_key_ten_times_at_once(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    for number in range(ROUNDS):
        key = f"the-key-of-round-{number:04}"

        answers = run_concurrently(*[lambda k=key: buyer.post("/orders", body, key=k)] * 10)

        placed = [a for a in answers if a.status == 201]
        assert placed and len({a.body for a in placed}) == 1
        others = [(a.status, a.error) for a in answers if a.status != 201]
        assert set(others) <= {(409, "REQUEST_IN_PROGRESS")}
        orders = flow.shop.sql("select 1 from shop.orders where idem_key = %s", key)
        assert len(orders) == 1
    assert_idle_and_consistent(flow)


def test_pay_again_against_pay_again_and_cancel(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=1)
    for _ in range(ROUNDS):
        order = buyer.order(product, method="CARD_DECLINED")
        flow.deliver()
        pay = {"paymentMethod": "CARD"}

        *paid, cancelled = run_concurrently(
            *[lambda o=order["id"], pay=pay: buyer.post(f"/orders/{o}/payments", pay)] * 2,
            _cancel(buyer, order["id"]),
        )

        assert cancelled.status == 200
        assert sorted(a.status for a in paid) in ([201, 409], [409, 409])
        flow.run_until_idle()
        assert flow.order_state(order["id"])["status"] == "CANCELLED"
    assert_idle_and_consistent(flow)


def test_two_sweepers_and_the_events_beside_them(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS * 6)
    for _ in range(max(ROUNDS // 4, 3)):
        orders = [buyer.order(product) for _ in range(6)]
        for order in orders[::2]:
            buyer.patch(f"/orders/{order['id']}/cancel")
        flow.shop.sql("update shop.orders set charge_at = now() where charge_at is not null")
        flow.shop.sql("update shop.outbox set next_try_at = now() where done_at is null")

        answers = run_concurrently(
            lambda: flow.shop.tick("sweep"), lambda: flow.shop.tick("sweep"), flow.deliver
        )

        assert [answers[0].status, answers[1].status] == [204, 204]
    assert_idle_and_consistent(flow)
    captured = flow.shop.sql("select provider_key from shop.payments where status = 'CAPTURED'")
    assert all(flow.simulator.captures(row["provider_key"]) == 1 for row in captured)


def test_a_capture_by_answer_webhook_and_books_at_once(flow: FlowHarness) -> None:
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


def test_a_day_is_not_closed_while_somebody_may_still_post_to_it(
    flow: FlowHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Midnight is a second away in a time zone of our own; a posting begun before it counts."""
    margin = "interval '2 minutes'"
    assert margin in settlement.IS_OVER
    monkeypatch.setattr(
        settlement, "IS_OVER", settlement.IS_OVER.replace(margin, "interval '0 seconds'")
    )
    paid = flow.shop.person().paid_order(flow.shop.product(price=500))
    flow.run_until_idle()
    zone, midnight = _zone_whose_midnight_is_near()
    (row,) = flow.shop.sql("select (now() at time zone %s)::date as day", zone)
    flow.shop.close()  # connections that are idle, not in a transaction
    with psycopg.connect(flow.shop.admin_url) as posting:
        posting.execute(
            "insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, "
            "currency) select 'REFUND', gen_random_uuid(), order_id, 'order_escrow', "
            "'psp_receivable', 200, currency from shop.orders where order_id = %s",
            (paid["id"],),
        )
        wait_for(lambda: datetime.now(UTC) > midnight, "midnight")
        assert _close(flow, row["day"], zone) is None
        posting.commit()

    assert _close(flow, row["day"], zone) == ["KRW"]
    (closed,) = flow.shop.sql("select captures_minor, refunds_minor, n from shop.settlements")
    assert closed == {"captures_minor": 500, "refunds_minor": 200, "n": 2}
    assert _close(flow, row["day"], zone) == []


def test_a_day_is_closed_once_by_many(flow: FlowHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    flow.shop.person().paid_order(flow.shop.product(price=500))
    flow.run_until_idle()
    monkeypatch.setattr(settlement, "IS_OVER", "select true as over")
    (row,) = flow.shop.sql("select (now() at time zone 'Asia/Seoul')::date as day")

    answers = run_concurrently(*[lambda: _close(flow, row["day"], "Asia/Seoul")] * 4)

    assert sorted(answers, key=len) == [[], [], [], ["KRW"]]
    assert_idle_and_consistent(flow)


def _close(flow: FlowHarness, day: Any, zone: str) -> list[str] | None:
    database = flow.shop.apps["settle"].services.database
    with database.transaction() as session:
        currencies = settlement.close_day(session.tx, day, time_zone=zone)
        session.commit()
    return currencies


def _zone_whose_midnight_is_near() -> tuple[str, datetime]:
    """A POSIX time zone in which a new day begins in about a second, and that moment in UTC."""
    midnight = (datetime.now(UTC) + timedelta(seconds=1.2)).replace(microsecond=0)
    midnight += timedelta(seconds=1)
    behind = midnight - midnight.replace(hour=0, minute=0, second=0)
    sign = "+" if behind < timedelta(hours=12) else "-"
    offset = behind if sign == "+" else timedelta(days=1) - behind
    minutes, seconds = divmod(int(offset.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"<TEST>{sign}{hours:02}:{minutes:02}:{seconds:02}", midnight
