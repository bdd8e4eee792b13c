"""The clients' log: every HTTP attempt with an idempotency key, as its client observed it.

The checker reads it while it is written (SQLite in WAL mode, committed at least every second).
``status_code`` is null when the outcome is unknown, and for a 401, because the key of a
request with a rejected token was not used.  ``http_status`` is the status that was received.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

# What a client does with an accepted order other than waiting for its payment.
Intervention = Literal["cancel", "refund", "decline", "pay_again"]
# user_id, scope, key, status_code, body_sha256, order_id: a row of the checker's ``client_ops``.
LoggedOperation = tuple[int, str, str, int | None, str | None, str | None]

SCHEMA = """
pragma journal_mode = wal;
pragma synchronous = off;
create table if not exists attempts (
  attempt_id integer primary key, began real, ended real, user_id integer, scope text, key text,
  attempt integer, status_code integer, body_sha256 text, location text, order_id text,
  method text, target text, body blob, as_account text, headers text, http_status integer);
create table if not exists interventions (order_id text, what text, at real);
create table if not exists orders (order_id text, user_id integer, payment_method text, at real);
"""

INSERT_ATTEMPT = """
insert into attempts (began, ended, user_id, scope, key, attempt, status_code, body_sha256,
  location, order_id, method, target, body, as_account, headers, http_status, attempt_id)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
INSERT_INTERVENTION = "insert into interventions (order_id, what, at) values (?, ?, ?)"
INSERT_ORDER = "insert into orders (order_id, user_id, payment_method, at) values (?, ?, ?, ?)"
OPERATIONS = """
select coalesce(user_id, 0), scope, key, status_code, body_sha256, order_id from attempts
where key is not null and (status_code is null or status_code not in (401, 403))
"""
ORDERS_EXPECTED_PAID = """
select order_id from orders
where order_id not in (select order_id from interventions where order_id is not null)
"""
LAST_ATTEMPT = "select coalesce(max(attempt_id), 0) from attempts"

SELECT_ATTEMPT = """
select began, ended, user_id, scope, key, attempt, status_code, body_sha256, location, order_id,
  method, target, body, as_account, headers, http_status
from attempts where attempt_id = ?
"""


class Attempt(NamedTuple):
    """One HTTP attempt; ``body_sha256`` and ``location`` are those of the response."""

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
        self._last_id: int = self._database.execute(LAST_ATTEMPT).fetchone()[0]
        self._attempts: list[tuple[object, ...]] = []
        self._interventions: list[tuple[str, Intervention, float]] = []
        self._orders: list[tuple[str, int, str, float]] = []

    def add_attempt(self, attempt: Attempt) -> int:
        """Logs an attempt; returns its id."""
        self._last_id += 1
        self._attempts.append((*attempt, self._last_id))
        return self._last_id

    def add_intervention(self, order_id: str, what: Intervention) -> None:
        """Logs an intervention before its request is sent: its response may be missing."""
        self._interventions.append((order_id, what, time.time()))

    def add_order(self, order_id: str, user_id: int, payment_method: str) -> None:
        """Logs an accepted order."""
        self._orders.append((order_id, user_id, payment_method, time.time()))

    def attempt(self, attempt_id: int) -> Attempt:
        """A logged attempt."""
        self.flush()
        return Attempt(*self._database.execute(SELECT_ATTEMPT, (attempt_id,)).fetchone())

    def flush(self) -> None:
        """Commits everything logged so far."""
        with self._database:
            self._database.executemany(INSERT_ATTEMPT, self._attempts)
            self._database.executemany(INSERT_INTERVENTION, self._interventions)
            self._database.executemany(INSERT_ORDER, self._orders)
        self._attempts.clear()
        self._interventions.clear()
        self._orders.clear()

    def close(self) -> None:
        """Commits and closes."""
        self.flush()
        self._database.close()


def operations(file: Path) -> list[LoggedOperation]:
    """Every attempt with a key, as the checker's ``client_ops``, without rejected tokens."""
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(OPERATIONS).fetchall()


def orders_expected_paid(file: Path) -> list[str]:
    """Accepted orders that were not cancelled, refunded or placed with a declined card."""
    with closing(sqlite3.connect(file)) as connection:
        return [row[0] for row in connection.execute(ORDERS_EXPECTED_PAID)]
