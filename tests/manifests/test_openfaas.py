"""stack.yml: what the Community Edition accepts, and functions that start with what it gives."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from shop.registry import all_specs, spec_of
from shop.runtime.bootstrap import settings_of
from shop.runtime.config import ConfigurationError, Settings
from tools.make_secrets import main
from tools.manifest_rules import openfaas as rules
from tools.manifest_rules.__main__ import ROOT, findings
from tools.manifest_rules.manifests import read
from tools.render.openfaas import SECRETS_PATH, grouped

STACK = ROOT / "stack.yml"
OPENFAAS = ROOT / "infra/openfaas"
FUNCTIONS: dict[str, dict[str, Any]] = yaml.safe_load(STACK.read_text("utf-8"))["functions"]
VARIABLE = re.compile(r"\$\{(\w+)(:-([^}]*))?\}")
ISSUER = "https://shop.co.kr"
DEPLOYMENT = {"PAYMENT_PROVIDER": "stripe", "TRUSTED_HOPS": "1"}
USES_PROVIDER = {"shop-charge", "shop-sweep"}


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that ``make_secrets --openfaas`` writes."""
    folder = tmp_path_factory.mktemp("openfaas")
    written = folder / "secrets"
    arguments = [f"--keys={folder / 'keys'}", f"--openfaas={written}", f"--issuer={ISSUER}"]
    arguments += ["--provider=https://api.stripe.com"]
    assert main(arguments) == 0
    return written


def settings_in_the_container(
    name: str, deployment: Mapping[str, str], secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """The settings of a deployed function; faas-cli replaces the variables of the stack file."""
    environment = {
        key: VARIABLE.sub(lambda found: deployment.get(found[1], found[3] or ""), text)
        for key, text in FUNCTIONS[name]["environment"].items()
    }
    mounted = secrets.parent / f"mounted-{name}"
    mounted.mkdir(exist_ok=True)
    for secret in FUNCTIONS[name]["secrets"]:
        (mounted / secret).write_text((secrets / "functions" / secret).read_text("utf-8"), "utf-8")
    own = {key: text.replace(SECRETS_PATH, str(mounted)) for key, text in environment.items()}
    monkeypatch.setattr(os, "environ", own)
    return settings_of(tuple(spec_of(each) for each in own["FUNCTION_NAME"].split()))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_deployed_function_starts_in_prod(
    name: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in_the_container(name, DEPLOYMENT, secrets, monkeypatch)

    assert (settings.profile, settings.trusted_hops) == ("prod", 1)
    assert (settings.jwt_issuer, settings.jwt_audience) == (ISSUER, "shop")
    assert (settings.payment_provider == "stripe") == (name in USES_PROVIDER)


@pytest.mark.parametrize("name", sorted(USES_PROVIDER))
def test_function_without_a_payment_provider_names_the_missing_setting(
    name: str, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="PAYMENT_PROVIDER must not be sandbox"):
        settings_in_the_container(name, {}, secrets, monkeypatch)


def test_every_secret_of_the_stack_is_a_private_file_and_no_other_is_written(
    secrets: Path,
) -> None:
    files = list((secrets / "functions").iterdir())

    named = {secret for function in FUNCTIONS.values() for secret in function["secrets"]}
    assert {file.name for file in files} == named
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_broker_and_migration_have_their_own_files(secrets: Path) -> None:
    broker = sorted(file.name for file in (secrets / "broker").iterdir())
    migrate = sorted(file.name for file in (secrets / "migrate").iterdir())

    assert broker == ["database-url", "event-keys", "event-signing-key"]
    assert migrate[0] == "database-url"
    assert {file.removeprefix("password-shop_") for file in migrate[1:]} >= {"ordering", "relay"}


def test_secrets_without_an_issuer_are_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([f"--keys={tmp_path / 'keys'}", f"--openfaas={tmp_path / 'secrets'}"])

    assert exit_.value.code == 2
    assert "--issuer" in capsys.readouterr().err
    assert not (tmp_path / "secrets").exists()


# what the validator of openfaas/faas-netes (pkg/handlers) answers with 400
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", {"com.openfaas.scale.zero": "true"}),
        ("labels", {"com.openfaas.scale.zero-duration": "5m"}),
        ("labels", {"com.openfaas.scale.target": "10"}),
        ("labels", {"com.openfaas.scale.type": "rps"}),
        ("labels", {"com.openfaas.scale.max": "6"}),
        ("labels", {"com.openfaas.scale.min": "6"}),
        ("annotations", {"topic": "orders,payments"}),
        ("annotations", {"eks.amazonaws.com/role-arn": "x"}),
        ("image", ""),
    ],
)
def test_what_the_community_edition_rejects_is_found(key: str, value: object) -> None:
    manifests = read((STACK,))
    functions = {"shop-cart": {**FUNCTIONS["shop-charge"], key: value}}
    rejected = replace(manifests, stack={"version": "1.0", "functions": functions})

    found = [fault for rule in rules.RULES for fault in rule(rejected)]

    assert len(found) == 1, found


def test_function_whose_name_is_no_dns_label_is_found() -> None:
    functions = {"shop_cart": FUNCTIONS["shop-charge"]}
    rejected = replace(read((STACK,)), stack={"version": "1.0", "functions": functions})

    assert list(rules.stack_is_accepted_by_the_community_edition(rejected)) == [
        "shop_cart: is not a DNS label"
    ]


def test_pods_beside_the_functions_are_confined_and_have_a_version() -> None:
    manifests = read([OPENFAAS / "broker.yaml", OPENFAAS / "edge.yaml", OPENFAAS / "migrate"])

    assert findings(manifests) == []


def test_kustomization_has_the_files_of_its_folder() -> None:
    kustomization = yaml.safe_load((OPENFAAS / "kustomization.yaml").read_text("utf-8"))

    assert set(kustomization["resources"]) == {"broker.yaml", "edge.yaml"}
    assert kustomization["configMapGenerator"][0]["files"] == ["envoy.yaml"]


def test_broker_reaches_each_function_by_the_name_of_its_service() -> None:
    (deployment,) = read([OPENFAAS / "broker.yaml"]).kind("Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (pattern,) = (
        argument.partition("=")[2]
        for argument in container["args"]
        if argument.startswith("--functions=")
    )

    hosts = {pattern.format(group=group) for group in grouped(all_specs())}

    assert hosts == {f"http://{name}:8080" for name in FUNCTIONS}
