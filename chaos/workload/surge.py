"""A retry surge (F-23): a multiple of the usual load, from clients that retry without delay."""

from __future__ import annotations

import asyncio
import time
from random import Random

from chaos.controlled_process import JsonObject
from chaos.workload.client import Outcome, RetryPolicy
from chaos.workload.customers import Customers

IMMEDIATE_RETRIES = RetryPolicy(attempts_max=5, has_delay=False, timeout_seconds=5.0)
CONCURRENT_MAX = 256


async def run_surge(customers: Customers, *, rate: float, seconds: float, seed: int) -> JsonObject:
    """Sends ``rate`` calls per second; ``attempts`` divided by ``sent`` is the amplification.

    Calls that would exceed 256 concurrent ones are dropped and counted.
    """
    arrivals = Random(f"{seed} surge")  # noqa: S311
    ends, due = time.monotonic() + seconds, time.monotonic()
    running: set[asyncio.Task[Outcome]] = set()
    outcomes: list[Outcome] = []
    sent = dropped = 0
    while (due := due + arrivals.expovariate(rate)) < ends:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(running) >= CONCURRENT_MAX:
            dropped += 1
            continue
        sent += 1
        random = Random(f"{seed} surge {sent}")  # noqa: S311
        task = asyncio.create_task(customers.browse_or_place(random, IMMEDIATE_RETRIES))
        running.add(task)
        task.add_done_callback(running.discard)
        task.add_done_callback(lambda done: outcomes.append(done.result()))
    await asyncio.gather(*running)
    return {
        "sent": sent,
        "dropped": dropped,
        "attempts": sum(outcome.attempts for outcome in outcomes),
        "succeeded": sum(
            outcome.is_definite and (outcome.status or 0) < 500 for outcome in outcomes
        ),
    }
