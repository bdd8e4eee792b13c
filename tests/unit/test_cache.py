"""The cache with a real server (redis-py reads its contents) and with faulty ones."""

# redis-py does not type its keyword arguments.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress

import pytest
import redis as oracle

from shop.adapters.cache import BREAKER_SECONDS, Cache
from tools.local_platform import servers

PATIENT_SECONDS = 2.0
NOT_WAITED_SECONDS = 1.0


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with servers.redis() as address:
        yield address


@pytest.fixture
def redis(url: str) -> Iterator[oracle.Redis]:
    with closing(oracle.Redis.from_url(url)) as client:
        client.flushall()
        yield client


@pytest.fixture
def cache(url: str) -> Iterator[Cache]:
    with closing(Cache(url, timeout_seconds=PATIENT_SECONDS)) as cache:
        yield cache


def unresponsive(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def sending(*chunks: bytes) -> Callable[[socket.socket], None]:
    def respond(connection: socket.socket) -> None:
        connection.recv(4096)
        for chunk in chunks:
            connection.sendall(chunk)
        unresponsive(connection)

    return respond


@contextmanager
def server(behave: Callable[[socket.socket], None]) -> Generator[tuple[str, list[int]]]:
    """A faulty TCP server; yields its URL and the list of its connections."""
    connections: list[int] = []

    def serve_one(connection: socket.socket) -> None:
        with closing(connection):
            with suppress(OSError):  # the client hangs up, as it should
                behave(connection)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(1)
            threading.Thread(target=serve_one, args=(connection,), daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}", connections
        listener.shutdown(socket.SHUT_RDWR)


def test_value_is_readable_until_it_expires(cache: Cache, redis: oracle.Redis) -> None:
    assert cache.set("key", "값 ✓", 5)

    assert redis.get("key") == "값 ✓".encode()
    assert 4_000 < redis.pttl("key") <= 5_000
    assert cache.get("key") == "값 ✓".encode()
    assert cache.get("other") is None


@pytest.mark.parametrize("value", [b"", b"\r\n", bytes(range(256)), b"$5\r\n" * 50_000])
def test_value_is_read_back_byte_for_byte(cache: Cache, redis: oracle.Redis, value: bytes) -> None:
    assert cache.set("bytes", value, 5)

    assert redis.get("bytes") == value
    assert cache.get("bytes") == value


def test_several_keys_are_read_in_order(cache: Cache, redis: oracle.Redis) -> None:
    redis.mset({"a": "1", "c": "3"})
    redis.lpush("list", "x")

    assert cache.get_many("a", "b", "c", "list") == [b"1", None, b"3", None]
    assert cache.get_many() == []


def test_set_if_absent_succeeds_for_the_first_caller_only(
    cache: Cache, redis: oracle.Redis
) -> None:
    assert cache.set_if_absent("once", "first", 5) is True
    assert cache.set_if_absent("once", "second", 5) is False

    assert redis.get("once") == b"first"
    assert 0 < redis.pttl("once") <= 5_000


def test_counter_expires_after_its_first_increment(cache: Cache, redis: oracle.Redis) -> None:
    assert cache.increment_beside("count", "none", 60) == (1, 0)
    redis.pexpire("count", 5_000)
    assert cache.increment_beside("count", "none", 60) == (2, 0)

    assert 0 < redis.pttl("count") <= 5_000, "a later count must not prolong the window"


def test_counter_without_expiry_gets_an_expiry(cache: Cache, redis: oracle.Redis) -> None:
    redis.set("count", 41)

    assert cache.increment_beside("count", "none", 60) == (42, 0)
    assert 0 < redis.pttl("count") <= 60_000


def test_increment_beside_reads_the_other_counter(cache: Cache, redis: oracle.Redis) -> None:
    redis.mset({"last": "7", "odd": "x"})

    assert cache.increment_beside("now", "last", 60) == (1, 7)
    assert cache.increment_beside("now", "none", 60) == (2, 0)
    assert cache.increment_beside("now", "odd", 60) == (3, 0)


def test_key_of_another_type_is_a_miss_and_no_failure(cache: Cache, redis: oracle.Redis) -> None:
    redis.lpush("list", "x")

    assert cache.get("list") is None
    assert cache.increment_beside("list", "none", 60) is None
    assert cache.failures == 0
    assert cache.set("key", "v", 5), "the server is still used"


def test_flushed_server_is_empty_and_no_failure(cache: Cache, redis: oracle.Redis) -> None:
    cache.set("key", "v", 60)
    redis.flushall()

    assert cache.get("key") is None
    assert cache.set_if_absent("key", "w", 60) is True
    assert cache.failures == 0


def test_connection_closed_by_the_server_is_replaced(cache: Cache, redis: oracle.Redis) -> None:
    cache.set("key", "v", 60)
    redis.client_kill_filter(_type="normal", skipme=True)

    assert cache.get("key") == b"v"
    assert cache.failures == 0


def test_concurrent_threads_read_their_own_responses(cache: Cache, redis: oracle.Redis) -> None:
    keys = [f"k{n}" for n in range(8)]
    redis.mset({key: key * 500 for key in keys})
    wrong: list[object] = []

    def read(key: str) -> None:
        for _ in range(200):
            if (value := cache.get(key)) != key.encode() * 500:
                wrong.append((key, value))

    readers = [threading.Thread(target=read, args=(key,)) for key in keys]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()

    assert wrong == []
    assert cache.failures == 0


def test_url_selects_database_and_user(url: str, redis: oracle.Redis) -> None:
    redis.acl_setuser(
        "shop", enabled=True, passwords="+p@ss:w/rd", keys=["*"], categories=["+@all"]
    )
    address = url.removeprefix("redis://").rpartition("@")[2].removesuffix("/0")

    with closing(Cache(f"redis://shop:p%40ss%3Aw%2Frd@{address}/3", PATIENT_SECONDS)) as cache:
        assert cache.set("key", "v", 60)
    with closing(Cache(f"redis://shop:wrong@{address}/3", PATIENT_SECONDS)) as stranger:
        assert stranger.get("key") is None
        assert stranger.failures == 1

    assert redis.get("key") is None
    with closing(oracle.Redis.from_url(f"{url.removesuffix('/0')}/3")) as third:
        assert third.get("key") == b"v"


@pytest.mark.parametrize("odd", ["http://a:1/0", "redis://", "redis://a:1/x", "redis:///0", "a:1"])
def test_invalid_url_raises_value_error(odd: str) -> None:
    with pytest.raises(ValueError):
        Cache(odd)


def assert_every_operation_misses(cache: Cache) -> None:
    """Every operation reports a miss without waiting for the server."""
    began = time.monotonic()
    assert cache.get("key") is None
    assert cache.get_many("a", "b") == [None, None]
    assert cache.set("key", "v", 5) is False
    assert cache.set_if_absent("key", "v", 5) is None
    assert cache.increment_beside("key", "other", 5) is None
    assert time.monotonic() - began < NOT_WAITED_SECONDS


def test_cache_without_url_is_always_a_miss() -> None:
    cache = Cache(None)

    assert_every_operation_misses(cache)
    assert cache.failures == 0


def test_unreachable_server_is_a_miss() -> None:
    cache = Cache(f"redis://127.0.0.1:{servers.free_port()}")

    assert_every_operation_misses(cache)
    assert cache.failures == 1, "after one failure Redis is not used for a second"


def test_name_that_does_not_resolve_is_a_miss() -> None:
    cache = Cache("redis://no-such-host.invalid")

    assert_every_operation_misses(cache)


def test_unresponsive_server_costs_one_timeout_per_second() -> None:
    with server(unresponsive) as (address, connections):
        cache = Cache(address)

        assert_every_operation_misses(cache)

        assert (cache.failures, len(connections)) == (1, 1)


def test_slow_response_ends_at_the_deadline() -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"$1000000\r\n")
        while True:
            connection.sendall(b"x")
            if connection.fileno() < 0:
                return
            threading.Event().wait(0.01)

    with server(drip) as (address, _):
        assert_every_operation_misses(Cache(address))


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$5\r\nabcdefgh\r\n",
        b"$-7\r\n",
        b"$99999999999\r\n",
        b"$x\r\n",
        b":one\r\n",
        b"*100000000\r\n",
        b"*1\r\n*1\r\n:1\r\n",
        b"+OK\r\n+OK\r\n",
        b"x" * 10_000,
        b"\r\n",
        b"$" + b"9" * 900 + b"\r\n",
    ],
)
def test_undecodable_response_is_a_miss(garbage: bytes) -> None:
    with server(sending(garbage)) as (address, _):
        cache = Cache(address)

        assert cache.get("key") is None
        assert cache.failures == 1


def test_response_of_the_wrong_type_is_a_miss() -> None:
    for response in (b":1\r\n", b"+OK\r\n"):
        with server(sending(response)) as (address, _), closing(Cache(address)) as cache:
            assert cache.get("key") is None
    short_list = sending(b"*1\r\n$1\r\na\r\n")
    with server(short_list) as (address, _), closing(Cache(address)) as cache:
        assert cache.get_many("a", "b") == [None, None]


def test_fragmented_response_is_assembled() -> None:
    fragments = (b"$1", b"0\r", b"\nabcde", b"fghij\r", b"\n")
    with (
        server(sending(*fragments)) as (address, _),
        closing(Cache(address, PATIENT_SECONDS)) as cache,
    ):
        assert cache.get("key") == b"abcdefghij"


def test_restarted_server_is_used_again(url: str, redis: oracle.Redis) -> None:
    redis.set("key", "v")
    with closing(Cache(url, timeout_seconds=0.05)) as cache:
        redis.client_pause(300)  # milliseconds, for all clients
        assert cache.get("key") is None

        deadline = time.monotonic() + 10 * BREAKER_SECONDS
        while cache.get("key") != b"v":
            assert time.monotonic() < deadline, "the breaker never closed"
            threading.Event().wait(0.01)
        assert cache.failures >= 1


def test_one_caller_probes_while_others_continue() -> None:
    probing = threading.Barrier(5)
    with server(unresponsive) as (address, connections):
        cache = Cache(address)
        assert cache.get("key") is None
        deadline = time.monotonic() + 2 * BREAKER_SECONDS
        while time.monotonic() < deadline and len(connections) == 1:
            cache.get("key")
            threading.Event().wait(0.01)
        assert len(connections) == 2, "after the break one more is tried"

        def ask() -> None:
            probing.wait()
            cache.get("key")

        askers = [threading.Thread(target=ask) for _ in range(5)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert len(connections) == 2
