"""Names, labels, service accounts, secrets and containers that Kubernetes objects share."""

from __future__ import annotations

from typing import Any

from shop.primitives.spec import DATABASE_ROLES, FunctionSpec

NAMESPACE = "shop"
# dev.local: Knative does not resolve tags of this registry; kustomize or the chart replace it
IMAGE = "dev.local/msa-shop/functions:dev"
# the same code with migrations and the commands for operators
TOOLS_IMAGE = "dev.local/msa-shop/tools:dev"
SECRETS_PATH = "/var/run/shop/secrets"
SETTINGS = "shop-settings"
# JWT_JWKS and EVENT_KEYS: public, but created with the private keys, so never in Git
PUBLIC_KEYS = "shop-public-keys"
NO_DOMAIN = "docs"
CLOCK_DOMAIN = "clock"

# Any: manifests are YAML of many kinds, written key by key.
Manifest = dict[str, Any]

TMP_MOUNT: Manifest = {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 (its own emptyDir)
TMP_VOLUME: Manifest = {"name": "tmp", "emptyDir": {"sizeLimit": "32Mi"}}
SECRETS_MOUNT: Manifest = {"name": "secrets", "mountPath": SECRETS_PATH, "readOnly": True}
HARDENED: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
ENVIRONMENT: list[Manifest] = [
    {"configMapRef": {"name": SETTINGS}},
    {"configMapRef": {"name": PUBLIC_KEYS}},
]


def name_of(spec: FunctionSpec) -> str:
    """The function's name in Kubernetes, where an underscore is not allowed."""
    return f"shop-{spec.name.replace('_', '-')}"


def domain_of(spec: FunctionSpec) -> str:
    """The function's trust domain: its database role with dashes, or ``NO_DOMAIN``."""
    return (spec.database_role or NO_DOMAIN).replace("_", "-")


def domains() -> tuple[str, ...]:
    """Every trust domain of the cluster, including the clock's."""
    named = {role.replace("_", "-") for role in DATABASE_ROLES}
    return tuple(sorted({*named, NO_DOMAIN, CLOCK_DOMAIN}))


def account_of(domain: str) -> str:
    """The ServiceAccount of a trust domain."""
    return f"shop-{domain}"


def labels_of(spec: FunctionSpec) -> dict[str, str]:
    """The labels of a function's objects and pods; no release changes them."""
    return {
        "app.kubernetes.io/name": name_of(spec),
        "app.kubernetes.io/part-of": "msa-shop",
        "msa-shop/trust-domain": domain_of(spec),
    }


def pod_labels(spec: FunctionSpec) -> dict[str, str]:
    """The labels of a function's pods; network policies select by what a pod reaches."""
    reaches = {
        "msa-shop/kind": "function",
        **({"msa-shop/reaches-database": "true"} if spec.database_role else {}),
        **({"msa-shop/reaches-replica": "true"} if spec.reads_replica else {}),
        **({"msa-shop/reaches-redis": "true"} if reads_redis(spec) else {}),
        **({"msa-shop/reaches-broker": "true"} if spec.emits else {}),
        **({"msa-shop/reaches-provider": "true"} if "provider" in spec.needs else {}),
        **({"msa-shop/reaches-webhooks": "true"} if spec.sends_webhooks else {}),
        **({"msa-shop/reaches-mail": "true"} if "smtp" in spec.needs else {}),
    }
    return {**labels_of(spec), **reaches}


def reads_redis(spec: FunctionSpec) -> bool:
    """True for functions with a cache or with routes, whose rate limit is in Redis."""
    return "redis" in spec.needs or bool(spec.routes)


def secrets_of(spec: FunctionSpec) -> list[str]:
    """The names of a function's Secrets; their keys are file names of settings."""
    names: list[str] = []
    if spec.database_role is not None:
        names.append(f"shop-{domain_of(spec)}")
    if reads_redis(spec):
        names.append("shop-redis")
    if "provider" in spec.needs:
        names.append("shop-payment-provider")
    if any(route.auth == "provider" for route in spec.routes):
        names.append("shop-payment-webhook")
    if any(route.auth == "carrier" for route in spec.routes):
        names.append("shop-carrier-webhook")
    if spec.issues_tokens:
        names.append("shop-jwt")
    if spec.reads_links:
        names.append("shop-links")
    if spec.sends_webhooks:
        names.append("shop-webhook-key")
    if "smtp" in spec.needs:
        names.append("shop-mail")
    return names


def volumes_of(spec: FunctionSpec) -> list[Manifest]:
    """A volume for /tmp, and the function's Secrets as files of one folder."""
    sources = [{"secret": {"name": name}} for name in secrets_of(spec)]
    secrets = [{"name": "secrets", "projected": {"sources": sources}}] if sources else []
    return [TMP_VOLUME, *secrets]


def resources_of(spec: FunctionSpec) -> Manifest:
    """At most one CPU, which imports use at start, and twice the usual memory."""
    scale = spec.scale
    return {
        "requests": {"cpu": f"{scale.cpu_millis}m", "memory": f"{scale.memory_mib}Mi"},
        "limits": {"cpu": "1", "memory": f"{2 * scale.memory_mib}Mi"},
    }


def container_of(spec: FunctionSpec) -> Manifest:
    """The parts of a function's container that are equal on all platforms."""
    mounts = [TMP_MOUNT, SECRETS_MOUNT] if secrets_of(spec) else [TMP_MOUNT]
    return {
        "image": IMAGE,
        "args": [spec.name],
        "ports": [{"name": "http1", "containerPort": 8080}],
        "envFrom": ENVIRONMENT,
        "env": [{"name": "THREADS", "value": str(spec.scale.concurrency)}],
        "volumeMounts": mounts,
        # without a period Knative probes every 50 ms, which shortens a cold start
        "readinessProbe": {"httpGet": {"path": "/health/readiness"}},
        "livenessProbe": {
            "httpGet": {"path": "/health/liveness"},
            "periodSeconds": 10,
            "failureThreshold": 3,
        },
        "resources": resources_of(spec),
        "securityContext": HARDENED,
    }


def metadata(
    name: str,
    labels: dict[str, str] | None = None,
    *,
    namespace: str = NAMESPACE,
    annotations: dict[str, str] | None = None,
) -> Manifest:
    """The metadata of an object; without labels it is labelled as part of the shop."""
    made: Manifest = {
        "name": name,
        "namespace": namespace,
        "labels": labels or {"app.kubernetes.io/part-of": "msa-shop"},
    }
    return {**made, "annotations": annotations} if annotations else made
