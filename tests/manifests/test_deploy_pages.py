"""The pages about deploying, followed as far as no cluster is needed.

Every command of Helm renders the chart with its values, ``make_secrets`` runs and prints the
Secrets that the chart names, the kustomization names existing folders, objects and images, and
every kubectl command names objects that the repository deploys.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.test_chart import APIS, CHART, DIGEST, render_chart, values_of
from tools.manifest_rules.manifests import read
from tools.render.documents import Json
from tools.render.knative import base_files, component_objects

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
    (words,) = commands(page, ".venv/bin/python")
    arguments = [str(tmp_path) if word == ".shop/keys" else word for word in words[1:]]

    printed = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout

    made = {each["metadata"]["name"] for each in yaml.safe_load_all(printed)}
    assert set(values_of("values.yaml")["secrets"]["names"]) <= made
    assert "shop-public-keys" in made


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
