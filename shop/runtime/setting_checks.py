"""Checks of settings that need no I/O: each returns what is wrong with a value, or nothing.

They run before the port is opened, so that a process with a wrong setting never becomes ready.
A message names the setting and never quotes its value, which may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from shop.runtime.config import Settings

PORTS = range(1, 65_536)
WHOLE_NUMBERS = range(2**31)
RANGES = {
    "port": PORTS,
    "metrics_port": range(65_536),
    "threads": range(1_001),
    "trusted_hops": range(33),
    "webhook_failing_hours_max": range(1, 721),
    "payment_action_seconds": range(24 * 3600 + 1),
    "payment_transfer_seconds": range(30 * 24 * 3600 + 1),
    "return_window_days": range(366),
    "order_soft_expiry_seconds": range(1, 2**31),
    "order_hard_expiry_seconds": range(1, 2**31),
}
HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
HTTP_URL = re.compile(rf"https?://{HOST}(?:/[!-~]*)?")
# one host, several, or none: libpq then reads the host, a folder for a Unix socket, from the query
POSTGRESQL_URL = re.compile(
    rf"postgres(?:ql)?://(?:[^@/\s]+@)?(?:{HOST}(?:,{HOST})*)?(?:/[^\s?]*)?(?:\?[^\s]*)?"
)
# the ingress of brokers of the class MTChannelBasedBroker, whatever their channel
CHANNEL_BROKER = re.compile(r"https?://broker-ingress\.knative-eventing\.")
CURRENCY = re.compile(r"[A-Z]{3}")
COUNTRIES = re.compile(r"[A-Z]{2}(?:, ?[A-Z]{2})*")
AGES = re.compile(r"(?:[a-z_]+=\d{1,6} (?:minute|hour|day)s?(?:, *|$))*")
PRINTABLE = re.compile(r"[!-~]+")
MAIL_ADDRESS = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
SHOP_NAME_LENGTH_MAX = 50
KEY_LENGTH_MIN = 32
KEYS_MAX = 2
# RFC 2606 and RFC 6761: names that belong to no shop
PLACEHOLDER_HOST = re.compile(
    r"(?:.+\.)?(?:example(?:\.(?:com|net|org))?|local|localhost|test|invalid)"
)


def mistakes_in(settings: Settings, needs: tuple[str, ...], sources: tuple[str, ...]) -> list[str]:
    """What is wrong with the given settings, each line beginning with the setting's name.

    ``sources`` are the event sources for which EVENT_SIGNING_KEY must be allowed to sign.
    """
    reasons = {
        name: reason
        for name, check in CHECKS.items()
        if (text := _given(settings, name)) and (reason := _reason(check, text))
    }
    reasons |= {
        name: f"is not from {allowed[0]} to {allowed[-1]}"
        for name, allowed in RANGES.items()
        if getattr(settings, name) not in allowed
    }
    if settings.broker_class != "imc" and CHANNEL_BROKER.match(settings.broker_url):
        reasons["broker_class"] = "is not imc, but BROKER_URL is that of a channel-based broker"
    if settings.order_soft_expiry_seconds > settings.order_hard_expiry_seconds:
        reasons["order_soft_expiry_seconds"] = "is longer than ORDER_HARD_EXPIRY_SECONDS"
    needs_client_key = "provider" in needs and settings.payment_provider == "toss"
    if needs_client_key and not settings.payment_client_key:
        reasons["payment_client_key"] = "is missing"
    if settings.metrics_port and settings.metrics_port == settings.port:
        reasons["metrics_port"] = "is the public port"
    if {"signs", "announces"} & set(needs) and "event_keys" not in reasons:
        reasons |= _signing_key_mistake(settings, sources)
    if "issues_tokens" in needs and "jwt_jwks" not in reasons:
        reasons |= _token_key_mistake(settings)
    return [f"{name.upper()} {reason}" for name, reason in reasons.items()]


def is_placeholder(issuer: str) -> bool:
    """Whether an issuer's host is one of the names reserved for documentation and tests."""
    host = urlsplit(issuer).hostname or issuer
    return PLACEHOLDER_HOST.fullmatch(host.lower()) is not None


def is_unverified_database(url: str) -> bool:
    """Whether a connection to another network would not verify the server's certificate."""
    parts = urlsplit(url.replace(",", "%2C"))
    hosts = unquote(parts.netloc.rpartition("@")[2]).split(",")
    has_remote = any(_is_remote(host.rpartition(":")[0] or host) for host in hosts)
    return has_remote and "verify-full" not in parse_qs(parts.query).get("sslmode", [])


def is_unverified_redis(url: str) -> bool:
    """Whether Redis in another network would be reached without TLS."""
    return url.startswith("redis:") and _is_remote(urlsplit(url).hostname or "")


def is_unprotected_mail_server(url: str) -> bool:
    """Whether mails would be sent to another network without TLS."""
    return url.startswith("smtp:") and _is_remote(urlsplit(url).hostname or "")


def _is_remote(host: str) -> bool:
    """A host without a dot is a Service of the same namespace, or a container beside this one."""
    return "." in host and not host.startswith("127.")


def _given(settings: Settings, name: str) -> str:
    """The text of a setting, empty when it has its default, which needs no check."""
    value = getattr(settings, name)
    if value == getattr(type(settings), name):
        return ""
    return value if isinstance(value, str) else value.reveal()


def _reason(check: Callable[[str], None], text: str) -> str:
    try:
        check(text)
    except RecursionError:
        return "is nested too deeply"
    except ValueError as error:
        return str(error)
    return ""


def _signing_key_mistake(settings: Settings, sources: tuple[str, ...]) -> dict[str, str]:
    if not settings.event_signing_key or not settings.event_keys:
        return {}
    from shop.adapters.signatures import key_id_of

    def check(pem: str) -> None:
        key_id_of(pem, settings.event_keys, sources)

    reason = _reason(check, settings.event_signing_key.reveal())
    return {"event_signing_key": f"cannot be used: {reason}"} if reason else {}


def _token_key_mistake(settings: Settings) -> dict[str, str]:
    if not settings.jwt_private_key or not settings.jwt_jwks:
        return {}
    from shop.adapters.tokens import check_listed

    def check(pem: str) -> None:
        check_listed(pem, settings.jwt_jwks)

    reason = _reason(check, settings.jwt_private_key.reveal())
    return {"jwt_private_key": f"cannot be used: {reason}"} if reason else {}


def _check_http_url(text: str) -> None:
    if not HTTP_URL.fullmatch(text) or not _has_valid_port(text):
        raise ValueError("is not an address such as https://host:port/path")


def _check_postgresql_url(text: str) -> None:
    if not POSTGRESQL_URL.fullmatch(text):
        raise ValueError("is not an address such as postgresql://user:password@host:5432/shop")


def _check_redis_url(text: str) -> None:
    from shop.adapters.cache import read_url

    read_url(text)


def _check_smtp_url(text: str) -> None:
    from shop.adapters.mail_server import read_url

    read_url(text)


def _check_mail_address(text: str) -> None:
    if not MAIL_ADDRESS.fullmatch(text):
        raise ValueError("is not an address such as orders@shop.kr")


def _check_shop_name(text: str) -> None:
    if not text.isprintable() or len(text) > SHOP_NAME_LENGTH_MAX:
        raise ValueError(f"is not one line of at most {SHOP_NAME_LENGTH_MAX} characters")


def _check_jwks(text: str) -> None:
    from shop.adapters.tokens import read_jwks

    try:
        read_jwks(text)
    except ValueError as error:
        raise ValueError(f"is not a set of Ed25519 public keys: {error}") from None


def _check_event_keys(text: str) -> None:
    from shop.adapters.signatures import verifier_from_json

    try:
        verifier_from_json(text)
    except ValueError as error:
        raise ValueError(f"cannot be used: {error}") from None


def check_time_zone(text: str) -> None:
    """``ValueError`` unless the text names a zone of the IANA time zone database."""
    from zoneinfo import ZoneInfo

    try:
        ZoneInfo(text)
    except (ValueError, OSError, LookupError):  # not found, a folder, or outside the database
        raise ValueError("is not an IANA time zone such as Asia/Seoul") from None


def _check_origins(text: str) -> None:
    from shop.primitives.cors import parse_origins

    parse_origins(text)


def _check_currency(text: str) -> None:
    if not CURRENCY.fullmatch(text):
        raise ValueError("is not three capital letters (ISO 4217)")


def _check_countries(text: str) -> None:
    if not COUNTRIES.fullmatch(text):
        raise ValueError("is not like KR, US (ISO 3166-1 alpha-2)")


def _check_retention(text: str) -> None:
    if not AGES.fullmatch(text):
        raise ValueError("is not like sessions=90 days, idempotency=14 days")


def _check_printable(text: str) -> None:
    if not PRINTABLE.fullmatch(text):
        raise ValueError("contains a space, a control character or a character outside ASCII")


def check_key(text: str) -> None:
    """``ValueError`` unless the text can be a random key of 32 characters or more."""
    _check_printable(text)
    if len(text) < KEY_LENGTH_MIN:
        raise ValueError(f"is shorter than {KEY_LENGTH_MIN} characters")


def check_keys(text: str) -> None:
    """``ValueError`` unless the text is one such key, or two with a space between."""
    keys = text.split()
    if not 1 <= len(keys) <= KEYS_MAX or len(set(keys)) < len(keys):
        raise ValueError("is not one key, or a new one, a space and the one before")
    for key in keys:
        check_key(key)


def _check_webhook_secrets(text: str) -> None:
    """``whsec_`` and base64 of 24 to 64 bytes (Standard Webhooks); or a new one and the former."""
    from shop.primitives.webhook_signatures import read_secret

    check_keys(text)
    for secret in text.split():
        read_secret(secret)


def _check_operator_roles(text: str) -> None:
    from shop.primitives.spec import ROLES

    for role in text.split(","):
        if role.strip() not in ROLES[1:]:
            raise ValueError(f"may name {', '.join(ROLES[1:])} only")


def _check_networks(text: str) -> None:
    from ipaddress import ip_network

    for network in text.split(","):
        ip_network(network.strip())


def _check_absolute_path(text: str) -> None:
    if not text.startswith("/") or not PRINTABLE.fullmatch(text):
        raise ValueError("is not the absolute path of a file")


def _has_valid_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


CHECKS: dict[str, Callable[[str], None]] = {
    "database_url": _check_postgresql_url,
    "database_replica_url": _check_postgresql_url,
    "redis_url": _check_redis_url,
    "broker_url": _check_http_url,
    "broker_token_path": _check_absolute_path,
    "jwt_jwks": _check_jwks,
    "jwt_issuer": _check_printable,
    "jwt_audience": _check_printable,
    "link_key": check_key,
    "second_factor_key": check_keys,
    "second_factor_roles": _check_operator_roles,
    "webhook_key": check_key,
    "webhook_networks_allowed": _check_networks,
    "smtp_url": _check_smtp_url,
    "mail_from": _check_mail_address,
    "shop_name": _check_shop_name,
    "shop_url": _check_http_url,
    "seller_name": _check_shop_name,
    "seller_registration_number": _check_shop_name,
    "event_keys": _check_event_keys,
    "payment_provider_url": _check_http_url,
    "payment_provider_api_key": _check_printable,
    "payment_webhook_secret": _check_printable,
    "carrier_webhook_secret": _check_webhook_secrets,
    "payment_return_url": _check_http_url,
    "payment_client_key": _check_printable,
    "business_time_zone": check_time_zone,
    "currency": _check_currency,
    "shipping_countries": _check_countries,
    "retention": _check_retention,
    "cors_origins": _check_origins,
    "otel_exporter_otlp_endpoint": _check_http_url,
}
