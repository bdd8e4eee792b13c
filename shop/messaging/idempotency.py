"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header): one key, one effect, one response.

The row and the effect are written in one transaction, so after a crash both exist or neither does.
A second request with the key waits on the unique index for at most the role's ``lock_timeout``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from shop.adapters.statements import Command, Query, Row, Statement, enum_column
from shop.primitives.errors import ClientError
from shop.primitives.statuses import KeyState

KEY = re.compile(r'(?P<quote>"?)(?P<key>[A-Za-z0-9_-]{16,64})(?P=quote)')


class StoredResponse(Row):
    """The row of a key; the columns of the response are null until the request is done."""

    fingerprint: bytes
    state: KeyState = enum_column(KeyState)
    status_code: int | None
    headers: dict[str, str] | None
    body: bytes | None


CLAIM = Query(
    Row,
    """
insert into shop.idempotency (user_id, scope, key, fingerprint, state)
values (%(user_id)s, %(scope)s, %(key)s, %(fingerprint)s, 'STARTED')
on conflict do nothing
returning key
""",
)

STORED = Query(
    StoredResponse,
    """
select fingerprint, state, status_code, headers, body from shop.idempotency
where user_id = %(user_id)s and scope = %(scope)s and key = %(key)s
""",
)

FINISH = Command(
    """
update shop.idempotency
set state = 'DONE', status_code = %(status)s, headers = %(headers)s::jsonb, body = %(body)s
where user_id = %(user_id)s and scope = %(scope)s and key = %(key)s and state = 'STARTED'
"""
)

DELETE_OLD = Command(
    """
delete from shop.idempotency where (user_id, scope, key) in (
  select user_id, scope, key from shop.idempotency
  where created_at < now() - shop.retention('idempotency') limit %(batch)s)
"""
)


def parse_key(header: str) -> str:
    """The key of an ``Idempotency-Key`` header: 16 to 64 of ``[A-Za-z0-9_-]``, quoted or bare."""
    match = KEY.fullmatch(header)
    if match is None:
        raise ClientError(
            400,
            "BAD_IDEMPOTENCY_KEY",
            "Idempotency-Key must be 16 to 64 characters of A-Z a-z 0-9 _ -",
        )
    return match["key"]


def fingerprint(path: Mapping[str, str], body: object) -> bytes:
    """SHA-256 of the canonical validated body and the ids in the path."""
    canonical = json.dumps([dict(path), body], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).digest()


def claim(*, user_id: int, scope: str, key: str, fingerprint: bytes) -> Statement[Row]:
    """Claims a key; no row means that an earlier request has claimed it."""
    return CLAIM(user_id=user_id, scope=scope, key=key, fingerprint=fingerprint)


def stored(*, user_id: int, scope: str, key: str) -> Statement[StoredResponse]:
    """Reads what is stored under a key."""
    return STORED(user_id=user_id, scope=scope, key=key)


def finish(
    *, user_id: int, scope: str, key: str, status: int, headers: Mapping[str, str], body: bytes
) -> Statement[Row]:
    """Stores the response that every later request with this key receives."""
    return FINISH(
        user_id=user_id,
        scope=scope,
        key=key,
        status=status,
        headers=json.dumps(dict(headers)),
        body=body,
    )


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` keys that are older than they are kept."""
    return DELETE_OLD(batch=batch)
