"""``shop mail bounced``: records what a delivery status notification reports of a mail.

A server that has accepted a mail and cannot deliver it sends such a notification to the mail's
sender.  Nothing of its text is stored, since it quotes addresses.
"""

from __future__ import annotations

from typing import BinaryIO

import psycopg

from shop import mails, operator_alerts
from shop.mails import BouncedMail
from shop.primitives.statuses import Bounce
from tools.operations.delivery_reports import DeliveryReport, NotAReport, read_report
from tools.operations.reporting import Outcome, show_outcomes

CONNECT_SECONDS = 5
BYTES_MAX = 10 * 1024 * 1024


def run_bounced(database_url: str, source: BinaryIO, *, as_json: bool) -> int:
    """Records one report; returns 1 when it is none, or not about a mail of this shop.

    Then nothing is written.  A report that is read again changes nothing and returns 0.
    """
    try:
        report = read_report(_read(source))
    except NotAReport as error:
        return show_outcomes([Outcome("message", is_done=False, what=str(error))], as_json=as_json)
    outcome = Outcome(str(report.event_id), *_record(database_url, report))
    return show_outcomes([outcome], as_json=as_json)


def _read(source: BinaryIO) -> bytes:
    message = source.read(BYTES_MAX + 1)
    if len(message) > BYTES_MAX:
        raise NotAReport("is larger than 10 MiB")
    return message


def _record(database_url: str, report: DeliveryReport) -> tuple[bool, str]:
    """Whether the report is about a mail of the shop, and what was done."""
    if report.bounce is None:
        return True, "nothing to record: the mail was delivered"
    statement = mails.record_bounce(report.event_id, report.bounce, report.code)
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        row = connection.execute(statement.sql, statement.parameters).fetchone()
        if row is None:
            return False, "the shop sent no mail with this Message-ID, or keeps it no longer"
        mail = BouncedMail(row)
        what = f"{mail.kind} about {mail.subject_id}: {report.bounce} with {report.code}"
        if not mail.is_new:
            return True, f"{what}; recorded before, or after a later report"
        if report.bounce == Bounce.FAILED:
            detail = f"{mail.kind} about {mail.subject_id} came back with {report.code}"
            alert = operator_alerts.raise_alert(
                kind=mails.REJECTED_ALERT, subject=str(report.event_id), detail=detail
            )
            connection.execute(alert.sql, alert.parameters)
    return True, what
