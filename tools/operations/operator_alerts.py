"""``shop alarms``: lists and resolves operator alerts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from shop import operator_alerts
from tools.operations.reporting import EXIT_OK, Outcome, show_json, show_outcomes, show_table

CONNECT_SECONDS = 5
LISTED_MAX = 500

OPEN_OR_ALL: LiteralString = """
select alarm_id, kind, subject, detail, raised_at, resolved_at from shop.alarms
where resolved_at is null or %(include_resolved)s
order by raised_at desc limit %(limit)s
"""


@dataclass(frozen=True)
class OperatorAlert:
    """The columns of ``OPEN_OR_ALL``."""

    alarm_id: UUID
    kind: str
    subject: str
    detail: str
    raised_at: datetime
    resolved_at: datetime | None


def run_list(database_url: str, *, include_resolved: bool, as_json: bool) -> int:
    """Lists the open operator alerts, or all, newest first; always returns 0."""
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        cursor = connection.cursor(row_factory=class_row(OperatorAlert))
        values = {"include_resolved": include_resolved, "limit": LISTED_MAX}
        alerts = cursor.execute(OPEN_OR_ALL, values).fetchall()
    if as_json:
        show_json([vars(alert) for alert in alerts])
        return EXIT_OK
    if len(alerts) == LISTED_MAX:
        print(f"the newest {LISTED_MAX} only")
    show_table(
        ("alert", "kind", "subject", "detail", "raised", "resolved"),
        [
            (
                alert.alarm_id,
                alert.kind,
                alert.subject,
                alert.detail,
                f"{alert.raised_at:%Y-%m-%d %H:%M:%S%z}",
                "yes" if alert.resolved_at else "",
            )
            for alert in alerts
        ],
    )
    return EXIT_OK


def run_resolve(database_url: str, alert_ids: Sequence[str], *, as_json: bool) -> int:
    """Resolves operator alerts; returns 1 when one of them is unknown or already resolved.

    Afterwards an alert of the same kind and subject can be raised again.  Raises ValueError for an
    invalid id.
    """
    selected = [UUID(alert_id) for alert_id in alert_ids]
    outcomes: list[Outcome] = []
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        for alert_id in selected:
            resolve = operator_alerts.resolve(alert_id)
            row = connection.execute(resolve.sql, resolve.parameters).fetchone()
            what = f"resolved {row[0]} {row[1]}" if row else "is not open"
            outcomes.append(Outcome(str(alert_id), row is not None, what))
    return show_outcomes(outcomes, as_json=as_json)
