"""Fixtures of the tests of logs, metrics and traces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.telemetry_receivers import Collector, RecordingProxy
from tests.tools.payment_simulator.simulator_process import SimulatorProcess


@pytest.fixture
def collector() -> Iterator[Collector]:
    """An OTLP endpoint."""
    made = Collector()
    yield made
    made.may_respond.set()
    made.close()


@pytest.fixture
def recording_proxy(simulator: SimulatorProcess) -> Iterator[RecordingProxy]:
    """The payment simulator behind a recording proxy."""
    made = RecordingProxy(simulator)
    yield made
    made.close()
