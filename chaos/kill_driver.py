"""Keeps the crash plan going: new processes where there are none to kill, messages where few come.

The load alone would not wake ``settle`` or ``dead_letter`` thirty times for each of their windows.
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
from tools.local_platform.servers import ServerFailed

EVERY_SECONDS = 0.5
RATE_SECONDS = 5.0
CALL_SECONDS = 8.0
PASSWORD = "a long enough password"  # noqa: S105 (of accounts that live as long as a run)


async def keep_killing(scene: Environment) -> None:
    """Looks after every function that is behind its kills, until cancelled."""
    under_way: dict[str, asyncio.Task[None]] = {}
    async with httpx.AsyncClient(base_url=scene.edge_url, timeout=CALL_SECONDS) as client:
        pumps = _pumps(scene, client)
        try:
            while True:
                await asyncio.sleep(EVERY_SECONDS)
                for pool in scene.pools():
                    name = pool.spec.name
                    if not scene.crashes.is_behind(name):
                        continue
                    has_ticks = bool(pool.spec.schedules)
                    if not scene.crashes.armed(name):
                        _make_room(scene, name)
                    elif scene.crashes.is_stuck(name, has_ticks=has_ticks):
                        _start_over(scene, name)
                    if name in pumps and (name not in under_way or under_way[name].done()):
                        under_way[name] = asyncio.create_task(_quietly(pumps[name]))
        finally:
            for task in under_way.values():
                task.cancel()


async def note_rates(scene: Environment) -> None:
    """Tells the crash plan how busy each function is, until cancelled."""
    before = {pool.spec.name: pool.messages for pool in scene.pools()}
    while True:
        await asyncio.sleep(RATE_SECONDS)
        now = {pool.spec.name: pool.messages for pool in scene.pools()}
        scene.crashes.note_rates(
            {name: (count - before[name]) / RATE_SECONDS for name, count in now.items()}
        )
        before = now


def _make_room(scene: Environment, function: str) -> None:
    """Scales one process in: the next message starts another, which is told where to die."""
    there = scene.processes(function)
    pool = scene.platform.activator.pools[function]
    if there and len(there) == len(pool.processes):
        pool.retire(there[0])


def _start_over(scene: Environment, function: str) -> None:
    """Scales all processes in, so that other windows are handed out."""
    pool = scene.platform.activator.pools[function]
    for process in scene.processes(function):
        pool.retire(process)


def _pumps(
    scene: Environment, client: httpx.AsyncClient
) -> Mapping[str, Callable[[], Awaitable[object]]]:
    def tick(function: str) -> Callable[[], Awaitable[object]]:
        spec = scene.platform.activator.pools[function].spec
        return lambda: scene.platform.clock.tick(spec, spec.schedules[0])

    return {
        "register": lambda: _register(client),
        "login": lambda: _log_in(client),
        "dead_letter": lambda: send_poison(scene),
        "settle": tick("settle"),
        "sweep": tick("sweep"),
    }


async def _register(client: httpx.AsyncClient) -> None:
    """A new account; asked again with the same key, as a client would, until it is answered."""
    body = {"email": f"{new_uuid()}@faults.example", "password": PASSWORD, "name": "누구나"}
    headers = {"idempotency-key": str(new_uuid())}
    for _ in range(5):
        with suppress(httpx.HTTPError):
            answer = await client.post("/users", json=body, headers=headers)
            if answer.status_code < 500:
                return
        await asyncio.sleep(0.2)


async def _log_in(client: httpx.AsyncClient) -> None:
    body = {"email": "customer@shop.local", "password": "local-only-customer"}
    answer = await client.post("/auth/login", json=body)
    if answer.status_code == 200:
        refresh = {"refreshToken": answer.json()["refreshToken"]}
        await client.post("/auth/refresh", json=refresh)


async def _quietly(pump: Callable[[], Awaitable[object]]) -> None:
    """What goes wrong here is meant to."""
    with suppress(httpx.HTTPError, psycopg.Error, OSError, TimeoutError, ServerFailed):
        await pump()
