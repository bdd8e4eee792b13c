"""The scenarios of the replaced system's clients, against a fresh shop behind each edge."""

from __future__ import annotations

from pathlib import Path

import pytest

from shop.registry import all_specs
from tests.flows.envoy_process import edge
from tests.tools.e2e.running_shop import assert_all_passed, run_group, running_shop


@pytest.mark.timeout(240)
def test_clients_of_the_replaced_system_work_against_the_local_platform(tmp_path: Path) -> None:
    with running_shop(tmp_path / "shop") as shop:
        assert_all_passed(run_group(shop, "original"))


@pytest.mark.timeout(240)
def test_clients_of_the_replaced_system_work_behind_the_envoy_of_compose(tmp_path: Path) -> None:
    with running_shop(tmp_path / "shop") as shop:
        addresses = {spec.name: shop.port for spec in all_specs()}
        with edge(tmp_path, addresses, has_actuator=True) as envoy:
            assert_all_passed(run_group(shop, "original", url=f"http://127.0.0.1:{envoy.port}"))
