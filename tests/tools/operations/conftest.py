"""A shop whose provider's books are its own, and its commands as an operator types them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A provider that knows nobody but this test's shop."""
    with running_simulator(tmp_path / "own-books.sqlite") as simulator:
        yield simulator


@pytest.fixture
def flow(
    make_shop: Callable[..., ShopHarness], own_simulator: SimulatorProcess
) -> Iterator[FlowHarness]:
    """The shop with a broker that the test directs and a provider of its own."""
    broker = EventBroker()
    shop = make_shop(
        broker_url=broker.url,
        payment_provider_url=own_simulator.url,
        payment_provider_timeout_seconds=2.0,
    )
    yield FlowHarness(shop, broker, own_simulator, 0, 0)
    broker.close()


@dataclass(frozen=True)
class Operator:
    """Somebody at a terminal, with the database and the provider in the environment."""

    environment: dict[str, str]

    def run(self, *arguments: Any, **variables: str) -> Result:
        environment = self.environment | variables
        return CliRunner().invoke(app, [str(one) for one in arguments], env=environment)


@pytest.fixture
def auditor(flow: FlowHarness) -> Operator:
    """Connects as the role that may read everything and change nothing."""
    return Operator(
        {
            "DATABASE_URL": flow.shop.role_url("auditor"),
            "PAYMENT_PROVIDER_URL": flow.simulator.url,
            "PAYMENT_PROVIDER_API_KEY": API_KEY,
        }
    )


@pytest.fixture
def caretaker(flow: FlowHarness) -> Operator:
    """Connects as the role of operations, which may mark letters and alarms."""
    return Operator({"DATABASE_URL": flow.shop.role_url("ops"), "BROKER_URL": flow.broker.url})
