"""Creates monthly partitions ahead of time, drops those past their retention, analyzes tables.

The database's functions do the work, with the rights of the tables' owner: see
``shop/schema/partitions.py``.
"""

from __future__ import annotations

from shop.adapters.statements import Query, Row, Statement

CREATE_MONTHS = Query(Row, "select from shop.create_partitions(%(table_name)s)")
ANALYZE = Query(Row, "select from shop.analyze_partitions(%(table_name)s)")
DROP_PAST_MONTHS = Query(Row, "select from shop.drop_partitions(%(table_name)s)")


def create_months(table: str) -> Statement[Row]:
    """Creates partitions up to two months ahead; those that exist are left alone."""
    return CREATE_MONTHS(table_name=table)


def analyze(table: str) -> Statement[Row]:
    """Analyzes the table as a whole, once a month; PostgreSQL analyzes its partitions only."""
    return ANALYZE(table_name=table)


def drop_past_months(table: str) -> Statement[Row]:
    """Drops each month, oldest first, whose rows are all past their retention."""
    return DROP_PAST_MONTHS(table_name=table)
