"""F-28 in small: the database goes back in time, the provider does not, the books agree again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaos.restore import moment, restore, take_base_backup
from shop import unmatched_charges
from shop.adapters.payment_provider.protocol import RefundCall
from tests.harness import EventBroker, FlowHarness, ShopHarness, assert_idle_and_consistent
from tests.tools.operations.conftest import Operator
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

Opening = Callable[[], FlowHarness]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[PostgresServer, str]]:
    """A server of this test alone, whose log is archived."""
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
) -> Iterator[Opening]:
    """Starts all functions anew; whoever restores stops them before."""
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
        opened.append(FlowHarness(shop, broker, own_simulator, 0, 0))
        return opened[-1]

    yield open_one
    for flow in opened:
        flow.shop.close()
        flow.broker.close()


def _ghosts(flow: FlowHarness, what: str, since: str) -> tuple[int, list[dict[str, Any]]]:
    operator = Operator(
        {
            "DATABASE_URL": flow.shop.role_url("ops"),
            "PAYMENT_PROVIDER_URL": flow.simulator.url,
            "PAYMENT_PROVIDER_API_KEY": API_KEY,
        }
    )
    result = operator.run("ghosts", what, "--since", since, "--json")
    assert result.exit_code in (0, 1), result.output
    return result.exit_code, json.loads(result.stdout)


def _kept_by_provider(flow: FlowHarness) -> int:
    entries = flow.simulator.records()["entries"]
    return sum(e["amount_minor"] * (1 if e["kind"] == "charge" else -1) for e in entries)


@dataclass(frozen=True)
class Restored:
    """A shop as it was at a moment, with functions that were started after it went back."""

    flow: FlowHarness
    since: str
    known: set[str]
    given_back: str
    in_part: str
    unpaid: str


@pytest.fixture
def restored(server: tuple[PostgresServer, str], open_flow: Opening) -> Restored:
    """Three orders, a backup, three more, the moment; what comes then only the provider keeps."""
    flow = open_flow()
    buyer, product = flow.shop.person(), flow.shop.product(stock=99)
    support = flow.shop.person("support")
    known = {_paid(flow, buyer, product) for _ in range(3)}
    base = take_base_backup(server[0])
    given_back, in_part = (_paid(flow, buyer, product) for _ in range(2))
    unpaid = buyer.order(product)["id"]
    target = moment(server[1])

    flow.run_until_idle()  # charges the unpaid one under a key that will be lost
    for _ in range(2):
        _paid(flow, buyer, product)
    cancelled = _paid(flow, buyer, product)
    buyer.order(product, method="CARD_DECLINED")
    for order_id in (cancelled, given_back):
        assert buyer.patch(f"/orders/{order_id}/cancel").status == 200
    refund = {"amount": 300, "reason": "dented"}
    assert support.post(f"/orders/{in_part}/refunds", refund).status == 201
    flow.run_until_idle()
    flow.shop.close()

    cost = restore(server[0], server[1], base, target)
    assert cost.rpo_seconds > 0 and cost.rto_seconds > 0, cost
    since = target.strftime("%Y-%m-%dT%H:%M:%S%z")
    known |= {given_back, in_part, unpaid}
    return Restored(open_flow(), since, known, given_back, in_part, unpaid)


def test_a_restored_shop_and_its_provider_come_to_agree(restored: Restored) -> None:
    flow, since = restored.flow, restored.since
    now = {row["order_id"] for row in flow.shop.sql("select order_id::text from shop.orders")}
    assert now == restored.known
    at_once = find_violations(flow.shop.admin_url, flow.external_records(), at_rest=False)
    assert {violation.id for violation in at_once} == {"I-11"}, "only the provider knows more"

    # reconciliation finds the ghosts, and gives lost refunds their rows again
    flow.reconcile()
    flow.run_until_idle()
    assert flow.operator_alerts().count("ghost_charge") == 4
    assert flow.order_state(restored.given_back)["status"] == "CANCELLED"
    assert flow.order_state(restored.in_part)["refunds"] == ["SUCCEEDED"]
    assert flow.order_state(restored.unpaid)["status"] == "PAID"

    # somebody who died after the first ghost's refund was sent, then the command as a whole
    found, listed = _ghosts(flow, "list", since)
    assert (found, len(listed)) == (1, 5)
    _die_after_sending(flow, next(g for g in listed if g["given_back_minor"] < g["amount_minor"]))
    left, closed = _ghosts(flow, "return", since)
    assert (left, {ghost["state"] for ghost in closed}) == (0, {"nothing is kept"})
    flow.sweep_all()
    assert _kept_by_provider(flow) == 1000 * 5 - 300
    assert_idle_and_consistent(flow)

    # and once more, with the books read from their beginning
    refunds = len(flow.simulator.records()["refunds"])
    assert _ghosts(flow, "return", since) == (0, [])
    flow.sweep_all()
    assert len(flow.simulator.records()["refunds"]) == refunds
    assert_idle_and_consistent(flow)
    assert set(_open_alarms(flow)) == {"refund_found"}


def test_nothing_is_returned_without_an_offset_and_nothing_of_before_the_moment(
    flow: FlowHarness,
) -> None:
    ghost = charge_call()
    assert flow.simulator.provider().charge(ghost).kind == "captured"

    assert _ghosts(flow, "return", "2100-01-01T00:00:00+0000") == (0, [])
    with pytest.raises(AssertionError, match="Invalid value"):
        _ghosts(flow, "return", "2026-01-01T00:00:00")

    assert flow.simulator.records()["refunds"] == []


def _die_after_sending(flow: FlowHarness, ghost: dict[str, Any]) -> None:
    call = RefundCall(
        unmatched_charges.refund_key(ghost["key"]),
        ghost["key"],
        ghost["provider_ref"],
        ghost["amount_minor"] - ghost["given_back_minor"],
        ghost["currency"],
    )
    assert flow.simulator.provider().refund(call).kind == "succeeded"


def _paid(flow: FlowHarness, buyer: Any, product: int) -> str:
    order_id: str = buyer.order(product)["id"]
    flow.deliver()
    assert flow.order_state(order_id)["status"] == "PAID"
    return order_id


def _open_alarms(flow: FlowHarness) -> list[str]:
    rows = flow.shop.sql("select kind from shop.alarms where resolved_at is null")
    return [row["kind"] for row in rows]
