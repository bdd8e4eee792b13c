"""Renders dashboards, and the scrape targets of Compose's Prometheus."""

from __future__ import annotations

from pathlib import Path

from shop.registry import all_specs
from tools.render.compose import service_name
from tools.render.dashboards import dashboard_files
from tools.render.documents import yaml_text
from tools.render.network_policies import METRICS_PORT

DASHBOARDS = Path("infra/observability/dashboards")
TARGETS = Path("infra/compose/observability/functions.yml")


def render() -> dict[Path, str]:
    """Targets and dashboards; the chart has copies of the dashboards (``chart``)."""
    targets = [f"{service_name(spec)}:{METRICS_PORT}" for spec in all_specs()]
    dashboards = {DASHBOARDS / name: text for name, text in dashboard_files().items()}
    return {TARGETS: yaml_text([{"targets": targets}]), **dashboards}
