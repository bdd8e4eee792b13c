"""The second factor of operators: codes that an application computes every 30 seconds (RFC 6238).

Writer of ``second_factors``.  The secret of a factor is an HMAC of its id under a key that the
database does not have, so no row holds anything that could compute a code.  Recovery codes are
random and stored as an HMAC under the secret; each is valid once.

SECOND_FACTOR_KEY may be two keys, the new one first, with a space between.  ``key_id`` names the
key of a factor.  ``moves`` gives factors the new key: their secrets stay as the applications have
them, and a row holds the secret XOR an HMAC of a random salt under the new key.  So the old key and
the row do not suffice to compute a code.

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

from shop.adapters.statements import Command, Query, Row, Statement
from shop.primitives.errors import check_wait
from shop.primitives.ids import new_uuid

STEP_SECONDS = 30
DIGITS = 6
SECRET_BYTES = 20
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
    """The second factor of an account, confirmed or not, and what its secret is computed from.

    Factors without ``key_id`` were set up before keys could be replaced.
    """

    factor_id: UUID
    is_confirmed: bool
    key_id: str | None
    salt: UUID | None
    pad: bytes | None


class OwnedFactor(Factor):
    """A factor and the account that has it."""

    user_id: int


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
select factor_id, confirmed_at is not null as is_confirmed, key_id, salt, pad
from shop.second_factors where user_id = %(user_id)s
""",
)

# No row: the account has a confirmed one.
BEGIN = Query(
    FactorId,
    """
insert into shop.second_factors as f (user_id, factor_id, key_id)
values (%(user_id)s, %(factor_id)s, %(key_id)s)
on conflict (user_id) do update
  set factor_id = excluded.factor_id, created_at = now(), key_id = excluded.key_id,
    salt = null, pad = null
  where f.confirmed_at is null
returning factor_id
""",
)

# Codes are checked one after the other, so that none is checked while codes must wait.
LOCK = Query(
    Factor,
    """
select factor_id, confirmed_at is not null as is_confirmed, key_id, salt, pad
from shop.second_factors where factor_id = %(factor_id)s for update
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
set recovery_hashes = array_remove(
    array_remove(recovery_hashes, %(hash)s::bytea), %(old_hash)s::bytea),
  accepted = accepted + 1, failures = 0, blocked_until = null
where factor_id = %(factor_id)s and confirmed_at is not null
  and recovery_hashes && array[%(hash)s::bytea, %(old_hash)s::bytea]
returning factor_id
""",
)

RENEW_RECOVERY = Query(
    FactorId,
    """
update shop.second_factors set recovery_hashes = %(hashes)s::bytea[]
where factor_id = %(factor_id)s and confirmed_at is not null
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

OF_OTHER_KEYS = Query(
    OwnedFactor,
    """
select factor_id, confirmed_at is not null as is_confirmed, key_id, salt, pad, user_id
from shop.second_factors
where user_id > %(after)s and key_id is distinct from %(key_id)s
order by user_id limit %(batch)s for update
""",
)

MOVE = Command(
    """
update shop.second_factors f set key_id = %(key_id)s, salt = m.salt, pad = m.pad
from unnest(%(factor_ids)s::uuid[], %(salts)s::uuid[], %(pads)s::bytea[])
  as m(factor_id, salt, pad)
where f.factor_id = m.factor_id
"""
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


def begin(user_id: int, factor_id: UUID, keys: str) -> Statement[FactorId]:
    """Stores a factor to confirm, in the place of one that was not; no row if one is confirmed."""
    return BEGIN(user_id=user_id, factor_id=factor_id, key_id=key_id_of(keys.split()[0]))


def lock(factor_id: UUID) -> Statement[Factor]:
    """Lets one transaction at a time check a code of the factor."""
    return LOCK(factor_id=factor_id)


def confirm(factor_id: UUID, *, step: int, hashes: Sequence[bytes]) -> Statement[FactorId]:
    """Makes a factor required from now on, by its first code; no row while codes must wait."""
    return CONFIRM(factor_id=factor_id, step=step, hashes=list(hashes))


def accept(factor: Factor, code: str, *, keys: str, now: datetime) -> Statement[FactorId] | None:
    """Accepts a code once; no row for one that was used and while codes must wait.

    None for a wrong code, for one of no step about now, and for a factor of a key that is not
    given.
    """
    key = _key_of(factor, keys)
    if key is None:
        return None
    secret = _secret_under(key, factor)
    if is_recovery_code(code):
        return ACCEPT_RECOVERY(
            factor_id=factor.factor_id,
            hash=recovery_hash(secret, code),
            old_hash=_old_recovery_hash(factor.factor_id, code, key),
        )
    step = step_of(code, secret, now)
    return None if step is None else ACCEPT(factor_id=factor.factor_id, step=step)


def renew_recovery_codes(factor: Factor, codes: Sequence[str], keys: str) -> Statement[FactorId]:
    """Replaces the recovery codes of a factor; no row for one that is not confirmed.

    The factor is of one of the keys.
    """
    return RENEW_RECOVERY(factor_id=factor.factor_id, hashes=hashes_of(factor, codes, keys))


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


def of_other_keys(keys: str, *, after: int, batch: int) -> Statement[OwnedFactor]:
    """Locks at most ``batch`` factors that are not of the first key, by account after ``after``."""
    return OF_OTHER_KEYS(key_id=key_id_of(keys.split()[0]), after=after, batch=batch)


def moves(factors: Sequence[OwnedFactor], keys: str) -> Statement[Row]:
    """Gives locked factors the first key, with the secrets that they have under the others."""
    key = keys.split()[0]
    salts = [new_uuid() for _ in factors]
    secrets = [(secret_of(factor, keys), salt) for factor, salt in zip(factors, salts, strict=True)]
    return MOVE(
        key_id=key_id_of(key),
        factor_ids=[factor.factor_id for factor in factors],
        salts=salts,
        pads=[_xor(secret, _computed(key, salt)) for secret, salt in secrets],
    )


def has_key(factor: Factor, keys: str) -> bool:
    """Whether one of the keys is the factor's."""
    return _key_of(factor, keys) is not None


def secret_of(factor: Factor, keys: str) -> bytes:
    """The secret of a factor, of which one of the keys is: 20 bytes, the length of HMAC-SHA-1.

    RFC 4226 section 4.
    """
    key = _key_of(factor, keys)
    assert key is not None, "the caller has checked the key"
    return _secret_under(key, factor)


def new_secret(factor_id: UUID, keys: str) -> bytes:
    """The secret of a factor that begins now, under the first key."""
    return _computed(keys.split()[0], factor_id)


def key_id_of(key: str) -> str:
    """Which key a factor has: a part of a digest, from which a random key cannot be found."""
    return hashlib.sha256(b"second factors:" + key.encode()).hexdigest()[:16]


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


def hashes_of(factor: Factor, codes: Sequence[str], keys: str) -> list[bytes]:
    """What is stored of the recovery codes of a factor, of which one of the keys is."""
    secret = secret_of(factor, keys)
    return [recovery_hash(secret, code) for code in codes]


def recovery_hash(secret: bytes, code: str) -> bytes:
    """What is stored of a recovery code; it stays valid when the factor gets another key."""
    return hmac.digest(secret, b"recovery:" + code.encode(), hashlib.sha256)


def is_recovery_code(code: str) -> bool:
    """Whether a code of a known form is a recovery code."""
    return len(code) > DIGITS


def encode(secret: bytes) -> str:
    """A secret as people type it into an application (RFC 4648 section 6, without padding)."""
    return base64.b32encode(secret).decode().rstrip("=")


def _key_of(factor: Factor, keys: str) -> str | None:
    """The key of a factor; None when it is not among those given."""
    given = keys.split()
    if factor.key_id is None:
        return given[-1]
    return next((key for key in given if key_id_of(key) == factor.key_id), None)


def _secret_under(key: str, factor: Factor) -> bytes:
    computed = _computed(key, factor.salt or factor.factor_id)
    return computed if factor.pad is None else _xor(computed, factor.pad)


def _computed(key: str, salt: UUID) -> bytes:
    return hmac.digest(key.encode(), b"secret:" + salt.bytes, hashlib.sha256)[:SECRET_BYTES]


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _old_recovery_hash(factor_id: UUID, code: str, key: str) -> bytes:
    """What was stored of a recovery code before keys could be replaced."""
    return hmac.digest(key.encode(), b"recovery:" + factor_id.bytes + code.encode(), hashlib.sha256)


def _grouped(raw: bytes) -> str:
    text = encode(raw)
    return "-".join(text[i : i + GROUP_LENGTH] for i in range(0, len(text), GROUP_LENGTH))
