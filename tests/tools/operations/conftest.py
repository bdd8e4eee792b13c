"""A shop with a payment simulator of its own, and the operator's commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.harness import EventBroker, FlowHarness, ShopHarness
from tests.tools.payment_simulator.simulator_process import (
    API_KEY,
    SimulatorProcess,
    running_simulator,
)
from tools.cli import app


@pytest.fixture
def own_simulator(tmp_path: Path) -> Iterator[SimulatorProcess]:
    """A payment simulator used only by this test's shop."""
    with running_simulator(tmp_path / "simulator.sqlite") as simulator:
        yield simulator


@pytest.fixture
def flow(
    make_shop: Callable[..., ShopHarness], own_simulator: SimulatorProcess
) -> Iterator[FlowHarness]:
    """A shop with a broker that the test controls and a payment simulator of its own."""
    broker = EventBroker()
    shop = make_shop(
        broker_url=broker.url,
        payment_provider_url=own_simulator.url,
        payment_provider_timeout_seconds=2.0,
    )
    yield FlowHarness(shop, broker, own_simulator, 0, 0, 0)
    broker.close()


@dataclass(frozen=True)
class CommandLine:
    """Runs ``shop`` commands with the database and the provider in the environment."""

    environment: dict[str, str]

    def run(self, *arguments: object, **variables: str) -> Result:
        environment = self.environment | variables
        return CliRunner().invoke(app, [str(one) for one in arguments], env=environment)


@pytest.fixture
def auditor(flow: FlowHarness) -> CommandLine:
    """The command line as the read-only role ``shop_auditor``."""
    return CommandLine(
        {
            "DATABASE_URL": flow.shop.role_url("auditor"),
            "PAYMENT_PROVIDER_URL": flow.simulator.url,
            "PAYMENT_PROVIDER_API_KEY": API_KEY,
        }
    )


@pytest.fixture
def operator(flow: FlowHarness) -> CommandLine:
    """The command line as ``shop_ops``, which may replay dead letters and resolve alerts."""
    return CommandLine({"DATABASE_URL": flow.shop.role_url("ops"), "BROKER_URL": flow.broker.url})
