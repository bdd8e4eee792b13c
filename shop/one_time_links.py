"""Links that are valid once, for a short time: to set a password, to verify or change an address.

Writer of ``one_time_links``.  The token of a link is its id and an HMAC of it under a key that the
database does not have, so no row holds anything that a reader could use, and a sender of
the link computes the token.

A request to reset the password of an address without an account makes a link of no account: it
takes the same work and gives the same answer, so it does not show who has an account.  Nor does a
request to change to the address of an account: its link, which the export of the requester has, is
like any other, but is not sent.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from events.records import frozen
from shop.adapters.statements import Command, Query, Row, Statement, enum_column
from shop.primitives.errors import check_wait
from shop.primitives.statuses import LinkPurpose

RESET_MINUTES = 30
INVITATION_MINUTES = 72 * 60
# of a link to verify an address, or to change to it
ADDRESS_MINUTES = 24 * 60
TOKEN_LENGTH = 64
TOKEN_PATTERN = rf"^[A-Za-z0-9_-]{{{TOKEN_LENGTH}}}$"
WINDOW_SECONDS = 3600
# of one address and purpose: further requests make no link, and get the same answer
ADDRESS_LINKS_MAX = 3
# from one network, which may be an office or a mobile carrier
NETWORK_LINKS_MAX = 100


@frozen
class Requester:
    """For which address, for what and from where a link is requested, as two keyed hashes."""

    recipient: bytes
    network: bytes


class Requested(Row):
    """Whether a link was made, and the seconds until this network may request another one."""

    is_made: bool
    seconds: int | None


class LinkedAccount(Row):
    """The active account of a link to set its password that is valid now."""

    user_id: int
    email: str
    email_key: str


class MadeLink(Row):
    """A link that an operator made."""

    expires_at: datetime


class UsedLink(Row):
    """A link that was valid until now; ``email`` is the address that a change is to."""

    link_id: UUID
    user_id: int
    purpose: LinkPurpose = enum_column(LinkPurpose)
    email: str | None


# Without it, concurrent requests for one address could together exceed its limit.
LOCK = Query(
    Row,
    """
select pg_advisory_xact_lock(%(key)s::bigint)
""",
)

REQUEST = Query(
    Requested,
    """
with wait as (
  select
    (select count(*) from shop.one_time_links where recipient = %(recipient)s::bytea
     and created_at > now() - make_interval(secs => %(window)s::int)) as of_address,
    ceil(extract(epoch from
      (select created_at from shop.one_time_links where network = %(network)s::bytea
       order by created_at desc offset %(network_max)s::int - 1 limit 1)
      + make_interval(secs => %(window)s::int) - now()))::int as seconds
), linked as (
  select case %(purpose)s::text
    when 'SET_PASSWORD' then
      (select user_id from shop.users where email_key = %(email_key)s and active
       and not is_service)
    else %(user_id)s::bigint end as user_id
), made as (
  insert into shop.one_time_links (link_id, purpose, user_id, recipient, network, expires_at, email,
    email_before)
  select %(link_id)s::uuid, %(purpose)s::text, user_id, %(recipient)s::bytea, %(network)s::bytea,
    now() + make_interval(mins => %(minutes)s::int),
    %(email)s::text, %(email_before)s::text
  from wait, linked where of_address < %(address_max)s::int and coalesce(seconds, 0) <= 0
  returning link_id
)
select exists (select from made) as is_made, seconds from wait
""",
)

MAKE = Query(
    MadeLink,
    """
insert into shop.one_time_links (link_id, purpose, user_id, expires_at)
values (%(link_id)s, %(purpose)s, %(user_id)s, now() + make_interval(mins => %(minutes)s::int))
returning expires_at
""",
)

FIND = Query(
    LinkedAccount,
    """
select u.user_id, u.email, u.email_key
from shop.one_time_links l join shop.users u using (user_id)
where l.link_id = %(link_id)s and l.purpose = 'SET_PASSWORD' and l.ended_at is null
  and l.expires_at > now() and u.active
""",
)

# All links of the account end, so that none of them can undo this use; after a verification, which
# changes nothing that another link could undo, only those to verify.  The account is locked before
# its links, as by everything that locks both, such as its closing; those that another transaction
# has ended meanwhile are not among them.
USE = Query(
    UsedLink,
    """
with account as (
  select user_id from shop.users
  where user_id = (select user_id from shop.one_time_links
      where link_id = %(link_id)s and purpose = any(%(purposes)s::text[]))
  for no key update
), valid as (
  select link_id, user_id, purpose, email from shop.one_time_links
  where user_id = (select user_id from account)
    and (purpose = 'VERIFY_EMAIL' or 'VERIFY_EMAIL' <> (select purpose from shop.one_time_links
      where link_id = %(link_id)s))
    and ended_at is null and expires_at > now()
  order by link_id for update
), ended as (
  update shop.one_time_links set ended_at = now(), uses = uses + (link_id = %(link_id)s)::int
  where link_id in (select link_id from valid)
    and exists (select from valid where link_id = %(link_id)s)
)
select v.link_id, a.user_id, v.purpose, v.email
from valid v join account a using (user_id) where v.link_id = %(link_id)s
""",
)

END_ALL = Command(
    """
update shop.one_time_links set ended_at = now()
where link_id in (
  select link_id from shop.one_time_links
  where user_id = %(user_id)s and purpose <> 'VERIFY_EMAIL' and ended_at is null
    and expires_at > now()
  order by link_id for update)
"""
)

DELETE_OLD = Command(
    """
delete from shop.one_time_links where link_id in (
  select link_id from shop.one_time_links
  where expires_at < now() - shop.retention('one_time_links') limit %(batch)s)
"""
)


def requester(purpose: LinkPurpose, *, email_key: str, network: str, key: str) -> Requester:
    """Who requests a link, without an address that could be read from the row."""
    recipient = _digest(f"recipient of {purpose}", email_key, key)
    return Requester(recipient, _digest("network", network, key))


def lock(by: Requester) -> Statement[Row]:
    """Serialises the requests for one address and purpose until the end of the transaction."""
    return LOCK(key=int.from_bytes(by.recipient[:8], "big", signed=True))


def request_reset(link_id: UUID, by: Requester, *, email_key: str) -> Statement[Requested]:
    """Makes a link to reset the password of an address, within the limits; send ``lock`` first."""
    return _request(
        link_id, by, LinkPurpose.SET_PASSWORD, minutes=RESET_MINUTES, email_key=email_key
    )


def request_verification(link_id: UUID, by: Requester, *, user_id: int) -> Statement[Requested]:
    """Makes a link to verify the account's address, within the limits; send ``lock`` first."""
    return _request(link_id, by, LinkPurpose.VERIFY_EMAIL, minutes=ADDRESS_MINUTES, user_id=user_id)


def request_change(
    link_id: UUID, by: Requester, *, user_id: int, email: str, email_before: str
) -> Statement[Requested]:
    """Makes a link to change the account's address, within the limits; send ``lock`` first."""
    return _request(
        link_id,
        by,
        LinkPurpose.CHANGE_EMAIL,
        minutes=ADDRESS_MINUTES,
        user_id=user_id,
        email=email,
        email_before=email_before,
    )


def make(link_id: UUID, user_id: int, purpose: LinkPurpose, *, minutes: int) -> Statement[MadeLink]:
    """Makes a link for an account without a request for it: an invitation, a first verification."""
    return MAKE(link_id=link_id, user_id=user_id, purpose=purpose, minutes=minutes)


def find(link_id: UUID) -> Statement[LinkedAccount]:
    """The account whose password a link may set; no row unless link and account are valid."""
    return FIND(link_id=link_id)


def use(link_id: UUID, *purposes: LinkPurpose) -> Statement[UsedLink]:
    """Ends a valid link of these purposes, and others of its account; no row for any other link."""
    return USE(link_id=link_id, purposes=list(purposes))


def end_all(user_id: int) -> Statement[Row]:
    """Ends the links that could undo a change of the password; send it after that change.

    The change locks the account, which ``use`` locks before the links, too.
    """
    return END_ALL(user_id=user_id)


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` links that expired longer ago than they are kept."""
    return DELETE_OLD(batch=batch)


def check_allowed(requested: Sequence[Requested]) -> None:
    """429 with Retry-After while the network has reached its limit."""
    check_wait(requested[0].seconds, "too many links were requested, try again later")


def token_of(link_id: UUID, key: str) -> str:
    """The token of a link: its id and 32 bytes that only holders of the key can compute."""
    return base64.urlsafe_b64encode(link_id.bytes + _digest("link", str(link_id), key)).decode()


def link_of(token: str, key: str) -> UUID | None:
    """The id of a token's link, or None for a token that was not made with the key."""
    try:
        link_id = UUID(bytes=base64.urlsafe_b64decode(token)[:16])
    except ValueError:
        return None
    return link_id if hmac.compare_digest(token_of(link_id, key), token) else None


def _request(
    link_id: UUID,
    by: Requester,
    purpose: LinkPurpose,
    *,
    minutes: int,
    user_id: int | None = None,
    email_key: str | None = None,
    email: str | None = None,
    email_before: str | None = None,
) -> Statement[Requested]:
    return REQUEST(
        link_id=link_id,
        purpose=purpose,
        user_id=user_id,
        email_key=email_key,
        email=email,
        email_before=email_before,
        recipient=by.recipient,
        network=by.network,
        minutes=minutes,
        window=WINDOW_SECONDS,
        address_max=ADDRESS_LINKS_MAX,
        network_max=NETWORK_LINKS_MAX,
    )


def _digest(kind: str, name: str, key: str) -> bytes:
    return hmac.digest(key.encode(), f"{kind}:{name}".encode(), hashlib.sha256)
