"""A retry storm (F-23): many times the usual load, of clients who repeat at once, unjittered."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Any

from chaos.workload.buyers import Buyers
from chaos.workload.client import Outcome, Retries

HASTY = Retries(tries=5, has_jitter=False, timeout_seconds=5.0)
WAITING_MAX = 256


async def run_storm(buyers: Buyers, *, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """Sends ``rate`` calls a second for so long; ``tries`` over ``sent`` is the amplification.

    At most 256 clients wait at a time: those who find no place turn away, which ``away`` counts.
    """
    arrivals = Random(f"{seed} storm")  # noqa: S311
    ends, due = time.monotonic() + seconds, time.monotonic()
    waiting: set[asyncio.Task[Outcome]] = set()
    outcomes: list[Outcome] = []
    sent = away = 0
    while (due := due + arrivals.expovariate(rate)) < ends:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(waiting) >= WAITING_MAX:
            away += 1
            continue
        sent += 1
        random = Random(f"{seed} storm {sent}")  # noqa: S311
        task = asyncio.create_task(buyers.browse_or_place(random, HASTY))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
        task.add_done_callback(lambda done: outcomes.append(done.result()))
    await asyncio.gather(*waiting)
    return {
        "sent": sent,
        "away": away,
        "tries": sum(outcome.tries for outcome in outcomes),
        "ok": sum(outcome.is_definite and (outcome.status or 0) < 500 for outcome in outcomes),
        "rate": round(rate, 1),
    }
