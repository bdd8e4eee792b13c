"""Settings: read once, from the environment and from secret files; all errors are reported at once.

Each setting ``NAME`` may be given as the variable ``NAME``, as ``NAME_FILE`` (a path), or as a file
``name`` (lower case, dashes) in ``SHOP_SECRETS_DIR`` or one of ``SECRET_FOLDERS``.  The ``prod``
profile rejects values for development.  What needs no I/O is checked here (``setting_checks``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from typing import Any, Literal, NoReturn

from events.records import frozen
from shop.primitives import failpoints
from shop.runtime import setting_checks

SECRET_FOLDERS = ("/var/openfaas/secrets", "/var/run/shop/secrets")
LOCAL_ISSUER = "https://shop.local"
LOCAL_REGISTRATION_NUMBER = "000-00-00000"
WHOLE_DIGITS_MAX = 10

ShippingAddress = Literal["optional", "required"]
ReturnWindowStart = Literal["delivered", "shipped"]
EmailVerification = Literal["off", "order", "login"]
Language = Literal["ko", "en"]
SettlementsAuth = Literal["finance", "customer", "public"]
BrokerClass = Literal["imc", "kafka", "rabbitmq", "local"]
ForwardedHeader = Literal["x-forwarded-for", "forwarded"]


class ConfigurationError(Exception):
    """Every invalid setting, one per line."""


class Secret:
    """Text that prints as ``***``; not a ``str``, which JSON, ``+`` and ``join`` would reveal."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __len__(self) -> int:
        return len(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "'***'"

    def __str__(self) -> str:
        return "***"

    def __format__(self, _spec: str) -> str:
        return "***"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


NOT_GIVEN = Secret("")


@frozen
class Settings:
    """The settings of a function; docs/reference/configuration.md describes each."""

    profile: str = "prod"
    database_url: Secret = NOT_GIVEN
    database_replica_url: Secret = NOT_GIVEN
    database_replica_lag_seconds: float = 10.0
    database_prepare: bool = True
    redis_url: Secret = NOT_GIVEN
    broker_url: str = ""
    # the default is safe with every broker: it never ends a request that delivers an event
    broker_class: BrokerClass = "imc"
    broker_token_path: str = ""
    jwt_private_key: Secret = NOT_GIVEN
    jwt_jwks: str = ""
    jwt_issuer: str = LOCAL_ISSUER
    jwt_audience: str = "shop"
    link_key: Secret = NOT_GIVEN
    second_factor_key: Secret = NOT_GIVEN
    second_factor_roles: str = ""
    webhook_key: Secret = NOT_GIVEN
    webhook_networks_allowed: str = ""
    webhook_failing_hours_max: int = 72
    smtp_url: Secret = NOT_GIVEN
    mail_from: str = ""
    shop_name: str = "msa-shop"
    shop_language: Language = "ko"
    shop_url: str = ""
    seller_name: str = ""
    seller_registration_number: str = ""
    event_signing_key: Secret = NOT_GIVEN
    event_keys: str = ""
    payment_provider: str = "sandbox"
    payment_provider_url: str = ""
    payment_provider_api_key: Secret = NOT_GIVEN
    payment_provider_timeout_seconds: float = 10.0
    payment_webhook_secret: Secret = NOT_GIVEN
    carrier_webhook_secret: Secret = NOT_GIVEN
    payment_action_seconds: int = 900
    payment_transfer_seconds: int = 86_400
    payment_return_url: str = ""
    payment_client_key: str = ""
    rate_limit_per_minute: int = 120
    idempotency_key_required: bool = False
    settlements_auth: SettlementsAuth = "finance"
    email_verification: EmailVerification = "off"
    common_passwords_allowed: bool = False
    unknown_query_parameters_ignored: bool = True
    cors_origins: str = ""
    trusted_hops: int = 1
    forwarded_header: ForwardedHeader = "x-forwarded-for"
    business_time_zone: str = "Asia/Seoul"
    currency: str = "KRW"
    retention: str = ""
    open_orders_max: int = 10
    unpaid_stock_percent: int = 50
    order_soft_expiry_seconds: int = 900
    order_hard_expiry_seconds: int = 3600
    shipping_address: ShippingAddress = "optional"
    shipping_countries: str = "KR"
    return_window_days: int = 7
    return_window_start: ReturnWindowStart = "delivered"
    host: str = "0.0.0.0"  # noqa: S104 (a container's only address)
    port: int = 8080
    threads: int = 0
    metrics_port: int = 0
    otel_exporter_otlp_endpoint: str = ""
    crash: str = ""

    @property
    def shop_address(self) -> str:
        """SHOP_URL, or the issuer of access tokens, which is the shop's public address."""
        return (self.shop_url or self.jwt_issuer).rstrip("/")

    @property
    def seller(self) -> tuple[str | None, str | None]:
        """Name and registration number on receipts; those of an example in the local profile."""
        is_local = self.profile == "local"
        name = self.seller_name or (self.shop_name if is_local else None)
        example = LOCAL_REGISTRATION_NUMBER if is_local else None
        return name, self.seller_registration_number or example

    @property
    def mail_sender(self) -> str:
        """MAIL_FROM, or ``no-reply`` at the host of the shop's address."""
        from urllib.parse import urlsplit

        return self.mail_from or f"no-reply@{urlsplit(self.shop_address).hostname}"


CHOICES = {
    "profile": ("local", "prod"),
    "broker_class": ("imc", "kafka", "rabbitmq", "local"),
    "payment_provider": ("sandbox", "stripe", "toss"),
    "settlements_auth": ("finance", "customer", "public"),
    "email_verification": ("off", "order", "login"),
    "shop_language": ("ko", "en"),
    "shipping_address": ("optional", "required"),
    "return_window_start": ("delivered", "shipped"),
    "forwarded_header": ("x-forwarded-for", "forwarded"),
}
VARIABLES = {"profile": "SHOP_PROFILE", "crash": "SHOP_CRASH"}
ALIASES = {"broker_url": "K_SINK"}
WHERE_NEEDED: dict[str, tuple[str, ...]] = {
    "postgres": ("database_url",),
    "provider": ("payment_provider_url", "payment_provider_api_key"),
    "tokens": ("jwt_jwks",),
    "events": ("event_keys",),
    "signs": ("event_signing_key", "event_keys"),
    "announces": ("event_signing_key", "event_keys"),
    "webhook": ("payment_webhook_secret",),
    "carriers": ("carrier_webhook_secret",),
    "issues_tokens": ("jwt_private_key", "jwt_jwks", "second_factor_key"),
    "links": ("link_key",),
    "signs_webhooks": ("webhook_key",),
    "smtp": ("smtp_url",),
}


def load(
    environment: Mapping[str, str] | None = None,
    *,
    needs: tuple[str, ...] = (),
    sources: tuple[str, ...] = (),
) -> Settings:
    """The settings of this process; ``needs`` are keys of ``WHERE_NEEDED`` that must be present.

    EVENT_SIGNING_KEY must be allowed to sign for ``sources``.  Raises ``ConfigurationError`` with
    every setting that is missing, malformed, or that the ``prod`` profile rejects.
    """
    environment = os.environ if environment is None else environment
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    for field in fields(Settings):
        text = _lookup(environment, field.name, mistakes)
        if text is not None:
            values[field.name] = _parse(field.name, str(field.type), text, mistakes)
    settings = Settings(**values)
    malformed = {line.split()[0] for line in mistakes}
    checked = setting_checks.mistakes_in(settings, needs, sources)
    mistakes += [line for line in checked if line.split()[0] not in malformed]
    mistakes += _crash_mistakes(settings) + _missing(settings, needs)
    if settings.profile == "prod":
        mistakes += _rejected_in_prod(settings, values, needs)
    if mistakes:
        raise ConfigurationError("\n".join(sorted(set(mistakes))))
    return settings


def look_up(name: str) -> str | None:
    """The text of a setting from this process's variables or secret files; None if not given.

    Raises ``ConfigurationError`` when its file cannot be read.
    """
    mistakes: list[str] = []
    text = _lookup(os.environ, name, mistakes)
    if mistakes:
        raise ConfigurationError("\n".join(mistakes))
    return text


def _lookup(environment: Mapping[str, str], name: str, mistakes: list[str]) -> str | None:
    for variable in (VARIABLES.get(name, name.upper()), ALIASES.get(name, "")):
        if environment.get(variable):
            return environment[variable]
        path = environment.get(f"{variable}_FILE") if variable else None
        if path:
            return _read(path, f"{variable}_FILE", mistakes)
    for folder in (environment.get("SHOP_SECRETS_DIR", ""), *SECRET_FOLDERS):
        path = f"{folder}/{name.replace('_', '-')}"
        if folder and os.path.isfile(path):
            return _read(path, path, mistakes)
    return None


def _read(path: str, shown: str, mistakes: list[str]) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")
    except OSError as error:
        mistakes.append(f"{shown} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        mistakes.append(f"{shown} is not text in UTF-8")
    return None


# Any: the type of the field; Settings(**values) has no typed spelling.
def _parse(name: str, type_name: str, text: str, mistakes: list[str]) -> Any:
    variable = VARIABLES.get(name, name.upper())
    if name in CHOICES and text not in CHOICES[name]:
        mistakes.append(f"{variable} must be one of {', '.join(CHOICES[name])}")
        return CHOICES[name][0]
    if name in CHOICES:
        return text
    try:
        return _PARSERS[type_name](text)
    except ValueError:
        mistakes.append(f"{variable} is not {_TYPE_NAMES[type_name]}")
        return _FALLBACKS[type_name]


def _parse_bool(text: str) -> bool:
    if text.lower() in ("true", "on", "1", "yes"):
        return True
    if text.lower() in ("false", "off", "0", "no"):
        return False
    raise ValueError(text)


def _parse_whole(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > WHOLE_DIGITS_MAX:
        raise ValueError(text)  # int() also accepts signs, spaces, underscores and other scripts
    return int(text)


def _parse_seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise ValueError(text)
    return value


_PARSERS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "Secret": Secret,
    "bool": _parse_bool,
    "int": _parse_whole,
    "float": _parse_seconds,
}
_TYPE_NAMES = {"bool": "true or false", "int": "a whole number", "float": "a number of seconds"}
_FALLBACKS: dict[str, Any] = {"bool": False, "int": 0, "float": 1.0}


def _crash_mistakes(settings: Settings) -> list[str]:
    if not settings.crash:
        return []
    try:
        failpoints.parse(settings.crash)
    except ValueError:
        return ["SHOP_CRASH is not <function>:<failpoint>:<nth>, such as charge:W7:1"]
    return []


def _missing(settings: Settings, needs: tuple[str, ...]) -> list[str]:
    names = {name for need in needs for name in WHERE_NEEDED.get(need, ())}
    return [f"{n.upper()} is missing" for n in names if not len(getattr(settings, n))]


def _rejected_in_prod(
    settings: Settings, given: Collection[str], needs: tuple[str, ...]
) -> list[str]:
    """What the ``prod`` profile rejects: values for development, and protections switched off."""
    is_token_user = bool({"tokens", "issues_tokens"} & set(needs))
    uses_provider = bool({"provider", "webhook"} & set(needs))
    rejected = {
        "SHOP_CRASH must not be given": bool(settings.crash),
        "JWT_ISSUER must be given": is_token_user and "jwt_issuer" not in given,
        "JWT_ISSUER must not be a placeholder": is_token_user
        and "jwt_issuer" in given
        and setting_checks.is_placeholder(settings.jwt_issuer),
        "JWT_AUDIENCE must be given": is_token_user and "jwt_audience" not in given,
        "PAYMENT_PROVIDER must not be sandbox": uses_provider
        and settings.payment_provider == "sandbox",
        "PAYMENT_PROVIDER_URL must begin with https": "provider" in needs
        and settings.payment_provider_url.startswith("http:"),
        "DATABASE_URL must have sslmode=verify-full for a host of another network": (
            setting_checks.is_unverified_database(settings.database_url.reveal())
        ),
        "DATABASE_REPLICA_URL must have sslmode=verify-full for a host of another network": (
            setting_checks.is_unverified_database(settings.database_replica_url.reveal())
        ),
        "REDIS_URL must begin with rediss for a host of another network": (
            setting_checks.is_unverified_redis(settings.redis_url.reveal())
        ),
        "SMTP_URL must begin with smtps or smtp+starttls for a host of another network": (
            setting_checks.is_unprotected_mail_server(settings.smtp_url.reveal())
        ),
        "MAIL_FROM must not be a placeholder": setting_checks.is_placeholder(
            settings.mail_from.rpartition("@")[2]
        ),
        "SHOP_URL must begin with https": settings.shop_url.startswith("http:"),
        # without it JWT_ISSUER is used, which is checked above where it has another use
        "SHOP_URL must not be a placeholder": "smtp" in needs
        and (bool(settings.shop_url) or not is_token_user)
        and setting_checks.is_placeholder(settings.shop_address),
        "SETTLEMENTS_AUTH must be finance": settings.settlements_auth != "finance",
        "COMMON_PASSWORDS_ALLOWED must not be true": settings.common_passwords_allowed,
        "WEBHOOK_NETWORKS_ALLOWED must not be given": bool(settings.webhook_networks_allowed),
        "CORS_ORIGINS must begin with https": "http:" in settings.cors_origins,
        "RATE_LIMIT_PER_MINUTE must not be 0": settings.rate_limit_per_minute == 0,
        "BROKER_URL (or K_SINK) must be given": "announces" in needs and not settings.broker_url,
    }
    return [f"{rule} in the prod profile" for rule, is_broken in rejected.items() if is_broken]
