"""Waits until a shop without load is at rest, and evaluates every invariant.

For the tests that run in an environment of their own; ``final_checks`` does more after a run.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any, LiteralString

import psycopg

from chaos.environment import Environment
from chaos.reconciliation import reconcile_completely
from tools.checker import provider_transactions
from tools.checker.evaluate import ExternalRecords, evaluate_invariants
from tools.checker.provider_transactions import ProviderAccess

SECONDS_MAX = 180.0
POLL_SECONDS = 0.2
QUIET_SECONDS = 1.0
OPEN_WORK: LiteralString = """
select (select count(*) from shop.orders where status in ('PENDING', 'CANCELLING'))
  + (select count(*) from shop.payments
    where status in ('INTENT', 'UNKNOWN', 'REQUIRES_ACTION'))
  + (select count(*) from shop.refunds where status in ('INTENT', 'UNKNOWN'))
  + (select count(*) from shop.outbox where done_at is null)
"""


async def wait_for_quiescence(environment: Environment) -> list[str]:
    """Waits until no work is open, and for a second so that transactions end.

    What is open after ``SECONDS_MAX``, as a violation; nothing when the shop is at rest.
    """
    deadline = time.monotonic() + SECONDS_MAX
    left = -1
    while time.monotonic() < deadline:
        with suppress(psycopg.OperationalError):
            left = await value(environment, OPEN_WORK)
        if left == 0 and not environment.platform.broker.pending:
            await asyncio.sleep(QUIET_SECONDS)
            return []
        await asyncio.sleep(POLL_SECONDS)
    return [f"quiescence: {left} open after {SECONDS_MAX:g} s"]


async def reconcile(environment: Environment) -> list[str]:
    """Waits for a complete reconciliation with the provider; a violation when there is none."""
    if await reconcile_completely(environment, seconds_max=SECONDS_MAX):
        return []
    return [f"quiescence: not reconciled after {SECONDS_MAX:g} s"]


async def broken_invariants(
    environment: Environment, *, at_rest: bool, skipped: dict[str, str], excluded: str = ""
) -> list[str]:
    """Every invariant that does not hold, but for those that are skipped with a reason."""

    def evaluate() -> list[str]:
        known = provider_transactions.external_records(access(environment))
        records = ExternalRecords(known.charges, known.refunds, disputes=known.disputes)
        results = evaluate_invariants(
            environment.admin_url, records, at_rest=at_rest, skipped=skipped
        )
        return [
            f"{each.invariant.id} {each.invariant.what}: {each.rows}"
            for each in results
            if each.state == "broken" and each.invariant.id != excluded
        ]

    return await asyncio.to_thread(evaluate)


def access(environment: Environment) -> ProviderAccess:
    """The payment simulator of the environment."""
    return ProviderAccess("sandbox", environment.provider_url, environment.secrets.provider_api_key)


# Any: the type of the one column that the query selects.
async def value(environment: Environment, query: LiteralString) -> Any:
    """The value that a query returns."""
    async with environment.database() as database:
        row = await (await database.execute(query)).fetchone()
    assert row is not None, "each of these queries returns one row"
    return row[0]
