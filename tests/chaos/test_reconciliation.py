"""The harness waits for a reconciliation that began after it was asked for one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest
from psycopg.rows import TupleRow

from chaos.environment import Environment
from chaos.reconciliation import reconcile_completely
from shop import reconciliation
from shop.adapters.statements import Row, Statement
from tests.waiting import WAIT_SECONDS

Connection = psycopg.AsyncConnection[TupleRow]


@pytest.fixture
def environment(database_url: str) -> Environment:
    """The part of an environment that reconciliation uses."""

    @asynccontextmanager
    async def database() -> AsyncGenerator[Connection, None]:
        async with await Connection.connect(database_url, autocommit=True) as connection:
            yield connection

    return cast(Environment, SimpleNamespace(database=database))


async def _provider(connection: Connection) -> str:
    row = await (await connection.execute("select provider from shop.reconciliation")).fetchone()
    assert row is not None
    return str(row[0])


async def _run(connection: Connection, statement: Statement[Row]) -> int:
    return (await connection.execute(statement.sql, statement.parameters)).rowcount


async def _wait_until_due(connection: Connection) -> None:
    query = "select count(*) from shop.reconciliation where next_run_at <= now()"
    async with asyncio.timeout(WAIT_SECONDS):
        while await (await connection.execute(query)).fetchone() != (1,):
            await asyncio.sleep(0.01)


def test_reconciliation_that_began_before_the_call_does_not_count(environment: Environment) -> None:
    async def run() -> bool:
        async with environment.database() as sweep:
            provider = await _provider(sweep)
            await sweep.execute("update shop.reconciliation set next_run_at = now()")
            assert await _run(sweep, reconciliation.take(provider)) == 1

            waiting = asyncio.create_task(reconcile_completely(environment, seconds_max=30))
            await _wait_until_due(sweep)
            await _run(sweep, reconciliation.finish(provider, 1, "7", found=True))
            await _wait_until_due(sweep)
            assert await _run(sweep, reconciliation.take(provider)) == 1
            assert not waiting.done()
            await _run(sweep, reconciliation.finish(provider, 2, "8", found=False))
            return await waiting

    assert asyncio.run(run())


def test_without_a_sweep_there_is_no_reconciliation(environment: Environment) -> None:
    assert not asyncio.run(reconcile_completely(environment, seconds_max=0.3))
