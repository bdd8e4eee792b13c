"""Stores the results of audits (``--record``), which the exporter serves as metrics."""

from __future__ import annotations

import psycopg

from shop import audits
from tools.operations.reporting import EXIT_FOUND

CONNECT_SECONDS = 5


def record(operator_url: str, name: str, exit_code: int) -> int:
    """Stores that an audit ran, and whether it found anything; returns its exit code."""
    statement = audits.record(name, found=exit_code == EXIT_FOUND)
    with psycopg.connect(operator_url, connect_timeout=CONNECT_SECONDS) as connection:
        connection.execute(statement.sql, statement.parameters)
    return exit_code
