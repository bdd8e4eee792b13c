"""refund: refunds sent to the provider, each once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.harness import REFUNDED, FlowHarness, Person, assert_idle_and_consistent, event_name
from tools.checker.evaluate import find_violations


@pytest.mark.parametrize(
    "fault", ["timeout_before", "timeout_after", "error_after", "rate_limited"]
)
def test_unknown_outcome_is_retried_with_the_same_key(flow: FlowHarness, fault: str) -> None:
    buyer = flow.shop.person()
    order = buyer.paid_order(flow.shop.product())
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.simulator.set_faults(probabilities={fault: 1})
    flow.deliver()
    assert flow.order_state(order["id"])["refunds"] == ["UNKNOWN"]

    flow.simulator.set_faults()
    flow.run_timers_only()

    assert flow.outcome(order) == REFUNDED
    assert_idle_and_consistent(flow)


def test_duplicate_refund_requested_is_acknowledged_and_refunds_once(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.paid_order(flow.shop.product())
    buyer.patch(f"/orders/{order['id']}/cancel")
    (message,) = [m for m in flow.broker.take() if event_name(m) == "refund.requested"]

    responses = [flow.shop.post_event("refund", *message) for _ in range(2)]

    assert [response.status for response in responses] == [204, 204]
    assert len(flow.external_records().refunds) == 1
    flow.run_until_idle()
    assert flow.outcome(order) == REFUNDED
    assert_idle_and_consistent(flow)


def test_rejected_refund_raises_an_operator_alert(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(), method="CARD_REFUND_REJECTED")
    flow.deliver()
    assert flow.order_state(order["id"])["status"] == "PAID"

    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_until_idle()

    assert flow.outcome(order) == ("CANCELLING", ["CAPTURED"], ["REJECTED"], ["RETURNED"])
    assert flow.operator_alerts() == ["refund_rejected"]
    assert_idle_and_consistent(flow)


def with_rejected_refund(flow: FlowHarness) -> tuple[Person, dict[str, Any], str]:
    """The customer, an order that is CANCELLING for ever, and the path to refund it."""
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(price=1000), method="CARD_REFUND_REJECTED")
    flow.deliver()
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_until_idle()
    assert flow.order_state(order["id"])["status"] == "CANCELLING"
    return buyer, order, f"/orders/{order['id']}/refunds"


def postings(flow: FlowHarness) -> list[tuple[str, str, str, int]]:
    rows = flow.shop.sql("select kind, debit, credit, amount_minor from shop.ledger order by seq")
    return [(r["kind"], r["debit"], r["credit"], r["amount_minor"]) for r in rows]


CAPTURE = ("CAPTURE", "psp_receivable", "order_escrow", 1000)
BY_BANK = {"amount": 400, "means": "OTHER_MEANS", "reference": "bank 7", "reason": "card closed"}
WRITE_OFF = {"amount": 600, "means": "WRITE_OFF", "reason": "cannot be reached since May"}


def test_rejected_refund_is_tried_again_with_a_new_key(flow: FlowHarness) -> None:
    _, order, path = with_rejected_refund(flow)

    answer = flow.shop.person("support").post(path, {"amount": 1000, "reason": "again"})
    flow.run_until_idle()

    assert answer.status == 201
    rows = flow.shop.sql("select provider_key from shop.refunds")
    assert len({row["provider_key"] for row in rows}) == 2
    assert flow.outcome(order)[2] == ["REJECTED", "REJECTED"]
    assert_idle_and_consistent(flow)


def test_refund_by_other_means_and_write_off_close_the_order(flow: FlowHarness) -> None:
    buyer, order, path = with_rejected_refund(flow)
    support = flow.shop.person("support")

    answer = support.post(path, BY_BANK)
    flow.run_until_idle()
    assert flow.order_state(order["id"])["status"] == "CANCELLING"
    written_off = support.post(path, WRITE_OFF)

    assert answer.status == written_off.status == 201
    assert answer.json == {
        "orderId": order["id"],
        "amount": 400,
        "currency": "KRW",
        "status": "INTENT",
        "reason": "card closed",
        "means": "OTHER_MEANS",
        "reference": "bank 7",
        "restock": False,
    }
    assert_idle_and_consistent(flow)
    assert flow.order_state(order["id"])["status"] == "CANCELLED"
    assert postings(flow) == [
        CAPTURE,
        ("REFUND_BY_OTHER_MEANS", "order_escrow", "other_means", 400),
        ("WRITE_OFF", "order_escrow", "written_off", 600),
    ]
    assert buyer.get(f"/orders/{order['id']}").json["refundedAmount"] == 400
    records = flow.shop.sql(
        "select means, reference, reason, requested_by from shop.refunds "
        "where means <> 'PROVIDER' order by created_at"
    )
    assert [tuple(row.values()) for row in records] == [
        ("OTHER_MEANS", "bank 7", "card closed", support.user_id),
        ("WRITE_OFF", None, "cannot be reached since May", support.user_id),
    ]
    changes = flow.shop.sql(
        "select t.actor from shop.transitions t join shop.refunds r on r.refund_id = t.entity_id "
        "where r.means <> 'PROVIDER' and t.to_status = 'INTENT'"
    )
    assert [row["actor"] for row in changes] == [f"user:{support.user_id}"] * 2


def test_refund_by_other_means_is_not_sent_to_the_provider(flow: FlowHarness) -> None:
    buyer, support = flow.shop.person(), flow.shop.person("support")
    order = buyer.paid_order(flow.shop.product(price=1000))

    support.post(f"/orders/{order['id']}/refunds", BY_BANK)
    flow.run_timers_only()

    assert flow.external_records().refunds == ()
    assert flow.outcome(order) == ("PAID", ["CAPTURED"], ["SUCCEEDED"], ["COMMITTED"])
    assert buyer.get(f"/orders/{order['id']}").json["refundedAmount"] == 400


@pytest.mark.parametrize(
    "body",
    [
        {"amount": 1, "means": "OTHER_MEANS", "reason": "card closed"},
        {"amount": 1, "means": "OTHER_MEANS", "reference": "bank 7"},
        {"amount": 1, "means": "WRITE_OFF"},
        {"amount": 1, "means": "WRITE_OFF", "reason": "lost", "reference": "bank 7"},
        {"amount": 1, "means": "CASH", "reason": "x"},
        {"amount": 1, "reference": "bank 7"},
    ],
)
def test_unexplained_means_get_422_and_write_nothing(
    flow: FlowHarness, body: dict[str, Any]
) -> None:
    _, _, path = with_rejected_refund(flow)

    answer = flow.shop.person("support").post(path, body)

    assert (answer.status, answer.error) == (422, "INVALID")
    assert len(flow.shop.sql("select 1 from shop.refunds")) == 1


def test_refund_that_the_provider_reverses_can_be_made_again(flow: FlowHarness) -> None:
    """Stripe's ``refund.failed`` after success: the customer's account is closed."""
    buyer, support = flow.shop.person(), flow.shop.person("support")
    order = buyer.paid_order(flow.shop.product(price=1000))
    path = f"/orders/{order['id']}/refunds"
    support.post(path, {"amount": 300, "reason": "dented"})
    flow.run_until_idle()
    (refund,) = flow.shop.sql("select provider_key from shop.refunds")

    assert flow.send_webhook("refund.rejected", refund["provider_key"], 300) == 202
    assert flow.send_webhook("refund.rejected", refund["provider_key"], 300) == 204

    assert buyer.get(f"/orders/{order['id']}").json["refundedAmount"] == 0
    assert flow.operator_alerts() == ["refund_reversed"]
    again = support.post(path, {**BY_BANK, "amount": 1000})
    assert again.status == 201
    flow.run_until_idle()
    assert buyer.get(f"/orders/{order['id']}").json["refundedAmount"] == 1000
    assert [kind for kind, *_ in postings(flow)] == [
        "CAPTURE",
        "REFUND",
        "REFUND_REVERSED",
        "REFUND_BY_OTHER_MEANS",
    ]
    assert flow.order_state(order["id"])["status"] == "REFUNDED"
    without_reversed = replace(flow.external_records(), refunds=())
    assert find_violations(flow.shop.admin_url, without_reversed, at_rest=True) == []
