"""docs/reference: every function and every setting, from the specs and the settings' record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from shop.primitives.spec import FunctionSpec, Route
from shop.registry import all_specs
from shop.runtime.bootstrap import needs_of
from shop.runtime.config import ALIASES, CHOICES, VARIABLES, WHERE_NEEDED, Secret, Settings
from tools.render.documents import MARK
from tools.render.openapi import AUTH_NOTES, refusals_of

FOLDER = Path("docs/reference")

MEANINGS = {
    "profile": "Which defaults are allowed: `prod` refuses those that only a laptop should have.",
    "database_url": "PostgreSQL, as the function's own role.",
    "database_prepare": "Named prepared statements; off behind PgBouncer before 1.21.",
    "redis_url": "Redis, `redis://host:port/0`; without it each process counts alone.",
    "broker_url": (
        "CloudEvents ingress of the broker; `202` means accepted. Whoever announces events must "
        "have it in `prod`."
    ),
    "jwt_private_key": "Ed25519 key (PEM, PKCS 8) that signs access tokens; only `login` has it.",
    "jwt_jwks": "Public keys of access tokens, as a JSON Web Key Set.",
    "jwt_issuer": "The `iss` of access tokens. `prod` refuses the default.",
    "jwt_audience": "The `aud` of access tokens. `prod` refuses the default.",
    "event_signing_key": "Ed25519 key (PEM) that signs this trust domain's events.",
    "event_keys": 'Public keys of events: `{kid: {"x": …, "sources": [...]}}`.',
    "payment_provider": "Which payment provider. `prod` refuses the sandbox.",
    "payment_provider_url": "Where the payment provider is.",
    "payment_provider_api_key": "The payment provider's key.",
    "payment_provider_timeout_seconds": "How long one call to the provider may take.",
    "payment_webhook_secret": "What the provider signs its webhooks with.",
    "rate_limit_per_minute": "Requests per client and minute; 0 turns the limit off.",
    "idempotency_key_required": "Refuse unsafe requests without an `Idempotency-Key`.",
    "settlements_auth": "Who may read settlements. `prod` refuses `public`.",
    "trusted_hops": "How many last entries of `X-Forwarded-For` were written by hops of ours.",
    "business_time_zone": "Where a business day begins; fixed by the first day that is closed.",
    "currency": "The shop's currency, ISO 4217.",
    "open_orders_max": "How many orders of one account may be open; 0 is no limit.",
    "order_soft_expiry_seconds": "After this an unpaid order without a running payment expires.",
    "order_hard_expiry_seconds": "After this every unpaid order expires.",
    "threads": "Requests a process takes at once; 0 means what its spec says.",
    "metrics_port": "Where Prometheus reads `/metrics`, never the public port; 0 is nowhere.",
    "crash": (
        "For fault tests: `<function>:<window>:<nth>`, where the process kills itself "
        "(`shop/primitives/failpoints.py`). `prod` refuses it."
    ),
    "otel_exporter_otlp_endpoint": (
        "Where traces and metrics are pushed over OTLP; needs the extra `otel`."
    ),
}


def render() -> dict[Path, str]:
    """The two reference pages."""
    return {
        FOLDER / "functions.md": functions_page(all_specs()),
        FOLDER / "configuration.md": configuration_page(),
    }


def functions_page(specs: tuple[FunctionSpec, ...]) -> str:
    """All functions: who calls them, what they need, how far they scale."""
    head = (
        f"<!-- {MARK} -->\n\n# Functions\n\n"
        "One folder of `functions/` is one deployable function. Each has a database role of its\n"
        "trust domain and starts from zero.\n\n"
        "| function | what it does | role | needs | requests at once | processes at most |\n"
        "|---|---|---|---|---|---|\n"
    )
    rows = "".join(
        f"| [`{s.name}`](#{s.name}) | {s.summary} | {_code([s.database_role or ''])} "
        f"| {_code(s.needs)} | {s.scale.concurrency} | {s.scale.max_scale} |\n"
        for s in specs
    )
    return head + rows + "".join(_section(spec) for spec in specs)


def _section(spec: FunctionSpec) -> str:
    parts = [f"\n## {spec.name}\n\n{spec.summary}\n"]
    if spec.routes:
        parts.append("\n| route | who may call | what it does | answers |\n|---|---|---|---|\n")
        parts += [_route_row(spec, route) for route in spec.routes]
    if spec.subscriptions or spec.schedules:
        parts.append("\n| event or clock | what it does |\n|---|---|\n")
        parts += [f"| `{s.event}` | {s.summary} |\n" for s in spec.subscriptions]
        parts += [f"| `{s.name}`: `{s.cron}` | {s.summary} |\n" for s in spec.schedules]
    if spec.receives_dead_letters:
        parts.append("\nReceives every dead letter of the broker.\n")
    if spec.emits:
        parts.append(f"\nAnnounces {_code(spec.emits)}.\n")
    return "".join(parts)


def _route_row(spec: FunctionSpec, route: Route) -> str:
    caller = AUTH_NOTES.get(route.auth, f"Needs the role {route.auth}.")
    answers = ", ".join(str(status) for status in (route.status, *refusals_of(spec, route)))
    return f"| `{route.method} {route.path}` | {caller} | {route.summary} | {answers} |\n"


def configuration_page() -> str:
    """All settings; raises KeyError for a setting whose meaning nobody wrote down."""
    head = (
        f"<!-- {MARK} -->\n\n# Configuration\n\n"
        "Each setting `NAME` is read once, from the variable `NAME`, from the file that\n"
        "`NAME_FILE` names, or from a file `name` (lower case, dashes) in `SHOP_SECRETS_DIR`,\n"
        "`/var/openfaas/secrets` or `/var/run/shop/secrets`. All mistakes are reported at once.\n"
        "A function does not start without what it must have; the rest has a default.\n\n"
        "| setting | meaning | default | who must have it | secret |\n|---|---|---|---|---|\n"
    )
    specs = all_specs()
    rows = (
        _setting_row(f.name, f.default, _who_must_have(f.name, specs)) for f in fields(Settings)
    )
    return head + "".join(rows)


def _who_must_have(setting: str, specs: tuple[FunctionSpec, ...]) -> str:
    needs = {need for need, settings in WHERE_NEEDED.items() if setting in settings}
    having = [spec.name for spec in specs if needs & set(needs_of((spec,)))]
    others = [spec.name for spec in specs if spec.name not in having]
    return f"all but {_code(others)}" if len(others) <= len(having) // 2 else _code(having)


def _setting_row(name: str, default: object, who: str) -> str:
    names = [VARIABLES.get(name, name.upper())]
    if name in ALIASES:
        names.append(ALIASES[name])
    secret = isinstance(default, Secret)
    shown = "" if secret or default == "" else f"`{str(default).lower()}`"
    if isinstance(default, str) and not secret and default:
        shown = f"`{default}`"
    choices = f" One of {_code(CHOICES[name])}." if name in CHOICES else ""
    meaning = f"{MEANINGS[name]}{choices}"
    return f"| {_code(names)} | {meaning} | {shown} | {who} | {'yes' if secret else ''} |\n"


def _code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words if word)
