"""manage_orders: operator alerts and dead letters, as operators see and close them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.functions.test_dead_letter import FAILURE, send
from tests.harness import ShopHarness

UNKNOWN = "01938f6e-2f3b-7a52-8c3e-0d9d3a1f5b77"


def raise_alerts(shop: ShopHarness, count: int) -> list[str]:
    """The ids of new alerts, the newest first."""
    rows = shop.sql(
        "insert into shop.alarms (alarm_id, kind, subject, detail, raised_at) "
        "select gen_random_uuid(), 'stuck_charge', n::text, 'Timeout', now() - n * interval '1 h' "
        "from generate_series(1, %s) n returning alarm_id",
        count,
    )
    return [str(row["alarm_id"]) for row in rows]


def entries(shop: ShopHarness, action: str) -> list[dict[str, Any]]:
    columns = "actor_role, object_id, after"
    return shop.sql(f"select {columns} from shop.audit_log where action = '{action}'")


def test_pages_of_open_alerts_have_each_once_newest_first(shop: ShopHarness) -> None:
    alerts = raise_alerts(shop, 5)
    operator, path, seen = shop.person("support"), "/admin/alerts?limit=2", list[str]()

    while path:
        answer = operator.get(path)
        seen += [alert["id"] for alert in answer.json]
        path = answer.headers.get("link", "").partition(">")[0].removeprefix("<")

    assert seen == alerts


@pytest.mark.parametrize("role", ["staff", "support", "finance", "admin"])
def test_alert_is_resolved_once_with_a_note_and_an_entry(shop: ShopHarness, role: str) -> None:
    (alert,) = raise_alerts(shop, 1)
    operator, path = shop.person(role), f"/admin/alerts/{alert}/resolution"

    resolved = operator.post(path, {"note": " 담당자에게 전화함 "})

    assert resolved.status == 200, resolved.body
    assert resolved.json["note"] == "담당자에게 전화함"
    assert resolved.json["resolvedAt"] is not None
    again = operator.post(path, {"note": "x"})
    assert (again.status, again.error) == (409, "ALERT_RESOLVED")
    assert operator.get("/admin/alerts").json == []
    assert [each["id"] for each in operator.get("/admin/alerts?state=RESOLVED").json] == [alert]
    after = {"kind": "stuck_charge", "subject": "1"}
    entry = {"actor_role": role, "object_id": alert, "after": after}
    assert entries(shop, "alert.resolved") == [entry]


@pytest.mark.parametrize("note", ["", "  ", "x" * 501, "two\nlines"])
def test_resolution_without_a_readable_note_is_422_and_not_written(
    shop: ShopHarness, note: str
) -> None:
    (alert,) = raise_alerts(shop, 1)

    answer = shop.person("support").post(f"/admin/alerts/{alert}/resolution", {"note": note})

    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "note")
    assert len(shop.person("support").get("/admin/alerts").json) == 1
    assert entries(shop, "alert.resolved") == []


@pytest.mark.parametrize("alert", [UNKNOWN, "1"])
def test_alert_that_does_not_exist_is_404(shop: ShopHarness, alert: str) -> None:
    path = f"/admin/alerts/{alert}/resolution"

    assert shop.person("staff").post(path, {"note": "x"}).status == 404


def test_dead_letter_is_shown_whole_and_dropped_with_its_alert(shop: ShopHarness) -> None:
    assert send(shop).status == 204
    admin = shop.person("admin")
    (listed,) = admin.get("/admin/dead-letters").json
    path = f"/admin/dead-letters/{listed['id']}"

    shown = admin.get(path).json

    assert (shown["body"], shown["errorCode"]) == ("{", FAILURE["ce-knativeerrorcode"])
    assert shown["response"] == '{"error": "BAD_EVENT"}'
    assert shown["headers"]["ce-id"] == shown["eventId"] == "poison-1"
    dropped = admin.post(f"{path}/drop", {"reason": "of a test"})
    assert (dropped.status, dropped.json["droppedReason"]) == (200, "of a test")
    assert dropped.json["droppedAt"] is not None
    again = admin.post(f"{path}/drop", {"reason": "again"})
    assert (again.status, again.error) == (409, "DEAD_LETTER_CLOSED")
    assert admin.get("/admin/dead-letters").json == []
    assert [each["id"] for each in admin.get("/admin/dead-letters?state=ALL").json] == [
        listed["id"]
    ]
    assert admin.get("/admin/alerts").json == []
    after = {"type": listed["type"], "eventId": "poison-1"}
    entry = {"actor_role": "admin", "object_id": listed["id"], "after": after}
    assert entries(shop, "dead_letter.dropped") == [entry]


def test_bytes_of_no_text_are_shown_escaped(shop: ShopHarness) -> None:
    assert send(shop, b"\xff\x00{").status == 204
    admin = shop.person("admin")
    (listed,) = admin.get("/admin/dead-letters").json

    shown = admin.get(f"/admin/dead-letters/{listed['id']}").json

    assert shown["body"] == "\\xff\x00{"


def test_pages_of_dead_letters_have_each_once(shop: ShopHarness) -> None:
    for number in range(3):
        assert send(shop, id=f"poison-{number}").status == 204
    admin = shop.person("admin")

    first = admin.get("/admin/dead-letters?limit=2")
    rest = admin.get(first.headers["link"].partition(">")[0].removeprefix("<"))

    found = {letter["id"] for letter in first.json + rest.json}
    assert (len(first.json), len(rest.json), len(found)) == (2, 1, 3)


@pytest.mark.parametrize("letter", [UNKNOWN, "1"])
def test_dead_letter_that_does_not_exist_is_404(shop: ShopHarness, letter: str) -> None:
    admin = shop.person("admin")

    assert admin.get(f"/admin/dead-letters/{letter}").status == 404
    path = f"/admin/dead-letters/{letter}/drop"
    assert admin.post(path, {"reason": "x"}).status == 404
    assert entries(shop, "dead_letter.dropped") == []
