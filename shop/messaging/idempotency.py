"""Idempotency keys (draft-ietf-httpapi-idempotency-key-header): one key, one effect, one answer.

The row lives in the transaction of the effect, so a crash leaves neither.  A second request with
the key waits on the unique index for at most the role's ``lock_timeout``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, LiteralString

from shop.primitives.errors import ClientError

if TYPE_CHECKING:
    from shop.adapters.db import Statement

KEY = re.compile(r'(?P<quote>"?)(?P<key>[A-Za-z0-9_-]{16,64})(?P=quote)')

CLAIM: LiteralString = """
insert into shop.idempotency (user_id, scope, key, fingerprint, state)
values (%(user_id)s, %(scope)s, %(key)s, %(fingerprint)s, 'STARTED')
on conflict do nothing
returning key
"""

STORED: LiteralString = """
select fingerprint, state, status_code, headers, body from shop.idempotency
where user_id = %(user_id)s and scope = %(scope)s and key = %(key)s
"""

FINISH: LiteralString = """
update shop.idempotency
set state = 'DONE', status_code = %(status)s, headers = %(headers)s::jsonb, body = %(body)s
where user_id = %(user_id)s and scope = %(scope)s and key = %(key)s and state = 'STARTED'
"""

FORGET: LiteralString = """
delete from shop.idempotency where (user_id, scope, key) in (
  select user_id, scope, key from shop.idempotency
  where created_at < now() - interval '7 days' limit %(batch)s)
"""


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


def fingerprint(path: Mapping[str, str], body: Any) -> bytes:
    """SHA-256 of the canonical validated body and the ids in the path."""
    canonical = json.dumps([dict(path), body], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).digest()


def claim(*, user_id: int, scope: str, key: str, fingerprint: bytes) -> tuple[Statement, Statement]:
    """The two statements that take a key or find the answer it already has."""
    identity = {"user_id": user_id, "scope": scope, "key": key}
    return (CLAIM, {**identity, "fingerprint": fingerprint}), (STORED, identity)


def finish(
    *, user_id: int, scope: str, key: str, status: int, headers: Mapping[str, str], body: bytes
) -> Statement:
    """The statement that stores the answer every later request with this key will get."""
    return FINISH, {
        "user_id": user_id,
        "scope": scope,
        "key": key,
        "status": status,
        "headers": json.dumps(dict(headers)),
        "body": body,
    }
