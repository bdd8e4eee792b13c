"""Renders ``infra/compose/functions.yaml``: one service per function, with its own secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from tools.render.documents import yaml_text
from tools.render.network_policies import METRICS_PORT
from tools.render.objects import SECRETS_PATH

FILE = Path("infra/compose/functions.yaml")
FUNCTIONS_IMAGE = "${SHOP_IMAGE:-msa-shop:local}"
TOOLS_IMAGE = "${SHOP_TOOLS_IMAGE:-msa-shop-tools:local}"
CONTEXT = "../.."
IMAGE_ARGUMENTS = {"PYTHON_IMAGE": None}
# services other than functions that have secrets
SERVICES_WITH_SECRETS = (
    "broker",
    "exporter",
    "grafana",
    "migrate",
    "postgres",
    "redis",
    "sandbox",
    "tools",
)
# a function drains within 20 seconds; the rest is for a slow scheduler
STOP_SECONDS = 25

Service = dict[str, Any]

# development defaults; the environment or .env overrides them
SETTINGS = {
    "SHOP_PROFILE": "local",
    "BROKER_CLASS": "local",
    "BROKER_URL": "http://broker:8080/",
    "JWT_ISSUER": "https://shop.local",
    "JWT_AUDIENCE": "shop",
    "RATE_LIMIT_PER_MINUTE": "${RATE_LIMIT_PER_MINUTE:-120}",
    # clients of the replaced system read settlements without a token
    "SETTLEMENTS_AUTH": "${SETTLEMENTS_AUTH:-public}",
    "COMMON_PASSWORDS_ALLOWED": "${COMMON_PASSWORDS_ALLOWED:-true}",
    "UNKNOWN_QUERY_PARAMETERS_IGNORED": "${UNKNOWN_QUERY_PARAMETERS_IGNORED:-true}",
    "CORS_ORIGINS": "${CORS_ORIGINS:-}",
    "IDEMPOTENCY_KEY_REQUIRED": "${IDEMPOTENCY_KEY_REQUIRED:-false}",
    "BUSINESS_TIME_ZONE": "${BUSINESS_TIME_ZONE:-Asia/Seoul}",
    "CURRENCY": "${CURRENCY:-KRW}",
    "RETENTION": "${RETENTION:-}",
    "SHOP_LANGUAGE": "${SHOP_LANGUAGE:-ko}",
    "TRUSTED_HOPS": "1",
    # Prometheus and the collector run in the profile observability
    "METRICS_PORT": f"${{METRICS_PORT:-{METRICS_PORT}}}",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "${OTEL_EXPORTER_OTLP_ENDPOINT:-}",
    "OTEL_METRICS_EXPORTER": "none",
}


def render() -> dict[Path, str]:
    """The functions, the job that creates all secrets, and the volumes that hold them."""
    return {FILE: yaml_text(document(all_specs()))}


def document(specs: tuple[FunctionSpec, ...]) -> dict[str, Any]:
    """The document that ``compose.yaml`` includes."""
    owners = sorted((*(service_name(spec) for spec in specs), *SERVICES_WITH_SECRETS))
    services = {service_name(spec): _function(spec) for spec in specs}
    services["secrets"] = _secrets_job(owners)
    volumes: dict[str, Service] = {_volume(owner): {} for owner in ("master", *owners)}
    return {"services": services, "volumes": volumes}


def service_name(spec: FunctionSpec) -> str:
    """The function's host name in the Compose network."""
    return spec.name.replace("_", "-")


def _volume(owner: str) -> str:
    return f"secrets-{owner}"


def _function(spec: FunctionSpec) -> Service:
    settings = dict(SETTINGS)
    if "provider" in spec.needs or any(route.auth == "provider" for route in spec.routes):
        settings["PAYMENT_PROVIDER"] = "sandbox"
        settings["PAYMENT_PROVIDER_URL"] = "http://sandbox:8080"
    if "smtp" in spec.needs:
        settings["MAIL_FROM"] = "${MAIL_FROM:-}"
        settings["SHOP_NAME"] = "${SHOP_NAME:-msa-shop}"
        settings["SHOP_URL"] = "${SHOP_URL:-http://127.0.0.1:8080}"
    if spec.sends_webhooks:
        settings["WEBHOOK_NETWORKS_ALLOWED"] = "${WEBHOOK_NETWORKS_ALLOWED:-}"
    return {
        "image": FUNCTIONS_IMAGE,
        "build": {"context": CONTEXT, "target": "functions", "args": IMAGE_ARGUMENTS},
        "command": [spec.name],
        "environment": settings,
        "volumes": [f"{_volume(service_name(spec))}:{SECRETS_PATH}:ro"],
        "depends_on": {
            "secrets": {"condition": "service_completed_successfully"},
            "migrate": {"condition": "service_completed_successfully"},
            "redis": {"condition": "service_healthy"},
        },
        # receivers of webhooks are elsewhere
        "networks": ["inside", "outside"] if spec.sends_webhooks else ["inside"],
        "mem_limit": f"{2 * spec.scale.memory_mib}m",
        **hardened(),
    }


def hardened() -> Service:
    """The restrictions of every container of the shop."""
    return {
        "cap_drop": ["ALL"],
        "init": False,
        "pids_limit": 100,
        "read_only": True,
        "restart": "unless-stopped",
        "security_opt": ["no-new-privileges:true"],
        "stop_grace_period": f"{STOP_SECONDS}s",
        "tmpfs": ["/tmp:size=32m,mode=1777"],  # noqa: S108 (inside the container)
    }


def _secrets_job(owners: list[str]) -> Service:
    """Creates all secrets at the first start; the only service that mounts every volume."""
    return {
        "image": TOOLS_IMAGE,
        "build": {"context": CONTEXT, "target": "tools", "args": {"PYTHON_IMAGE": None}},
        "command": ["compose-secrets", "--folder", "/secrets"],
        "user": "0:0",  # Docker creates volumes owned by root
        "volumes": [f"{_volume(owner)}:/secrets/{owner}" for owner in ("master", *owners)],
        "network_mode": "none",
        **hardened(),
        "restart": "no",
    }
