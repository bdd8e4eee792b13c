"""Fixtures: a simulator that tests of a module share, and a receiver of webhooks."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.tools.payment_simulator.simulator_process import (
    SimulatorProcess,
    WebhookReceiver,
    running_simulator,
)


@pytest.fixture(scope="module")
def shared_simulator(tmp_path_factory: pytest.TempPathFactory) -> Generator[SimulatorProcess]:
    with running_simulator(tmp_path_factory.mktemp("simulator") / "records.sqlite3") as simulator:
        yield simulator


@pytest.fixture
def simulator(shared_simulator: SimulatorProcess) -> SimulatorProcess:
    shared_simulator.set_faults(slow_seconds=0.2, late_seconds=0.3, hang_seconds=5)
    return shared_simulator


@pytest.fixture
def receiver() -> Generator[WebhookReceiver]:
    receiver = WebhookReceiver()
    yield receiver
    receiver.close()
