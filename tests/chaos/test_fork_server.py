"""Processes forked from the fork server behave like ``python -m shop.runtime``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from chaos.fork_server.client import ForkedProcess, ForkServer
from tools.local_platform.servers import free_port

READY_SECONDS = 30.0
FUNCTION = "api_docs"


@asynccontextmanager
async def running_process(folder: Path) -> AsyncGenerator[tuple[ForkedProcess, str], None]:
    """A forked process that responds, and its address."""
    async with ForkServer(folder) as fork_server:
        port = free_port()
        environment = {"HOST": "127.0.0.1", "PORT": str(port), "SHOP_PROFILE": "local"}
        process = await fork_server.fork(FUNCTION, environment, folder / "function.log")
        url = f"http://127.0.0.1:{port}"
        async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient() as client:
            while True:
                try:
                    await client.get(f"{url}/health/liveness")
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
        yield process, url


def with_process(folder: Path, act: Callable[[ForkedProcess, str], Awaitable[None]]) -> None:
    async def run() -> None:
        async with running_process(folder) as (process, url):
            await act(process, url)

    asyncio.run(run())


def test_forked_process_serves_its_function_and_writes_its_own_log(tmp_path: Path) -> None:
    async def act(process: ForkedProcess, url: str) -> None:
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"{url}/api-docs")).status_code == 200
        assert process.returncode is None
        assert os.getpgid(process.pid) == process.pid

    with_process(tmp_path, act)

    assert '"function": "api_docs"' in (tmp_path / "function.log").read_text("utf-8")
    assert (tmp_path / "fork_server.log").read_text("utf-8") == ""


def test_terminated_process_exits_with_0(tmp_path: Path) -> None:
    async def act(process: ForkedProcess, _: str) -> None:
        process.terminate()
        async with asyncio.timeout(READY_SECONDS):
            assert await process.wait() == 0
        assert process.returncode == 0
        process.terminate()  # does nothing

    with_process(tmp_path, act)


def test_killed_process_has_a_negative_exit_code(tmp_path: Path) -> None:
    async def act(process: ForkedProcess, _: str) -> None:
        os.killpg(process.pid, signal.SIGKILL)
        async with asyncio.timeout(READY_SECONDS):
            assert await process.wait() == -signal.SIGKILL

    with_process(tmp_path, act)


def test_process_that_still_runs_ends_with_the_fork_server(tmp_path: Path) -> None:
    addresses: list[str] = []

    async def act(_: ForkedProcess, url: str) -> None:
        addresses.append(url)

    with_process(tmp_path, act)

    with pytest.raises(httpx.TransportError):
        httpx.get(f"{addresses[0]}/health/liveness")


def test_wrong_settings_end_a_forked_process_with_2(tmp_path: Path) -> None:
    async def run() -> int:
        async with ForkServer(tmp_path) as fork_server:
            environment = {"SHOP_PROFILE": "no such profile"}
            process = await fork_server.fork(FUNCTION, environment, tmp_path / "function.log")
            async with asyncio.timeout(READY_SECONDS):
                return await process.wait()

    assert asyncio.run(run()) == 2
    error, usage = (tmp_path / "function.log").read_text("utf-8").rsplit("\n{", 1)
    assert "the settings are wrong" in error
    ended = json.loads("{" + usage)
    assert (ended["message"], ended["function"], ended["answered"]) == ("ended", FUNCTION, False)
    assert 0 < ended["seconds"] < READY_SECONDS
