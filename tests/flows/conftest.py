"""Fixtures of the tests of logs, metrics and traces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.telemetry_receivers import Collector, RecordingProxy
from tests.functions.test_runtime_processes import House
from tests.harness import cloned_database
from tests.tools.payment_simulator.simulator_process import SimulatorProcess
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.secrets import Secrets


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


@pytest.fixture(scope="module")
def house(
    postgres_url: str,
    template_url: str,
    redis_url: str,
    simulator: SimulatorProcess,
    secrets: Secrets,
) -> Iterator[House]:
    """Settings of function processes, with a database of the module's own."""
    with cloned_database(postgres_url, template_url) as url:
        yield House(
            Endpoints(
                admin_url=url,
                redis_url=redis_url,
                broker_url="",
                provider_url=simulator.url,
                secrets=secrets,
                has_own_database=True,
            )
        )
