"""Starts the environment of a run: servers, schema, proxies on every edge, platform, workload."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import IO, LiteralString
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chaos.controlled_process import ControlledProcess, JsonObject
from chaos.environment import BROKER, CLIENTS, DATABASE, PROVIDER, REDIS, Environment
from chaos.faults.messages import second_key_settings
from chaos.fork_server.client import ForkServer
from chaos.kill_plan import KillPlan, KillPlanChildren
from chaos.mails import set_mail_faults
from chaos.provider_faults import ProviderFaults
from chaos.proxy.client import Proxies
from chaos.release_before import ReleaseBefore
from chaos.seed_history import write_history
from chaos.tiers import Tier
from shop.adapters.tokens import public_jwk
from shop.primitives.spec import FunctionSpec
from shop.registry import all_specs
from tools.local_platform.activator import FunctionLaunch, ScalingLimits
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.broker import DeliveryRule, LocalBrokerClass
from tools.local_platform.child_processes import ChildProcesses
from tools.local_platform.command import compile_code
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.http_listener import listen
from tools.local_platform.platform import (
    PlatformConfig,
    mail_catcher,
    payment_simulator,
    start_platform,
)
from tools.local_platform.secrets import Secrets, local_secrets, new_key
from tools.local_platform.servers import PostgresServer, RedisServer, free_port
from tools.migrate import migrate
from tools.seed import seed as seed_database
from tools.webhook_receiver import running_receiver

# Two cores cannot start many processes at once: each start would take longer.
PROCESSES_MAX = 2
SCALE_OUT_AFTER_SECONDS = 1.5
IDLE_SECONDS = 60.0
READY_SECONDS = 120.0
# Raises the limits of the local profile that a run would exceed.
ADD_WEBHOOK: LiteralString = """
insert into shop.webhooks (webhook_id, url, event_types)
values (gen_random_uuid(), %(url)s, '{order.paid,order.cancelled,refund.succeeded}')
"""
FUNCTION_SETTINGS = {
    "RATE_LIMIT_PER_MINUTE": "0",
    "OPEN_ORDERS_MAX": "100000",
    "UNPAID_STOCK_PERCENT": "0",
    "PAYMENT_PROVIDER_TIMEOUT_SECONDS": "2",
    "PAYMENT_ACTION_SECONDS": "30",
    "PAYMENT_TRANSFER_SECONDS": "60",
    "SETTLEMENTS_AUTH": "finance",
}


class FileLog(ActivityLog):
    """An activity log that writes its lines to a file instead of the terminal."""

    def __init__(self, file: IO[str]) -> None:
        super().__init__(quiet=True)
        self._file = file

    def write(self, line: str) -> None:
        """Writes one line to the file."""
        self._file.write(line + "\n")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The parameters of an environment.

    ``time_zone`` is the business time zone: its midnight should fall into the run.
    ``broker_class`` is what the platform's broker behaves as.  ``has_wal_archive``: PostgreSQL
    archives its WAL.  ``accounts`` is the number of customers.  ``release_before`` prepares the
    database, which then has no history and no webhook, and runs its share of the processes.
    """

    tier: Tier
    seed: int
    data: Path
    kill_plan: KillPlan
    time_zone: str
    broker_class: LocalBrokerClass = LocalBrokerClass.LOCAL
    has_wal_archive: bool = False
    accounts: int = 120
    release_before: ReleaseBefore | None = None

    @property
    def function_settings(self) -> dict[str, str]:
        """Every setting of the functions that differs from its default."""
        soft, hard = self.tier.expiry_seconds
        return FUNCTION_SETTINGS | {
            "ORDER_SOFT_EXPIRY_SECONDS": str(soft),
            "ORDER_HARD_EXPIRY_SECONDS": str(hard),
            "BUSINESS_TIME_ZONE": self.time_zone,
            "BROKER_CLASS": self.broker_class,
        }


@asynccontextmanager
async def open_environment(
    settings: RunSettings,
    on_workload_line: Callable[[JsonObject], None],
    before_workload: Callable[[Environment], Awaitable[None]] | None = None,
) -> AsyncGenerator[Environment, None]:
    """The whole shop with a proxy on every edge and the workload ready; stopped with the block.

    ``before_workload`` runs before the workload makes its accounts and products.
    """
    compile_code()
    (settings.data / "log").mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(_environment_variables(settings.function_settings))
        file = stack.enter_context((settings.data / "platform.log").open("w", encoding="utf-8"))
        environment = await _start(settings, stack, FileLog(file))
        if settings.release_before is None:
            await _add_history(environment)
        if before_workload is not None:
            await before_workload(environment)
        environment.workload = await _start_workload(settings, stack, environment, on_workload_line)
        yield environment
        environment.resume_paused()


async def _start(
    settings: RunSettings, stack: AsyncExitStack, activity_log: ActivityLog
) -> Environment:
    plan = _platform_plan(settings)
    postgres, admin_url = await _start_postgres(settings, stack)
    redis, redis_url = await _start_redis(stack)
    second_jwt_key = new_key()
    secrets = _with_second_key(local_secrets(settings.data / "secrets", plan.specs), second_jwt_key)
    fork_server = await stack.enter_async_context(ForkServer(settings.data / "log"))
    children = stack.enter_context(KillPlanChildren(settings.kill_plan, fork_server))
    provider_url = await stack.enter_async_context(
        payment_simulator(plan, children, secrets, settings.data / "log")
    )
    mails = await stack.enter_async_context(mail_catcher(plan, children, settings.data / "log"))
    await set_mail_faults(mails.pages)
    internal = listen(0)
    provider_faults = ProviderFaults(provider_url, secrets.provider_api_key, settings.seed)
    stack.push_async_callback(provider_faults.close)
    environment = Environment(
        tier=settings.tier,
        seed=settings.seed,
        data=settings.data,
        random=Random(settings.seed),  # noqa: S311 (repeatable, not secret)
        activity_log=activity_log,
        postgres=postgres,
        redis=redis,
        endpoints=Endpoints(
            admin_url=admin_url,
            redis_url=redis_url,
            broker_url=f"http://127.0.0.1:{internal.getsockname()[1]}/",
            provider_url=provider_url,
            smtp_url=mails.smtp,
            mails_url=mails.pages,
            secrets=secrets,
            broker_class=settings.broker_class,
            has_own_database=True,
        ),
        proxies=await stack.enter_async_context(Proxies(seed=settings.seed)),
        kill_plan=settings.kill_plan,
        message_faults=plan.faults,
        provider_faults=provider_faults,
        second_jwt_key=second_jwt_key,
        edge_url=f"http://127.0.0.1:{plan.port}",
        receiver=stack.enter_context(running_receiver()),
        release_before=settings.release_before,
    )
    await _start_platform(settings, stack, plan, environment, children, internal)
    return environment


async def _add_history(environment: Environment) -> None:
    """Adds past days, and then a webhook, to whose receiver their events do not belong."""
    # they must stay open for the processes that are killed while they close them
    environment.platform.activator.pools["settle"].is_disabled = True
    await write_history(environment)
    async with environment.database() as database:
        await database.execute(ADD_WEBHOOK, {"url": environment.receiver.url("/events")})


async def _start_postgres(
    settings: RunSettings, stack: AsyncExitStack
) -> tuple[PostgresServer, str]:
    """A migrated and seeded server, and its administrator's address."""
    postgres = PostgresServer(settings.data, archives=settings.has_wal_archive)
    stack.callback(postgres.stop)
    admin_url = await asyncio.to_thread(postgres.start)
    release = settings.release_before
    await asyncio.to_thread(prepare_database if release is None else release.prepare, admin_url)
    return postgres, admin_url


def prepare_database(admin_url: str) -> None:
    """Migrates and seeds with today's code."""
    migrate(admin_url)
    seed_database(admin_url)


async def _start_redis(stack: AsyncExitStack) -> tuple[RedisServer, str]:
    """An empty server and its address."""
    redis = RedisServer()
    stack.callback(redis.stop)
    return redis, await asyncio.to_thread(redis.start)


async def _start_platform(
    settings: RunSettings,
    stack: AsyncExitStack,
    plan: PlatformConfig,
    environment: Environment,
    children: ChildProcesses,
    internal: socket.socket,
) -> None:
    """Starts the platform; the functions connect to every server through a proxy."""
    proxied = await _open_proxies(environment.endpoints, environment.proxies)
    launch = FunctionLaunch(
        command=plan.function_command,
        environment=lambda spec: _process_settings(
            proxied.environment_for(spec), spec, settings, environment
        ),
        logs=settings.data / "log",
    )
    environment.platform = await start_platform(
        plan,
        environment.activity_log,
        stack,
        children,
        environment.endpoints,
        launch,
        listen(plan.port),
        internal,
    )


def _platform_plan(settings: RunSettings) -> PlatformConfig:
    return PlatformConfig(
        specs=all_specs(),
        function_command=lambda function: [sys.executable, "-m", "shop.runtime", function],
        simulator_command=[sys.executable, "-m", "tools.payment_simulator"],
        mail_catcher_command=[sys.executable, "-m", "tools.mail_catcher"],
        migrate=migrate,
        seed=seed_database,
        port=free_port(),
        data=settings.data,
        limits=ScalingLimits(
            idle_seconds=IDLE_SECONDS,
            processes_max=PROCESSES_MAX,
            scale_out_after_seconds=SCALE_OUT_AFTER_SECONDS,
        ),
        faults=DeliveryFaults(seed=settings.seed),
        rule=DeliveryRule(),
        broker_class=settings.broker_class,
    )


async def _open_proxies(direct: Endpoints, proxies: Proxies) -> Endpoints:
    """Opens a proxy for each server; the addresses of the proxies."""
    database = await proxies.open(DATABASE, _port(direct.admin_url), "postgres")
    redis = await proxies.open(REDIS, _port(direct.redis_url), "other")
    provider = await proxies.open(PROVIDER, _port(direct.provider_url), "http")
    broker = await proxies.open(BROKER, _port(direct.broker_url), "http")
    return replace(
        direct,
        admin_url=direct.admin_url.replace(f":{_port(direct.admin_url)}/", f":{database}/"),
        redis_url=direct.redis_url.replace(f":{_port(direct.redis_url)}/", f":{redis}/"),
        provider_url=f"http://127.0.0.1:{provider}",
        broker_url=f"http://127.0.0.1:{broker}/",
    )


def _with_second_key(secrets: Secrets, pem: str) -> Secrets:
    """Publishes both public keys from the start, so that either may sign (F-26)."""
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, Ed25519PrivateKey), "new_key creates Ed25519 keys"
    published = json.loads(secrets.jwks)["keys"]
    both = [*published, public_jwk(key.public_key().public_bytes_raw())]
    return replace(secrets, jwks=json.dumps({"keys": both}))


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None, "every address of a run has a port"
    return port


def _process_settings(
    base: Mapping[str, str], spec: FunctionSpec, settings: RunSettings, environment: Environment
) -> dict[str, str]:
    """The environment variables of a new process, with those of active faults."""
    variables = {
        **base,
        **settings.function_settings,
        **environment.extra_settings(spec),
        **second_key_settings(environment, spec),
        **(environment.release_before.choose(spec.name) if environment.release_before else {}),
    }
    pair = settings.kill_plan.assign(spec.name)
    if pair is not None:
        variables["SHOP_CRASH"] = pair.setting(settings.kill_plan.choose_pass(pair))
    return variables


async def _start_workload(
    settings: RunSettings,
    stack: AsyncExitStack,
    environment: Environment,
    on_workload_line: Callable[[JsonObject], None],
) -> ControlledProcess:
    """Starts the workload process, which connects to the shop through a separate proxy."""
    edge_port = await environment.proxies.open(CLIENTS, _port(environment.edge_url), "http")
    ready = asyncio.Event()

    def on_line(line: JsonObject) -> None:
        if line.get("ready"):
            ready.set()
        else:
            on_workload_line(line)

    log = stack.enter_context((settings.data / "workload.log").open("ab"))
    workload = ControlledProcess("workload", on_line)
    stack.push_async_callback(workload.stop)
    arguments = ["-m", "chaos.workload", "--url", f"http://127.0.0.1:{edge_port}"]
    arguments += ["--seed", str(settings.seed)]
    arguments += ["--orders", str(settings.tier.orders)]
    arguments += ["--seconds", f"{settings.tier.load_seconds:g}"]
    arguments += ["--log", str(environment.client_log)]
    arguments += ["--accounts", str(settings.accounts)]
    await workload.start(arguments, log)
    async with asyncio.timeout(READY_SECONDS):
        await ready.wait()
    return workload


@contextmanager
def _environment_variables(variables: Mapping[str, str]) -> Generator[None, None, None]:
    """Sets variables of this process within the block: migrations read the time zone from them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
