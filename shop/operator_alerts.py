"""Alarms: what a person has to look at.  Writer of ``alarms``."""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

from shop.primitives.ids import new_uuid

if TYPE_CHECKING:
    from uuid import UUID

    from shop.adapters.db import Statement

RAISE: LiteralString = """
insert into shop.alarms (alarm_id, kind, subject, detail)
values (%(alarm_id)s, %(kind)s, %(subject)s, %(detail)s)
on conflict (kind, subject) where resolved_at is null do nothing
returning alarm_id
"""

RESOLVE: LiteralString = """
update shop.alarms set resolved_at = now()
where alarm_id = %(alarm_id)s and resolved_at is null
returning kind, subject
"""

RESOLVE_ABOUT: LiteralString = """
update shop.alarms set resolved_at = now()
where kind = %(kind)s and subject = any(%(subjects)s) and resolved_at is null
returning kind, subject
"""


def raise_alert(*, kind: str, subject: str, detail: str) -> Statement:
    """The statement that raises an alarm once per kind and subject; no row: it rings already."""
    return RAISE, {"alarm_id": new_uuid(), "kind": kind, "subject": subject, "detail": detail}


def resolve(alarm_id: UUID) -> Statement:
    """The statement by which a person closes an open alarm; no row: it was not open."""
    return RESOLVE, {"alarm_id": alarm_id}
