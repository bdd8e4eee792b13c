"""Processes forked from the warm interpreter are what ``python -m shop.runtime`` would be."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from chaos.fork_server.interpreter import Forked, WarmInterpreter
from tools.local_platform.servers import free_port

READY_SECONDS = 30.0
FUNCTION = "api_docs"


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Forked, str]]:
    """A forked process that answers, and its address."""
    async with WarmInterpreter(folder) as warm:
        port = free_port()
        environment = {"HOST": "127.0.0.1", "PORT": str(port), "SHOP_PROFILE": "local"}
        forked = await warm.fork(FUNCTION, environment, folder / "function.log")
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient() as client:
            while True:
                try:
                    await client.get(f"{url}/health/liveness")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
        yield forked, url


def with_a_process(folder: Path, act: Callable[[Forked, str], Awaitable[None]]) -> None:
    async def story() -> None:
        async with serving(folder) as (forked, url):
            await act(forked, url)

    asyncio.run(story())


def test_it_serves_and_writes_its_own_log(tmp_path: Path) -> None:
    async def act(forked: Forked, url: str) -> None:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/api-docs")).status_code == 200
        assert forked.returncode is None
        assert os.getpgid(forked.pid) == forked.pid

    with_a_process(tmp_path, act)

    assert '"function": "api_docs"' in (tmp_path / "function.log").read_text("utf-8")
    assert (tmp_path / "warm.log").read_text("utf-8") == ""


def test_it_drains_and_ends_when_asked_to(tmp_path: Path) -> None:
    async def act(forked: Forked, _: str) -> None:
        forked.terminate()
        async with asyncio.timeout(READY_SECONDS):
            assert await forked.wait() == 0
        assert forked.returncode == 0
        forked.terminate()  # it is gone, which is what was asked for

    with_a_process(tmp_path, act)


def test_a_kill_is_told_as_such(tmp_path: Path) -> None:
    async def act(forked: Forked, _: str) -> None:
        os.killpg(forked.pid, signal.SIGKILL)
        async with asyncio.timeout(READY_SECONDS):
            assert await forked.wait() == -signal.SIGKILL

    with_a_process(tmp_path, act)


def test_wrong_settings_end_it_as_they_would_end_any(tmp_path: Path) -> None:
    async def story() -> int:
        async with WarmInterpreter(tmp_path) as warm:
            environment = {"SHOP_PROFILE": "no such profile"}
            forked = await warm.fork(FUNCTION, environment, tmp_path / "function.log")
            async with asyncio.timeout(READY_SECONDS):
                return await forked.wait()

    assert asyncio.run(story()) == 2
    assert "the settings are wrong" in (tmp_path / "function.log").read_text("utf-8")
