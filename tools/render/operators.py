"""Renders the operators' pod, the daily audits and the warm hours, as kustomize components.

A test compares each with what the chart renders for the same values.
"""

from __future__ import annotations

import json

from tools.render.network_policies import SETTING_VALUES, api_policy, smoke_policy
from tools.render.objects import (
    ENVIRONMENT,
    HARDENED,
    NAMESPACE,
    SECRETS_MOUNT,
    TMP_MOUNT,
    TMP_VOLUME,
    TOOLS_IMAGE,
    Manifest,
    metadata,
)

TOOLS, WARM_HOURS = "shop-tools", "shop-warm-hours"
SERVING = "serving.knative.dev"
ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
PART = {"app.kubernetes.io/part-of": "msa-shop"}
# name, schedule and arguments of each audit, as in the chart's values
AUDITS: tuple[tuple[str, str, list[str]], ...] = (
    ("check", "17 4 * * *", ["check"]),
    ("reconcile", "37 4 * * *", ["reconcile"]),
    ("ledger-verify", "57 4 * * *", ["ledger", "verify"]),
)
AUDIT_SECONDS = 3600
AUDIT_SECRETS = ("shop-redis", "shop-payment-provider")
# an example, to be patched
HOURS: dict[str, list[dict[str, object]]] = {
    "shop-place-order": [
        {
            "start": "0 9 * * 1-5",
            "end": "0 18 * * 1-5",
            "timeZone": "Asia/Seoul",
            "minScale": 1,
        }
    ]
}


def tools_objects() -> list[Manifest]:
    """The pod with the operators' commands, at zero, which may read the revisions."""
    # the accounts' role and the key of links are not for the audits, which manage no accounts
    pod = _tools_pod(
        "sleep",
        ["infinity"],
        roles=("auditor", "ops", "accounts"),
        secrets=("shop-links", *AUDIT_SECRETS),
    )
    container = pod["containers"][0]
    container["env"] = [
        {"name": "SHOP_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}
    ]
    container["volumeMounts"] = [*container["volumeMounts"], _token_mount()]
    pod["volumes"] = [*pod["volumes"], _token_volume()]
    # sleep does not end on SIGTERM
    pod["terminationGracePeriodSeconds"] = 1
    labels = {
        "app.kubernetes.io/name": TOOLS,
        **_tools_labels(),
        "msa-shop/reaches-broker": "true",
        "msa-shop/reaches-redis": "true",
    }
    deployment: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(TOOLS),
        "spec": {
            "replicas": 0,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app.kubernetes.io/name": TOOLS}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    read = [{"apiGroups": [SERVING], "resources": ["services", "revisions"], "verbs": _READ}]
    policies = [api_policy(TOOLS, "tools-api"), smoke_policy(TOOLS)]
    return [_account(TOOLS), *_rights(TOOLS, read), *policies, deployment]


def audit_objects() -> list[Manifest]:
    """A CronJob for each audit, with the service account of the operators' pod."""
    return [_audit(*each) for each in AUDITS]


def warm_hours_objects() -> list[Manifest]:
    """A CronJob for each start and end of the windows in ``HOURS``."""
    rules: list[Manifest] = [
        {"apiGroups": [SERVING], "resources": ["services"], "verbs": ["get"]},
        {"apiGroups": [SERVING], "resources": ["revisions"], "verbs": ["get", "patch"]},
    ]
    windows = [each for windows in HOURS.values() for each in windows]
    moments = sorted(
        {(w[edge], w["timeZone"]) for w in windows for edge in ("start", "end")}, key=str
    )
    jobs = [
        _cron_job(
            f"{WARM_HOURS}-{index}",
            schedule=str(schedule),
            time_zone=str(zone),
            failed=3,
            job={
                "backoffLimit": 3,
                "activeDeadlineSeconds": 300,
                "template": {
                    "metadata": {"labels": {"app.kubernetes.io/name": WARM_HOURS, **PART}},
                    "spec": _warm_hours_pod(),
                },
            },
        )
        for index, (schedule, zone) in enumerate(moments)
    ]
    policy = api_policy(WARM_HOURS, "warm-hours")
    return [_account(WARM_HOURS), *_rights(WARM_HOURS, rules), policy, *jobs]


_READ = ["get", "list"]


def _audit(name: str, schedule: str, command: list[str]) -> Manifest:
    tools = _tools_pod(
        "shop", [*command, "--record"], roles=("auditor", "ops"), secrets=AUDIT_SECRETS
    )
    pod = {"restartPolicy": "Never", **tools}
    labels = {"app.kubernetes.io/name": "shop-audit", **_tools_labels()}
    job: Manifest = {
        # 1 is a finding, which a second run would only repeat
        "backoffLimit": 0,
        "activeDeadlineSeconds": AUDIT_SECONDS,
        "ttlSecondsAfterFinished": 172_800,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    zone = SETTING_VALUES["BUSINESS_TIME_ZONE"]
    return _cron_job(f"shop-{name}", schedule=schedule, time_zone=zone, failed=1, job=job)


def _cron_job(name: str, *, schedule: str, time_zone: str, failed: int, job: Manifest) -> Manifest:
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata(name),
        "spec": {
            "schedule": schedule,
            "timeZone": time_zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": failed,
            "jobTemplate": {"spec": job},
        },
    }


def _tools_labels() -> dict[str, str]:
    return {
        **PART,
        "msa-shop/kind": "tools",
        "msa-shop/reaches-database": "true",
        "msa-shop/reaches-provider": "true",
    }


def _tools_pod(
    command: str, arguments: list[str], *, roles: tuple[str, ...], secrets: tuple[str, ...]
) -> Manifest:
    """A pod with the database URLs of these roles and with these Secrets."""
    urls = [
        {
            "secret": {
                "name": f"shop-{role}",
                "items": [{"key": "database-url", "path": f"{role}-database-url"}],
            }
        }
        for role in roles
    ]
    others = [{"secret": {"name": name}} for name in secrets]
    container = {
        "name": "shop",
        "image": TOOLS_IMAGE,
        "command": [command],
        "args": arguments,
        "envFrom": ENVIRONMENT,
        "volumeMounts": [TMP_MOUNT, SECRETS_MOUNT],
        "resources": {
            "requests": {"cpu": "50m", "memory": "96Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        },
        "securityContext": HARDENED,
    }
    volume = {"name": "secrets", "projected": {"sources": [*urls, *others]}}
    return {**_pod_basics(TOOLS), "containers": [container], "volumes": [TMP_VOLUME, volume]}


def _warm_hours_pod() -> Manifest:
    container = {
        "name": "warm-hours",
        "image": TOOLS_IMAGE,
        "command": ["python", "-m", "tools.warm_hours"],
        # as the chart prints JSON
        "args": [NAMESPACE, json.dumps(HOURS, separators=(",", ":"), sort_keys=True)],
        "volumeMounts": [TMP_MOUNT, _token_mount()],
        "resources": {
            "requests": {"cpu": "10m", "memory": "64Mi"},
            "limits": {"cpu": "1", "memory": "128Mi"},
        },
        "securityContext": HARDENED,
    }
    return {
        **_pod_basics(WARM_HOURS),
        "restartPolicy": "OnFailure",
        "containers": [container],
        "volumes": [TMP_VOLUME, _token_volume()],
    }


def _pod_basics(account: str) -> Manifest:
    return {
        "serviceAccountName": account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }


def _token_mount() -> Manifest:
    return {"name": "token", "mountPath": ACCOUNT_PATH, "readOnly": True}


def _token_volume() -> Manifest:
    """The token of the service account and the authority of the API server's certificate."""
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    return {"name": "token", "projected": {"sources": [token, {"configMap": authority}]}}


def _account(name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata(name),
        "automountServiceAccountToken": False,
    }


def _rights(name: str, rules: list[Manifest]) -> list[Manifest]:
    """A Role and its binding to the service account of the same name."""
    api = "rbac.authorization.k8s.io"
    role: Manifest = {
        "apiVersion": f"{api}/v1",
        "kind": "Role",
        "metadata": metadata(name),
        "rules": rules,
    }
    binding: Manifest = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": metadata(name),
        "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE}],
    }
    return [role, binding]
