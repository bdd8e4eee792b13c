"""The checker as a companion: one connection, many snapshots, news added and never loaded again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from scripts.check.evaluate import Violation, violations
from scripts.check.invariants import OUTSIDE
from scripts.snapshot import BEGIN, CONNECT_SECONDS, PATIENCE, READ_ONLY

Charge = tuple[str, int | None, str]
Refund = tuple[str, str, int]

INSERT_CHARGE = "insert into psp_charges values (%s, %s, %s) on conflict do nothing"
INSERT_REFUND = "insert into psp_refunds values (%s, %s, %s) on conflict do nothing"
INSERT_POISON = "insert into injected_poison values (%s, %s)"


class NotNow(Exception):
    """PostgreSQL cannot be asked at the moment; what was to be told is kept for the next look."""


class Watcher:
    """Evaluates the I-queries as often as it is asked, past the pooler, as an administrator.

    Temporary tables live as long as their connection, so everything that was ever told is told
    again after PostgreSQL went away.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection[Any] | None = None
        self._told: list[tuple[str, Sequence[tuple[Any, ...]]]] = []

    def look(
        self,
        charges: Sequence[Charge],
        refunds: Sequence[Refund],
        poison: Sequence[tuple[str, str]],
    ) -> list[Violation]:
        """What one snapshot shows; the arguments are the news since the last look.

        Read the provider's books before: see ``Outside``.  Raises NotNow; then the news count as
        told.
        """
        news = [
            (statement, rows)
            for statement, rows in (
                (INSERT_CHARGE, charges),
                (INSERT_REFUND, refunds),
                (INSERT_POISON, poison),
            )
            if rows
        ]
        self._told += news
        try:
            connection, untold = self._connected(news)
            connection.execute(BEGIN)
            connection.execute(PATIENCE)
            for statement, rows in untold:
                with connection.cursor() as cursor:
                    cursor.executemany(statement, rows)
            connection.execute("commit")
            connection.execute(BEGIN)
            connection.execute(PATIENCE)
            connection.execute(READ_ONLY)
            found = violations(connection, at_rest=False)
            connection.execute("rollback")
        except psycopg.OperationalError as error:
            self.close()
            raise NotNow(str(error).strip()) from error
        return found

    def close(self) -> None:
        """Hangs up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(
        self, news: list[tuple[str, Sequence[tuple[Any, ...]]]]
    ) -> tuple[psycopg.Connection[Any], list[tuple[str, Sequence[tuple[Any, ...]]]]]:
        """The connection, and what its tables have not been told yet."""
        if self._connection is not None and not self._connection.closed:
            return self._connection, news
        self._connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            prepare_threshold=None,
            application_name="checker",
        )
        self._connection.execute(OUTSIDE)
        return self._connection, self._told
