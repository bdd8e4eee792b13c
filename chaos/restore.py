"""Point-in-time recovery of the database (F-28).

The steps are ``take_base_backup``, ``current_time`` and ``restore``, with writes between them.

The server needs a WAL archive (``PostgresServer(..., archives=True)``).  Stop the functions before
``restore``: they must not continue with data of the database that is replaced.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow

from tools.local_platform.servers import PostgresServer

WAIT_SECONDS = 60.0
POLL_SECONDS = 0.05

NOW: LiteralString = """
select clock_timestamp()
"""

# A segment without new records is not switched; then the previous one is archived already.
SWITCH: LiteralString = """
select pg_walfile_name(pg_switch_wal() - 1)
"""

# The segment names of one timeline are ordered by time.
IS_ARCHIVED: LiteralString = """
select coalesce(last_archived_wal, '') >= %(segment)s, failed_count from pg_stat_archiver
"""

IS_RECOVERING: LiteralString = """
select pg_is_in_recovery()
"""

RECOVERY = """
restore_command = 'cp {archive}/%f %p'
recovery_target_time = '{target}'
recovery_target_action = 'promote'
"""


@dataclass(frozen=True)
class Restored:
    """The measured cost of a restore: ``rto_seconds`` is the time without a database."""

    target: datetime
    stopped_at: datetime
    rto_seconds: float

    @property
    def rpo_seconds(self) -> float:
        """The time span of lost commits: from the restored time to the stop of the server."""
        return (self.stopped_at - self.target).total_seconds()

    def __str__(self) -> str:
        return f"RPO {self.rpo_seconds:.1f} s, RTO {self.rto_seconds:.1f} s, to {self.target}"


def take_base_backup(server: PostgresServer) -> Path:
    """Copies the running cluster with the WAL that makes the copy consistent; the copy's folder."""
    base = server.folder_beside("base")
    server.run_program(
        "pg_basebackup",
        f"--dbname=postgresql://postgres@127.0.0.1:{server.port}/postgres",
        f"--pgdata={base}",
        "--checkpoint=fast",
        "--wal-method=stream",
    )
    return base


def current_time(url: str) -> datetime:
    """The time of the database's clock, which is also the time of its commits."""
    with psycopg.connect(url, autocommit=True) as connection:
        now: datetime = _one(connection, NOW)[0]
        return now


def restore(server: PostgresServer, url: str, base: Path, target: datetime) -> Restored:
    """Replaces the cluster by the copy and replays the archive up to ``target``.

    The replaced cluster is kept as ``postgres.lost``.  There must be a commit after ``target``:
    PostgreSQL does not start when the archive ends before it.
    """
    assert server.archive is not None, "the server has no WAL archive"
    with psycopg.connect(url, autocommit=True) as connection:
        _archive_all(connection)
        stopped_at: datetime = _one(connection, NOW)[0]
    began = time.monotonic()
    server.stop()
    _replace_cluster(server, base)
    _configure_recovery(server, server.archive, target)
    server.start()
    _wait_until_promoted(url)
    return Restored(target, stopped_at, time.monotonic() - began)


def _archive_all(connection: psycopg.Connection[TupleRow]) -> None:
    """Waits until everything that has been committed is in the archive."""
    segment = _one(connection, SWITCH)[0]
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        row = connection.execute(IS_ARCHIVED, {"segment": segment}).fetchone()
        assert row is not None
        is_archived, failures = row
        if is_archived:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{segment} is not in the archive; {failures} attempts failed")
        time.sleep(POLL_SECONDS)


def _replace_cluster(server: PostgresServer, base: Path) -> None:
    replaced = server.cluster.with_name("postgres.lost")
    shutil.rmtree(replaced, ignore_errors=True)
    server.cluster.rename(replaced)
    fresh = server.folder_beside(server.cluster.name)
    server.run_program("cp", "-a", f"{base}/.", str(fresh))


def _configure_recovery(server: PostgresServer, archive: Path, target: datetime) -> None:
    settings = server.cluster / "postgresql.auto.conf"
    with settings.open("a", encoding="utf-8") as file:
        file.write(RECOVERY.format(archive=archive, target=target.isoformat()))
    flag = server.cluster / "recovery.signal"
    flag.touch()
    owner = server.cluster.stat()
    os.chown(flag, owner.st_uid, owner.st_gid)


def _wait_until_promoted(url: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        with psycopg.connect(url, autocommit=True) as connection:
            if not _one(connection, IS_RECOVERING)[0]:
                return
        time.sleep(POLL_SECONDS)
    raise TimeoutError("the restored server was not promoted")


def _one(connection: psycopg.Connection[TupleRow], query: LiteralString) -> TupleRow:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row
