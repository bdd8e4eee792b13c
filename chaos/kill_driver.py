"""Makes overdue kills happen: replaces processes that have no failpoint and sends messages.

The workload alone sends too few messages to ``settle`` or ``manage_accounts`` for a kill at each of
their failpoints, or for 30.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

import httpx
import psycopg

from chaos.environment import Environment
from chaos.faults.messages import send_poison
from chaos.kill_requests import Send, requests_by_function
from tools.local_platform.activator import FunctionPool
from tools.local_platform.servers import ServerFailed

EVERY_SECONDS = 0.5
RATE_SECONDS = 5.0
CALL_SECONDS = 8.0
# Customers and their orders reach every failpoint of these functions without help.
BUSY = frozenset(
    {
        "cancel_order",
        "cart",
        "charge",
        "list_products",
        "manage_products",
        "payment_webhook",
        "place_order",
        "refund",
    }
)
# Their ticks; events, of which there are many, reach what no tick of notify does.
WITH_TICKS = frozenset({"notify", "settle", "sweep"})


async def drive_kills(environment: Environment) -> None:
    """Sends messages to every function whose kills are overdue; runs until cancelled."""
    running: dict[str, asyncio.Task[None]] = {}
    async with httpx.AsyncClient(base_url=environment.edge_url, timeout=CALL_SECONDS) as client:
        senders = _message_senders(environment, client)
        try:
            while True:
                await asyncio.sleep(EVERY_SECONDS)
                for pool in environment.pools():
                    name = pool.spec.name
                    if not environment.kill_plan.is_behind(name):
                        continue
                    _replace_processes(environment, pool)
                    if name in senders and (name not in running or running[name].done()):
                        running[name] = asyncio.create_task(_send_quietly(senders[name]))
        finally:
            for task in running.values():
                task.cancel()


async def measure_message_rates(environment: Environment) -> None:
    """Updates the kill plan with the message rate of each function; runs until cancelled."""
    before = {pool.spec.name: pool.messages for pool in environment.pools()}
    while True:
        await asyncio.sleep(RATE_SECONDS)
        now = {pool.spec.name: pool.messages for pool in environment.pools()}
        environment.kill_plan.set_message_rates(
            {name: (count - before[name]) / RATE_SECONDS for name, count in now.items()}
        )
        before = now


def _replace_processes(environment: Environment, pool: FunctionPool) -> None:
    """Retires processes, so that the next message starts one with another failpoint."""
    plan, name = environment.kill_plan, pool.spec.name
    running = environment.processes(name)
    if not plan.assigned_processes(name):
        if running and len(running) == len(pool.processes):
            pool.retire(running[0])
    elif plan.is_stuck(name, has_ticks=bool(pool.spec.schedules)):
        for process in running:
            pool.retire(process)


def _message_senders(environment: Environment, client: httpx.AsyncClient) -> Mapping[str, Send]:
    """For each function that is not busy, what sends it messages that reach its failpoints."""

    def tick(function: str) -> Send:
        spec = environment.platform.activator.pools[function].spec
        return lambda: environment.platform.clock.tick(spec, spec.schedules[0])

    return {
        **requests_by_function(client),
        **{function: tick(function) for function in WITH_TICKS},
        "dead_letter": lambda: send_poison(environment),
    }


async def _send_quietly(send: Send) -> None:
    """Sends a message and ignores the errors that the faults of the run cause."""
    with suppress(httpx.HTTPError, psycopg.Error, OSError, TimeoutError, ServerFailed):
        await send()
