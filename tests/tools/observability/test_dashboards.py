"""Dashboards and alerts use only exported metrics, and every alert has a runbook page."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from shop.registry import all_specs
from shop.runtime.metrics import LIVE_METRICS, METRICS
from tools.exporter import EXPORTER_METRICS, FAMILIES
from tools.render import age_limits
from tools.render.chart import FILES
from tools.render.dashboards import DASHBOARDS as DESCRIBED
from tools.render.dashboards import RUNBOOK, runbook_url
from tools.render.observability import DASHBOARDS, TARGETS

ROOT = Path(__file__).resolve().parents[3]
ALERTS = (Path("infra/observability/alerts/shop.yaml"), age_limits.PATH)
ALERT_TESTS = Path(__file__).parent / "alerts.yaml"  # promtool runs it, in `make deploy-check`
SERIES = re.compile(r"\b(?:pg|pgbouncer|redis|shop|cold|process)_[a-z_]+\b")
NAME = re.compile(r"\b(?:shop|cold_start|process)_[a-z_]+\b")
LABELS = re.compile(r"\b([a-z_]+)\{([^}]*)\}")


def exported() -> dict[str, tuple[str, ...]]:
    """Each series with its labels, as named in queries."""
    found = {name: labels for name, (labels, _) in FAMILIES.items()}
    found |= dict.fromkeys(EXPORTER_METRICS, ())
    for measure in (*METRICS, *LIVE_METRICS):
        if measure.kind == "histogram":
            for end in ("bucket", "sum", "count"):
                found[f"{measure.name}_{end}"] = (*measure.labels, "le")
        else:
            found[measure.name] = measure.labels
    return found


# Of the exporters that are common for these servers.
OF_SERVERS = ("pg_", "pgbouncer_", "redis_")


def dashboards() -> dict[str, Any]:
    paths = sorted((ROOT / DASHBOARDS).glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in paths}


def queries() -> list[str]:
    return [t["expr"] for d in dashboards().values() for p in d["panels"] for t in p["targets"]]


def alerts() -> list[dict[str, Any]]:
    groups = [yaml.safe_load((ROOT / path).read_text("utf-8"))["groups"] for path in ALERTS]
    return [rule for (group,) in groups for rule in group["rules"]]


def test_every_metric_in_a_query_is_exported() -> None:
    expressions = queries() + [rule["expr"] for rule in alerts()]

    named = {name for expression in expressions for name in NAME.findall(expression)}

    assert len(expressions) > 25
    assert named - exported().keys() == set()


def test_every_label_in_a_query_belongs_to_its_series() -> None:
    expressions = queries() + [rule["expr"] for rule in alerts()]
    chosen = [found for expression in expressions for found in LABELS.findall(expression)]

    assert chosen
    for name, matchers in chosen:
        labels = set(re.findall(r"(\w+)=~?|(\w+)!=", matchers))
        used = {label for pair in labels for label in pair if label}
        assert used <= set(exported()[name]), (name, used)


def test_every_exported_metric_is_used() -> None:
    text = " ".join(queries() + [rule["expr"] for rule in alerts()])
    families = [m.name for m in (*METRICS, *LIVE_METRICS)] + list(FAMILIES)

    unused = {name for name in families if name not in text}

    # the second is read by `shop cost`
    assert unused == {"shop_ledger_postings", "shop_process_seconds_total"}


def test_each_function_s_cold_start_is_compared_with_the_budget_of_its_spec() -> None:
    panels = [
        p for p in dashboards()["functions"]["panels"] if "against their budgets" in p["title"]
    ]

    (panel,) = panels
    (target,) = panel["targets"]
    budgets = re.findall(r'vector\(([\d.]+)\), "function", "(\w+)"', target["expr"])
    assert {(name, float(budget)) for budget, name in budgets} == {
        (spec.name, spec.cold_start_budget) for spec in all_specs()
    }
    assert [step["value"] for step in steps_of(panel)] == [None, 1.25, 1.5]


def steps_of(panel: dict[str, Any]) -> list[dict[str, Any]]:
    """The thresholds of a panel."""
    steps: list[dict[str, Any]] = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return steps


def test_every_alert_has_a_runbook_page() -> None:
    runbook = (ROOT / "docs" / "RUNBOOK.md").read_text("utf-8")
    headings = {line[3:].lower() for line in runbook.splitlines() if line.startswith("## ")}

    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == runbook_url(rule["alert"])
        assert rule["alert"].lower() in headings
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
    for part in ("**Meaning**", "**Check**", "**Action**"):
        assert runbook.count(part) == len(alerts()), part


def test_alertmanager_example_hides_and_routes_existing_alerts_only() -> None:
    example = yaml.safe_load((ROOT / "infra/observability/alertmanager.yaml").read_text("utf-8"))
    names = {rule["alert"] for rule in alerts()}

    for rule in example["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            _, operator, pattern = re.split("(=~?)", matcher.replace('"', ""), maxsplit=1)
            assert any(re.fullmatch(pattern, name) for name in names), matcher
            assert operator == "=~" or pattern in names, matcher
    used = {example["route"]["receiver"], *(r["receiver"] for r in example["route"]["routes"])}
    assert used == {receiver["name"] for receiver in example["receivers"]}


def test_alert_tests_name_the_rules_that_they_test() -> None:
    rules = yaml.safe_load(ALERT_TESTS.read_text("utf-8"))["rule_files"]

    tested = [(ALERT_TESTS.parent / path).resolve() for path in rules]
    assert tested == [(ROOT / path).resolve() for path in ALERTS]


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    tests = yaml.safe_load(ALERT_TESTS.read_text("utf-8"))["tests"]
    tested = {
        t["alertname"] for test in tests for t in test["alert_rule_test"] if "exp_alerts" in t
    }
    series = [each["series"] for test in tests for each in test["input_series"]]

    assert tested == {rule["alert"] for rule in alerts()}
    for test in tests:
        is_quiet_later = any("exp_alerts" not in case for case in test["alert_rule_test"])
        assert is_quiet_later or len(test["input_series"]) > 1, test["name"]
    for name, labels in (LABELS.findall(one)[0] for one in series if "{" in one):
        assert set(re.findall(r"(\w+)=", labels)) <= set(exported()[name]), name
    assert {one.split("{")[0] for one in series} <= exported().keys()


def test_chart_and_compose_use_the_same_monitoring_images() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    values = yaml.safe_load((ROOT / "helm/msa-shop/values.yaml").read_text("utf-8"))
    chosen = values["observability"]

    for service, value in (
        ("otel-collector", "collectorImage"),
        ("prometheus", "prometheusImage"),
        ("grafana", "grafanaImage"),
        ("zipkin", "zipkinImage"),
    ):
        image = f"{chosen[value]['repository']}:{chosen[value]['tag']}"
        assert compose[service]["image"].split(":-")[1] == f"{image}}}", service


def test_prometheus_can_scrape_the_charts_collector() -> None:
    text = (ROOT / "helm/msa-shop/templates/observability/telemetry.yaml").read_text("utf-8")
    (telemetry,) = re.findall(r"^ {6}telemetry: (.*)$", text, re.MULTILINE)
    (reader,) = yaml.safe_load(telemetry)["metrics"]["readers"]
    listens = reader["pull"]["exporter"]["prometheus"]

    assert listens["host"] == "0.0.0.0"  # the default is the pod's own loopback
    assert f'targets: ["shop-collector:{listens["port"]}"]' in text


def test_every_panel_has_a_description_and_links_to_existing_runbook_pages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"{project['urls']['Homepage']}/blob/main/docs/RUNBOOK.md" == RUNBOOK

    rules = {rule["alert"] for rule in alerts()}
    for described in DESCRIBED.values():
        for panel in (*described.tiles, *described.graphs):
            assert panel.description.endswith("."), panel.title
            assert set(panel.alerts) <= rules, panel.title


def test_every_dashboard_has_tiles_with_thresholds() -> None:
    for name, dashboard in dashboards().items():
        tiles = [panel for panel in dashboard["panels"] if panel["type"] == "stat"]
        steps = [len(p["fieldConfig"]["defaults"]["thresholds"]["steps"]) for p in tiles]
        assert len(tiles) == 6 and max(steps) == 3, name


def test_dashboard_of_servers_uses_their_exporters_only() -> None:
    panels = dashboards()["servers"]["panels"]
    named = [n for p in panels for t in p["targets"] for n in SERIES.findall(t["expr"])]

    assert {name.split("_")[0] + "_" for name in named} == set(OF_SERVERS)


def test_panels_do_not_overlap_and_ids_are_unique() -> None:
    for dashboard in dashboards().values():
        panels = dashboard["panels"]
        places = {(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels}

        assert len(places) == len(panels) == len({p["id"] for p in panels})
        assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in panels)


def test_chart_and_compose_use_the_same_files() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    prometheus = yaml.safe_load(
        (ROOT / "infra/compose/observability/prometheus.yml").read_text("utf-8")
    )
    (targets,) = yaml.safe_load((ROOT / TARGETS).read_text("utf-8"))

    for path in ALERTS:
        copy = ROOT / FILES / "alerts" / path.name
        assert copy.read_text("utf-8") == (ROOT / path).read_text("utf-8")
    assert len(targets["targets"]) == len(all_specs())
    mounted = {v.split(":")[1]: v.split(":")[0] for v in compose["prometheus"]["volumes"]}
    for path in (*prometheus["rule_files"], "/etc/shop/functions.yml"):
        assert (ROOT / mounted[path]).is_file(), path
    provider = yaml.safe_load(
        (ROOT / "infra/compose/observability/grafana/dashboards/shop.yaml").read_text("utf-8")
    )["providers"][0]
    where = {v.split(":")[1]: v.split(":")[0] for v in compose["grafana"]["volumes"]}
    assert list((ROOT / where[provider["options"]["path"]]).glob("*.json"))


def test_collector_receives_otlp_and_its_pipelines_are_complete() -> None:
    path = ROOT / "infra/compose/observability/otel-collector.yaml"
    collector = yaml.safe_load(path.read_text("utf-8"))

    assert collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind]), pipeline
