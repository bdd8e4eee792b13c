"""Opens a read-only snapshot of the database in which every row is visible."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from shop.adapters.connection_attempts import ConnectionAttempts

CONNECT_SECONDS = 5

BEGIN: LiteralString = "begin isolation level repeatable read"
# The shop's roles have timeouts of seconds; reading all rows may take minutes, and a connection may
# wait for the statement of another one.
SETTINGS: LiteralString = """
set local statement_timeout = '30min';
set local idle_in_transaction_session_timeout = '30min';
set local timezone = 'UTC';
set local work_mem = '64MB';
set local jit = off
"""
READ_ONLY: LiteralString = "set transaction read only"
EXPORT: LiteralString = "select pg_export_snapshot()"
IMPORT: LiteralString = "set transaction snapshot {}"

# Row security hides rows silently, and a check cannot report a hidden row.
HIDDEN: LiteralString = """
select c.relname::text from pg_class c
where c.relnamespace = to_regnamespace('shop') and c.relkind in ('r', 'p')
  and row_security_active(c.oid) and not exists (
    select from pg_policy p where p.polrelid = c.oid and p.polpermissive
      and p.polcmd in ('*', 'r') and pg_get_expr(p.polqual, p.polrelid) = 'true'
      and exists (select from unnest(p.polroles) r
        where r = 0 or pg_has_role(current_user, r, 'usage')))
order by 1
"""


class HiddenRows(ValueError):
    """Row security hides rows from the role of the connection."""


@contextmanager
def snapshot(
    url: str,
    *,
    prepare: Callable[[psycopg.Connection[TupleRow]], None] | None = None,
    same_as: psycopg.Connection[TupleRow] | None = None,
) -> Generator[psycopg.Connection[TupleRow]]:
    """A connection in one REPEATABLE READ, READ ONLY transaction, rolled back at the end.

    ``prepare`` fills temporary tables before the transaction is made read only.  ``same_as`` is a
    connection of this function to the same server: both then read the same snapshot.  Everything is
    one transaction, so it works through a connection pooler.  Raises psycopg.Error, and HiddenRows
    for a role from which row security hides rows.
    """
    with ConnectionAttempts().open(
        lambda: _connect(url), errors=(psycopg.OperationalError,)
    ) as connection:
        connection.execute(BEGIN)
        if same_as is not None:
            exported = same_as.execute(EXPORT).fetchone() or ()
            connection.execute(sql.SQL(IMPORT).format(*exported))
        connection.execute(SETTINGS)
        require_all_rows_visible(connection)
        if prepare is not None:
            prepare(connection)
        connection.execute(READ_ONLY)
        try:
            yield connection
        finally:
            if not connection.closed:
                connection.execute("rollback")


def _connect(url: str) -> psycopg.Connection[TupleRow]:
    return psycopg.connect(
        url, autocommit=True, connect_timeout=CONNECT_SECONDS, prepare_threshold=None
    )


def require_all_rows_visible(connection: psycopg.Connection[TupleRow]) -> None:
    """Raises HiddenRows when row security hides rows from the connection's role."""
    hidden = [name for (name,) in connection.execute(HIDDEN)]
    if hidden:
        raise HiddenRows(f"row security hides rows from this role: {', '.join(hidden)}")
