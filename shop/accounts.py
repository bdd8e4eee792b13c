"""Accounts: who may sign in, and the sessions in which they are signed in.

Writer of ``users``, ``sessions`` and ``refresh_tokens``.  A session is opened by a password,
renewed by refresh tokens that count once each, and ended by log-out, by age, or by a refresh token
that comes back a second time, since then somebody holds a copy (RFC 9700 section 4.14.2).
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import unicodedata
from datetime import datetime
from typing import TYPE_CHECKING, LiteralString
from uuid import UUID

from events.accounts import UserRegistered
from events.records import frozen
from shop.messaging.outbox import emit
from shop.primitives.errors import ClientError
from shop.primitives.ids import new_uuid

if TYPE_CHECKING:
    from shop.adapters.db import Transaction

EMAIL_LENGTH_MAX = 254  # RFC 5321 section 4.5.3.1.3, without the angle brackets
NAME_LENGTH_MAX = 100
MARKS_MAX = 4
SESSION_DAYS = 30
REFRESH_TOKEN_BYTES = 32

# The addresses people really have: a dot-atom of at most 64 characters and a domain of letters,
# digits and hyphens with at least two labels, ASCII throughout.  So two spellings that look alike
# cannot be two accounts, and folding is the same in Python and in PostgreSQL under any locale.  A
# Korean domain is written in its ASCII form (xn--...), as in every mail header.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_TOP = r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])"
EMAIL = re.compile(rf"(?=[^@]{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?:{_LABEL}\.)+{_TOP}", re.ASCII)

# Control, format (bidirectional overrides, zero width), surrogate, private use, unassigned and line
# separators: nothing of this is part of a name, all of it can make one name look like another.
_NOT_IN_NAMES = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")

FORGET_SESSIONS: LiteralString = """
delete from shop.sessions where session_id in (
  select session_id from shop.sessions
  where expires_at < now() - interval '30 days' limit %(batch)s)
"""

REGISTER: LiteralString = """
insert into shop.users (email, email_key, name, password_hash)
values (%(email)s, %(email_key)s, %(name)s, %(password_hash)s)
on conflict (email_key) do nothing
returning user_id, email, name, role, created_at
"""

READ_ACCOUNT: LiteralString = """
select user_id, email, name, role, created_at from shop.users where user_id = %(user_id)s
"""

FIND_BY_EMAIL: LiteralString = """
select user_id, role, active, password_hash from shop.users where email_key = %(email_key)s
"""

RENEW_HASH: LiteralString = """
update shop.users set password_hash = %(new_hash)s
where user_id = %(user_id)s and password_hash = %(old_hash)s
"""

START_SESSION: LiteralString = """
with opened as (
  insert into shop.sessions (session_id, user_id, expires_at)
  values (%(session_id)s, %(user_id)s, now() + make_interval(days => %(days)s))
  returning session_id
)
insert into shop.refresh_tokens (token_hash, session_id)
select %(token_hash)s, session_id from opened
"""

# One statement, so a token counts once however many copies arrive together: the row's lock lets
# them pass one by one, and the second no longer finds used_at empty.
ROTATE: LiteralString = """
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
"""

REVOKE_REUSED: LiteralString = """
update shop.sessions set revoked_at = now()
where revoked_at is null and session_id = (
  select session_id from shop.refresh_tokens
  where token_hash = %(token_hash)s and used_at is not null)
"""

END_SESSION: LiteralString = """
update shop.sessions set revoked_at = now()
where session_id = %(session_id)s and user_id = %(user_id)s and revoked_at is null
"""

END_SESSION_NAMED: LiteralString = """
with named as (
  select session_id from shop.refresh_tokens where token_hash = %(token_hash)s
), ended as (
  update shop.sessions s set revoked_at = now() from named
  where s.session_id = named.session_id and s.revoked_at is null
)
select session_id from named
"""


@frozen
class Account:
    """What an account's owner may see of it."""

    user_id: int
    email: str
    name: str
    role: str
    created_at: datetime


@frozen
class Credentials:
    """What log-in needs to know about an account; ``active`` is false for a closed one."""

    user_id: int
    role: str
    active: bool
    password_hash: str


@frozen
class OpenSession:
    """A session just opened or renewed, with the one refresh token that will renew it next."""

    session_id: UUID
    user_id: int
    role: str
    refresh_token: str


def check_email(email: str) -> str:
    """The address itself, or ``ValueError`` when it is none that ``EMAIL`` describes."""
    if len(email) > EMAIL_LENGTH_MAX or EMAIL.fullmatch(email) is None:
        raise ValueError("an e-mail address is written name@domain, in ASCII")
    return email


def check_name(name: str) -> str:
    """The name itself, or ``ValueError``: 1 to 100 code points, all to be seen, not only spaces.

    Letters of every script and single emoji pass; control, bidirectional and zero-width characters
    do not, nor more than four combining marks in a row.
    """
    if not 1 <= len(name) <= NAME_LENGTH_MAX or not name.strip():
        raise ValueError(f"a name has 1 to {NAME_LENGTH_MAX} characters")
    categories = [unicodedata.category(character) for character in name]
    if any(category in _NOT_IN_NAMES for category in categories):
        raise ValueError("a name has no control, invisible or unassigned characters")
    marks = "".join("M" if category in ("Mn", "Me") else " " for category in categories)
    if "M" * (MARKS_MAX + 1) in marks:
        raise ValueError("a name has no piles of combining marks")
    return name


def email_key(email: str) -> str:
    """What makes two spellings one account: the whole address in lower case.

    The part before the @ may by the letter of RFC 5321 differ by case; no provider does so, and
    two accounts ``A@x.kr`` and ``a@x.kr`` would be a trap for their owners.
    """
    return email.lower()


def register(tx: Transaction, *, email: str, name: str, password_hash: str) -> Account:
    """Creates a customer's account and announces it (two round trips).

    Refuses a taken e-mail with 409 ``EMAIL_TAKEN``: of a hundred at once one gets it.
    """
    row = tx.one(
        REGISTER,
        email=email,
        email_key=email_key(email),
        name=name,
        password_hash=password_hash,
    )
    if row is None:
        raise ClientError(409, "EMAIL_TAKEN", "there is an account with this e-mail", stored=True)
    announcement, _ = emit(tx, UserRegistered(user_id=row.user_id))
    tx.together(announcement)
    return Account(*row)


def read_account(tx: Transaction, user_id: int) -> Account | None:
    """The account with this id, or None."""
    row = tx.one(READ_ACCOUNT, user_id=user_id)
    return None if row is None else Account(*row)


def find_by_email(tx: Transaction, email: str) -> Credentials | None:
    """What is needed to check a password, or None when nobody has this e-mail."""
    row = tx.one(FIND_BY_EMAIL, email_key=email_key(email))
    return None if row is None else Credentials(*row)


def renew_hash(tx: Transaction, *, user_id: int, old_hash: str, new_hash: str) -> None:
    """Replaces a hash of older parameters, unless the password was changed meanwhile."""
    tx.run(RENEW_HASH, user_id=user_id, old_hash=old_hash, new_hash=new_hash)


def start_session(tx: Transaction, *, user_id: int, role: str) -> OpenSession:
    """Opens a session of 30 days, counted from now however often it is renewed (one round trip)."""
    session_id, refresh_token = new_uuid(), _new_refresh_token()
    tx.run(
        START_SESSION,
        session_id=session_id,
        user_id=user_id,
        days=SESSION_DAYS,
        token_hash=_token_hash(refresh_token),
    )
    return OpenSession(session_id, user_id, role, refresh_token)


def rotate(tx: Transaction, refresh_token: str) -> OpenSession | None:
    """Trades a refresh token for a fresh one, or None when it buys nothing (any more).

    One that was used before takes its session with it: the caller must commit that although it
    refuses the request.  Unknown, expired and ended ones change nothing.
    """
    fresh = _new_refresh_token()
    token_hash = _token_hash(refresh_token)
    row = tx.one(ROTATE, token_hash=token_hash, new_hash=_token_hash(fresh))
    if row is None:
        tx.run(REVOKE_REUSED, token_hash=token_hash)
        return None
    return OpenSession(row.session_id, row.user_id, row.role, fresh)


def end_session(tx: Transaction, *, session_id: UUID, user_id: int) -> None:
    """Ends a session; one that has ended stays as it is."""
    tx.run(END_SESSION, session_id=session_id, user_id=user_id)


def end_session_of_token(tx: Transaction, refresh_token: str) -> bool:
    """Ends the session a refresh token belongs to, used or not; False when there never was one."""
    return tx.one(END_SESSION_NAMED, token_hash=_token_hash(refresh_token)) is not None


def _new_refresh_token() -> str:
    return base64.urlsafe_b64encode(os.urandom(REFRESH_TOKEN_BYTES)).rstrip(b"=").decode()


def _token_hash(refresh_token: str) -> bytes:
    """SHA-256 is enough for 256 random bits: there is nothing to guess, so nothing to slow down."""
    return hashlib.sha256(refresh_token.encode()).digest()
