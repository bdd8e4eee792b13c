"""Measures what an idle shop does: processes, queries, connections and pod seconds.

    python -m tools.bench.idle [--minutes N] [--check]

Runs the local platform with KEDA in place of its clock: the query of each ScaledJob, at the
interval of its schedule, and a process of ``tools.tick`` for each pod that KEDA would start.  First
an order is placed and paid, and the jobs that follow from it are brought forward and done, so that
nothing becomes due within the measured time.  Then nothing is sent; the time is the real one.

``--check`` exits with 1 when a process ran or there was more than one query a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString
from uuid import uuid4

import httpx
import psycopg

from shop.primitives.spec import FunctionSpec, Schedule
from shop.registry import all_specs
from tools.bench.report import compare_with_target, machine_description, table
from tools.local_platform.activator import Activator, FunctionLaunch, ScalingLimits
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.child_processes import ChildProcesses
from tools.local_platform.command import compile_code
from tools.local_platform.function_environment import Endpoints, inherited
from tools.local_platform.http_listener import (
    Application,
    Receive,
    Scope,
    Send,
    listen,
    read_body,
    reply,
    serving,
)
from tools.local_platform.http_messages import HttpRequest
from tools.local_platform.platform import (
    Platform,
    PlatformConfig,
    payment_simulator,
    start_platform,
)
from tools.local_platform.secrets import CLOCK, local_secrets
from tools.local_platform.servers import PostgresServer, free_port, redis
from tools.migrate import migrate
from tools.render.keda import due_query, due_schedules
from tools.seed import LOCAL_ACCOUNTS
from tools.seed import seed as seed_database

IDLE_SECONDS = 1.0
PREPARATION_SECONDS_MAX = 300.0
EVENT_BYTES_MAX = 64 * 1024
QUERIES_PER_MINUTE_MAX = 1.0
STATISTICS = {
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track_planning": "on",
}
ORDER = {"productId": 1, "quantity": 1, "paymentMethod": "CARD"}
COLUMNS = (
    "idle",
    "function processes",
    "tick processes",
    "pod seconds",
    "queries",
    "per minute",
    "ms each",
    "connections",
)

PAID: LiteralString = "select count(*) from shop.orders where status = 'PAID'"
# reconciliation with the provider is due in minutes, and in a day once it has read nothing new
BRING_FORWARD: LiteralString = "update shop.reconciliation set next_run_at = now()"
RECONCILED: LiteralString = "update shop.reconciliation set ran_at = now()"
NEXT_DUE: LiteralString = """
select kind, extract(epoch from due_at - now())::float8 from shop.due_work
order by due_at limit 1
"""
# without this program's own queries
QUERIES: LiteralString = """
select coalesce(sum(calls), 0)::int, coalesce(sum(total_plan_time + total_exec_time), 0)::float8
from pg_stat_statements where query not like '%pg\\_stat\\_%'
"""
CONNECTIONS: LiteralString = """
select count(*)::int from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid()
"""


class ScaledJob:
    """What KEDA does for one schedule: its query, its connection, and the pods of the ticks."""

    def __init__(
        self,
        spec: FunctionSpec,
        schedule: Schedule,
        connection: psycopg.AsyncConnection[tuple[int]],
        tick: Tick,
    ) -> None:
        self.ticks = 0
        self._spec, self._schedule = spec, schedule
        self._connection, self._tick = connection, tick
        self._query = due_query(schedule).encode()

    async def poll(self) -> int:
        """Counts the due rows, and runs the ticks that they require; returns the rows."""
        cursor = await self._connection.execute(self._query, prepare=True)
        row = await cursor.fetchone()
        due = row[0] if row else 0
        wanted = math.ceil(due / self._schedule.rows_per_process)
        count = min(self._spec.scale.max_scale, wanted)
        self.ticks += count
        await asyncio.gather(*(self._tick.run(self._spec, self._schedule) for _ in range(count)))
        return due

    async def run(self, seconds: float) -> None:
        """Polls at the schedule's interval, for a time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(math.ceil(seconds / self._schedule.poll_seconds)):
            at = began + number * self._schedule.poll_seconds
            await asyncio.sleep(max(0.0, at - loop.time()))
            await self.poll()


@dataclass(frozen=True, kw_only=True)
class Tick:
    """Runs ``tools.tick`` as a process, as the pod of a Job does."""

    children: ChildProcesses
    environment: dict[str, str]
    sinks_port: int
    log: Path

    async def run(self, spec: FunctionSpec, schedule: Schedule) -> None:
        """One tick, until its process ends."""
        sink = f"http://127.0.0.1:{self.sinks_port}/{spec.name}/events"
        command = [sys.executable, "-m", "tools.tick", schedule.name, sink]
        child = await self.children.start(command, self.environment, self.log)
        await child.ended


def sinks(activator: Activator) -> Application:
    """Takes ``POST /<function>/events``, as a function's address inside a cluster does."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        function = str(scope["path"]).split("/")[1]
        body = await read_body(receive, EVENT_BYTES_MAX)
        headers = [(name, text) for name, text in scope["headers"] if name != b"content-length"]
        request = HttpRequest("POST", b"/events", headers, body)
        await reply(send, await activator.send(function, request))

    return application


@dataclass
class IdleShop:
    """The running shop and its schedules."""

    url: str
    platform: Platform
    activity_log: ActivityLog
    connection: psycopg.AsyncConnection[tuple[Any, ...]]
    jobs: list[ScaledJob] = field(default_factory=list[ScaledJob])

    async def sql(self, statement: LiteralString) -> tuple[Any, ...]:
        """The first row of a statement, or an empty one."""
        cursor = await self.connection.execute(statement)
        return (await cursor.fetchone() if cursor.description else None) or ()

    def pod_seconds(self) -> float:
        """The seconds of all function processes so far."""
        now = asyncio.get_running_loop().time()
        running = (p for pool in self.platform.activator.pools.values() for p in pool.processes)
        ended = sum(self.activity_log.process_seconds.values())
        return ended + sum(now - process.began_at for process in running)


@dataclass(frozen=True, kw_only=True)
class Rest:
    """What happened while nothing was sent and nothing was due."""

    minutes: float
    starts: int
    ticks: int
    pod_seconds: float
    queries: int
    query_ms: float
    connections: int

    def row(self) -> tuple[object, ...]:
        """The figures as cells of the table."""
        return (
            f"{self.minutes:g} min",
            self.starts,
            self.ticks,
            f"{self.pod_seconds:.1f}",
            self.queries,
            f"{self.queries / self.minutes:.2f}",
            f"{self.query_ms / self.queries:.2f}" if self.queries else "",
            self.connections,
        )

    def targets(self) -> list[tuple[str, float, float]]:
        """Name, value and limit of each target; each schedule may query once at the start."""
        queries_max = max(QUERIES_PER_MINUTE_MAX * self.minutes, len(due_schedules()))
        return [
            ("function processes started", self.starts, 0),
            ("tick processes started", self.ticks, 0),
            ("pod seconds", self.pod_seconds, 0),
            ("queries", self.queries, queries_max),
        ]

    @property
    def is_idle(self) -> bool:
        """Whether every value is within its limit."""
        return all(value <= limit for _, value, limit in self.targets())


def no_settings(_spec: FunctionSpec) -> dict[str, str]:
    """The default of ``idle_shop``."""
    return {}


@asynccontextmanager
async def idle_shop(
    folder: Path,
    settings_of: Callable[[FunctionSpec], dict[str, str]] = no_settings,
    idle_seconds: float = IDLE_SECONDS,
) -> AsyncGenerator[IdleShop]:
    """A running shop with an empty database, whose business day ends in twelve hours.

    ``settings_of`` returns what a new process of a function gets in addition.
    """
    compile_code()
    async with AsyncExitStack() as stack:
        server = PostgresServer(folder, durable=False, settings=STATISTICS)
        stack.callback(server.stop)
        admin_url = await asyncio.to_thread(server.start)
        await asyncio.to_thread(migrate, admin_url, business_time_zone=zone_at_noon())
        await asyncio.to_thread(seed_database, admin_url)
        yield await _start(_config(folder, idle_seconds), stack, admin_url, settings_of)


def zone_at_noon() -> str:
    """A time zone in which it is noon now: closing a day must not become due."""
    hours = 12 - datetime.now(UTC).hour
    return f"Etc/GMT{'-' if hours > 0 else '+'}{abs(hours)}"  # Etc's signs are inverted


async def _start(
    config: PlatformConfig,
    stack: AsyncExitStack,
    admin_url: str,
    settings_of: Callable[[FunctionSpec], dict[str, str]],
) -> IdleShop:
    folder, log = config.data, ActivityLog(quiet=True)
    secrets = local_secrets(folder / "secrets", all_specs())
    children = stack.enter_context(ChildProcesses())
    simulator = payment_simulator(config, children, secrets, folder)
    internal = listen(0)
    endpoints = Endpoints(
        admin_url=admin_url,
        redis_url=stack.enter_context(redis()),
        broker_url=f"http://127.0.0.1:{internal.getsockname()[1]}/",
        provider_url=await stack.enter_async_context(simulator),
        secrets=secrets,
        has_own_database=True,
    )
    zone = {"BUSINESS_TIME_ZONE": zone_at_noon()}
    launch = FunctionLaunch(
        command=config.function_command,
        environment=lambda spec: endpoints.environment_for(spec) | zone | settings_of(spec),
        logs=folder,
    )
    platform = await start_platform(
        config, log, stack, children, endpoints, launch, listen(config.port), internal
    )
    listener = listen(0)
    await stack.enter_async_context(serving(sinks(platform.activator), listener))
    tick = Tick(
        children=children,
        environment=inherited(os.environ)
        | {
            "SHOP_PROFILE": "local",
            "EVENT_SIGNING_KEY": secrets.event_keys[CLOCK],
            "EVENT_KEYS": secrets.event_key_set,
        },
        sinks_port=listener.getsockname()[1],
        log=folder / "ticks.log",
    )
    connection = await _connect(stack, admin_url)
    await connection.execute("create extension pg_stat_statements")
    shop = IdleShop(f"http://127.0.0.1:{config.port}", platform, log, connection)
    for spec, schedule in due_schedules():
        own = await _connect(stack, endpoints.database_url("ops"))
        shop.jobs.append(ScaledJob(spec, schedule, own, tick))
    return shop


async def _connect(stack: AsyncExitStack, url: str) -> psycopg.AsyncConnection[Any]:
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
    return await stack.enter_async_context(connection)


def _config(folder: Path, idle_seconds: float) -> PlatformConfig:
    return PlatformConfig(
        # without schedules the platform's own clock does nothing
        specs=tuple(replace(spec, schedules=()) for spec in all_specs()),
        function_command=lambda function: [sys.executable, "-m", "shop.runtime", function],
        simulator_command=[sys.executable, "-m", "tools.payment_simulator"],
        mail_catcher_command=[sys.executable, "-m", "tools.mail_catcher"],
        migrate=migrate,
        seed=seed_database,
        port=free_port(),
        data=folder,
        limits=ScalingLimits(idle_seconds=idle_seconds),
    )


async def prepare(shop: IdleShop, seconds: float) -> None:
    """Places an order and does all that follows from it; then nothing is due for a time.

    Raises TimeoutError when that takes more than five minutes.
    """
    async with asyncio.timeout(PREPARATION_SECONDS_MAX):
        await place_order(shop)
        while await shop.sql(PAID) != (1,):
            await _do_due_work(shop)
        for statement in (BRING_FORWARD, BRING_FORWARD, RECONCILED):
            await shop.sql(statement)
            await _do_due_work(shop)
        while (await shop.sql(NEXT_DUE) or ("", math.inf))[1] <= seconds:
            await _do_due_work(shop)


async def place_order(shop: IdleShop) -> None:
    """One order of a seeded customer, through the edge."""
    email, password = next((e, p) for role, e, p in LOCAL_ACCOUNTS if role == "customer")
    async with httpx.AsyncClient(base_url=shop.url, timeout=90) as client:
        login = await client.post("/auth/login", json={"email": email, "password": password})
        token = login.raise_for_status().json()["accessToken"]
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": uuid4().hex}
        (await client.post("/orders", json=ORDER, headers=headers)).raise_for_status()


async def _do_due_work(shop: IdleShop) -> None:
    """Polls each second until nothing is due and every function has scaled to zero."""
    while sum([await job.poll() for job in shop.jobs]) or shop.platform.activator.processes():
        await asyncio.sleep(1.0)


async def measure(shop: IdleShop, seconds: float) -> Rest:
    """What happens while nothing is sent, beside KEDA's queries."""
    starts, pod_seconds = shop.activity_log.counts["starts"], shop.pod_seconds()
    ticks = sum(job.ticks for job in shop.jobs)
    await shop.sql("select pg_stat_statements_reset()")
    await asyncio.gather(asyncio.sleep(seconds), *(job.run(seconds) for job in shop.jobs))
    queries, query_ms = await shop.sql(QUERIES)
    (connections,) = await shop.sql(CONNECTIONS)
    return Rest(
        minutes=seconds / 60,
        starts=shop.activity_log.counts["starts"] - starts,
        ticks=sum(job.ticks for job in shop.jobs) - ticks,
        pod_seconds=shop.pod_seconds() - pod_seconds,
        queries=queries,
        query_ms=query_ms,
        connections=connections,
    )


async def run(minutes: float) -> Rest:
    """Measures a shop of its own for a time."""
    with tempfile.TemporaryDirectory(prefix="shop-idle-") as folder:
        async with idle_shop(Path(folder)) as shop:
            await prepare(shop, minutes * 60)
            return await measure(shop, minutes * 60)


def report(rest: Rest, *, check: bool) -> int:
    """Prints the figures; returns 1 when the shop did more than it may and ``check`` is given."""
    print(f"{machine_description()}\n")
    print(table(COLUMNS, [rest.row()]))
    print()
    for name, value, limit in rest.targets():
        print(compare_with_target(name, value, limit))
    return int(check and not rest.is_idle)


def main(arguments: list[str]) -> int:
    """Runs the bench; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.idle")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    return report(asyncio.run(run(options.minutes)), check=options.check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
