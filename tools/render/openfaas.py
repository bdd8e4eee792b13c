"""Renders OpenFaaS's ``stack.yml``; grouped functions keep within the 15 of CE."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from tools.render.documents import yaml_text
from tools.render.objects import secrets_of

STACK = Path("stack.yml")
FUNCTIONS_MAX = 15  # OpenFaaS CE
REPLICAS_MAX = 5  # OpenFaaS CE
SECRETS_PATH = "/var/openfaas/secrets"

# the functions of a group share a process, and so a database role
GROUPS: dict[str, tuple[str, ...]] = {
    "orders": ("cart", "read_orders"),
    "settlements": ("read_settlements", "settle"),
}
# OpenFaaS's secrets are single files of one namespace; the files of each Knative Secret
FILES: dict[str, tuple[str, ...]] = {
    "shop-redis": ("redis-url",),
    "shop-payment-provider": ("payment-provider-url", "payment-provider-api-key"),
    "shop-payment-webhook": ("payment-webhook-secret",),
    "shop-jwt": ("jwt-private-key",),
}
OWN = ("database-url", "event-signing-key")
SETTINGS = ("broker-url", "event-keys", "jwt-audience", "jwt-issuer", "jwt-jwks")


def render() -> dict[Path, str]:
    """The stack file of all functions."""
    return {STACK: yaml_text(stack(all_specs()))}


def stack(specs: tuple[FunctionSpec, ...]) -> dict[str, Any]:
    """The stack; raises ValueError for too many functions for CE or a group of two domains."""
    groups = grouped(specs)
    if len(groups) > FUNCTIONS_MAX:
        raise ValueError(f"{len(groups)} functions are more than OpenFaaS CE's {FUNCTIONS_MAX}")
    return {
        "version": "1.0",
        "provider": {"name": "openfaas", "gateway": "http://127.0.0.1:8080"},
        "functions": {f"shop-{name}": _function(members) for name, members in groups.items()},
    }


def grouped(specs: tuple[FunctionSpec, ...]) -> dict[str, tuple[FunctionSpec, ...]]:
    """Each function in its group, or alone under its own name."""
    groups: dict[str, tuple[FunctionSpec, ...]] = {}
    for spec in specs:
        name = next((g for g, names in GROUPS.items() if spec.name in names), None)
        key = name or spec.name.replace("_", "-")
        groups[key] = (*groups.get(key, ()), spec)
    for key, members in groups.items():
        if len({member.database_role for member in members}) > 1:
            raise ValueError(f"the functions of {key} have different database roles")
    return groups


def _function(members: tuple[FunctionSpec, ...]) -> dict[str, Any]:
    timeout = max(member.timeout_seconds for member in members)
    concurrency = sum(member.scale.concurrency for member in members)
    memory = max(member.scale.memory_mib for member in members)
    replicas = min(REPLICAS_MAX, max(member.scale.max_scale for member in members))
    return {
        "lang": "dockerfile",
        "handler": ".",
        "image": "${IMAGE:-msa-shop/functions:dev}",
        "skip_build": True,
        # the image's entry point reads this; without a watchdog nothing reads fprocess
        "environment": {
            "FUNCTION_NAME": " ".join(member.name for member in members),
            "SHOP_PROFILE": "${SHOP_PROFILE:-prod}",
            "SHOP_SECRETS_DIR": SECRETS_PATH,
            "THREADS": str(concurrency),
            # the gateway passes a client's own X-Forwarded-For on, so by default none is trusted
            "TRUSTED_HOPS": "${TRUSTED_HOPS:-0}",
            "exec_timeout": f"{timeout}s",
            "read_timeout": f"{timeout + 1}s",
            "write_timeout": f"{timeout + 1}s",
            **_own_files(members[0]),
        },
        "secrets": _secrets(members),
        "labels": {
            "com.openfaas.scale.min": "1",
            "com.openfaas.scale.max": str(replicas),
            "com.openfaas.scale.zero": "true",
            "com.openfaas.scale.zero-duration": "5m",
        },
        "requests": {
            "cpu": f"{max(member.scale.cpu_millis for member in members)}m",
            "memory": f"{memory}Mi",
        },
        "limits": {"memory": f"{2 * memory}Mi"},
        "readonly_root_filesystem": True,
    }


def _secrets(members: tuple[FunctionSpec, ...]) -> list[str]:
    domains = {name for member in members for name in secrets_of(member)}
    shared = {file for domain in domains for file in FILES.get(domain, ())}
    settings = SETTINGS if domains else ()
    return sorted({*shared, *settings, *(f"{d}-{f}" for d in _own_domain(members[0]) for f in OWN)})


def _own_files(spec: FunctionSpec) -> dict[str, str]:
    """The paths of the trust domain's own secrets, whose files are prefixed with the domain."""
    return {
        f"{file.replace('-', '_').upper()}_FILE": f"{SECRETS_PATH}/{domain}-{file}"
        for domain in _own_domain(spec)
        for file in OWN
    }


def _own_domain(spec: FunctionSpec) -> list[str]:
    return [name for name in secrets_of(spec) if name not in FILES]
