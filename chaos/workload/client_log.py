"""The clients' log: every HTTP attempt with an idempotency key, as its client saw it.

The checker reads it while it is written (SQLite in WAL mode; committed at least each second).
``status_code`` is null when the attempt's fate is unknown, and for a 401: whoever is not let in has
been told nothing about the key.  ``http_status`` is what came over the wire.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA = """
pragma journal_mode = wal;
pragma synchronous = off;
create table if not exists ops (
  op integer primary key, began real, ended real, user_id integer, scope text, key text,
  attempt integer, status_code integer, body_sha256 text, location text, order_id text,
  method text, target text, body blob, as_account text, headers text, http_status integer);
create table if not exists asked (order_id text, what text, at real);
create table if not exists placed (order_id text, user_id integer, method_of_payment text, at real);
"""

INSERT_ATTEMPT = """
insert into ops (began, ended, user_id, scope, key, attempt, status_code, body_sha256, location,
  order_id, method, target, body, as_account, headers, http_status, op)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
INSERT_ASKED = "insert into asked (order_id, what, at) values (?, ?, ?)"
INSERT_PLACED = "insert into placed (order_id, user_id, method_of_payment, at) values (?, ?, ?, ?)"
OPERATIONS = """
select coalesce(user_id, 0), scope, key, status_code, body_sha256, order_id from ops
where key is not null and (status_code is null or status_code not in (401, 403))
"""
WANTED = """
select order_id from placed
where order_id not in (select order_id from asked where order_id is not null)
"""
LAST_OP = "select coalesce(max(op), 0) from ops"

SELECT_ATTEMPT = """
select began, ended, user_id, scope, key, attempt, status_code, body_sha256, location, order_id,
  method, target, body, as_account, headers, http_status
from ops where op = ?
"""


class Attempt(NamedTuple):
    """One HTTP attempt; ``body_sha256`` and ``location`` are the answer's."""

    began: float
    ended: float
    user_id: int
    scope: str
    key: str
    attempt: int
    status_code: int | None
    body_sha256: str | None
    location: str | None
    order_id: str | None
    method: str
    target: str
    body: bytes
    as_account: str
    headers: str
    http_status: int | None


class ClientLog:
    """Writes in batches; ``flush`` makes everything so far visible to readers."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file)
        self._database.executescript(SCHEMA)
        self._last: int = self._database.execute(LAST_OP).fetchone()[0]
        self._attempts: list[tuple[object, ...]] = []
        self._asked: list[tuple[str, str, float]] = []
        self._placed: list[tuple[str, int, str, float]] = []

    def add(self, attempt: Attempt) -> int:
        """Notes an attempt; its number."""
        self._last += 1
        self._attempts.append((*attempt, self._last))
        return self._last

    def ask(self, order_id: str, what: str) -> None:
        """Notes what is about to be wanted of an order: ``cancel``, ``refund``, ``decline`` …"""
        self._asked.append((order_id, what, time.time()))

    def place(self, order_id: str, user_id: int, method_of_payment: str) -> None:
        """Notes an accepted order."""
        self._placed.append((order_id, user_id, method_of_payment, time.time()))

    def attempt(self, op: int) -> Attempt:
        """An attempt that was noted."""
        self.flush()
        return Attempt(*self._database.execute(SELECT_ATTEMPT, (op,)).fetchone())

    def flush(self) -> None:
        """Commits what was noted since."""
        with self._database:
            self._database.executemany(INSERT_ATTEMPT, self._attempts)
            self._database.executemany(INSERT_ASKED, self._asked)
            self._database.executemany(INSERT_PLACED, self._placed)
        self._attempts.clear()
        self._asked.clear()
        self._placed.clear()

    def close(self) -> None:
        """Commits and closes."""
        self.flush()
        self._database.close()


def operations(file: Path) -> list[tuple[Any, ...]]:
    """Every keyed attempt as the checker's ``client_ops``; a refused token says nothing of it."""
    return _asked(file, OPERATIONS)


def wanted_orders(file: Path) -> list[str]:
    """Accepted orders that nobody meant to cancel, to give back or to pay with a bad card."""
    return [row[0] for row in _asked(file, WANTED)]


def _asked(file: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()
