"""``shop e2e``: play the groups against any address and count what was as it should be."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tools.e2e.accounts import Credentials, known_people
from tools.e2e.checks import Check, Tally
from tools.e2e.client import Call, Client, NoAnswer
from tools.e2e.days import business_day
from tools.e2e.groups import (
    auth,
    cancel_race,
    cart,
    failure,
    flow,
    idempotency,
    not_found,
    order,
    rate_limit,
    search,
    settlement,
    webhook,
)
from tools.e2e.harness import Cast, roles_of, unique
from tools.e2e.scenario import Scenario, left_out, run_scenario

# What a scenario that signs notices needs; given by --webhook-secret-file.
SIGNER = "webhook secret"
GROUPS: dict[str, tuple[Scenario, ...]] = {
    "flow": flow.SCENARIOS,
    "auth": auth.SCENARIOS,
    "order": order.SCENARIOS,
    "cart": cart.SCENARIOS,
    "failure": failure.SCENARIOS,
    "not-found": not_found.SCENARIOS,
    "search": search.SCENARIOS,
    "settlement": settlement.SCENARIOS,
    "idempotency": idempotency.SCENARIOS,
    "cancel-race": cancel_race.SCENARIOS,
    "webhook": webhook.SCENARIOS,
    "rate-limit": rate_limit.SCENARIOS,
}
START_SECONDS = 30.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Wishes:
    """What the command line asked for; every name is checked."""

    groups: tuple[str, ...]
    without: frozenset[str]
    people: dict[str, Credentials]
    webhook_secret: str | None
    time_zone: str


def run_e2e(
    *,
    url: str,
    groups: Sequence[str],
    accounts: Path | None,
    without: Sequence[str],
    webhook_secret_file: Path | None,
    time_zone: str,
) -> int:
    """Play groups (none named: all) against a shop; the exit code, 1 when a check failed.

    The last line printed is ``N passed, N failed``.  ``accounts`` is a JSON file of credentials by
    role (the local seed's by default), ``without`` names roles whose scenarios are left out, and
    ``time_zone`` is the shop's BUSINESS_TIME_ZONE.  A mistake in these is told with exit code 2.
    """
    try:
        secret = webhook_secret_file and webhook_secret_file.read_text(encoding="utf-8").strip()
        people = known_people(accounts, os.environ)
        business_day(time_zone)
        wishes = Wishes(chosen(groups), roles_of(without), people, secret or None, time_zone)
        client = Client(url.rstrip("/"), on_wait=_tell_wait)
    except (ValueError, OSError, httpx.InvalidURL) as error:
        return _stop(str(error), exit_code=2)
    try:
        absence = why_no_shop(client)
        if absence is not None:
            return _stop(f"no shop answers at {url}: {absence}", exit_code=1)
        return 1 if play(wishes, client) else 0
    finally:
        client.close()


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """The groups of these names in the order of a run; all for none.  Raises ValueError."""
    unknown = sorted(set(names) - set(GROUPS))
    if unknown:
        raise ValueError(f"no group {', '.join(unknown)}; there are {', '.join(GROUPS)}")
    return tuple(name for name in GROUPS if not names or name in names)


def play(wishes: Wishes, client: Client) -> int:
    """Play groups one after the other, printing checks as they are made; how many failed."""
    cast = Cast(
        client,
        wishes.people,
        unique(),
        webhook_secret=wishes.webhook_secret,
        time_zone=wishes.time_zone,
    )
    tally, started = Tally(_say), time.monotonic()
    missing = wishes.without if cast.webhook_secret else wishes.without | {SIGNER}
    for name in wishes.groups:
        _say(f"--  {name}")
        for scenario in GROUPS[name]:
            absent = left_out(scenario, missing)
            if absent:
                _say(f"--  {name}: left out without {', '.join(absent)}: {scenario.title}")
            else:
                tally.count(run_scenario(name, scenario, cast))
    if tally.passed + tally.failed == 0:
        tally.count([Check("run", "something was checked", "every scenario was left out")])
    seconds = time.monotonic() - started
    _say(f"--  {seconds:.0f} s, {client.sent} requests, {client.repeated} of them repeated")
    _say(tally.verdict)
    return tally.failed


def why_no_shop(client: Client) -> str | None:
    """None once the shop answers, else why it did not within 30 seconds."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            answer = client.once(Call("GET", "/products?limit=1"))
        except NoAnswer as error:
            reason = str(error)
        except httpx.UnsupportedProtocol as error:
            return str(error)
        else:
            if answer.status_code in (200, 429):
                return None
            reason = f"GET /products: {answer.status_code} {answer.text[:200]}"
        if time.monotonic() >= deadline:
            return reason
        time.sleep(POLL_SECONDS)


def _stop(message: str, *, exit_code: int) -> int:
    print(f"shop e2e: {message}", file=sys.stderr, flush=True)
    _say(Tally(_say).verdict)
    return exit_code


def _say(line: str) -> None:
    print(line, flush=True)


def _tell_wait(seconds: float, why: str) -> None:
    print(f"    waiting {seconds:.0f} s: {why}", file=sys.stderr, flush=True)
