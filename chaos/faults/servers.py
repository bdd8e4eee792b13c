"""What happens to PostgreSQL, Redis and the network between them and the functions."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import errors as pg

from chaos.environment import BROKER, EDGES, REDIS, Environment
from chaos.faults.fault import Kind, NotHere
from chaos.process_tree import children_of
from chaos.resp import ask
from chaos.toxics import Toxic
from tools.local_platform.servers import PostgresServer

TERMINATE_ALL: LiteralString = """
select pg_terminate_backend(pid) from pg_stat_activity
where usename like 'shop\\_%' and datname = current_database()
"""
ONE_BACKEND: LiteralString = """
select pid from pg_stat_activity where usename like 'shop\\_%' and datname = current_database()
order by random() limit 1
"""
SOME_ORDER: LiteralString = """
select order_id::text from shop.orders where status in ('PENDING', 'CANCELLING')
order by random() limit 1
"""
LOCK_ORDER: LiteralString = "select from shop.orders where order_id = %(id)s::uuid for update"
HOT_PRODUCT: LiteralString = """
select product_id from shop.reservations group by product_id order by count(*) desc limit 1
"""
LOCK_STOCK: LiteralString = "select from shop.stock where product_id = %(id)s for update"
LOCK_TABLE: LiteralString = "lock table shop.cart_items in access exclusive mode"
TWO_ORDERS: LiteralString = """
select order_id::text from shop.orders where status = 'PENDING' order by random() limit 2
"""
HOGS_MAX = 95
SPIN = "local n = 0 for i = 1, 20000000 do n = n + i end return n"
FILE_BYTES_MAX = 64 * 1024


# ---------------------------------------------------------------- PostgreSQL


async def crash_database(scene: Environment) -> str:
    """F-09: immediate stop, kill -9 of the postmaster, of one backend, end of all connections."""
    how = scene.dice.choice(("immediate", "postmaster", "backend", "backend", "connections"))
    if how == "immediate":
        await scene.restart_postgres(signal.SIGQUIT)
    elif how == "postmaster":
        await scene.restart_postgres(signal.SIGKILL)
    elif how == "backend":
        async with scene.database() as database:
            row = await (await database.execute(ONE_BACKEND)).fetchone()
        if row is not None:
            with suppress(ProcessLookupError):
                os.kill(row[0], signal.SIGKILL)
        await _until_up(scene)
    else:
        async with scene.database() as database:
            await database.execute(TERMINATE_ALL)
    return f"database: {how}"


async def _until_up(scene: Environment) -> None:
    """PostgreSQL restarts itself when a backend is killed; waits for that."""
    async with asyncio.timeout(30):
        while True:
            with suppress(psycopg.OperationalError):
                async with scene.database():
                    return
            await asyncio.sleep(0.1)


async def exhaust_connections(scene: Environment) -> str:
    """F-11: nobody gets a connection any more."""
    async with AsyncExitStack() as stack:
        taken = 0
        with suppress(psycopg.OperationalError):
            while taken < HOGS_MAX:
                await stack.enter_async_context(scene.database())
                taken += 1
        await asyncio.sleep(15 * scene.tier.hold)
    return f"{taken} connections hogged"


async def hold_locks(scene: Environment) -> str:
    """F-12: a session sits on an order's row, a stock row, a table, or two orders crosswise."""
    act = scene.dice.choice((_hold_order, _hold_stock, _hold_table, _deadlock))
    try:
        return await act(scene)
    except pg.QueryCanceled:
        return "the lock was not to be had"


async def _hold_order(scene: Environment) -> str:
    return await _hold(scene, SOME_ORDER, LOCK_ORDER, "an order's row")


async def _hold_stock(scene: Environment) -> str:
    return await _hold(scene, HOT_PRODUCT, LOCK_STOCK, "the hottest stock row")


async def _hold_table(scene: Environment) -> str:
    async with scene.database() as database, database.transaction():
        await database.execute("set local statement_timeout = '2s'")
        await database.execute(LOCK_TABLE)
        await asyncio.sleep(4 * scene.tier.hold)
    return "the carts' table locked"


async def _hold(scene: Environment, which: LiteralString, lock: LiteralString, what: str) -> str:
    async with scene.database() as database, database.transaction():
        row = await (await database.execute(which)).fetchone()
        if row is None:
            return f"there was nothing to lock: {what}"
        await database.execute("set local statement_timeout = '2s'")
        await database.execute(lock, {"id": row[0]})
        seconds = scene.dice.choice((2.0, 5.0, 12.0)) * scene.tier.hold
        await asyncio.sleep(seconds)
    return f"{what} locked for {seconds:g} s"


async def _deadlock(scene: Environment) -> str:
    """Two sessions that lock two orders crosswise: PostgreSQL must end one."""
    async with scene.database() as one, scene.database() as other:
        orders = await (await one.execute(TWO_ORDERS)).fetchall()
        if len(orders) < 2:
            return "there were no two orders to lock"
        first, second = ({"id": row[0]} for row in orders)

        async def cross(session: psycopg.AsyncConnection, *ids: dict[str, str]) -> bool:
            try:
                async with session.transaction():
                    await session.execute("set local statement_timeout = '5s'")
                    for each in ids:
                        await session.execute(LOCK_ORDER, each)
                        await asyncio.sleep(0.2)
                return True
            except (pg.DeadlockDetected, pg.QueryCanceled):
                return False

        ended = await asyncio.gather(cross(one, first, second), cross(other, second, first))
    return f"a deadlock, {ended.count(False)} ended"


async def fill_disk(scene: Environment) -> str:
    """F-13: the server's files cannot grow (RLIMIT_FSIZE, so EFBIG where a disk says ENOSPC)."""
    limited = _limit_files(scene.postgres, FILE_BYTES_MAX)
    try:
        await asyncio.sleep(10 * scene.tier.hold)
    finally:
        with suppress(OSError):  # it may be gone already
            _limit_files(scene.postgres, resource.RLIM_INFINITY)
    await _until_usable(scene)
    if not limited:
        raise NotHere("the server's file sizes cannot be limited on this machine")
    return f"{limited} server processes could not write beyond {FILE_BYTES_MAX} bytes of a file"


def _limit_files(server: PostgresServer, size: int) -> int:
    """Sets the soft limit of the postmaster and its children; answers how many have it.

    Only the same user may (or one with CAP_SYS_RESOURCE), so a child as that user does it.
    """
    pids = [server.pid, *children_of(server.pid)]

    def limit() -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    server.run_as_server_user(limit)
    wanted = "unlimited" if size == resource.RLIM_INFINITY else str(size)
    return sum(_file_limit(pid) == wanted for pid in pids)


def _file_limit(pid: int) -> str:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines():
            if line.startswith("Max file size"):
                return line.split()[3]
    return ""


async def _until_usable(scene: Environment) -> None:
    """The full disk may have ended the server: it is started again, as its supervisor would."""
    try:
        async with asyncio.timeout(5):
            await _until_up(scene)
    except TimeoutError:
        await scene.restart_postgres(signal.SIGQUIT)


# ---------------------------------------------------------------- Redis


async def break_redis(scene: Environment) -> str:
    """F-14: Redis is killed, emptied, slow, out of memory, or holds what we never put there."""
    port, hold = scene.redis.port, scene.tier.hold
    how = scene.dice.choice(("kill", "flush", "sleep", "memory", "types", "down"))
    if how == "kill":
        await scene.restart_redis(signal.SIGKILL, down_seconds=3 * hold)
    elif how == "flush":
        await ask(port, "FLUSHALL")
    elif how == "sleep":
        await _busy_redis(port, 4 * hold)
    elif how == "memory":
        await ask(port, "CONFIG", "SET", "maxmemory", "1")
        await asyncio.sleep(5 * hold)
        await ask(port, "CONFIG", "SET", "maxmemory", "64mb")
    elif how == "types":
        await _spoil_keys(port)
    else:
        await _with_toxic(scene, REDIS, Toxic(kind="down"), 5 * hold)
    return f"redis: {how}"


async def _busy_redis(port: int, seconds: float) -> None:
    """One script after the other: Redis does nothing else meanwhile (DEBUG SLEEP is off)."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await ask(port, "EVAL", SPIN, "0")


async def _spoil_keys(port: int) -> None:
    """Puts a list where the shop keeps text, under every key that it has now."""
    keys = await ask(port, "KEYS", "*")
    for key in keys[:500] if isinstance(keys, list) else []:
        await ask(port, "DEL", str(key))
        await ask(port, "RPUSH", str(key), "not", "ours")


# ---------------------------------------------------------------- network


async def break_network(scene: Environment) -> str:
    """F-24: one edge is slow, cut, half-open, one byte at a time, or thin."""
    edge = EDGES[scene.activity_log.counts["network faults"] % len(EDGES)]
    scene.activity_log.count("network faults")
    toxic = scene.dice.choice(
        (
            Toxic(kind="latency", latency_ms=50, jitter_ms=50),
            Toxic(kind="reset", probability=0.3),
            Toxic(kind="black_hole", probability=0.3),
            Toxic(kind="slicer", probability=0.5),
            Toxic(kind="bandwidth", kilobytes_per_second=10),
        )
    )
    await _with_toxic(scene, edge, toxic, 15 * scene.tier.hold)
    return f"{edge}: {toxic.kind}"


async def break_broker(scene: Environment) -> str:
    """F-08: the broker is gone, or takes five seconds for everything."""
    toxic = scene.dice.choice(
        (Toxic(kind="down"), Toxic(kind="latency", latency_ms=5000, jitter_ms=0))
    )
    seconds = scene.dice.choice((3.0, 10.0, 20.0)) * scene.tier.hold
    await _with_toxic(scene, BROKER, toxic, seconds)
    return f"broker: {toxic.kind} for {seconds:g} s"


async def _with_toxic(scene: Environment, edge: str, toxic: Toxic, seconds: float) -> None:
    await scene.proxies.put(edge, toxic)
    try:
        await asyncio.sleep(seconds)
    finally:
        await scene.proxies.heal(edge)
        await scene.put_steady_toxics(edge)


KINDS = (
    Kind(id="F-08", what="broker down or slow", lane="servers", inject=break_broker),
    Kind(id="F-09", what="PostgreSQL crashes", lane="servers", inject=crash_database),
    Kind(id="F-11", what="connections exhausted", lane="servers", inject=exhaust_connections),
    Kind(id="F-12", what="locks held, deadlock", lane="servers", inject=hold_locks),
    Kind(id="F-13", what="disk full", lane="servers", inject=fill_disk),
    Kind(id="F-14", what="Redis down, empty, slow, full", lane="servers", inject=break_redis),
    Kind(id="F-24", what="network", lane="servers", inject=break_network),
)
