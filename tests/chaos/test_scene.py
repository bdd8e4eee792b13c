"""What a run's world does by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg

from chaos.environment import Environment
from tools.local_platform.servers import PostgresServer


def test_postgres_is_started_again_when_it_has_ended(tmp_path: Path) -> None:
    """A fault that could not start it again must not leave the rest of the run without it."""
    server = PostgresServer(tmp_path, durable=False)
    said: list[str] = []

    async def kill_and_wait() -> tuple[Any, ...] | None:
        scene: Any = SimpleNamespace(
            postgres=server,
            restarting=asyncio.Lock(),
            activity_log=SimpleNamespace(write=said.append),
        )
        keeping = asyncio.create_task(Environment.keep_postgres_up(scene))
        url = await asyncio.to_thread(server.start)
        os.kill(first := server.pid, signal.SIGQUIT)
        deadline = time.monotonic() + 30
        while server.pid == first and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        async with scene.restarting, await psycopg.AsyncConnection.connect(url) as connection:
            keeping.cancel()
            return await (await connection.execute("select 1")).fetchone()

    try:
        assert asyncio.run(kill_and_wait()) == (1,)
        assert said == ["PostgreSQL has ended: it is started again"]
    finally:
        server.stop()
