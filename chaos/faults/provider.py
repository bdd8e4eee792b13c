"""Scheduled faults of the payment provider, in addition to the continuous ones (F-15)."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import LiteralString

import psycopg

from chaos.environment import Environment
from chaos.faults.fault import Fault

# The shop charges only while the provider certainly keeps a key (20 of 24 hours).  Where the
# simulator expires keys after seconds, payments get the same share of that time.
KEY_LIFETIME_SECONDS = 30.0
CHARGE_SECONDS = 20
# How long a process may still use a payment row that it has read, after the longest pause (F-02).
ROW_USE_SECONDS = 5.0
SHORTEN: LiteralString = """
update shop.payments set charge_not_after = created_at + make_interval(secs => %(seconds)s)
where status in ('INTENT', 'UNKNOWN')
  and charge_not_after > created_at + make_interval(secs => %(seconds)s)
returning order_id::text
"""


async def capture_late(environment: Environment) -> str:
    """Returns 404 for a charge in flight and captures it later, despite a cancelled key (F-16)."""
    await environment.provider_faults.add(
        "late",
        late_seconds=30 * environment.tier.duration_scale,
        probabilities={"late": 0.3, "tombstone_ignored": 1.0},
    )
    await asyncio.sleep(8 * environment.tier.duration_scale)
    await environment.provider_faults.remove("late")
    return "30 % of the confirmations were executed late, even for cancelled keys"


async def expire_keys(environment: Environment) -> str:
    """Expires the provider's idempotency keys (F-17); no customer may be charged twice.

    In production hours pass between the last charge and the loss of a key, so ``charge_not_after``
    is shortened well before the keys expire: a process that has read the longer value has finished
    with the row by then, even after a pause.
    """
    scale = environment.tier.duration_scale
    await _shorten_charge_times(environment, 20 * scale + ROW_USE_SECONDS)
    await environment.provider_faults.add("expire keys", key_life_seconds=KEY_LIFETIME_SECONDS)
    try:
        await _shorten_charge_times(environment, 40 * scale)
    finally:
        await environment.provider_faults.remove("expire keys")
    return (
        f"keys expired after {KEY_LIFETIME_SECONDS:g} s, "
        f"payments could be charged for {CHARGE_SECONDS} s"
    )


async def _shorten_charge_times(environment: Environment, seconds: float) -> None:
    """Runs at least once, then every second until the time is over."""
    end = time.monotonic() + seconds
    while True:
        with suppress(psycopg.OperationalError):
            async with environment.database() as database:
                rows = await database.execute(SHORTEN, {"seconds": CHARGE_SECONDS})
                environment.shortened_orders.update(row[0] for row in await rows.fetchall())
        if time.monotonic() >= end:
            return
        await asyncio.sleep(1.0)


async def respond_slowly(environment: Environment) -> str:
    """Delays 60 % of the charges by 1.5 s (F-20): the queue of events must drain afterwards."""
    await environment.provider_faults.add(
        "slow", slow_seconds=1.5, probabilities={"slow_answer": 0.6}
    )
    before = environment.platform.broker.pending
    await asyncio.sleep(20 * environment.tier.duration_scale)
    waiting = environment.platform.broker.pending
    await environment.provider_faults.remove("slow")
    return f"{waiting} deliveries waited, {before} before"


FAULTS = (
    Fault(id="F-16", title="404, then late capture", group="provider", inject=capture_late),
    Fault(id="F-17", title="provider forgets keys", group="provider", inject=expire_keys),
    Fault(id="F-20", title="slow consumer, backlog", group="provider", inject=respond_slowly),
)
