"""F-28: the database goes back to a moment of mid-run, and the world keeps its later truth.

Three steps, so that a run can live between them: ``take_base_backup``, ``moment``, ``restore``.
The server has to keep an archive (``PostgresServer(..., archives=True)``), and nobody may be
connected who would go on from what it remembers: stop the functions first.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString

import psycopg

from tools.local_platform.servers import PostgresServer

WAIT_SECONDS = 60.0
POLL_SECONDS = 0.05

NOW: LiteralString = """
select clock_timestamp()
"""

# A log that nothing was written to since is not switched; then its last segment is there already.
SWITCH: LiteralString = """
select pg_walfile_name(pg_switch_wal() - 1)
"""

# Names of one timeline sort as they were written.
IS_ARCHIVED: LiteralString = """
select coalesce(last_archived_wal, '') >= %(segment)s, failed_count from pg_stat_archiver
"""

IS_RECOVERING: LiteralString = """
select pg_is_in_recovery()
"""

RECOVERY = """
restore_command = 'cp {archive}/%f %p'
recovery_target_time = '{moment}'
recovery_target_action = 'promote'
"""


@dataclass(frozen=True)
class Restored:
    """What the restore cost: ``rpo_seconds`` of commits, ``rto_seconds`` without a database."""

    moment: datetime
    stopped_at: datetime
    rto_seconds: float

    @property
    def rpo_seconds(self) -> float:
        """From the moment that was restored to the one in which the server stopped."""
        return (self.stopped_at - self.moment).total_seconds()

    def __str__(self) -> str:
        return f"RPO {self.rpo_seconds:.1f} s, RTO {self.rto_seconds:.1f} s, to {self.moment}"


def take_base_backup(server: PostgresServer) -> Path:
    """Copies the running cluster, with the log that makes the copy whole; the copy's folder."""
    base = server.folder_beside("base")
    server.run_program(
        "pg_basebackup",
        f"--dbname=postgresql://postgres@127.0.0.1:{server.port}/postgres",
        f"--pgdata={base}",
        "--checkpoint=fast",
        "--wal-method=stream",
    )
    return base


def moment(url: str) -> datetime:
    """Now, by the database's clock, which is the one that commits are dated with."""
    with psycopg.connect(url, autocommit=True) as connection:
        found: datetime = _one(connection, NOW)[0]
        return found


def restore(server: PostgresServer, url: str, base: Path, target: datetime) -> Restored:
    """Puts the copy in the cluster's place and replays the archive up to ``target``.

    The cluster as it was stays beside the new one, as ``postgres.lost``.  Something must have been
    committed after ``target``: PostgreSQL refuses to start when it never gets there.
    """
    assert server.archive is not None, "the server keeps no archive"
    with psycopg.connect(url, autocommit=True) as connection:
        _archive_all(connection)
        stopped_at: datetime = _one(connection, NOW)[0]
    began = time.monotonic()
    server.stop()
    _swap(server, base)
    _ask_for_recovery(server, server.archive, target)
    server.start()
    _wait_until_promoted(url)
    return Restored(target, stopped_at, time.monotonic() - began)


def _archive_all(connection: psycopg.Connection[Any]) -> None:
    """Waits until everything that is committed now is in the archive."""
    segment = _one(connection, SWITCH)[0]
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        row = connection.execute(IS_ARCHIVED, {"segment": segment}).fetchone()
        assert row is not None
        is_there, failures = row
        if is_there:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{segment} is not in the archive; {failures} attempts failed")
        time.sleep(POLL_SECONDS)


def _swap(server: PostgresServer, base: Path) -> None:
    lost = server.cluster.with_name("postgres.lost")
    shutil.rmtree(lost, ignore_errors=True)
    server.cluster.rename(lost)
    fresh = server.folder_beside(server.cluster.name)
    server.run_program("cp", "-a", f"{base}/.", str(fresh))


def _ask_for_recovery(server: PostgresServer, archive: Path, target: datetime) -> None:
    settings = server.cluster / "postgresql.auto.conf"
    with settings.open("a", encoding="utf-8") as file:
        file.write(RECOVERY.format(archive=archive, moment=target.isoformat()))
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


def _one(connection: psycopg.Connection[Any], query: LiteralString) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(row)
