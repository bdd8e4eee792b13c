"""``shop order explain``: the timeline of one order from all tables."""

from __future__ import annotations

import json
import re

import pytest

from tests.harness import FlowHarness
from tests.tools.operations.conftest import CommandLine

# times, ids, provider references and positions in a chain
GENERATED = re.compile(
    r"^  [\d-]{10} [\d:.]{12}|[ (]*[0-9a-f]{8}-[0-9a-f-]{27}\)?|, reference \w+|, link \d+/\d+"
)

UNKNOWN = "00000000-0000-7000-8000-000000000000"


def test_timeline_of_a_cancelled_order_is_complete_and_in_order(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    customer = flow.shop.person()
    product = flow.shop.product(price=1500, name="연필")
    order = customer.order(product, 2, key="key-of-the-explained-order")
    flow.deliver()
    customer.patch(f"/orders/{order['id']}/cancel")
    flow.run_until_idle()

    result = auditor.run("order", "explain", order["id"])

    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"Order {order['id']} of customer {customer.user_id}: 3,000 KRW by CARD"
    assert lines[1] == f"  2 × 연필 (product {product}) at 1,500 KRW"
    assert lines[2] == "  placed with the idempotency key key-of-the-explained-order"
    assert [GENERATED.sub("", line).strip() for line in lines[5:]] == [
        f"order: PENDING, by user:{customer.user_id}",
        f"reservation of 2 × product {product}: HELD, by user:{customer.user_id}",
        "/shop/place_order emitted order.placed",
        "charge consumed order.placed",
        "payment 1 of 3,000 KRW: INTENT, by charge",
        "payment 1 of 3,000 KRW: INTENT → CAPTURED, by charge",
        "order: PENDING → PAID, by charge",
        f"reservation of 2 × product {product}: HELD → COMMITTED, by charge",
        f"stock of product {product}: COMMIT -2",
        "ledger 1: CAPTURE 3,000 KRW, debit psp_receivable, credit order_escrow",
        "/shop/charge emitted order.paid",
        "/shop/charge emitted payment.captured",
        "notify consumed order.paid",
        f"order: PAID → CANCELLING, by user:{customer.user_id}",
        f"refund of 3,000 KRW: INTENT, by user:{customer.user_id}",
        f"reservation of 2 × product {product}: COMMITTED → RETURNED, by user:{customer.user_id}",
        f"stock of product {product}: RETURN +2",
        "/shop/cancel_order emitted order.cancelling",
        "/shop/cancel_order emitted refund.requested",
        "refund consumed refund.requested",
        "refund of 3,000 KRW: INTENT → SUCCEEDED, by refund",
        "order: CANCELLING → CANCELLED, by refund",
        "ledger 2: REFUND 3,000 KRW, debit order_escrow, credit psp_receivable",
        "/shop/refund emitted order.cancelled",
        "/shop/refund emitted refund.succeeded",
        "notify consumed refund.succeeded",
        "notify consumed order.cancelled",
        "Now CANCELLED (USER): 3,000 KRW captured, 3,000 KRW refunded",
        "payment 1 CAPTURED, key shop:, 0 retries",
        "refund SUCCEEDED, key refund:, 1 retries: USER",
        "0 due jobs, 0 open operator alerts",
    ]


def test_pending_order_lists_due_jobs_and_operator_alerts(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    order = flow.shop.person().order(flow.shop.product(), method="CARD_REFUND_REJECTED")
    flow.deliver()
    other = flow.shop.person().order(flow.shop.product())
    flow.shop.sql(
        "insert into shop.alarms (alarm_id, kind, subject, detail) "
        "values (gen_random_uuid(), 'stuck_payment', %s, 'needs a check')",
        flow.shop.sql(
            "select payment_id::text as id from shop.payments where order_id = %s", order["id"]
        )[0]["id"],
    )

    pending = auditor.run("order", "explain", other["id"]).stdout
    alerted = auditor.run("order", "explain", order["id"]).stdout

    assert "charge has not consumed order.placed" in pending
    assert "  due: charge " in pending
    assert pending.splitlines()[-1].endswith("due jobs, 0 open operator alerts")
    assert "operator alert stuck_payment: needs a check" in alerted
    assert alerted.splitlines()[-1].endswith("due jobs, 1 open operator alerts")


def test_json_has_the_rows_of_all_tables(flow: FlowHarness, auditor: CommandLine) -> None:
    order = flow.shop.person().paid_order(flow.shop.product())
    traces = flow.shop.sql("select distinct split_part(traceparent, '-', 2) as t from shop.outbox")

    records = json.loads(auditor.run("order", "explain", order["id"], "--json").stdout)

    assert records["order"]["order_id"] == order["id"]
    assert records["trace_ids"] == sorted(row["t"] for row in traces)
    assert [row["status"] for row in records["payments"]] == ["CAPTURED"]
    assert [row["kind"] for row in records["postings"]] == ["CAPTURE"]
    assert {row["type"] for row in records["events"]} == {
        row["type"]
        for row in flow.shop.sql("select type from shop.outbox where order_id = %s", order["id"])
    }


@pytest.mark.parametrize(("order_id", "status"), [(UNKNOWN, 1), ("17", 2)])
def test_unknown_order_exits_1_and_invalid_id_exits_2(
    auditor: CommandLine, order_id: str, status: int
) -> None:
    assert auditor.run("order", "explain", order_id).exit_code == status


def test_cancelled_units_are_listed_without_the_customers_reason(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    customer, product = flow.shop.person(), flow.shop.product()
    order = customer.paid_order(product, 2)
    body = {"items": [{"productId": product, "quantity": 1}], "reason": "ordered one too many"}
    cancelled = customer.post(f"/orders/{order['id']}/cancellations", body)
    assert cancelled.status == 200, cancelled.body
    flow.run_until_idle()

    result = auditor.run("order", "explain", order["id"])

    (returned,) = flow.shop.sql("select return_id, status from shop.returns")
    assert f"  return {returned['status']} {returned['return_id']}\n" in result.stdout
    assert "one too many" not in result.stdout
