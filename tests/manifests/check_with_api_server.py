"""Creates every object that is deployed in a live Kubernetes API server, and installs the chart.

    python -m tests.manifests.check_with_api_server

Builds etcd, the API server, Helm and KEDA's webhooks from pinned sources; needs Go.  The custom
resources of Knative, KEDA, the Gateway API, Envoy Gateway, External Secrets and Prometheus Operator
are upstream's, and so are the webhooks that every object passes.  Namespaces enforce the Pod
Security level ``restricted``.  There is no node: nothing runs.

Each object is created with strict validation and compared with what is stored.  Helm installs and
uninstalls each configuration of the chart, first with Knative alone, then with every API; some it
upgrades and rolls back as well.  Objects with errors must be rejected, and ``scripts/helm-upgrade``
must undo an upgrade that is.

Exits 1 when the server rejects an object, warns about it, or stores less than it was sent.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.manifests.api_server import NAMESPACE, ApiServer, Rejected, running_api_server
from tests.manifests.check_with_clients import PACKAGES as CLIENTS
from tests.manifests.check_with_clients import PROGRAMS, TOOLS, build
from tests.manifests.check_with_upstream_webhooks import PROGRAM as UPSTREAM
from tests.manifests.check_with_upstream_webhooks import REJECTED, all_deployments
from tests.manifests.comparison import differences
from tests.manifests.definitions import definitions, keda_registration
from tests.manifests.releases import Helm, check_rejected_upgrade, check_release
from tests.manifests.test_chart import (
    AS_KUSTOMIZED,
    CONFIGURATIONS,
    OWN_HOST,
    configured_values,
    merged,
)
from tests.manifests.test_rules import FIXTURES
from tests.manifests.webhooks import running_keda_webhooks, running_webhooks
from tools.manifest_rules.manifests import Manifest, ManifestSet, read
from tools.render import gateway

# Name of the program: module and package.
BUILDS = {
    "etcd": (TOOLS / "etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": (TOOLS / "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "helm": (TOOLS / "helm", CLIENTS["helm"]),
    "kustomize": (TOOLS / "kustomize", CLIENTS["kustomize"]),
    "webhooks": (UPSTREAM, "."),
    "keda-webhooks": (UPSTREAM, "github.com/kedacore/keda/v2/cmd/webhooks"),
}
NAMESPACES = (NAMESPACE, "knative-eventing", "kourier-system")
RESTRICTED = {
    f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")
}
# Objects that others need come first; the order of the rest does not matter.
FIRST = ("Namespace", "ServiceAccount")
# Fields of a revision's template that a pod does not have; Knative gives probes their ports.
REVISION_FIELDS = ("containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
# The group of the APIs that every installation has.
KNATIVE = "knative.dev"
# Configurations that Helm also upgrades and rolls back: what it does then is the same for all.
UPGRADED = {"values", "rabbitmq", "prod"}
# A release without pods, for which Helm has nothing to wait for.
WITHOUT_PODS = {
    "broker": {"class": "imc"},
    "pgbouncer": {"enabled": False},
    "postgresql": {"maxConnections": 2010},
}


class Fault(NamedTuple):
    """A change that makes the first object of a kind one that must be rejected."""

    kind: str
    path: str
    value: Any


# Objects of the chart with every API.
FAULTS = (
    Fault("Service", "metadata.label", {}),
    Fault("Service", "spec.template.spec.containers.0.imagePullPolcy", "Always"),
    Fault("Service", "spec.template.spec.containers.0.securityContext.privileged", True),
    Fault("Broker", "spec.delivery.backoffPolicy", "quadratic"),
    Fault("Trigger", "spec.delivery.retries", 3),
    Fault("NetworkPolicy", "spec.policytypes", ["Egress"]),
    Fault("NetworkPolicy", "spec.egress", [{"ports": [{"port": "port_of_database"}]}]),
    Fault("Deployment", "spec.template.spec.containers.0.resources.limits.memory", "1GB"),
    Fault("Deployment", "spec.template.spec.securityContext.runAsNonRoot", False),
    Fault("StatefulSet", "spec.selector.matchLabels", {"app.kubernetes.io/name": "other"}),
    Fault("ScaledJob", "spec.triggers", [{"type": "cron", "name": "same", "metadata": {}}] * 2),
    Fault("HTTPRoute", "spec.rules.0.matches.0.method", "FETCH"),
    Fault("HTTPRoute", "spec.hostnames", [gateway.HOST]),
    Fault("Gateway", "spec.listeners.0.hostname", gateway.HOST),
    Fault("Gateway", "spec.listeners.0.hostname", ""),
    Fault("ExternalSecret", "spec.data.0.remoteref", {"key": "other"}),
    Fault("PodMonitor", "spec.podMetricsEndpoints.0.intervall", "30s"),
    Fault("BackendTrafficPolicy", "spec.circuitBreaker.maxRequests", 10),
    Fault("Role", "rules.0.verbs", []),
)


def main() -> int:
    """Prints a line for each deployment and each difference; returns the exit status."""
    if shutil.which("go") is None:
        print("go is missing", file=sys.stderr)
        return 2
    began = time.monotonic()
    programs = {name: build(*what, PROGRAMS / name) for name, what in BUILDS.items()}
    print(f"built in {time.monotonic() - began:.0f} s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with (
            running_webhooks(programs["webhooks"], folder) as registrations,
            running_api_server(programs["etcd"], programs["kube-apiserver"], folder) as server,
        ):
            failed = check(server, programs, registrations, folder)
    print(f"checked in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


def check(
    server: ApiServer, programs: dict[str, Path], registrations: list[Manifest], folder: Path
) -> int:
    """Checks everything, first with Knative alone; the number of checks that fail."""
    helm = Helm(programs["helm"], server, folder)
    deployments = all_deployments()
    needs_all = {name for name in CONFIGURATIONS if "assumeApis" in configured_values(name)}
    every = definitions(programs["kustomize"], deployments.values())
    knative = [each for each in every if each["spec"]["group"].endswith(KNATIVE)]
    create_namespaces(server)
    define(server, knative)
    for registration in registrations:
        server.create(registration)
    server.wait_until_rejected(read((FIXTURES / f"{min(REJECTED)}.yaml",)).objects[0])
    failed = _check_releases(helm, [each for each in CONFIGURATIONS if each not in needs_all])
    define(server, [each for each in every if each not in knative])
    with running_keda_webhooks(
        programs["keda-webhooks"], keda_registration(), server, folder
    ) as registration:
        server.create(registration)
        failed += _report("errors", check_faults(server, helm, deployments))
        failed += sum(
            _report(name, check_objects(server, each)) for name, each in deployments.items()
        )
        failed += _check_releases(helm, sorted(needs_all))
        values = merged(AS_KUSTOMIZED, OWN_HOST, WITHOUT_PODS)
        failed += _report("scripts/helm-upgrade", check_rejected_upgrade(helm, values))
    return failed


def create_namespaces(server: ApiServer) -> None:
    """Creates the namespaces with their default accounts, as a controller would."""
    for namespace in NAMESPACES:
        metadata = {"name": namespace, "labels": RESTRICTED}
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        account = {"name": "default", "namespace": namespace}
        server.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})


def define(server: ApiServer, wanted: Iterable[Manifest]) -> None:
    """Creates custom resources and waits until the server has their APIs."""
    created = list(wanted)
    for definition in created:
        server.apply(definition)
    for definition in created:
        server.wait_until_established(definition)
    print(f"{len(created)} custom resources defined", flush=True)


def check_objects(server: ApiServer, manifests: ManifestSet) -> list[str]:
    """Creates the objects, compares them with what is stored and deletes them; the problems."""
    problems: list[str] = []
    created: list[Manifest] = []
    for manifest in sorted(manifests.objects, key=_rank):
        try:
            if manifest["kind"] == "Namespace":
                server.apply(manifest)
            else:
                # also one that the server warns about, which it has stored
                created.append(manifest)
                server.create(manifest)
            problems += differences(server, manifest)
        except Rejected as error:
            problems.append(str(error))
    problems += _rejected_pods(server, manifests)
    for manifest in reversed(created):
        if server.has(manifest):
            server.delete(manifest)
    return problems


def check_faults(server: ApiServer, helm: Helm, deployments: dict[str, ManifestSet]) -> list[str]:
    """The errors that are not detected: in fixtures, in changed objects, and in a chart."""
    problems = [
        f"{name} is accepted"
        for name in sorted(REJECTED)
        if not check_objects(server, read((FIXTURES / f"{name}.yaml",)))
    ]
    for fault in FAULTS:
        changed = with_fault(deployments, fault)
        if not check_objects(server, ManifestSet((changed,))):
            problems.append(f"{fault.kind} with {fault.path} is accepted")
    chart = _chart_of(with_fault(deployments, FAULTS[1]), helm.folder / "chart")
    if not any("imagePullPolcy" in each for each in check_release(helm, {}, chart)):
        problems.append("a misspelt key in a chart is accepted")
    return problems


def with_fault(deployments: dict[str, ManifestSet], fault: Fault) -> Manifest:
    """The first object of the kind that has the place of the fault, with the fault."""
    for manifests in deployments.values():
        for manifest in manifests.kind(fault.kind):
            changed = deepcopy(manifest)
            *keys, last = fault.path.split(".")
            place: Any = changed
            try:
                for key in keys:
                    place = place[int(key) if key.isdecimal() else key]
            except (KeyError, IndexError):
                continue
            place[last] = fault.value
            return changed
    raise LookupError(f"no {fault.kind} has the place of {fault.path}")


def _check_releases(helm: Helm, configurations: Iterable[str]) -> int:
    failed = 0
    for name in configurations:
        # Helm asks the server
        values = merged(configured_values(name), {"assumeApis": []})
        problems = check_release(helm, values, is_upgraded=name in UPGRADED)
        failed += _report(f"helm, {name}", problems)
    return failed


def _report(name: str, problems: list[str]) -> bool:
    """Prints the result of one deployment; True when it has problems."""
    print(f"{name}: {len(problems) or 'no'} problems", flush=True)
    for problem in problems[:20]:
        print(f"    {problem[:500]}")
    return bool(problems)


def _chart_of(manifest: Manifest, folder: Path) -> Path:
    """A chart of one object; Helm sends it without strict validation."""
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2, name: fault, version: 0.1.0}", "utf-8")
    (folder / "templates" / "object.yaml").write_text(yaml.safe_dump(manifest), "utf-8")
    return folder


def _rank(manifest: Manifest) -> int:
    return FIRST.index(manifest["kind"]) if manifest["kind"] in FIRST else len(FIRST)


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
