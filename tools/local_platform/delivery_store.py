"""The broker's memory: accepted events and what is still to be delivered, in SQLite.

One thread owns the file and commits whatever has gathered since its last commit, so many events
share one write to the disk, and nobody is told "accepted" before that write is done.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

CREATE = """
create table if not exists events (
    id integer primary key, headers text not null, body blob not null);
create table if not exists deliveries (
    id integer primary key, event_id integer not null references events (id), target text not null,
    is_dead_letter integer not null, attempt integer not null, due_at real not null,
    state text not null check (state in ('pending', 'given up')));
create index if not exists deliveries_event on deliveries (event_id);
delete from events where id not in (select event_id from deliveries);
"""
INSERT_EVENT = "insert into events (headers, body) values (:headers, :body)"
INSERT_DELIVERY = """
insert into deliveries (event_id, target, is_dead_letter, attempt, due_at, state)
values (:event_id, :target, :is_dead_letter, :attempt, :due_at, 'pending')
"""
PENDING = """
select d.id, d.target, d.is_dead_letter, d.attempt, d.due_at, e.headers, e.body
from deliveries d join events e on e.id = d.event_id where d.state = 'pending' order by d.id
"""
POSTPONE = "update deliveries set attempt = :attempt, due_at = :due_at where id = :id"
GIVE_UP = "update deliveries set state = 'given up' where id = :id"
FORGET_DELIVERY = "delete from deliveries where id = :id"

Job = tuple[Callable[[sqlite3.Connection], Any], "asyncio.Future[Any]"]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event on its way to one function: the message in binary mode, tries so far, when next."""

    target: str
    headers: dict[str, str]
    body: bytes
    due_at: float
    is_dead_letter: bool = False
    attempt: int = 0
    id: int = 0

    @property
    def event_type(self) -> str:
        return self.headers["ce-type"]


class DeliveryStore:
    """Opens (or makes) the file; ``close`` writes what was asked for before."""

    def __init__(self, file: Path) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, args=(file,), name="broker store")
        self._thread.start()

    async def add(
        self, deliveries: list[Delivery], *, instead_of: int | None = None
    ) -> list[Delivery]:
        """Keeps deliveries of one event, in place of another; returns them with their ids."""

        def job(db: sqlite3.Connection) -> list[Delivery]:
            if instead_of is not None:
                db.execute(FORGET_DELIVERY, {"id": instead_of})
            first = deliveries[0]
            event = {"headers": json.dumps(first.headers), "body": first.body}
            event_id = db.execute(INSERT_EVENT, event).lastrowid
            return [_insert(db, event_id, delivery) for delivery in deliveries]

        added: list[Delivery] = await self._run(job)
        return added

    async def pending(self) -> list[Delivery]:
        """What an earlier run left to be delivered."""
        left: list[Delivery] = await self._run(
            lambda db: [_read(row) for row in db.execute(PENDING)]
        )
        return left

    async def postpone(self, delivery: Delivery) -> None:
        """Keeps the number of tries and the time of the next."""
        values = {"id": delivery.id, "attempt": delivery.attempt, "due_at": delivery.due_at}
        await self._run(lambda db: db.execute(POSTPONE, values).rowcount)

    async def forget(self, delivery: Delivery) -> None:
        """It was delivered."""
        await self._run(lambda db: db.execute(FORGET_DELIVERY, {"id": delivery.id}).rowcount)

    async def give_up(self, delivery: Delivery) -> None:
        """Nobody took it, not even as a dead letter: it stays in the file for people to look at."""
        await self._run(lambda db: db.execute(GIVE_UP, {"id": delivery.id}).rowcount)

    def close(self) -> None:
        """Ends the thread after the work it has."""
        self._jobs.put(None)
        self._thread.join()

    async def _run(self, job: Callable[[sqlite3.Connection], Any]) -> Any:
        done: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put((job, done))
        return await done

    def _work(self, file: Path) -> None:
        db = sqlite3.connect(file, isolation_level=None)
        db.executescript("pragma journal_mode = wal; pragma synchronous = full;" + CREATE)
        is_open = True
        while is_open:
            batch = [self._jobs.get()]
            while not self._jobs.empty():
                batch.append(self._jobs.get())
            is_open = None not in batch
            self._commit(db, [job for job in batch if job is not None])
        db.close()

    def _commit(self, db: sqlite3.Connection, jobs: list[Job]) -> None:
        try:
            db.execute("begin immediate")
            results = [job(db) for job, _ in jobs]
            db.execute("commit")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("rollback")
            for _, done in jobs:
                self._loop.call_soon_threadsafe(_settle, done, None, error)
            return
        for (_, done), result in zip(jobs, results, strict=True):
            self._loop.call_soon_threadsafe(_settle, done, result, None)


def _settle(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def _insert(db: sqlite3.Connection, event_id: int | None, delivery: Delivery) -> Delivery:
    values = {
        "event_id": event_id,
        "target": delivery.target,
        "is_dead_letter": delivery.is_dead_letter,
        "attempt": delivery.attempt,
        "due_at": delivery.due_at,
    }
    row_id = db.execute(INSERT_DELIVERY, values).lastrowid
    assert row_id is not None
    return replace(delivery, id=row_id)


def _read(row: tuple[Any, ...]) -> Delivery:
    row_id, target, is_dead_letter, attempt, due_at, headers, body = row
    return Delivery(
        id=row_id,
        target=target,
        is_dead_letter=bool(is_dead_letter),
        attempt=attempt,
        due_at=due_at,
        headers=json.loads(headers),
        body=body,
    )
