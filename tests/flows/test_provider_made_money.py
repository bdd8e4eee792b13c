"""What the provider does without a request of the shop reaches the order, the ledger and an alert.

Each is reported by a webhook or found by reconciliation, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

from shop.runtime.config import Secret
from tests.harness import (
    FlowHarness,
    MakeShop,
    Person,
    ShopHarness,
    assert_idle_and_consistent,
    assert_invariants,
)
from tests.unit.fake_stripe import FakeStripe
from tools.checker.evaluate import ExternalRecords, find_violations

TOTAL = 1000
WAYS = ("webhook", "reconciliation", "both, repeatedly")

Report = Callable[[str, dict[str, Any]], None]


@pytest.fixture(params=WAYS)
def report(request: pytest.FixtureRequest, flow: FlowHarness) -> Report:
    """Lets the shop know what is in the provider's records, in one of the ways."""

    def send(event_type: str, data: dict[str, Any]) -> None:
        if request.param != "reconciliation":
            assert flow.shop.send_webhook_about(event_type, data).status in (202, 204)
        if request.param != "webhook":
            flow.reconcile()
        if request.param == "both, repeatedly":
            assert flow.shop.send_webhook_about(event_type, data).status == 204
            flow.reconcile()

    return send


def refund_by_hand(flow: FlowHarness, order: dict[str, Any], amount: int) -> dict[str, Any]:
    key = flow.payment_key(order["id"])
    return flow.simulator.act("refunds", charge_key=key, amount_minor=amount)


def open_dispute(flow: FlowHarness, order: dict[str, Any], fee: int = 15) -> dict[str, Any]:
    key = flow.payment_key(order["id"])
    return flow.simulator.act("disputes", charge_key=key, fee_minor=fee)


def close_dispute(flow: FlowHarness, dispute: dict[str, Any], result: str) -> dict[str, Any]:
    return flow.simulator.act(f"disputes/{dispute['key']}/{result}")


def paid_order(flow: FlowHarness) -> tuple[Person, dict[str, Any]]:
    buyer = flow.shop.person()
    return buyer, buyer.paid_order(flow.shop.product(price=TOTAL, stock=9))


def ledger(flow: FlowHarness) -> list[tuple[str, int]]:
    rows = flow.shop.sql("select kind, amount_minor from shop.ledger order by kind, amount_minor")
    return [(row["kind"], row["amount_minor"]) for row in rows]


def shown(buyer: Person, order: dict[str, Any]) -> tuple[str, int]:
    body = buyer.get(f"/orders/{order['id']}").json
    return body["status"], body["refundedAmount"]


def timeline(buyer: Person, order: dict[str, Any]) -> list[tuple[str, str, str]]:
    entries = buyer.get(f"/orders/{order['id']}/timeline").json
    return [(each["entity"], each["from"], each["to"]) for each in entries]


# ---------------------------------------------------------------- refunds


def test_partial_refund_made_in_the_dashboard_is_booked(flow: FlowHarness, report: Report) -> None:
    buyer, order = paid_order(flow)

    report("refund.succeeded", refund_by_hand(flow, order, 300))

    assert shown(buyer, order) == ("PAID", 300)
    assert ledger(flow) == [("CAPTURE", TOTAL), ("REFUND", 300)]
    assert ("refund", "-", "SUCCEEDED") in timeline(buyer, order)
    assert flow.operator_alerts() == ["provider_refund"]
    (row,) = flow.shop.sql("select origin, requested_by from shop.refunds")
    assert row == {"origin": "PROVIDER", "requested_by": None}
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("amount", [300, TOTAL])
def test_refund_that_fails_after_it_succeeded_is_posted_back(
    flow: FlowHarness, report: Report, amount: int
) -> None:
    _, order = paid_order(flow)
    refund = refund_by_hand(flow, order, amount)
    report("refund.succeeded", refund)

    failed = flow.simulator.act(f"refunds/{refund['key']}/failed")
    report("refund.rejected", failed)

    assert ledger(flow) == [("CAPTURE", TOTAL), ("REFUND", amount), ("REFUND_REVERSED", amount)]
    assert "refund_reversed" in flow.operator_alerts()
    assert flow.order_state(order["id"])["refunds"] == ["REVERSED"]
    flow.run_until_idle()
    assert_invariants(flow)


def test_refund_of_the_shop_that_fails_after_it_succeeded_is_posted_back(
    flow: FlowHarness, report: Report
) -> None:
    buyer, order = paid_order(flow)
    assert buyer.patch(f"/orders/{order['id']}/cancel").status == 200
    flow.run_until_idle()
    (refund,) = [r for r in flow.simulator.records()["refunds"] if r["status"] == "succeeded"][-1:]

    failed = flow.simulator.act(f"refunds/{refund['provider_ref']}/failed")
    report("refund.rejected", failed)

    assert ledger(flow) == [("CAPTURE", TOTAL), ("REFUND", TOTAL), ("REFUND_REVERSED", TOTAL)]
    assert flow.order_state(order["id"])["refunds"] == ["REVERSED"]
    assert_invariants(flow)


@pytest.mark.parametrize("amount", [300, TOTAL])
def test_refund_that_was_pending_for_hours_at_stripe_is_booked_without_its_webhook(
    make_shop: MakeShop, amount: int
) -> None:
    stripe = FakeStripe()
    shop = make_shop(
        payment_provider="stripe",
        payment_provider_url=stripe.url,
        payment_provider_api_key=Secret("sk_test_fake"),
    )
    buyer = shop.person()
    order = buyer.order(shop.product(price=TOTAL, stock=9), method="pm_card_visa")
    shop.deliver_all()
    stripe.refund_status = "pending"
    refund = stripe.refund_by_hand(stripe_key(shop), amount)
    refund["created"] -= 2 * 3600

    booked = [reconciled(shop)]
    for status in ("succeeded", "failed"):
        stripe.change_refund(refund["id"], status)
        booked.append(reconciled(shop))
    stripe.close()

    assert booked == [["CAPTURE"], ["CAPTURE", "REFUND"], ["CAPTURE", "REFUND", "REFUND_REVERSED"]]
    assert find_violations(shop.admin_url, stripe_records(stripe), at_rest=False) == []
    shown_order = buyer.get(f"/orders/{order['id']}").json
    assert shown_order["refundedAmount"] == 0


def stripe_records(stripe: FakeStripe) -> ExternalRecords:
    """Stripe's charges; the refund has failed."""
    charges = [
        (each["metadata"]["shop_key"], each["amount"], "CAPTURED")
        for each in stripe.charges.values()
    ]
    return ExternalRecords(tuple(charges), ())


def stripe_key(shop: ShopHarness) -> str:
    (row,) = shop.sql("select provider_key from shop.payments")
    key: str = row["provider_key"]
    return key


def reconciled(shop: ShopHarness) -> list[str]:
    """The kinds of the ledger's postings after a reconciliation."""
    shop.sql("update shop.reconciliation set next_run_at = now()")
    assert shop.tick("sweep").status == 204
    return [row["kind"] for row in shop.sql("select kind from shop.ledger order by kind")]


def test_full_refund_made_in_the_dashboard_closes_the_order(
    flow: FlowHarness, report: Report
) -> None:
    buyer, order = paid_order(flow)

    report("refund.succeeded", refund_by_hand(flow, order, TOTAL))

    assert shown(buyer, order) == ("REFUNDED", TOTAL)
    assert_idle_and_consistent(flow)


def test_cancellation_after_a_refund_in_the_dashboard_returns_the_rest(
    flow: FlowHarness, report: Report
) -> None:
    buyer, order = paid_order(flow)
    report("refund.succeeded", refund_by_hand(flow, order, 300))

    assert buyer.patch(f"/orders/{order['id']}/cancel").status == 200
    assert_idle_and_consistent(flow)

    assert shown(buyer, order) == ("CANCELLED", TOTAL)
    assert ledger(flow) == [("CAPTURE", TOTAL), ("REFUND", 300), ("REFUND", 700)]


def test_refund_in_the_dashboard_before_the_refund_of_a_cancelled_order_is_sent(
    flow: FlowHarness, report: Report
) -> None:
    """The shop's refund of everything can no longer succeed; the rest is returned instead."""
    buyer, order = paid_order(flow)
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.discard_events()

    report("refund.succeeded", refund_by_hand(flow, order, 300))
    assert_idle_and_consistent(flow)

    assert shown(buyer, order) == ("CANCELLED", TOTAL)
    assert flow.order_state(order["id"])["refunds"] == ["REJECTED", "SUCCEEDED", "SUCCEEDED"]


def test_refund_in_the_dashboard_that_is_reported_after_the_shops_own_was_rejected(
    flow: FlowHarness, report: Report
) -> None:
    buyer, order = paid_order(flow)
    refund = refund_by_hand(flow, order, 300)
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.deliver()
    assert flow.order_state(order["id"])["refunds"] == ["REJECTED"]

    report("refund.succeeded", refund)
    assert_idle_and_consistent(flow)

    assert shown(buyer, order) == ("CANCELLED", TOTAL)


def test_full_refund_in_the_dashboard_completes_a_cancelled_order(
    flow: FlowHarness, report: Report
) -> None:
    buyer, order = paid_order(flow)
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.discard_events()

    report("refund.succeeded", refund_by_hand(flow, order, TOTAL))

    assert shown(buyer, order) == ("CANCELLED", TOTAL)
    assert_idle_and_consistent(flow)


def test_refund_webhook_before_its_charge_is_recorded_is_sent_again(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(price=TOTAL), method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    refund = refund_by_hand(flow, order, 300)

    assert flow.shop.send_webhook_about("refund.succeeded", refund, event_id="evt_1").status == 503
    flow.sweep_all()
    assert flow.shop.send_webhook_about("refund.succeeded", refund, event_id="evt_1").status == 202

    assert shown(buyer, order) == ("PAID", 300)
    assert_idle_and_consistent(flow)


def test_capture_made_in_the_dashboard_pays_the_order(flow: FlowHarness, report: Report) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(price=TOTAL), method="CARD_TIMEOUT_BEFORE")
    flow.deliver()
    key = flow.payment_key(order["id"])

    report("charge.captured", flow.simulator.act(f"intents/{key}/capture"))

    assert shown(buyer, order) == ("PAID", 0)
    assert ledger(flow) == [("CAPTURE", TOTAL)]
    assert_idle_and_consistent(flow)


# ---------------------------------------------------------------- disputes


def test_dispute_that_is_won_is_posted_and_paid_back(flow: FlowHarness, report: Report) -> None:
    buyer, order = paid_order(flow)

    dispute = open_dispute(flow, order)
    report("dispute.opened", dispute)
    assert ledger(flow) == [("CAPTURE", TOTAL), ("DISPUTE", TOTAL), ("DISPUTE_FEE", 15)]
    assert flow.operator_alerts() == ["dispute_opened"]
    report("dispute.won", close_dispute(flow, dispute, "won"))

    assert ledger(flow) == [
        ("CAPTURE", TOTAL),
        ("DISPUTE", TOTAL),
        ("DISPUTE_FEE", 15),
        ("DISPUTE_FEE_REVERSAL", 15),
        ("DISPUTE_REVERSAL", TOTAL),
    ]
    assert flow.operator_alerts() == ["dispute_opened", "dispute_won"]
    changes = [change for change in timeline(buyer, order) if change[0] == "dispute"]
    assert changes == [("dispute", "-", "OPEN"), ("dispute", "OPEN", "WON")]
    assert shown(buyer, order) == ("PAID", 0)
    assert_idle_and_consistent(flow)


def test_dispute_that_is_lost_completes_a_cancelled_order_without_a_refund(
    flow: FlowHarness, report: Report
) -> None:
    buyer, order = paid_order(flow)
    dispute = open_dispute(flow, order)
    report("dispute.opened", dispute)

    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_until_idle()
    assert flow.order_state(order["id"])["status"] == "CANCELLING"
    assert flow.order_state(order["id"])["refunds"] == []
    report("dispute.lost", close_dispute(flow, dispute, "lost"))

    assert shown(buyer, order) == ("CANCELLED", 0)
    assert_idle_and_consistent(flow)


def test_dispute_that_is_won_after_the_cancellation_is_refunded(
    flow: FlowHarness, report: Report
) -> None:
    buyer, order = paid_order(flow)
    dispute = open_dispute(flow, order)
    report("dispute.opened", dispute)
    buyer.patch(f"/orders/{order['id']}/cancel")

    report("dispute.won", close_dispute(flow, dispute, "won"))
    assert_idle_and_consistent(flow)

    assert shown(buyer, order) == ("CANCELLED", TOTAL)


def test_refund_of_a_disputed_payment_is_not_sent(flow: FlowHarness, report: Report) -> None:
    """The refund was requested before the dispute: sending it would pay the customer twice."""
    buyer, order = paid_order(flow)
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.discard_events()
    dispute = open_dispute(flow, order)
    report("dispute.opened", dispute)

    flow.run_until_idle()
    assert flow.order_state(order["id"])["refunds"] == ["REJECTED"]
    assert [
        r for r in flow.simulator.records()["refunds"] if r["charge_key"] == dispute["charge_key"]
    ] == []
    report("dispute.lost", close_dispute(flow, dispute, "lost"))

    assert shown(buyer, order) == ("CANCELLED", 0)
    assert_idle_and_consistent(flow)


@pytest.mark.parametrize("result", ["won", "lost"])
def test_dispute_at_stripe_is_on_the_ledger_in_an_alert_and_on_the_page_of_the_order(
    make_shop: MakeShop, result: str
) -> None:
    stripe = FakeStripe()
    shop = make_shop(
        payment_provider="stripe",
        payment_provider_url=stripe.url,
        payment_provider_api_key=Secret("sk_test_fake"),
    )
    buyer, support = shop.person(), shop.person("support")
    order = buyer.order(shop.product(price=TOTAL), method="pm_card_visa")
    shop.deliver_all()

    dispute = stripe.open_dispute(stripe_key(shop), fee=15)
    opened = [shop.send_stripe_webhook("charge.dispute.created", dispute) for _ in range(2)]
    stripe.close_dispute(dispute["id"], is_won=result == "won")
    closed = shop.send_stripe_webhook("charge.dispute.closed", dispute)
    stripe.close()

    assert ([each.status for each in opened], closed.status) == ([202, 204], 202)
    page = support.get(f"/admin/orders/{order['id']}").json
    (shown_dispute,) = page["disputes"]
    assert (shown_dispute["status"], shown_dispute["amount"]) == (result.upper(), TOTAL)
    assert shown_dispute["providerReference"] == dispute["id"]
    moved = [(each["kind"], each["amount"]) for each in page["postings"]]
    back = [("DISPUTE_REVERSAL", TOTAL)] if result == "won" else []
    assert moved == [("CAPTURE", TOTAL), ("DISPUTE", TOTAL), ("DISPUTE_FEE", 15), *back]
    alerts = shop.sql("select kind, subject from shop.alarms order by kind")
    assert [row["kind"] for row in alerts] == sorted(("dispute_opened", f"dispute_{result}"))
    assert {row["subject"] for row in alerts} == {shown_dispute["id"]}
    assert (page["status"], buyer.get(f"/orders/{order['id']}").json["status"]) == ("PAID", "PAID")


@pytest.mark.parametrize("sequence", list(permutations(range(3))))
def test_reports_in_any_order_have_the_same_result(
    flow: FlowHarness, sequence: tuple[int, ...]
) -> None:
    buyer, order = paid_order(flow)
    reports = [("refund.succeeded", refund_by_hand(flow, order, 300))]
    dispute = flow.simulator.act(
        "disputes", charge_key=flow.payment_key(order["id"]), amount_minor=700, fee_minor=15
    )
    reports += [
        ("dispute.opened", dispute),
        ("dispute.won", close_dispute(flow, dispute, "won")),
    ]

    for number in sequence:
        assert flow.shop.send_webhook_about(*reports[number]).status in (202, 204)

    assert ledger(flow) == [
        ("CAPTURE", TOTAL),
        ("DISPUTE", 700),
        ("DISPUTE_FEE", 15),
        ("DISPUTE_FEE_REVERSAL", 15),
        ("DISPUTE_REVERSAL", 700),
        ("REFUND", 300),
    ]
    assert shown(buyer, order) == ("PAID", 300)
    assert_idle_and_consistent(flow)


# ---------------------------------------------------------------- other shops


def test_charges_refunds_disputes_and_payouts_of_other_shops_are_ignored(
    flow: FlowHarness, report: Report
) -> None:
    charge = flow.simulator.act("other-shop-charges", amount_minor=500, currency="KRW")
    refund = flow.simulator.act("refunds", charge_key=charge["key"], amount_minor=200)
    dispute = flow.simulator.act("disputes", charge_key=charge["key"])

    report("charge.captured", charge)
    report("refund.succeeded", refund)
    report("dispute.opened", dispute)
    payout = flow.simulator.act("payouts", amount_minor=300, currency="KRW")
    assert flow.shop.send_webhook_about("payout.paid", payout).status == 204

    assert (ledger(flow), flow.operator_alerts()) == ([], [])
    assert flow.shop.sql("select 1 from shop.inbox where consumer = 'payment_webhook'") == []
    assert_idle_and_consistent(flow)


# ---------------------------------------------------------------- references of two orders


def test_capture_with_the_reference_of_another_payment_raises_an_alert(flow: FlowHarness) -> None:
    buyer, first = paid_order(flow)
    order = buyer.order(flow.shop.product(price=TOTAL), method="CARD_TIMEOUT_BEFORE")
    flow.deliver()
    (paid,) = flow.shop.sql(
        "select provider_ref from shop.payments where order_id = %s", first["id"]
    )
    data = {
        "key": flow.payment_key(order["id"]),
        "amount_minor": TOTAL,
        "currency": "KRW",
        "provider_ref": paid["provider_ref"],
    }

    answers = [
        flow.shop.send_webhook_about("charge.captured", data, event_id=event_id).status
        for event_id in ("evt_1", "evt_1", "evt_2")
    ]

    assert answers == [202, 204, 202]
    assert flow.order_state(order["id"])["status"] == "PENDING"
    assert flow.operator_alerts() == ["reference_conflict"]
    assert_invariants(flow, at_rest=False)


@pytest.mark.parametrize("what", ["refund", "lost refund", "dispute"])
def test_refund_or_dispute_of_another_order_raises_an_alert(flow: FlowHarness, what: str) -> None:
    _, first = paid_order(flow)
    _, second = paid_order(flow)
    if what == "dispute":
        event_type, data = "dispute.opened", open_dispute(flow, first)
    else:
        event_type, data = "refund.succeeded", refund_by_hand(flow, first, 300)
    assert flow.shop.send_webhook_about(event_type, data).status == 202
    if what == "lost refund":
        (row,) = flow.shop.sql("select refund_id from shop.refunds")
        data = {**data, "key": f"refund:{row['refund_id']}"}
    moved = {**data, "charge_key": flow.payment_key(second["id"]), "charge_ref": "ch_other"}
    before = ledger(flow)

    if what == "refund":
        moved["key"] = f"{data['key']}-other"

    assert flow.shop.send_webhook_about(event_type, moved).status == 202

    assert "reference_conflict" in flow.operator_alerts()
    assert ledger(flow) == before
    assert flow.order_state(second["id"])["refunds"] == []
    assert_invariants(flow, at_rest=False)
