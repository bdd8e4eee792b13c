"""``shop alarms``: what a person has to look at, and that somebody has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from shop import operator_alerts
from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table

CONNECT_SECONDS = 5
LISTED_MAX = 500

OPEN_OR_ALL: LiteralString = """
select alarm_id, kind, subject, detail, raised_at, resolved_at from shop.alarms
where resolved_at is null or %(resolved_too)s
order by raised_at desc limit %(limit)s
"""


def run_list(database_url: str, *, resolved_too: bool, as_json: bool) -> int:
    """Lists open alarms, newest first; 0 also when there are some."""
    with psycopg.connect(
        database_url, connect_timeout=CONNECT_SECONDS, row_factory=dict_row
    ) as connection:
        rows = connection.execute(
            OPEN_OR_ALL, {"resolved_too": resolved_too, "limit": LISTED_MAX}
        ).fetchall()
    if as_json:
        show_json(rows)
        return EXIT_OK
    if len(rows) == LISTED_MAX:
        print(f"the newest {LISTED_MAX} only")
    show_table(
        ("alarm", "kind", "subject", "detail", "raised", "resolved"),
        [
            (
                row["alarm_id"],
                row["kind"],
                row["subject"],
                row["detail"],
                f"{row['raised_at']:%Y-%m-%d %H:%M:%S%z}",
                "yes" if row["resolved_at"] else "",
            )
            for row in rows
        ],
    )
    return EXIT_OK


def run_resolve(database_url: str, alarm_ids: Sequence[str]) -> int:
    """Resolves alarms; 1 when one of them is unknown or was resolved before.

    From then on the same kind and subject can ring again.  Raises ValueError for what is no id.
    """
    wanted = [UUID(alarm_id) for alarm_id in alarm_ids]
    status = EXIT_OK
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        for alarm_id in wanted:
            row = connection.execute(*operator_alerts.resolve(alarm_id)).fetchone()
            print(f"{alarm_id}: {f'resolved {row[0]} {row[1]}' if row else 'is not open'}")
            status = status if row else EXIT_FOUND
    return status
