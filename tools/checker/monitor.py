"""Evaluates the invariants repeatedly on one connection, sending only new external records."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow

from tools.checker.evaluate import ChargeRow, PoisonRow, RefundRow, Violation, violations_in
from tools.checker.invariants import EXTERNAL_TABLES
from tools.operations.snapshot import (
    BEGIN,
    CONNECT_SECONDS,
    READ_ONLY,
    SETTINGS,
    require_all_rows_visible,
)

# A record may be passed twice: after an error the caller cannot tell whether it was stored.  The
# last status of a charge is kept.
INSERT_CHARGES: LiteralString = """
insert into psp_charges
select * from unnest(%(keys)s::text[], %(amounts)s::bigint[], %(statuses)s::text[])
on conflict (key) do update set amount_minor = excluded.amount_minor, status = excluded.status
"""
INSERT_REFUNDS: LiteralString = """
insert into psp_refunds
select * from unnest(%(keys)s::text[], %(charge_keys)s::text[], %(amounts)s::bigint[])
on conflict (key) do nothing
"""
INSERT_POISON: LiteralString = """
insert into injected_poison select * from unnest(%(event_ids)s::text[], %(sources)s::text[])
"""


class DatabaseUnavailable(Exception):
    """PostgreSQL is unreachable; records passed meanwhile are kept for the next evaluation."""


class InvariantMonitor:
    """Evaluates the I-invariants on demand, connected to PostgreSQL directly as an administrator.

    Temporary tables last as long as their connection, so all records are kept in memory and are
    inserted again after a reconnect.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection[TupleRow] | None = None
        self._charges: dict[str, ChargeRow] = {}
        self._refunds: dict[str, RefundRow] = {}
        self._poison: set[PoisonRow] = set()

    def evaluate(
        self,
        charges: Sequence[ChargeRow],
        refunds: Sequence[RefundRow],
        poison: Sequence[PoisonRow],
    ) -> list[Violation]:
        """The violations in a new snapshot; the arguments are the records since the last call.

        Read the provider's transactions before the call: see ``ExternalRecords``.  Raises
        DatabaseUnavailable; the records are kept, and passing them again is harmless.  Raises
        ValueError for a role from which row security hides rows: a retry would not help.
        """
        new_charges = {row[0]: row for row in charges}
        new_refunds = {row[0]: row for row in refunds}
        new_poison = set(poison) - self._poison
        self._charges |= new_charges
        self._refunds |= new_refunds
        self._poison |= new_poison
        try:
            return self._evaluate(new_charges.values(), new_refunds.values(), new_poison)
        except psycopg.OperationalError as error:
            self.close()
            raise DatabaseUnavailable(str(error).strip()) from error
        except BaseException:
            # the next evaluation must begin with a connection that is in no transaction
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _evaluate(
        self,
        charges: Collection[ChargeRow],
        refunds: Collection[RefundRow],
        poison: Collection[PoisonRow],
    ) -> list[Violation]:
        """Inserts in a separate transaction, because the snapshot is rolled back at the end."""
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connect()
            charges, refunds = self._charges.values(), self._refunds.values()
            poison = self._poison
        with connection.transaction():
            _insert(connection, charges, refunds, poison)
        connection.execute(BEGIN)
        connection.execute(SETTINGS)
        connection.execute(READ_ONLY)
        found = violations_in(connection, at_rest=False)
        connection.execute("rollback")
        return found

    def _connect(self) -> psycopg.Connection[TupleRow]:
        self._connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            prepare_threshold=None,
            application_name="checker",
        )
        require_all_rows_visible(self._connection)
        self._connection.execute(EXTERNAL_TABLES)
        return self._connection


def _insert(
    connection: psycopg.Connection[TupleRow],
    charges: Collection[ChargeRow],
    refunds: Collection[RefundRow],
    poison: Collection[PoisonRow],
) -> None:
    """Inserts with one statement per table: after a reconnect there may be many records."""
    if charges:
        keys, amounts, statuses = (list(column) for column in zip(*charges, strict=True))
        values = {"keys": keys, "amounts": amounts, "statuses": statuses}
        connection.execute(INSERT_CHARGES, values)
    if refunds:
        keys, charge_keys, amounts = (list(column) for column in zip(*refunds, strict=True))
        values = {"keys": keys, "charge_keys": charge_keys, "amounts": amounts}
        connection.execute(INSERT_REFUNDS, values)
    if poison:
        event_ids, sources = (list(column) for column in zip(*poison, strict=True))
        connection.execute(INSERT_POISON, {"event_ids": event_ids, "sources": sources})
