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
from tests.flows.stage import Message, Stage, assert_invariants, assert_rests, together
from tests.harness import Person
from tests.waiting import wait_for

ROUNDS = int(os.environ.get("RACE_ROUNDS", "20"))


def _charge_event(stage: Stage) -> Message:
    """The order.placed that came last; everything else is lost."""
    placed = [m for m in stage.broker.take() if m[0]["ce-type"].endswith("order.placed.v1")]
    return placed[-1]


def _charge(stage: Stage, message: Message) -> Any:
    return lambda: stage.shop.post_event("charge", *message)


def _cancel(buyer: Person, order_id: str) -> Any:
    return lambda: buyer.patch(f"/orders/{order_id}/cancel")


def _refund(support: Person, order_id: str, amount: int) -> Any:
    body = {"amount": amount, "reason": "race"}
    return lambda: support.post(f"/orders/{order_id}/refunds", body)


def test_cancel_against_capture(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=1)
    ends: Counter[str] = Counter()
    for _ in range(ROUNDS):
        order = buyer.order(product)
        event = _charge_event(stage)

        charged, cancelled = together(_charge(stage, event), _cancel(buyer, order["id"]))

        assert charged.status == 204
        assert cancelled.status == 200
        ends[cancelled.json["status"]] += 1
        stage.come_to_rest()
        row = stage.order(order["id"])
        assert row["status"] == "CANCELLED"
        assert row["stock"][0] in ("RELEASED", "RETURNED")
    assert sum(ends.values()) == ROUNDS
    assert_rests(stage)


def test_cancel_against_cancel(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=ROUNDS)
    for number in range(ROUNDS):
        order = buyer.paid_order(product) if number % 2 else buyer.order(product)

        answers = together(*[_cancel(buyer, order["id"])] * 4)

        assert sorted(a.status for a in answers) == [200, 409, 409, 409]
        assert {a.error for a in answers if a.status == 409} == {"NOT_CANCELLABLE"}
    assert_rests(stage)


def test_the_same_charge_event_at_once(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.order(product)
        event = _charge_event(stage)

        answers = together(*[_charge(stage, event)] * 4)

        assert {a.status for a in answers} <= {204, 503}
        assert stage.order(order["id"])["payments"] == ["CAPTURED"]
        assert stage.simulator.captures(stage.payment_key(order["id"])) == 1
    assert_rests(stage)


def test_expiry_against_charge(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=ROUNDS)
    ends: Counter[str] = Counter()
    for _ in range(ROUNDS):
        order = buyer.order(product)
        event = _charge_event(stage)
        stage.expire(order["id"])

        together(_charge(stage, event), lambda: stage.shop.tick("sweep"))

        stage.come_to_rest()
        row = stage.order(order["id"])
        assert (row["status"], row["payments"], row["stock"]) in (
            ("PAID", ["CAPTURED"], ["COMMITTED"]),
            ("CANCELLED", [], ["RELEASED"]),
        )
        ends[row["status"]] += 1
    assert_rests(stage)


def test_refund_against_refund(stage: Stage) -> None:
    buyer, support = stage.shop.person(), stage.shop.person("support")
    product = stage.shop.product(price=1000, stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.paid_order(product)

        answers = together(*[_refund(support, order["id"], 400)] * 4)

        assert sorted(a.status for a in answers) == [201, 201, 409, 409]
        assert {a.error for a in answers if a.status == 409} == {"EXCEEDS_CAPTURE"}
    assert_rests(stage)


def test_partial_refund_against_cancel(stage: Stage) -> None:
    buyer, support = stage.shop.person(), stage.shop.person("support")
    product = stage.shop.product(price=1000, stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.paid_order(product)

        refunded, cancelled = together(
            _refund(support, order["id"], 300), _cancel(buyer, order["id"])
        )

        assert cancelled.status == 200
        assert (refunded.status, refunded.json.get("error")) in (
            (201, None),
            (409, "NOT_REFUNDABLE"),
        )
        stage.come_to_rest()
        (row,) = stage.shop.sql(
            "select sum(r.amount_minor)::int as total from shop.refunds r "
            "join shop.payments p using (payment_id) where p.order_id = %s",
            order["id"],
        )
        assert row["total"] == 1000
    assert_rests(stage)


@pytest.mark.parametrize("stock", [1, 3])
def test_the_last_units_against_many_buyers(stage: Stage, stock: int) -> None:
    buyers = [stage.shop.person() for _ in range(10)]
    for _ in range(max(ROUNDS // 4, 3)):
        product = stage.shop.product(stock=stock)
        body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}

        answers = together(*(lambda b=b, body=body: b.post("/orders", body) for b in buyers))

        assert Counter(a.status for a in answers) == {201: stock, 409: len(buyers) - stock}
        assert {a.error for a in answers if a.status == 409} == {"OUT_OF_STOCK"}
    assert_rests(stage)


def test_crossed_baskets(stage: Stage) -> None:
    """The same two products in both orders: locks in ascending order, so nobody waits in a ring."""
    products = [stage.shop.product(stock=ROUNDS * 4) for _ in range(2)]
    buyers = [stage.shop.person() for _ in range(4)]
    for _ in range(ROUNDS):
        for number, buyer in enumerate(buyers):
            for product in products if number % 2 else reversed(products):
                buyer.post("/cart/items", {"productId": product, "quantity": 1})

        answers = together(
            *(lambda b=b: b.post("/orders/from-cart", {"paymentMethod": "CARD"}) for b in buyers)
        )

        assert [a.status for a in answers] == [201] * len(buyers)
    assert_rests(stage)


def test_one_cart_ordered_twice_at_once(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=ROUNDS)
    for _ in range(ROUNDS):
        buyer.post("/cart/items", {"productId": product, "quantity": 1})

        answers = together(
            *[lambda: buyer.post("/orders/from-cart", {"paymentMethod": "CARD"})] * 3
        )

        assert sorted(a.status for a in answers) == [201, 400, 400]
    assert_rests(stage)


def test_one_idempotency_key_ten_times_at_once(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=ROUNDS)
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    for number in range(ROUNDS):
        key = f"the-key-of-round-{number:04}"

        answers = together(*[lambda k=key: buyer.post("/orders", body, key=k)] * 10)

        placed = [a for a in answers if a.status == 201]
        assert placed and len({a.body for a in placed}) == 1
        others = [(a.status, a.error) for a in answers if a.status != 201]
        assert set(others) <= {(409, "REQUEST_IN_PROGRESS")}
        orders = stage.shop.sql("select 1 from shop.orders where idem_key = %s", key)
        assert len(orders) == 1
    assert_rests(stage)


def test_pay_again_against_pay_again_and_cancel(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=1)
    for _ in range(ROUNDS):
        order = buyer.order(product, method="CARD_DECLINED")
        stage.deliver()
        pay = {"paymentMethod": "CARD"}

        *paid, cancelled = together(
            *[lambda o=order["id"], pay=pay: buyer.post(f"/orders/{o}/payments", pay)] * 2,
            _cancel(buyer, order["id"]),
        )

        assert cancelled.status == 200
        assert sorted(a.status for a in paid) in ([201, 409], [409, 409])
        stage.come_to_rest()
        assert stage.order(order["id"])["status"] == "CANCELLED"
    assert_rests(stage)


def test_two_sweepers_and_the_events_beside_them(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(stock=ROUNDS * 6)
    for _ in range(max(ROUNDS // 4, 3)):
        orders = [buyer.order(product) for _ in range(6)]
        for order in orders[::2]:
            buyer.patch(f"/orders/{order['id']}/cancel")
        stage.shop.sql("update shop.orders set charge_at = now() where charge_at is not null")
        stage.shop.sql("update shop.outbox set next_try_at = now() where done_at is null")

        answers = together(
            lambda: stage.shop.tick("sweep"), lambda: stage.shop.tick("sweep"), stage.deliver
        )

        assert [answers[0].status, answers[1].status] == [204, 204]
    assert_rests(stage)
    captured = stage.shop.sql("select provider_key from shop.payments where status = 'CAPTURED'")
    assert all(stage.simulator.captures(row["provider_key"]) == 1 for row in captured)


def test_a_capture_by_answer_webhook_and_books_at_once(stage: Stage) -> None:
    buyer, product = stage.shop.person(), stage.shop.product(price=900, stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.order(product)
        event = _charge_event(stage)
        stage.shop.post_event("charge", *event)
        stage.shop.sql("update shop.reconciliation set next_run_at = now()")
        key = stage.payment_key(order["id"])

        together(
            lambda k=key: stage.notify("charge.captured", k, 900),
            lambda: stage.shop.tick("sweep"),
            _cancel(buyer, order["id"]),
        )

        assert_invariants(stage, at_rest=False)
    assert_rests(stage)


def test_a_day_is_not_closed_while_somebody_may_still_post_to_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Midnight is a second away in a time zone of our own; a posting begun before it counts."""
    margin = "interval '2 minutes'"
    assert margin in settlement.IS_OVER
    monkeypatch.setattr(
        settlement, "IS_OVER", settlement.IS_OVER.replace(margin, "interval '0 seconds'")
    )
    paid = stage.shop.person().paid_order(stage.shop.product(price=500))
    stage.come_to_rest()
    zone, midnight = _zone_whose_midnight_is_near()
    (row,) = stage.shop.sql("select (now() at time zone %s)::date as day", zone)
    stage.shop.close()  # connections that are idle, not in a transaction
    with psycopg.connect(stage.shop.admin_url) as posting:
        posting.execute(
            "insert into shop.ledger (kind, source_id, order_id, debit, credit, amount_minor, "
            "currency) select 'REFUND', gen_random_uuid(), order_id, 'order_escrow', "
            "'psp_receivable', 200, currency from shop.orders where order_id = %s",
            (paid["id"],),
        )
        wait_for(lambda: datetime.now(UTC) > midnight, "midnight")
        assert _close(stage, row["day"], zone) is None
        posting.commit()

    assert _close(stage, row["day"], zone) == ["KRW"]
    (closed,) = stage.shop.sql("select captures_minor, refunds_minor, n from shop.settlements")
    assert closed == {"captures_minor": 500, "refunds_minor": 200, "n": 2}
    assert _close(stage, row["day"], zone) == []


def test_a_day_is_closed_once_by_many(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.shop.person().paid_order(stage.shop.product(price=500))
    stage.come_to_rest()
    monkeypatch.setattr(settlement, "IS_OVER", "select true as over")
    (row,) = stage.shop.sql("select (now() at time zone 'Asia/Seoul')::date as day")

    answers = together(*[lambda: _close(stage, row["day"], "Asia/Seoul")] * 4)

    assert sorted(answers, key=len) == [[], [], [], ["KRW"]]
    assert_rests(stage)


def _close(stage: Stage, day: Any, zone: str) -> list[str] | None:
    database = stage.shop.apps["settle"].services.database
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
