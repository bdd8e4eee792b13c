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
from tests.flows.stage import Broker, Stage, assert_rests
from tests.harness import ShopUnderTest
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

Opening = Callable[[], Stage]


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
def open_stage(
    server: tuple[PostgresServer, str],
    redis_url: str,
    own_simulator: SimulatorProcess,
    secrets: Secrets,
) -> Iterator[Opening]:
    """Starts all functions anew; whoever restores stops them before."""
    opened: list[Stage] = []

    def open_one() -> Stage:
        broker = Broker()
        shop = ShopUnderTest(
            admin_url=server[1],
            redis_url=redis_url,
            provider_url=own_simulator.url,
            provider_api_key=API_KEY,
            webhook_secret=SECRET,
            secrets=secrets,
            overrides={"broker_url": broker.url},
        )
        opened.append(Stage(shop, broker, own_simulator, 0, 0))
        return opened[-1]

    yield open_one
    for stage in opened:
        stage.shop.close()
        stage.broker.close()


def _ghosts(stage: Stage, what: str, since: str) -> tuple[int, list[dict[str, Any]]]:
    operator = Operator(
        {
            "DATABASE_URL": stage.shop.role_url("ops"),
            "PAYMENT_PROVIDER_URL": stage.simulator.url,
            "PAYMENT_PROVIDER_API_KEY": API_KEY,
        }
    )
    result = operator.run("ghosts", what, "--since", since, "--json")
    assert result.exit_code in (0, 1), result.output
    return result.exit_code, json.loads(result.stdout)


def _kept_by_provider(stage: Stage) -> int:
    entries = stage.simulator.records()["entries"]
    return sum(e["amount_minor"] * (1 if e["kind"] == "charge" else -1) for e in entries)


@dataclass(frozen=True)
class Restored:
    """A shop as it was at a moment, with functions that were started after it went back."""

    stage: Stage
    since: str
    known: set[str]
    given_back: str
    in_part: str
    unpaid: str


@pytest.fixture
def restored(server: tuple[PostgresServer, str], open_stage: Opening) -> Restored:
    """Three orders, a backup, three more, the moment; what comes then only the provider keeps."""
    stage = open_stage()
    buyer, product = stage.shop.person(), stage.shop.product(stock=99)
    support = stage.shop.person("support")
    known = {_paid(stage, buyer, product) for _ in range(3)}
    base = take_base_backup(server[0])
    given_back, in_part = (_paid(stage, buyer, product) for _ in range(2))
    unpaid = buyer.order(product)["id"]
    target = moment(server[1])

    stage.come_to_rest()  # charges the unpaid one under a key that will be lost
    for _ in range(2):
        _paid(stage, buyer, product)
    cancelled = _paid(stage, buyer, product)
    buyer.order(product, method="CARD_DECLINED")
    for order_id in (cancelled, given_back):
        assert buyer.patch(f"/orders/{order_id}/cancel").status == 200
    refund = {"amount": 300, "reason": "dented"}
    assert support.post(f"/orders/{in_part}/refunds", refund).status == 201
    stage.come_to_rest()
    stage.shop.close()

    cost = restore(server[0], server[1], base, target)
    assert cost.rpo_seconds > 0 and cost.rto_seconds > 0, cost
    since = target.strftime("%Y-%m-%dT%H:%M:%S%z")
    known |= {given_back, in_part, unpaid}
    return Restored(open_stage(), since, known, given_back, in_part, unpaid)


def test_a_restored_shop_and_its_provider_come_to_agree(restored: Restored) -> None:
    stage, since = restored.stage, restored.since
    now = {row["order_id"] for row in stage.shop.sql("select order_id::text from shop.orders")}
    assert now == restored.known
    at_once = find_violations(stage.shop.admin_url, stage.outside(), at_rest=False)
    assert {violation.id for violation in at_once} == {"I-11"}, "only the provider knows more"

    # reconciliation finds the ghosts, and gives lost refunds their rows again
    stage.reconcile()
    stage.come_to_rest()
    assert stage.alarms().count("ghost_charge") == 4
    assert stage.order(restored.given_back)["status"] == "CANCELLED"
    assert stage.order(restored.in_part)["refunds"] == ["SUCCEEDED"]
    assert stage.order(restored.unpaid)["status"] == "PAID"

    # somebody who died after the first ghost's refund was sent, then the command as a whole
    found, listed = _ghosts(stage, "list", since)
    assert (found, len(listed)) == (1, 5)
    _die_after_sending(stage, next(g for g in listed if g["given_back_minor"] < g["amount_minor"]))
    left, closed = _ghosts(stage, "return", since)
    assert (left, {ghost["state"] for ghost in closed}) == (0, {"nothing is kept"})
    stage.tick()
    assert _kept_by_provider(stage) == 1000 * 5 - 300
    assert_rests(stage)

    # and once more, with the books read from their beginning
    refunds = len(stage.simulator.records()["refunds"])
    assert _ghosts(stage, "return", since) == (0, [])
    stage.tick()
    assert len(stage.simulator.records()["refunds"]) == refunds
    assert_rests(stage)
    assert set(_open_alarms(stage)) == {"refund_found"}


def test_nothing_is_returned_without_an_offset_and_nothing_of_before_the_moment(
    stage: Stage,
) -> None:
    ghost = charge_call()
    assert stage.simulator.provider().charge(ghost).kind == "captured"

    assert _ghosts(stage, "return", "2100-01-01T00:00:00+0000") == (0, [])
    with pytest.raises(AssertionError, match="Invalid value"):
        _ghosts(stage, "return", "2026-01-01T00:00:00")

    assert stage.simulator.records()["refunds"] == []


def _die_after_sending(stage: Stage, ghost: dict[str, Any]) -> None:
    call = RefundCall(
        unmatched_charges.refund_key(ghost["key"]),
        ghost["key"],
        ghost["provider_ref"],
        ghost["amount_minor"] - ghost["given_back_minor"],
        ghost["currency"],
    )
    assert stage.simulator.provider().refund(call).kind == "succeeded"


def _paid(stage: Stage, buyer: Any, product: int) -> str:
    order_id: str = buyer.order(product)["id"]
    stage.deliver()
    assert stage.order(order_id)["status"] == "PAID"
    return order_id


def _open_alarms(stage: Stage) -> list[str]:
    rows = stage.shop.sql("select kind from shop.alarms where resolved_at is null")
    return [row["kind"] for row in rows]
