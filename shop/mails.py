"""Mails: one of each event that has one, and how far it has been sent.  Writer of ``mails``.

::

    (event) ──▶ SENDING ──▶ SENT        the server accepted it
       │         ▲   ├────▶ FAILED      rejected for good, given up, or nothing to send any more
       ▼         │   ├────▶ PENDING     not accepted; sent again later
    PENDING ─────┤   └────▶ UNKNOWN     perhaps accepted; sent again later
                 └──────────────┘

The row is committed before the server is called, and holds ids only: address and text are read when
the mail is sent, so a row has no personal data and no secret.  A process that ends while it sends
leaves SENDING, whose lease ends: then, as after UNKNOWN, the mail is sent again with the same
Message-ID.  SMTP cannot do better (RFC 5321 section 4.2.5).

A bounce is reported later, in a mail to the sender.  It is recorded beside the status, which stays
what the server replied: a report may be read before the process that sent the mail has recorded
the reply.  DELAYED may become FAILED, and FAILED stays.
"""

from __future__ import annotations

from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement, enum_column
from shop.primitives.statuses import Bounce, MailFailure, MailKind, MailStatus

# A process sends a mail for less than that (MailServer.SECONDS_MAX).
LEASE_SECONDS = 60
RETRY_SECONDS_MIN = 60
RETRY_SECONDS_MAX = 3600
GIVE_UP_HOURS = 48
# The operator alert about a mail that its recipient will not get.
REJECTED_ALERT = "mail_rejected"


class Mail(Row):
    """A mail of which this process holds the lease; ``is_last_try`` if it will be given up."""

    event_id: UUID
    kind: MailKind = enum_column(MailKind)
    subject_id: str
    is_last_try: bool


class DueMail(Row):
    """A mail that is due."""

    event_id: UUID


class BouncedMail(Row):
    """A mail of which a bounce was reported; ``is_new`` unless it was recorded before."""

    kind: MailKind = enum_column(MailKind)
    subject_id: str
    is_new: bool


# While the server was not reachable a moment ago, a delivery only stores the mail: it is due, and
# one process tries whether the server is back (``functions/notify``).
STORE = Query(
    Mail,
    """
with outage as (
  select exists (select from shop.mails
    where status in ('PENDING', 'SENDING', 'UNKNOWN') and failure = 'UNREACHABLE'
      and next_try_at > now() - interval '1 minute') as is_on
), stored as (
  insert into shop.mails (event_id, kind, subject_id, status, tries, next_try_at)
  select %(event_id)s::uuid, %(kind)s, %(subject_id)s,
    case when is_on then 'PENDING' else 'SENDING' end, case when is_on then 0 else 1 end,
    case when is_on then now() else now() + make_interval(secs => %(lease)s::int) end
  from outage
  on conflict (event_id) do nothing
  returning event_id, kind, subject_id, status
)
select event_id, kind, subject_id, false as is_last_try from stored where status = 'SENDING'
""",
)

DUE = Query(
    DueMail,
    """
select event_id from shop.mails
where status in ('PENDING', 'SENDING', 'UNKNOWN') and next_try_at <= now()
order by next_try_at limit %(batch)s
""",
)

TAKE = Query(
    Mail,
    """
update shop.mails set status = 'SENDING', tries = tries + 1, updated_at = now(),
  next_try_at = now() + make_interval(secs => %(lease)s::int)
where event_id = (
  select event_id from shop.mails
  where event_id = %(event_id)s and status in ('PENDING', 'SENDING', 'UNKNOWN')
    and next_try_at <= now()
  for update skip locked)
returning event_id, kind, subject_id,
  created_at < now() - make_interval(hours => %(hours)s::int) as is_last_try
""",
)

CLOSE = Command(
    """
update shop.mails set status = %(status)s, failure = %(failure)s, reply_code = %(reply_code)s,
  updated_at = now()
where event_id = %(event_id)s and status = 'SENDING'
"""
)

POSTPONE = Command(
    """
update shop.mails set status = %(status)s, failure = %(failure)s, reply_code = %(reply_code)s,
  updated_at = now(), next_try_at = now() + make_interval(secs => least(%(seconds_max)s::int,
    %(seconds)s::int * power(2, least(tries - 1, 10))::int))
where event_id = %(event_id)s and status = 'SENDING'
"""
)

RECORD_BOUNCE = Query(
    BouncedMail,
    """
with recorded as (
  update shop.mails
  set bounce = %(bounce)s, bounce_code = %(code)s, bounced_at = now(), updated_at = now()
  where event_id = %(event_id)s and tries > 0
    and (bounce is null or bounce = 'DELAYED' and %(bounce)s = 'FAILED')
  returning event_id
)
select m.kind, m.subject_id, r.event_id is not null as is_new
from shop.mails m left join recorded r using (event_id)
where m.event_id = %(event_id)s and m.tries > 0
""",
)

DELETE_OLD = Command(
    """
delete from shop.mails where event_id in (
  select event_id from shop.mails
  where created_at < now() - shop.retention('mails') limit %(batch)s)
"""
)


def store(event_id: UUID, kind: MailKind, subject_id: str) -> Statement[Mail]:
    """Stores the mail of an event; its row is there to be sent now, by this process.

    No row while the server is not reachable, or when the event's mail is stored already.
    """
    return STORE(event_id=event_id, kind=kind.value, subject_id=subject_id, lease=LEASE_SECONDS)


def due(batch: int) -> Statement[DueMail]:
    """At most ``batch`` mails that are due, oldest first."""
    return DUE(batch=batch)


def take(event_id: UUID) -> Statement[Mail]:
    """Leases a mail that is due; no row when it is not, or when another process has it."""
    return TAKE(event_id=event_id, lease=LEASE_SECONDS, hours=GIVE_UP_HOURS)


def sent(event_id: UUID) -> Statement[Row]:
    """Records that the server accepted a mail."""
    return CLOSE(event_id=event_id, status=MailStatus.SENT.value, failure=None, reply_code=None)


def fail(event_id: UUID, failure: MailFailure, reply_code: int | None) -> Statement[Row]:
    """Records that a mail will not be sent, and why."""
    return CLOSE(
        event_id=event_id,
        status=MailStatus.FAILED.value,
        failure=failure.value,
        reply_code=reply_code,
    )


def postpone(event_id: UUID, failure: MailFailure, reply_code: int | None) -> Statement[Row]:
    """Records an attempt without success; the mail is due again after 1 to 60 minutes."""
    status = MailStatus.UNKNOWN if failure == MailFailure.NO_REPLY else MailStatus.PENDING
    return POSTPONE(
        event_id=event_id,
        status=status.value,
        failure=failure.value,
        reply_code=reply_code,
        seconds=RETRY_SECONDS_MIN,
        seconds_max=RETRY_SECONDS_MAX,
    )


def record_bounce(event_id: UUID, bounce: Bounce, code: str) -> Statement[BouncedMail]:
    """Records what was reported of a mail, with its status code (RFC 3463) such as ``5.1.1``.

    No row when there is no such mail, or when it was never sent.
    """
    return RECORD_BOUNCE(event_id=event_id, bounce=bounce.value, code=code)


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` mails that are older than they are kept."""
    return DELETE_OLD(batch=batch)
