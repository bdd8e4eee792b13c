"""The environment variables of function processes: each gets only what its spec requires."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import functions
from shop.primitives.spec import FunctionSpec
from tools.local_platform.secrets import Secrets

ISSUER = "https://shop.local"
AUDIENCE = "shop"
MAIL_FROM = "no-reply@shop.local"
SYSTEM_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR")
SHOP_VARIABLES = (
    "RATE_LIMIT_PER_MINUTE",
    "IDEMPOTENCY_KEY_REQUIRED",
    "SETTLEMENTS_AUTH",
    "SECOND_FACTOR_ROLES",
    "EMAIL_VERIFICATION",
    "COMMON_PASSWORDS_ALLOWED",
    "CORS_ORIGINS",
    "UNKNOWN_QUERY_PARAMETERS_IGNORED",
    "BUSINESS_TIME_ZONE",
    "CURRENCY",
    "RETENTION",
    "OPEN_ORDERS_MAX",
    "UNPAID_STOCK_PERCENT",
    "SHOP_LANGUAGE",
    "SHOP_NAME",
    "ORDER_SOFT_EXPIRY_SECONDS",
    "ORDER_HARD_EXPIRY_SECONDS",
    "DATABASE_PREPARE",
)
PREFIXES = ("OTEL_", "PYTHON")
# Inherited, it would make every cold start compile the changed source again.
NOT_INHERITED = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """The addresses and secrets of the servers that functions connect to."""

    admin_url: str
    redis_url: str
    broker_url: str
    provider_url: str
    secrets: Secrets
    has_own_database: bool
    # nothing listens at this default, so mails are stored and stay due
    smtp_url: str = "smtp://127.0.0.1:9"
    mails_url: str = ""
    shop_url: str = "http://127.0.0.1:8080"
    broker_class: str = "local"

    def environment_for(self, spec: FunctionSpec) -> dict[str, str]:
        """The environment variables of one function's processes."""
        values = inherited(os.environ) | {
            "SHOP_PROFILE": "local",
            "BROKER_CLASS": self.broker_class,
            "BROKER_URL": self.broker_url,
            "JWT_JWKS": self.secrets.jwks,
            "JWT_ISSUER": ISSUER,
            "JWT_AUDIENCE": AUDIENCE,
            "EVENT_KEYS": self.secrets.event_key_set,
        }
        values.setdefault("SETTLEMENTS_AUTH", "public")
        values.setdefault("COMMON_PASSWORDS_ALLOWED", "true")
        if "redis" in spec.needs or spec.routes:  # Redis holds the rate limits of routes
            values["REDIS_URL"] = self.redis_url
        return values | self._trust_domain_variables(spec) | self._provider_variables(spec)

    def database_url(self, role: str) -> str:
        """The database URL of ``shop_<role>``; all roles of our own server have its password."""
        if self.has_own_database:
            return url_of_role(self.admin_url, f"shop_{role}")
        return url_of_role(self.admin_url, f"shop_{role}", quote(self.secrets.database_password))

    def _trust_domain_variables(self, spec: FunctionSpec) -> dict[str, str]:
        if spec.database_role is None:
            return {}
        values = {
            "DATABASE_URL": self.database_url(spec.database_role),
            "EVENT_SIGNING_KEY": self.secrets.event_keys[spec.database_role],
        }
        if spec.issues_tokens:
            values["JWT_PRIVATE_KEY"] = self.secrets.jwt_private_key
            values["SECOND_FACTOR_KEY"] = self.secrets.second_factor_key
        if spec.reads_links:
            values["LINK_KEY"] = self.secrets.link_key
        if spec.sends_webhooks:
            values["WEBHOOK_KEY"] = self.secrets.webhook_key
            values["WEBHOOK_NETWORKS_ALLOWED"] = "127.0.0.0/8"
        if "smtp" in spec.needs:
            values |= {
                "SMTP_URL": self.smtp_url,
                "MAIL_FROM": MAIL_FROM,
                "SHOP_URL": self.shop_url,
            }
        return values

    def _provider_variables(self, spec: FunctionSpec) -> dict[str, str]:
        values: dict[str, str] = {}
        if "provider" in spec.needs:
            values["PAYMENT_PROVIDER_URL"] = self.provider_url
            values["PAYMENT_PROVIDER_API_KEY"] = self.secrets.provider_api_key
        if any(route.auth == "provider" for route in spec.routes):
            values["PAYMENT_WEBHOOK_SECRET"] = self.secrets.webhook_secret
        values = values | {"PAYMENT_PROVIDER": "sandbox"} if values else values
        if any(route.auth == "carrier" for route in spec.routes):
            values["CARRIER_WEBHOOK_SECRET"] = self.secrets.carrier_secret
        return values


def url_of_role(admin_url: str, role: str, password: str | None = None) -> str:
    """The URL of another role on the same server, by default with the administrator's password."""
    parts = urlsplit(admin_url)
    own, _, host = parts.netloc.rpartition("@")
    password = own.partition(":")[2] if password is None else password
    return urlunsplit(parts._replace(netloc=f"{role}{':' if password else ''}{password}@{host}"))


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that functions inherit from the shell: the system's and optional settings."""
    passed = {
        name: value
        for name, value in environment.items()
        if (name in SYSTEM_VARIABLES or name in SHOP_VARIABLES or name.startswith(PREFIXES))
        and name != NOT_INHERITED
    }
    root = str(Path(next(iter(functions.__path__))).resolve().parent)
    passed["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    return passed
