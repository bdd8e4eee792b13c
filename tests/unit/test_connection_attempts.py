"""Refused connections are opened again, without sending anything twice."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import psycopg
import pytest

from shop.adapters import connection_attempts
from shop.adapters.cache import Cache
from shop.adapters.connection_attempts import ConnectionAttempts
from shop.adapters.payment_provider.factory import open_provider
from tests.counting_proxy import CountingProxy
from tests.harness import EventBroker, MakeShop, ShopHarness
from tests.tools.payment_simulator.simulator_process import API_KEY, SimulatorProcess, charge_call
from tests.unit.fake_stripe import FakeStripe
from tests.waiting import wait_for
from tools.local_platform.servers import free_port
from tools.migrate import migrate
from tools.operations.snapshot import snapshot

# Opens a port that leads to the server of a URL after the first refused attempts.
OpenLate = Callable[[str], int]


class OtherError(OSError):
    """An error that has nothing to do with a connection."""


@pytest.fixture
def open_late(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenLate]:
    """Opens the ports at the second pause between attempts, instead of pausing."""
    waiting: list[tuple[str, int, int]] = []
    pauses: list[float] = []
    with ExitStack() as opened:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            while waiting and len(pauses) >= 2:
                opened.enter_context(CountingProxy(*waiting.pop()))

        def later(url: str) -> int:
            parts = urlsplit(url)
            waiting.append((parts.hostname or "", parts.port or 0, free_port()))
            return waiting[-1][2]

        monkeypatch.setattr(connection_attempts, "sleep", pause)
        yield later


def repeated(shop: ShopHarness, function: str, server: str) -> int:
    return shop.apps[function].services.repeated_connections()[(server,)]


def test_first_request_succeeds_when_the_database_port_opens_late(
    shop: ShopHarness, database_url: str, open_late: OpenLate
) -> None:
    product = shop.product()
    address = f"127.0.0.1:{open_late(database_url)}{urlsplit(database_url).path}"
    late = replace(shop, database_address=address, apps={})

    assert late.call("GET", f"/products/{product}").status == 200
    assert repeated(late, "list_products", "postgres") == 2
    late.close()


def test_first_call_of_the_cache_succeeds_when_its_port_opens_late(
    redis_url: str, open_late: OpenLate
) -> None:
    attempts = ConnectionAttempts()
    url = redis_url.replace(f":{urlsplit(redis_url).port}", f":{open_late(redis_url)}")
    cache = Cache(url, 2.0, attempts)

    assert (cache.set("late", "1", 60), attempts.repeated) == (True, 2)
    cache.close()


def test_first_charge_succeeds_when_the_port_of_the_simulator_opens_late(
    simulator: SimulatorProcess, open_late: OpenLate
) -> None:
    simulator.set_faults()
    attempts, call = ConnectionAttempts(), charge_call("CARD")
    url = f"http://127.0.0.1:{open_late(simulator.url)}"
    provider = open_provider("sandbox", url, API_KEY, 10.0, attempts=attempts)

    assert (provider.charge(call).kind, attempts.repeated) == ("captured", 2)


def test_first_charge_succeeds_when_the_port_of_stripe_opens_late(open_late: OpenLate) -> None:
    fake = FakeStripe()
    attempts, call = ConnectionAttempts(), charge_call("pm_card_visa")
    url = f"http://127.0.0.1:{open_late(fake.url)}"
    provider = open_provider("stripe", url, "sk_test_fake", 10.0, attempts=attempts)

    assert (provider.charge(call).kind, attempts.repeated) == ("captured", 2)
    assert fake.captures(call.key) == 1
    fake.close()


def test_first_event_is_published_when_the_port_of_the_broker_opens_late(
    make_shop: MakeShop, open_late: OpenLate
) -> None:
    broker = EventBroker()
    url = f"http://127.0.0.1:{open_late(broker.url)}/"
    shop = make_shop(broker_url=url, broker_class="imc")
    shop.person().order(shop.product())

    wait_for(lambda: not shop.apps["place_order"].services.open_deliveries, "the delivery ends")
    assert [row["sent_at"] for row in shop.outbox() if row["sent_at"] is None] == []
    assert len(broker.take()) == 1
    assert repeated(shop, "place_order", "broker") == 2
    broker.close()


def test_due_events_are_relayed_when_the_port_of_the_broker_opens_late(
    make_shop: MakeShop, open_late: OpenLate
) -> None:
    broker = EventBroker()
    shop = make_shop()
    shop.person().order(shop.product())
    shop.sql("update shop.outbox set next_try_at = now()")
    url = f"http://127.0.0.1:{open_late(broker.url)}/"
    late = replace(shop, overrides={"broker_url": url, "broker_class": "kafka"}, apps={})

    late.tick("sweep")

    published = {message[0]["ce-id"] for message in broker.take()}
    broker.close()
    late.close()
    assert {str(row["event_id"]) for row in shop.outbox()} <= published
    assert repeated(late, "sweep", "broker") == 2


def test_attempts_are_not_repeated_after_the_first_seconds_of_an_outage() -> None:
    attempts, calls = ConnectionAttempts(outage_seconds=0.05), [0]

    def connect() -> None:
        calls[0] += 1
        socket.create_connection(("127.0.0.1", 1), timeout=1)

    with pytest.raises(ConnectionRefusedError):
        attempts.open(connect)
    assert calls[0] == 1 + attempts.repeated > 1
    calls[0] = 0
    with pytest.raises(ConnectionRefusedError):
        attempts.open(connect)

    assert calls == [1]


def test_successful_connection_ends_an_outage() -> None:
    attempts = ConnectionAttempts(outage_seconds=0.0)
    refused = ConnectionRefusedError(111, "Connection refused")
    answers: list[Exception | None] = [refused, None, refused, None]

    def connect() -> None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer

    with pytest.raises(ConnectionRefusedError):
        attempts.open(connect)
    attempts.open(connect)
    patient = ConnectionAttempts()
    patient.open(connect)

    assert (attempts.repeated, patient.repeated) == (0, 1)


def test_other_error_than_a_refused_connection_is_raised_at_once() -> None:
    attempts = ConnectionAttempts()

    def connect() -> None:
        raise OtherError

    with pytest.raises(OtherError):
        attempts.open(connect)
    assert attempts.repeated == 0


def test_rejected_password_is_no_refused_connection(database_url: str) -> None:
    parts = urlsplit(database_url)
    wrong = f"postgresql://no_such_role:wrong@{parts.hostname}:{parts.port}{parts.path}"
    attempts = ConnectionAttempts()

    with pytest.raises(psycopg.OperationalError):
        attempts.open(lambda: psycopg.connect(wrong), errors=(psycopg.OperationalError,))
    assert attempts.repeated == 0


def test_migration_and_snapshot_succeed_when_the_database_port_opens_late(
    database_url: str, open_late: OpenLate
) -> None:
    """As in the first seconds of a Job's pod."""
    parts = urlsplit(database_url)

    def late() -> str:
        return database_url.replace(f":{parts.port}", f":{open_late(database_url)}")

    migrate(late())
    with snapshot(late()) as connection:
        assert connection.execute("select count(*) from shop.orders").fetchone() == (0,)
