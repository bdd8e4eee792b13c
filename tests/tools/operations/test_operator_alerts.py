"""``shop alarms``: lists and resolves operator alerts."""

from __future__ import annotations

import json
from uuid import uuid4

import psycopg

from shop import operator_alerts
from tests.harness import FlowHarness
from tests.tools.operations.conftest import CommandLine


def _raise_alert(flow: FlowHarness, subject: str) -> bool:
    """Raises an operator alert; False when the same alert is open already."""
    alert = operator_alerts.raise_alert(kind="ghost_charge", subject=subject, detail="why")
    with psycopg.connect(flow.shop.admin_url) as connection:
        return connection.execute(alert.sql, alert.parameters).fetchone() is not None


def test_open_alert_is_listed_and_resolved_once_and_can_be_raised_again(
    flow: FlowHarness, operator: CommandLine
) -> None:
    assert (
        _raise_alert(flow, "shop:a")
        and _raise_alert(flow, "shop:b")
        and not _raise_alert(flow, "shop:a")
    )
    listed = json.loads(operator.run("alarms", "list", "--json").stdout)
    assert [alert["subject"] for alert in listed] == ["shop:b", "shop:a"]
    alert_id = listed[1]["alarm_id"]

    first = operator.run("alarms", "resolve", alert_id)
    second = operator.run("alarms", "resolve", alert_id)

    assert (first.exit_code, first.stdout) == (0, f"{alert_id}: resolved ghost_charge shop:a\n")
    assert (second.exit_code, second.stdout) == (1, f"{alert_id}: is not open\n")
    remaining = operator.run("alarms", "list").stdout.splitlines()
    assert len(remaining) == 2 and "shop:b" in remaining[1]
    assert len(operator.run("alarms", "list", "--resolved").stdout.splitlines()) == 3
    assert _raise_alert(flow, "shop:a")


def test_unknown_or_invalid_alert_id_resolves_nothing(
    flow: FlowHarness, operator: CommandLine
) -> None:
    _raise_alert(flow, "shop:a")

    assert operator.run("alarms", "resolve", str(uuid4())).exit_code == 1
    assert operator.run("alarms", "resolve", "all").exit_code == 2
    assert flow.shop.sql("select 1 from shop.alarms where resolved_at is not null") == []
