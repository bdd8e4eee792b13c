"""Raises the world of a run: servers, schema, proxies on every edge, platform, load."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import IO, Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chaos.controlled_process import ControlledProcess
from chaos.crash_plan import CrashPlan, WatchedChildren
from chaos.environment import BROKER, CLIENTS, DATABASE, PROVIDER, REDIS, Environment
from chaos.faults.messages import second_key
from chaos.fork_server.interpreter import WarmInterpreter
from chaos.provider_faults import ProviderFaults
from chaos.proxies import Proxies
from chaos.seed_history import write_history
from chaos.tiers import Tier
from shop.adapters.tokens import public_jwk
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from tools.local_platform.activator import FunctionLaunch, ScalingLimits
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.broker import DeliveryRule
from tools.local_platform.child_processes import ChildProcesses
from tools.local_platform.command import compile_code
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.http_listener import listen
from tools.local_platform.platform import PlatformConfig, payment_simulator, start_platform
from tools.local_platform.secrets import Secrets, local_secrets, new_key
from tools.local_platform.servers import PostgresServer, RedisServer, free_port
from tools.migrate import migrate
from tools.seed import seed as seed_database

# Two cores cannot start many processes at once: each would take so much longer.
PROCESSES_MAX = 2
PATIENCE_SECONDS = 1.5
IDLE_SECONDS = 60.0
READY_SECONDS = 120.0
# What a laptop's own profile limits, and a run must not be limited by.
KNOBS = {
    "RATE_LIMIT_PER_MINUTE": "0",
    "OPEN_ORDERS_MAX": "100000",
    "PAYMENT_PROVIDER_TIMEOUT_SECONDS": "2",
    "SETTLEMENTS_AUTH": "finance",
}


class LoggedJournal(ActivityLog):
    """Counts, and writes its lines to a file instead of the terminal."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__(quiet=True)
        self._file = file

    def write(self, line: str) -> None:
        """One line into the file."""
        self._file.write(line + "\n")


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a run is opened with; ``time_zone`` is one whose midnight comes during the run.

    ``archives``: PostgreSQL keeps its log; ``accounts`` is the number of customers.
    """

    tier: Tier
    seed: int
    data: Path
    crashes: CrashPlan
    time_zone: str
    on_load_line: Callable[[dict[str, Any]], None]
    archives: bool = False
    accounts: int = 120

    @property
    def knobs(self) -> dict[str, str]:
        """Every setting of the functions that is not its default."""
        soft, hard = self.tier.expiry_seconds
        return KNOBS | {
            "ORDER_SOFT_EXPIRY_SECONDS": str(soft),
            "ORDER_HARD_EXPIRY_SECONDS": str(hard),
            "BUSINESS_TIME_ZONE": self.time_zone,
        }


@asynccontextmanager
async def open_scene(opening: Opening) -> AsyncIterator[Environment]:
    """The whole shop with a proxy on every edge and the load ready to begin; ended at the end."""
    compile_code()
    (opening.data / "log").mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(_environment(opening.knobs))
        file = stack.enter_context((opening.data / "platform.log").open("w", encoding="utf-8"))
        scene = await _raise(opening, stack, LoggedJournal(file))
        yield scene
        scene.thaw()


async def _raise(opening: Opening, stack: AsyncExitStack, activity_log: ActivityLog) -> Environment:
    postgres = PostgresServer(opening.data, archives=opening.archives)
    redis = RedisServer()
    stack.callback(redis.stop)
    stack.callback(postgres.stop)
    admin_url = await asyncio.to_thread(postgres.start)
    redis_url = await asyncio.to_thread(redis.start)
    await asyncio.to_thread(migrate, admin_url)
    await asyncio.to_thread(seed_database, admin_url)
    plan = _plan(opening)
    second_jwt_key = new_key()
    secrets = _with_second_key(local_secrets(opening.data / "secrets", plan.specs), second_jwt_key)
    warm = await stack.enter_async_context(WarmInterpreter(opening.data / "log"))
    children = stack.enter_context(WatchedChildren(opening.crashes, warm))
    provider_url = await stack.enter_async_context(
        payment_simulator(plan, children, secrets, opening.data / "log")
    )
    internal = listen(0)
    direct = Endpoints(
        admin_url=admin_url,
        redis_url=redis_url,
        broker_url=f"http://127.0.0.1:{internal.getsockname()[1]}/",
        provider_url=provider_url,
        secrets=secrets,
        has_own_database=True,
    )
    provider = ProviderFaults(provider_url, secrets.provider_api_key, opening.seed)
    stack.push_async_callback(provider.close)
    proxies = await stack.enter_async_context(Proxies(seed=opening.seed))
    scene = Environment(
        tier=opening.tier,
        seed=opening.seed,
        data=opening.data,
        dice=Random(opening.seed),  # noqa: S311 (repeatable, not secret)
        activity_log=activity_log,
        postgres=postgres,
        redis=redis,
        endpoints=direct,
        specs=plan.specs,
        proxies=proxies,
        crashes=opening.crashes,
        message_faults=plan.faults,
        provider=provider,
        second_jwt_key=second_jwt_key,
        edge_url=f"http://127.0.0.1:{plan.port}",
    )
    await _start_platform(opening, stack, plan, scene, children, internal)
    return scene


async def _start_platform(
    opening: Opening,
    stack: AsyncExitStack,
    plan: PlatformConfig,
    scene: Environment,
    children: ChildProcesses,
    internal: socket.socket,
) -> None:
    """Platform and load; the functions' way to everything leads through the proxies."""
    proxied = await _proxied(scene.endpoints, scene.proxies)
    launch = FunctionLaunch(
        command=plan.function_command,
        environment=lambda spec: _told(proxied.environment_for(spec), spec, opening, scene),
        logs=opening.data / "log",
    )
    scene.platform = await start_platform(
        plan,
        scene.activity_log,
        stack,
        children,
        scene.endpoints,
        launch,
        listen(plan.port),
        internal,
    )
    # the days of the past are for processes that die while they close them
    scene.platform.activator.pools["settle"].is_disabled = True
    await write_history(scene)
    edge_port = await scene.proxies.open(CLIENTS, plan.port, "http")
    scene.load = await _open_load(opening, stack, scene, f"http://127.0.0.1:{edge_port}")


def _plan(opening: Opening) -> PlatformConfig:
    return PlatformConfig(
        specs=all_specs(),
        function_command=lambda function: [sys.executable, "-m", "shop.runtime", function],
        simulator_command=[sys.executable, "-m", "tools.payment_simulator"],
        migrate=migrate,
        seed=seed_database,
        port=free_port(),
        data=opening.data,
        limits=ScalingLimits(
            idle_seconds=IDLE_SECONDS,
            processes_max=PROCESSES_MAX,
            scale_out_after_seconds=PATIENCE_SECONDS,
        ),
        faults=DeliveryFaults(seed=opening.seed),
        rule=DeliveryRule(),
    )


async def _proxied(direct: Endpoints, proxies: Proxies) -> Endpoints:
    """The functions' way to everything: through the proxies."""
    database = await proxies.open(DATABASE, _port(direct.admin_url), "postgres")
    redis = await proxies.open(REDIS, _port(direct.redis_url), "other")
    provider = await proxies.open(PROVIDER, _port(direct.provider_url), "http")
    broker = await proxies.open(BROKER, _port(direct.broker_url), "http")
    return replace(
        direct,
        admin_url=direct.admin_url.replace(f":{_port(direct.admin_url)}/", f":{database}/"),
        redis_url=f"redis://127.0.0.1:{redis}/0",
        provider_url=f"http://127.0.0.1:{provider}",
        broker_url=f"http://127.0.0.1:{broker}/",
    )


def _with_second_key(secrets: Secrets, pem: str) -> Secrets:
    """Both public keys are published from the start, so either may sign (F-26)."""
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, Ed25519PrivateKey), "new_key makes no other"
    published = json.loads(secrets.jwks)["keys"]
    both = [*published, public_jwk(key.public_key().public_bytes_raw())]
    return replace(secrets, jwks=json.dumps({"keys": both}))


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None, "every address here has its port"
    return port


def _told(
    environment: Mapping[str, str], spec: FunctionSpec, opening: Opening, scene: Environment
) -> dict[str, str]:
    """What a new process is told: its settings, what a fault adds, and where to die."""
    told = {**environment, **opening.knobs, **scene.told(spec), **second_key(scene, spec)}
    pair = opening.crashes.arm(spec.name)
    if pair is not None:
        told["SHOP_CRASH"] = pair.setting(opening.crashes.nth(pair))
    return told


async def _open_load(
    opening: Opening, stack: AsyncExitStack, scene: Environment, url: str
) -> ControlledProcess:
    ready = asyncio.Event()

    def on_line(line: dict[str, Any]) -> None:
        if line.get("ready"):
            ready.set()
        else:
            opening.on_load_line(line)

    log = stack.enter_context((opening.data / "load.log").open("ab"))
    load = ControlledProcess("load", on_line)
    stack.push_async_callback(load.stop)
    arguments = ["-m", "chaos.workload", "--url", url, "--seed", str(opening.seed)]
    arguments += ["--orders", str(opening.tier.orders)]
    arguments += ["--seconds", f"{opening.tier.load_seconds:g}"]
    arguments += ["--log", str(scene.clients)]
    arguments += ["--accounts", str(opening.accounts)]
    await load.start(arguments, log)
    async with asyncio.timeout(READY_SECONDS):
        await ready.wait()
    return load


@contextmanager
def _environment(knobs: Mapping[str, str]) -> Iterator[None]:
    """The knobs as variables while the run lasts: migrating reads the time zone from there."""
    before = {name: os.environ.get(name) for name in knobs}
    os.environ.update(knobs)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
