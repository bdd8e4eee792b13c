"""The rows that tests compare: a statement of which psycopg shows none is an error."""

from __future__ import annotations

import psycopg
import pytest

from tests.rows import rows_of


def test_select_without_columns_is_an_error_and_others_return_their_rows(
    postgres_url: str,
) -> None:
    with psycopg.connect(postgres_url) as connection:
        selected = rows_of(connection.execute("select 1 from pg_roles limit 1"))
        without_rows = rows_of(connection.execute("set local lock_timeout = '1s'"))

        with pytest.raises(AssertionError, match="select a column"):
            rows_of(connection.execute("select from pg_roles"))

    assert (selected, without_rows) == ([(1,)], [])
