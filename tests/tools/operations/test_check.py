"""``shop check``: a verdict on every invariant, or the admission that there is none."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.harness import FlowHarness
from tests.tools.operations.conftest import Operator
from tools.checker.invariants import INVARIANTS

NEED_CLIENTS = {"Q-11", "Q-12"}


def _history(flow: FlowHarness) -> None:
    buyer, product = flow.shop.person(), flow.shop.product(stock=9)
    buyer.paid_order(product)
    buyer.order(product, method="CARD_DECLINED")
    returned = buyer.paid_order(product)
    buyer.patch(f"/orders/{returned['id']}/cancel")
    buyer.post("/cart/items", {"productId": product, "quantity": 2})
    flow.run_until_idle()
    flow.run_timers_only()


def _verdicts(operator: Operator, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    result = operator.run("check", "--json", *options)
    return result.exit_code, {verdict["id"]: verdict for verdict in json.loads(result.stdout)}


def test_a_shop_at_rest_holds_every_invariant(flow: FlowHarness, auditor: Operator) -> None:
    _history(flow)
    for row in flow.shop.sql("select order_id::text from shop.orders where status = 'PENDING'"):
        flow.expire_order(row["order_id"])
    flow.run_until_idle()
    flow.sweep_all()
    flow.run_until_idle()

    status, verdicts = _verdicts(auditor, "--at-rest")

    assert [v for v in verdicts.values() if v["state"] == "broken"] == []
    assert status == 0
    assert set(verdicts) == {invariant.id for invariant in INVARIANTS}
    asked = {id_ for id_, verdict in verdicts.items() if verdict["state"] == "holds"}
    assert asked == set(verdicts) - NEED_CLIENTS


def test_a_broken_invariant_is_named_with_its_rows(flow: FlowHarness, auditor: Operator) -> None:
    product = flow.shop.product()
    flow.shop.sql("update shop.stock set on_hand = on_hand + 1 where product_id = %s", product)

    status, verdicts = _verdicts(auditor)
    table = auditor.run("check")

    broken = {id_: v["rows"] for id_, v in verdicts.items() if v["state"] == "broken"}
    assert (status, broken) == (1, {"I-03": [[str(product)]]})
    (line,) = [line for line in table.stdout.splitlines() if line.startswith("I-03")]
    assert line.split()[1] == "broken" and line.split()[-1] == str(product)
    assert table.stdout.splitlines()[-1] == "23 hold, 1 broken, 13 skipped"


def test_without_books_what_needs_them_is_not_said_to_hold(
    flow: FlowHarness, auditor: Operator
) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    without = {"PAYMENT_PROVIDER_URL": "", "PAYMENT_PROVIDER_API_KEY": ""}

    result = auditor.run("check", "--at-rest", "--json", **without)

    reasons = {v["id"]: v["reason"] for v in json.loads(result.stdout) if v["reason"]}
    assert reasons == {
        "I-11": "needs the provider's transactions",
        "Q-06": "needs the provider's transactions",
        "Q-11": "needs the clients' log",
        "Q-12": "needs the clients' log",
    }


def test_a_charge_that_only_the_provider_has_is_found(flow: FlowHarness, auditor: Operator) -> None:
    flow.shop.person().paid_order(flow.shop.product())
    flow.simulator.request(
        "POST",
        "/intents",
        {
            "key": "shop:ghost",
            "amount_minor": 5,
            "currency": "KRW",
            "payment_method": "CARD",
            "order_id": "o",
            "payment_id": "p",
        },
    )

    status, verdicts = _verdicts(auditor)

    assert (status, verdicts["I-11"]["rows"]) == (1, [["shop:ghost"]])


def test_what_cannot_be_checked_is_status_2(flow: FlowHarness, auditor: Operator) -> None:
    blind = auditor.run("check", DATABASE_URL=flow.shop.role_url("ordering"))
    assert (blind.exit_code, blind.stdout) == (2, "")
    assert "does not see every row of cart_items, order_lines, orders, payments" in blind.stderr

    nobody = auditor.run("check", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert (nobody.exit_code, nobody.stdout) == (2, "")

    no_books = auditor.run("check", PAYMENT_PROVIDER_API_KEY="wrong")
    assert (no_books.exit_code, no_books.stdout) == (2, "")
    assert "401" in no_books.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "update shop.orders set status = 'PAID'",
        "delete from shop.cart_items",
        "select password_hash from shop.users",
        "select token_hash from shop.refresh_tokens",
    ],
)
def test_the_auditor_changes_nothing_and_reads_no_secret(flow: FlowHarness, statement: str) -> None:
    with (
        psycopg.connect(flow.shop.role_url("auditor")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())
