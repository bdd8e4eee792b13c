"""refund: refunds sent to the provider, each once."""

from __future__ import annotations

import pytest

from tests.harness import REFUNDED, FlowHarness, assert_idle_and_consistent, event_name


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
