"""``shop e2e``: runs groups of scenarios against any address and counts the checks."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tools.e2e.accounts import Credentials, load_credentials
from tools.e2e.checks import Check, CheckCounter
from tools.e2e.client import Call, Client, NoResponse
from tools.e2e.context import RunContext, parse_roles, unique
from tools.e2e.days import business_day
from tools.e2e.groups import (
    accounts as accounts_group,
)
from tools.e2e.groups import (
    actions,
    auth,
    back_office,
    cancel_race,
    cart,
    failure,
    flow,
    idempotency,
    not_found,
    notices,
    order,
    original,
    privacy,
    rate_limit,
    search,
    settlement,
    shipments,
    webhook,
    webhooks,
)
from tools.e2e.mails import MailCatcher
from tools.e2e.payments import PaymentPages
from tools.e2e.scenario import Scenario, missing_roles, run_scenario
from tools.operations.reporting import (
    EXIT_FAILED,
    EXIT_FOUND,
    EXIT_OK,
    progress_apart,
    show_json,
)

# In ``needs`` of scenarios that sign webhooks; available with --webhook-secret-file.
WEBHOOK_CREDENTIAL = "webhook secret"
# In ``needs`` of scenarios that read mails; available with --catcher-url.
MAIL_CATCHER = "mail catcher"
# In ``needs`` of scenarios whose customers act at the provider; available with --simulator-url.
SIMULATOR = "payment simulator"
GROUPS: dict[str, tuple[Scenario, ...]] = {
    "flow": flow.SCENARIOS,
    "auth": auth.SCENARIOS,
    "accounts": accounts_group.SCENARIOS,
    "privacy": privacy.SCENARIOS,
    "notices": notices.SCENARIOS,
    "order": order.SCENARIOS,
    "actions": actions.SCENARIOS,
    "back-office": back_office.SCENARIOS,
    "shipments": shipments.SCENARIOS,
    "cart": cart.SCENARIOS,
    "failure": failure.SCENARIOS,
    "not-found": not_found.SCENARIOS,
    "search": search.SCENARIOS,
    "settlement": settlement.SCENARIOS,
    "idempotency": idempotency.SCENARIOS,
    "cancel-race": cancel_race.SCENARIOS,
    "webhook": webhook.SCENARIOS,
    "webhooks": webhooks.SCENARIOS,
    "rate-limit": rate_limit.SCENARIOS,
    "original": original.SCENARIOS,
}
# Runs only when it is named: it needs a fresh shop with the local seed.
ONLY_WHEN_NAMED = frozenset({"original"})
START_SECONDS = 30.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Options:
    """The validated options of the command line."""

    groups: tuple[str, ...]
    without: frozenset[str]
    credentials: dict[str, Credentials]
    webhook_secret: str | None
    catcher_url: str
    simulator_url: str
    time_zone: str


def run_e2e(
    *,
    url: str,
    groups: Sequence[str],
    accounts: Path | None,
    without: Sequence[str],
    webhook_secret_file: Path | None,
    catcher_url: str,
    simulator_url: str,
    time_zone: str,
    as_json: bool = False,
) -> int:
    """Runs groups (all but ``original`` if none is named) against a shop and returns the exit code.

    The exit code is 0, 1 when a check failed, 2 for an invalid argument or when no shop responds.
    The last line printed is ``N passed, N failed``; with ``as_json`` one document of these numbers
    and the failed checks is printed, and the rest goes to standard error.  ``accounts`` is a JSON
    file of credentials by role (the local seed's by default), ``without`` names roles whose
    scenarios are skipped, ``catcher_url`` is the mail catcher's, without which no mails are read,
    ``simulator_url`` is the payment simulator's, without which no customer acts there, and
    ``time_zone`` is the shop's BUSINESS_TIME_ZONE.
    """
    with progress_apart(as_json=as_json):
        try:
            secret = webhook_secret_file and webhook_secret_file.read_text(encoding="utf-8").strip()
            credentials = load_credentials(accounts, os.environ)
            business_day(time_zone)
            options = Options(
                groups=select_groups(groups),
                without=parse_roles(without),
                credentials=credentials,
                webhook_secret=secret or None,
                catcher_url=catcher_url,
                simulator_url=simulator_url,
                time_zone=time_zone,
            )
            client = Client(url.rstrip("/"), on_wait=_print_wait)
        except (ValueError, OSError, httpx.InvalidURL) as error:
            return _abort(str(error))
        try:
            problem = wait_for_shop(client)
            if problem is not None:
                return _abort(f"no shop responds at {url}: {problem}")
            counter = run_groups(options, client)
        finally:
            client.close()
    if as_json:
        failures = [vars(check) for check in counter.failures]
        show_json({"passed": counter.passed, "failed": counter.failed, "failures": failures})
    return EXIT_FOUND if counter.failed else EXIT_OK


def select_groups(names: Sequence[str]) -> tuple[str, ...]:
    """The groups of these names in execution order, or all that need no name.

    Raises ValueError for an unknown name.
    """
    unknown = sorted(set(names) - set(GROUPS))
    if unknown:
        raise ValueError(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    return tuple(name for name in GROUPS if name in (names or GROUPS.keys() - ONLY_WHEN_NAMED))


def run_groups(options: Options, client: Client) -> CheckCounter:
    """Runs groups one after the other and prints their checks; returns what they counted."""
    run = RunContext(
        client,
        options.credentials,
        unique(),
        webhook_secret=options.webhook_secret,
        mail_catcher=MailCatcher(options.catcher_url) if options.catcher_url else None,
        payment_pages=PaymentPages(options.simulator_url) if options.simulator_url else None,
        time_zone=options.time_zone,
    )
    counter, started = CheckCounter(_print), time.monotonic()
    given = {
        WEBHOOK_CREDENTIAL: run.webhook_secret,
        MAIL_CATCHER: run.mail_catcher,
        SIMULATOR: run.payment_pages,
    }
    missing = options.without | {name for name, value in given.items() if value is None}
    for name in options.groups:
        _print(f"--  {name}")
        for scenario in GROUPS[name]:
            absent_roles = missing_roles(scenario, missing)
            if absent_roles:
                _print(f"--  {name}: skipped without {', '.join(absent_roles)}: {scenario.title}")
            else:
                counter.count(run_scenario(name, scenario, run))
    if counter.passed + counter.failed == 0:
        counter.count([Check("run", "at least one scenario ran", "every scenario was skipped")])
    seconds = time.monotonic() - started
    _print(f"--  {seconds:.0f} s, {client.sent} requests, {client.repeated} of them repeated")
    _print(counter.summary)
    return counter


def wait_for_shop(client: Client) -> str | None:
    """None once the shop responds, else why it did not within 30 seconds."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            response = client.once(Call("GET", "/products?limit=1"))
        except NoResponse as error:
            reason = str(error)
        except httpx.UnsupportedProtocol as error:
            return str(error)
        else:
            if response.status_code in (200, 429):
                return None
            reason = f"GET /products: {response.status_code} {response.text[:200]}"
        if time.monotonic() >= deadline:
            return reason
        time.sleep(POLL_SECONDS)


def _abort(message: str) -> int:
    print(f"shop e2e: {message}", file=sys.stderr, flush=True)
    _print(CheckCounter(_print).summary)
    return EXIT_FAILED


def _print(line: str) -> None:
    print(line, flush=True)


def _print_wait(seconds: float, why: str) -> None:
    print(f"    waiting {seconds:.0f} s: {why}", file=sys.stderr, flush=True)
