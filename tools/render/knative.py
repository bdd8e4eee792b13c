"""Renders Knative Services, and all objects that they need, as kustomize folders.

``base`` is the shop without a broker; ``imc``, ``kafka`` and ``rabbitmq`` are the base with one;
``components`` are for clusters that have KEDA, a Gateway API or the Prometheus operator; others are
the Job that migrates the database, the operators' pod, the daily audits and the warm hours.

All Services are cluster-local: clients reach them through the edge only.  Settings come from
ConfigMaps, secrets as files from one Secret per trust domain, so that no function can read the key
of another domain and a rotated secret needs no new revision.
"""

from __future__ import annotations

from pathlib import Path

from shop.primitives.http_limits import TERMINATION_SECONDS, request_seconds
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from tools.render import eventing, gateway, keda, migration, network_policies, operators
from tools.render.documents import yaml_text
from tools.render.objects import (
    SETTINGS,
    Manifest,
    account_of,
    container_of,
    domain_of,
    labels_of,
    metadata,
    name_of,
    pod_labels,
    volumes_of,
)

FOLDER = Path("infra/knative")
BASE = FOLDER / "base"
COMPONENTS = FOLDER / "components"


def render() -> dict[Path, str]:
    """Every file below ``infra/knative``."""
    files = _folder(BASE, base_files())
    for kind in eventing.CLASSES:
        files |= _folder(
            FOLDER / kind,
            {"broker.yaml": eventing.broker_objects(kind)},
            resources=("../base",),
            patches=(_broker_address(kind),),
        )
    for name, objects in component_objects().items():
        patches = {"keda": keda.patches(), "monitoring": [network_policies.metrics_setting()]}.get(
            name, []
        )
        files |= _folder(
            COMPONENTS / name, {f"{name}.yaml": objects}, patches=tuple(patches), is_component=True
        )
    return files


def component_objects() -> dict[str, list[Manifest]]:
    """The objects for optional parts of a cluster, by component."""
    return {
        "keda": keda.objects(),
        "gateway": gateway.objects(),
        "migration": migration.objects(),
        "monitoring": [network_policies.pod_monitor(), network_policies.scrape_policy()],
        "tools": operators.tools_objects(),
        "audits": operators.audit_objects(),
        "warm-hours": operators.warm_hours_objects(),
    }


def base_files() -> dict[str, list[Manifest]]:
    """The objects of the base, by file: one file per function, and the shared ones."""
    files = {f"{name_of(spec)}.yaml": function_objects(spec) for spec in all_specs()}
    files["event-types.yaml"] = [
        eventing.event_type(event, spec) for event, spec in eventing.event_sources()
    ]
    files["namespace.yaml"] = [network_policies.namespace()]
    files["network-policies.yaml"] = network_policies.network_policies()
    files["service-accounts.yaml"] = network_policies.service_accounts()
    files["settings.yaml"] = [network_policies.settings()]
    return files


def function_objects(spec: FunctionSpec) -> list[Manifest]:
    """The Service of a function, its Triggers and its CronJobs."""
    triggers = [eventing.trigger(spec, subscription.event) for subscription in spec.subscriptions]
    clocks = [eventing.clock(spec, schedule) for schedule in spec.schedules]
    return [service(spec), *triggers, *clocks]


def _folder(
    folder: Path,
    files: dict[str, list[Manifest]],
    *,
    resources: tuple[str, ...] = (),
    patches: tuple[Manifest, ...] = (),
    is_component: bool = False,
) -> dict[Path, str]:
    kustomization: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/" + ("v1alpha1" if is_component else "v1beta1"),
        "kind": "Component" if is_component else "Kustomization",
        "resources": sorted([*resources, *files]),
    }
    changes = {f"patch-{p['kind'].lower()}-{p['metadata']['name']}.yaml": [p] for p in patches}
    if changes:
        kustomization["patches"] = [{"path": name} for name in sorted(changes)]
    contents = {**files, **changes, "kustomization.yaml": [kustomization]}
    return {folder / name: yaml_text(*objects) for name, objects in contents.items()}


def _broker_address(kind: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(SETTINGS),
        "data": {"BROKER_CLASS": kind, "BROKER_URL": eventing.INGRESS[kind]},
    }


# ---------------------------------------------------------------- Service


def service(spec: FunctionSpec) -> Manifest:
    """The Knative Service of a function.

    Its template has no label that changes with a release: each change creates a revision.
    """
    labels = {**labels_of(spec), "networking.knative.dev/visibility": "cluster-local"}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata(name_of(spec), labels),
        "spec": {
            "template": {
                "metadata": {"labels": pod_labels(spec), "annotations": _scaling(spec)},
                "spec": _pod(spec),
            }
        },
    }


def _scaling(spec: FunctionSpec) -> dict[str, str]:
    scaling = "autoscaling.knative.dev"
    sidecar = "queue.sidecar.serving.knative.dev"
    return {
        f"{scaling}/metric": "concurrency",
        f"{scaling}/min-scale": "0",
        f"{scaling}/max-scale": str(spec.scale.max_scale),
        **{f"{scaling}/{name}": value for name, value in _use_of_pods(spec).items()},
        # the activator stays in the path: it routes to a free pod, and queues instead of 503
        f"{scaling}/target-burst-capacity": "-1",
        # a revision that exceeds it has failed for good, and a new node may take long
        "serving.knative.dev/progress-deadline": "1800s",
        f"{sidecar}/cpu-resource-request": "5m",
        f"{sidecar}/memory-resource-request": "16Mi",
        f"{sidecar}/memory-resource-limit": "200Mi",
    }


def _use_of_pods(spec: FunctionSpec) -> dict[str, str]:
    """How full pods become and how long idle ones stay.

    A tick is one request, which must not fill a pod: at 70 % of a concurrency of 1 it needs two,
    and twice the ready pods is what the autoscaler panics at.  After it comes no second request.
    """
    if spec.schedules:
        return {
            "target-utilization-percentage": "100",
            "window": "15s",
            # 6 s, as with the default window
            "panic-window-percentage": "40",
            "scale-down-delay": "0s",
            "scale-to-zero-pod-retention-period": "0s",
        }
    return {
        "target-utilization-percentage": "70",
        "scale-down-delay": "30s",
        "scale-to-zero-pod-retention-period": "2m",
    }


def _pod(spec: FunctionSpec) -> Manifest:
    seconds = request_seconds(spec)
    return {
        "serviceAccountName": account_of(domain_of(spec)),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containerConcurrency": spec.scale.in_flight_max,
        "timeoutSeconds": seconds + TERMINATION_SECONDS,
        "responseStartTimeoutSeconds": seconds,
        "containers": [container_of(spec)],
        "volumes": volumes_of(spec),
    }
