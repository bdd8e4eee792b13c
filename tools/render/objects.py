"""What the shop's Kubernetes objects have in common: names, labels, identities, secrets."""

from __future__ import annotations

from typing import Any

from shop.primitives.spec import DATABASE_ROLES, FunctionSpec

NAMESPACE = "shop"
# dev.local: Knative leaves this registry's tags alone; kustomize or the chart put the real one
IMAGE = "dev.local/msa-shop/functions:dev"
# the same code with migrations and the operator's commands
TOOLS_IMAGE = "dev.local/msa-shop/tools:dev"
SECRETS_PATH = "/var/run/shop/secrets"
SETTINGS = "shop-settings"
# JWT_JWKS and EVENT_KEYS: public, but made together with the private halves, so never in Git
PUBLIC_KEYS = "shop-public-keys"
REQUEST_SECONDS_MIN = 30
COLD_START_SECONDS = 15
NO_DOMAIN = "docs"
CLOCK_DOMAIN = "clock"

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
    """The function's trust domain: its database role with dashes, or the one without a database."""
    return (spec.database_role or NO_DOMAIN).replace("_", "-")


def domains() -> tuple[str, ...]:
    """Every trust domain that runs in the cluster, the clock's too."""
    named = {role.replace("_", "-") for role in DATABASE_ROLES}
    return tuple(sorted({*named, NO_DOMAIN, CLOCK_DOMAIN}))


def account_of(domain: str) -> str:
    """The ServiceAccount of a trust domain."""
    return f"shop-{domain}"


def labels_of(spec: FunctionSpec) -> dict[str, str]:
    """What both a function's objects and its pods are labelled with: nothing a release changes."""
    return {
        "app.kubernetes.io/name": name_of(spec),
        "app.kubernetes.io/part-of": "msa-shop",
        "msa-shop/trust-domain": domain_of(spec),
    }


def pod_labels(spec: FunctionSpec) -> dict[str, str]:
    """The labels of a function's pods: NetworkPolicies read from them what the pod may reach."""
    reaches = {
        "msa-shop/kind": "function",
        **({"msa-shop/reaches-database": "true"} if spec.database_role else {}),
        **({"msa-shop/reaches-redis": "true"} if reads_redis(spec) else {}),
        **({"msa-shop/reaches-broker": "true"} if spec.emits else {}),
        **({"msa-shop/reaches-provider": "true"} if "provider" in spec.needs else {}),
    }
    return {**labels_of(spec), **reaches}


def reads_redis(spec: FunctionSpec) -> bool:
    """True for a function with a cache, and for all with routes: their rate limit is kept there."""
    return "redis" in spec.needs or bool(spec.routes)


def request_seconds(spec: FunctionSpec) -> int:
    """How long one request of the function may take until its first byte."""
    return max(REQUEST_SECONDS_MIN, spec.timeout_seconds)


def secrets_of(spec: FunctionSpec) -> list[str]:
    """Names of the Secrets a function sees; their keys are the settings' file names."""
    names = []
    if spec.database_role is not None:
        names.append(f"shop-{domain_of(spec)}")
    if reads_redis(spec):
        names.append("shop-redis")
    if "provider" in spec.needs:
        names.append("shop-payment-provider")
    if any(route.auth == "provider" for route in spec.routes):
        names.append("shop-payment-webhook")
    if spec.issues_tokens:
        names.append("shop-jwt")
    return names


def volumes_of(spec: FunctionSpec) -> list[Manifest]:
    """Its own /tmp, and its Secrets as files of one folder."""
    sources = [{"secret": {"name": name}} for name in secrets_of(spec)]
    secrets = [{"name": "secrets", "projected": {"sources": sources}}] if sources else []
    return [TMP_VOLUME, *secrets]


def resources_of(spec: FunctionSpec) -> Manifest:
    """A whole CPU at most, since imports want one; twice the memory of a usual day."""
    scale = spec.scale
    return {
        "requests": {"cpu": f"{scale.cpu_millis}m", "memory": f"{scale.memory_mib}Mi"},
        "limits": {"cpu": "1", "memory": f"{2 * scale.memory_mib}Mi"},
    }


def container_of(spec: FunctionSpec) -> Manifest:
    """What a function's container has on every platform of ours."""
    mounts = [TMP_MOUNT, SECRETS_MOUNT] if secrets_of(spec) else [TMP_MOUNT]
    return {
        "image": IMAGE,
        "args": [spec.name],
        "ports": [{"name": "http1", "containerPort": 8080}],
        "envFrom": ENVIRONMENT,
        "env": [{"name": "THREADS", "value": str(spec.scale.concurrency)}],
        "volumeMounts": mounts,
        # no period: Knative then probes every 50 ms, which a cold start is glad of
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
    """An object's metadata; an object that is no function's is labelled as part of the shop."""
    made: Manifest = {
        "name": name,
        "namespace": namespace,
        "labels": labels or {"app.kubernetes.io/part-of": "msa-shop"},
    }
    return {**made, "annotations": annotations} if annotations else made
