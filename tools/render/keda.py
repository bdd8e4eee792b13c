"""Renders `sweep` as a Deployment that KEDA scales from zero by the number of due rows.

A Knative Service has no scale subresource, so KEDA cannot scale it: this component replaces the
Service.  A second container of the pod sends the ticks, signed with the clock's key, because the
function accepts signed ticks only.
"""

from __future__ import annotations

from typing import LiteralString

from shop.primitives.http_limits import COLD_START_SECONDS, request_seconds
from shop.primitives.spec import FunctionSpec
from shop.registry import spec_of
from tools.render.eventing import broker_ref, clock_name, tick_container
from tools.render.objects import (
    NAMESPACE,
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

SWEEPER = "sweep"
COUNT_DUE: LiteralString = """
select coalesce(count(*), 0) from shop.due_work
where due_at <= now() and kind = any(%(kinds)s)
"""
AUTHENTICATION = "shop-due-work"
TICK_SECONDS = 5
POLL_SECONDS = 10
COOLDOWN_SECONDS = 120


def objects() -> list[Manifest]:
    """The Deployment, its scaler, and the SinkBinding that sets the broker's address."""
    spec = spec_of(SWEEPER)
    return [deployment(spec), scaled_object(spec), trigger_authentication(), sink_binding(spec)]


def patches() -> list[Manifest]:
    """Patches that delete the Service and its CronJob, which the Deployment replaces."""
    spec = spec_of(SWEEPER)
    delete = {"$patch": "delete"}
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata(name_of(spec)),
        **delete,
    }
    clocks = [
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata(clock_name(schedule)),
            **delete,
        }
        for schedule in spec.schedules
    ]
    return [service, *clocks]


def due_query(spec: FunctionSpec) -> str:
    """Counts due rows of the kinds that the function's schedules process.

    KEDA binds no parameters, so the kinds, which are literals of the spec, are part of the text.
    """
    kinds = ", ".join(f"'{kind}'" for schedule in spec.schedules for kind in schedule.due_kinds)
    return " ".join(COUNT_DUE.split()).replace("%(kinds)s", f"array[{kinds}]")


def deployment(spec: FunctionSpec) -> Manifest:
    """The Deployment, without ``replicas``, which KEDA sets."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(name_of(spec), labels_of(spec)),
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": name_of(spec)}},
            "template": {"metadata": {"labels": pod_labels(spec)}, "spec": _pod(spec)},
        },
    }


def _pod(spec: FunctionSpec) -> Manifest:
    (schedule,) = spec.schedules
    container = container_of(spec)
    probe = {**container["readinessProbe"]["httpGet"], "port": 8080}
    liveness = {**container["livenessProbe"]["httpGet"], "port": 8080}
    # empty, so that the K_SINK of the SinkBinding is used
    environment = [*container["env"], {"name": "BROKER_URL", "value": ""}]
    worker = {
        **container,
        "name": "function",
        "env": environment,
        "readinessProbe": {"httpGet": probe, "periodSeconds": 2},
        "livenessProbe": {**container["livenessProbe"], "httpGet": liveness},
    }
    target = "http://127.0.0.1:8080/events"
    ticker = tick_container([schedule.name, target, f"--every={TICK_SECONDS}"], secrets="clock")
    return {
        "serviceAccountName": account_of(domain_of(spec)),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": request_seconds(spec) + COLD_START_SECONDS,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [worker, ticker],
        "volumes": [
            *volumes_of(spec),
            {"name": "clock", "secret": {"secretName": "shop-clock"}},
        ],
    }


def scaled_object(spec: FunctionSpec) -> Manifest:
    """Scales from 0 to the spec's maximum by due rows; to 1 when the query fails."""
    query = {
        "query": due_query(spec),
        "targetQueryValue": str(spec.schedules[0].rows_per_process),
        "activationTargetQueryValue": "0",
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(name_of(spec), labels_of(spec)),
        "spec": {
            "scaleTargetRef": {"name": name_of(spec)},
            "pollingInterval": POLL_SECONDS,
            "cooldownPeriod": COOLDOWN_SECONDS,
            "minReplicaCount": 0,
            "maxReplicaCount": spec.scale.max_scale,
            "fallback": {"failureThreshold": 5, "replicas": 1},
            "triggers": [
                {
                    "type": "postgresql",
                    # explicit: KEDA rejects the fallback without it
                    "metricType": "AverageValue",
                    "metadata": query,
                    "authenticationRef": {"name": AUTHENTICATION},
                }
            ],
        },
    }


def trigger_authentication() -> Manifest:
    """The database connection of KEDA's operator: a role that reads `due_work`."""
    reference = {"parameter": "connection", "name": "shop-keda", "key": "connection"}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": metadata(AUTHENTICATION),
        "spec": {"secretTargetRef": [reference]},
    }


def sink_binding(spec: FunctionSpec) -> Manifest:
    """Sets the broker's address in the Deployment as ``K_SINK``, for every broker class."""
    subject = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": name_of(spec),
        "namespace": NAMESPACE,
    }
    return {
        "apiVersion": "sources.knative.dev/v1",
        "kind": "SinkBinding",
        "metadata": metadata(name_of(spec), labels_of(spec)),
        "spec": {"subject": subject, "sink": {"ref": broker_ref()}},
    }
