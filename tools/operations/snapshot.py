"""One repeatable read, read-only look at the whole shop: every row of one moment, or a refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg

CONNECT_SECONDS = 5

# The shop's roles give up after seconds; a look at everything may take minutes.
BEGIN: LiteralString = "begin isolation level repeatable read"
PATIENCE: LiteralString = """
set local statement_timeout = '30min';
set local idle_in_transaction_session_timeout = '5min';
set local timezone = 'UTC';
set local work_mem = '64MB';
set local jit = off
"""
READ_ONLY: LiteralString = "set transaction read only"

# Row security hides rows without a word, and what is not seen cannot be wrong.
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


@contextmanager
def snapshot(
    url: str,
    *,
    prepare: Callable[[psycopg.Connection[Any]], None] | None = None,
    row_factory: Any = None,
) -> Iterator[psycopg.Connection[Any]]:
    """A connection in one REPEATABLE READ, READ ONLY transaction, rolled back at the end.

    ``prepare`` fills temporary tables before the transaction is made read only.  Everything is one
    transaction, so a pooler between us and PostgreSQL changes nothing.  Raises psycopg.Error, and
    ValueError for a role that row security hides rows from.
    """
    with psycopg.connect(
        url, autocommit=True, connect_timeout=CONNECT_SECONDS, prepare_threshold=None
    ) as connection:
        connection.execute(BEGIN)
        connection.execute(PATIENCE)
        refuse_hidden_rows(connection)
        if prepare is not None:
            prepare(connection)
        connection.execute(READ_ONLY)
        if row_factory is not None:
            connection.row_factory = row_factory
        try:
            yield connection
        finally:
            if not connection.closed:
                connection.execute("rollback")


def refuse_hidden_rows(connection: psycopg.Connection[Any]) -> None:
    """Raises ValueError when row security hides rows from the connection's role."""
    hidden = [name for (name,) in connection.execute(HIDDEN)]
    if hidden:
        raise ValueError(f"this role does not see every row of {', '.join(hidden)}")
