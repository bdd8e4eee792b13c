"""fulfil_orders: packing and sending orders, and what becomes of their cancellation."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from shop.primitives.ids import new_uuid
from tests.harness import (
    REFUNDED,
    FlowHarness,
    Person,
    Response,
    assert_idle_and_consistent,
    run_concurrently,
)

SENT: dict[str, object] = {"status": "SHIPPED", "carrier": "cj", "trackingNumber": "6892-0000-1234"}
DELIVERED: dict[str, object] = {"status": "DELIVERED"}
DROPPED: dict[str, object] = {"status": "CANCELLED"}


class Fulfilment:
    """A paid order of two lines, its customer, and staff who pack it."""

    def __init__(self, flow: FlowHarness) -> None:
        self.flow, self.shop = flow, flow.shop
        self.buyer, self.staff = flow.shop.person(), flow.shop.person("staff")
        self.support = flow.shop.person("support")
        self.first, self.second = flow.shop.product(price=1000), flow.shop.product(price=300)
        items = [
            {"productId": self.first, "quantity": 3},
            {"productId": self.second, "quantity": 1},
        ]
        placed = self.buyer.post("/orders", {"items": items, "paymentMethod": "CARD"})
        assert placed.status == 201, placed.body
        self.order: dict[str, Any] = placed.json
        self.path = f"/admin/orders/{self.order['id']}/shipments"
        flow.run_until_idle()

    def pack(self, *lines: tuple[int, int], by: Person | None = None) -> Response:
        items = [{"productId": product, "quantity": qty} for product, qty in lines]
        return (by or self.staff).post(self.path, {"items": items} if items else {})

    def packed(self, *lines: tuple[int, int]) -> str:
        answer = self.pack(*lines)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    def change(self, shipment: str, body: dict[str, object]) -> Response:
        return self.staff.patch(f"{self.path}/{shipment}", body)

    def cancel(self) -> Response:
        return self.buyer.patch(f"/orders/{self.order['id']}/cancel")

    def seen(self) -> dict[str, Any]:
        """The order as its customer sees it."""
        answer = self.buyer.get(f"/orders/{self.order['id']}")
        assert answer.status == 200
        order: dict[str, Any] = answer.json
        return order


def with_instants(shipment: dict[str, Any]) -> dict[str, Any]:
    """The shipment with its times as instants: PostgreSQL writes no zeros at the end of them."""
    return {
        name: datetime.fromisoformat(value) if name.endswith("At") and value else value
        for name, value in shipment.items()
    }


@pytest.fixture
def paid(flow: FlowHarness) -> Fulfilment:
    return Fulfilment(flow)


def test_order_without_shipments_is_shown_as_before(paid: Fulfilment) -> None:
    assert "shipments" not in paid.seen()


def test_shipment_of_everything_is_packed_sent_and_delivered(paid: Fulfilment) -> None:
    packed = paid.pack()
    assert (packed.status, packed.json["status"]) == (201, "PREPARING")
    assert packed.json["items"] == [
        {"productId": paid.first, "quantity": 3},
        {"productId": paid.second, "quantity": 1},
    ]

    sent = paid.change(packed.json["id"], SENT)
    assert (sent.status, sent.json["status"]) == (200, "SHIPPED")
    assert (sent.json["carrier"], sent.json["trackingNumber"]) == ("cj", "6892-0000-1234")
    delivered = paid.change(packed.json["id"], DELIVERED)

    assert list(map(with_instants, paid.seen()["shipments"])) == [with_instants(delivered.json)]
    page = paid.staff.get(f"/admin/orders/{paid.order['id']}").json
    assert list(map(with_instants, page["shipments"])) == [with_instants(delivered.json)]
    events = [
        row["type"]
        for row in paid.shop.sql(
            "select type from shop.outbox where type like 'shipment.%%' order by event_id"
        )
    ]
    assert events == ["shipment.created", "shipment.shipped", "shipment.delivered"]
    actions = [
        row["action"]
        for row in paid.shop.sql(
            "select action from shop.audit_log where action like 'order.shipment%%' order by seq"
        )
    ]
    assert actions == ["order.shipment_created", *["order.shipment_changed"] * 2]
    assert_idle_and_consistent(paid.flow)


def test_shipments_of_parts_have_no_more_than_was_ordered(paid: Fulfilment) -> None:
    paid.packed((paid.first, 2))

    for line in ((paid.first, 2), (paid.second, 2), (paid.shop.product(), 1)):
        more = paid.pack(line)
        assert (more.status, more.error) == (409, "EXCEEDS_ORDER")

    rest = paid.pack()
    assert rest.json["items"] == [
        {"productId": paid.first, "quantity": 1},
        {"productId": paid.second, "quantity": 1},
    ]
    nothing = paid.pack()
    assert (nothing.status, nothing.error) == (409, "EXCEEDS_ORDER")
    assert_idle_and_consistent(paid.flow)


def test_units_of_a_dropped_shipment_are_packed_again(paid: Fulfilment) -> None:
    shipment = paid.packed((paid.first, 3))
    assert paid.change(shipment, DROPPED).json["status"] == "CANCELLED"

    again = paid.change(shipment, SENT)

    assert (again.status, again.error) == (409, "NOT_PREPARING")
    assert paid.pack((paid.first, 3)).status == 201
    assert_idle_and_consistent(paid.flow)


def test_customer_cannot_cancel_what_is_packed_but_support_can(paid: Fulfilment) -> None:
    paid.packed((paid.second, 1))
    by_customer = paid.cancel()
    assert (by_customer.status, by_customer.error) == (409, "IN_PREPARATION")

    path = f"/admin/orders/{paid.order['id']}/cancel"
    answer = paid.support.patch(path, {"reason": "by phone"})

    assert (answer.status, answer.json["status"]) == (200, "CANCELLING")
    assert [each["status"] for each in answer.json["shipments"]] == ["CANCELLED"]
    assert_idle_and_consistent(paid.flow)
    status, payments, refunds, _ = REFUNDED
    assert paid.flow.outcome(paid.order)[:3] == (status, payments, refunds)


@pytest.mark.parametrize("is_delivered", [False, True])
def test_order_that_was_sent_in_part_cannot_be_cancelled(
    paid: Fulfilment, is_delivered: bool
) -> None:
    shipment = paid.packed((paid.second, 1))
    paid.change(shipment, SENT)
    if is_delivered:
        paid.change(shipment, DELIVERED)

    by_support = paid.support.patch(
        f"/admin/orders/{paid.order['id']}/cancel", {"reason": "by phone"}
    )

    for answer in (paid.cancel(), by_support):
        assert (answer.status, answer.error) == (409, "ALREADY_SHIPPED")
    assert paid.seen()["status"] == "PAID"
    assert_idle_and_consistent(paid.flow)


def test_order_that_is_not_paid_or_being_refunded_is_not_shipped(paid: Fulfilment) -> None:
    shipment = paid.packed((paid.second, 1))
    total = paid.order["totalAmount"]
    refund = paid.support.post(f"/orders/{paid.order['id']}/refunds", {"amount": total})
    assert refund.status == 201, refund.body

    for answer in (paid.pack((paid.first, 1)), paid.change(shipment, SENT)):
        assert (answer.status, answer.error) == (409, "NOT_SHIPPABLE")

    assert_idle_and_consistent(paid.flow)
    assert paid.seen()["status"] == "REFUNDED"
    assert [each["status"] for each in paid.seen()["shipments"]] == ["CANCELLED"]
    unpaid = paid.buyer.order(paid.first)["id"]
    answer = paid.staff.post(f"/admin/orders/{unpaid}/shipments", {})
    assert (answer.status, answer.error) == (409, "NOT_SHIPPABLE")


def test_refund_restocks_nothing_that_is_packed_or_was_sent(paid: Fulfilment) -> None:
    shipment = paid.packed((paid.second, 1))
    body = {"amount": paid.order["totalAmount"], "reason": "broken", "restock": True}
    path = f"/orders/{paid.order['id']}/refunds"

    packed = paid.support.post(path, body)
    paid.change(shipment, SENT)
    sent = paid.support.post(path, body)

    for answer in (packed, sent):
        assert (answer.status, answer.error) == (409, "RESTOCK_NEEDS_STOCK")
    assert paid.shop.sql("select refund_id from shop.refunds") == []
    refunded = paid.support.post(path, body | {"restock": False})
    assert refunded.status == 201
    assert_idle_and_consistent(paid.flow)
    assert paid.seen()["status"] == "REFUNDED"
    assert paid.change(shipment, DELIVERED).status == 200


def test_status_that_does_not_come_next_is_rejected(paid: Fulfilment) -> None:
    shipment = paid.packed((paid.first, 1))
    early = paid.change(shipment, DELIVERED)
    assert (early.status, early.error) == (409, "NOT_SHIPPED")
    paid.change(shipment, SENT)

    for body in (SENT, DROPPED):
        answer = paid.change(shipment, body)
        assert (answer.status, answer.error) == (409, "NOT_PREPARING")

    first = paid.change(shipment, DELIVERED)
    again = paid.change(shipment, DELIVERED)
    assert (again.status, again.json) == (200, first.json), "a repetition changes nothing"
    assert_idle_and_consistent(paid.flow)


def test_number_of_a_parcel_that_is_under_way_is_rejected_until_it_arrived(
    paid: Fulfilment,
) -> None:
    first, second = paid.packed((paid.first, 1)), paid.packed((paid.first, 1))
    assert paid.change(first, SENT).status == 200

    answer = paid.change(second, SENT)

    assert (answer.status, answer.error) == (409, "TRACKING_NUMBER_IN_USE")
    paid.change(first, DELIVERED)
    assert paid.change(second, SENT).status == 200
    assert_idle_and_consistent(paid.flow)


@pytest.mark.parametrize(
    "body",
    [
        {"status": "SHIPPED"},
        {"status": "SHIPPED", "carrier": "cj"},
        {"status": "DELIVERED", "carrier": "cj", "trackingNumber": "1234"},
        {"status": "PREPARING"},
        {"status": "SHIPPED", "carrier": "CJ대한통운", "trackingNumber": "1234"},
        {"status": "SHIPPED", "carrier": "cj", "trackingNumber": "12 34"},
        {"status": "SHIPPED", "carrier": "cj", "trackingNumber": "1" * 41},
    ],
)
def test_invalid_change_of_a_shipment_writes_nothing(
    paid: Fulfilment, body: dict[str, object]
) -> None:
    shipment = paid.packed((paid.first, 1))

    assert paid.change(shipment, body).status == 422

    assert paid.seen()["shipments"][0]["status"] == "PREPARING"


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"productId": 1, "quantity": 0}],
        [{"productId": 1, "quantity": 1001}],
        [{"productId": 1, "quantity": 1}, {"productId": 1, "quantity": 1}],
        [{"quantity": 1}],
    ],
)
def test_invalid_lines_write_nothing(paid: Fulfilment, items: list[dict[str, int]]) -> None:
    assert paid.staff.post(paid.path, {"items": items}).status == 422

    assert "shipments" not in paid.seen()


def test_shipment_of_another_order_and_unknown_ones_get_404(paid: Fulfilment) -> None:
    other = Fulfilment(paid.flow)
    shipment = other.packed((other.first, 1))

    for unknown in (shipment, str(new_uuid()), "7"):
        assert paid.change(unknown, SENT).status == 404
    for order in (str(new_uuid()), "7"):
        assert paid.staff.post(f"/admin/orders/{order}/shipments", {}).status == 404


def test_concurrent_packing_of_the_last_unit_succeeds_once(paid: Fulfilment) -> None:
    answers = run_concurrently(*[lambda: paid.pack((paid.second, 1))] * 5)

    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409]
    assert_idle_and_consistent(paid.flow)


def test_concurrent_cancellation_and_sending_have_one_winner(paid: Fulfilment) -> None:
    shipment = paid.packed((paid.second, 1))
    path = f"/admin/orders/{paid.order['id']}/cancel"

    cancelled, sent = run_concurrently(
        lambda: paid.support.patch(path, {"reason": "by phone"}),
        lambda: paid.change(shipment, SENT),
    )

    assert sorted((cancelled.status, sent.status)) == [200, 409]
    assert_idle_and_consistent(paid.flow)
