"""What goes wrong at the payment provider beyond what always does (F-15)."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import LiteralString

import psycopg

from chaos.environment import Environment
from chaos.faults.fault import Kind

# The shop charges only while the provider surely remembers a key (20 h of 24 h).  Where the double
# forgets after seconds, the same share of that life is all a payment gets.
KEY_LIFE_SECONDS = 30.0
CHARGE_SECONDS = 20
# What a worker may still do with a row it has read, after the longest pause (F-02).
CALL_SECONDS = 5.0
SHORTEN: LiteralString = """
update shop.payments set charge_not_after = created_at + make_interval(secs => %(seconds)s)
where status in ('INTENT', 'UNKNOWN')
  and charge_not_after > created_at + make_interval(secs => %(seconds)s)
returning order_id::text
"""


async def capture_late(scene: Environment) -> str:
    """F-16: 404 for a charge still in flight, which is then captured in spite of a tombstone."""
    await scene.provider.put(
        "late",
        late_seconds=30 * scene.tier.hold,
        probabilities={"late": 0.3, "tombstone_ignored": 1.0},
    )
    await asyncio.sleep(8 * scene.tier.hold)
    await scene.provider.take_off("late")
    return "a third of the confirmations came late, past any tombstone"


async def forget_keys(scene: Environment) -> str:
    """F-17: the provider forgets its idempotency keys; nobody may be charged twice.

    Hours lie between the last charge and that in earnest, so the time to be charged is cut well
    before: whoever read a payment's row with hours in it is through with it, even if it was paused.
    """
    await _cut_short(scene, 20 * scene.tier.hold + CALL_SECONDS)
    await scene.provider.put("forgetful", key_life_seconds=KEY_LIFE_SECONDS)
    try:
        await _cut_short(scene, 40 * scene.tier.hold)
    finally:
        await scene.provider.take_off("forgetful")
    return f"keys lived {KEY_LIFE_SECONDS:g} s, payments could be charged for {CHARGE_SECONDS} s"


async def _cut_short(scene: Environment, seconds: float) -> None:
    """Once at least, and every second."""
    end = time.monotonic() + seconds
    while True:
        with suppress(psycopg.OperationalError):
            async with scene.database() as database:
                shortened = await database.execute(SHORTEN, {"seconds": CHARGE_SECONDS})
                scene.cut_short.update(row[0] for row in await shortened.fetchall())
        if time.monotonic() >= end:
            return
        await asyncio.sleep(1.0)


async def answer_slowly(scene: Environment) -> str:
    """F-20: every charge takes 1.5 s, so the events behind it pile up and must drain."""
    await scene.provider.put("slow", slow_seconds=1.5, probabilities={"slow_answer": 0.6})
    before = scene.platform.broker.pending
    await asyncio.sleep(20 * scene.tier.hold)
    waiting = scene.platform.broker.pending
    await scene.provider.take_off("slow")
    return f"{waiting} deliveries waited, {before} before"


KINDS = (
    Kind(id="F-16", what="404, then captured late", lane="provider", inject=capture_late),
    Kind(id="F-17", what="provider forgets keys", lane="provider", inject=forget_keys),
    Kind(id="F-20", what="slow consumer, backlog", lane="provider", inject=answer_slowly),
)
