"""The checker as a companion: one connection, many snapshots, news added and never loaded again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, LiteralString

import psycopg

from tools.checker.evaluate import Violation, violations
from tools.checker.invariants import OUTSIDE
from tools.operations.snapshot import (
    BEGIN,
    CONNECT_SECONDS,
    PATIENCE,
    READ_ONLY,
    refuse_hidden_rows,
)

Charge = tuple[str, int | None, str]
Refund = tuple[str, str, int]
Poison = tuple[str, str]

# News may be told twice, by whoever could not know that it had been heard.  A charge that moved on
# is the same charge: what was said of it last is what counts.
TELL_CHARGES: LiteralString = """
insert into psp_charges
select * from unnest(%(keys)s::text[], %(amounts)s::bigint[], %(statuses)s::text[])
on conflict (key) do update set amount_minor = excluded.amount_minor, status = excluded.status
"""
TELL_REFUNDS: LiteralString = """
insert into psp_refunds
select * from unnest(%(keys)s::text[], %(charge_keys)s::text[], %(amounts)s::bigint[])
on conflict (key) do nothing
"""
TELL_POISON: LiteralString = """
insert into injected_poison select * from unnest(%(event_ids)s::text[], %(sources)s::text[])
"""


class NotNow(Exception):
    """PostgreSQL cannot be asked at the moment; what was to be told is kept for the next look."""


class InvariantMonitor:
    """Evaluates the I-queries as often as it is asked, past the pooler, as an administrator.

    Temporary tables live as long as their connection, so everything that was ever told is told
    again after PostgreSQL went away.
    """

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._connection: psycopg.Connection[Any] | None = None
        self._charges: dict[str, Charge] = {}
        self._refunds: dict[str, Refund] = {}
        self._poison: set[Poison] = set()

    def look(
        self,
        charges: Sequence[Charge],
        refunds: Sequence[Refund],
        poison: Sequence[Poison],
    ) -> list[Violation]:
        """What one snapshot shows; the arguments are the news since the last look.

        Read the provider's books before: see ``Outside``.  Raises NotNow; then the news count as
        told, and telling them again does no harm.  Raises ValueError for a role that row security
        hides rows from: no later look would be better.
        """
        new_charges = {row[0]: row for row in charges}
        new_refunds = {row[0]: row for row in refunds}
        new_poison = set(poison) - self._poison
        self._charges |= new_charges
        self._refunds |= new_refunds
        self._poison |= new_poison
        try:
            return self._look(new_charges.values(), new_refunds.values(), new_poison)
        except psycopg.OperationalError as error:
            self.close()
            raise NotNow(str(error).strip()) from error
        except BaseException:
            # whatever it was, the next look begins with a connection that is in no transaction
            self.close()
            raise

    def close(self) -> None:
        """Hangs up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _look(
        self,
        charges: Collection[Charge],
        refunds: Collection[Refund],
        poison: Collection[Poison],
    ) -> list[Violation]:
        """Tells and looks in two transactions: what is told shall outlive the snapshot."""
        connection = self._connection
        if connection is None or connection.closed:
            connection = self._connect()
            charges, refunds = self._charges.values(), self._refunds.values()
            poison = self._poison
        with connection.transaction():
            _tell(connection, charges, refunds, poison)
        connection.execute(BEGIN)
        connection.execute(PATIENCE)
        connection.execute(READ_ONLY)
        found = violations(connection, at_rest=False)
        connection.execute("rollback")
        return found

    def _connect(self) -> psycopg.Connection[Any]:
        self._connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS,
            prepare_threshold=None,
            application_name="checker",
        )
        refuse_hidden_rows(self._connection)
        self._connection.execute(OUTSIDE)
        return self._connection


def _tell(
    connection: psycopg.Connection[Any],
    charges: Collection[Charge],
    refunds: Collection[Refund],
    poison: Collection[Poison],
) -> None:
    """One statement per table: after a restart there is everything to tell, and time is short."""
    if charges:
        keys, amounts, statuses = (list(column) for column in zip(*charges, strict=True))
        told = {"keys": keys, "amounts": amounts, "statuses": statuses}
        connection.execute(TELL_CHARGES, told)
    if refunds:
        keys, charge_keys, amounts = (list(column) for column in zip(*refunds, strict=True))
        told = {"keys": keys, "charge_keys": charge_keys, "amounts": amounts}
        connection.execute(TELL_REFUNDS, told)
    if poison:
        event_ids, sources = (list(column) for column in zip(*poison, strict=True))
        connection.execute(TELL_POISON, {"event_ids": event_ids, "sources": sources})
