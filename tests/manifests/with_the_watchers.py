"""``python -m tests.manifests.with_the_watchers``: the owners' programs read what watches the shop.

``promtool`` checks the alerts, runs the test of each (tests/tools/observability/alerts.yaml) and
reads Prometheus' configuration; the collector reads its own.  Both configurations are Compose's and
the chart's.  Built from the sources that ``infra/compose/local`` pins; needs Go 1.25 or newer.

Exits 1 when a program refuses something, 2 without Go.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.manifests.test_chart import world_of
from tests.manifests.with_the_clients import Wrong, build, run
from tools.manifest_rules.__main__ import ROOT

SOURCES = ROOT / "infra" / "compose" / "local"
COMPOSE = ROOT / "infra" / "compose" / "observability"
ALERTS = ROOT / "infra" / "observability" / "alerts" / "shop.yaml"
# of two dozen ways to find targets the one that the chart uses: the others take minutes to build
TAGS = "remove_all_sd,enable_kubernetes_sd"
ALERT_TESTS = ROOT / "tests" / "observability" / "alerts.yaml"


def main() -> int:
    """The exit status; prints a line for each program."""
    if shutil.which("go") is None:
        print("go is missing", file=sys.stderr)
        return 2
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for ask in (ask_promtool, ask_collector):
            try:
                said = ask(Path(folder))
            except Wrong as error:
                wrong += 1
                said = f"{ask.__name__}: WRONG: {error}"
            print(said, flush=True)
    return 1 if wrong else 0


def ask_promtool(folder: Path) -> str:
    """Alerts, their tests and both configurations of Prometheus."""
    package = "github.com/prometheus/prometheus/cmd/promtool"
    promtool = str(build(SOURCES / "prometheus", package, folder / "promtool", tags=TAGS))
    run([promtool, "check", "rules", "--lint=all", "--lint-fatal", str(ALERTS)])
    run([promtool, "test", "rules", str(ALERT_TESTS)])
    configurations = (of_compose(folder / "compose"), of_chart(folder / "chart"))
    for configuration in configurations:
        run([promtool, "check", "config", "--lint-fatal", str(configuration / "prometheus.yaml")])
    return f"promtool: alerts, their tests and {len(configurations)} configurations taken"


def ask_collector(folder: Path) -> str:
    """Both configurations of the collector, with every component that they name."""
    package = "msa-shop/local/otel-collector"
    collector = str(build(SOURCES / "otel-collector", package, folder / "otelcol"))
    configurations = (
        COMPOSE / "otel-collector.yaml",
        of_chart(folder / "chart") / "collector.yaml",
    )
    for configuration in configurations:
        run([collector, "validate", f"--config={configuration}"])
    return f"collector: {len(configurations)} configurations taken"


def of_compose(folder: Path) -> Path:
    """What Compose mounts into Prometheus, as files that name each other in ``folder``."""
    return _written(
        folder,
        {
            "prometheus.yaml": (COMPOSE / "prometheus.yml").read_text("utf-8"),
            "functions.yml": (COMPOSE / "functions.yml").read_text("utf-8"),
            "alerts.yaml": ALERTS.read_text("utf-8"),
        },
        mounted="/etc/shop",
    )


def of_chart(folder: Path) -> Path:
    """What the chart mounts into Prometheus and the collector, likewise."""
    maps = {
        each["metadata"]["name"]: each["data"]
        for each in world_of("observability").objects
        if each["kind"] == "ConfigMap"
    }
    files = maps["shop-prometheus"] | maps["shop-collector"]
    return _written(folder, files, mounted="/etc/prometheus-shop")


def _written(folder: Path, files: dict[str, str], *, mounted: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text.replace(f"{mounted}/", f"{folder}/"), "utf-8")
    return folder


if __name__ == "__main__":
    sys.exit(main())
