"""``shop mail bounced``: delivery status notifications of several mail servers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner, Result

from tests.harness import ShopHarness
from tests.tools.operations.bounce_messages import (
    BY_SERVER,
    DELIVERED,
    OUT_OF_OFFICE,
    POSTFIX_DELAYED,
    POSTFIX_FAILED,
    READ_RECEIPT,
    REPLACING_RELAY,
)
from tools.cli import app

BOUNCE = "select bounce, bounce_code, status from shop.mails where event_id = %s"
ALERTS = "select kind, subject, detail from shop.alarms"


def sent_mail(shop: ShopHarness, *, tries: int = 1, status: str = "SENT") -> UUID:
    event_id = uuid4()
    shop.sql(
        "insert into shop.mails (event_id, kind, subject_id, status, tries, next_try_at) "
        "values (%s, 'ORDER_PAID', 'order-7', %s, %s, now())",
        event_id,
        status,
        tries,
    )
    return event_id


def about(message: str, event_id: UUID) -> bytes:
    named = message.replace("MAIL\n", f"<{event_id}@shop.kr>\n")
    return named.replace("ENVELOPE", str(event_id)).encode()


def bounced(shop: ShopHarness, message: bytes, *options: str) -> Result:
    environment = {"DATABASE_URL": shop.role_url("ops")}
    arguments = ["mail", "bounced", *options]
    return CliRunner().invoke(app, arguments, input=message, env=environment)


def stored(shop: ShopHarness, event_id: UUID) -> tuple[object, ...]:
    return tuple(shop.sql(BOUNCE, event_id)[0].values())


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("server", BY_SERVER)
def test_report_of_a_server_is_recorded_and_alerts_about_a_mail_that_failed(
    shop: ShopHarness, server: str, line_end: bytes
) -> None:
    message, bounce, code = BY_SERVER[server]
    event_id = sent_mail(shop)
    result = bounced(shop, about(message, event_id).replace(b"\n", line_end))

    assert (result.exit_code, result.stdout) == (
        0,
        f"{event_id}: ORDER_PAID about order-7: {bounce} with {code}\n",
    )
    assert stored(shop, event_id) == (bounce, code, "SENT")
    detail = f"ORDER_PAID about order-7 came back with {code}"
    alert = {"kind": "mail_rejected", "subject": str(event_id), "detail": detail}
    assert shop.sql(ALERTS) == ([alert] if bounce == "FAILED" else [])


def test_report_that_is_read_again_changes_nothing_even_after_the_alert_was_resolved(
    shop: ShopHarness,
) -> None:
    event_id = sent_mail(shop)
    message = about(POSTFIX_FAILED, event_id)
    assert bounced(shop, message).exit_code == 0
    shop.sql("update shop.alarms set resolved_at = now()")
    before = shop.sql("select * from shop.mails")
    again = bounced(shop, message)

    assert (again.exit_code, "recorded before" in again.stdout) == (0, True)
    assert shop.sql("select * from shop.mails") == before
    assert len(shop.sql(ALERTS)) == 1


def test_concurrent_reports_of_one_failure_raise_one_alert(shop: ShopHarness) -> None:
    event_id = sent_mail(shop)
    message = about(POSTFIX_FAILED, event_id)
    # CliRunner replaces the process' standard input, so each has a process of its own
    from subprocess import run
    from sys import executable

    def report(_: int) -> int:
        environment = {"DATABASE_URL": shop.role_url("ops"), "PATH": "/usr/bin:/bin"}
        command = [executable, "-m", "tools.cli", "mail", "bounced"]
        return run(command, input=message, env=environment, check=False).returncode

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(report, range(4))) == {0}
    assert len(shop.sql(ALERTS)) == 1


def test_delay_becomes_a_failure_and_a_failure_stays(shop: ShopHarness) -> None:
    event_id = sent_mail(shop)
    for message in (POSTFIX_DELAYED, POSTFIX_FAILED, POSTFIX_DELAYED):
        assert bounced(shop, about(message, event_id)).exit_code == 0

    assert stored(shop, event_id) == ("FAILED", "5.1.1", "SENT")
    assert len(shop.sql(ALERTS)) == 1


@pytest.mark.parametrize("status", ["SENDING", "UNKNOWN", "PENDING"])
def test_report_is_recorded_before_the_reply_of_the_mail_server(
    shop: ShopHarness, status: str
) -> None:
    event_id = sent_mail(shop, status=status)

    assert bounced(shop, about(POSTFIX_FAILED, event_id)).exit_code == 0
    assert stored(shop, event_id) == ("FAILED", "5.1.1", status)


def test_report_of_a_delivery_writes_nothing(shop: ShopHarness) -> None:
    event_id = sent_mail(shop)
    result = bounced(shop, about(DELIVERED, event_id))

    assert (result.exit_code, "nothing to record" in result.stdout) == (0, True)
    assert stored(shop, event_id) == (None, None, "SENT")


NO_STATUS = POSTFIX_FAILED.replace("Status: 5.1.1\n", "")
BAD_MESSAGES = {
    "empty": ("", "is not a delivery status notification"),
    "no mail at all": ("\x00\x01 no header", "is not a delivery status notification"),
    "out of office": (OUT_OF_OFFICE, "is not a delivery status notification"),
    "read receipt": (READ_RECEIPT, "is not a delivery status notification"),
    "no recipient": (POSTFIX_FAILED.replace("Action: failed\n", ""), "without a recipient"),
    "no status": (NO_STATUS, "whose Status does not say failed"),
    "status of a success": (POSTFIX_FAILED.replace("s: 5.1.1", "s: 2.1.1"), "does not say failed"),
    "status without classes": (POSTFIX_FAILED.replace("s: 5.1.1", "s: 5.1"), "does not say failed"),
    "longer status": (POSTFIX_FAILED.replace("s: 5.1.1", "s: 5.1.1.1"), "does not say failed"),
    "unknown action": (POSTFIX_FAILED.replace("Action: failed", "Action: lost"), "unknown Action"),
    "other Message-ID": (POSTFIX_FAILED.replace("MAIL", "<7@shop.kr>"), "not of this shop"),
    "without a name": (POSTFIX_FAILED.replace("Message-ID: MAIL\n", ""), "not of this shop"),
    "replaced Message-ID": (
        REPLACING_RELAY.replace("Original-Envelope-Id: ENVELOPE\n", ""),
        "not of this shop",
    ),
    "cut off": (POSTFIX_FAILED[: POSTFIX_FAILED.index("Final-Recipient")], "without a recipient"),
}


@pytest.mark.parametrize("message", BAD_MESSAGES)
def test_other_message_exits_with_1_says_why_and_writes_nothing(
    shop: ShopHarness, message: str
) -> None:
    event_id = sent_mail(shop)
    text, why = BAD_MESSAGES[message]
    result = bounced(shop, about(text, event_id))

    assert (result.exit_code, why in result.stdout) == (1, True), result.stdout
    assert stored(shop, event_id) == (None, None, "SENT")
    assert shop.sql(ALERTS) == []


@pytest.mark.parametrize("tries", [None, 0], ids=["unknown", "never sent"])
def test_report_about_a_mail_that_was_not_sent_exits_with_1(
    shop: ShopHarness, tries: int | None
) -> None:
    event_id = uuid4() if tries is None else sent_mail(shop, tries=tries, status="PENDING")
    result = bounced(shop, about(POSTFIX_FAILED, event_id))

    assert (result.exit_code, "sent no mail with this Message-ID" in result.stdout) == (1, True)
    assert shop.sql(ALERTS) == []
    assert shop.sql("select 1 as found from shop.mails where bounce is not null") == []


def test_message_larger_than_the_limit_is_rejected(shop: ShopHarness) -> None:
    event_id = sent_mail(shop)
    message = about(POSTFIX_FAILED, event_id) + b"x" * 10 * 1024 * 1024
    result = bounced(shop, message)

    assert (result.exit_code, "larger than 10 MiB" in result.stdout) == (1, True)
    assert stored(shop, event_id) == (None, None, "SENT")


def test_json_has_the_outcome(shop: ShopHarness) -> None:
    event_id = sent_mail(shop)
    result = bounced(shop, about(POSTFIX_DELAYED, event_id), "--json")

    what = "ORDER_PAID about order-7: DELAYED with 4.4.1"
    assert json.loads(result.stdout) == [{"id": str(event_id), "done": True, "what": what}]


def test_database_that_is_not_reachable_exits_with_2_so_that_a_mail_server_tries_again() -> None:
    message = about(POSTFIX_FAILED, uuid4())
    environment = {"DATABASE_URL": "postgresql://shop_ops@127.0.0.1:9/shop"}
    result = CliRunner().invoke(app, ["mail", "bounced"], input=message, env=environment)

    assert result.exit_code == 2
