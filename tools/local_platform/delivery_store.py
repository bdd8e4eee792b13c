"""The broker's storage: accepted events and unfinished deliveries, in SQLite.

One thread owns the file and commits all jobs that were queued since its last commit (group commit).
An event is reported as accepted only after its commit.
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
from typing import Any, Generic, TypeVar

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
DELETE_DELIVERY = "delete from deliveries where id = :id"

T = TypeVar("T")


class Job(Generic[T]):
    """Work for the storage thread, and the future of its result."""

    def __init__(self, work: Callable[[sqlite3.Connection], T], done: asyncio.Future[T]) -> None:
        self._work = work
        self._done = done

    def execute(self, db: sqlite3.Connection) -> Callable[[], None]:
        """Runs the work; returns what sets the result, to be called after the commit."""
        result = self._work(db)
        return lambda: None if self._done.done() else self._done.set_result(result)

    def fail(self, error: Exception) -> None:
        """Sets the error as the result."""
        if not self._done.done():
            self._done.set_exception(error)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One event (in binary mode) for one function; ``attempt`` counts the failed tries."""

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
    """Stores events and deliveries durably in one file, which is created if missing."""

    def __init__(self, file: Path) -> None:
        # Any: jobs with different results share the queue
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, args=(file,), name="broker store")
        self._thread.start()

    async def add(
        self, deliveries: list[Delivery], *, replaces: int | None = None
    ) -> list[Delivery]:
        """Stores deliveries of one event, optionally replacing one; returns them with their ids."""

        def insert(db: sqlite3.Connection) -> list[Delivery]:
            if replaces is not None:
                db.execute(DELETE_DELIVERY, {"id": replaces})
            first = deliveries[0]
            event = {"headers": json.dumps(first.headers), "body": first.body}
            event_id = db.execute(INSERT_EVENT, event).lastrowid
            return [_insert(db, event_id, delivery) for delivery in deliveries]

        return await self._run(insert)

    async def pending(self) -> list[Delivery]:
        """Deliveries that an earlier run did not finish."""
        return await self._run(lambda db: [_read(row) for row in db.execute(PENDING)])

    async def postpone(self, delivery: Delivery) -> None:
        """Stores the number of tries and the time of the next."""
        values = {"id": delivery.id, "attempt": delivery.attempt, "due_at": delivery.due_at}
        await self._run(lambda db: db.execute(POSTPONE, values).rowcount)

    async def delete(self, delivery: Delivery) -> None:
        """Removes a delivery that succeeded."""
        await self._run(lambda db: db.execute(DELETE_DELIVERY, {"id": delivery.id}).rowcount)

    async def give_up(self, delivery: Delivery) -> None:
        """Keeps a dead letter that could not be delivered, for an operator to inspect."""
        await self._run(lambda db: db.execute(GIVE_UP, {"id": delivery.id}).rowcount)

    def close(self) -> None:
        """Finishes the queued jobs and stops the thread."""
        self._jobs.put(None)
        self._thread.join()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        done: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(Job(work, done))
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

    def _commit(self, db: sqlite3.Connection, jobs: list[Job[Any]]) -> None:
        try:
            db.execute("begin immediate")
            finishers = [job.execute(db) for job in jobs]
            db.execute("commit")
        except sqlite3.Error as error:
            if db.in_transaction:
                db.execute("rollback")
            for job in jobs:
                self._loop.call_soon_threadsafe(job.fail, error)
            return
        for finish in finishers:
            self._loop.call_soon_threadsafe(finish)


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


def _read(row: tuple[Any, ...]) -> Delivery:  # Any: sqlite3 rows are untyped
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
