"""Cancelling lines before they are sent, and returning goods that were sent."""

from __future__ import annotations

from typing import Any

import pytest

from shop.primitives.ids import new_uuid
from tests.functions.test_fulfil_orders import DELIVERED, SENT, Fulfilment
from tests.harness import FlowHarness, Response, assert_idle_and_consistent, run_concurrently

APPROVED: dict[str, object] = {"status": "APPROVED"}
REJECTED: dict[str, object] = {"status": "REJECTED"}


@pytest.fixture
def paid(flow: FlowHarness) -> Fulfilment:
    """Three units of 1,000 won and one of 300 won."""
    return Fulfilment(flow)


def items(*lines: tuple[int, int]) -> list[dict[str, int]]:
    return [{"productId": product, "quantity": qty} for product, qty in lines]


def cancel(paid: Fulfilment, *lines: tuple[int, int]) -> Response:
    body = {"items": items(*lines)}
    return paid.buyer.post(f"/orders/{paid.order['id']}/cancellations", body)


def ask(paid: Fulfilment, *lines: tuple[int, int]) -> Response:
    body = {"items": items(*lines), "reason": "too small"}
    return paid.buyer.post(f"/orders/{paid.order['id']}/returns", body)


def decide(paid: Fulfilment, return_id: str, body: dict[str, object]) -> Response:
    return paid.support.patch(f"/admin/orders/{paid.order['id']}/returns/{return_id}", body)


def receive(paid: Fulfilment, return_id: str, body: dict[str, Any] | None = None) -> Response:
    path = f"/admin/orders/{paid.order['id']}/returns/{return_id}/receipt"
    return paid.staff.post(path, body or {})


def deliver_all(paid: Fulfilment) -> None:
    shipment = paid.packed()
    assert paid.change(shipment, SENT).status == 200
    assert paid.change(shipment, DELIVERED).status == 200


def approved(paid: Fulfilment, *lines: tuple[int, int]) -> str:
    asked = ask(paid, *lines)
    assert asked.status == 201, asked.body
    assert decide(paid, asked.json["id"], APPROVED).json["status"] == "APPROVED"
    return str(asked.json["id"])


def end_windows(paid: Fulfilment) -> None:
    paid.shop.sql(
        "update shop.shipments set shipped_at = shipped_at - interval '8 days', "
        "delivered_at = delivered_at - interval '8 days'"
    )


def test_cancelled_units_are_refunded_and_in_the_stock_again(paid: Fulfilment) -> None:
    stock = paid.shop.stock_of(paid.first)

    answer = cancel(paid, (paid.first, 2))

    assert (answer.status, answer.json["status"]) == (200, "PAID")
    (line,) = answer.json["returns"][0]["items"]
    assert answer.json["returns"][0]["status"] == "UNSENT"
    assert line == {"productId": paid.first, "quantity": 2, "restocked": 2, "amount": 2000}
    assert_idle_and_consistent(paid.flow)
    assert paid.seen()["refundedAmount"] == 2000
    assert paid.shop.stock_of(paid.first) == (stock[0] + 2, stock[1])
    assert paid.pack().json["items"] == items((paid.first, 1), (paid.second, 1))


def test_last_units_cancel_the_order_as_a_whole(paid: Fulfilment) -> None:
    assert cancel(paid, (paid.first, 2)).json["status"] == "PAID"

    answer = cancel(paid, (paid.first, 1), (paid.second, 1))

    assert (answer.status, answer.json["status"]) == (200, "CANCELLING")
    assert_idle_and_consistent(paid.flow)
    order = paid.seen()
    assert (order["status"], order["refundedAmount"]) == ("CANCELLED", 3300)
    assert paid.shop.stock_of(paid.first) == (10, 0)


def test_order_whose_lines_were_cancelled_in_part_can_be_cancelled(paid: Fulfilment) -> None:
    cancel(paid, (paid.first, 1))

    assert paid.cancel().json["status"] == "CANCELLING"

    assert_idle_and_consistent(paid.flow)
    assert paid.seen()["refundedAmount"] == 3300
    assert paid.shop.stock_of(paid.first) == (10, 0)


def test_units_in_a_shipment_are_not_cancelled_but_others_are(paid: Fulfilment) -> None:
    shipment = paid.packed((paid.first, 2))
    packed = cancel(paid, (paid.first, 2))
    assert (packed.status, packed.error) == (409, "IN_PREPARATION")
    paid.change(shipment, SENT)
    sent = cancel(paid, (paid.first, 2))
    assert (sent.status, sent.error) == (409, "ALREADY_SHIPPED")
    never = cancel(paid, (paid.second, 2))
    assert (never.status, never.error) == (409, "EXCEEDS_ORDER")

    answer = cancel(paid, (paid.first, 1), (paid.second, 1))

    assert (answer.status, answer.json["status"]) == (200, "PAID")
    assert_idle_and_consistent(paid.flow)
    assert paid.seen()["refundedAmount"] == 1300


def test_lines_of_an_unpaid_order_are_not_cancelled(paid: Fulfilment) -> None:
    unpaid = paid.buyer.order(paid.first)["id"]

    answer = paid.buyer.post(f"/orders/{unpaid}/cancellations", {"items": items((paid.first, 1))})

    assert (answer.status, answer.error) == (409, "NOT_CANCELLABLE")


def test_returned_goods_are_restocked_or_written_off_and_refunded(paid: Fulfilment) -> None:
    deliver_all(paid)
    stock = paid.shop.stock_of(paid.first)
    return_id = approved(paid, (paid.first, 2), (paid.second, 1))

    answer = receive(paid, return_id, {"restocked": items((paid.first, 1))})

    assert (answer.status, answer.json["status"]) == (200, "RECEIVED")
    assert answer.json["items"] == [
        {"productId": paid.first, "quantity": 2, "restocked": 1, "amount": 2000},
        {"productId": paid.second, "quantity": 1, "restocked": 0, "amount": 300},
    ]
    assert_idle_and_consistent(paid.flow)
    order = paid.seen()
    assert (order["status"], order["refundedAmount"]) == ("PAID", 2300)
    assert paid.shop.stock_of(paid.first) == (stock[0] + 1, stock[1])
    page = paid.staff.get(f"/admin/orders/{paid.order['id']}").json
    assert page["returns"] == [answer.json | {"reason": "too small"}]


def test_return_of_everything_makes_the_order_refunded(paid: Fulfilment) -> None:
    deliver_all(paid)
    return_id = approved(paid, (paid.first, 3), (paid.second, 1))

    assert receive(paid, return_id).status == 200

    assert_idle_and_consistent(paid.flow)
    order = paid.seen()
    assert (order["status"], order["refundedAmount"]) == ("REFUNDED", 3300)
    assert paid.shop.stock_of(paid.first) == (10, 0)


def test_return_gives_back_no_more_than_what_support_has_left(paid: Fulfilment) -> None:
    deliver_all(paid)
    path = f"/orders/{paid.order['id']}/refunds"
    assert paid.support.post(path, {"amount": 3000, "reason": "late"}).status == 201
    return_id = approved(paid, (paid.first, 3), (paid.second, 1))

    received = receive(paid, return_id)

    assert [line["amount"] for line in received.json["items"]] == [300, 0]
    assert_idle_and_consistent(paid.flow)
    assert paid.seen()["refundedAmount"] == 3300


def test_units_are_returned_once_and_only_if_they_were_sent(paid: Fulfilment) -> None:
    nothing = ask(paid, (paid.first, 1))
    assert (nothing.status, nothing.error) == (409, "NOT_RETURNABLE")
    deliver_all(paid)
    ask(paid, (paid.first, 2))

    again = ask(paid, (paid.first, 2))

    assert (again.status, again.error) == (409, "NOT_RETURNABLE")
    assert_idle_and_consistent(paid.flow)


def test_units_of_a_rejected_return_can_be_returned_again(paid: Fulfilment) -> None:
    deliver_all(paid)
    return_id = approved(paid, (paid.first, 3))
    assert decide(paid, return_id, REJECTED).json["status"] == "REJECTED"

    late = receive(paid, return_id)

    assert (late.status, late.error) == (409, "NOT_APPROVED")
    assert ask(paid, (paid.first, 3)).status == 201
    assert_idle_and_consistent(paid.flow)


def test_window_opens_with_the_delivery_and_closes_after_seven_days(paid: Fulfilment) -> None:
    shipment = paid.packed((paid.first, 3))
    paid.change(shipment, SENT)
    early = ask(paid, (paid.first, 1))
    assert (early.status, early.error) == (409, "RETURN_WINDOW_CLOSED")
    paid.change(shipment, DELIVERED)
    assert ask(paid, (paid.first, 1)).status == 201

    end_windows(paid)

    late = ask(paid, (paid.first, 1))
    assert (late.status, late.error) == (409, "RETURN_WINDOW_CLOSED")


def test_decision_that_does_not_come_next_is_rejected(paid: Fulfilment) -> None:
    deliver_all(paid)
    asked = ask(paid, (paid.first, 1)).json["id"]
    early = receive(paid, asked)
    assert (early.status, early.error) == (409, "NOT_APPROVED")
    decide(paid, asked, APPROVED)
    again = decide(paid, asked, APPROVED)
    assert (again.status, again.error) == (409, "NOT_REQUESTED")
    more = receive(paid, asked, {"restocked": items((paid.first, 2))})
    assert (more.status, more.error) == (409, "EXCEEDS_RETURN")
    receive(paid, asked)

    for answer in (receive(paid, asked), decide(paid, asked, REJECTED)):
        assert answer.status == 409
    assert_idle_and_consistent(paid.flow)


def test_unknown_returns_and_those_of_others_get_404(paid: Fulfilment) -> None:
    deliver_all(paid)
    other = Fulfilment(paid.flow)
    asked = ask(paid, (paid.first, 1)).json["id"]

    for unknown in (str(new_uuid()), "7"):
        assert decide(paid, unknown, APPROVED).status == 404
    assert decide(other, asked, APPROVED).status == 404
    path = f"/orders/{paid.order['id']}"
    body = {"items": items((paid.first, 1)), "reason": "mine"}
    for name in ("cancellations", "returns"):
        assert other.buyer.post(f"{path}/{name}", body).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"items": [], "reason": "x"},
        {"items": [{"productId": 1, "quantity": 0}], "reason": "x"},
        {"items": [{"productId": 1, "quantity": 1}] * 2, "reason": "x"},
        {"items": [{"productId": 1, "quantity": 1}], "reason": "x" * 201},
        {"items": [{"productId": 1, "quantity": 1}], "reason": ""},
        {"reason": "x"},
    ],
)
def test_invalid_return_or_cancellation_writes_nothing(
    paid: Fulfilment, body: dict[str, Any]
) -> None:
    for name in ("cancellations", "returns"):
        answer = paid.buyer.post(f"/orders/{paid.order['id']}/{name}", body)
        assert answer.status == 422, name

    assert "returns" not in paid.seen()


def test_concurrent_cancellations_of_one_unit_have_one_winner(paid: Fulfilment) -> None:
    answers = run_concurrently(*[lambda: cancel(paid, (paid.second, 1))] * 4)

    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    assert_idle_and_consistent(paid.flow)
    assert paid.seen()["refundedAmount"] == 300


def test_concurrent_receipts_of_one_return_have_one_winner(paid: Fulfilment) -> None:
    deliver_all(paid)
    return_id = approved(paid, (paid.first, 1))

    answers = run_concurrently(*[lambda: receive(paid, return_id)] * 4)

    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    assert_idle_and_consistent(paid.flow)
    assert paid.seen()["refundedAmount"] == 1000
