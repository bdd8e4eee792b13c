"""Dashboards, and copies of what infra/observability holds: for the chart and for Compose."""

from __future__ import annotations

from pathlib import Path

from scripts.render.compose import service_name
from scripts.render.dashboards import DASHBOARDS, dashboard
from scripts.render.documents import json_text, yaml_text
from scripts.render.fences import METRICS_PORT
from shop.registry import all_specs

FOLDER = Path("infra/observability")
ALERTS = FOLDER / "alerts.yaml"
CHART_FILES = Path("helm/msa-shop/files")
TARGETS = Path("infra/compose/observability/functions.yml")
ROOT = Path(__file__).parent.parent.parent


def render() -> dict[Path, str]:
    """The dashboards where Compose mounts them and where the chart reads them; the alerts too."""
    files: dict[Path, str] = {}
    for name in DASHBOARDS:
        text = json_text(dashboard(name))
        files[FOLDER / "dashboards" / f"{name}.json"] = text
        files[CHART_FILES / "dashboards" / f"{name}.json"] = text
    files[CHART_FILES / "alerts" / "shop.yaml"] = (ROOT / ALERTS).read_text("utf-8")
    targets = [f"{service_name(spec)}:{METRICS_PORT}" for spec in all_specs()]
    files[TARGETS] = yaml_text([{"targets": targets}])
    return files
