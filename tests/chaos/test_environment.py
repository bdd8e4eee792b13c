"""The environment restarts PostgreSQL when it has exited outside of a fault."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psycopg
from psycopg.rows import TupleRow

from chaos.environment import Environment
from tests.waiting import wait_until
from tools.local_platform.servers import PostgresServer


def test_exited_postgres_is_restarted(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path, durable=False)
    lines: list[str] = []

    async def kill_and_wait() -> TupleRow | None:
        # supervision uses these three attributes only
        attributes = SimpleNamespace(
            postgres=server,
            restart_lock=asyncio.Lock(),
            activity_log=SimpleNamespace(write=lines.append),
        )
        environment = cast(Environment, attributes)
        supervision = asyncio.create_task(Environment.supervise_postgres(environment))
        url = await asyncio.to_thread(server.start)
        os.kill(first := server.pid, signal.SIGQUIT)
        await wait_until(lambda: server.pid != first, seconds=30)
        async with (
            environment.restart_lock,
            await psycopg.AsyncConnection.connect(url) as connection,
        ):
            supervision.cancel()
            return await (await connection.execute("select 1")).fetchone()

    try:
        assert asyncio.run(kill_and_wait()) == (1,)
        assert lines == ["PostgreSQL has exited and is restarted"]
    finally:
        server.stop()
