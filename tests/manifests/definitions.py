"""CustomResourceDefinitions of upstream, from the sources of Go modules."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

from tests.manifests.check_with_clients import ClientMismatchError, run
from tests.manifests.check_with_upstream_webhooks import PROGRAM as UPSTREAM
from tools.manifest_rules.manifests import Manifest, ManifestSet, parse, read

# Folders with CustomResourceDefinitions, in the modules of ``upstream/``; KEDA patches its own.
PINNED = {
    "knative.dev/serving": "config/core/300-resources",
    "knative.dev/eventing": "config/core/resources",
    "github.com/kedacore/keda/v2": "config/crd",
    "sigs.k8s.io/gateway-api": "config/crd/standard",
}
KEDA = "github.com/kedacore/keda/v2"
KEDA_REGISTRATION = "config/webhooks/validation_webhooks.yaml"
# No module that answers has the definition of these kinds (knative.dev/eventing-rabbitmq is not in
# the module proxy): their objects are stored unchecked.
UNDEFINED = {"RabbitmqBrokerConfig": "eventing.knative.dev/v1alpha1"}


class Source(NamedTuple):
    """A module of which only files are read: its version, the hash of all of it, and the files."""

    version: str
    sum: str
    folder: str
    files: tuple[str, ...]


# Nothing of them is compiled, so no go.mod has them and their dependencies.
DOWNLOADED = {
    "github.com/envoyproxy/gateway": Source(
        "v1.8.0",
        "h1:pn5TYSteO1zZjUMPVXGY7ayFDhZAZZWAQ+yDgVzj78o=",
        "charts/gateway-helm/charts/crds/crds/generated",
        (
            "gateway.envoyproxy.io_backendtrafficpolicies.yaml",
            "gateway.envoyproxy.io_clienttrafficpolicies.yaml",
            "gateway.envoyproxy.io_httproutefilters.yaml",
        ),
    ),
    "github.com/external-secrets/external-secrets": Source(
        "v1.3.2",
        "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ=",
        "config/crds/bases",
        ("external-secrets.io_externalsecrets.yaml",),
    ),
    "github.com/prometheus-operator/prometheus-operator": Source(
        "v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd",
        ("monitoring.coreos.com_podmonitors.yaml",),
    ),
}


def definitions(kustomize: Path, deployments: Iterable[ManifestSet]) -> list[Manifest]:
    """The definitions of all kinds of the deployments, stored in the versions that are used."""
    used = {(each["kind"], each["apiVersion"]) for m in deployments for each in m.objects}
    found = [*_pinned(kustomize), *_downloaded(), *map(_without_schema, UNDEFINED)]
    return [for_version(each, used) for each in found]


def for_version(definition: Manifest, used: set[tuple[str, str]]) -> Manifest:
    """The definition, stored in the version that is used.

    A conversion between versions would be a request to a webhook of Knative, which does not run.
    """
    spec = definition["spec"]
    spec.pop("conversion", None)
    names = [each["name"] for each in spec["versions"]]
    wanted = [name for name in names if (spec["names"]["kind"], f"{spec['group']}/{name}") in used]
    if wanted:
        for each in spec["versions"]:
            each["storage"] = each["name"] == wanted[0]
    return definition


def keda_registration() -> Manifest:
    """The ValidatingWebhookConfiguration of KEDA."""
    (registration,) = read((_directory(KEDA) / KEDA_REGISTRATION,)).objects
    return registration


def _pinned(kustomize: Path) -> Iterator[Manifest]:
    subprocess.run(["go", "mod", "download", *PINNED], cwd=UPSTREAM, check=True)
    for module, folder in PINNED.items():
        path = _directory(module) / folder
        is_kustomized = (path / "kustomization.yaml").exists()
        built = parse(run([str(kustomize), "build", str(path)])) if is_kustomized else read((path,))
        yield from built.kind("CustomResourceDefinition")


def _downloaded() -> Iterator[Manifest]:
    for module, source in DOWNLOADED.items():
        # Outside of any module, so that Go reads no go.mod of a dependency.  It fails when the
        # module needs a newer Go, but only after it downloaded the archive.
        command = ["go", "-C", "/", "mod", "download", "-json", f"{module}@{source.version}"]
        result = subprocess.run(command, capture_output=True, check=False)
        answer: dict[str, str] = json.loads(result.stdout)
        if answer.get("Sum") != source.sum:
            raise ClientMismatchError(f"{module} {source.version}: {answer}")
        with ZipFile(answer["Zip"]) as archive:
            for name in source.files:
                path = f"{module}@{source.version}/{source.folder}/{name}"
                yield from parse(archive.read(path).decode()).objects


def _directory(module: str) -> Path:
    return Path(run(["go", "-C", str(UPSTREAM), "list", "-m", "-f", "{{.Dir}}", module]).strip())


def _without_schema(kind: str) -> Manifest:
    """A definition that accepts and stores every field."""
    (group, version), plural = UNDEFINED[kind].split("/"), f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }
