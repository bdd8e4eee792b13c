"""``shop doctor``: what is set up, what is missing, and how to give it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import httpx
import psycopg

from shop.adapters.cache import Cache
from shop.adapters.payment_provider.factory import open_provider
from shop.adapters.statements import Query, Row
from shop.primitives.errors import Unavailable
from shop.runtime import setting_checks
from shop.runtime.config import ConfigurationError, look_up
from tools.migrate import POSTGRESQL_MIN, declared_digest
from tools.operations.reader import connect, fetch_all
from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table

TIMEOUT_SECONDS = 5.0
SKEW_SECONDS_MAX = 2.0
GATEWAY_ERRORS = (502, 503, 504)
ROLES = {
    "AUDITOR_DATABASE_URL": "shop_auditor",
    "OPS_DATABASE_URL": "shop_ops",
    "ACCOUNTS_DATABASE_URL": "shop_accounts",
}


class Finding(NamedTuple):
    """One thing that was looked at; ``advice`` says how to mend what is not right."""

    what: str
    state: str
    is_right: bool
    advice: str = ""


class Server(Row):
    """What a database says about itself."""

    role: str
    version: int
    now: datetime
    zone: str | None
    declared: str | None


SERVER = Query(
    Server,
    """
select current_user::text as role, current_setting('server_version_num')::int as version,
  clock_timestamp() as now, current_setting('shop.business_time_zone', true) as zone,
  obj_description(to_regnamespace('shop'), 'pg_namespace') as declared
""",
)


class LastMonth(Row):
    """The last month of a table that has a partition, and whether the next one is missing."""

    table_name: str
    ends_at: datetime
    is_missing: bool


LAST_MONTHS = Query(
    LastMonth,
    """
select table_name, max(ends_at) as ends_at, max(ends_at) < now() + interval '31 days' as is_missing
from shop.months group by table_name order by table_name
""",
)


def run_doctor(*, as_json: bool) -> int:
    """Prints every finding; returns 1 when one is not right."""
    findings = list(examine())
    if as_json:
        show_json([finding._asdict() for finding in findings])
    else:
        show_table(
            ("", "what", "state", "what to do"),
            [("ok" if f.is_right else "!!", f.what, f.state, f.advice) for f in findings],
        )
        wrong = sum(not finding.is_right for finding in findings)
        print(f"{len(findings) - wrong} right, {wrong} to mend")
    return EXIT_OK if all(finding.is_right for finding in findings) else EXIT_FOUND


def examine() -> Iterator[Finding]:
    """All findings; each is independent of the others."""
    for variable, role in ROLES.items():
        yield from _examine_setting(variable, "DATABASE_URL", lambda url, r=role: _database(url, r))
    yield from _examine_setting("PAYMENT_PROVIDER_URL", "", _provider)
    yield from _examine_setting("BROKER_URL", "K_SINK", _broker)
    yield from _examine_setting("REDIS_URL", "", _redis)


def _examine_setting(
    variable: str, other: str, examine_value: Callable[[str], Iterator[Finding]]
) -> Iterator[Finding]:
    file = variable.lower().replace("_", "-")
    try:
        value = look_up(variable.lower()) or (look_up(other.lower()) if other else None)
    except ConfigurationError as error:
        yield Finding(variable, str(error), is_right=False, advice="make the file readable")
        return
    if value is None:
        names = f"{variable} or {other}" if other else variable
        advice = f"set {names}, or mount the secret file {file}"
        yield Finding(variable, "not given", is_right=False, advice=advice)
        return
    try:
        yield from examine_value(value)
    except (psycopg.Error, httpx.HTTPError, Unavailable, ValueError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        advice = "check address, password, TLS and NetworkPolicy from here"
        yield Finding(variable, f"fails: {reason}", is_right=False, advice=advice)


def _database(url: str, role: str) -> Iterator[Finding]:
    setting_checks.CHECKS["database_url"](url)
    began = time.time()
    with connect(url) as connection:
        (server,) = fetch_all(connection, SERVER())
        is_same = _declarations(server.declared).is_right
        reads_months = is_same and server.role == role == "shop_auditor"
        months = fetch_all(connection, LAST_MONTHS()) if reads_months else []
    is_role = server.role == role
    yield Finding(
        f"database as {role}",
        f"connected as {server.role} in {(time.time() - began) * 1000:.0f} ms",
        is_role,
        "" if is_role else f"use a URL of {role}: this one may read too little, or change too much",
    )
    if role == "shop_auditor":
        yield from _server(server)
        yield from map(_last_month, months)


def _server(server: Server) -> Iterator[Finding]:
    version = f"{server.version // 10_000}.{server.version % 10_000}"
    is_new = server.version // 10_000 >= POSTGRESQL_MIN
    advice = "" if is_new else f"{POSTGRESQL_MIN} is the oldest supported"
    yield Finding("PostgreSQL", version, is_new, advice)
    skew = abs((datetime.now(UTC) - server.now).total_seconds())
    is_near = skew < SKEW_SECONDS_MAX
    advice = "" if is_near else "synchronize the clocks: tokens and events are refused by age"
    yield Finding("clock", f"{skew:.1f} s from the database's", is_near, advice)
    zone, ours = server.zone or "Asia/Seoul", look_up("business_time_zone") or "Asia/Seoul"
    same = zone == ours
    advice = "" if same else f"set BUSINESS_TIME_ZONE to {zone}, or migrate with the other"
    yield Finding("business time zone", f"{ours}, the database's is {zone}", same, advice)
    yield _declarations(server.declared)


def _declarations(declared: str | None) -> Finding:
    is_same = declared == f"declared {declared_digest()}"
    state = "of this version" if is_same else "of another version of the shop"
    advice = "" if is_same else "run shop migrate, or use the tools of the functions' version"
    return Finding("views and rights", state, is_same, advice)


def _last_month(month: LastMonth) -> Finding:
    """Rows of a month without a partition are stored too, but such a month is not dropped."""
    advice = "see that sweep runs, or run shop migrate, which creates them" * month.is_missing
    return Finding(
        f"partitions of {month.table_name}",
        f"until {month.ends_at:%Y-%m-%d}",
        not month.is_missing,
        advice,
    )


def _provider(url: str) -> Iterator[Finding]:
    kind = look_up("payment_provider") or "sandbox"
    key = look_up("payment_provider_api_key")
    if not key:
        advice = "set PAYMENT_PROVIDER_API_KEY, or mount payment-provider-api-key"
        yield Finding("payment provider", "no API key is given", is_right=False, advice=advice)
        return
    began = time.time()
    open_provider(kind, url, key, TIMEOUT_SECONDS).list_since(str(int(began)), 1)
    yield Finding(
        "payment provider",
        f"{kind} answers in {(time.time() - began) * 1000:.0f} ms",
        is_right=True,
    )


def _broker(url: str) -> Iterator[Finding]:
    # a POST would be delivered; brokers reject other methods
    status = httpx.get(url, timeout=TIMEOUT_SECONDS).status_code
    is_right = status not in GATEWAY_ERRORS
    advice = "" if is_right else "nothing is behind this address: is the broker ready?"
    yield Finding("broker", f"answers ({status} to GET)", is_right, advice)


def _redis(url: str) -> Iterator[Finding]:
    cache = Cache(url, TIMEOUT_SECONDS)
    cache.get("shop:doctor")
    cache.close()
    if cache.failures:
        raise OSError("Redis does not answer")
    yield Finding("Redis", "answers", is_right=True)
