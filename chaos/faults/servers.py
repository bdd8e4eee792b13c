"""Faults of PostgreSQL, Redis, the broker and the network between them and the functions."""

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
from psycopg.rows import TupleRow

from chaos.environment import BROKER, EDGES, REDIS, Environment
from chaos.faults.fault import Fault, FaultUnavailable
from chaos.faults.process_tree import children_of
from chaos.proxy.toxics import Toxic
from chaos.redis_admin import execute
from tools.local_platform.servers import PostgresServer

TERMINATE_ALL: LiteralString = """
select pg_terminate_backend(pid) from pg_stat_activity
where usename like 'shop\\_%' and datname = current_database()
"""
RANDOM_BACKEND: LiteralString = """
select pid from pg_stat_activity where usename like 'shop\\_%' and datname = current_database()
order by random() limit 1
"""
OPEN_ORDER: LiteralString = """
select order_id::text from shop.orders where status in ('PENDING', 'CANCELLING')
order by random() limit 1
"""
LOCK_ORDER: LiteralString = "select from shop.orders where order_id = %(id)s::uuid for update"
BUSIEST_PRODUCT: LiteralString = """
select product_id from shop.reservations group by product_id order by count(*) desc limit 1
"""
LOCK_STOCK: LiteralString = "select from shop.stock where product_id = %(id)s for update"
LOCK_TABLE: LiteralString = "lock table shop.cart_items in access exclusive mode"
TWO_OPEN_ORDERS: LiteralString = """
select order_id::text from shop.orders where status = 'PENDING' order by random() limit 2
"""
CONNECTIONS_MAX = 95
BUSY_SCRIPT = "local n = 0 for i = 1, 20000000 do n = n + i end return n"
FILE_BYTES_MAX = 64 * 1024


# ---------------------------------------------------------------- PostgreSQL


async def crash_database(environment: Environment) -> str:
    """Stops PostgreSQL, kills its postmaster or a backend, or ends all connections (F-09)."""
    method = environment.random.choice(
        ("immediate", "postmaster", "backend", "backend", "connections")
    )
    if method == "immediate":
        await environment.restart_postgres(signal.SIGQUIT)
    elif method == "postmaster":
        await environment.restart_postgres(signal.SIGKILL)
    elif method == "backend":
        async with environment.database() as database:
            row = await (await database.execute(RANDOM_BACKEND)).fetchone()
        if row is not None:
            with suppress(ProcessLookupError):
                os.kill(row[0], signal.SIGKILL)
        await _wait_until_up(environment)
    else:
        async with environment.database() as database:
            await database.execute(TERMINATE_ALL)
    return f"database: {method}"


async def _wait_until_up(environment: Environment) -> None:
    """Waits until PostgreSQL has restarted, which a killed backend causes."""
    async with asyncio.timeout(30):
        while True:
            with suppress(psycopg.OperationalError):
                async with environment.database():
                    return
            await asyncio.sleep(0.1)


async def exhaust_connections(environment: Environment) -> str:
    """Opens all connections that the server allows (F-11)."""
    async with AsyncExitStack() as stack:
        opened = 0
        with suppress(psycopg.OperationalError):
            while opened < CONNECTIONS_MAX:
                await stack.enter_async_context(environment.database())
                opened += 1
        await asyncio.sleep(15 * environment.tier.duration_scale)
    return f"{opened} connections held open"


async def hold_locks(environment: Environment) -> str:
    """Locks an order, a stock row or a table, or makes two sessions deadlock (F-12)."""
    lock = environment.random.choice((_lock_order, _lock_stock, _lock_table, _deadlock))
    try:
        return await lock(environment)
    except pg.QueryCanceled:
        return "the lock was not available"


async def _lock_order(environment: Environment) -> str:
    return await _lock_row(environment, OPEN_ORDER, LOCK_ORDER, "an order row")


async def _lock_stock(environment: Environment) -> str:
    return await _lock_row(environment, BUSIEST_PRODUCT, LOCK_STOCK, "the busiest stock row")


async def _lock_table(environment: Environment) -> str:
    async with environment.database() as database, database.transaction():
        await database.execute("set local statement_timeout = '2s'")
        await database.execute(LOCK_TABLE)
        await asyncio.sleep(4 * environment.tier.duration_scale)
    return "the cart table locked"


async def _lock_row(
    environment: Environment, choose: LiteralString, lock: LiteralString, what: str
) -> str:
    async with environment.database() as database, database.transaction():
        row = await (await database.execute(choose)).fetchone()
        if row is None:
            return f"nothing to lock: {what}"
        await database.execute("set local statement_timeout = '2s'")
        await database.execute(lock, {"id": row[0]})
        seconds = environment.random.choice((2.0, 5.0, 12.0)) * environment.tier.duration_scale
        await asyncio.sleep(seconds)
    return f"{what} locked for {seconds:g} s"


async def _deadlock(environment: Environment) -> str:
    """Two sessions lock two orders in opposite order: PostgreSQL must abort one."""
    async with environment.database() as one, environment.database() as other:
        orders = await (await one.execute(TWO_OPEN_ORDERS)).fetchall()
        if len(orders) < 2:
            return "fewer than two open orders"
        first, second = ({"id": row[0]} for row in orders)

        async def lock(session: psycopg.AsyncConnection[TupleRow], *ids: dict[str, str]) -> bool:
            try:
                async with session.transaction():
                    await session.execute("set local statement_timeout = '5s'")
                    for each in ids:
                        await session.execute(LOCK_ORDER, each)
                        await asyncio.sleep(0.2)
                return True
            except (pg.DeadlockDetected, pg.QueryCanceled):
                return False

        committed = await asyncio.gather(lock(one, first, second), lock(other, second, first))
    return f"a deadlock, {committed.count(False)} sessions aborted"


async def fill_disk(environment: Environment) -> str:
    """Prevents the server's files from growing (F-13; RLIMIT_FSIZE: EFBIG, not ENOSPC)."""
    limited = _limit_files(environment.postgres, FILE_BYTES_MAX)
    try:
        await asyncio.sleep(10 * environment.tier.duration_scale)
    finally:
        with suppress(OSError):  # the server may have exited
            _limit_files(environment.postgres, resource.RLIM_INFINITY)
    await _wait_until_writable(environment)
    if not limited:
        raise FaultUnavailable("the server's file sizes cannot be limited on this machine")
    return f"{limited} server processes could not write beyond {FILE_BYTES_MAX} bytes of a file"


def _limit_files(server: PostgresServer, size: int) -> int:
    """Sets the soft limit of the postmaster and its children; returns how many have it.

    This needs the same user or CAP_SYS_RESOURCE, so a child process of that user does it.
    """
    pids = [server.pid, *children_of(server.pid)]

    def limit() -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

    server.run_as_server_user(limit)
    limit_text = "unlimited" if size == resource.RLIM_INFINITY else str(size)
    return sum(_file_limit(pid) == limit_text for pid in pids)


def _file_limit(pid: int) -> str:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines():
            if line.startswith("Max file size"):
                return line.split()[3]
    return ""


async def _wait_until_writable(environment: Environment) -> None:
    """Restarts the server if the full disk has made it exit, as a supervisor would."""
    try:
        async with asyncio.timeout(5):
            await _wait_until_up(environment)
    except TimeoutError:
        await environment.restart_postgres(signal.SIGQUIT)


# ---------------------------------------------------------------- Redis


async def break_redis(environment: Environment) -> str:
    """Kills, empties, blocks, fills or disconnects Redis, or changes the types of keys (F-14)."""
    url, scale = environment.endpoints.redis_url, environment.tier.duration_scale
    method = environment.random.choice(("kill", "flush", "sleep", "memory", "types", "down"))
    if method == "kill":
        await environment.restart_redis(signal.SIGKILL, down_seconds=3 * scale)
    elif method == "flush":
        await execute(url, "FLUSHALL")
    elif method == "sleep":
        await _block_redis(url, 4 * scale)
    elif method == "memory":
        await execute(url, "CONFIG", "SET", "maxmemory", "1")
        await asyncio.sleep(5 * scale)
        await execute(url, "CONFIG", "SET", "maxmemory", "64mb")
    elif method == "types":
        await _change_key_types(url)
    else:
        await _with_toxic(environment, REDIS, Toxic(kind="down"), 5 * scale)
    return f"redis: {method}"


async def _block_redis(url: str, seconds: float) -> None:
    """Runs scripts in sequence, which block Redis for other clients (DEBUG SLEEP is disabled)."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        await execute(url, "EVAL", BUSY_SCRIPT, "0")


async def _change_key_types(url: str) -> None:
    """Replaces the text under up to 500 present keys by a list."""
    keys = await execute(url, "KEYS", "*")
    for key in keys[:500] if isinstance(keys, list) else []:
        await execute(url, "DEL", str(key))
        await execute(url, "RPUSH", str(key), "not", "text")


# ---------------------------------------------------------------- network


async def break_network(environment: Environment) -> str:
    """Adds latency, resets, half-open connections, slices or low bandwidth to an edge (F-24)."""
    edge = EDGES[environment.activity_log.counts["network faults"] % len(EDGES)]
    environment.activity_log.count("network faults")
    toxic = environment.random.choice(
        (
            Toxic(kind="latency", latency_ms=50, jitter_ms=50),
            Toxic(kind="reset", probability=0.3),
            Toxic(kind="black_hole", probability=0.3),
            Toxic(kind="slicer", probability=0.5),
            Toxic(kind="bandwidth", kilobytes_per_second=10),
        )
    )
    await _with_toxic(environment, edge, toxic, 15 * environment.tier.duration_scale)
    return f"{edge}: {toxic.kind}"


async def break_broker(environment: Environment) -> str:
    """Makes the broker unreachable or adds five seconds of latency (F-08)."""
    toxic = environment.random.choice(
        (Toxic(kind="down"), Toxic(kind="latency", latency_ms=5000, jitter_ms=0))
    )
    seconds = environment.random.choice((3.0, 10.0, 20.0)) * environment.tier.duration_scale
    await _with_toxic(environment, BROKER, toxic, seconds)
    return f"broker: {toxic.kind} for {seconds:g} s"


async def _with_toxic(environment: Environment, edge: str, toxic: Toxic, seconds: float) -> None:
    await environment.proxies.add(edge, toxic)
    try:
        await asyncio.sleep(seconds)
    finally:
        await environment.proxies.remove_toxics(edge)
        await environment.apply_continuous_toxics(edge)


FAULTS = (
    Fault(id="F-08", title="broker down or slow", group="servers", inject=break_broker),
    Fault(id="F-09", title="PostgreSQL crashes", group="servers", inject=crash_database),
    Fault(id="F-11", title="connections exhausted", group="servers", inject=exhaust_connections),
    Fault(id="F-12", title="row and table locks, deadlock", group="servers", inject=hold_locks),
    Fault(id="F-13", title="disk full", group="servers", inject=fill_disk),
    Fault(id="F-14", title="Redis down, empty, slow, full", group="servers", inject=break_redis),
    Fault(id="F-24", title="network faults", group="servers", inject=break_network),
)
