"""Accounts and their sessions.

Writer of ``users``, ``sessions`` and ``refresh_tokens``.  A session is opened by a password,
renewed by refresh tokens that are valid once each, and ended by log-out, by age, or by the reuse of
a refresh token, which shows that it was copied (RFC 9700 section 4.14.2).  A client that sends one
refresh token from two tabs at once, or again after a lost response, gets the same successor twice.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
from datetime import datetime
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement, enum_column
from shop.primitives.errors import ClientError
from shop.primitives.ids import USER_ID_MAX
from shop.primitives.languages import Phrase
from shop.primitives.statuses import AccountState

EMAIL_LENGTH_MAX = 254  # RFC 5321 section 4.5.3.1.3, without the angle brackets
NAME_LENGTH_MAX = 100
SESSION_DAYS = 30
REFRESH_TOKEN_BYTES = 32
REPETITION_SECONDS = 10
LAST_ID = UUID(int=2**128 - 1)
# of which a password must not consist, beside the name in the setting JWT_ISSUER
SHOP_NAMES = ("msa-shop", "msashop")

# A dot-atom of at most 64 characters and a domain of letters, digits and hyphens with at least two
# labels, ASCII only.  So two spellings that look alike cannot be two accounts, and lower case is
# the same in Python and in PostgreSQL under any locale.  A Korean domain is written in its ASCII
# form (xn--...), as in every mail header.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_TOP = r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])"
EMAIL = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_TOP}", re.ASCII)


class Account(Row):
    """An account as its owner sees it."""

    user_id: int
    email: str
    name: str
    role: str
    language: str
    is_verified: bool
    created_at: datetime


class Credentials(Row):
    """The columns that log-in checks; ``active`` is false also for one without a password.

    Operators' accounts are vouched for by those who made them, and count as verified.
    """

    user_id: int
    role: str
    active: bool
    is_verified: bool
    password_hash: str
    password_changed_at: datetime | None
    factor_id: UUID | None


class ManagedAccount(Row):
    """An account as operators see it."""

    user_id: int
    email: str
    name: str
    role: str
    state: AccountState = enum_column(AccountState)
    language: str
    is_verified: bool
    is_service: bool
    created_at: datetime


class AccountId(Row):
    """The id of an account."""

    user_id: int


class OwnCredentials(Row):
    """What an account's owner proves a password with."""

    email: str
    email_key: str
    is_verified: bool
    password_hash: str


class ClosedAccount(Row):
    """Whether an account was closed, and how many of its orders are not finished."""

    is_closed: bool
    open_orders: int


class PersonalData(Row):
    """What the shop holds of an account's person, as a JSON document; None once it is closed."""

    document: str | None


class OpenSession(Row):
    """An open session as its owner sees it; ``renewed_at`` is when it last got a refresh token."""

    session_id: UUID
    created_at: datetime
    renewed_at: datetime
    expires_at: datetime


class StartedSession(Row):
    """A session that was opened."""

    session_id: UUID


class RenewedSession(Row):
    """The session that a refresh token renewed."""

    session_id: UUID
    user_id: int
    role: str


# Planned for its values: what is not asked for is left out of the plan.
LIST_ACCOUNTS = Query(
    ManagedAccount,
    """
select user_id, email, name, role, state, language, email_verified_at is not null as is_verified,
  is_service, created_at
from shop.users
where (%(email_key)s::text is null or email_key = %(email_key)s)
  and (%(role)s::text is null or role = %(role)s)
  and (%(state)s::text is null or state = %(state)s)
  and user_id < %(before)s::bigint
order by user_id desc limit %(limit)s::int
""",
)

READ_MANAGED = Query(
    ManagedAccount,
    """
select user_id, email, name, role, state, language, email_verified_at is not null as is_verified,
  is_service, created_at
from shop.users where user_id = %(user_id)s::bigint
""",
)

# As strong as the changes need, and no stronger: a row that refers to an account, such as a note of
# its author and its subject, does not wait for them, so it cannot wait for two in another order.
LOCK_MANAGED = Query(
    ManagedAccount,
    """
select user_id, email, name, role, state, language, email_verified_at is not null as is_verified,
  is_service, created_at
from shop.users where user_id = %(user_id)s::bigint for no key update
""",
)

LOCK_ADMINS = Query(
    AccountId,
    """
select user_id from shop.users where role = 'admin' and state = 'ACTIVE'
order by user_id for no key update
""",
)

ADD_OPERATOR = Query(
    AccountId,
    """
insert into shop.users (email, email_key, name, language, password_hash, role, is_service)
values (%(email)s, %(email_key)s, %(name)s, %(language)s, %(password_hash)s, %(role)s,
  %(is_service)s)
on conflict (email_key) do nothing
returning user_id
""",
)

CHANGE_ACCOUNT = Command(
    """
with changed as (
  update shop.users set role = %(role)s, state = %(state)s::text,
    active = %(state)s::text = 'ACTIVE'
  where user_id = %(user_id)s
  returning user_id, active
)
update shop.sessions s set revoked_at = now() from changed c
where s.user_id = c.user_id and not c.active and s.revoked_at is null
"""
)

SET_PASSWORD = Command(
    """
update shop.users set password_hash = %(new_hash)s, password_changed_at = now()
where user_id = %(user_id)s and state <> 'CLOSED'
"""
)

READ_CREDENTIALS = Query(
    OwnCredentials,
    """
select email, email_key, email_verified_at is not null as is_verified, password_hash
from shop.users where user_id = %(user_id)s
""",
)

SET_FACTOR = Query(
    AccountId,
    """
update shop.users set factor_id = %(factor_id)s::uuid where user_id = %(user_id)s and active
returning user_id
""",
)

REPLACE_PASSWORD = Query(
    AccountId,
    """
update shop.users set password_hash = %(new_hash)s, password_changed_at = now()
where user_id = %(user_id)s and password_hash = %(old_hash)s
returning user_id
""",
)

# The functions of shop/schema/personal_data.py: what they read and write is what tables declare.
EXPORT = Query(
    PersonalData,
    """
select shop.personal_data() as document
""",
)

CLOSE = Query(
    ClosedAccount,
    """
select is_closed, open_orders from shop.close_account(%(known_hash)s::text)
""",
)

CLOSE_CUSTOMER = Query(
    ClosedAccount,
    """
select is_closed, open_orders from shop.close_customer(%(user_id)s::bigint)
""",
)

ERASE = Command(
    """
select from shop.erase_account(%(user_id)s::bigint)
"""
)

FIND_CLOSED = Query(
    AccountId,
    """
select user_id from shop.users where user_id = %(user_id)s and state = 'CLOSED'
""",
)

OPEN_KEY_SESSION = Command(
    """
insert into shop.sessions (session_id, user_id, expires_at)
values (%(session_id)s, %(user_id)s, now() + make_interval(days => %(days)s::int))
"""
)

SHORTEN_SESSION = Query(
    StartedSession,
    """
update shop.sessions
set expires_at = least(expires_at, now() + make_interval(hours => %(hours)s::int))
where session_id = %(session_id)s and user_id = %(user_id)s and revoked_at is null
  and expires_at > now()
returning session_id
""",
)

OPEN_SESSIONS = Query(
    OpenSession,
    """
select s.session_id, s.created_at, coalesce((select max(t.created_at) from shop.refresh_tokens t
    where t.session_id = s.session_id), s.created_at) as renewed_at, s.expires_at
from shop.sessions s
where s.user_id = %(user_id)s and s.revoked_at is null and s.expires_at > now()
  and s.session_id < %(before)s::uuid
order by s.session_id desc limit %(limit)s::int
""",
)

END_SESSIONS = Command(
    """
update shop.sessions set revoked_at = now()
where user_id = %(user_id)s and revoked_at is null
  and session_id is distinct from %(but)s::uuid
"""
)

DELETE_OLD_SESSIONS = Command(
    """
delete from shop.sessions where session_id in (
  select session_id from shop.sessions
  where expires_at < now() - shop.retention('sessions') limit %(batch)s)
"""
)

REGISTER = Query(
    Account,
    """
insert into shop.users (email, email_key, name, language, password_hash)
values (%(email)s, %(email_key)s, %(name)s, %(language)s, %(password_hash)s)
on conflict (email_key) do nothing
returning user_id, email, name, role, language, email_verified_at is not null as is_verified,
  created_at
""",
)

READ_ACCOUNT = Query(
    Account,
    """
select user_id, email, name, role, language, email_verified_at is not null as is_verified,
  created_at
from shop.users where user_id = %(user_id)s
""",
)

LOCK_ACCOUNT = Query(
    Account,
    """
select user_id, email, name, role, language, email_verified_at is not null as is_verified,
  created_at
from shop.users where user_id = %(user_id)s and active for no key update
""",
)

CHANGE_PROFILE = Query(
    Account,
    """
update shop.users set name = %(name)s, language = %(language)s where user_id = %(user_id)s
returning user_id, email, name, role, language, email_verified_at is not null as is_verified,
  created_at
""",
)

VERIFY_EMAIL = Query(
    AccountId,
    """
update shop.users set email_verified_at = coalesce(email_verified_at, now())
where user_id = %(user_id)s and active
returning user_id
""",
)

CHANGE_EMAIL = Query(
    AccountId,
    """
update shop.users set email = %(email)s, email_key = %(email_key)s, email_verified_at = now()
where user_id = %(user_id)s and active
  and not exists (select from shop.users where email_key = %(email_key)s)
returning user_id
""",
)

FIND_BY_EMAIL = Query(
    Credentials,
    """
select user_id, role, active and password_hash <> '' and not is_service as active,
  email_verified_at is not null or role <> 'customer' as is_verified, password_hash,
  password_changed_at, factor_id
from shop.users where email_key = %(email_key)s
""",
)

RENEW_HASH = Command(
    """
update shop.users set password_hash = %(new_hash)s
where user_id = %(user_id)s and password_hash = %(old_hash)s
"""
)

# A change of the password or of the second factor waits for the lock and then ends the session too,
# or has committed before and is seen here.
START_SESSION = Query(
    StartedSession,
    """
with account as (
  select user_id from shop.users
  where user_id = %(user_id)s and active
    and password_changed_at is not distinct from %(password_changed_at)s::timestamptz
    and factor_id is not distinct from %(factor_id)s::uuid
  for share
), opened as (
  insert into shop.sessions (session_id, user_id, expires_at)
  select %(session_id)s::uuid, user_id, now() + make_interval(days => %(days)s::int) from account
  returning session_id
), renewable as (
  insert into shop.refresh_tokens (token_hash, session_id)
  select %(token_hash)s, session_id from opened
)
select session_id from opened
""",
)

# One statement, so that only one of several concurrent requests with a token succeeds: the others
# wait for the row's lock and then read used_at as set.
ROTATE = Query(
    RenewedSession,
    """
with used as (
  update shop.refresh_tokens t set used_at = now()
  from shop.sessions s join shop.users u using (user_id)
  where t.token_hash = %(token_hash)s and t.used_at is null and s.session_id = t.session_id
    and s.revoked_at is null and s.expires_at > now() and u.active
  returning s.session_id, s.user_id, u.role
), renewed as (
  insert into shop.refresh_tokens (token_hash, session_id)
  select %(new_hash)s, session_id from used
)
select session_id, user_id, role from used
""",
)

# After a token's successor was used, no honest client repeats it.
REPEAT = Query(
    RenewedSession,
    """
select s.session_id, s.user_id, u.role
from shop.refresh_tokens used
join shop.refresh_tokens successor on successor.token_hash = %(new_hash)s
  and successor.session_id = used.session_id and successor.used_at is null
join shop.sessions s on s.session_id = used.session_id
join shop.users u using (user_id)
where used.token_hash = %(token_hash)s
  and used.used_at > now() - make_interval(secs => %(seconds)s)
  and s.revoked_at is null and s.expires_at > now() and u.active
""",
)

REVOKE_REUSED = Command(
    """
update shop.sessions set revoked_at = now()
where revoked_at is null and session_id = (
  select session_id from shop.refresh_tokens
  where token_hash = %(token_hash)s and used_at is not null)
"""
)

END_SESSION = Command(
    """
update shop.sessions set revoked_at = now()
where session_id = %(session_id)s and user_id = %(user_id)s and revoked_at is null
"""
)

END_SESSION_OF_TOKEN = Query(
    Row,
    """
with named as (
  select session_id from shop.refresh_tokens where token_hash = %(token_hash)s
), ended as (
  update shop.sessions s set revoked_at = now() from named
  where s.session_id = named.session_id and s.revoked_at is null
)
select session_id from named
""",
)


def check_email(email: str) -> str:
    """The address without the spaces around it, which keyboards of phones add after a completion.

    ``ValueError`` when it does not match ``EMAIL``.
    """
    email = email.strip(" ")
    if len(email) > EMAIL_LENGTH_MAX or EMAIL.fullmatch(email) is None:
        raise ValueError("an e-mail address is written name@domain, in ASCII")
    return email


def email_key(email: str) -> str:
    """The address in lower case: two addresses with the same key are one account.

    RFC 5321 allows the part before the @ to depend on case; no mail provider does that, and two
    accounts ``A@x.kr`` and ``a@x.kr`` would be confused with each other.
    """
    return email.lower()


def register(*, email: str, name: str, language: str, password_hash: str) -> Statement[Account]:
    """Creates a customer's account; no row when the e-mail has one already."""
    return REGISTER(
        email=email,
        email_key=email_key(email),
        name=name,
        language=language,
        password_hash=password_hash,
    )


def read_account(user_id: int) -> Statement[Account]:
    """Reads an account."""
    return READ_ACCOUNT(user_id=user_id)


def lock_account(user_id: int) -> Statement[Account]:
    """An account as it is until this transaction changes it; no row when it is not active."""
    return LOCK_ACCOUNT(user_id=user_id)


def change_profile(user_id: int, *, name: str, language: str) -> Statement[Account]:
    """Sets name and language of a locked account."""
    return CHANGE_PROFILE(user_id=user_id, name=name, language=language)


def verify_email(user_id: int) -> Statement[AccountId]:
    """Records that the owner reads mail at the account's address; no row when it is not active."""
    return VERIFY_EMAIL(user_id=user_id)


def change_email(user_id: int, *, email: str) -> Statement[AccountId]:
    """Gives an account another address, which counts as verified.

    No row when the account is not active, or another one has the address; ``UniqueViolation`` when
    another one gets it at the same time.
    """
    return CHANGE_EMAIL(user_id=user_id, email=email, email_key=email_key(email))


def list_accounts(
    *,
    email: str | None = None,
    role: str | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int,
) -> Statement[ManagedAccount]:
    """Accounts with this e-mail, role and state, newest first; those before an account's id."""
    return LIST_ACCOUNTS(
        email_key=None if email is None else email_key(email),
        role=role,
        state=state,
        before=USER_ID_MAX if before is None else before,
        limit=limit,
    )


def read_managed(user_id: int) -> Statement[ManagedAccount]:
    """An account as operators see it."""
    return READ_MANAGED(user_id=user_id)


def lock_managed(user_id: int) -> Statement[ManagedAccount]:
    """An account as it is until this transaction changes it; send ``lock_admins`` before it."""
    return LOCK_MANAGED(user_id=user_id)


def lock_admins() -> Statement[AccountId]:
    """Locks the active administrators, whose number one transaction at a time may reduce."""
    return LOCK_ADMINS()


def add_operator(
    *, email: str, name: str, language: str, password_hash: str, role: str, is_service: bool
) -> Statement[AccountId]:
    """Creates an account with a role; no row when the e-mail has one already.

    An empty hash is that of no password; a service account cannot log in with one either.
    """
    return ADD_OPERATOR(
        email=email,
        email_key=email_key(email),
        name=name,
        language=language,
        password_hash=password_hash,
        role=role,
        is_service=is_service,
    )


def open_key_session(session_id: UUID, user_id: int, *, days: int) -> Statement[Row]:
    """Opens the session of an API key, which nothing renews."""
    return OPEN_KEY_SESSION(session_id=session_id, user_id=user_id, days=days)


def shorten_session(session_id: UUID, user_id: int, *, hours: int) -> Statement[StartedSession]:
    """Ends an open session in at most so many hours; no row when it has ended."""
    return SHORTEN_SESSION(session_id=session_id, user_id=user_id, hours=hours)


def change_account(user_id: int, *, role: str, state: AccountState) -> Statement[Row]:
    """Sets role and state of a locked account, and ends its sessions unless it is active.

    Tokens with another role are rejected from then on.
    """
    return CHANGE_ACCOUNT(user_id=user_id, role=role, state=state)


def set_password(user_id: int, *, new_hash: str) -> Statement[Row]:
    """Replaces the password of an account."""
    return SET_PASSWORD(user_id=user_id, new_hash=new_hash)


def set_factor(user_id: int, factor_id: UUID | None) -> Statement[AccountId]:
    """Makes log-in need the codes of a second factor, or of none; no row if it is not active."""
    return SET_FACTOR(user_id=user_id, factor_id=factor_id)


def end_sessions(user_id: int, *, but: UUID | None = None) -> Statement[Row]:
    """Ends every session of an account but one; their access tokens are rejected from then on."""
    return END_SESSIONS(user_id=user_id, but=but)


def read_credentials(user_id: int) -> Statement[OwnCredentials]:
    """Reads what is needed to check the password of a signed-in account."""
    return READ_CREDENTIALS(user_id=user_id)


def replace_password(*, user_id: int, old_hash: str, new_hash: str) -> Statement[AccountId]:
    """Replaces the hash of the password that was checked; no row when it was changed meanwhile."""
    return REPLACE_PASSWORD(user_id=user_id, old_hash=old_hash, new_hash=new_hash)


def export() -> Statement[PersonalData]:
    """Everything that the shop holds of the caller's person."""
    return EXPORT()


def close(*, known_hash: str) -> Statement[ClosedAccount]:
    """Closes the caller's account and erases what it holds of the person.

    Not while an order is open, for an operator's account, or when the password, of which
    ``known_hash`` was checked, was replaced meanwhile.
    """
    return CLOSE(known_hash=known_hash)


def close_customer(user_id: int) -> Statement[ClosedAccount]:
    """Closes a customer's account, which an operator may do, and erases what it holds.

    Not while an order is open, for an operator's account, or for one that is closed.
    """
    return CLOSE_CUSTOMER(user_id=user_id)


def check_no_open_orders(result: ClosedAccount) -> None:
    """409 OPEN_ORDERS when the account was not closed, since orders of it are not finished."""
    if result.open_orders:
        message = Phrase(
            "{count} orders are not finished: cancel them, or wait", count=result.open_orders
        )
        raise ClientError(409, "OPEN_ORDERS", message)


def erase(user_id: int) -> Statement[Row]:
    """Erases what transactions that began before an account was closed have added to it."""
    return ERASE(user_id=user_id)


def find_closed(user_id: int) -> Statement[AccountId]:
    """The account if it is closed."""
    return FIND_CLOSED(user_id=user_id)


def open_sessions(user_id: int, *, before: UUID | None, limit: int) -> Statement[OpenSession]:
    """The open sessions of an account, newest first; those before a session's id."""
    return OPEN_SESSIONS(user_id=user_id, before=before or LAST_ID, limit=limit)


def find_by_email(email: str) -> Statement[Credentials]:
    """Reads what is needed to check a password."""
    return FIND_BY_EMAIL(email_key=email_key(email))


def renew_hash(*, user_id: int, old_hash: str, new_hash: str) -> Statement[Row]:
    """Replaces a hash of older parameters, unless the password was changed meanwhile."""
    return RENEW_HASH(user_id=user_id, old_hash=old_hash, new_hash=new_hash)


def start_session(
    *,
    session_id: UUID,
    user_id: int,
    password_changed_at: datetime | None,
    factor_id: UUID | None,
    refresh_token: str,
) -> Statement[StartedSession]:
    """Opens a session that ends in 30 days, however often it is renewed.

    No row unless the account is active and still has the password that was verified, which was set
    at ``password_changed_at``, and the second factor of which a code was accepted, or none.
    """
    return START_SESSION(
        session_id=session_id,
        user_id=user_id,
        password_changed_at=password_changed_at,
        factor_id=factor_id,
        days=SESSION_DAYS,
        token_hash=_token_hash(refresh_token),
    )


def rotate(refresh_token: str, *, replacement: str) -> Statement[RenewedSession]:
    """Replaces an unused refresh token of an open session; no row for any other token."""
    return ROTATE(token_hash=_token_hash(refresh_token), new_hash=_token_hash(replacement))


def repeat(refresh_token: str, *, replacement: str) -> Statement[RenewedSession]:
    """Reads the session of a token replaced in the last seconds, whose successor is unused.

    Send it after ``rotate`` returned no row: of two concurrent requests the second finds the
    successor that the first one stored.
    """
    return REPEAT(
        token_hash=_token_hash(refresh_token),
        new_hash=_token_hash(replacement),
        seconds=REPETITION_SECONDS,
    )


def revoke_reused(refresh_token: str) -> Statement[Row]:
    """Ends the session of a refresh token that was used before; commit it with the 401."""
    return REVOKE_REUSED(token_hash=_token_hash(refresh_token))


def end_session(*, session_id: UUID, user_id: int) -> Statement[Row]:
    """Ends a session that is open."""
    return END_SESSION(session_id=session_id, user_id=user_id)


def end_session_of_token(refresh_token: str) -> Statement[Row]:
    """Ends the session of a refresh token, used or not; no row when the token is unknown."""
    return END_SESSION_OF_TOKEN(token_hash=_token_hash(refresh_token))


def delete_old_sessions(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` sessions that expired longer ago than they are kept."""
    return DELETE_OLD_SESSIONS(batch=batch)


def new_refresh_token() -> str:
    """A random refresh token of 256 bits."""
    return _encode(os.urandom(REFRESH_TOKEN_BYTES))


def successor_of(refresh_token: str, key: bytes) -> str:
    """The one token that replaces a refresh token; computed with a secret key, so not stored."""
    return _encode(hmac.digest(key, refresh_token.encode(), hashlib.sha256))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _token_hash(refresh_token: str) -> bytes:
    """SHA-256 without a salt, which is enough for 256 random bits: they cannot be guessed."""
    return hashlib.sha256(refresh_token.encode()).digest()
