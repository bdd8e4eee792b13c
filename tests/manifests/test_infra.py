"""Handwritten files: workflows, Argo CD, kind and the examples of secrets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tools.manifest_rules.__main__ import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
INFRA = [
    path
    for folder in ("argocd", "kind", "openfaas", "secrets")
    for path in sorted((ROOT / "infra" / folder).rglob("*.yaml"))
    if path.name not in ("values.yaml", "kustomization.yaml", "compose.yaml", "envoy.yaml")
]
BUILT_IN = ("v1", "apps/v1", "batch/v1", "networking.k8s.io/v1")
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
# the permissions of jobs that need more than reading the code
PERMISSIONS = {"image": {"contents": "read", "packages": "write", "id-token": "write"}}


def jobs_of(path: Path) -> dict[str, dict[str, Any]]:
    """The jobs of a workflow."""
    return yaml.safe_load(path.read_text("utf-8"))["jobs"]


def documents(path: Path) -> list[dict[str, Any]]:
    """All documents of a file."""
    return list(yaml.safe_load_all(path.read_text("utf-8")))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_action_is_pinned_by_commit_with_its_version_in_a_comment(path: Path) -> None:
    lines = [line for line in path.read_text("utf-8").splitlines() if "uses:" in line]

    assert lines
    for line in lines:
        action, _, version = line.partition("uses:")[2].partition("#")
        assert PINNED.fullmatch(action.strip()), line
        assert re.fullmatch(r" v\d+\.\d+\.\d+", version), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_jobs_have_least_permissions_and_a_timeout(path: Path) -> None:
    assert yaml.safe_load(path.read_text("utf-8"))["permissions"] == {}
    for name, job in jobs_of(path).items():
        assert job["permissions"] == PERMISSIONS.get(name, {"contents": "read"}), name
        assert job["timeout-minutes"] <= 90
        checkouts = [s for s in job["steps"] if "actions/checkout" in s.get("uses", "")]
        assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_scripts_contain_no_expressions(path: Path) -> None:
    scripts = [s.get("run", "") for job in jobs_of(path).values() for s in job["steps"]]

    assert [script for script in scripts if "${{" in script] == []


def test_images_are_built_after_the_tests_and_signed_by_digest() -> None:
    image = jobs_of(ROOT / ".github/workflows/build-images.yml")["image"]
    build = next(s for s in image["steps"] if s.get("id") == "build")
    sign = next(s for s in image["steps"] if "cosign sign" in s.get("run", ""))
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")

    assert (image["needs"], "workflow_run.conclusion == 'success'" in image["if"]) == ("test", True)
    assert (build["with"]["sbom"], build["with"]["provenance"]) == (True, "mode=max")
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
    assert '"${IMAGE}@${DIGEST}"' in sign["run"]
    for target in image["strategy"]["matrix"]["target"]:
        assert f" AS {target}\n" in dockerfile
    for argument in build["with"]["build-args"].splitlines():
        assert f"ARG {argument.partition('=')[0]}=" in dockerfile


@pytest.mark.parametrize("path", INFRA, ids=lambda path: path.stem)
def test_object_has_a_name_and_a_namespace(path: Path) -> None:
    for manifest in documents(path):
        if manifest["apiVersion"].startswith("kind.x-k8s.io"):
            continue
        assert {"apiVersion", "kind", "metadata", "spec"} - manifest.keys() <= {"spec"}
        assert manifest["kind"] == "GatewayClass" or manifest["metadata"].get("namespace")
        if manifest["apiVersion"] in BUILT_IN:
            kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_vault_provides_every_secret_of_the_chart() -> None:
    values = yaml.safe_load((ROOT / "helm/msa-shop/values.yaml").read_text("utf-8"))

    provided = {
        manifest["spec"]["destination"]["name"]
        for manifest in documents(ROOT / "infra/secrets/vault-static-secrets.yaml")
        if manifest["kind"] == "VaultStaticSecret"
    }

    assert provided == set(values["secrets"]["names"])


def test_argo_deploys_the_chart_and_ignores_fields_that_webhooks_set() -> None:
    (shop,) = documents(ROOT / "infra/argocd/applications/shop.yaml")
    (project,) = documents(ROOT / "infra/argocd/project.yaml")
    (root,) = documents(ROOT / "infra/argocd/root.yaml")
    source = shop["spec"]["source"]

    assert (ROOT / source["path"] / source["helm"]["valueFiles"][0]).is_file()
    assert (ROOT / root["spec"]["source"]["path"]).is_dir()
    assert source["repoURL"] in project["spec"]["sourceRepos"]
    assert "RespectIgnoreDifferences=true" in shop["spec"]["syncPolicy"]["syncOptions"]
    ignored = {(rule["group"], rule["kind"]) for rule in shop["spec"]["ignoreDifferences"]}
    assert ("serving.knative.dev", "Service") in ignored
    namespaces = {place["namespace"] for place in project["spec"]["destinations"]}
    assert {"shop", "kourier-system", "knative-eventing"} <= namespaces


def test_kind_up_loads_the_images_of_its_values() -> None:
    script = (ROOT / "scripts/kind-up").read_text("utf-8")
    values = yaml.safe_load((ROOT / "infra/kind/values.yaml").read_text("utf-8"))

    for part in ("image", "toolsImage"):
        image = values[part]
        target = image["repository"].rpartition("/")[2]
        assert f"{image['registry']}/{image['repository']}:{image['tag']}" == (
            f"dev.local/msa-shop/{target}:dev"
        )
        assert target in script
    assert (ROOT / "scripts/kind-up").stat().st_mode & 0o111


def test_edge_of_a_cluster_is_envoy_with_its_rendered_configuration() -> None:
    deployment, service, _ = documents(ROOT / "infra/edge/deployment.yaml")
    (kustomization,) = documents(ROOT / "infra/edge/kustomization.yaml")
    (envoy,) = documents(ROOT / "infra/edge/envoy.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (generated,) = kustomization["configMapGenerator"]
    listening = {
        listener["address"]["socket_address"]["port_value"]
        for listener in envoy["static_resources"]["listeners"]
    }

    for manifest in (deployment, service):
        kubernetes_validate.validate(manifest, "1.33", strict=True)
    assert {port["containerPort"] for port in container["ports"]} == listening
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    (config, _) = deployment["spec"]["template"]["spec"]["volumes"]
    assert config["configMap"]["name"] == generated["name"]
    assert container["command"][-1].endswith(generated["files"][0])


def test_edge_with_a_collector_has_its_configuration_and_reaches_it() -> None:
    (kustomization,) = documents(ROOT / "infra/edge-traces/kustomization.yaml")
    (policy,) = documents(ROOT / "infra/edge-traces/network-policy.yaml")
    (envoy,) = documents(ROOT / "infra/edge-traces/envoy.yaml")
    (generated,) = kustomization["configMapGenerator"]
    (base,) = documents(ROOT / "infra/edge/kustomization.yaml")
    (rule,) = policy["spec"]["egress"]
    (collector,) = (
        each for each in envoy["static_resources"]["clusters"] if each["name"] == "collector"
    )
    (endpoint,) = collector["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]

    kubernetes_validate.validate(policy, "1.33", strict=True)
    assert generated["name"] == base["configMapGenerator"][0]["name"]
    assert kustomization["resources"][0] == "../edge"
    name = rule["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
    assert address["address"].split(".")[0] == name
    assert [address["port_value"]] == [port["port"] for port in rule["ports"]]


@pytest.mark.parametrize("path", ["edge", "compose", "openfaas"])
def test_edge_without_a_collector_exports_no_spans(path: str) -> None:
    text = (ROOT / "infra" / path / "envoy.yaml").read_text("utf-8")

    assert "4318" not in text
    assert "http_service" not in text


@pytest.mark.parametrize("place", ["compose", "edge", "edge-traces", "openfaas"])
def test_edge_without_requests_wakes_functions_once_a_day(place: str) -> None:
    text = (ROOT / "infra" / place / "envoy.yaml").read_text("utf-8")

    assert re.findall(r"cache_duration: (.+)", text) == [f"{24 * 3600}s"]
    assert "health_checks" not in text


def test_kind_maps_the_port_of_the_gateway_to_the_machine() -> None:
    (cluster,) = documents(ROOT / "infra/kind/cluster.yaml")
    _, proxy = documents(ROOT / "infra/kind/gateway-class.yaml")
    script = (ROOT / "scripts/kind-up").read_text("utf-8")
    service = proxy["spec"]["provider"]["kubernetes"]["envoyService"]

    (mapping,) = cluster["nodes"][0]["extraPortMappings"]
    (port,) = service["patch"]["value"]["spec"]["ports"]

    assert service["type"] == "NodePort"
    assert mapping["containerPort"] == port["nodePort"]
    assert f"hostPort: {mapping['hostPort']}" in script
    assert "port-forward" not in script


def test_kind_up_run_again_keeps_cluster_and_url_and_upgrades_the_release(tmp_path: Path) -> None:
    """Its commands are recorded; the cluster exists and was created with the port 9090."""
    for folder in ("scripts", "bin", ".venv/bin"):
        (tmp_path / folder).mkdir(parents=True)
    shutil.copy(ROOT / "scripts/kind-up", tmp_path / "scripts")
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    record = f'echo "${{0##*/}} $*" >>{tmp_path}/calls'
    outputs = {"kind": "echo msa-shop", "docker": '[ "$1" = port ] && echo 127.0.0.1:9090'}
    programs = [f"bin/{name}" for name in ("docker", "kind", "kubectl", "helm", "curl")]
    for name in (*programs, "scripts/helm-upgrade", ".venv/bin/python", ".venv/bin/shop"):
        output = outputs.get(Path(name).name, ":")
        (tmp_path / name).write_text(f"#!/bin/sh\n{record}\n{output}\nexit 0\n", "utf-8")
        (tmp_path / name).chmod(0o755)

    done = subprocess.run(
        [str(tmp_path / "scripts/kind-up")],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    calls = (tmp_path / "calls").read_text("utf-8").splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("The shop is at http://localhost:9090\n")
    assert calls[-1] == "shop e2e --url http://localhost:9090"
    assert [call for call in calls if call.startswith("kind create")] == []
    assert any(call.startswith("helm-upgrade --namespace shop ") for call in calls)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint_reports_nothing(path: Path) -> None:
    assert run("actionlint", "-no-color", str(path)) == (0, "")


@pytest.mark.parametrize(
    "script",
    [
        *("scripts/helm-upgrade", "scripts/kind-up", "scripts/setup.sh", "infra/secrets/seal"),
        *("tests/node/node", "tests/node/start-postgresql"),
    ],
)
def test_shellcheck_reports_nothing(script: str) -> None:
    assert run("shellcheck", str(ROOT / script)) == (0, "")


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("v3.20.2", ["--install", "--wait", "--atomic"]),
        (
            "v4.1.0",
            [
                "--install",
                "--wait",
                "--rollback-on-failure",
                "--server-side=true",
                "--force-conflicts",
            ],
        ),
    ],
)
def test_upgrade_is_rolled_back_when_it_fails_and_says_what_to_do(
    tmp_path: Path, version: str, expected: list[str]
) -> None:
    called = tmp_path / "called"
    (tmp_path / "helm").write_text(
        f'#!/bin/sh\n[ "$1" = version ] && echo {version} && exit\necho "$@" >{called}; exit 1\n'
    )
    (tmp_path / "helm").chmod(0o755)

    failed = subprocess.run(
        [str(ROOT / "scripts/helm-upgrade"), "--namespace", "other"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )

    words = called.read_text().split()
    assert words == ["upgrade", "shop", "helm/msa-shop", *expected, "--namespace", "other"]
    assert failed.returncode == 1
    assert "helm rollback shop" in failed.stderr


def run(tool: str, *arguments: str) -> tuple[int, str]:
    """Exit status and output of a tool of the development lock; fails when it is missing."""
    folder = Path(sys.executable).parent
    path = os.pathsep.join((str(folder), os.environ["PATH"]))
    found = shutil.which(tool, path=path)
    assert found, f"{tool} is missing: make setup"
    result = subprocess.run(
        [found, *arguments],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return result.returncode, result.stdout + result.stderr
