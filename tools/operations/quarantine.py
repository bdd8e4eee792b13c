"""``shop dlq release``: quarantined events are published again."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import psycopg

from shop import operator_alerts
from shop.messaging import outbox
from tools.operations.reporting import Outcome, show_outcomes

CONNECT_SECONDS = 5


def run_release(database_url: str, event_ids: Sequence[str], *, as_json: bool) -> int:
    """Makes quarantined events due now; returns 1 when one of them is not quarantined.

    Their operator alerts are resolved; ``sweep`` raises them again for an event that is still
    invalid.  Raises ValueError for an invalid id.
    """
    selected = [UUID(event_id) for event_id in event_ids]
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        release = outbox.release(selected)
        released = {row[0] for row in connection.execute(release.sql, release.parameters)}
        names = [str(event_id) for event_id in released]
        resolve = operator_alerts.resolve_about(outbox.QUARANTINED, names)
        connection.execute(resolve.sql, resolve.parameters)
    outcomes = [
        Outcome(str(one), one in released, "released" if one in released else "is not quarantined")
        for one in selected
    ]
    return show_outcomes(outcomes, as_json=as_json)
