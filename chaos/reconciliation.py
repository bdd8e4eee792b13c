"""Makes reconciliation with the provider run when a run needs it, instead of after minutes."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from datetime import datetime
from typing import Any, LiteralString

import psycopg
from psycopg.rows import TupleRow

from chaos.environment import Environment

POLL_SECONDS = 0.2
# Kills, crashes and lost responses also meet a reconciliation that is in progress.
REPEAT_SECONDS = 10.0

LAST_BEGINNING: LiteralString = "select ran_at from shop.reconciliation"
MAKE_DUE: LiteralString = """
update shop.reconciliation set next_run_at = now() where next_run_at > now()
"""
# One that had begun before may have read the end of the provider's list, and delays the next one
# when it ends: then that is made due again.
MAKE_DUE_AFTER: LiteralString = MAKE_DUE + " and ran_at = %(last)s"
# During a reconciliation the next run is two minutes away, afterwards an hour or more.
IS_COMPLETE: LiteralString = """
select ran_at > %(last)s and next_run_at > now() + interval '10 minutes' from shop.reconciliation
"""


async def reconcile_completely(environment: Environment, *, seconds_max: float) -> bool:
    """Waits for the end of a reconciliation that begins after this call.

    False if there is none within ``seconds_max``.
    """
    deadline = time.monotonic() + seconds_max
    async with environment.database() as database:
        last: datetime = await _value(database, LAST_BEGINNING)
        while time.monotonic() < deadline:
            await database.execute(MAKE_DUE_AFTER, {"last": last})
            if await _value(database, IS_COMPLETE, last):
                return True
            await asyncio.sleep(POLL_SECONDS)
    return False


async def reconcile_often(environment: Environment) -> None:
    """Makes reconciliation due every few seconds; runs until cancelled."""
    while True:
        await asyncio.sleep(REPEAT_SECONDS)
        with suppress(psycopg.OperationalError):
            async with environment.database() as database:
                await database.execute(MAKE_DUE)


# Any: the type of the one column that the query selects.
async def _value(
    database: psycopg.AsyncConnection[TupleRow], query: LiteralString, last: datetime | None = None
) -> Any:
    row = await (await database.execute(query, {"last": last})).fetchone()
    assert row is not None, "each of these queries returns one row"
    return row[0]
