"""The proxy forwards bytes unchanged unless an edge has a toxic."""

# Kills the proxy's process, to which there is no public access.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import cast
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from chaos.controlled_process import CommandFailed, ProcessExited
from chaos.proxy.client import Proxies
from chaos.proxy.postgres_protocol import CommitReply, CommitRequests
from chaos.proxy.toxics import Protocol, Toxic, ToxicKind
from shop.adapters import db
from shop.adapters.db import Database
from shop.adapters.statements import Command

SECONDS_MAX = 10.0
RESPONSE = b"HTTP/1.1 204 No Content\r\n\r\n"
REQUEST = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nab"

Scenario = Callable[[Proxies, int, list[bytes]], Awaitable[None]]

ADD_MARK = Command("insert into public.marks values (%(n)s)")


@asynccontextmanager
async def upstream(response: bytes | None) -> AsyncGenerator[tuple[int, list[bytes]], None]:
    """A server that records and echoes each chunk, or sends the same response to each."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            received.append(data)
            writer.write(data if response is None else response)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], received


def run(scenario: Scenario, *, protocol: Protocol = "other", response: bytes | None = None) -> None:
    async def run_with_proxy() -> None:
        async with asyncio.timeout(3 * SECONDS_MAX), upstream(response) as (port, received):
            async with Proxies(seed=1) as proxies:
                await scenario(proxies, await proxies.open("edge", port, protocol), received)

    asyncio.run(run_with_proxy())


async def exchange(port: int, data: bytes, size: int) -> bytes:
    """Sends data and reads ``size`` bytes; raises CONNECTION_ERRORS for a closed connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.readexactly(size), SECONDS_MAX)
    finally:
        writer.close()


CONNECTION_ERRORS = (OSError, asyncio.IncompleteReadError)


def test_without_a_toxic_bytes_are_forwarded_unchanged() -> None:
    async def scenario(proxies: Proxies, port: int, _: list[bytes]) -> None:
        sent = bytes(range(256)) * 4000
        assert await exchange(port, sent, len(sent)) == sent

        metrics = await proxies.metrics()
        assert metrics["edge"]["connections"] == 1
        assert metrics["edge"]["bytes"] == 2 * len(sent)

    run(scenario)


@pytest.mark.parametrize(
    "toxic",
    [
        Toxic(kind="slicer"),
        Toxic(kind="latency", latency_ms=5, jitter_ms=5),
        Toxic(kind="bandwidth", kilobytes_per_second=500),
    ],
    ids=lambda toxic: toxic.kind,
)
def test_slow_edge_delivers_all_bytes_in_order(toxic: Toxic) -> None:
    async def scenario(proxies: Proxies, port: int, _: list[bytes]) -> None:
        await proxies.add("edge", toxic)
        sent = bytes(range(256)) * 4
        assert await exchange(port, sent, len(sent)) == sent

    run(scenario)


@pytest.mark.parametrize("kind", ["down", "reset"])
def test_edge_is_unusable_until_its_toxic_is_removed(kind: ToxicKind) -> None:
    async def scenario(proxies: Proxies, port: int, _: list[bytes]) -> None:
        await proxies.add("edge", Toxic(kind=kind))
        with pytest.raises(CONNECTION_ERRORS):
            await exchange(port, b"hello", 5)

        await proxies.remove_toxics("edge")

        assert await exchange(port, b"hello", 5) == b"hello"

    run(scenario)


def test_black_hole_drops_bytes_and_resets_when_it_is_removed() -> None:
    async def scenario(proxies: Proxies, port: int, received: list[bytes]) -> None:
        await proxies.add("edge", Toxic(kind="black_hole"))
        waiting = asyncio.create_task(exchange(port, b"hello", 5))
        while (await proxies.metrics())["edge"].get("bytes", 0) < 5:
            assert not waiting.done()

        await proxies.remove_toxics()

        with pytest.raises(CONNECTION_ERRORS):
            await waiting
        assert received == []

    run(scenario)


def test_request_is_duplicated_and_its_client_gets_one_response() -> None:
    async def scenario(proxies: Proxies, port: int, received: list[bytes]) -> None:
        await proxies.add("edge", Toxic(kind="duplicate_request"))
        assert await exchange(port, REQUEST, len(RESPONSE)) == RESPONSE
        await proxies.remove_toxics()
        assert await exchange(port, REQUEST, len(RESPONSE)) == RESPONSE

        async with asyncio.timeout(SECONDS_MAX):
            while len(received) < 3:
                await proxies.metrics()
        assert received == [REQUEST] * 3
        assert (await proxies.metrics())["edge"]["duplicate_request"] == 1

    run(scenario, protocol="http", response=RESPONSE)


def test_latency_delays_each_chunk_once() -> None:
    async def scenario(proxies: Proxies, port: int, _: list[bytes]) -> None:
        await proxies.add("edge", Toxic(kind="latency", latency_ms=200))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        started = asyncio.get_running_loop().time()
        for _chunk in range(10):
            writer.write(b"x")
            await asyncio.sleep(0.01)
        await asyncio.wait_for(reader.readexactly(10), SECONDS_MAX)
        taken = asyncio.get_running_loop().time() - started
        writer.close()
        assert 0.4 <= taken < 1.5, "two directions, not two directions for each of ten chunks"

    run(scenario)


def test_unknown_edge_or_invalid_toxic_is_an_error() -> None:
    async def scenario(proxies: Proxies, port: int, _: list[bytes]) -> None:
        with pytest.raises(CommandFailed, match="nowhere"):
            await proxies.add("nowhere", Toxic(kind="down"))
        with pytest.raises(CommandFailed, match="cannot be applied to the protocol other"):
            await proxies.add("edge", Toxic(kind="drop_commit_reply"))

    run(scenario)
    with pytest.raises(ValueError, match="unknown toxic"):
        Toxic(kind=cast(ToxicKind, "fire"))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Toxic(kind="down", probability=2)


def test_call_to_an_exited_proxy_raises() -> None:
    async def run() -> None:
        proxies = Proxies(seed=1)
        async with proxies:
            assert proxies._process._process is not None
            proxies._process._process.kill()
            with pytest.raises(ProcessExited):
                await asyncio.wait_for(proxies.metrics(), SECONDS_MAX)
                await asyncio.wait_for(proxies.metrics(), SECONDS_MAX)

    asyncio.run(run())


# ---------------------------------------------------------------- PostgreSQL


def through(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))


def test_dropped_commit_reply_leaves_the_transaction_committed(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as direct:
        direct.execute("create table public.marks (n int primary key)")

        def add(database: Database, number: int) -> None:
            with database.transaction() as session:
                session.tx.execute(ADD_MARK(n=number))
                session.commit()

        async def run() -> None:
            async with Proxies(seed=1) as proxies:
                port = await proxies.open("db", urlsplit(database_url).port or 5432, "postgres")
                with closing(Database(through(database_url, port), source="/shop/test")) as made:
                    await asyncio.to_thread(add, made, 1)
                    await proxies.add("db", Toxic(kind="drop_commit_reply"))

                    with pytest.raises(db.UNAVAILABLE_ERRORS):
                        await asyncio.to_thread(add, made, 2)
                    await proxies.remove_toxics()
                    await asyncio.to_thread(add, made, 3)
                    with pytest.raises(psycopg.errors.UniqueViolation):
                        await asyncio.to_thread(add, made, 3)

                metrics = await proxies.metrics()
                assert metrics["db"]["drop_commit_reply"] == 1

        asyncio.run(run())
        assert direct.execute("select n from public.marks order by n").fetchall() == [
            (1,),
            (2,),
            (3,),
        ]


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + (len(payload) + 4).to_bytes(4, "big") + payload


START = (8 + 1).to_bytes(4, "big") + (196608).to_bytes(4, "big") + b"\0"
CLIENT_BYTES = (
    START
    + message(b"P", b"s1\0commit\0\0\0")
    + message(b"P", b"s2\0select 1\0\0\0")
    + message(b"B", b"\0s2\0\0\0\0\0\0\0")
    + message(b"B", b"\0s1\0\0\0\0\0\0\0")
    + message(b"Q", b"COMMIT\0")
)


@pytest.mark.parametrize("size", [1, 7, len(CLIENT_BYTES)])
def test_commit_request_is_detected_in_any_chunks(size: int) -> None:
    requests = CommitRequests()

    detected = [
        requests.feed(CLIENT_BYTES[at : at + size]) for at in range(0, len(CLIENT_BYTES), size)
    ]

    assert sum(detected) == (1 if size == len(CLIENT_BYTES) else 2)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_commit_reply_is_detected_in_any_chunks(size: int) -> None:
    committed = message(b"1", b"") + message(b"C", b"COMMIT\0") + message(b"Z", b"I")
    rolled_back = message(b"1", b"") + message(b"C", b"ROLLBACK\0") + message(b"Z", b"I")
    reply, other_reply = CommitReply(), CommitReply()

    assert any([reply.feed(committed[at : at + size]) for at in range(0, len(committed), size)])
    assert not any(
        [other_reply.feed(rolled_back[at : at + size]) for at in range(0, len(rolled_back), size)]
    )


def test_proxy_listens_on_the_loopback_address_only() -> None:
    async def scenario(_: Proxies, port: int, __: list[bytes]) -> None:
        with closing(socket.socket()) as other:
            other.settimeout(1)
            with pytest.raises(OSError):
                other.connect((socket.gethostbyname(socket.gethostname()), port))
                raise OSError("the name of this machine resolves to the loopback address")

    run(scenario)
