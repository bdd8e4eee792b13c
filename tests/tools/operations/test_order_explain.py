"""``shop order explain``: one order's story, whole and in order, from every table that knows it."""

from __future__ import annotations

import json
import re

import pytest

from tests.harness import FlowHarness
from tests.tools.operations.conftest import Operator

# times, ids, references and places in a chain
MACHINE_MADE = re.compile(
    r"^  [\d-]{10} [\d:.]{12}|[ (]*[0-9a-f]{8}-[0-9a-f-]{27}\)?|, reference \w+|, link \d+/\d+"
)

NOBODYS = "00000000-0000-7000-8000-000000000000"


def test_a_returned_order_is_told_from_its_placing_to_its_rest(
    flow: FlowHarness, auditor: Operator
) -> None:
    buyer = flow.shop.person()
    product = flow.shop.product(price=1500, name="연필")
    order = buyer.order(product, 2, key="key-of-the-explained-one")
    flow.deliver()
    buyer.patch(f"/orders/{order['id']}/cancel")
    flow.run_until_idle()

    result = auditor.run("order", "explain", order["id"])

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"Order {order['id']} of customer {buyer.user_id}: 3,000 KRW by CARD"
    assert lines[1] == f"  2 × 연필 (product {product}) at 1,500 KRW"
    assert lines[2] == "  placed with the idempotency key key-of-the-explained-one"
    assert [MACHINE_MADE.sub("", line).strip() for line in lines[5:]] == [
        f"order: PENDING, by user:{buyer.user_id}",
        f"reservation of 2 × product {product}: HELD, by user:{buyer.user_id}",
        "/shop/place_order announced order.placed",
        "charge took order.placed",
        "payment 1 of 3,000 KRW: INTENT, by charge",
        "payment 1 of 3,000 KRW: INTENT → CAPTURED, by charge",
        "order: PENDING → PAID, by charge",
        f"reservation of 2 × product {product}: HELD → COMMITTED, by charge",
        f"stock of product {product}: COMMIT -2",
        "ledger 1: CAPTURE 3,000 KRW, debit psp_receivable, credit order_escrow",
        "/shop/charge announced order.paid",
        "/shop/charge announced payment.captured",
        f"order: PAID → CANCELLING, by user:{buyer.user_id}",
        f"refund of 3,000 KRW: INTENT, by user:{buyer.user_id}",
        f"reservation of 2 × product {product}: COMMITTED → RETURNED, by user:{buyer.user_id}",
        f"stock of product {product}: RETURN +2",
        "/shop/cancel_order announced order.cancelling",
        "/shop/cancel_order announced refund.requested",
        "refund took refund.requested",
        "refund of 3,000 KRW: INTENT → SUCCEEDED, by refund",
        "order: CANCELLING → CANCELLED, by refund",
        "ledger 2: REFUND 3,000 KRW, debit order_escrow, credit psp_receivable",
        "/shop/refund announced order.cancelled",
        "/shop/refund announced refund.succeeded",
        "Now CANCELLED (USER): 3,000 KRW captured, 3,000 KRW given back",
        "payment 1 CAPTURED, key shop:, 0 retries",
        "refund SUCCEEDED, key refund:, 1 retries: USER",
        "0 timers, 0 open alarms",
    ]


def test_one_that_is_stuck_says_what_it_waits_for(flow: FlowHarness, auditor: Operator) -> None:
    order = flow.shop.person().order(flow.shop.product(), method="CARD_REFUND_REJECTED")
    flow.deliver()
    other = flow.shop.person().order(flow.shop.product())
    flow.shop.sql(
        "insert into shop.alarms (alarm_id, kind, subject, detail) "
        "values (gen_random_uuid(), 'stuck_payment', %s, 'somebody has to look')",
        flow.shop.sql(
            "select payment_id::text as id from shop.payments where order_id = %s", order["id"]
        )[0]["id"],
    )

    waiting = auditor.run("order", "explain", other["id"]).stdout
    rung = auditor.run("order", "explain", order["id"]).stdout

    assert "charge has not taken order.placed" in waiting
    assert "  due: expire " in waiting and "  due: charge " in waiting
    assert waiting.splitlines()[-1].endswith("timers, 0 open alarms")
    assert "alarm stuck_payment: somebody has to look" in rung
    assert rung.splitlines()[-1].endswith("timers, 1 open alarms")


def test_the_same_as_json(flow: FlowHarness, auditor: Operator) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    traces = flow.shop.sql("select distinct split_part(traceparent, '-', 2) as t from shop.outbox")

    story = json.loads(auditor.run("order", "explain", order["id"], "--json").stdout)

    assert story["order"]["order_id"] == order["id"]
    assert story["trace_ids"] == sorted(row["t"] for row in traces)
    assert [row["status"] for row in story["payments"]] == ["CAPTURED"]
    assert [row["kind"] for row in story["postings"]] == ["CAPTURE"]
    assert {row["type"] for row in story["events"]} == {
        row["type"]
        for row in flow.shop.sql("select type from shop.outbox where order_id = %s", order["id"])
    }


@pytest.mark.parametrize(("order_id", "status"), [(NOBODYS, 1), ("17", 2)])
def test_an_order_that_is_none(auditor: Operator, order_id: str, status: int) -> None:
    assert auditor.run("order", "explain", order_id).exit_code == status
