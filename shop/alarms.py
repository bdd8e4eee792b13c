"""Alarms: what a person has to look at, kept until someone resolved it.

One alarm for each kind and subject, however often it is raised: an alarm says that something is
wrong, not how often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from shop.ids import new_uuid

if TYPE_CHECKING:
    from shop.db import Statement

DETAIL_MAX = 2000

RAISE: LiteralString = """
insert into shop.alarms (alarm_id, kind, subject, detail)
values (%(alarm_id)s, %(kind)s, %(subject)s, %(detail)s)
on conflict do nothing
"""


def raise_alarm(kind: str, subject: str, detail: str) -> Statement:
    """The statement that raises an alarm; it does nothing when this one was raised before.

    ``kind`` is a name such as ``dead_letter``, ``subject`` the id of the thing, ``detail`` a
    sentence for people (cut at 2,000 characters).
    """
    return RAISE, {
        "alarm_id": new_uuid(),
        "kind": kind,
        "subject": subject,
        "detail": detail[:DETAIL_MAX],
    }
