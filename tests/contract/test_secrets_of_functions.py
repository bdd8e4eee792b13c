"""On every platform a function gets the secrets that its spec needs, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from shop.runtime.config import NOT_GIVEN, Settings
from tests.manifests.test_chart import chart_manifests
from tools.compose.secrets import write_secrets
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.secrets import Secrets
from tools.manifest_rules.__main__ import deployed_manifests
from tools.manifest_rules.manifests import ManifestSet
from tools.render.compose import service_name
from tools.render.objects import reads_redis

ROOT = Path(__file__).resolve().parents[2]
VALUES = yaml.safe_load((ROOT / "helm/msa-shop/values.yaml").read_text("utf-8"))
STACK = yaml.safe_load((ROOT / "stack.yml").read_text("utf-8"))["functions"]
# Each secret setting, and whether a function needs it.
NEEDED: dict[str, Callable[[FunctionSpec], bool]] = {
    "database_url": lambda spec: spec.database_role is not None,
    "event_signing_key": lambda spec: spec.database_role is not None,
    "jwt_private_key": lambda spec: spec.issues_tokens,
    "link_key": lambda spec: spec.reads_links,
    "payment_provider_api_key": lambda spec: "provider" in spec.needs,
    "payment_webhook_secret": lambda spec: any(r.auth == "provider" for r in spec.routes),
    "carrier_webhook_secret": lambda spec: any(r.auth == "carrier" for r in spec.routes),
    "redis_url": reads_redis,
    "second_factor_key": lambda spec: spec.issues_tokens,
    "webhook_key": lambda spec: spec.sends_webhooks,
    "smtp_url": lambda spec: "smtp" in spec.needs,
}
# a chart value and a setting of one's own; functions that read no replica ignore it
OPTIONAL = {"database_replica_url"}
SPECS = pytest.mark.parametrize("spec", all_specs(), ids=lambda spec: spec.name)


def needed(*specs: FunctionSpec) -> set[str]:
    return {name for name, is_needed in NEEDED.items() if any(map(is_needed, specs))}


def secret_settings(names: set[str]) -> set[str]:
    """The secret settings among names of variables or of files."""
    return NEEDED.keys() & {name.lower().replace("-", "_") for name in names}


def test_every_secret_setting_is_needed_by_some_function_and_not_by_all() -> None:
    secret = {name for name, value in Settings().__dict__.items() if value is NOT_GIVEN}

    assert secret - OPTIONAL == NEEDED.keys()
    for is_needed in NEEDED.values():
        assert {is_needed(spec) for spec in all_specs()} == {True, False}


@SPECS
def test_process_of_the_local_platform_has_the_secrets_of_its_spec(
    spec: FunctionSpec, secrets: Secrets
) -> None:
    endpoints = Endpoints(
        admin_url="postgresql://postgres@127.0.0.1:9/shop",
        redis_url="redis://127.0.0.1:9/0",
        broker_url="http://127.0.0.1:9",
        provider_url="http://127.0.0.1:9",
        secrets=secrets,
        has_own_database=True,
    )

    assert secret_settings(set(endpoints.environment_for(spec))) == needed(spec)


def test_service_of_compose_has_the_secrets_of_its_spec(tmp_path: Path) -> None:
    write_secrets(tmp_path)

    for spec in all_specs():
        files = {path.name for path in (tmp_path / service_name(spec)).iterdir()}
        assert secret_settings(files) == needed(spec), spec.name


@SPECS
@pytest.mark.parametrize(
    "manifests",
    [chart_manifests("values"), deployed_manifests()["infra/knative/imc"]],
    ids=["chart", "kustomize"],
)
def test_knative_service_mounts_the_secrets_of_its_spec(
    manifests: ManifestSet, spec: FunctionSpec
) -> None:
    function = manifests.function(f"shop-{service_name(spec)}")
    assert function is not None

    mounted: list[Any] = [
        source["secret"]["name"]
        for volume in function["spec"]["template"]["spec"]["volumes"]
        for source in volume.get("projected", {}).get("sources", [])
        if "secret" in source
    ]
    files = {file for name in mounted for file in VALUES["secrets"]["names"][name]}

    assert secret_settings(files) == needed(spec)


@pytest.mark.parametrize("name", STACK)
def test_function_of_openfaas_has_the_secrets_of_the_specs_in_its_process(name: str) -> None:
    environment = STACK[name]["environment"]
    members = [spec for spec in all_specs() if spec.name in environment["FUNCTION_NAME"].split()]
    own = {variable.removesuffix("_FILE") for variable in environment}

    assert secret_settings({*STACK[name]["secrets"], *own}) == needed(*members)
