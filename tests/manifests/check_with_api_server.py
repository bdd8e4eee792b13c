"""Creates every object that is deployed in a live Kubernetes API server.

    python -m tests.manifests.check_with_api_server

Builds etcd and the API server from the sources that ``tools/`` pins; needs Go.  The custom
resources of Knative, KEDA and the Gateway API are defined as in the modules that ``upstream/``
pins, and its program is a webhook of the server, with the validation of upstream's own.  Each
object is created with strict validation in a namespace that enforces the Pod Security level
``restricted``, and is then compared with what is stored.  There is no node: nothing runs.

Exits 1 when the server rejects an object, warns about it, or stores less than it was sent.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.manifests.api_server import (
    NAMESPACE,
    ApiServer,
    Rejected,
    running_api_server,
    running_webhook,
)
from tests.manifests.check_with_clients import PACKAGES as CLIENTS
from tests.manifests.check_with_clients import (
    TOOLS,
    build,
    lost_values,
    run,
)
from tests.manifests.check_with_upstream_webhooks import PROGRAM as UPSTREAM
from tests.manifests.check_with_upstream_webhooks import REJECTED
from tests.manifests.test_chart import CONFIGURATIONS, chart_manifests
from tests.manifests.test_rules import FIXTURES
from tools.manifest_rules.__main__ import deployed_manifests
from tools.manifest_rules.manifests import Manifest, ManifestSet, parse, read
from tools.render.documents import Json

PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubernetes": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kustomize": CLIENTS["kustomize"],
}
# Folders with CustomResourceDefinitions, in the modules of ``upstream/``; KEDA patches its own.
DEFINITIONS = {
    "knative.dev/serving": "config/core/300-resources",
    "knative.dev/eventing": "config/core/resources",
    "github.com/kedacore/keda/v2": "config/crd",
    "sigs.k8s.io/gateway-api": "config/crd/standard",
}
# These definitions are in no module of ``upstream/``.
UNDEFINED = {
    *("BackendTrafficPolicy", "ClientTrafficPolicy", "HTTPRouteFilter"),
    *("ExternalSecret", "PodMonitor", "RabbitmqBrokerConfig"),
}
NAMESPACES = (NAMESPACE, "knative-eventing", "kourier-system")
RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}
# Objects that others need come first; the order of the rest does not matter.
FIRST = ("Namespace", "ServiceAccount")
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|Ki|Mi|Gi)?")
FACTORS = {
    None: Decimal(1),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
}
# Fields of a revision's template that a pod does not have; Knative gives probes their ports.
REVISION_FIELDS = ("containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


def main() -> int:
    """Prints a line for each deployment and each difference; returns the exit status."""
    if shutil.which("go") is None:
        print("go is missing", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder, began = Path(name), time.monotonic()
        programs = {
            tool: build(TOOLS / tool, package, folder / f"{tool}-program")
            for tool, package in PACKAGES.items()
        }
        webhook = build(UPSTREAM, ".", folder / "webhook-program")
        print(f"built in {time.monotonic() - began:.0f} s", flush=True)
        with (
            running_webhook(webhook, folder) as configuration,
            running_api_server(programs["etcd"], programs["kubernetes"], folder) as server,
        ):
            define_resources(server, programs["kustomize"])
            server.create(configuration)
            failed = _report("fixtures", check_fixtures(server))
            failed += sum(
                _report(deployment, check_objects(server, manifests))
                for deployment, manifests in _deployments().items()
            )
    return 1 if failed else 0


def define_resources(server: ApiServer, kustomize: Path) -> None:
    """Creates the namespaces and the definitions of all custom resources."""
    for namespace in NAMESPACES:
        metadata = {"name": namespace, "labels": RESTRICTED}
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        account = {"name": "default", "namespace": namespace}
        server.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    used = {
        (each["kind"], each["apiVersion"]) for m in _deployments().values() for each in m.objects
    }
    definitions = [_for_version(each, used) for each in _definitions(kustomize)]
    for definition in definitions:
        server.apply(definition)
    for definition in definitions:
        server.wait_until_established(definition)
    print(f"{len(definitions)} custom resources defined", flush=True)


def check_objects(server: ApiServer, manifests: ManifestSet) -> list[str]:
    """Creates the objects, compares them with what is stored and deletes them; the problems."""
    problems: list[str] = []
    created: list[Manifest] = []
    for manifest in sorted(manifests.objects, key=_rank):
        if manifest["kind"] in UNDEFINED:
            continue
        try:
            if manifest["kind"] == "Namespace":
                server.apply(manifest)
            else:
                server.create(manifest)
                created.append(manifest)
            problems += _differences(server, manifest)
        except Rejected as error:
            problems.append(str(error))
    problems += _rejected_pods(server, manifests)
    for manifest in reversed(created):
        server.delete(manifest)
    return problems


def check_fixtures(server: ApiServer) -> list[str]:
    """The fixtures that upstream's webhooks reject but this server accepts."""
    return [
        f"{name} is accepted"
        for name in sorted(REJECTED)
        if not check_objects(server, read((FIXTURES / f"{name}.yaml",)))
    ]


def _report(name: str, problems: list[str]) -> bool:
    """Prints the result of one deployment; True when it has problems."""
    print(f"{name}: {f'{len(problems)} problems' if problems else 'accepted'}", flush=True)
    for problem in problems[:20]:
        print(f"    {problem[:500]}")
    return bool(problems)


def _deployments() -> dict[str, ManifestSet]:
    deployments = {name: each for name, each in deployed_manifests().items() if each.objects}
    return deployments | {f"chart, {name}": chart_manifests(name) for name in CONFIGURATIONS}


def _definitions(kustomize: Path) -> Iterator[Manifest]:
    """The CustomResourceDefinitions of the pinned modules."""
    subprocess.run(["go", "mod", "download", *DEFINITIONS], cwd=UPSTREAM, check=True)
    for module, folder in DEFINITIONS.items():
        root = run(["go", "-C", str(UPSTREAM), "list", "-m", "-f", "{{.Dir}}", module]).strip()
        path = Path(root) / folder
        is_kustomized = (path / "kustomization.yaml").exists()
        built = parse(run([str(kustomize), "build", str(path)])) if is_kustomized else read((path,))
        yield from built.kind("CustomResourceDefinition")


def _for_version(definition: Manifest, used: set[tuple[str, str]]) -> Manifest:
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


def _rank(manifest: Manifest) -> int:
    return FIRST.index(manifest["kind"]) if manifest["kind"] in FIRST else len(FIRST)


def _differences(server: ApiServer, manifest: Manifest) -> list[str]:
    """What of the object is not stored."""
    wanted, kept = _comparable(manifest), _comparable(server.stored(manifest))
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    return [f"{name}: {path} is not stored" for path in lost_values(wanted, kept, "")]


def _comparable(value: Json) -> Json:
    """The value without empty fields, which may be left out, and with quantities as numbers."""
    if isinstance(value, dict):
        compared = {key: _comparable(each) for key, each in value.items()}
        return {key: each for key, each in compared.items() if each not in (None, "", {}, [])}
    if isinstance(value, list):
        return [_comparable(each) for each in value]
    found = QUANTITY.fullmatch(value) if isinstance(value, str) else None
    return str((Decimal(found[1]) * FACTORS[found[2]]).normalize()) if found else value


def _rejected_pods(server: ApiServer, manifests: ManifestSet) -> list[str]:
    """Which functions' pods Pod Security rejects; those of other kinds are warned about."""
    problems: list[str] = []
    for function in manifests.functions():
        try:
            server.create(_pod_of(function), is_dry_run=True)
        except Rejected as error:
            problems.append(str(error))
    return problems


def _pod_of(function: Manifest) -> Manifest:
    """A pod as a revision of the function has it, without what Knative adds."""
    template: dict[str, Any] = function["spec"]["template"]["spec"]
    spec = {key: value for key, value in template.items() if key not in REVISION_FIELDS}
    spec["containers"] = [
        {"name": "user-container"} | {k: v for k, v in each.items() if k not in PROBES}
        for each in template["containers"]
    ]
    metadata = {"name": function["metadata"]["name"], "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


if __name__ == "__main__":
    sys.exit(main())
