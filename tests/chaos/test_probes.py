"""Probes without the necessary rights get client errors that do not depend on other faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx

from chaos.environment import Environment
from chaos.faults.probes import probe_authorization
from chaos.kill_requests import requests_by_function
from tests.tools.e2e.running_shop import running_shop


class EmptyDatabase:
    """Has neither orders nor payments, so the probes that need one are not sent."""

    async def execute(self, *_: object) -> EmptyDatabase:
        return self

    async def fetchone(self) -> None:
        return None


@asynccontextmanager
async def _database() -> AsyncGenerator[EmptyDatabase]:
    yield EmptyDatabase()


def _no_process(_: str) -> None:
    return None


async def _probe_during_kills(edge_url: str, violations: list[str]) -> str:
    """Sends the probes while sessions are ended as the kills of ``account`` end them."""

    def report(source: str, text: str) -> None:
        violations.append(f"{source}: {text}")

    attributes = SimpleNamespace(
        edge_url=edge_url,
        database=_database,
        choose_process=_no_process,
        report_violation=report,
        secrets=SimpleNamespace(link_key=""),
    )

    async def end_sessions(client: httpx.AsyncClient) -> None:
        while True:
            await requests_by_function(client)["account"]()

    async with httpx.AsyncClient(base_url=edge_url, timeout=30) as client:
        ending = asyncio.create_task(end_sessions(client))
        try:
            return await probe_authorization(cast(Environment, attributes))
        finally:
            ending.cancel()


def test_probes_have_a_session_that_no_kill_ends(tmp_path: Path) -> None:
    violations: list[str] = []

    with running_shop(tmp_path, environment={"SETTLEMENTS_AUTH": "finance"}) as shop:
        results = [asyncio.run(_probe_during_kills(shop.url, violations)) for _ in range(3)]

    # three without a token, four of a customer, one with a repeated key, two log-ins
    assert (results, violations) == (["10 requests"] * 3, [])
