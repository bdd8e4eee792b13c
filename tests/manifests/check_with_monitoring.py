"""Reads alerts and monitoring configurations with promtool and the collector.

    python -m tests.manifests.check_with_monitoring

``promtool`` checks the alerts, runs the test of each (tests/tools/observability/alerts.yaml) and
reads the configurations of Prometheus; the collector reads its own.  Compose and the chart have one
of each.  A real Prometheus scrapes a shop on the local platform for a minute, and ``shop cost``
must report what that platform recorded, within 5 %.  ``amtool`` checks the example for Alertmanager
and routes every alert with it.  Built from the sources that ``infra/compose/local`` and
``tools/amtool`` pin; needs Go 1.25 or newer.

Exits 1 when a program rejects a file, 2 without Go.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from tests.manifests.check_with_clients import (
    PROGRAMS,
    TOOLS,
    ClientMismatchError,
    build,
    run,
)
from tests.manifests.scraped_shop import READS, figures
from tests.manifests.test_chart import chart_manifests
from tests.tools.observability.test_dashboards import alerts
from tools.cost.usage import Usage
from tools.manifest_rules.__main__ import ROOT

SOURCES = ROOT / "infra" / "compose" / "local"
COMPOSE = ROOT / "infra" / "compose" / "observability"
ALERTMANAGER = ROOT / "infra" / "observability" / "alertmanager.yaml"
ALERTS = ROOT / "infra" / "observability" / "alerts"
# only the service discovery that the chart uses: the others take minutes to build
TAGS = "remove_all_sd,enable_kubernetes_sd"
TOLERANCE = 0.05
ALERT_TESTS = ROOT / "tests" / "tools" / "observability" / "alerts.yaml"
QUERY_TESTS = ALERT_TESTS.with_name("rollout_queries.yaml")


def main() -> int:
    """Prints a line for each program and returns the exit status."""
    if shutil.which("go") is None:
        print("go is missing", file=sys.stderr)
        return 2
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for check in (check_promtool, check_cost, check_amtool, check_collector):
            try:
                result = check(Path(folder))
            except ClientMismatchError as error:
                failed += 1
                result = f"{check.__name__}: FAILED: {error}"
            print(result, flush=True)
    return 1 if failed else 0


def check_promtool(folder: Path) -> str:
    """Alerts, their tests and both configurations of Prometheus."""
    package = "github.com/prometheus/prometheus/cmd/promtool"
    promtool = str(build(SOURCES / "prometheus", package, PROGRAMS / "promtool", tags=TAGS))
    run(
        [
            promtool,
            "check",
            "rules",
            "--lint=all",
            "--lint-fatal",
            *map(str, sorted(ALERTS.glob("*"))),
        ]
    )
    run([promtool, "test", "rules", str(ALERT_TESTS), str(QUERY_TESTS)])
    configurations = (of_compose(folder / "compose"), of_chart(folder / "chart"))
    for configuration in configurations:
        run([promtool, "check", "config", "--lint-fatal", str(configuration / "prometheus.yaml")])
    return f"promtool: alerts, their tests and {len(configurations)} configurations accepted"


def check_cost(folder: Path) -> str:
    """The figures of ``shop cost`` from Prometheus, against the local platform's own."""
    package = "github.com/prometheus/prometheus/cmd/prometheus"
    program = build(SOURCES / "prometheus", package, folder / "prometheus", tags=TAGS)
    found = asyncio.run(figures(program, folder))
    own, reported = found.own, found.reported
    if (reported.orders, messages_of(reported)) != (own.orders, messages_of(own)):
        raise ClientMismatchError(f"{messages_of(reported)} of {messages_of(own)} were reported")
    seconds, reported_seconds = process_seconds_of(own), process_seconds_of(reported)
    for name in (*READS, "all"):
        if abs(reported_seconds[name] / seconds[name] - 1) > TOLERANCE:
            raise ClientMismatchError(f"{name}: {reported_seconds} of {seconds}")
    if found.cold_starts_by_budget.keys() != own.functions.keys():
        raise ClientMismatchError(f"cold starts of {sorted(found.cold_starts_by_budget)} only")
    error = reported_seconds["all"] / seconds["all"] - 1
    return f"shop cost: messages of {len(own.functions)} functions, pod seconds {error:+.1%}"


def process_seconds_of(usage: Usage) -> dict[str, float]:
    """Those of each function, and of all together."""
    by_name = {name: used.process_seconds for name, used in usage.functions.items()}
    return {"all": sum(by_name.values()), **by_name}


def messages_of(usage: Usage) -> dict[str, int]:
    """Requests and events of each function that ran."""
    counts = {name: used.requests + used.events for name, used in usage.functions.items()}
    return {name: count for name, count in counts.items() if count}


def check_amtool(folder: Path) -> str:
    """The example for Alertmanager, and that pages and tickets reach different receivers."""
    package = "github.com/prometheus/alertmanager/cmd/amtool"
    amtool = str(build(TOOLS / "amtool", package, PROGRAMS / "amtool"))
    run([amtool, "check-config", str(ALERTMANAGER)])
    for alert in alerts():
        severity = alert["labels"]["severity"]
        labels = [f"severity={severity}", f"alertname={alert['alert']}"]
        options = [f"--config.file={ALERTMANAGER}", f"--verify.receivers={severity}s"]
        run([amtool, "config", "routes", "test", *options, *labels])
    return f"amtool: {len(alerts())} alerts routed"


def check_collector(folder: Path) -> str:
    """Both configurations of the collector, with every component that they name."""
    package = "msa-shop/local/otel-collector"
    collector = str(build(SOURCES / "otel-collector", package, PROGRAMS / "otelcol"))
    configurations = (
        COMPOSE / "otel-collector.yaml",
        of_chart(folder / "chart") / "collector.yaml",
    )
    for configuration in configurations:
        run([collector, "validate", f"--config={configuration}"])
    return f"collector: {len(configurations)} configurations accepted"


def of_compose(folder: Path) -> Path:
    """Writes what Compose mounts into Prometheus to ``folder``, with paths of ``folder``."""
    return _written(
        folder,
        {
            "prometheus.yaml": (COMPOSE / "prometheus.yml").read_text("utf-8"),
            "functions.yml": (COMPOSE / "functions.yml").read_text("utf-8"),
            "alerts.yaml": (ALERTS / "shop.yaml").read_text("utf-8"),
            "age-limits.yaml": (ALERTS / "age-limits.yaml").read_text("utf-8"),
        },
        mounted="/etc/shop",
    )


def of_chart(folder: Path) -> Path:
    """Writes what the chart mounts into Prometheus and the collector to ``folder``."""
    maps = {
        each["metadata"]["name"]: each["data"]
        for each in chart_manifests("observability").objects
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
