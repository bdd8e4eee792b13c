"""``shop check``: the result of every invariant, or the reason why it was skipped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.harness import FlowHarness
from tests.tools.operations.conftest import CommandLine
from tools.checker.invariants import INVARIANTS

ROOT = Path(__file__).resolve().parents[3]
NEED_CLIENTS = {"Q-11", "Q-12"}


def _create_history(flow: FlowHarness) -> None:
    customer, product = flow.shop.person(), flow.shop.product(stock=9)
    customer.paid_order(product)
    customer.order(product, method="CARD_DECLINED")
    returned = customer.paid_order(product)
    customer.patch(f"/orders/{returned['id']}/cancel")
    customer.post("/cart/items", {"productId": product, "quantity": 2})
    flow.run_until_idle()
    flow.run_timers_only()


def _results(command_line: CommandLine, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    result = command_line.run("check", "--json", *options)
    return result.exit_code, {one["id"]: one for one in json.loads(result.stdout)}


def test_idle_shop_holds_every_invariant(flow: FlowHarness, auditor: CommandLine) -> None:
    _create_history(flow)
    for row in flow.shop.sql("select order_id::text from shop.orders where status = 'PENDING'"):
        flow.expire_order(row["order_id"])
    flow.run_until_idle()
    flow.sweep_all()
    flow.run_until_idle()

    status, results = _results(auditor, "--at-rest")

    assert [v for v in results.values() if v["state"] == "broken"] == []
    assert status == 0
    assert set(results) == {invariant.id for invariant in INVARIANTS}
    evaluated = {id_ for id_, result in results.items() if result["state"] == "holds"}
    assert evaluated == set(results) - NEED_CLIENTS


def test_broken_invariant_is_listed_with_its_rows(flow: FlowHarness, auditor: CommandLine) -> None:
    product = flow.shop.product()
    flow.shop.sql("update shop.stock set on_hand = on_hand + 1 where product_id = %s", product)

    status, results = _results(auditor)
    table = auditor.run("check")

    broken = {id_: v["rows"] for id_, v in results.items() if v["state"] == "broken"}
    assert (status, broken) == (1, {"I-03": [[str(product)]]})
    (line,) = [line for line in table.stdout.splitlines() if line.startswith("I-03")]
    assert line.split()[1] == "broken" and line.split()[-1] == str(product)
    skipped = sum(invariant.at_rest_only for invariant in INVARIANTS)
    holding = len(INVARIANTS) - skipped - 1
    assert table.stdout.splitlines()[-1] == f"{holding} hold, 1 broken, {skipped} skipped"


def test_invariants_without_provider_records_are_skipped(
    flow: FlowHarness, auditor: CommandLine
) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    without = {"PAYMENT_PROVIDER_URL": "", "PAYMENT_PROVIDER_API_KEY": ""}

    result = auditor.run("check", "--at-rest", "--json", **without)

    reasons = {v["id"]: v["reason"] for v in json.loads(result.stdout) if v["reason"]}
    assert reasons == {
        "I-11": "needs the provider's transactions",
        "Q-06": "needs the provider's transactions",
        "Q-11": "needs the clients' request log",
        "Q-12": "needs the clients' request log",
    }


def test_charge_without_payment_row_breaks_i_11(flow: FlowHarness, auditor: CommandLine) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    flow.simulator.request(
        "POST",
        "/intents",
        {
            "key": "shop:unmatched",
            "amount_minor": 5,
            "currency": "KRW",
            "payment_method": "CARD",
            "order_id": "o",
            "payment_id": "p",
        },
    )

    status, results = _results(auditor)

    assert (status, results["I-11"]["rows"]) == (1, [["shop:unmatched"]])


def test_unavailable_database_or_provider_exits_2(flow: FlowHarness, auditor: CommandLine) -> None:
    ordering = auditor.run("check", DATABASE_URL=flow.shop.role_url("ordering"))
    assert (ordering.exit_code, ordering.stdout) == (2, "")
    assert (
        "hides rows from this role: cart_items, coupon_uses, idempotency, notes, order_addresses, "
        "order_lines, order_price_lines, orders, payments" in ordering.stderr
    )

    unreachable = auditor.run("check", DATABASE_URL="postgresql://user@127.0.0.1:1/none")
    assert (unreachable.exit_code, unreachable.stdout) == (2, "")

    wrong_key = auditor.run("check", PAYMENT_PROVIDER_API_KEY="wrong")
    assert (wrong_key.exit_code, wrong_key.stdout) == (2, "")
    assert "401" in wrong_key.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "update shop.orders set status = 'PAID'",
        "delete from shop.cart_items",
        "select password_hash from shop.users",
        "select token_hash from shop.refresh_tokens",
    ],
)
def test_auditor_role_cannot_write_or_read_secrets(flow: FlowHarness, statement: str) -> None:
    with (
        psycopg.connect(flow.shop.role_url("auditor")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


def test_design_document_lists_every_invariant_with_its_description() -> None:
    document = (ROOT / "docs" / "design" / "correctness.md").read_text("utf-8")
    listed = re.findall(r"^\| ([IQ]-\d\d) \| (.*) \|$", document, re.MULTILINE)

    described = [(id_, text.replace("`", "")) for id_, text in listed]

    assert described == [(invariant.id, invariant.what) for invariant in INVARIANTS]
