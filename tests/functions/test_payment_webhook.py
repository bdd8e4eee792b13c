"""payment_webhook: signed webhooks of the payment provider, each applied once."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

import pytest

from tests.harness import (
    UNREACHABLE,
    FlowHarness,
    MakeShop,
    Response,
    assert_idle_and_consistent,
    assert_invariants,
    run_concurrently,
)
from tests.sample_requests import Samples
from tools.payment_simulator.webhook_sender import sign


@pytest.fixture
def unpaid(make_shop: MakeShop) -> tuple[Samples, str, dict[str, Any]]:
    """An order whose payment has an unknown outcome: the provider was unreachable."""
    samples = Samples(make_shop(payment_provider_url=UNREACHABLE))
    order = samples.order()
    (placed,) = [row for row in samples.shop.outbox() if row["type"] == "order.placed"]
    assert samples.shop.deliver(placed, "charge").status == 204
    (payment,) = samples.shop.sql("select * from shop.payments where order_id = %s", order)
    return samples, order, payment


def webhook_body(payment: dict[str, Any], **changes: Any) -> bytes:
    data = {
        "key": payment["provider_key"],
        "amount_minor": payment["amount_minor"],
        "currency": "KRW",
        "provider_ref": f"ch_{uuid4().hex}",
    }
    event = {
        "id": f"evt_{uuid4().hex}",
        "type": changes.pop("type", "charge.captured"),
        "created": int(time.time()),
    }
    return json.dumps({**event, "data": data | changes}).encode()


def post_webhook(
    samples: Samples, body: bytes, *, at: float | None = None, **headers: str
) -> Response:
    signature = sign(body, samples.shop.webhook_secret, int(time.time() if at is None else at))
    sent = {"webhook-signature": signature} | {k.replace("_", "-"): v for k, v in headers.items()}
    return samples.shop.call("POST", "/payments/webhook", raw=body, headers=sent)


def test_missing_stale_or_wrong_signature_gets_401_and_writes_nothing(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid
    body, now = webhook_body(payment), int(time.time())
    good = sign(body, samples.shop.webhook_secret, now)
    stamp, _, mac = good.partition(",")
    before = samples.rows()
    cases = {
        "other secret": sign(body, "other", now),
        "other body": sign(body + b" ", samples.shop.webhook_secret, now),
        "six minutes old": sign(body, samples.shop.webhook_secret, now - 360),
        "six minutes ahead": sign(body, samples.shop.webhook_secret, now + 360),
        "time changed": f"t={now - 1},{mac}",
        "time missing": mac,
        "time twice": f"{stamp},{stamp},{mac}",
        "signature missing": stamp,
        "signature empty": f"{stamp},v1=",
        "signature cut": good[:-1],
        "signature in another scheme": good.replace("v1=", "v0="),
        "signature not ASCII": f"{stamp},v1=é",
        "negative time": f"t=-1,{mac}",
        "empty": "",
    }
    for case, header in cases.items():
        headers = {"webhook-signature": header}
        answer = samples.shop.call("POST", "/payments/webhook", raw=body, headers=headers)
        assert answer.status == 401, (case, answer.body)
    assert samples.shop.call("POST", "/payments/webhook", raw=body).status == 401
    assert post_webhook(samples, body, stripe_signature=good).status == 401
    token = {"authorization": f"Bearer {samples.owner.token}"}
    assert samples.shop.call("POST", "/payments/webhook", raw=body, headers=token).status == 401
    assert samples.rows() == before
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"


def test_duplicate_webhook_pays_the_order_once(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid
    body = webhook_body(payment)

    answers = run_concurrently(*[lambda: post_webhook(samples, body)] * 8)
    again = post_webhook(samples, body)

    assert {a.status for a in [*answers, again]} <= {204, 503} and again.status == 204
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PAID"
    (ledger,) = samples.shop.sql("select count(*) from shop.ledger where kind = 'CAPTURE'")
    assert ledger["count"] == 1


def test_unknown_key_of_the_shop_gets_422_and_is_not_recorded_as_received(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, _, payment = unpaid
    before = samples.rows()
    unknown, refund = f"shop:{uuid4()}", f"refund:{uuid4()}"
    for change in (
        {"key": "shop:unknown"},
        {"key": refund, "type": "refund.rejected"},
        {"key": refund, "charge_key": "other", "charge_ref": "x", "type": "refund.succeeded"},
        {"key": "re_1", "charge_key": unknown, "charge_ref": "x", "type": "refund.succeeded"},
    ):
        body = webhook_body(payment, **change)
        answers = [post_webhook(samples, body) for _ in range(2)]
        assert [(a.status, a.error) for a in answers] == [(422, "UNKNOWN_KEY")] * 2
    assert samples.rows() == before
    assert (
        samples.shop.sql("select consumer from shop.inbox where consumer = 'payment_webhook'") == []
    )


def test_webhook_about_another_shop_on_the_account_changes_nothing(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, _, payment = unpaid
    before = samples.rows()
    other = {"charge_key": "other-shop:1", "charge_ref": "ch_other"}
    changes: tuple[dict[str, Any], ...] = (
        {"key": "other-shop:1"},
        {"key": "' or 1=1--"},
        {"key": str(uuid4()), "type": "charge.declined"},
        {"key": "x" * 255, "type": "charge.voided"},
        {"key": "re_1", "type": "refund.succeeded", **other},
        {"key": "re_1", "type": "refund.rejected", **other},
        {"key": "dp_1", "type": "dispute.opened", "status": "open", "transactions": [], **other},
        {"type": "payout.paid"},
    )
    for change in changes:
        answers = [post_webhook(samples, webhook_body(payment, **change)) for _ in range(2)]
        assert [a.status for a in answers] == [204, 204], change
    assert samples.rows() == before


def test_signed_but_invalid_webhook_gets_400(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid
    for change in (
        {"amount_minor": 0}, {"amount_minor": -1}, {"amount_minor": "1000"}, {"amount_minor": True},
        {"amount_minor": 1e3}, {"amount_minor": 10**30}, {"currency": "KR"}, {"currency": None},
        {"key": ""}, {"key": "a\x00b"}, {"key": None}, {"key": "x" * 256}, {"provider_ref": None},
        {"key": "\ud800"}, {"provider_ref": "a\nb"},
    ):  # fmt: skip
        answer = post_webhook(samples, webhook_body(payment, **change))
        assert answer.status == 400, (change, answer.status)
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"id":1}',
        b"\xff",
        b"[" * 10_000,
        b"9" * 9999,
    ):
        assert post_webhook(samples, body).status == 400, body[:10]
    assert post_webhook(samples, b" " * 65_537).status == 413
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"


def test_other_amount_or_currency_raises_an_operator_alert_and_pays_nothing(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid

    answers = [
        post_webhook(samples, webhook_body(payment, **change)).status
        for change in ({"amount_minor": payment["amount_minor"] - 1}, {"currency": "USD"})
    ]

    assert answers == [202, 202]
    assert samples.owner.get(f"/orders/{order}").json["status"] == "PENDING"
    assert samples.shop.sql("select kind from shop.alarms") == [{"kind": "amount_mismatch"}]
    assert samples.shop.sql("select kind from shop.ledger") == []


def test_capture_of_a_cancelled_order_requests_a_refund(
    unpaid: tuple[Samples, str, dict[str, Any]],
) -> None:
    samples, order, payment = unpaid
    assert post_webhook(samples, webhook_body(payment, type="charge.declined")).status == 204
    assert samples.owner.patch(f"/orders/{order}/cancel").json["status"] == "CANCELLED"

    late = post_webhook(samples, webhook_body(payment))

    assert late.status in (202, 204)
    assert samples.owner.get(f"/orders/{order}").json["status"] == "CANCELLED"
    refunds = samples.shop.sql("select amount_minor, status from shop.refunds")
    assert refunds == [{"amount_minor": payment["amount_minor"], "status": "INTENT"}]


def test_repeated_capture_webhook_resolves_an_unknown_payment(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(price=900), method="CARD_TIMEOUT_AFTER")
    flow.deliver()
    key = flow.payment_key(order["id"])

    assert [flow.send_webhook("charge.captured", key, 900, event_id="evt_1") for _ in range(3)] == [
        204
    ] * 3

    assert flow.order_state(order["id"])["status"] == "PAID"
    assert_idle_and_consistent(flow)


def test_capture_of_another_amount_is_left_to_reconciliation(flow: FlowHarness) -> None:
    order = flow.shop.person().order(flow.shop.product(price=900), method="CARD_TIMEOUT_AFTER")
    flow.deliver()

    assert flow.send_webhook("charge.captured", flow.payment_key(order["id"]), 901) == 202

    assert flow.order_state(order["id"])["status"] == "PENDING"
    assert flow.operator_alerts() == ["amount_mismatch"]
    assert_idle_and_consistent(flow)  # the provider's transaction says 900
    assert flow.order_state(order["id"])["status"] == "PAID"


def test_refund_of_another_amount_raises_an_operator_alert(flow: FlowHarness) -> None:
    buyer = flow.shop.person()
    order = buyer.paid_order(flow.shop.product(price=900))
    buyer.patch(f"/orders/{order['id']}/cancel")
    (refund,) = flow.shop.sql("select provider_key from shop.refunds")

    assert flow.send_webhook("refund.succeeded", refund["provider_key"], 901) == 202

    assert flow.order_state(order["id"])["status"] == "CANCELLING"
    assert flow.operator_alerts() == ["amount_mismatch"]
    flow.run_until_idle()
    assert flow.order_state(order["id"])["status"] == "CANCELLED"
    (posting,) = flow.shop.sql("select amount_minor from shop.ledger where kind = 'REFUND'")
    assert posting["amount_minor"] == 900


def test_late_decline_of_an_earlier_attempt_leaves_the_order_paid(
    flow: FlowHarness,
) -> None:
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(price=900), method="CARD_DECLINED")
    flow.deliver()
    first_key = flow.payment_key(order["id"])
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    flow.deliver()

    assert flow.send_webhook("charge.declined", first_key, 900) == 204

    assert flow.order_state(order["id"])["status"] == "PAID"
    assert_idle_and_consistent(flow)


def test_late_capture_of_a_closed_attempt_is_booked_beside_the_open_one(flow: FlowHarness) -> None:
    """Attempt 1 is captured after it was closed: the capture is booked and refunded."""
    buyer = flow.shop.person()
    order = buyer.order(flow.shop.product(price=700))
    flow.discard_events()
    flow.shop.sql(
        "update shop.orders set payment_method = 'CARD_DECLINED' where order_id = %s", order["id"]
    )
    flow.run_timers_only()
    key = flow.payment_key(order["id"])
    flow.send_webhook("charge.captured", key, 700)

    assert flow.outcome(order)[:3] == ("PENDING", ["CAPTURED late"], ["INTENT"])
    assert_invariants(flow, at_rest=False)
    buyer.post(f"/orders/{order['id']}/payments", {"paymentMethod": "CARD"})
    flow.deliver()

    assert flow.order_state(order["id"])["payments"] == ["CAPTURED late", "CAPTURED"]
    assert_invariants(flow, at_rest=False)
