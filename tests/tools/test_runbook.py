"""The runbook's commands: one a platform for each alert, run here or compared with what exists.

``shop …`` runs on a database, a log file is one that the local platform writes, and the names of
Compose, Knative and OpenFaaS are those of the rendered manifests.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from shop.registry import all_specs
from tests.harness import ShopHarness
from tests.manifests.test_deploy_pages import unknown_names
from tests.tools.observability.test_dashboards import alerts
from tools.cli import app

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/RUNBOOK.md").read_text("utf-8")
SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
PLATFORMS = {"make dev", "Compose", "Knative", "OpenFaaS"}
LOCAL = ". .shop/operator.env && .venv/bin/"
COMPOSE = "docker compose run --rm tools "
POD = "kubectl -n shop exec deploy/shop-tools -- "


def lines() -> list[tuple[str, str, str]]:
    """Alert, platform and command of each line."""
    found: list[tuple[str, str, str]] = []
    for alert, section in SECTION.findall(TEXT):
        for line in "".join(BLOCK.findall(section)).splitlines():
            command, _, platform = line.partition("  # ")
            found.append((alert, platform, command.strip()))
    return found


def commands_of(platform: str) -> list[str]:
    return [command for _, name, command in lines() if name == platform]


def test_every_alert_has_one_command_for_each_platform() -> None:
    found: dict[str, list[str]] = {rule["alert"]: [] for rule in alerts()}
    for alert, platform, _ in lines():
        found[alert].append(platform)

    assert {alert for alert, names in found.items() if sorted(names) != sorted(PLATFORMS)} == set()


def test_command_of_shop_is_the_same_on_every_platform() -> None:
    for alert in {alert for alert, _, _ in lines()}:
        by_platform = {platform: command for a, platform, command in lines() if a == alert}
        command = by_platform["make dev"].removeprefix(LOCAL)
        if command == by_platform["make dev"]:
            continue
        assert by_platform["OpenFaaS"] == command
        assert by_platform["Compose"] == COMPOSE + command.removeprefix("shop ")
        assert by_platform["Knative"] == POD + command


@pytest.mark.parametrize(
    "command", sorted({c for c in commands_of("OpenFaaS") if c.startswith("shop ")})
)
def test_command_of_shop_runs(command: str, shop: ShopHarness) -> None:
    variables = {f"{r.upper()}_DATABASE_URL": shop.role_url(r) for r in ("auditor", "ops")}

    result = CliRunner().invoke(app, shlex.split(command)[1:], env=variables)

    # of what doctor examines only the databases are given here
    assert result.exit_code == (command == "shop doctor"), result.output
    assert "Traceback" not in result.output


def test_log_files_are_those_of_functions() -> None:
    names = {spec.name for spec in all_specs()} | {"*"}
    files = [command for command in commands_of("make dev") if command.startswith("tail ")]

    assert files
    assert {Path(command.split()[-1]).stem for command in files} <= names


def test_services_of_compose_exist() -> None:
    files = [ROOT / "compose.yaml", ROOT / "infra/compose/functions.yaml"]
    services = {name for f in files for name in yaml.safe_load(f.read_text("utf-8"))["services"]}
    words = [command.split() for command in commands_of("Compose")]
    named = {word[5] for word in words if word[2] == "logs" and len(word) > 5}

    assert named and named <= services
    assert {word[2] for word in words} == {"logs", "run"} and "tools" in services


def test_names_of_knative_and_openfaas_exist() -> None:
    stack = yaml.safe_load((ROOT / "stack.yml").read_text("utf-8"))["functions"]
    deployments = [
        command.split()[4].removeprefix("deploy/")
        for command in commands_of("OpenFaaS")
        if command.startswith("kubectl ")
    ]

    assert {c: m for c in commands_of("Knative") if (m := unknown_names(c.split()))} == {}
    assert deployments and set(deployments) <= stack.keys()
