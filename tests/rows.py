"""The rows of a statement, which a test compares with what it expects."""

from __future__ import annotations

from typing import Any

from psycopg import Cursor
from psycopg.pq import ExecStatus


def rows_of(cursor: Cursor[Any]) -> list[Any]:
    """The rows that an executed statement returned; an empty list for one that returns none.

    AssertionError for a select without columns, of which psycopg shows no rows: a comparison with
    an empty list would always hold.
    """
    result = cursor.pgresult
    if result is not None and result.status == ExecStatus.TUPLES_OK:
        assert result.nfields > 0, "a select without columns shows no rows: select a column"
        return cursor.fetchall()
    return []
