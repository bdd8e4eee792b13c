"""Operator alerts: conditions that a person must handle.  Writer of ``alarms``."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement
from shop.primitives.ids import new_uuid


class Alert(Row):
    """An alert; ``note`` is what the person wrote who resolved it, if a person did."""

    alarm_id: UUID
    kind: str
    subject: str
    detail: str
    raised_at: datetime
    resolved_at: datetime | None
    note: str | None


READ = Query(
    Alert,
    """
select alarm_id, kind, subject, detail, raised_at, resolved_at, note
from shop.alarms where alarm_id = %(alarm_id)s
""",
)

# Without an alert before, the page begins with the newest one.
LIST_OPEN = Query(
    Alert,
    """
select alarm_id, kind, subject, detail, raised_at, resolved_at, note
from shop.alarms
where resolved_at is null and (%(before)s::uuid is null or (raised_at, alarm_id) < (
  select b.raised_at, b.alarm_id from shop.alarms b where b.alarm_id = %(before)s))
order by raised_at desc, alarm_id desc limit %(limit)s::int
""",
)

LIST_RESOLVED = Query(
    Alert,
    """
select alarm_id, kind, subject, detail, raised_at, resolved_at, note
from shop.alarms
where resolved_at is not null and (%(before)s::uuid is null or (resolved_at, alarm_id) < (
  select b.resolved_at, b.alarm_id from shop.alarms b where b.alarm_id = %(before)s))
order by resolved_at desc, alarm_id desc limit %(limit)s::int
""",
)

RESOLVE_WITH_NOTE = Query(
    Alert,
    """
update shop.alarms set resolved_at = now(), note = %(note)s
where alarm_id = %(alarm_id)s and resolved_at is null
returning alarm_id, kind, subject, detail, raised_at, resolved_at, note
""",
)

RAISE = Query(
    Row,
    """
insert into shop.alarms (alarm_id, kind, subject, detail)
values (%(alarm_id)s, %(kind)s, %(subject)s, %(detail)s)
on conflict (kind, subject) where resolved_at is null do nothing
returning alarm_id
""",
)

RESOLVE = Query(
    Row,
    """
update shop.alarms set resolved_at = now()
where alarm_id = %(alarm_id)s and resolved_at is null
returning kind, subject
""",
)

RESOLVE_ABOUT = Query(
    Row,
    """
update shop.alarms set resolved_at = now()
where kind = %(kind)s and subject = any(%(subjects)s) and resolved_at is null
returning kind, subject
""",
)

RESOLVE_CLOSED = Command(
    """
update shop.alarms a set resolved_at = now()
where a.kind = 'dead_letter' and a.subject = any(%(subjects)s) and a.resolved_at is null
  and not exists (select from shop.dead_letters d where d.source || ' ' || d.event_id = a.subject
    and d.replayed_at is null and d.dropped_at is null)
"""
)

# Age limits (shop/schema/age_limits.py): one alert for each row that exceeds its limit, once.
RAISE_OVERDUE = Command(
    """
insert into shop.alarms (alarm_id, kind, subject, detail)
select gen_random_uuid(), o.kind, o.subject,
  'since ' || to_char(o.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')
from shop.overdue o
where o.kind = %(kind)s and not exists (select from shop.alarms a where a.kind = o.kind
  and a.subject = o.subject and (a.resolved_at is null or a.raised_at >= o.since))
order by o.since limit %(batch)s
on conflict (kind, subject) where resolved_at is null do nothing
"""
)

RESOLVE_DONE = Command(
    """
update shop.alarms a set resolved_at = now()
where a.kind = %(kind)s and a.resolved_at is null and not exists (
  select from shop.overdue o where o.kind = a.kind and o.subject = a.subject)
"""
)

DELETE_OLD = Command(
    """
delete from shop.alarms where alarm_id in (
  select alarm_id from shop.alarms
  where resolved_at < now() - shop.retention('alarms') limit %(batch)s)
"""
)


def raise_alert(*, kind: str, subject: str, detail: str) -> Statement[Row]:
    """Raises an alert; no row means that one of this kind and subject is open already."""
    return RAISE(alarm_id=new_uuid(), kind=kind, subject=subject, detail=detail)


def about_failure(kind: str, subject: str, failure: Exception) -> Statement[Row]:
    """Raises an alert about work that failed; its text is left out, since it may quote rows."""
    return raise_alert(kind=kind, subject=subject, detail=type(failure).__name__)


def read(alarm_id: UUID) -> Statement[Alert]:
    """An alert, open or resolved."""
    return READ(alarm_id=alarm_id)


def page(*, is_open: bool, before: UUID | None, limit: int) -> Statement[Alert]:
    """Open alerts, newest first, or resolved ones, the latest resolved first."""
    statement = LIST_OPEN if is_open else LIST_RESOLVED
    return statement(before=before, limit=limit)


def resolve_with_note(alarm_id: UUID, note: str) -> Statement[Alert]:
    """Closes an open alert with what was done about it; no row means that it was not open."""
    return RESOLVE_WITH_NOTE(alarm_id=alarm_id, note=note)


def resolve(alarm_id: UUID) -> Statement[Row]:
    """Closes an open alert; no row means that it was not open."""
    return RESOLVE(alarm_id=alarm_id)


def resolve_about(kind: str, subjects: list[str]) -> Statement[Row]:
    """Closes every open alert of this kind about one of these subjects."""
    return RESOLVE_ABOUT(kind=kind, subjects=subjects)


def resolve_closed(subjects: list[str]) -> Statement[Row]:
    """Closes the alerts about events, by their names, of which no dead letter is open any more."""
    return RESOLVE_CLOSED(subjects=subjects)


def check_age_limit(kind: str, batch: int) -> tuple[Statement[Row], Statement[Row]]:
    """Raises at most ``batch`` alerts about rows over the limit, and resolves those of the rest."""
    return RAISE_OVERDUE(kind=kind, batch=batch), RESOLVE_DONE(kind=kind)


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` alerts that were resolved longer ago than they are kept."""
    return DELETE_OLD(batch=batch)
