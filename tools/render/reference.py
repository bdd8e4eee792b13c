"""Renders docs/reference: every function from its spec, every setting from ``Settings``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from pathlib import Path

from shop.primitives.spec import FunctionSpec, Route
from shop.registry import all_specs
from shop.runtime.bootstrap import needs_of
from shop.runtime.config import ALIASES, CHOICES, VARIABLES, WHERE_NEEDED, Secret, Settings
from tools.render.documents import MARK
from tools.render.openapi import ALWAYS, AUTH_NOTES, error_statuses_of

ROOT = Path(__file__).parent.parent.parent
FOLDER = Path("docs/reference")

DESCRIPTIONS = {
    "profile": "Which defaults are allowed: `prod` rejects those for development.",
    "database_url": "PostgreSQL, as the function's own role.",
    "database_replica_url": (
        "A streaming replica, as the same role, for the routes whose specs say `may_lag`: the "
        "catalogue and the settlements. Sessions are checked and events claimed at `DATABASE_URL`."
    ),
    "database_replica_lag_seconds": (
        "A replica whose last replayed transaction is older is not asked for ten seconds; nor is "
        "one that fails. The primary answers instead."
    ),
    "database_prepare": "Named prepared statements; off behind PgBouncer before 1.21.",
    "redis_url": "Redis, `redis://host:port/0`; without it each process limits rates on its own.",
    "broker_url": (
        "CloudEvents ingress of the broker; `202` means accepted. Required in `prod` for functions "
        "that emit events."
    ),
    "broker_class": (
        "When the broker responds: `imc` after every subscriber has handled the event, so a "
        "function answers its client at once and holds the request open; `kafka`, `rabbitmq` and "
        "`local` (`shop dev`, `shop broker`) once the event is stored."
    ),
    "broker_token_path": (
        "File with a bearer token for the broker, such as a projected service account token; read "
        "before each event, so a rotated token is used at once. Empty: no token is sent."
    ),
    "jwt_private_key": (
        "Ed25519 key (PEM, PKCS 8) that signs access tokens; only `login` has it. Its public half "
        "must be in `JWT_JWKS`."
    ),
    "jwt_jwks": "Public keys of access tokens, as a JSON Web Key Set.",
    "jwt_issuer": "The `iss` of access tokens. `prod` rejects placeholders (`example.com`).",
    "jwt_audience": "The `aud` of access tokens. `prod` rejects the default.",
    "link_key": (
        "Key of at least 32 random characters, with which the tokens of one-time links are made."
    ),
    "second_factor_key": (
        "Key of at least 32 random characters, from which the secrets of second factors are made. "
        "While it is replaced: the new key, a space, and the one before."
    ),
    "second_factor_roles": (
        "Roles that log in with a second factor only, with commas between, such as "
        "`finance,admin`; others may have one."
    ),
    "webhook_key": (
        "Key of at least 32 random characters, from which the secrets of webhooks are made. "
        "Another key changes all of them."
    ),
    "webhook_networks_allowed": (
        "Networks in CIDR, with commas between, to which webhooks are sent although they are not "
        "public, and over http too; for development and tests. `prod` rejects it."
    ),
    "webhook_failing_hours_max": (
        "Hours in which no delivery to a webhook succeeds, after which it is disabled and an "
        "operator is alerted."
    ),
    "smtp_url": (
        "Mail server, `smtps://user:password@host:465` (TLS, RFC 8314), `smtp+starttls://…:587` or "
        "`smtp://…` without TLS, which `prod` rejects for a host of another network; user and "
        "password percent-encoded. Certificates are verified with the system's authorities, or "
        "with `SSL_CERT_FILE`."
    ),
    "mail_from": "Sender of mails; by default `no-reply` at the host of `SHOP_URL`.",
    "shop_name": "Name of the shop in mails.",
    "shop_language": (
        "Language of the products' own texts, and of the mails of accounts whose creation prefers "
        "none."
    ),
    "shop_url": (
        "Address of the shop's pages, to which mails link: `/#/orders/{orderId}`, "
        "`/set-password#token=…` and `/verify-email#token=…`; by default `JWT_ISSUER`. `prod` "
        "rejects placeholders and `http`."
    ),
    "seller_name": "Name of the seller on receipts; `local` has `SHOP_NAME`.",
    "seller_registration_number": (
        "Registration number of the seller on receipts; `local` has `000-00-00000`."
    ),
    "event_signing_key": (
        "Ed25519 key (PEM, PKCS 8) that signs this trust domain's events. `EVENT_KEYS` must allow "
        "its public half to sign for the function."
    ),
    "event_keys": 'Public keys of events: `{kid: {"x": …, "sources": [...]}}`.',
    "payment_provider": "Which payment provider. `prod` rejects the simulator (`sandbox`).",
    "payment_provider_url": "Base URL of the payment provider. `prod` requires `https`.",
    "payment_provider_api_key": "API key for the payment provider.",
    "payment_provider_timeout_seconds": "Timeout of one call to the provider.",
    "payment_action_seconds": (
        "How long a customer may take for what a payment requires. 0: such payments are not "
        "offered; they stay unknown until the order expires."
    ),
    "payment_return_url": "Page to which a customer returns from a redirect; `{orderId}` and "
    "`{paymentId}` are replaced. Without it Stripe's script shows 3-D Secure in the page itself.",
    "payment_client_key": "Public key with which Toss Payments' widget is opened.",
    "payment_transfer_seconds": (
        "How long a customer may take to transfer the amount. 0: transfers are not offered."
    ),
    "payment_webhook_secret": "Key with which the provider signs webhooks.",
    "carrier_webhook_secret": (
        "Secret with which carriers sign what became of parcels: `whsec_` and base64 of 24 to 64 "
        "bytes. While it is replaced: the new secret, a space, and the one before."
    ),
    "rate_limit_per_minute": (
        "Requests per client and minute; 0 disables the limit, which `prod` rejects."
    ),
    "idempotency_key_required": "Reject unsafe requests without an `Idempotency-Key`.",
    "common_passwords_allowed": (
        "Accept passwords that are easy to guess. `prod` rejects `true`, which the local platform "
        "and Compose set."
    ),
    "unknown_query_parameters_ignored": (
        "Public reads ignore query parameters that they do not know, such as those of trackers "
        "(`fbclid`, `utm_source`); all other routes reject them always."
    ),
    "cors_origins": (
        "Origins whose pages may call the shop from a browser, with commas between, such as "
        "`https://www.shop.kr`; none by default, and no wildcard. `prod` requires `https`."
    ),
    "email_verification": (
        "What a customer needs a verified address for: nothing, placing orders, or also logging "
        "in. Other roles need none. Unless it is `off`, registration makes a link."
    ),
    "settlements_auth": "Who may read settlements. `prod` accepts `finance` only.",
    "trusted_hops": "Number of last entries of the forwarding header that trusted proxies wrote.",
    "forwarded_header": "The header to which those proxies append; the other one is ignored.",
    "business_time_zone": "Time zone of the business day; fixed once the first day is closed.",
    "currency": "The shop's currency, ISO 4217; fixed once there is a product.",
    "retention": (
        "How long rows are kept, other than by default ([privacy](../PRIVACY.md)), such as "
        "`sessions=90 days, idempotency=14 days`; the next migration applies it."
    ),
    "open_orders_max": "Open orders per account at most; 0 is no limit.",
    "unpaid_stock_percent": (
        "Share of a product's stock that one account may hold unpaid, but at least 10 units; "
        "0 is no limit."
    ),
    "order_soft_expiry_seconds": "Time after which an order without a running payment expires.",
    "order_hard_expiry_seconds": "Time after which every unpaid order expires.",
    "shipping_address": "Whether an order needs an address: `optional` or `required`.",
    "shipping_countries": "Countries to which orders are sent, such as `KR, US` (ISO 3166-1).",
    "return_window_days": (
        "Days in which customers may ask to return goods; the law of distance sales may set a "
        "minimum, in Korea seven. 0 to 365."
    ),
    "return_window_start": (
        "When that time begins: `delivered`, or `shipped` where deliveries are not recorded."
    ),
    "host": "Address on which a function listens.",
    "port": "Port on which a function listens.",
    "threads": "Concurrent requests per process; 0 means the value of the spec.",
    "metrics_port": "Port of `/metrics`, other than the public port; 0 disables it.",
    "crash": (
        "For fault tests: `<function>:<code>:<nth>`, where the process kills itself "
        "(`shop/primitives/failpoints.py`). `prod` rejects it."
    ),
    "otel_exporter_otlp_endpoint": "Endpoint for traces and metrics over OTLP (HTTP, JSON).",
}


def render() -> dict[Path, str]:
    """The two reference pages."""
    return {
        FOLDER / "functions.md": functions_page(all_specs()),
        FOLDER / "configuration.md": configuration_page(),
    }


def functions_page(specs: tuple[FunctionSpec, ...]) -> str:
    """The page of all functions: routes, events, needs and scale."""
    head = (
        f"<!-- {MARK} -->\n\n# Functions\n\n"
        "Each folder of `functions/` is one deployable function. It uses the database role of its\n"
        "trust domain and scales from zero. The round trips to PostgreSQL are those of an open\n"
        "connection and filled caches; publishing the events of a command takes one more. The CPU\n"
        "time of a cold start is limited, as a multiple of functions-framework's hello-world.\n\n"
        f"All processes of all functions together open at most {_connections_max(specs)} "
        "connections to\nthe database.\n\n"
        f"Every route may also return {', '.join(map(str, ALWAYS))}.\n\n"
        "| function | what it does | role | needs | concurrent requests | processes at most "
        "| cold start at most, × hello |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    rows = "".join(
        f"| [`{s.name}`](#{s.name}) | {s.summary} | {_code([s.database_role or ''])} "
        f"| {_code(s.needs)} | {s.scale.concurrency} | {s.scale.max_scale} "
        f"| {s.cold_start_budget:g} |\n"
        for s in specs
    )
    return head + rows + "".join(_section(spec) for spec in specs)


def _connections_max(specs: tuple[FunctionSpec, ...]) -> int:
    """The sum over the functions that use the database, at their maximum scale."""
    scales = [spec.scale for spec in specs if spec.database_role is not None]
    return sum(scale.concurrency * scale.max_scale for scale in scales)


def _section(spec: FunctionSpec) -> str:
    parts = [f"\n## {spec.name}\n\n{spec.summary}\n"]
    if spec.routes:
        head = "route | authentication | what it does | statuses | round trips"
        parts.append(f"\n| {head} |\n|---|---|---|---|---|\n")
        parts += [_route_row(route) for route in spec.routes]
    if spec.subscriptions or spec.schedules:
        parts.append("\n| event or schedule | what it does | round trips |\n|---|---|---|\n")
        parts += [
            f"| `{s.event}` | {s.summary} | {_count(f'{spec.name}: {s.event}')} |\n"
            for s in spec.subscriptions
        ]
        parts += [
            f"| `{s.name}`: `{s.cron}` | {s.summary} | {_count(f'{spec.name}: {s.name}')} |\n"
            for s in spec.schedules
        ]
    if spec.receives_dead_letters:
        count = _count(f"{spec.name}: dead letter")
        parts.append(f"\nReceives every dead letter of the broker, in {count} round trips.\n")
    if spec.emits:
        parts.append(f"\nEmits {_code(spec.emits)}.\n")
    return "".join(parts)


def _route_row(route: Route) -> str:
    authentication = AUTH_NOTES.get(route.auth, f"Needs the role {route.auth}.")
    own = [status for status in error_statuses_of(route) if status not in ALWAYS]
    statuses = ", ".join(map(str, (route.status, *route.other_statuses, *own)))
    name = f"{route.method} {route.path}"
    cells = (f"`{name}`", authentication, route.summary, statuses, _count(name))
    return "| " + " | ".join(str(cell) for cell in cells) + " |\n"


def _count(operation: str) -> str:
    """The round trips of an operation; a new one has none until the test has counted them."""
    return str(round_trips().get(operation, "not counted yet"))


@cache
def round_trips() -> dict[str, int]:
    """Round trips to PostgreSQL per operation, which tests/contract/test_round_trips.py counts."""
    counts: dict[str, int] = json.loads((ROOT / FOLDER / "round-trips.json").read_text())
    return counts


def configuration_page() -> str:
    """The page of all settings; raises KeyError for a setting without a description."""
    head = (
        f"<!-- {MARK} -->\n\n# Configuration\n\n"
        "Each setting `NAME` is read once, from the variable `NAME`, from the file that\n"
        "`NAME_FILE` names, or from a file `name` (lower case, dashes) in `SHOP_SECRETS_DIR`,\n"
        "`/var/openfaas/secrets` or `/var/run/shop/secrets`. All errors are reported together.\n"
        "A function does not start without its required settings; the others have defaults.\n\n"
        "| setting | meaning | default | required by | secret |\n|---|---|---|---|---|\n"
    )
    specs = all_specs()
    rows = (_setting_row(f.name, f.default, _required_by(f.name, specs)) for f in fields(Settings))
    return head + "".join(rows)


def _required_by(setting: str, specs: tuple[FunctionSpec, ...]) -> str:
    needs = {need for need, settings in WHERE_NEEDED.items() if setting in settings}
    requiring = [spec.name for spec in specs if needs & set(needs_of((spec,)))]
    others = [spec.name for spec in specs if spec.name not in requiring]
    return f"all but {_code(others)}" if len(others) <= len(requiring) // 2 else _code(requiring)


def _setting_row(name: str, default: object, required_by: str) -> str:
    names = [VARIABLES.get(name, name.upper())]
    if name in ALIASES:
        names.append(ALIASES[name])
    secret = isinstance(default, Secret)
    shown = "" if secret or default == "" else f"`{str(default).lower()}`"
    if isinstance(default, str) and not secret and default:
        shown = f"`{default}`"
    choices = f" One of {_code(CHOICES[name])}." if name in CHOICES else ""
    meaning = f"{DESCRIPTIONS[name]}{choices}"
    return f"| {_code(names)} | {meaning} | {shown} | {required_by} | {'yes' if secret else ''} |\n"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names if name)
