"""The environment of a run: servers, proxies, platform and workload, as faults use them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psycopg
from psycopg.rows import TupleRow

from chaos.controlled_process import ControlledProcess
from chaos.kill_plan import KillPlan
from chaos.provider_faults import ProviderFaults
from chaos.proxy.client import Proxies
from chaos.proxy.toxics import Toxic
from chaos.release_before import ReleaseBefore
from chaos.tiers import Tier
from shop.primitives.spec import FunctionSpec
from tools.local_platform.activator import FunctionPool, FunctionProcess
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.platform import Platform
from tools.local_platform.secrets import Secrets
from tools.local_platform.servers import PostgresServer, RedisServer, ServerFailed
from tools.webhook_receiver import Behaviour, Receiver

DATABASE, REDIS, PROVIDER, BROKER, CLIENTS = "database", "redis", "provider", "broker", "clients"
EDGES = (DATABASE, REDIS, PROVIDER, BROKER, CLIENTS)
SUPERVISION_SECONDS = 1.0


def no_extra_settings(_spec: FunctionSpec) -> Mapping[str, str]:
    """The default of ``Environment.extra_settings``."""
    return {}


def ignore_violation(_id: str, _what: str) -> None:
    """The default of ``Environment.report_violation``."""


@dataclass(kw_only=True)
class Environment:
    """Everything that faults act on.

    ``extra_settings`` returns environment variables that new processes of a function get in
    addition.  ``restart_lock`` is held while PostgreSQL is stopped and started.
    ``shortened_orders`` are the orders that F-17 gave less time to be paid.  ``endpoints`` are the
    addresses behind the proxies.
    """

    tier: Tier
    seed: int
    data: Path
    random: Random
    activity_log: ActivityLog
    postgres: PostgresServer
    redis: RedisServer
    endpoints: Endpoints
    proxies: Proxies
    kill_plan: KillPlan
    message_faults: DeliveryFaults
    provider_faults: ProviderFaults
    second_jwt_key: str
    edge_url: str
    receiver: Receiver
    platform: Platform = field(init=False)
    workload: ControlledProcess = field(init=False)
    extra_settings: Callable[[FunctionSpec], Mapping[str, str]] = no_extra_settings
    poison_events: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    shortened_orders: set[str] = field(default_factory=set[str])
    restart_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    paused_groups: set[int] = field(default_factory=set[int])
    continuous_toxics: Mapping[str, Toxic] = field(default_factory=dict[str, Toxic])
    signs_with_second_key: bool = False
    report_violation: Callable[[str, str], None] = ignore_violation
    release_before: ReleaseBefore | None = None

    @property
    def admin_url(self) -> str:
        """PostgreSQL as its administrator, bypassing the proxies."""
        return self.endpoints.admin_url

    @property
    def provider_url(self) -> str:
        """The payment simulator, bypassing the proxies."""
        return self.endpoints.provider_url

    @property
    def secrets(self) -> Secrets:
        """All keys and passwords of this run."""
        return self.endpoints.secrets

    @property
    def client_log(self) -> Path:
        """The SQLite file in which the workload logs its requests."""
        return self.data / "clients.sqlite"

    def pools(self) -> list[FunctionPool]:
        """The process pools of all functions."""
        return list(self.platform.activator.pools.values())

    def processes(self, *functions: str) -> list[FunctionProcess]:
        """Processes that accept requests now, of all functions or of those named."""
        return [
            process
            for pool in self.pools()
            if not functions or pool.spec.name in functions
            for process in pool.processes
            if process.is_ready and not process.is_stopping
        ]

    def pool_of(self, process: FunctionProcess) -> FunctionPool:
        """The pool that the process belongs to."""
        return next(pool for pool in self.pools() if process in pool.processes)

    def choose_process(self, *functions: str) -> FunctionProcess | None:
        """A random process that accepts requests, preferably a busy one; None without any."""
        running = self.processes(*functions)
        busy = [process for process in running if process.in_flight]
        return self.random.choice(busy or running) if running else None

    @asynccontextmanager
    async def database(self) -> AsyncGenerator[psycopg.AsyncConnection[TupleRow], None]:
        """An administrator's connection in autocommit mode, bypassing the proxies."""
        connection = await psycopg.AsyncConnection.connect(
            self.admin_url, autocommit=True, connect_timeout=5, application_name="fault run"
        )
        async with connection:
            yield connection

    async def restart_postgres(self, *signals: int, down_seconds: float = 0.0) -> None:
        """Stops the server with these signals and starts it again at the same port."""
        async with self.restart_lock:
            await asyncio.to_thread(self.postgres.stop, *signals)
            await asyncio.sleep(down_seconds)
            await asyncio.to_thread(self.postgres.start)

    async def supervise_postgres(self) -> None:
        """Restarts the server when it has exited outside of a fault; runs until cancelled."""
        while True:
            await asyncio.sleep(SUPERVISION_SECONDS)
            async with self.restart_lock:
                if self.postgres.has_ended:
                    self.activity_log.write("PostgreSQL has exited and is restarted")
                    with suppress(ServerFailed):
                        await asyncio.to_thread(self.postgres.start)

    async def restart_redis(self, *signals: int, down_seconds: float = 0.0) -> None:
        """Stops the server with these signals and starts it again, empty, at the same port."""
        await asyncio.to_thread(self.redis.stop, *signals)
        await asyncio.sleep(down_seconds)
        await asyncio.to_thread(self.redis.start)

    def resume_paused(self) -> None:
        """Sends SIGCONT to every process group that a fault has stopped."""
        for group in list(self.paused_groups):
            self.paused_groups.discard(group)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGCONT)

    async def apply_continuous_toxics(self, *edges: str) -> None:
        """Adds the toxics of F-10 to these edges, or to all."""
        for edge, toxic in self.continuous_toxics.items():
            if not edges or edge in edges:
                await self.proxies.add(edge, toxic)

    async def remove_all_faults(self) -> None:
        """Ends every fault; from then on the shop has to recover without help."""
        self.kill_plan.is_active = False
        self.receiver.behaves(Behaviour.ACCEPT)
        self.continuous_toxics = {}
        self.extra_settings = no_extra_settings
        self.resume_paused()
        faults = self.message_faults
        faults.duplicate = faults.reorder = faults.lose = faults.kill = 0.0
        await self.proxies.remove_toxics()
        await self.provider_faults.remove_all()
