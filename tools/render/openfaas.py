"""Renders OpenFaaS's ``stack.yml``: the Community Edition runs 15 functions of at most 5 replicas.

The functions of a group share a process.  ``GROUPS`` names the groups that always exist; beyond 15
functions ``grouped`` merges more of them, always within one database role.
"""

from __future__ import annotations

from itertools import combinations
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

GROUPS: dict[str, tuple[str, ...]] = {
    "charge": ("charge", "payment_webhook", "refund"),
    "orders": ("cancel_order", "cart", "fulfil_orders", "read_orders"),
    "pages": ("api_docs", "web"),
    "settlements": ("read_settlements", "settle"),
    "users": ("account", "register"),
}
# OpenFaaS's secrets are single files of one namespace; the files of each Knative Secret
FILES: dict[str, tuple[str, ...]] = {
    "shop-redis": ("redis-url",),
    "shop-payment-provider": ("payment-provider-url", "payment-provider-api-key"),
    "shop-payment-webhook": ("payment-webhook-secret",),
    "shop-carrier-webhook": ("carrier-webhook-secret",),
    "shop-jwt": ("jwt-private-key", "second-factor-key"),
    "shop-links": ("link-key",),
    "shop-webhook-key": ("webhook-key",),
    "shop-mail": ("smtp-url",),
}
OWN = ("database-url", "event-signing-key")
SETTINGS = ("broker-url", "event-keys", "jwt-audience", "jwt-issuer", "jwt-jwks")
VARIABLES = (
    "BUSINESS_TIME_ZONE",
    "COMMON_PASSWORDS_ALLOWED",
    "CORS_ORIGINS",
    "CURRENCY",
    "DATABASE_PREPARE",
    "EMAIL_VERIFICATION",
    "IDEMPOTENCY_KEY_REQUIRED",
    "OPEN_ORDERS_MAX",
    "ORDER_HARD_EXPIRY_SECONDS",
    "ORDER_SOFT_EXPIRY_SECONDS",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "RATE_LIMIT_PER_MINUTE",
    "RETENTION",
    "RETURN_WINDOW_DAYS",
    "RETURN_WINDOW_START",
    "SECOND_FACTOR_ROLES",
    "SELLER_NAME",
    "SELLER_REGISTRATION_NUMBER",
    "SETTLEMENTS_AUTH",
    "SHIPPING_ADDRESS",
    "SHIPPING_COUNTRIES",
    "SHOP_LANGUAGE",
    "UNKNOWN_QUERY_PARAMETERS_IGNORED",
    "UNPAID_STOCK_PERCENT",
)
PAYMENT_VARIABLES = (
    "PAYMENT_ACTION_SECONDS",
    "PAYMENT_CLIENT_KEY",
    "PAYMENT_PROVIDER",
    "PAYMENT_RETURN_URL",
    "PAYMENT_TRANSFER_SECONDS",
)

Groups = dict[str, tuple[FunctionSpec, ...]]


def render() -> dict[Path, str]:
    """The stack file of all functions."""
    return {STACK: yaml_text(stack(all_specs()))}


def stack(specs: tuple[FunctionSpec, ...]) -> dict[str, Any]:
    """The stack; raises ValueError for a group of two database roles."""
    functions = {f"shop-{name}": _function(members) for name, members in grouped(specs).items()}
    return {
        "version": "1.0",
        "provider": {"name": "openfaas", "gateway": "http://127.0.0.1:8080"},
        "functions": functions,
    }


def secret_names(specs: tuple[FunctionSpec, ...]) -> list[str]:
    """The names of all secrets of the stack, each a file of that name."""
    return sorted({name for members in grouped(specs).values() for name in _secrets(members)})


def grouped(specs: tuple[FunctionSpec, ...]) -> Groups:
    """Each function in its group, or alone under its own name; at most ``FUNCTIONS_MAX`` groups.

    Beyond that, groups of one database role are merged under the name of the first: those that gain
    the fewest secrets by it, and of these the pair with the fewest threads.  The result is longer
    only for more database roles than ``FUNCTIONS_MAX``.
    """
    groups: Groups = {}
    for spec in specs:
        name = next((g for g, names in GROUPS.items() if spec.name in names), None)
        key = name or spec.name.replace("_", "-")
        groups[key] = (*groups.get(key, ()), spec)
    for key, members in groups.items():
        if len({member.database_role for member in members}) > 1:
            raise ValueError(f"the functions of {key} have different database roles")
    while len(groups) > FUNCTIONS_MAX and (pairs := _mergeable(groups)):
        _, _, first, second = min(pairs)
        groups[first] += groups.pop(second)
    return groups


def _mergeable(groups: Groups) -> list[tuple[int, int, str, str]]:
    """The pairs of groups with one database role: secrets gained, threads, and their names."""
    return [
        (
            len(set(_secrets(groups[first])) ^ set(_secrets(groups[second]))),
            sum(spec.scale.concurrency for spec in groups[first] + groups[second]),
            first,
            second,
        )
        for first, second in combinations(sorted(groups), 2)
        if groups[first][0].database_role == groups[second][0].database_role
    ]


def _function(members: tuple[FunctionSpec, ...]) -> dict[str, Any]:
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
            **{name: f"${{{name}}}" for name in _settings(members)},
            **_own_files(members[0]),
        },
        "secrets": _secrets(members),
        # the Community Edition rejects a function with any other label of this prefix
        "labels": {"com.openfaas.scale.min": "1", "com.openfaas.scale.max": str(replicas)},
        "requests": {
            "cpu": f"{max(member.scale.cpu_millis for member in members)}m",
            "memory": f"{memory}Mi",
        },
        "limits": {"memory": f"{2 * memory}Mi"},
        "readonly_root_filesystem": True,
    }


def _settings(members: tuple[FunctionSpec, ...]) -> tuple[str, ...]:
    """The settings that the environment of ``faas-cli deploy`` may give; empty is not given."""
    uses_provider = {"shop-payment-provider", "shop-payment-webhook"} & {
        name for member in members for name in secrets_of(member)
    }
    sends_mails = any("smtp" in member.needs for member in members)
    return (
        *VARIABLES,
        *(PAYMENT_VARIABLES if uses_provider else ()),
        *(("MAIL_FROM", "SHOP_NAME", "SHOP_URL") if sends_mails else ()),
    )


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
