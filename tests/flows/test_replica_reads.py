"""Reads that may lag, at a streaming replica: what it answers, and when the primary answers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from shop import settlement
from shop.adapters import replica as replica_module
from shop.orders import queries
from shop.primitives.messages import Caller
from shop.runtime.config import Secret
from shop.runtime.request_context import RequestContext
from tests.harness import ShopHarness
from tests.ledger_postings import insert_posting
from tests.streaming_replica import streaming_replica
from tests.tools.payment_simulator.simulator_process import API_KEY, SECRET
from tests.waiting import wait_for
from tools.cli import app
from tools.local_platform.function_environment import url_of_role
from tools.local_platform.secrets import Secrets
from tools.local_platform.servers import PostgresServer
from tools.migrate import migrate
from tools.seed import seed

DAY = "2026-02-01"
ROLES = {
    "list_products": "shop_catalog_ro",
    "read_orders": "shop_ordering",
    "read_settlements": "shop_settlement",
}

# With a limit of a millisecond, a replica whose replay is paused is always too far behind.
ALWAYS, NEVER = 3599.0, 0.001


@dataclass
class Servers:
    """A primary with the schema and the seed, and the replica that follows it."""

    primary: PostgresServer
    primary_url: str
    replica: PostgresServer
    replica_url: str

    def at_replica(self, sql: str) -> Any:
        """One value, read as the administrator at the replica."""
        with psycopg.connect(self.replica_url, autocommit=True) as connection:
            row = connection.execute(sql.encode()).fetchone()
            return row[0] if row else None

    def pause(self) -> None:
        """Stops the replay, so that the replica lags from now on."""
        self.at_replica("select pg_wal_replay_pause()")
        wait_for(
            lambda: self.at_replica("select pg_get_wal_replay_pause_state()") == "paused",
            "the replay is paused",
        )

    def catch_up(self) -> None:
        """Resumes the replay and waits until all of the primary's commits are at the replica."""
        with psycopg.connect(self.primary_url, autocommit=True) as connection:
            # a replica knows its lag once it has replayed a commit
            connection.execute("select pg_current_xact_id()")
            row = connection.execute("select pg_current_wal_insert_lsn()::text").fetchone()
            assert row is not None
        resume = "select case when pg_is_wal_replay_paused() then pg_wal_replay_resume() end"
        self.at_replica(resume)
        is_there = f"select pg_last_wal_replay_lsn() >= '{row[0]}'"
        wait_for(lambda: self.at_replica(is_there), "the replica has everything")


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="shop-replica-") as name:
        folder = Path(name)
        primary = PostgresServer(folder / "primary", durable=False)
        try:
            url = primary.start()
            migrate(url)
            seed(url)
            with streaming_replica(primary, folder) as replica:
                there = url.replace(f":{primary.port}/", f":{replica.port}/")
                yield Servers(primary, url, replica, there)
        finally:
            primary.stop()


MakeShopWithReplica = Callable[..., ShopHarness]


@pytest.fixture
def make_shop(servers: Servers, redis_url: str, secrets: Secrets) -> Iterator[MakeShopWithReplica]:
    """Makes the shop at the primary; ``function`` reads from the replica."""
    made: list[ShopHarness] = []

    def make(function: str = "read_settlements", *, lag: float = ALWAYS) -> ShopHarness:
        url = url_of_role(servers.replica_url, ROLES[function])
        shop = ShopHarness(
            admin_url=servers.primary_url,
            redis_url=redis_url,
            provider_url="http://127.0.0.1:1",
            provider_api_key=API_KEY,
            webhook_secret=SECRET,
            secrets=secrets,
            overrides={
                "database_replica_url": Secret(url),
                "database_replica_lag_seconds": lag,
            },
        )
        made.append(shop)
        return shop

    servers.catch_up()
    yield make
    for shop in made:
        shop.close()


def outcomes(shop: ShopHarness, function: str = "read_settlements") -> dict[str, int]:
    """What answered the reads of a function that may lag."""
    reads = shop.apps[function].services.replica_reads()
    return {outcome: count for (outcome,), count in reads.items() if count}


def captured(shop: ShopHarness, day: str) -> Any:
    """The settled amount of a day as finance reads it."""
    answer = shop.person("finance").get(f"/settlements/daily?date={day}")
    return answer.json["capturedAmount"] if answer.status == 200 else answer.status


def test_settlements_are_read_at_the_replica_and_sessions_at_the_primary(
    make_shop: MakeShopWithReplica, servers: Servers
) -> None:
    shop = make_shop()
    servers.pause()
    insert_posting(shop, "CAPTURE", 10_000, f"{DAY} 12:00+09")
    finance, customer = shop.person("finance"), shop.person()

    lagging = finance.get(f"/settlements/daily?date={DAY}")
    forbidden = customer.get(f"/settlements/daily?date={DAY}")
    servers.catch_up()
    found = finance.get(f"/settlements/daily?date={DAY}")
    servers.pause()
    shop.sql("update shop.sessions set revoked_at = now() where user_id = %s", finance.user_id)
    ended = finance.get(f"/settlements/daily?date={DAY}")
    servers.catch_up()

    assert lagging.status == 404, "the posting is not at the replica, and the new session is valid"
    assert (found.status, found.json["capturedAmount"]) == (200, 10_000)
    assert forbidden.status == 403
    assert ended.status == 401, "the end of a session is not at the replica yet"
    assert outcomes(shop) == {"replica": 2}


def test_replica_that_lags_is_not_asked_until_the_pause_is_over(
    make_shop: MakeShopWithReplica, servers: Servers
) -> None:
    shop = make_shop(lag=NEVER)
    servers.pause()
    insert_posting(shop, "CAPTURE", 500, "2026-03-01 12:00+09")

    amounts = [captured(shop, "2026-03-01") for _ in range(3)]
    servers.catch_up()

    assert amounts == [500, 500, 500], "the primary has answered"
    assert outcomes(shop) == {"lagging": 1, "paused": 2}


def test_primary_answers_while_the_replica_is_away(
    make_shop: MakeShopWithReplica, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop()
    insert_posting(shop, "CAPTURE", 700, "2026-04-01 12:00+09")
    servers.catch_up()
    assert captured(shop, "2026-04-01") == 700

    servers.replica.stop()
    away = [captured(shop, "2026-04-01") for _ in range(2)]
    servers.replica.start()
    servers.catch_up()
    paused = captured(shop, "2026-04-01")
    monkeypatch.setattr(replica_module, "monotonic", lambda: float("inf"))
    again = captured(shop, "2026-04-01")

    assert (away, paused, again) == ([700, 700], 700, 700)
    assert outcomes(shop) == {"replica": 2, "failed": 1, "paused": 2}


def test_read_that_the_replica_interrupts_is_repeated_at_the_primary(
    make_shop: MakeShopWithReplica, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop()
    insert_posting(shop, "CAPTURE", 900, "2026-05-01 12:00+09")
    daily = settlement.daily

    def interrupt(**values: Any) -> Any:
        monkeypatch.setattr(settlement, "daily", daily)
        servers.at_replica(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where usename = 'shop_settlement'"
        )
        return daily(**values)

    monkeypatch.setattr(settlement, "daily", interrupt)

    assert captured(shop, "2026-05-01") == 900
    assert outcomes(shop) == {"replica": 1, "failed": 1, "paused": 1}


def test_catalogue_is_read_at_the_replica_and_at_the_primary_without_it(
    make_shop: MakeShopWithReplica, servers: Servers
) -> None:
    shop = make_shop("list_products")
    servers.pause()
    product = shop.product(price=100)

    absent = shop.call("GET", f"/products/{product}").status
    servers.catch_up()
    servers.replica.stop()
    present = shop.call("GET", f"/products/{product}").status
    servers.replica.start()

    assert (absent, present) == (404, 200)
    assert outcomes(shop, "list_products") == {"replica": 1, "failed": 1}


def test_row_level_security_hides_orders_at_the_replica_too(
    make_shop: MakeShopWithReplica, servers: Servers
) -> None:
    shop = make_shop("read_orders")
    buyer, other = shop.person(), shop.person()
    order = buyer.order(shop.product())
    servers.catch_up()
    services = shop.apps["read_orders"].services

    def orders_seen_by(user_id: int) -> list[str]:
        (session,) = shop.sql("select session_id from shop.sessions where user_id = %s", user_id)
        context = RequestContext(
            services,
            source="/shop/read_orders",
            caller=Caller(user_id, "customer", session["session_id"]),
            traceparent="",
            has_database=True,
            is_read_only=True,
            may_lag=True,
        )
        with context.transaction() as tx:
            mine = tx.fetch_all(queries.orders_of_user(buyer.user_id, before=None, limit=5))
        return [str(row.order_id) for row in mine]

    assert orders_seen_by(buyer.user_id) == [order["id"]]
    assert orders_seen_by(other.user_id) == []
    assert outcomes(shop, "read_orders") == {"replica": 2}


def test_promoted_replica_does_not_lag_and_one_that_replayed_nothing_does(
    servers: Servers,
) -> None:
    with psycopg.connect(servers.primary_url) as connection:
        assert connection.execute(replica_module.LAG.sql).fetchone() == (0.0,)
    assert isinstance(servers.at_replica(replica_module.LAG.sql), float)


def test_operators_list_orders_at_the_replica_while_it_is_close(
    make_shop: MakeShopWithReplica, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop()
    buyer, product = shop.person(), shop.product()
    known = buyer.order(product)["id"]
    servers.catch_up()
    servers.pause()
    new = buyer.order(product)["id"]
    monkeypatch.setenv("AUDITOR_DATABASE_URL", url_of_role(servers.primary_url, "shop_auditor"))
    monkeypatch.setenv(
        "AUDITOR_DATABASE_REPLICA_URL", url_of_role(servers.replica_url, "shop_auditor")
    )

    def listed(lag: float) -> list[str]:
        monkeypatch.setenv("DATABASE_REPLICA_LAG_SECONDS", str(lag))
        result = CliRunner().invoke(
            app, ["order", "list", "--customer", str(buyer.user_id), "--json"]
        )
        assert result.exit_code == 0, result.output
        return [order["order_id"] for order in json.loads(result.stdout)]

    close, far = listed(ALWAYS), listed(NEVER)
    status = CliRunner().invoke(app, ["status", "--json"])
    servers.catch_up()
    servers.replica.stop()
    away = listed(ALWAYS)
    servers.replica.start()

    assert (close, far, away) == ([known], [new, known], [new, known])
    assert json.loads(status.stdout)["metrics"]["shop_orders"]
