"""Keys with which machines call the shop, each for some groups of routes only.

Writer of ``api_keys``.  A key belongs to a session, which an administrator opens for a service
account and which ends as every session does: by its age, by an administrator, or with the account.
So the check of the session that comes with each request's BEGIN rejects an ended key at once.

A key is 256 random bits, of which the table has the SHA-256: it cannot be guessed, and is found by
an index, without comparing secrets.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement
from shop.primitives.api_key import PREFIX

KEY_BYTES = 32
SHOWN_LENGTH = 12
LAST_ID = UUID(int=2**128 - 1)


class KeyCaller(Row):
    """The open session of a key, its active account, and what the key is for."""

    session_id: UUID
    user_id: int
    role: str
    scopes: list[str]


class ApiKey(Row):
    """A key as administrators see it; its id is that of its session."""

    key_id: UUID
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    last_used_at: datetime | None


class OpenKeys(Row):
    """How many keys of an account can be used."""

    number: int


# Written at most once an hour, so a request with a key is no write.
FIND = Query(
    KeyCaller,
    """
with used as (
  update shop.api_keys set last_used_at = now()
  where key_hash = %(key_hash)s::bytea
    and coalesce(last_used_at, '-infinity') < now() - interval '1 hour'
)
select k.session_id, s.user_id, u.role, k.scopes
from shop.api_keys k join shop.sessions s using (session_id) join shop.users u using (user_id)
where k.key_hash = %(key_hash)s::bytea and s.revoked_at is null and s.expires_at > now()
  and u.active
""",
)

ADD = Command(
    """
insert into shop.api_keys (key_hash, session_id, prefix, scopes)
values (%(key_hash)s, %(session_id)s, %(prefix)s, %(scopes)s)
"""
)

LIST = Query(
    ApiKey,
    """
select s.session_id as key_id, k.prefix, k.scopes, s.created_at, s.expires_at,
  s.revoked_at as ended_at, k.last_used_at
from shop.api_keys k join shop.sessions s using (session_id)
where s.user_id = %(user_id)s and s.session_id < %(before)s::uuid
order by s.session_id desc limit %(limit)s::int
""",
)

READ = Query(
    ApiKey,
    """
select s.session_id as key_id, k.prefix, k.scopes, s.created_at, s.expires_at,
  s.revoked_at as ended_at, k.last_used_at
from shop.api_keys k join shop.sessions s using (session_id)
where s.user_id = %(user_id)s and s.session_id = %(session_id)s
""",
)

COUNT_OPEN = Query(
    OpenKeys,
    """
select count(*)::int as number from shop.api_keys k join shop.sessions s using (session_id)
where s.user_id = %(user_id)s and s.revoked_at is null and s.expires_at > now()
""",
)


def new_key() -> str:
    """A random key; its first characters are the same for all keys, so that scanners find it."""
    raw = os.urandom(KEY_BYTES)
    return PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def find(key: str) -> Statement[KeyCaller]:
    """The session of a key; no row unless key and account can be used."""
    return FIND(key_hash=_hash(key))


def add(key: str, *, session_id: UUID, scopes: Sequence[str]) -> Statement[Row]:
    """Stores the hash of the key of a session."""
    return ADD(
        key_hash=_hash(key), session_id=session_id, prefix=key[:SHOWN_LENGTH], scopes=list(scopes)
    )


def list_keys(user_id: int, *, before: UUID | None, limit: int) -> Statement[ApiKey]:
    """The keys of an account, newest first, ended ones too; those before a key's id."""
    return LIST(user_id=user_id, before=before or LAST_ID, limit=limit)


def read_key(session_id: UUID, *, user_id: int) -> Statement[ApiKey]:
    """A key of an account."""
    return READ(session_id=session_id, user_id=user_id)


def count_open(user_id: int) -> Statement[OpenKeys]:
    """Counts the keys of an account that can be used."""
    return COUNT_OPEN(user_id=user_id)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
