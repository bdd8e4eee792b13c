"""A streaming replica of a PostgreSQL server, on the same machine."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tools.local_platform.servers import PASSWORD_FILE, PostgresServer


@contextmanager
def streaming_replica(primary: PostgresServer, folder: Path) -> Generator[PostgresServer]:
    """A started copy of ``primary``, which lives in ``folder`` / "primary" and is followed."""
    replica = PostgresServer(folder / "replica", durable=False)
    shutil.copy(folder / "primary" / PASSWORD_FILE, folder / "replica")
    replica.run_program(
        "pg_basebackup",
        f"--dbname=postgresql://postgres@127.0.0.1:{primary.port}/postgres",
        f"--pgdata={replica.folder_beside(replica.cluster.name)}",
        "--checkpoint=fast",
        "--wal-method=stream",
        "--write-recovery-conf",
    )
    try:
        replica.start()
        yield replica
    finally:
        replica.stop()
