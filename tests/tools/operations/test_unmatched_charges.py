"""``shop unmatched-charges``: after a restore they are refunded exactly once (F-28)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaos.restore import current_time, restore, take_base_backup
from shop import unmatched_charges
from shop.adapters.payment_provider.protocol import RefundCall
from tests.harness import EventBroker, FlowHarness, ShopHarness, assert_idle_and_consistent
from tests.tools.operations.conftest import CommandLine
from tests.tools.payment_simulator.simulator_process import (
    API_KEY,
    SECRET,
    SimulatorProcess,
    charge_call,
)
from tools.checker.evaluate import find_violations
from tools.local_platform.secrets import Secrets
from tools.local_platform.servers import PostgresServer
from tools.migrate import migrate

OpenFlow = Callable[[], FlowHarness]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[PostgresServer, str]]:
    """A PostgreSQL server of this test only, with WAL archiving."""
    server = PostgresServer(tmp_path / "postgres", durable=False, archives=True)
    try:
        url = server.start()
        migrate(url)
        yield server, url
    finally:
        server.stop()


@pytest.fixture
def open_flow(
    server: tuple[PostgresServer, str],
    redis_url: str,
    own_simulator: SimulatorProcess,
    secrets: Secrets,
) -> Iterator[OpenFlow]:
    """Starts all functions; close the previous ones before a restore."""
    opened: list[FlowHarness] = []

    def open_one() -> FlowHarness:
        broker = EventBroker()
        shop = ShopHarness(
            admin_url=server[1],
            redis_url=redis_url,
            provider_url=own_simulator.url,
            provider_api_key=API_KEY,
            webhook_secret=SECRET,
            secrets=secrets,
            overrides={"broker_url": broker.url},
        )
        opened.append(FlowHarness(shop, broker, own_simulator, 0, 0, 0))
        return opened[-1]

    yield open_one
    for flow in opened:
        flow.shop.close()
        flow.broker.close()


def _run_command(flow: FlowHarness, what: str, since: str) -> tuple[int, list[dict[str, Any]]]:
    operator = CommandLine(
        {
            "DATABASE_URL": flow.shop.role_url("ops"),
            "PAYMENT_PROVIDER_URL": flow.simulator.url,
            "PAYMENT_PROVIDER_API_KEY": API_KEY,
        }
    )
    result = operator.run("unmatched-charges", what, "--since", since, "--json")
    assert result.exit_code in (0, 1), result.output
    return result.exit_code, json.loads(result.stdout)


def _provider_balance(flow: FlowHarness) -> int:
    entries = flow.simulator.records()["entries"]
    return sum(e["amount_minor"] * (1 if e["kind"] == "charge" else -1) for e in entries)


@dataclass(frozen=True)
class Restored:
    """A shop restored to an earlier time, with functions started after the restore."""

    flow: FlowHarness
    since: str
    order_ids: set[str]
    refunded: str
    partly_refunded: str
    unpaid: str


@pytest.fixture
def restored(server: tuple[PostgresServer, str], open_flow: OpenFlow) -> Restored:
    """Three orders, a backup, three orders, the restore time, and changes that are lost."""
    flow = open_flow()
    customer, product = flow.shop.person(), flow.shop.product(stock=99)
    support = flow.shop.person("support")
    order_ids = {_paid(flow, customer, product) for _ in range(3)}
    base = take_base_backup(server[0])
    refunded, partly_refunded = (_paid(flow, customer, product) for _ in range(2))
    unpaid = customer.order(product)["id"]
    target = current_time(server[1])

    flow.run_until_idle()  # charges the unpaid order under a key that the restore loses
    for _ in range(2):
        _paid(flow, customer, product)
    cancelled = _paid(flow, customer, product)
    customer.order(product, method="CARD_DECLINED")
    for order_id in (cancelled, refunded):
        assert customer.patch(f"/orders/{order_id}/cancel").status == 200
    refund = {"amount": 300, "reason": "dented"}
    assert support.post(f"/orders/{partly_refunded}/refunds", refund).status == 201
    flow.run_until_idle()
    flow.shop.close()

    cost = restore(server[0], server[1], base, target)
    assert cost.rpo_seconds > 0 and cost.rto_seconds > 0, cost
    since = target.strftime("%Y-%m-%dT%H:%M:%S%z")
    order_ids |= {refunded, partly_refunded, unpaid}
    return Restored(open_flow(), since, order_ids, refunded, partly_refunded, unpaid)


def test_restored_shop_and_provider_agree_after_refunds(restored: Restored) -> None:
    flow, since = restored.flow, restored.since
    now = {row["order_id"] for row in flow.shop.sql("select order_id::text from shop.orders")}
    assert now == restored.order_ids
    at_once = find_violations(flow.shop.admin_url, flow.external_records(), at_rest=False)
    assert {violation.id for violation in at_once} == {"I-11"}, (
        "only the provider has these charges"
    )

    # reconciliation raises alerts for the unmatched charges and restores rows of lost refunds
    flow.reconcile()
    flow.run_until_idle()
    assert flow.operator_alerts().count("ghost_charge") == 4
    assert flow.order_state(restored.refunded)["status"] == "CANCELLED"
    assert flow.order_state(restored.partly_refunded)["refunds"] == ["SUCCEEDED"]
    assert flow.order_state(restored.unpaid)["status"] == "PAID"

    # an earlier run crashed after its first refund; a complete run follows
    found, listed = _run_command(flow, "list", since)
    assert (found, len(listed)) == (1, 5)
    first = next(c for c in listed if c["refunded_minor"] < c["amount_minor"])
    _refund_without_record(flow, first)
    left, closed = _run_command(flow, "return", since)
    assert (left, {charge["state"] for charge in closed}) == (0, {"closed"})
    flow.sweep_all()
    assert _provider_balance(flow) == 1000 * 5 - 300
    assert_idle_and_consistent(flow)

    # a second run, with the transactions read from the beginning
    refunds = len(flow.simulator.records()["refunds"])
    assert _run_command(flow, "return", since) == (0, [])
    flow.sweep_all()
    assert len(flow.simulator.records()["refunds"]) == refunds
    assert_idle_and_consistent(flow)
    assert set(_open_alert_kinds(flow)) == {"refund_found"}


def test_charges_before_the_restore_time_are_not_refunded(
    flow: FlowHarness,
) -> None:
    charge = charge_call()
    assert flow.simulator.provider().charge(charge).kind == "captured"

    assert _run_command(flow, "return", "2100-01-01T00:00:00+0000") == (0, [])
    with pytest.raises(AssertionError, match="Invalid value"):
        _run_command(flow, "return", "2026-01-01T00:00:00")

    assert flow.simulator.records()["refunds"] == []


def _refund_without_record(flow: FlowHarness, charge: dict[str, Any]) -> None:
    call = RefundCall(
        unmatched_charges.refund_key(charge["key"]),
        charge["key"],
        charge["provider_ref"],
        charge["amount_minor"] - charge["refunded_minor"],
        charge["currency"],
    )
    assert flow.simulator.provider().refund(call).kind == "succeeded"


def _paid(flow: FlowHarness, customer: Any, product: int) -> str:
    order_id: str = customer.order(product)["id"]
    flow.deliver()
    assert flow.order_state(order_id)["status"] == "PAID"
    return order_id


def _open_alert_kinds(flow: FlowHarness) -> list[str]:
    rows = flow.shop.sql("select kind from shop.alarms where resolved_at is null")
    return [row["kind"] for row in rows]
