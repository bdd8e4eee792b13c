"""Knative: a Service per function, its Triggers and clocks, the Broker and the EventTypes.

Everything is cluster-local: the edge is the only door.  Settings come from the ConfigMap
``shop-settings``, secrets as files from one Secret per trust domain, so that no function can read
another domain's key and a rotated secret needs no new revision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from events.event import ShopEvent
from events.vocabulary import EVENTS, class_of
from scripts.render.documents import yaml_text
from scripts.render.events import schema_of
from shop.registry import all_specs
from shop.spec import FunctionSpec, Schedule

FOLDER = Path("infra/knative")
NAMESPACE = "shop"
BROKER = "shop"
# dev.local: Knative leaves this registry's tags alone; kustomize or the chart put the real one
IMAGE = "dev.local/msa-shop/functions:dev"
SECRETS_PATH = "/var/run/shop/secrets"
BROKER_CLASS = "MTChannelBasedBroker"
REQUEST_SECONDS_MIN = 30
COLD_START_SECONDS = 15
RETRIES = 8
DELAY = "PT0.5S"

Manifest = dict[str, Any]

TMP_MOUNT: Manifest = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 (its own emptyDir)


def render() -> dict[Path, str]:
    """One file per function, the broker, the event types and the list of them all."""
    files = {FOLDER / f"{name_of(s)}.yaml": yaml_text(*_manifests(s)) for s in all_specs()}
    files[FOLDER / "broker.yaml"] = yaml_text(broker())
    files[FOLDER / "event-types.yaml"] = yaml_text(*(event_type(event) for event in EVENTS))
    names = sorted(path.name for path in files)
    kustomization: Manifest = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": names,
    }
    files[FOLDER / "kustomization.yaml"] = yaml_text(kustomization)
    return files


def name_of(spec: FunctionSpec) -> str:
    """The function's name in Kubernetes, where an underscore is not allowed."""
    return f"shop-{spec.name.replace('_', '-')}"


def _manifests(spec: FunctionSpec) -> list[Manifest]:
    triggers = [trigger(spec, subscription.event) for subscription in spec.subscriptions]
    clocks = [clock(spec, schedule) for schedule in spec.schedules]
    return [service(spec), *triggers, *clocks]


# ---------------------------------------------------------------- Service


def service(spec: FunctionSpec) -> Manifest:
    """The Knative Service of a function."""
    labels = _labels(spec)
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": name_of(spec),
            "namespace": NAMESPACE,
            "labels": {**labels, "networking.knative.dev/visibility": "cluster-local"},
            "annotations": {"serving.knative.dev/rollout-duration": "120s"},
        },
        "spec": {
            "template": {
                "metadata": {"labels": labels, "annotations": _scaling(spec)},
                "spec": _pod(spec),
            }
        },
    }


def _labels(spec: FunctionSpec) -> dict[str, str]:
    return {"app.kubernetes.io/name": name_of(spec), "app.kubernetes.io/part-of": "msa-shop"}


def _scaling(spec: FunctionSpec) -> dict[str, str]:
    scaling = "autoscaling.knative.dev"
    sidecar = "queue.sidecar.serving.knative.dev"
    return {
        f"{scaling}/metric": "concurrency",
        f"{scaling}/target-utilization-percentage": "70",
        f"{scaling}/min-scale": "0",
        f"{scaling}/max-scale": str(spec.scale.max_scale),
        f"{scaling}/scale-down-delay": "30s",
        f"{scaling}/scale-to-zero-pod-retention-period": "2m",
        f"{scaling}/target-burst-capacity": "-1",
        "serving.knative.dev/progress-deadline": "120s",
        f"{sidecar}/cpu-resource-request": "25m",
        f"{sidecar}/memory-resource-request": "50Mi",
        f"{sidecar}/memory-resource-limit": "200Mi",
    }


def _pod(spec: FunctionSpec) -> Manifest:
    request_seconds = _request_seconds(spec)
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {"sizeLimit": "32Mi"}}]
    sources = [{"secret": {"name": name}} for name in secrets_of(spec)]
    if sources:
        volumes.append({"name": "secrets", "projected": {"sources": sources}})
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "containerConcurrency": spec.scale.concurrency,
        # the grace period too: SIGTERM reaches a function 30 seconds after its end began
        "timeoutSeconds": request_seconds + 30,
        "responseStartTimeoutSeconds": request_seconds,
        "containers": [_container(spec, with_secrets=bool(sources))],
        "volumes": volumes,
    }


def _request_seconds(spec: FunctionSpec) -> int:
    return max(REQUEST_SECONDS_MIN, spec.timeout_seconds)


def _container(spec: FunctionSpec, *, with_secrets: bool) -> Manifest:
    mounts: list[Manifest] = [TMP_MOUNT]
    if with_secrets:
        mounts.append({"name": "secrets", "mountPath": SECRETS_PATH, "readOnly": True})
    scale = spec.scale
    return {
        "image": IMAGE,
        "args": [spec.name],
        "ports": [{"name": "http1", "containerPort": 8080}],
        "envFrom": [{"configMapRef": {"name": "shop-settings"}}],
        "env": [{"name": "THREADS", "value": str(scale.concurrency)}],
        "volumeMounts": mounts,
        # no period: Knative then probes every 50 ms, which a cold start is glad of
        "readinessProbe": {"httpGet": {"path": "/health/readiness"}},
        "livenessProbe": {
            "httpGet": {"path": "/health/liveness"},
            "periodSeconds": 10,
            "failureThreshold": 3,
        },
        "resources": {
            "requests": {"cpu": f"{scale.cpu_millis}m", "memory": f"{scale.memory_mib}Mi"},
            "limits": {"cpu": "1", "memory": f"{2 * scale.memory_mib}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def secrets_of(spec: FunctionSpec) -> list[str]:
    """Names of the Secrets a function sees; their keys are the settings' file names."""
    names = []
    if spec.database_role is not None:
        names.append(f"shop-{spec.database_role.replace('_', '-')}")
    if "redis" in spec.needs:
        names.append("shop-redis")
    if "provider" in spec.needs:
        names.append("shop-payment-provider")
    if any(route.auth == "provider" for route in spec.routes):
        names.append("shop-payment-webhook")
    if spec.issues_tokens:
        names.append("shop-jwt")
    return names


# ---------------------------------------------------------------- Eventing


def broker() -> Manifest:
    """The shop's broker; its delivery is the net below the Triggers' own."""
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Broker",
        "metadata": {
            "name": BROKER,
            "namespace": NAMESPACE,
            "annotations": {"eventing.knative.dev/broker.class": BROKER_CLASS},
        },
        "spec": {"delivery": _delivery(REQUEST_SECONDS_MIN)},
    }


def trigger(spec: FunctionSpec, event: str) -> Manifest:
    """The Trigger of one subscription; it has every delivery field, since a part loses the rest."""
    return {
        "apiVersion": "eventing.knative.dev/v1",
        "kind": "Trigger",
        "metadata": {
            "name": f"{name_of(spec)}-on-{event.replace('.', '-')}",
            "namespace": NAMESPACE,
            "labels": _labels(spec),
        },
        "spec": {
            "broker": BROKER,
            "filters": [{"exact": {"type": class_of(event).type}}],
            "subscriber": {"ref": _service_ref(name_of(spec)), "uri": "/events"},
            "delivery": _delivery(_request_seconds(spec)),
        },
    }


def _delivery(request_seconds: int) -> Manifest:
    keepers = [spec for spec in all_specs() if spec.receives_dead_letters]
    delivery: Manifest = {
        "retry": RETRIES,
        "backoffPolicy": "exponential",
        "backoffDelay": DELAY,
        "timeout": f"PT{request_seconds + COLD_START_SECONDS}S",
    }
    for spec in keepers:
        delivery["deadLetterSink"] = {"ref": _service_ref(name_of(spec)), "uri": "/events"}
    return delivery


def _service_ref(name: str) -> Manifest:
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "name": name,
        "namespace": NAMESPACE,
    }


def event_type(event: type[ShopEvent]) -> Manifest:
    """The catalogue entry of an event."""
    return {
        "apiVersion": "eventing.knative.dev/v1beta3",
        "kind": "EventType",
        "metadata": {
            "name": f"shop-{event.name.replace('.', '-')}-v{event.version}",
            "namespace": NAMESPACE,
        },
        "spec": {
            "reference": {
                "apiVersion": "eventing.knative.dev/v1",
                "kind": "Broker",
                "name": BROKER,
                "namespace": NAMESPACE,
            },
            "description": schema_of(event)["description"],
            "attributes": [
                {"name": "specversion", "required": True, "value": "1.0"},
                {"name": "type", "required": True, "value": event.type},
                {"name": "source", "required": True, "value": "/shop/{function}"},
                {"name": "id", "required": True},
                {"name": "subject", "required": True},
                {"name": "dataschema", "required": True, "value": event.dataschema},
                {"name": "partitionkey", "required": True},
                {"name": "sigkid", "required": True},
                {"name": "sig", "required": True},
            ],
        },
    }


# ---------------------------------------------------------------- clock


def clock(spec: FunctionSpec, schedule: Schedule) -> Manifest:
    """A CronJob that sends one signed tick.

    Not a PingSource: that cannot sign, and a function takes nothing unsigned.  A missed tick is
    made good by the next, since handlers look for all that is due.
    """
    sink = f"http://{name_of(spec)}.{NAMESPACE}.svc.cluster.local/events"
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": f"shop-clock-{schedule.name}",
            "namespace": NAMESPACE,
            "labels": _labels(spec),
        },
        "spec": {
            "schedule": schedule.cron,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 60,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"spec": _tick_job(spec, schedule, sink)},
        },
    }


def _tick_job(spec: FunctionSpec, schedule: Schedule, sink: str) -> Manifest:
    container = {
        "name": "tick",
        "image": IMAGE,
        "command": ["python", "-m", "scripts.tick"],
        "args": [schedule.name, sink],
        "envFrom": [{"configMapRef": {"name": "shop-settings"}}],
        "volumeMounts": [
            TMP_MOUNT,
            {"name": "secrets", "mountPath": SECRETS_PATH, "readOnly": True},
        ],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "128Mi"},
        },
        "securityContext": _container(spec, with_secrets=True)["securityContext"],
    }
    return {
        "backoffLimit": 0,
        "activeDeadlineSeconds": _request_seconds(spec) + COLD_START_SECONDS,
        "template": {
            "metadata": {"labels": _labels(spec)},
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "restartPolicy": "Never",
                "containers": [container],
                "volumes": [
                    {"name": "tmp", "emptyDir": {"sizeLimit": "32Mi"}},
                    {"name": "secrets", "secret": {"secretName": "shop-clock"}},
                ],
            },
        },
    }
