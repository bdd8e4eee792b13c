"""The second factor of operators: codes that an application computes every 30 seconds (RFC 6238).

Writer of ``second_factors``.  The secret of a factor is an HMAC of its id under a key that the
database does not have, so no row holds anything that could compute a code.  Recovery codes are
random and stored as such an HMAC; each is valid once.

A code is accepted in its step of 30 seconds and in the steps before and after, since clocks differ,
and never twice: the last accepted step only grows.  After ``FAILURES_MAX`` wrong codes in a row no
code is accepted for a minute, and after each further one for twice as long, up to a day.  So with
the password some 400 codes a year can be tried, of which each is right with a probability of three
in a million.  Recovery codes cannot be guessed, and are accepted at any time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote, urlencode
from uuid import UUID

from shop.adapters.statements import Query, Row, Statement
from shop.primitives.errors import check_wait

STEP_SECONDS = 30
DIGITS = 6
DRIFT_STEPS = 1
RECOVERY_CODES = 10
# 80 random bits: four groups of four characters
RECOVERY_BYTES = 10
GROUP_LENGTH = 4
CODE_PATTERN = r"^([0-9]{6}|[A-Z2-7]{4}(-[A-Z2-7]{4}){3})$"
FAILURES_MAX = 5
WAIT_SECONDS_MIN = 60
WAIT_SECONDS_MAX = 24 * 3600


class Factor(Row):
    """The second factor of an account, confirmed or not."""

    factor_id: UUID
    is_confirmed: bool


class FactorId(Row):
    """A factor that was changed just now."""

    factor_id: UUID


class Failure(Row):
    """Wrong codes in a row."""

    failures: int


class Wait(Row):
    """Seconds until a code is accepted again; zero or less: one is accepted now."""

    seconds: int | None


FIND = Query(
    Factor,
    """
select factor_id, confirmed_at is not null as is_confirmed
from shop.second_factors where user_id = %(user_id)s
""",
)

# No row: the account has a confirmed one.
BEGIN = Query(
    FactorId,
    """
insert into shop.second_factors as f (user_id, factor_id)
values (%(user_id)s, %(factor_id)s)
on conflict (user_id) do update
  set factor_id = excluded.factor_id, created_at = now()
  where f.confirmed_at is null
returning factor_id
""",
)

# Codes are checked one after the other, so that none is checked while codes must wait.
LOCK = Query(
    FactorId,
    """
select factor_id from shop.second_factors where factor_id = %(factor_id)s for update
""",
)

CONFIRM = Query(
    FactorId,
    """
update shop.second_factors
set confirmed_at = now(), last_step = %(step)s, accepted = 1, failures = 0, blocked_until = null,
  recovery_hashes = %(hashes)s::bytea[]
where factor_id = %(factor_id)s and confirmed_at is null
  and coalesce(blocked_until, '-infinity') <= now()
returning factor_id
""",
)

ACCEPT = Query(
    FactorId,
    """
update shop.second_factors
set last_step = %(step)s, accepted = accepted + 1, failures = 0, blocked_until = null
where factor_id = %(factor_id)s and confirmed_at is not null and last_step < %(step)s
  and coalesce(blocked_until, '-infinity') <= now()
returning factor_id
""",
)

ACCEPT_RECOVERY = Query(
    FactorId,
    """
update shop.second_factors
set recovery_hashes = array_remove(recovery_hashes, %(hash)s::bytea), accepted = accepted + 1,
  failures = 0, blocked_until = null
where factor_id = %(factor_id)s and confirmed_at is not null
  and %(hash)s::bytea = any(recovery_hashes)
returning factor_id
""",
)

# No row: no code is accepted now, and so none is counted.
FAIL = Query(
    Failure,
    """
update shop.second_factors
set failures = least(failures + 1, 30),
  blocked_until = case when failures + 1 >= %(failures_max)s::int then now() + make_interval(
    secs => least(%(seconds_max)s::int,
      %(seconds)s::int * power(2, least(failures + 1 - %(failures_max)s::int, 20)))) end
where factor_id = %(factor_id)s and coalesce(blocked_until, '-infinity') <= now()
returning failures
""",
)

WAIT = Query(
    Wait,
    """
select ceil(extract(epoch from blocked_until - now()))::int as seconds
from shop.second_factors where factor_id = %(factor_id)s
""",
)

REMOVE = Query(
    FactorId,
    """
delete from shop.second_factors where user_id = %(user_id)s returning factor_id
""",
)


def find(user_id: int) -> Statement[Factor]:
    """The second factor of an account."""
    return FIND(user_id=user_id)


def begin(user_id: int, factor_id: UUID) -> Statement[FactorId]:
    """Stores a factor to confirm, in the place of one that was not; no row if one is confirmed."""
    return BEGIN(user_id=user_id, factor_id=factor_id)


def lock(factor_id: UUID) -> Statement[FactorId]:
    """Lets one transaction at a time check a code of the factor."""
    return LOCK(factor_id=factor_id)


def confirm(factor_id: UUID, *, step: int, hashes: Sequence[bytes]) -> Statement[FactorId]:
    """Makes a factor required from now on, by its first code; no row while codes must wait."""
    return CONFIRM(factor_id=factor_id, step=step, hashes=list(hashes))


def accept(factor_id: UUID, code: str, *, key: str, now: datetime) -> Statement[FactorId] | None:
    """Accepts a code once; no row for one that was used and while codes must wait.

    None for a wrong code, or one of no step about now.
    """
    if len(code) > DIGITS:
        return ACCEPT_RECOVERY(factor_id=factor_id, hash=recovery_hash(factor_id, code, key))
    step = step_of(code, secret_of(factor_id, key), now)
    return None if step is None else ACCEPT(factor_id=factor_id, step=step)


def fail(factor_id: UUID) -> Statement[Failure]:
    """Counts a code that was not accepted; no row while codes must wait."""
    return FAIL(
        factor_id=factor_id,
        failures_max=FAILURES_MAX,
        seconds=WAIT_SECONDS_MIN,
        seconds_max=WAIT_SECONDS_MAX,
    )


def wait(factor_id: UUID) -> Statement[Wait]:
    """How long codes must wait."""
    return WAIT(factor_id=factor_id)


def check_allowed(waits: Sequence[Wait]) -> None:
    """429 with Retry-After while no code is accepted."""
    if waits:
        check_wait(waits[0].seconds, "too many wrong codes, try again later")


def remove(user_id: int) -> Statement[FactorId]:
    """Removes the factor of an account; no row when it has none."""
    return REMOVE(user_id=user_id)


def secret_of(factor_id: UUID, key: str) -> bytes:
    """The secret of a factor: 20 bytes, the length of HMAC-SHA-1 (RFC 4226 section 4)."""
    return hmac.digest(key.encode(), b"secret:" + factor_id.bytes, hashlib.sha256)[:20]


def address_of(secret: bytes, *, issuer: str, email: str) -> str:
    """The address that applications read from a QR code; all but these parameters are defaults."""
    parameters = urlencode({"secret": encode(secret), "issuer": issuer}, quote_via=quote)
    return f"otpauth://totp/{quote(issuer)}:{quote(email)}?{parameters}"


def code_at(step: int, secret: bytes) -> str:
    """The code of a step (RFC 4226 section 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), hashlib.sha1)
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**DIGITS:0{DIGITS}}"


def step_of(code: str, secret: bytes, now: datetime) -> int | None:
    """The latest step about now that has the code; None when there is none."""
    present = int(now.timestamp()) // STEP_SECONDS
    steps = range(present + DRIFT_STEPS, present - DRIFT_STEPS - 1, -1)
    matching = [step for step in steps if hmac.compare_digest(code_at(step, secret), code)]
    return matching[0] if matching else None


def new_recovery_codes() -> list[str]:
    """Random codes, for a person to keep where the application is not."""
    return [_grouped(os.urandom(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES)]


def recovery_hash(factor_id: UUID, code: str, key: str) -> bytes:
    """What is stored of a recovery code."""
    return hmac.digest(key.encode(), b"recovery:" + factor_id.bytes + code.encode(), hashlib.sha256)


def encode(secret: bytes) -> str:
    """A secret as people type it into an application (RFC 4648 section 6, without padding)."""
    return base64.b32encode(secret).decode().rstrip("=")


def _grouped(raw: bytes) -> str:
    text = encode(raw)
    return "-".join(text[i : i + GROUP_LENGTH] for i in range(0, len(text), GROUP_LENGTH))
