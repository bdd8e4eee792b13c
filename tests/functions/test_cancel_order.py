"""cancel_order: cancelling an order, and refunding a part of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest

from shop.primitives.ids import new_uuid
from tests.harness import (
    REFUNDED,
    UNPAID,
    FlowHarness,
    MakeShop,
    Person,
    Response,
    assert_idle_and_consistent,
    run_concurrently,
)
from tests.sample_requests import Samples


def test_cancel_before_the_charge_releases_the_stock(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(stock=1))

    answer = buyer.patch(f"/orders/{order['id']}/cancel")

    assert (answer.status, answer.json["status"]) == (200, "CANCELLED")
    assert_idle_and_consistent(flow)  # the charge event is delivered after the cancel
    assert flow.outcome(order) == UNPAID


def test_cancel_after_payment_refunds_and_returns_the_stock(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.paid_order(flow.shop.product(stock=1))
    flow.deliver()

    answer = buyer.patch(f"/orders/{order['id']}/cancel")

    assert answer.json["status"] == "CANCELLING"
    again = buyer.patch(f"/orders/{order['id']}/cancel")
    assert (again.status, again.error) == (409, "NOT_CANCELLABLE")
    assert_idle_and_consistent(flow)
    assert flow.outcome(order) == REFUNDED


def test_cancel_after_a_decline_needs_no_refund(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_DECLINED")
    flow.deliver()

    assert buyer.patch(f"/orders/{order['id']}/cancel").json["status"] == "CANCELLED"

    assert_idle_and_consistent(flow)


@pytest.mark.parametrize(
    ("method", "payment", "refunds"),
    [
        ("CARD_TIMEOUT_BEFORE", "VOIDED", []),
        ("CARD_TIMEOUT_AFTER", "CAPTURED", ["SUCCEEDED"]),
        ("CARD_ERROR_AFTER", "CAPTURED", ["SUCCEEDED"]),
    ],
)
def test_cancel_with_an_unknown_payment_voids_or_refunds_it(
    flow: FlowHarness, method: str, payment: str, refunds: list[str]
) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(stock=1), method=method)
    flow.deliver()

    cancelled = buyer.patch(f"/orders/{order['id']}/cancel").json
    assert cancelled["status"] == "CANCELLING"
    assert flow.order_state(order["id"])["stock"] == ["RELEASED"], "stock is released at once"
    flow.run_timers_only()

    assert flow.outcome(order) == ("CANCELLED", [payment], refunds, ["RELEASED"])
    assert_idle_and_consistent(flow)


def test_cancel_makes_the_unknown_payment_due_now(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    assert "payment" not in flow.due_jobs()

    buyer.patch(f"/orders/{order['id']}/cancel")

    assert "payment" in flow.due_jobs()


def test_cancel_with_a_body_gets_422_and_second_cancel_gets_409(samples: Samples) -> None:
    order = samples.order()
    path = f"/orders/{order}/cancel"

    bodies: list[object] = [{"refundAmount": 1}, {"status": "PAID"}, [], 1]
    for body in bodies:
        assert samples.owner.patch(path, body).status == 422, body
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"

    assert samples.owner.patch(path, {}).json["status"] == "CANCELLED"
    again = samples.owner.patch(path)
    assert (again.status, again.error) == (409, "NOT_CANCELLABLE")


def test_cancel_of_a_locked_order_gets_503_and_leaves_the_key_free(
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


def test_cancel_commits_the_refund_before_the_provider_is_called(make_shop: MakeShop) -> None:
    """The order and the refund intent are committed together, before any provider call."""
    shop = make_shop()
    samples = Samples(shop)
    order = samples.owner.paid_order(samples.product)["id"]

    answer = samples.owner.patch(f"/orders/{order}/cancel")

    assert answer.json["status"] == "CANCELLING"
    (refund,) = shop.sql("select status from shop.refunds")
    assert refund["status"] == "INTENT"
    assert samples.shop.stock_of(samples.product) == (100_000, 0)
    shop.deliver_all()
    assert samples.owner.get(f"/orders/{order}").json["status"] == "CANCELLED"


def test_concurrent_cancels_return_the_stock_once(samples: Samples) -> None:
    """Of six concurrent cancels one succeeds and returns the stock."""
    order = samples.owner.paid_order(samples.product, 3)["id"]

    answers = run_concurrently(*[lambda: samples.owner.patch(f"/orders/{order}/cancel")] * 6)
    samples.shop.deliver_all()

    assert sorted(a.status for a in answers) == [200] + [409] * 5
    assert samples.shop.stock_of(samples.product) == (100_000, 0)


ROUNDS = int(os.environ.get("RACE_ROUNDS", "20"))


def _cancel(buyer: Person, order_id: str) -> Callable[[], Response]:
    return lambda: buyer.patch(f"/orders/{order_id}/cancel")


def test_concurrent_cancel_and_charge_end_cancelled(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=1)
    ends: Counter[str] = Counter()
    for _ in range(ROUNDS):
        order = buyer.order(product)
        charge = flow.take_charge_delivery()

        charged, cancelled = run_concurrently(charge, _cancel(buyer, order["id"]))

        assert charged.status == 204
        assert cancelled.status == 200
        ends[cancelled.json["status"]] += 1
        flow.run_until_idle()
        row = flow.order_state(order["id"])
        assert row["status"] == "CANCELLED"
        assert row["stock"][0] in ("RELEASED", "RETURNED")
    assert sum(ends.values()) == ROUNDS
    assert_idle_and_consistent(flow)


def test_concurrent_cancels_succeed_once(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=ROUNDS)
    for number in range(ROUNDS):
        order = buyer.paid_order(product) if number % 2 else buyer.order(product)

        answers = run_concurrently(*[_cancel(buyer, order["id"])] * 4)

        assert sorted(a.status for a in answers) == [200, 409, 409, 409]
        assert {a.error for a in answers if a.status == 409} == {"NOT_CANCELLABLE"}
    assert_idle_and_consistent(flow)


def test_invalid_refund_gets_an_error_and_writes_nothing(samples: Samples) -> None:
    support, path = samples.people["support"], f"/orders/{samples.paid}/refunds"
    total = samples.owner.get(f"/orders/{samples.paid}").json["totalAmount"]
    pending = samples.order()
    samples.shop.deliver_all()
    pending = samples.order()
    before = samples.rows()
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        (path, {"amount": 0}, 422, "INVALID"),
        (path, {"amount": -1}, 422, "INVALID"),
        (path, {"amount": 1.5}, 422, "INVALID"),
        (path, {"amount": 10**10}, 422, "INVALID"),
        (path, {"amount": total + 1}, 409, "EXCEEDS_CAPTURE"),
        (path, {"amount": 1, "currency": "USD"}, 422, "OTHER_CURRENCY"),
        (path, {"amount": 1, "currency": "krw"}, 422, "INVALID"),
        (path, {"amount": 1, "reason": ""}, 422, "INVALID"),
        (path, {"amount": 1, "reason": "a\nb"}, 422, "INVALID"),
        (path, {"amount": 1, "reason": "x" * 201}, 422, "INVALID"),
        (path, {"amount": 1, "status": "SUCCEEDED"}, 422, "INVALID"),
        (path, {}, 422, "INVALID"),
        (f"/orders/{pending}/refunds", {"amount": 1}, 409, "NOT_REFUNDABLE"),
        (f"/orders/{new_uuid()}/refunds", {"amount": 1}, 404, "NOT_FOUND"),
        ("/orders/1/refunds", {"amount": 1}, 404, "NOT_FOUND"),
    ]
    for where, body, status, code in cases:
        answer = support.post(where, body)
        assert (answer.status, answer.error) == (status, code), (where, body, answer.body)
    assert samples.rows() == before


def test_concurrent_full_refunds_create_one(samples: Samples) -> None:
    support, order = samples.people["support"], samples.paid
    total = samples.owner.get(f"/orders/{order}").json["totalAmount"]

    answers = run_concurrently(
        *[lambda: support.post(f"/orders/{order}/refunds", {"amount": total})] * 10
    )

    assert sorted(a.status for a in answers) == [201] + [409] * 9
    (given,) = samples.shop.sql("select sum(amount_minor)::bigint as total from shop.refunds")
    assert given["total"] == total


def test_cancel_after_partial_refunds_refunds_exactly_the_rest(flow: FlowHarness) -> None:
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


def test_full_refund_makes_the_order_refunded_and_keeps_the_goods_sold(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    product = flow.shop.product(price=1000, stock=5)
    order = buyer.paid_order(product)

    support.post(f"/orders/{order['id']}/refunds", {"amount": 1000, "reason": "late"})
    assert_idle_and_consistent(flow)

    assert flow.outcome(order) == ("REFUNDED", ["CAPTURED"], ["SUCCEEDED"], ["COMMITTED"])
    assert flow.shop.stock_of(product) == (4, 0)
    shown = buyer.get(f"/orders/{order['id']}").json
    assert (shown["status"], shown["refundedAmount"]) == ("REFUNDED", 1000)
    cancelled = buyer.patch(f"/orders/{order['id']}/cancel")
    assert (cancelled.status, cancelled.error) == (409, "NOT_CANCELLABLE")
    events = flow.shop.sql("select type from shop.outbox where type = 'order.refunded'")
    assert len(events) == 1


def test_full_refund_with_restock_returns_the_goods_when_it_succeeds(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    product = flow.shop.product(price=1000, stock=5)
    order = buyer.paid_order(product)
    path = f"/orders/{order['id']}/refunds"
    support.post(path, {"amount": 300, "reason": "dented"})

    partial = support.post(path, {"amount": 699, "reason": "returned", "restock": True})
    accepted = support.post(path, {"amount": 700, "reason": "returned", "restock": True})

    assert (partial.status, partial.error) == (409, "RESTOCK_NEEDS_FULL_REFUND")
    assert accepted.status == 201
    assert flow.shop.stock_of(product) == (4, 0)
    assert_idle_and_consistent(flow)
    assert flow.outcome(order)[0] == "REFUNDED"
    assert flow.outcome(order)[3] == ["RETURNED"]
    assert flow.shop.stock_of(product) == (5, 0)


def test_cancel_after_a_full_refund_creates_no_other_refund(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    order = buyer.paid_order(flow.shop.product(price=1000))
    support.post(f"/orders/{order['id']}/refunds", {"amount": 1000, "reason": "sorry"})

    assert buyer.patch(f"/orders/{order['id']}/cancel").json["status"] == "CANCELLING"

    assert_idle_and_consistent(flow)
    assert flow.outcome(order) == REFUNDED


def _refund(support: Person, order_id: str, amount: int) -> Any:
    body = {"amount": amount, "reason": "race"}
    return lambda: support.post(f"/orders/{order_id}/refunds", body)


def test_concurrent_refunds_do_not_exceed_the_capture(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    product = flow.shop.product(price=1000, stock=ROUNDS)
    for _ in range(ROUNDS):
        order = buyer.paid_order(product)

        answers = run_concurrently(*[_refund(support, order["id"], 400)] * 4)

        assert sorted(a.status for a in answers) == [201, 201, 409, 409]
        assert {a.error for a in answers if a.status == 409} == {"EXCEEDS_CAPTURE"}
    assert_idle_and_consistent(flow)


def test_concurrent_refund_and_cancel_refund_exactly_the_capture(flow: FlowHarness) -> None:
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


# ---------------------------------------------------------------- for a customer, by support

REASON = {"reason": "ordered twice"}


def cancel_for(support: Person, order_id: str, **options: Any) -> Response:
    return support.patch(f"/admin/orders/{order_id}/cancel", REASON, **options)


def cancellations(flow: FlowHarness) -> list[dict[str, Any]]:
    return flow.shop.sql(
        "select actor_id, object_id, before, after from shop.audit_log "
        "where action = 'order.cancelled' order by seq"
    )


@pytest.mark.parametrize(
    ("method", "is_delivered", "before", "after"),
    [
        ("CARD", False, "PENDING", "CANCELLED"),
        ("CARD_DECLINED", True, "PENDING", "CANCELLED"),
        ("CARD_TIMEOUT_AFTER", True, "PENDING", "CANCELLING"),
        ("CARD", True, "PAID", "CANCELLING"),
    ],
)
def test_support_cancels_an_open_order_and_the_reason_is_a_note_with_an_audit_entry(
    flow: FlowHarness, method: str, is_delivered: bool, before: str, after: str
) -> None:
    support, buyer = flow.shop.person("support"), flow.shop.person()
    order = buyer.order(flow.shop.product(stock=1), method=method)
    if is_delivered:
        flow.deliver()

    answer = cancel_for(support, order["id"])

    assert (answer.status, answer.json["status"]) == (200, after)
    assert answer.json["reason"] == "OPERATOR"
    assert answer.json["userId"] == buyer.user_id
    (note,) = flow.shop.sql("select note_id, order_id::text, author_id, text from shop.notes")
    assert (note["order_id"], note["author_id"]) == (order["id"], support.user_id)
    assert note["text"] == REASON["reason"]
    assert cancellations(flow) == [
        {
            "actor_id": support.user_id,
            "object_id": order["id"],
            "before": {"status": before},
            "after": {"status": after, "noteId": str(note["note_id"])},
        }
    ]
    assert "ordered twice" not in buyer.get(f"/orders/{order['id']}").body.decode()
    assert_idle_and_consistent(flow)
    assert flow.outcome(order)[0] == "CANCELLED"


@pytest.mark.parametrize("state", ["CANCELLED", "CANCELLING", "REFUNDED"])
def test_support_gets_409_for_a_closed_order_and_nothing_is_written(
    flow: FlowHarness, state: str
) -> None:
    support, buyer = flow.shop.person("support"), flow.shop.person()
    order = buyer.order(flow.shop.product())
    flow.deliver()
    if state == "REFUNDED":
        support.post(f"/orders/{order['id']}/refunds", {"amount": 1000, "reason": "dented"})
    else:
        buyer.patch(f"/orders/{order['id']}/cancel")
    if state != "CANCELLING":
        flow.run_until_idle()
    assert buyer.get(f"/orders/{order['id']}").json["status"] == state

    answer = cancel_for(support, order["id"])

    assert (answer.status, answer.error) == (409, "NOT_CANCELLABLE")
    assert cancellations(flow) == []


def test_support_gets_404_for_an_order_that_does_not_exist(flow: FlowHarness) -> None:
    support = flow.shop.person("support")

    for order_id in (str(new_uuid()), "1"):
        answer = cancel_for(support, order_id)
        assert (answer.status, answer.error) == (404, "NOT_FOUND")
    assert cancellations(flow) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "reason"),
        ({"reason": " "}, "reason"),
        ({"reason": "two\nlines"}, "reason"),
        ({"reason": "x" * 201}, "reason"),
        ({"reason": None}, "reason"),
        ({"reason": "x", "status": "PAID"}, "status"),
    ],
)
def test_cancellation_for_a_customer_needs_a_reason_of_one_line(
    flow: FlowHarness, body: dict[str, Any], field: str
) -> None:
    order = flow.shop.person().order(flow.shop.product())

    answer = flow.shop.person("support").patch(f"/admin/orders/{order['id']}/cancel", body)

    assert answer.status == 422
    assert [error["field"] for error in answer.json["errors"]] == [field]
    assert cancellations(flow) == []


def test_repeated_cancellation_for_a_customer_is_executed_and_audited_once(
    flow: FlowHarness,
) -> None:
    support, order = flow.shop.person("support"), flow.shop.person().order(flow.shop.product())

    first = cancel_for(support, order["id"], key="cancel-for-customer-1")
    second = cancel_for(support, order["id"], key="cancel-for-customer-1")

    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body
    assert second.headers["idempotent-replayed"] == "true"
    assert len(cancellations(flow)) == 1


def test_cancellation_for_a_customer_beside_the_charge_returns_all_money(
    flow: FlowHarness,
) -> None:
    support, buyer = flow.shop.person("support"), flow.shop.person()
    product = flow.shop.product(stock=20)
    orders = [buyer.order(product) for _ in range(6)]

    def deliver() -> None:
        flow.deliver(at_once=True)

    def cancel(order_id: str) -> Response:
        return cancel_for(support, order_id)

    jobs: list[Callable[[], Response | None]] = [partial(cancel, each["id"]) for each in orders]
    answers = [answer for answer in run_concurrently(deliver, *jobs) if answer is not None]
    again = [
        cancel(order["id"])
        for order, answer in zip(orders, answers, strict=True)
        if answer.status == 503
    ]

    assert {answer.status for answer in answers} <= {200, 503}
    assert {answer.status for answer in again} <= {200}
    assert_idle_and_consistent(flow)
    assert {flow.outcome(order)[0] for order in orders} == {"CANCELLED"}
    assert len(cancellations(flow)) == len(orders)


def test_concurrent_cancellations_by_support_and_customer_succeed_once(flow: FlowHarness) -> None:
    support, buyer = flow.shop.person("support"), flow.shop.person()
    order = buyer.paid_order(flow.shop.product(stock=1))

    answers = run_concurrently(
        *[lambda: cancel_for(support, order["id"])] * 2,
        *[lambda: buyer.patch(f"/orders/{order['id']}/cancel")] * 2,
    )

    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    by_support = sum(answer.status == 200 for answer in answers[:2])
    assert len(cancellations(flow)) == by_support
    assert_idle_and_consistent(flow)
