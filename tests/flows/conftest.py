"""A stage for each test: its own shop and broker, the session's provider without faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.flows.stage import Broker, Stage
from tests.harness import ShopUnderTest
from tests.tools.payment_simulator.simulator_process import SimulatorProcess


@pytest.fixture
def stage(make_shop: Callable[..., ShopUnderTest], simulator: SimulatorProcess) -> Iterator[Stage]:
    """The shop, a broker the test directs, a provider that answers within 0.4 s or not at all."""
    broker = Broker()
    shop = make_shop(broker_url=broker.url, payment_provider_timeout_seconds=0.4)
    books = simulator.records()
    newest = max((entry["entry_id"] for entry in books["entries"]), default=0)
    shop.sql("update shop.reconciliation set cursor = %s", str(newest))
    yield Stage(shop, broker, simulator, len(books["intents"]), len(books["refunds"]))
    simulator.set_faults()
    broker.close()
