"""Creates the monthly partitions of tables ahead of time, and drops those past their retention.

The database's functions do the work, with the rights of the tables' owner: see
``shop/schema/partitions.py``.
"""

from __future__ import annotations

from shop.adapters.statements import Query, Row, Statement

CREATE_MONTHS = Query(Row, "select from shop.create_partitions(%(table_name)s)")
DROP_PAST_MONTHS = Query(Row, "select from shop.drop_partitions(%(table_name)s)")


def create_months(table: str) -> Statement[Row]:
    """Creates partitions up to two months ahead; those that exist are left alone."""
    return CREATE_MONTHS(table_name=table)


def drop_past_months(table: str) -> Statement[Row]:
    """Drops each month, oldest first, whose rows are all past their retention."""
    return DROP_PAST_MONTHS(table_name=table)
