"""Real servers for every test: PostgreSQL, Redis and the payment simulator.

Containers through testcontainers where a Docker engine answers, the embedded servers otherwise;
each test gets its own database, cloned from a migrated and seeded template.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import docker
import hypothesis
import psycopg
import pytest
from docker.errors import DockerException
from redis import Redis
from requests.exceptions import RequestException

from shop.registry import all_specs
from shop.runtime.config import Secret
from tests.function_process import ProcessHarness
from tests.harness import (
    EventBroker,
    FlowHarness,
    Rows,
    ShopHarness,
    cloned_database,
    shop_of_module,
)
from tests.mail_server import MailServerOfTests, running_mail_server
from tests.remaining_processes import PROC, orphans_since
from tests.sample_requests import Samples
from tests.shared_server import ServerState, changes_since, server_state
from tests.tools.payment_simulator.simulator_process import API_KEY, SECRET, SimulatorProcess
from tests.waiting import wait_for
from tools.local_platform.function_environment import Endpoints
from tools.local_platform.secrets import Secrets, local_secrets
from tools.local_platform.servers import postgres as embedded_postgres
from tools.local_platform.servers import redis as embedded_redis
from tools.migrate import migrate
from tools.seed import seed

# Machines are noisy: a property holds however long one example takes.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# A shell's background job ignores Ctrl-C, and so would the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

POSTGRES_IMAGE = os.environ.get("TEST_POSTGRES_IMAGE", "postgres:17-alpine")
REDIS_IMAGE = os.environ.get("TEST_REDIS_IMAGE", "redis:7-alpine")
TEMPLATE = "shop_template"
# The administrator's URL of the shared PostgreSQL server, and its state before the first test.
SERVER = pytest.StashKey[tuple[str, ServerState]]()


# "embedded" or "containers" (pulled when missing) decides; without it, whichever is there.
SERVERS = os.environ.get("TEST_SERVERS", "")


def pytest_report_header() -> list[str]:
    """Reports which servers the run uses."""
    return [f"{image}: {_way_of(image)[1]}" for image in (POSTGRES_IMAGE, REDIS_IMAGE)]


def _docker_has(image: str) -> bool:
    return _way_of(image)[0]


@cache
def _way_of(image: str) -> tuple[bool, str]:
    """Whether the image's container is used, and why."""
    if SERVERS in ("embedded", "containers"):
        return SERVERS == "containers", f"TEST_SERVERS={SERVERS}"
    with warnings.catch_warnings():
        # without a Docker engine the client leaves its socket to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        reason = _docker_error(image)
        gc.collect()
    if reason:
        return False, f"embedded server, for no container: {reason[:200]}"
    return True, "container"


def _docker_error(image: str) -> str:
    """Why no container of the image can be started; empty if it can."""
    try:
        with closing(docker.from_env(timeout=3)) as client:
            client.images.get(image)
    except (DockerException, RequestException) as error:
        return str(error) or type(error).__name__
    return ""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fails a run that leaves processes behind, once its workers have ended."""
    yield
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    if is_worker or not PROC.exists():
        return
    try:
        wait_for(lambda: not orphans_since(os.getpid()), "processes that the tests started end")
    except AssertionError as error:
        left = "\n".join(f"{each.pid} {each.command}" for each in orphans_since(os.getpid()))
        sys.stderr.write(f"\n{error}; left behind:\n{left}\n")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The administrator's URL of a PostgreSQL that is thrown away afterwards."""
    if os.environ.get("TEST_DATABASE_URL"):
        yield os.environ["TEST_DATABASE_URL"]
    elif _docker_has(POSTGRES_IMAGE):
        from testcontainers.postgres import PostgresContainer

        with PostgresContainer(POSTGRES_IMAGE, driver=None) as container:
            yield container.get_connection_url()
    else:
        with (
            tempfile.TemporaryDirectory(prefix="shop-test-") as folder,
            embedded_postgres(Path(folder) / "postgres", durable=False) as url,
        ):
            yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis of this test run."""
    if os.environ.get("TEST_REDIS_URL"):
        yield os.environ["TEST_REDIS_URL"]
    elif _docker_has(REDIS_IMAGE):
        from testcontainers.redis import RedisContainer

        with RedisContainer(REDIS_IMAGE) as container:
            host, port = container.get_container_host_ip(), container.get_exposed_port(6379)
            yield f"redis://{host}:{port}/0"
    else:
        with embedded_redis() as url:
            yield url


@pytest.fixture(scope="session")
def template_url(postgres_url: str, pytestconfig: pytest.Config) -> str:
    """A migrated and seeded database that every test's own is cloned from."""
    url = _in_database(postgres_url, TEMPLATE)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"drop database if exists {TEMPLATE} with (force)")
        connection.execute(f"create database {TEMPLATE}")
    migrate(url)
    seed(url)
    pytestconfig.stash[SERVER] = (postgres_url, server_state(postgres_url))
    return url


@pytest.fixture(scope="module", autouse=True)
def shared_server_is_left_as_it_was(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fails a module that changes roles or leaves connections open, which later modules need."""
    yield
    if SERVER not in pytestconfig.stash:
        return  # no test of this process has needed the server yet
    url, before = pytestconfig.stash[SERVER]
    changes = changes_since(before, url)
    pytestconfig.stash[SERVER] = (url, server_state(url))
    assert not changes, changes


@pytest.fixture
def database_url(postgres_url: str, template_url: str) -> Iterator[str]:
    """The administrator's URL of this test's own database: migrated and seeded."""
    with cloned_database(postgres_url, template_url) as url:
        yield url


@pytest.fixture(scope="session")
def simulator() -> Iterator[SimulatorProcess]:
    """The payment simulator in its own process, with its own records; it sends no webhooks here."""
    with tempfile.TemporaryDirectory(prefix="shop-simulator-") as folder:
        process = SimulatorProcess(Path(folder) / "records.sqlite")
        yield process
        process.stop()


@pytest.fixture(scope="session")
def mail_server() -> Iterator[MailServerOfTests]:
    """A mail server that accepts every mail, for all tests of this process."""
    with running_mail_server() as server:
        yield server


@pytest.fixture(scope="session")
def secrets() -> Iterator[Secrets]:
    """Key material of this test run."""
    with tempfile.TemporaryDirectory(prefix="shop-secrets-") as folder:
        yield local_secrets(Path(folder), all_specs())


@pytest.fixture
def make_shop(
    database_url: str,
    redis_url: str,
    simulator: SimulatorProcess,
    mail_server: MailServerOfTests,
    secrets: Secrets,
) -> Iterator[Callable[..., ShopHarness]]:
    """Makes the shop on this test's database, with the given settings.

    The ids of a new database begin again, so what Redis counted for those of another test goes.
    """
    client: Any = Redis.from_url(redis_url)  # pyright: ignore[reportUnknownMemberType]
    with client:
        client.flushdb()
    made: list[ShopHarness] = []

    def make(**overrides: Any) -> ShopHarness:
        shop = ShopHarness(
            admin_url=database_url,
            redis_url=redis_url,
            provider_url=simulator.url,
            provider_api_key=API_KEY,
            webhook_secret=SECRET,
            secrets=secrets,
            smtp_url=mail_server.url,
            overrides=overrides,
        )
        made.append(shop)
        return shop

    yield make
    for shop in made:
        shop.close()


@pytest.fixture
def shop(make_shop: Callable[..., ShopHarness]) -> ShopHarness:
    """The whole shop, in process, with the usual settings of a test."""
    return make_shop()


@pytest.fixture
def flow(
    make_shop: Callable[..., ShopHarness], simulator: SimulatorProcess
) -> Iterator[FlowHarness]:
    """The shop with a broker and a simulator without faults; a provider call may take 0.4 s."""
    broker = EventBroker()
    shop = make_shop(broker_url=broker.url, payment_provider_timeout_seconds=0.4)
    records = simulator.records()
    newest = max((entry["entry_id"] for entry in records["entries"]), default=0)
    shop.sql("update shop.reconciliation set cursor = %s", str(newest))
    yield FlowHarness(
        shop,
        broker,
        simulator,
        len(records["intents"]),
        len(records["refunds"]),
        len(records["disputes"]),
    )
    simulator.set_faults()
    broker.close()


@pytest.fixture
def samples(shop: ShopHarness) -> Samples:
    """The shop with what sample requests refer to."""
    return Samples(shop)


@pytest.fixture(scope="module")
def processes(
    postgres_url: str,
    template_url: str,
    redis_url: str,
    simulator: SimulatorProcess,
    secrets: Secrets,
) -> Iterator[ProcessHarness]:
    """Starts function processes on a database of this module."""
    with cloned_database(postgres_url, template_url) as url:
        yield ProcessHarness(
            Endpoints(
                admin_url=url,
                redis_url=redis_url,
                broker_url="",
                provider_url=simulator.url,
                secrets=secrets,
                has_own_database=True,
            )
        )


@pytest.fixture(scope="module")
def accounts(request: pytest.FixtureRequest) -> Iterator[ShopHarness]:
    """The shop on this module's own database."""
    with shop_of_module(request) as shop:
        yield shop


@pytest.fixture
def accounts_without_redis(accounts: ShopHarness) -> Iterator[ShopHarness]:
    """The same shop with a Redis address on which nothing listens (port 1)."""
    shop = replace(accounts, overrides={"redis_url": Secret("redis://127.0.0.1:1/0")}, apps={})
    yield shop
    shop.close()


@pytest.fixture(scope="module")
def rows(accounts: ShopHarness) -> Iterator[Rows]:
    """Runs a statement as the administrator; returns tuples."""

    def run(sql: str, *values: object) -> list[tuple[Any, ...]]:
        return connection.execute(sql.encode(), values or None).fetchall()

    with psycopg.connect(accounts.admin_url, autocommit=True) as connection:
        yield run


def _in_database(url: str, name: str) -> str:
    return url.rsplit("/", 1)[0] + f"/{name}"
