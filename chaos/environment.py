"""Everything a fault can lay hands on: the servers, the proxies, the platform, the load."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from chaos.controlled_process import ControlledProcess
from chaos.crash_plan import CrashPlan
from chaos.provider_faults import ProviderFaults
from chaos.proxies import Proxies
from chaos.tiers import Tier
from chaos.toxics import Toxic
from shop.primitives.spec import FunctionSpec
from tools.local_platform.activator import FunctionPool, FunctionProcess
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.platform import Platform
from tools.local_platform.secrets import Secrets
from tools.local_platform.servers import PostgresServer, RedisServer, ServerFailed

DATABASE, REDIS, PROVIDER, BROKER, CLIENTS = "database", "redis", "provider", "broker", "clients"
SUPERVISED_SECONDS = 1.0
EDGES = (DATABASE, REDIS, PROVIDER, BROKER, CLIENTS)


@dataclass(kw_only=True)
class Environment:
    """One run's world.  ``told`` is the environment that new processes get on top of theirs.

    Whoever stops PostgreSQL and starts it again holds ``restarting``.
    ``cut_short`` are the orders that a fault left little time to be paid (F-17).
    """

    tier: Tier
    seed: int
    data: Path
    dice: Random
    activity_log: ActivityLog
    postgres: PostgresServer
    redis: RedisServer
    endpoints: Endpoints
    specs: tuple[FunctionSpec, ...]
    proxies: Proxies
    crashes: CrashPlan
    message_faults: DeliveryFaults
    provider: ProviderFaults
    second_jwt_key: str
    edge_url: str
    platform: Platform = field(init=False)
    load: ControlledProcess = field(init=False)
    told: Callable[[FunctionSpec], Mapping[str, str]] = lambda _spec: {}
    poison: list[tuple[str, str]] = field(default_factory=list)
    cut_short: set[str] = field(default_factory=set)
    restarting: asyncio.Lock = field(default_factory=asyncio.Lock)
    frozen: set[int] = field(default_factory=set)
    steady: Mapping[str, Toxic] = field(default_factory=dict)
    signs_with_second_key: bool = False
    notice: Callable[[str, str], None] = lambda _id, _what: None

    @property
    def admin_url(self) -> str:
        """PostgreSQL, past all proxies, as its administrator."""
        return self.endpoints.admin_url

    @property
    def provider_url(self) -> str:
        """The provider, past all proxies."""
        return self.endpoints.provider_url

    @property
    def secrets(self) -> Secrets:
        """All keys and passwords of this run's shop."""
        return self.endpoints.secrets

    @property
    def clients(self) -> Path:
        """The file in which the clients write down what they do."""
        return self.data / "clients.sqlite"

    def pools(self) -> list[FunctionPool]:
        """The process pools of all functions."""
        return list(self.platform.activator.pools.values())

    def processes(self, *functions: str) -> list[FunctionProcess]:
        """Processes that serve now, of all functions or of those named."""
        return [
            process
            for pool in self.pools()
            if not functions or pool.spec.name in functions
            for process in pool.processes
            if process.is_ready and not process.is_stopping
        ]

    def pool_of(self, process: FunctionProcess) -> FunctionPool:
        """Whose process it is."""
        return next(pool for pool in self.pools() if process in pool.processes)

    def choose(self, *functions: str) -> FunctionProcess | None:
        """Some process that serves now, busy ones first."""
        there = self.processes(*functions)
        busy = [process for process in there if process.in_flight]
        return self.dice.choice(busy or there) if there else None

    @asynccontextmanager
    async def database(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """An administrator's connection past all proxies, which commits every statement."""
        connection = await psycopg.AsyncConnection.connect(
            self.admin_url, autocommit=True, connect_timeout=5, application_name="fault run"
        )
        async with connection:
            yield connection

    async def restart_postgres(self, *signals: int, down_seconds: float = 0.0) -> None:
        """Ends the server as told and starts it again at its port."""
        async with self.restarting:
            await asyncio.to_thread(self.postgres.stop, *signals)
            await asyncio.sleep(down_seconds)
            await asyncio.to_thread(self.postgres.start)

    async def keep_postgres_up(self) -> None:
        """Starts it again when it has ended and no fault will, as its supervisor would."""
        while True:
            await asyncio.sleep(SUPERVISED_SECONDS)
            async with self.restarting:
                if self.postgres.has_ended:
                    self.activity_log.write("PostgreSQL has ended: it is started again")
                    with suppress(ServerFailed):
                        await asyncio.to_thread(self.postgres.start)

    async def restart_redis(self, *signals: int, down_seconds: float = 0.0) -> None:
        """Ends the server as told and starts it again, empty, at its port."""
        await asyncio.to_thread(self.redis.stop, *signals)
        await asyncio.sleep(down_seconds)
        await asyncio.to_thread(self.redis.start)

    def thaw(self) -> None:
        """Lets everything go on that was stopped."""
        for pid in list(self.frozen):
            self.frozen.discard(pid)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGCONT)

    async def put_steady_toxics(self, *edges: str) -> None:
        """What goes wrong on these edges (or all) whatever else does: F-10 and its kin."""
        for edge, toxic in self.steady.items():
            if not edges or edge in edges:
                await self.proxies.put(edge, toxic)

    async def heal(self) -> None:
        """Takes every fault off: from here on the shop is left alone."""
        self.crashes.is_on = False
        self.steady = {}
        self.told = lambda _spec: {}
        self.thaw()
        faults = self.message_faults
        faults.duplicate = faults.reorder = faults.lose = faults.kill = 0.0
        await self.proxies.heal()
        await self.provider.heal()
