"""``shop alarms``: listed while open, resolved once, and free to ring again."""

from __future__ import annotations

import json
from uuid import uuid4

from shop import operator_alerts
from tests.harness import FlowHarness
from tests.tools.operations.conftest import Operator


def _ring(flow: FlowHarness, subject: str) -> bool:
    """Whether the alarm was raised; one that rings already is not raised again."""
    statement, parameters = operator_alerts.raise_alert(
        kind="ghost_charge", subject=subject, detail="why"
    )
    values = (parameters["alarm_id"], "ghost_charge", subject, "why")
    return bool(
        flow.shop.sql(
            statement.replace("%(alarm_id)s, %(kind)s, %(subject)s, %(detail)s", "%s, %s, %s, %s"),
            *values,
        )
    )


def test_open_alarms_are_listed_and_resolved_once(flow: FlowHarness, caretaker: Operator) -> None:
    assert _ring(flow, "shop:a") and _ring(flow, "shop:b") and not _ring(flow, "shop:a")
    listed = json.loads(caretaker.run("alarms", "list", "--json").stdout)
    assert [alarm["subject"] for alarm in listed] == ["shop:b", "shop:a"]
    alarm_id = listed[1]["alarm_id"]

    first = caretaker.run("alarms", "resolve", alarm_id)
    second = caretaker.run("alarms", "resolve", alarm_id)

    assert (first.exit_code, first.stdout) == (0, f"{alarm_id}: resolved ghost_charge shop:a\n")
    assert (second.exit_code, second.stdout) == (1, f"{alarm_id}: is not open\n")
    still = caretaker.run("alarms", "list").stdout.splitlines()
    assert len(still) == 2 and "shop:b" in still[1]
    assert len(caretaker.run("alarms", "list", "--resolved").stdout.splitlines()) == 3
    assert _ring(flow, "shop:a"), "the next one rings again"


def test_unknown_ids_resolve_nothing(flow: FlowHarness, caretaker: Operator) -> None:
    _ring(flow, "shop:a")

    assert caretaker.run("alarms", "resolve", str(uuid4())).exit_code == 1
    assert caretaker.run("alarms", "resolve", "all").exit_code == 2
    assert flow.shop.sql("select 1 from shop.alarms where resolved_at is not null") == []
