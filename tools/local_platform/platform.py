"""The platform at the desk, put together: servers, schema, provider, broker, edge, clock.

Everything is stopped in the opposite order of its start, however the platform ends; if it is
killed, the kernel and the watchdog of ``children`` end what it has started.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import Any

import psycopg
from psycopg import sql

from shop.adapters.signatures import Signer
from shop.primitives.spec import FunctionSpec
from tools.local_platform.activator import Activator, FunctionLaunch, ScalingLimits
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.broker import Broker, DeliveryRule
from tools.local_platform.child_processes import ChildProcesses
from tools.local_platform.clock import Clock, DueWork
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.delivery_store import DeliveryStore
from tools.local_platform.edge import RouteTable, edge
from tools.local_platform.function_environment import Endpoints, inherited
from tools.local_platform.http_listener import listen, serving
from tools.local_platform.http_messages import HttpRequest, connect
from tools.local_platform.ingress import ingress
from tools.local_platform.secrets import CLOCK, Secrets, local_secrets
from tools.local_platform.servers import ServerFailed, free_port, postgres, redis

SANDBOX_SECONDS = 20.0
SHOP_ROLES = r"select rolname from pg_roles where rolname like 'shop\_%' and rolcanlogin"


class StartupFailed(Exception):
    """The platform cannot start, for a reason the person can mend."""


@dataclass(frozen=True, kw_only=True)
class PlatformConfig:
    """What to run: the functions and how their processes, schema and accounts come about."""

    specs: tuple[FunctionSpec, ...]
    function_command: Callable[[str], list[str]]
    simulator_command: list[str]
    migrate: Callable[[str], None]
    seed: Callable[[str], list[tuple[str, str, str]]]
    port: int = 8080
    data: Path = Path(".shop")
    limits: ScalingLimits = field(default_factory=ScalingLimits)
    faults: DeliveryFaults = field(default_factory=DeliveryFaults)
    rule: DeliveryRule = field(default_factory=DeliveryRule)


def run(plan: PlatformConfig) -> int:
    """Runs until Ctrl-C or SIGTERM; 0 after an orderly end, 1 when it could not start."""
    activity_log = ActivityLog()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ExitStack() as stack:
            plan.data.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_sole_user(plan.data))
            public = stack.enter_context(_listening(plan.port))
            servers = _start_servers(plan, stack)
            secrets = local_secrets(plan.data / "secrets", plan.specs)
            _prepare_database(plan, servers[0], secrets, activity_log)
            asyncio.run(_serve(plan, activity_log, public, servers, secrets))
    except KeyboardInterrupt:
        return 0
    except (StartupFailed, ServerFailed) as error:
        print(f"shop dev: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _sole_user(data: Path) -> Iterator[None]:
    """Holds the data folder; the kernel lets go of it when this process ends, however it ends."""
    with (data / "platform.pid").open("a+", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise StartupFailed(f"{data} is in use by another platform (pid {owner})") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    try:
        listener = listen(port)
    except OSError as error:
        raise StartupFailed(
            f"port {port} cannot be used: {error.strerror}; choose another --port"
        ) from None
    with listener:
        yield listener


def _start_servers(plan: PlatformConfig, stack: ExitStack) -> tuple[str, str]:
    """URLs of PostgreSQL and Redis: those that were given, or our own."""
    admin_url = os.environ.get("DATABASE_URL") or stack.enter_context(postgres(plan.data))
    redis_url = os.environ.get("REDIS_URL") or stack.enter_context(redis())
    return admin_url, redis_url


def _prepare_database(
    plan: PlatformConfig, admin_url: str, secrets: Secrets, activity_log: ActivityLog
) -> None:
    plan.migrate(admin_url)
    if os.environ.get("DATABASE_URL"):
        _give_roles_password(admin_url, secrets.database_password)
    for role, email, password in plan.seed(admin_url):
        activity_log.write(f"account {role}: {email} {password}")


def _give_roles_password(admin_url: str, password: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        for (role,) in connection.execute(SHOP_ROLES).fetchall():
            statement = sql.SQL("alter role {} password {}")
            connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The running parts, for whoever runs them with something in mind (``chaos``)."""

    activator: Activator
    broker: Broker
    clock: Clock


async def _serve(
    plan: PlatformConfig,
    activity_log: ActivityLog,
    public: socket.socket,
    servers: tuple[str, str],
    secrets: Secrets,
) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    logs = plan.data / "log"
    logs.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        children = stack.enter_context(ChildProcesses())
        provider_url = await stack.enter_async_context(
            payment_simulator(plan, children, secrets, logs)
        )
        internal = stack.enter_context(listen(0))
        endpoints = Endpoints(
            admin_url=servers[0],
            redis_url=servers[1],
            broker_url=f"http://127.0.0.1:{internal.getsockname()[1]}/",
            provider_url=provider_url,
            secrets=secrets,
            has_own_database=not os.environ.get("DATABASE_URL"),
        )
        launch = FunctionLaunch(
            command=plan.function_command, environment=endpoints.environment_for, logs=logs
        )
        await start_platform(
            plan, activity_log, stack, children, endpoints, launch, public, internal
        )
        activity_log.write(f"ready http://127.0.0.1:{plan.port}")
        await stopped.wait()
        activity_log.write("stopping")
    activity_log.write(activity_log.summary())


async def start_platform(
    plan: PlatformConfig,
    activity_log: ActivityLog,
    stack: AsyncExitStack,
    children: ChildProcesses,
    endpoints: Endpoints,
    launch: FunctionLaunch,
    public: socket.socket,
    internal: socket.socket,
) -> Platform:
    """Opens activator, broker, clock and edge; the stack closes them in the opposite order.

    ``endpoints`` are the platform's own way to the servers, ``launch`` says the functions'.
    """
    activator = Activator(plan.specs, launch, plan.limits, plan.faults, activity_log, children)
    stack.push_async_callback(activator.close)
    store = DeliveryStore(plan.data / "broker.sqlite")
    stack.callback(store.close)
    broker = Broker(plan.specs, activator, store, plan.faults, activity_log, plan.rule)
    stack.push_async_callback(broker.close)
    clock = _clock(plan, activity_log, activator, endpoints)

    def status() -> dict[str, Any]:
        return {
            "processes": activator.processes(),
            "pending": broker.pending,
            "counters": dict(activity_log.counts),
        }

    await broker.resume()
    await stack.enter_async_context(serving(ingress(broker, status), internal))
    await stack.enter_async_context(_background(clock.run, activator.retire_idle_forever))
    _note_addresses(plan.data, endpoints)
    application = edge(RouteTable(plan.specs), activator, activity_log, clock.note_traffic)
    await stack.enter_async_context(serving(application, public))
    return Platform(activator=activator, broker=broker, clock=clock)


def _note_addresses(data: Path, endpoints: Endpoints) -> None:
    """Where operators' commands find this run: ``. <data>/operator.env``, for its owner only."""
    (data / "internal.url").write_text(endpoints.broker_url, encoding="ascii")
    values = {
        "DATABASE_URL": endpoints.admin_url,
        "BROKER_URL": endpoints.broker_url,
        "PAYMENT_PROVIDER": "sandbox",
        "PAYMENT_PROVIDER_URL": endpoints.provider_url,
        "PAYMENT_PROVIDER_API_KEY": endpoints.secrets.provider_api_key,
    }
    file = data / "operator.env"
    file.touch(mode=0o600)
    lines = [f"export {name}={quote(value)}" for name, value in values.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _clock(
    plan: PlatformConfig, activity_log: ActivityLog, activator: Activator, endpoints: Endpoints
) -> Clock:
    signer = Signer(CLOCK, endpoints.secrets.event_keys[CLOCK])
    due_work = DueWork(endpoints.database_url("relay"))
    return Clock(plan.specs, activator, activity_log, signer, due_work)


@asynccontextmanager
async def _background(*works: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(work()) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def payment_simulator(
    plan: PlatformConfig, children: ChildProcesses, secrets: Secrets, logs: Path
) -> AsyncIterator[str]:
    """The payment provider's double, a process with its own books; yields its URL."""
    port = free_port()
    command = [*plan.simulator_command, "--port", str(port)]
    command += ["--data", str((plan.data / "provider.sqlite").resolve())]
    command += ["--webhook-url", f"http://127.0.0.1:{plan.port}/payments/webhook"]
    command += ["--webhook-secret", secrets.webhook_secret, "--api-key", secrets.provider_api_key]
    child = await children.start(command, inherited(os.environ), logs / "sandbox.log")
    try:
        if not await _answers(port, child.ended):
            raise StartupFailed(f"the payment sandbox does not start:\n{child.log_tail()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        await child.stop(plan.limits.grace_seconds)


async def _answers(port: int, ended: asyncio.Task[int]) -> bool:
    deadline = asyncio.get_running_loop().time() + SANDBOX_SECONDS
    while asyncio.get_running_loop().time() < deadline and not ended.done():
        with suppress(OSError):
            connection = await connect(port)
            answer = await connection.ask(HttpRequest("GET", b"/health", [(b"host", b"localhost")]))
            connection.close()
            return answer.status == 200
        await asyncio.sleep(0.02)
    return False
