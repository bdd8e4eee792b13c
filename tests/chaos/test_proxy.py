"""The proxy passes everything on, unless it is told not to; then it does exactly that."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from chaos.controlled_process import ChildEnded, ChildRefused
from chaos.postgres_protocol import Backend, Frontend
from chaos.proxies import Proxies
from chaos.toxics import Speaks, Toxic
from shop.adapters import db
from shop.adapters.db import Database

SECONDS_MAX = 10.0
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
REQUEST = b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nab"

OrderState = Callable[[Proxies, int, list[bytes]], Awaitable[None]]


@asynccontextmanager
async def upstream(answers: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that notes what it gets and echoes it, or answers the same to each chunk."""
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            got.append(data)
            writer.write(data if answers is None else answers)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], got


def run(story: OrderState, *, speaks: Speaks = "other", answers: bytes | None = None) -> None:
    async def all_of_it() -> None:
        async with asyncio.timeout(3 * SECONDS_MAX), upstream(answers) as (port, got):
            async with Proxies(seed=1) as proxies:
                await story(proxies, await proxies.open("edge", port, speaks), got)

    asyncio.run(all_of_it())


async def say(port: int, data: bytes, size: int) -> bytes:
    """What comes back, up to ``size`` bytes; raises OSError when the connection is cut."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.readexactly(size), SECONDS_MAX)
    finally:
        writer.close()


CUT = (OSError, asyncio.IncompleteReadError)


def test_without_a_toxic_bytes_pass_as_they_come() -> None:
    async def story(proxies: Proxies, port: int, _: list[bytes]) -> None:
        sent = bytes(range(256)) * 4000
        assert await say(port, sent, len(sent)) == sent

        figures = await proxies.figures()
        assert figures["edge"]["connections"] == 1
        assert figures["edge"]["bytes"] == 2 * len(sent)

    run(story)


@pytest.mark.parametrize(
    "toxic",
    [
        Toxic(kind="slicer"),
        Toxic(kind="latency", latency_ms=5, jitter_ms=5),
        Toxic(kind="bandwidth", kilobytes_per_second=500),
    ],
    ids=lambda toxic: toxic.kind,
)
def test_what_is_slow_arrives_whole_and_in_order(toxic: Toxic) -> None:
    async def story(proxies: Proxies, port: int, _: list[bytes]) -> None:
        await proxies.put("edge", toxic)
        sent = bytes(range(256)) * 20
        assert await say(port, sent, len(sent)) == sent

    run(story)


@pytest.mark.parametrize("kind", ["down", "reset"])
def test_a_cut_edge_is_cut_until_it_is_healed(kind: str) -> None:
    async def story(proxies: Proxies, port: int, _: list[bytes]) -> None:
        await proxies.put("edge", Toxic(kind=kind))  # type: ignore[arg-type]
        with pytest.raises(CUT):
            await say(port, b"hello", 5)

        await proxies.heal("edge")

        assert await say(port, b"hello", 5) == b"hello"

    run(story)


def test_a_black_hole_says_nothing_and_hangs_up_when_it_is_healed() -> None:
    async def story(proxies: Proxies, port: int, got: list[bytes]) -> None:
        await proxies.put("edge", Toxic(kind="black_hole"))
        waiting = asyncio.create_task(say(port, b"hello", 5))
        while (await proxies.figures())["edge"].get("bytes", 0) < 5:
            assert not waiting.done()

        await proxies.heal()

        with pytest.raises(CUT):
            await waiting
        assert got == []

    run(story)


def test_a_request_is_doubled_and_its_client_gets_one_answer() -> None:
    async def story(proxies: Proxies, port: int, got: list[bytes]) -> None:
        await proxies.put("edge", Toxic(kind="duplicate_request", times=1))

        assert await say(port, REQUEST, len(ANSWER)) == ANSWER
        assert await say(port, REQUEST, len(ANSWER)) == ANSWER

        async with asyncio.timeout(SECONDS_MAX):
            while len(got) < 3:
                await proxies.figures()
        assert got == [REQUEST] * 3
        assert (await proxies.figures())["edge"]["duplicate_request"] == 1

    run(story, speaks="http", answers=ANSWER)


def test_latency_delays_each_chunk_once() -> None:
    async def story(proxies: Proxies, port: int, _: list[bytes]) -> None:
        await proxies.put("edge", Toxic(kind="latency", latency_ms=200))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        started = asyncio.get_running_loop().time()
        for _chunk in range(10):
            writer.write(b"x")
            await asyncio.sleep(0.01)
        await asyncio.wait_for(reader.readexactly(10), SECONDS_MAX)
        taken = asyncio.get_running_loop().time() - started
        writer.close()
        assert 0.4 <= taken < 1.5, "two directions, not two directions for each of ten chunks"

    run(story)


def test_wrong_use_is_told() -> None:
    async def story(proxies: Proxies, port: int, _: list[bytes]) -> None:
        with pytest.raises(ChildRefused, match="nowhere"):
            await proxies.put("nowhere", Toxic(kind="down"))
        with pytest.raises(ChildRefused, match="nothing for an edge that speaks other"):
            await proxies.put("edge", Toxic(kind="swallow_commit_reply"))

    run(story)
    with pytest.raises(ValueError, match="fire"):
        Toxic(kind="fire")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between 0 and 1"):
        Toxic(kind="down", probability=2)


def test_a_dead_proxy_is_told() -> None:
    async def story() -> None:
        proxies = Proxies(seed=1)
        async with proxies:
            assert proxies._process._process is not None
            proxies._process._process.kill()
            with pytest.raises(ChildEnded):
                await asyncio.wait_for(proxies.figures(), SECONDS_MAX)
                await asyncio.wait_for(proxies.figures(), SECONDS_MAX)

    asyncio.run(story())


# ---------------------------------------------------------------- PostgreSQL


def through(url: str, port: int) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{port}"))


def test_the_reply_to_a_commit_is_swallowed_and_what_was_done_stays(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as direct:
        direct.execute("create table public.marks (n int primary key)")

        def add(database: Database, number: int) -> None:
            with database.transaction() as session:
                session.tx.run("insert into public.marks values (%(n)s)", n=number)
                session.commit()

        async def story() -> None:
            async with Proxies(seed=1) as proxies:
                port = await proxies.open("db", urlsplit(database_url).port or 5432, "postgres")
                with closing(Database(through(database_url, port), source="/shop/test")) as made:
                    await asyncio.to_thread(add, made, 1)
                    await proxies.put("db", Toxic(kind="swallow_commit_reply", times=1))

                    with pytest.raises(db.NOT_NOW):
                        await asyncio.to_thread(add, made, 2)
                    await asyncio.to_thread(add, made, 3)
                    with pytest.raises(psycopg.errors.UniqueViolation):
                        await asyncio.to_thread(add, made, 3)

                figures = await proxies.figures()
                assert figures["db"]["swallow_commit_reply"] == 1

        asyncio.run(story())
        assert direct.execute("select n from public.marks order by n").fetchall() == [
            (1,),
            (2,),
            (3,),
        ]


def message(kind: bytes, payload: bytes) -> bytes:
    return kind + (len(payload) + 4).to_bytes(4, "big") + payload


START = (8 + 1).to_bytes(4, "big") + (196608).to_bytes(4, "big") + b"\0"
SPOKEN = (
    START
    + message(b"P", b"s1\0commit\0\0\0")
    + message(b"P", b"s2\0select 1\0\0\0")
    + message(b"B", b"\0s2\0\0\0\0\0\0\0")
    + message(b"B", b"\0s1\0\0\0\0\0\0\0")
    + message(b"Q", b"COMMIT\0")
)


@pytest.mark.parametrize("size", [1, 7, len(SPOKEN)])
def test_a_commit_is_seen_however_its_bytes_are_cut(size: int) -> None:
    frontend = Frontend()

    seen = [frontend.feed(SPOKEN[at : at + size]) for at in range(0, len(SPOKEN), size)]

    assert sum(seen) == (1 if size == len(SPOKEN) else 2)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_the_word_of_the_server_is_seen_however_it_is_cut(size: int) -> None:
    said = message(b"1", b"") + message(b"C", b"COMMIT\0") + message(b"Z", b"I")
    refused = message(b"1", b"") + message(b"C", b"ROLLBACK\0") + message(b"Z", b"I")
    yes, no = Backend(), Backend()

    assert any([yes.feed(said[at : at + size]) for at in range(0, len(said), size)])
    assert not any([no.feed(refused[at : at + size]) for at in range(0, len(refused), size)])


def test_the_proxy_listens_on_this_machine_only() -> None:
    async def story(_: Proxies, port: int, __: list[bytes]) -> None:
        with closing(socket.socket()) as other:
            other.settimeout(1)
            with pytest.raises(OSError):
                other.connect((socket.gethostbyname(socket.gethostname()), port))
                raise OSError("this machine's name leads to the loopback address")

    run(story)
