"""The pages about deploying, followed as far as no cluster is needed.

Every command of Helm renders the chart with its values, ``make_secrets`` runs and prints the
Secrets that the chart names, the kustomization names existing folders, objects and images, and
every kubectl command names objects that the repository deploys.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml

from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from shop.runtime.bootstrap import settings_of
from shop.runtime.config import ConfigurationError
from tests.manifests.documented_commands import KUBECTL
from tests.manifests.test_chart import APIS, CHART, DIGEST, render_chart, values_of
from tools.manifest_rules.manifests import read
from tools.render import gateway, network_policies
from tools.render.documents import Json
from tools.render.knative import base_files, component_objects
from tools.render.objects import secrets_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/deploy/helm.md", "docs/deploy/kustomize.md")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
# as kubectl spells the kinds, with those of a cluster that no manifest here contains
ALIASES = {
    "cronjob": "CronJob", "deploy": "Deployment", "gateway": "Gateway", "job": "Job",
    "secret": "Secret", "statefulset": "StatefulSet", "ksvc": "Service", "broker": "Broker",
    "trigger": "Trigger", "scaledjob": "ScaledJob", "jobs": "Job",
}  # fmt: skip
OF_THE_CLUSTER = {"crd", "events", "pods"}
# in the Secrets that people create themselves
BY_HAND = {("Secret", "ghcr"), ("Secret", "shop-tls")}


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8").replace("sha256:…", DIGEST)
    return [block for name, block in BLOCK.findall(text) if name == language]


def commands(page: str, program: str) -> list[list[str]]:
    """The words of each command of a page that starts with the program, without comments."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    parts = [part for line in lines for part in re.split(r"\s\|\s|\$\(", line)]
    split = [shlex.split(part.rstrip(")"), comments=True) for part in parts if program in part]
    return [words[words.index(program) :] for words in split if program in words]


@cache
def deployed() -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
    """Kind and name of every object of the chart and of kustomize, and every label of a pod."""
    chart = render_chart(assume=APIS).objects + render_chart().objects
    files = [each for objects in base_files().values() for each in objects]
    parts = [each for objects in component_objects().values() for each in objects]
    objects: list[dict[str, Any]] = [*chart, *files, *parts]
    labels = {label for each in objects for label in _labels(each)}
    names = {(each["kind"], each["metadata"]["name"]) for each in objects}
    secrets = {("Secret", name) for name in values_of("values.yaml")["secrets"]["names"]}
    return frozenset(names | secrets | BY_HAND), frozenset(labels)


def _labels(value: Json) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        labels = value.get("labels")
        yield from ((k, str(v)) for k, v in labels.items()) if isinstance(labels, dict) else ()
        for each in value.values():
            yield from _labels(each)
    elif isinstance(value, list):
        for each in value:
            yield from _labels(each)


def unknown_names(words: Sequence[str]) -> list[str]:
    """What a kubectl command names and nothing here deploys."""
    objects, labels = deployed()
    missing = [f"label {w}" for w in _options(words, "-l") if tuple(w.split("=")) not in labels]
    missing += [f"file {w}" for w in _options(words, "-f") if w != "-" and not (ROOT / w).exists()]
    for word, after in zip(words, [*words[1:], ""], strict=True):
        kind, _, name = word.partition("/")
        if kind in ALIASES and not name and re.fullmatch(r"shop(-[a-z-]+)?", after):
            name = after
        if kind in ALIASES and name and (ALIASES[kind], name) not in objects:
            missing.append(f"{kind}/{name}")
    if "get" in words:
        listed = words[words.index("get") + 1].split(",")
        missing += [kind for kind in listed if kind not in ALIASES.keys() | OF_THE_CLUSTER]
    return missing


def _options(words: Sequence[str], option: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == option]


@pytest.mark.parametrize("page", PAGES)
def test_kubectl_commands_name_objects_that_are_deployed(page: str) -> None:
    found = commands(page, "kubectl")

    assert found
    assert {" ".join(words): missing for words in found if (missing := unknown_names(words))} == {}


def test_unknown_names_of_a_command_are_found() -> None:
    command = "kubectl -n shop exec deploy/shop-nothing -- shop check"
    assert unknown_names(command.split()) == ["deploy/shop-nothing"]
    assert unknown_names(["kubectl", "logs", "-l", "app.kubernetes.io/name=shop-no"]) != []
    assert unknown_names(["kubectl", "apply", "-f", "infra/no.yaml"]) == ["file infra/no.yaml"]
    assert unknown_names(["kubectl", "-n", "shop", "get", "unicorns"]) == ["unicorns"]


def test_every_install_command_of_the_helm_page_renders() -> None:
    page = "docs/deploy/helm.md"
    (own,) = [yaml.safe_load(block) for block in blocks(page, "yaml")]
    found = [*commands(page, "scripts/helm-upgrade")]

    assert len(found) == 3
    for words in found:
        files = _options(words, "-f")
        values = [own if f == "my-values.yaml" else values_of(Path(f).name) for f in files]
        assert all(f == "my-values.yaml" or (CHART / Path(f).name).is_file() for f in files)
        chosen = [_nested(*setting.split("=", 1)) for setting in _options(words, "--set")]
        manifests = render_chart(*values, *chosen, assume=APIS)
        assert any(each["kind"] == "Broker" for each in manifests.objects), words


def _nested(path: str, value: str) -> dict[str, Any]:
    made: Any = yaml.safe_load(value)
    for name in reversed(path.split(".")):
        made = {name: made}
    return made


@pytest.mark.parametrize("page", PAGES)
def test_make_secrets_of_a_page_prints_the_secrets_of_the_chart(page: str, tmp_path: Path) -> None:
    found = commands(page, ".venv/bin/python")
    (words,) = [each for each in found if "tools.make_secrets" in each]
    arguments = [str(tmp_path) if word == ".shop/keys" else word for word in words[1:]]

    printed = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout

    made = {each["metadata"]["name"] for each in yaml.safe_load_all(printed)}
    assert set(values_of("values.yaml")["secrets"]["names"]) <= made
    assert "shop-public-keys" in made


@pytest.mark.parametrize(
    ("changed", "rejected"),
    [
        (
            {},
            {  # SHOP_URL is JWT_ISSUER unless it is given
                "JWT_ISSUER must not be a placeholder in the prod profile",
                "SHOP_URL must not be a placeholder in the prod profile",
            },
        ),
        ({"JWT_ISSUER": "https://shop.co.kr"}, set[str]()),
        (
            {"JWT_ISSUER": "https://shop.co.kr", "PAYMENT_PROVIDER": "sandbox"},
            {"PAYMENT_PROVIDER must not be sandbox in the prod profile"},
        ),
    ],
    ids=["as rendered", "as the page patches them", "with the simulator"],
)
def test_settings_of_kustomize_start_functions_only_as_the_page_patches_them(
    changed: dict[str, str], rejected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = subprocess.run(
        [
            *(sys.executable, "-m", "tools.make_secrets", f"--keys={tmp_path / 'keys'}"),
            "--provider=https://api.stripe.com",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    made = {each["metadata"]["name"]: each for each in yaml.safe_load_all(printed)}
    found: set[str] = set()
    for spec in all_specs():
        folder = tmp_path / spec.name
        folder.mkdir()
        files = {k: v for name in secrets_of(spec) for k, v in made[name]["stringData"].items()}
        for name, text in files.items():
            (folder / name).write_text(text, "utf-8")
        given = {**network_policies.SETTING_VALUES, **made["shop-public-keys"]["data"], **changed}
        monkeypatch.setattr(os, "environ", given | {"SHOP_SECRETS_DIR": str(folder)})
        found |= _rejections(spec)

    assert found == rejected


def _rejections(spec: FunctionSpec) -> set[str]:
    try:
        settings_of((spec,))
    except ConfigurationError as error:
        return set(str(error).splitlines())
    return set()


def test_host_of_the_gateway_is_patched_where_the_placeholder_is() -> None:
    (kustomization,) = [yaml.safe_load(b) for b in blocks("docs/deploy/kustomize.md", "yaml")]
    patched = {patch["target"]["kind"] for patch in kustomization["patches"]}
    holders = {
        each["kind"] for each in component_objects()["gateway"] if gateway.HOST in json.dumps(each)
    }

    assert holders <= patched


@pytest.mark.parametrize(
    ("values", "assume", "shown"),
    [
        ({"gateway": {"host": "shop.co.kr"}}, APIS, "  https://shop.co.kr\n"),
        ({"gateway": {"host": "shop.co.kr", "tls": False}}, APIS, "  http://shop.co.kr\n"),
        ({}, [], "This cluster has no Gateway API: the shop is not reachable"),
        ({"gateway": {"enabled": False}}, APIS, "gateway.enabled is false"),
    ],
    ids=["TLS", "no TLS", "no Gateway API", "disabled"],
)
def test_notes_have_the_url_and_the_next_command(
    values: dict[str, Any], assume: list[str], shown: str
) -> None:
    with helm_python.Chart.load(CHART) as chart:
        texts = chart.render({**values, "assumeApis": assume}, name="shop", namespace="shop")
    (notes,) = [text for path, text in texts.items() if path.endswith("NOTES.txt")]

    assert shown in notes
    assert "\n  helm test shop -n shop\n" in notes
    lines = [line.split() for line in notes.splitlines() if line.startswith("  kubectl ")]
    assert lines
    assert [word for words in lines for word in unknown_names(words)] == []
    pages = re.findall(r"docs/[\w/.-]+\.md", notes)
    assert [page for page in pages if not (ROOT / page).is_file()] == []


def test_kustomization_of_the_page_names_what_exists() -> None:
    (kustomization,) = [yaml.safe_load(b) for b in blocks("docs/deploy/kustomize.md", "yaml")]
    folders = [*kustomization["resources"], *kustomization["components"]]
    paths = [(ROOT / "infra" / "shop" / folder).resolve() for folder in folders]
    assert [path for path in paths if not (path / "kustomization.yaml").is_file()] == []

    manifests = read([*paths, ROOT / "infra/knative/base"])
    kinds = {each["kind"] for each in manifests.objects}
    assert {patch["target"]["kind"] for patch in kustomization["patches"]} <= kinds
    text = "".join(file.read_text("utf-8") for path in paths for file in path.glob("*.yaml"))
    text += "".join(f.read_text("utf-8") for f in (ROOT / "infra/knative/base").glob("*.yaml"))
    used = set(re.findall(r"image: (\S+):dev", text))
    assert used == {image["name"] for image in kustomization["images"]}


def checked(folder: Path, kustomization: Json) -> subprocess.CompletedProcess[str]:
    """What the page's first line of the installation prints for a kustomization."""
    there = os.path.relpath(ROOT / "infra" / "knative", folder.resolve())
    text = yaml.safe_dump(kustomization).replace("../knative", there)
    (folder / "kustomization.yaml").write_text(text, "utf-8")
    built = run_here([KUBECTL, "kustomize", str(folder)])
    assert built.returncode == 0, built.stderr
    return run_here([sys.executable, "-m", "tools.manifest_rules", "-"], built.stdout)


def run_here(command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, input=text, capture_output=True, text=True, check=False, timeout=60
    )


def test_kustomization_of_the_page_has_no_findings(tmp_path: Path) -> None:
    (kustomization,) = [yaml.safe_load(b) for b in blocks("docs/deploy/kustomize.md", "yaml")]

    result = checked(tmp_path, kustomization)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("host", [gateway.HOST, "", "shop.example.com", "localhost"])
def test_kustomization_without_a_host_of_its_own_is_refused(tmp_path: Path, host: str) -> None:
    (block,) = blocks("docs/deploy/kustomize.md", "yaml")
    text = block.replace("hostname, value: shop.co.kr", f"hostname, value: '{host}'")

    result = checked(tmp_path, yaml.safe_load(text))

    assert result.returncode == 1
    assert f"gateways_have_a_host: Gateway/shop: the host {host!r}" in result.stderr
