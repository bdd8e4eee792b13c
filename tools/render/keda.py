"""KEDA: `sweep` as a Deployment that exists only while something is due.

A Knative Service has no ``/scale`` and a scaler of its own, so KEDA never looks at one: with this
component `sweep` is no Service any more.  Its pod has a second container that ticks it, with the
clock's key, so that the function keeps taking signed ticks only.
"""

from __future__ import annotations

from typing import LiteralString

from shop.primitives.spec import FunctionSpec
from shop.registry import spec_of
from tools.render.eventing import broker_ref, clock_name, tick_container
from tools.render.objects import (
    COLD_START_SECONDS,
    NAMESPACE,
    Manifest,
    account_of,
    container_of,
    domain_of,
    labels_of,
    metadata,
    name_of,
    pod_labels,
    request_seconds,
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
    """The Deployment, what scales it, and what tells it where the broker is."""
    spec = spec_of(SWEEPER)
    return [deployment(spec), scaled_object(spec), trigger_authentication(), sink_binding(spec)]


def patches() -> list[Manifest]:
    """Takes the Service and its clock away: the Deployment has their work."""
    spec = spec_of(SWEEPER)
    gone = {"$patch": "delete"}
    service = {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": metadata(name_of(spec)),
        **gone,
    }
    clocks = [
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata(clock_name(schedule)),
            **gone,
        }
        for schedule in spec.schedules
    ]
    return [service, *clocks]


def due_query(spec: FunctionSpec) -> str:
    """How many rows are due of the kinds that the function's schedules work on.

    KEDA binds no parameters, so the kinds (literals of the spec) are written into the text.
    """
    kinds = ", ".join(f"'{kind}'" for schedule in spec.schedules for kind in schedule.due_kinds)
    return " ".join(COUNT_DUE.split()).replace("%(kinds)s", f"array[{kinds}]")


def deployment(spec: FunctionSpec) -> Manifest:
    """The worker; without ``replicas``, which are KEDA's."""
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
    live = {**container["livenessProbe"]["httpGet"], "port": 8080}
    # empty, so that the sink counts that the SinkBinding writes into K_SINK
    environment = [*container["env"], {"name": "BROKER_URL", "value": ""}]
    worker = {
        **container,
        "name": "function",
        "env": environment,
        "readinessProbe": {"httpGet": probe, "periodSeconds": 2},
        "livenessProbe": {**container["livenessProbe"], "httpGet": live},
    }
    here = "http://127.0.0.1:8080/events"
    ticker = tick_container([schedule.name, here, f"--every={TICK_SECONDS}"], secrets="clock")
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
    """From nothing to the spec's most, by the number of due rows; a broken query keeps one."""
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
                    # written out: the fallback is refused without it
                    "metricType": "AverageValue",
                    "metadata": query,
                    "authenticationRef": {"name": AUTHENTICATION},
                }
            ],
        },
    }


def trigger_authentication() -> Manifest:
    """The connection KEDA's operator counts with: a role that reads `due_work`."""
    reference = {"parameter": "connection", "name": "shop-keda", "key": "connection"}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": metadata(AUTHENTICATION),
        "spec": {"secretTargetRef": [reference]},
    }


def sink_binding(spec: FunctionSpec) -> Manifest:
    """Tells the Deployment the broker's address, whatever its class, as ``K_SINK``."""
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
