"""Makes overdue kills happen: replaces processes that have no failpoint and sends messages.

The workload alone sends too few messages to ``settle`` or ``dead_letter`` for 30 kills at each of
their failpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import httpx
import psycopg

from chaos.environment import Environment
from chaos.faults.messages import send_poison
from shop.primitives.ids import new_uuid
from tools.local_platform.activator import FunctionPool
from tools.local_platform.servers import ServerFailed

EVERY_SECONDS = 0.5
RATE_SECONDS = 5.0
CALL_SECONDS = 8.0
ATTEMPTS_MAX = 5
CUSTOMER = {"email": "customer@shop.local", "password": "local-only-customer"}
SUPPORT = {"email": "support@shop.local", "password": "local-only-support"}
PASSWORD = "a long enough password"  # noqa: S105 (of accounts that exist during a run only)

Send = Callable[[], Awaitable[object]]


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
    """For each function that needs help, what sends one message to it."""

    def tick(function: str) -> Send:
        spec = environment.platform.activator.pools[function].spec
        return lambda: environment.platform.clock.tick(spec, spec.schedules[0])

    return {
        "register": lambda: _register(client),
        "login": lambda: _log_in(client),
        "account": lambda: _change_password(client),
        "manage_orders": lambda: _add_note(client),
        "dead_letter": lambda: send_poison(environment),
        "settle": tick("settle"),
        "sweep": tick("sweep"),
        "manage_webhooks": tick("manage_webhooks"),
        "notify": tick("notify"),
    }


async def _register(client: httpx.AsyncClient) -> None:
    """Registers a new account, with retries under the same idempotency key."""
    body = {"email": f"{new_uuid()}@faults.example", "password": PASSWORD, "name": "누구나"}
    headers = {"idempotency-key": str(new_uuid())}
    for _ in range(ATTEMPTS_MAX):
        with suppress(httpx.HTTPError):
            response = await client.post("/users", json=body, headers=headers)
            if response.status_code < 500:
                return
        await asyncio.sleep(0.2)


async def _log_in(client: httpx.AsyncClient) -> None:
    response = await client.post("/auth/login", json=CUSTOMER)
    if response.status_code == 200:
        refresh = {"refreshToken": response.json()["refreshToken"]}
        await client.post("/auth/refresh", json=refresh)


async def _change_password(client: httpx.AsyncClient) -> None:
    """Replaces a password by the same one, which ends the account's other sessions."""
    response = await client.post("/auth/login", json=CUSTOMER)
    if response.status_code == 200:
        headers = {"authorization": f"Bearer {response.json()['accessToken']}"}
        body = {"currentPassword": CUSTOMER["password"], "newPassword": CUSTOMER["password"]}
        await client.post("/users/me/password", json=body, headers=headers)


async def _add_note(client: httpx.AsyncClient) -> None:
    """Adds a note about the account of support itself."""
    response = await client.post("/auth/login", json=SUPPORT)
    if response.status_code != 200:
        return
    headers = {"authorization": f"Bearer {response.json()['accessToken']}"}
    me = await client.get("/users/me", headers=headers)
    if me.status_code == 200:
        path, body = f"/admin/customers/{me.json()['id']}/notes", {"text": "by a fault run"}
        await client.post(path, json=body, headers={**headers, "idempotency-key": str(new_uuid())})


async def _send_quietly(send: Send) -> None:
    """Sends a message and ignores the errors that the faults of the run cause."""
    with suppress(httpx.HTTPError, psycopg.Error, OSError, TimeoutError, ServerFailed):
        await send()
