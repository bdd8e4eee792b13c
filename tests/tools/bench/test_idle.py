"""``make bench-idle --check``: whatever wakes a function or queries too often misses a target."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import psycopg
import pytest

from tools.bench.idle import BRING_FORWARD, IdleShop, Rest, idle_shop, measure, report

SECONDS = 3.0


def missed(rest: Rest) -> set[str]:
    """The names of the targets that a measurement misses."""
    return {name for name, value, limit in rest.targets() if value > limit}


async def send_a_request(shop: IdleShop) -> None:
    """A customer's request, in a shop that should be idle."""
    async with httpx.AsyncClient(base_url=shop.url, timeout=90) as client:
        (await client.get("/v3/api-docs")).raise_for_status()


async def query_often(shop: IdleShop) -> None:
    """A program that looks for work twice a second."""
    own = shop.connection.info
    connection = await psycopg.AsyncConnection.connect(
        f"postgresql://{own.user}:{own.password}@{own.host}:{own.port}/{own.dbname}",
        autocommit=True,
    )
    async with connection:
        while True:
            await connection.execute("select count(*) from shop.outbox")
            await asyncio.sleep(0.5)


@pytest.mark.timeout(300)
def test_request_due_row_and_polling_program_each_miss_a_target(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle_shop(tmp_path) as shop:
            asleep = await measure(shop, SECONDS)
            polling = asyncio.create_task(query_often(shop))
            polled = await measure(shop, SECONDS)
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
            request = asyncio.create_task(send_a_request(shop))
            requested = await measure(shop, SECONDS)
            await request
            await shop.sql(BRING_FORWARD)
            due = await measure(shop, SECONDS)

        # each of four schedules asks once, when it starts
        assert (asleep.queries, missed(asleep)) == (4, set[str]())
        assert asleep.is_idle
        assert missed(polled) == {"queries"}
        assert missed(requested) >= {"function processes started", "pod seconds"}
        assert missed(due) >= {"tick processes started", "pod seconds"}
        assert not polled.is_idle and not requested.is_idle and not due.is_idle

    asyncio.run(scenario())


@pytest.mark.parametrize(("starts", "status"), [(0, 0), (1, 1)])
def test_check_exits_with_1_unless_the_shop_was_idle(starts: int, status: int) -> None:
    rest = Rest(
        minutes=1, starts=starts, ticks=0, pod_seconds=0, queries=2, query_ms=3, connections=2
    )

    assert report(rest, check=True) == status
    assert report(rest, check=False) == 0
