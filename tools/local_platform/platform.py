"""The local platform: servers, schema, payment simulator, broker, activator, edge and clock.

Everything is stopped in the reverse order of its start.  If the platform is killed, the kernel and
the watchdog of ``child_processes`` stop what it has started.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from types import FrameType

import psycopg
from psycopg import sql

from shop.adapters.signatures import Signer
from shop.primitives.cors import parse_origins
from shop.primitives.spec import FunctionSpec
from shop.runtime.config import ConfigurationError, load
from tools.checker.provider_transactions import ProviderAccess
from tools.local_platform.activator import Activator, FunctionLaunch, ScalingLimits
from tools.local_platform.activity_log import ActivityLog
from tools.local_platform.broker import Broker, DeliveryRule, LocalBrokerClass
from tools.local_platform.child_processes import ChildProcesses
from tools.local_platform.clock import Clock, DueWork
from tools.local_platform.delivery_faults import DeliveryFaults
from tools.local_platform.delivery_store import DeliveryStore
from tools.local_platform.edge import RouteTable, edge
from tools.local_platform.function_environment import Endpoints, inherited
from tools.local_platform.http_listener import listen, serving
from tools.local_platform.http_messages import HttpRequest, connect
from tools.local_platform.ingress import ingress
from tools.local_platform.live_view import LiveView
from tools.local_platform.live_view_readings import Readings
from tools.local_platform.observed_platform import ObservedPlatform
from tools.local_platform.secrets import CLOCK, Secrets, local_secrets
from tools.local_platform.servers import ServerFailed, free_port, postgres, redis
from tools.local_platform.source_files import SourceFiles

SIMULATOR_START_SECONDS = 20.0
# the page of the storefront to which customers return from the payment simulator
RETURN_PATH = "/?order={orderId}"
SHOP_ROLES = r"select rolname from pg_roles where rolname like 'shop\_%' and rolcanlogin"


class StartupFailed(Exception):
    """The platform cannot start; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class PlatformConfig:
    """What to run: functions, their command, the migration, the seed, and limits."""

    specs: tuple[FunctionSpec, ...]
    function_command: Callable[[str], list[str]]
    simulator_command: list[str]
    mail_catcher_command: list[str]
    migrate: Callable[[str], None]
    seed: Callable[[str], list[tuple[str, str, str]]]
    port: int = 8080
    # of the live view; by default the one after ``port``, or a free one when that is taken
    live_port: int | None = None
    data: Path = Path(".shop")
    limits: ScalingLimits = field(default_factory=ScalingLimits)
    faults: DeliveryFaults = field(default_factory=DeliveryFaults)
    rule: DeliveryRule = field(default_factory=DeliveryRule)
    broker_class: LocalBrokerClass = LocalBrokerClass.LOCAL
    # for development: changed source replaces the processes of a function
    source: SourceFiles | None = None


@dataclass(frozen=True, kw_only=True)
class MailCatcherUrls:
    """The address to which functions send mails, and the one where they can be read."""

    smtp: str
    pages: str


@dataclass(frozen=True, kw_only=True)
class ServerUrls:
    """The administrator's URL of PostgreSQL, and the URL of Redis."""

    postgres: str
    redis: str


def run(config: PlatformConfig) -> int:
    """Runs until Ctrl-C or SIGTERM; returns 0, 1 when it cannot start, or 2 for wrong settings."""
    activity_log = ActivityLog()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _check_settings()
        os.umask(0o077)  # logs, events and addresses are for the developer only
        with ExitStack() as stack:
            config.data.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_locked(config.data))
            public = stack.enter_context(_listening(config.port))
            server_urls = _start_servers(config, stack)
            secrets = local_secrets(config.data / "secrets", config.specs)
            _prepare_database(config, server_urls.postgres, secrets, activity_log)
            asyncio.run(_serve(config, activity_log, public, server_urls, secrets))
    except KeyboardInterrupt:
        return 0
    except (StartupFailed, ServerFailed) as error:
        print(f"shop dev: {error}", file=sys.stderr, flush=True)
        return 1
    except ConfigurationError as error:
        print(f"the settings are wrong:\n{error}", file=sys.stderr, flush=True)
        return 2
    return 0


def _check_settings() -> None:
    """Checks what functions will inherit: a mistake ends the start and not each function."""
    servers = {n: os.environ[n] for n in ("DATABASE_URL", "REDIS_URL") if n in os.environ}
    load(inherited(os.environ) | servers | {"SHOP_PROFILE": "local"})


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _locked(data: Path) -> Generator[None]:
    """Locks the data folder; the kernel releases the lock when this process exits."""
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
def _listening(port: int) -> Generator[socket.socket]:
    try:
        listener = listen(port)
    except OSError as error:
        raise StartupFailed(
            f"port {port} cannot be used: {error.strerror}; choose another --port"
        ) from None
    with listener:
        yield listener


def _start_servers(config: PlatformConfig, stack: ExitStack) -> ServerUrls:
    """Starts PostgreSQL and Redis, unless the environment has the URL of another server."""
    admin_url = os.environ.get("DATABASE_URL") or stack.enter_context(postgres(config.data))
    redis_url = os.environ.get("REDIS_URL") or stack.enter_context(redis())
    return ServerUrls(postgres=admin_url, redis=redis_url)


def _prepare_database(
    config: PlatformConfig, admin_url: str, secrets: Secrets, activity_log: ActivityLog
) -> None:
    config.migrate(admin_url)
    if os.environ.get("DATABASE_URL"):
        _set_role_passwords(admin_url, secrets.database_password)
    for role, email, password in config.seed(admin_url):
        activity_log.write(f"account {role}: {email} {password}")


def _set_role_passwords(admin_url: str, password: str) -> None:
    with psycopg.connect(admin_url, autocommit=True) as connection:
        for (role,) in connection.execute(SHOP_ROLES).fetchall():
            statement = sql.SQL("alter role {} password {}")
            connection.execute(statement.format(sql.Identifier(role), sql.Literal(password)))


@dataclass(frozen=True)
class Platform:
    """The running components, for fault injection (``chaos``)."""

    activator: Activator
    broker: Broker
    clock: Clock

    def status(self, activity_log: ActivityLog) -> dict[str, object]:
        """The document of ``GET /status`` on the internal port."""
        return {
            "processes": self.activator.processes(),
            "pending": self.broker.pending,
            "counters": dict(activity_log.counts),
        }


async def _serve(
    config: PlatformConfig,
    activity_log: ActivityLog,
    public: socket.socket,
    server_urls: ServerUrls,
    secrets: Secrets,
) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    logs = config.data / "log"
    logs.mkdir(exist_ok=True)
    async with AsyncExitStack() as stack:
        children = stack.enter_context(ChildProcesses())
        simulator = payment_simulator(config, children, secrets, logs)
        provider_url = await stack.enter_async_context(simulator)
        mails = await stack.enter_async_context(mail_catcher(config, children, logs))
        internal = stack.enter_context(listen(0))
        endpoints = _endpoints(config, server_urls, internal, provider_url, mails, secrets)
        launch = FunctionLaunch(
            command=config.function_command,
            environment=endpoints.environment_for,
            logs=logs,
            source=config.source,
        )
        platform = await start_platform(
            config, activity_log, stack, children, endpoints, launch, public, internal
        )
        live = stack.enter_context(_live_listener(config))
        view = _live_view(config, activity_log, platform, endpoints, logs, live)
        await stack.enter_async_context(serving(view.application(), live))
        stack.callback(view.close)
        await stack.enter_async_context(_background(view.tick_forever, view.check_forever))
        activity_log.write(f"shop {endpoints.shop_url}/")
        activity_log.write(f"back office {endpoints.shop_url}/admin")
        activity_log.write(f"live view http://127.0.0.1:{live.getsockname()[1]}/")
        activity_log.write(f"api pages {endpoints.shop_url}/api-docs")
        activity_log.write(f"mails {mails.pages}")
        activity_log.write(f"logs {logs}")
        activity_log.write(f"ready http://127.0.0.1:{config.port}")
        await stopped.wait()
        activity_log.write("stopping")
    activity_log.write(activity_log.summary())


def _live_listener(config: PlatformConfig) -> socket.socket:
    if config.live_port is not None:
        return listen(config.live_port)
    try:
        return listen(config.port + 1)
    except (OSError, OverflowError):
        return listen(0)


def _live_view(
    config: PlatformConfig,
    activity_log: ActivityLog,
    platform: Platform,
    endpoints: Endpoints,
    logs: Path,
    live: socket.socket,
) -> LiveView:
    api_key = endpoints.secrets.provider_api_key
    observed = ObservedPlatform(
        activator=platform.activator,
        broker=platform.broker,
        faults=config.faults,
        provider=ProviderAccess("sandbox", endpoints.provider_url, api_key),
        database_url=endpoints.database_url("auditor"),
    )
    activity_log.observer = observed.interval.add
    readings = Readings(
        database_url=observed.database_url, catcher_url=endpoints.mails_url, logs=logs
    )
    return LiveView(observed, readings, live.getsockname()[1])


def _endpoints(
    config: PlatformConfig,
    server_urls: ServerUrls,
    internal: socket.socket,
    provider_url: str,
    mails: MailCatcherUrls,
    secrets: Secrets,
) -> Endpoints:
    return Endpoints(
        admin_url=server_urls.postgres,
        redis_url=server_urls.redis,
        broker_url=f"http://127.0.0.1:{internal.getsockname()[1]}/",
        provider_url=provider_url,
        smtp_url=mails.smtp,
        mails_url=mails.pages,
        shop_url=f"http://127.0.0.1:{config.port}",
        secrets=secrets,
        broker_class=config.broker_class,
        has_own_database=not os.environ.get("DATABASE_URL"),
    )


async def start_platform(
    config: PlatformConfig,
    activity_log: ActivityLog,
    stack: AsyncExitStack,
    children: ChildProcesses,
    endpoints: Endpoints,
    launch: FunctionLaunch,
    public: socket.socket,
    internal: socket.socket,
) -> Platform:
    """Starts activator, broker, clock and edge; the stack stops them in reverse order.

    ``endpoints`` are the platform's own connections; the functions' are in ``launch``.
    """
    activator = Activator(
        config.specs, launch, config.limits, config.faults, activity_log, children
    )
    stack.push_async_callback(activator.close)
    is_in_memory = config.broker_class is LocalBrokerClass.IMC
    store = DeliveryStore(Path(":memory:") if is_in_memory else config.data / "broker.sqlite")
    stack.callback(store.close)
    broker = Broker(
        config.specs,
        activator,
        store,
        config.faults,
        activity_log,
        config.rule,
        config.broker_class,
    )
    stack.push_async_callback(broker.close)
    platform = Platform(activator, broker, _clock(config, activity_log, activator, endpoints))
    await broker.resume()
    await stack.enter_async_context(
        serving(ingress(broker, lambda: platform.status(activity_log)), internal)
    )
    loops = _background(platform.clock.run, activator.retire_idle_forever)
    await stack.enter_async_context(loops)
    _write_addresses(config.data, endpoints)
    application = edge(
        RouteTable(config.specs),
        activator,
        activity_log,
        platform.clock.note_traffic,
        _cors_origins(),
    )
    await stack.enter_async_context(serving(application, public))
    return platform


def _cors_origins() -> frozenset[str]:
    try:
        return parse_origins(os.environ.get("CORS_ORIGINS", ""))
    except ValueError as error:
        raise StartupFailed(f"CORS_ORIGINS {error}") from None


def _write_addresses(data: Path, endpoints: Endpoints) -> None:
    """Writes ``<data>/operator.env``, which operators' commands source, and ``internal.url``."""
    (data / "internal.url").write_text(endpoints.broker_url, encoding="ascii")
    values = {
        "DATABASE_URL": endpoints.admin_url,
        "AUDITOR_DATABASE_URL": endpoints.database_url("auditor"),
        "OPS_DATABASE_URL": endpoints.database_url("ops"),
        "ACCOUNTS_DATABASE_URL": endpoints.database_url("accounts"),
        "LINK_KEY": endpoints.secrets.link_key,
        "BROKER_URL": endpoints.broker_url,
        "MAIL_CATCHER_URL": endpoints.mails_url,
        "PAYMENT_SIMULATOR_URL": endpoints.provider_url,
        "PAYMENT_PROVIDER": "sandbox",
        "PAYMENT_PROVIDER_URL": endpoints.provider_url,
        "PAYMENT_PROVIDER_API_KEY": endpoints.secrets.provider_api_key,
    }
    file = data / "operator.env"
    file.touch()
    file.chmod(0o600)
    lines = [f"export {name}={quote(value)}" for name, value in values.items()]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _clock(
    config: PlatformConfig, activity_log: ActivityLog, activator: Activator, endpoints: Endpoints
) -> Clock:
    signer = Signer(CLOCK, endpoints.secrets.event_keys[CLOCK])
    due_work = DueWork(endpoints.database_url("relay"))
    return Clock(config.specs, activator, activity_log, signer, due_work)


@asynccontextmanager
async def _background(
    *loops: Callable[[], Coroutine[object, object, None]],
) -> AsyncGenerator[None]:
    tasks = [asyncio.create_task(loop()) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def payment_simulator(
    config: PlatformConfig, children: ChildProcesses, secrets: Secrets, logs: Path
) -> AsyncGenerator[str]:
    """Runs the payment simulator as a child process while the block runs; yields its URL."""
    port = free_port()
    command = [*config.simulator_command, "--port", str(port)]
    command += ["--data", str((config.data / "provider.sqlite").resolve())]
    command += ["--webhook-url", f"http://127.0.0.1:{config.port}/payments/webhook"]
    # not arguments: every user of the machine can read a command line
    environment = inherited(os.environ) | {
        "PAYMENT_WEBHOOK_SECRET": secrets.webhook_secret,
        "PAYMENT_PROVIDER_API_KEY": secrets.provider_api_key,
        "PAYMENT_RETURN_URL": f"http://127.0.0.1:{config.port}{RETURN_PATH}",
    }
    child = await children.start(command, environment, logs / "payment-simulator.log")
    try:
        if not await _is_healthy(port, child.ended):
            raise StartupFailed(f"the payment simulator does not start:\n{child.log_tail()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        await child.stop(config.limits.grace_seconds)


@asynccontextmanager
async def mail_catcher(
    config: PlatformConfig, children: ChildProcesses, logs: Path
) -> AsyncGenerator[MailCatcherUrls]:
    """Runs the mail catcher as a child process while the block runs; yields its addresses."""
    smtp_port, port = free_port(), free_port()
    command = [*config.mail_catcher_command, "--smtp-port", str(smtp_port), "--port", str(port)]
    child = await children.start(command, inherited(os.environ), logs / "mail-catcher.log")
    try:
        if not await _is_healthy(port, child.ended):
            raise StartupFailed(f"the mail catcher does not start:\n{child.log_tail()}")
        yield MailCatcherUrls(
            smtp=f"smtp://127.0.0.1:{smtp_port}", pages=f"http://127.0.0.1:{port}"
        )
    finally:
        await child.stop(config.limits.grace_seconds)


async def _is_healthy(port: int, ended: asyncio.Task[int]) -> bool:
    deadline = asyncio.get_running_loop().time() + SIMULATOR_START_SECONDS
    while asyncio.get_running_loop().time() < deadline and not ended.done():
        with suppress(OSError):
            connection = await connect(port)
            response = await connection.send(
                HttpRequest("GET", b"/health", [(b"host", b"localhost")])
            )
            connection.close()
            return response.status == 200
        await asyncio.sleep(0.02)
    return False
