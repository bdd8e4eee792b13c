"""Failed log-ins of the last 15 minutes, and the limits on them.

Writer of ``login_failures``.  The failures are counted in PostgreSQL: no cache can evict them, and
all processes count together.

Only wrong credentials count.  The limits are checked before the password is verified, and again,
under a lock of the account, before the result is returned.  So concurrent correct log-ins all
succeed, and of concurrent guesses no more get a result than the limits allow.

A device that has logged in to the account before proves it with a cookie
(``functions/login/device.py``) and has a limit of its own.  All others share the limits of their
network and of the account, so guesses from elsewhere never reject the owner's devices (ADR 0025).

The limit over all accounts of a network can be exceeded by failures that are counted at the same
moment, since only those of one account are serialised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from events.records import frozen
from shop.adapters.statements import Command, Query, Row, Statement
from shop.primitives.errors import check_wait

WINDOW_SECONDS = 900
# of one account, by one device or from one network
SOURCE_FAILURES_MAX = 5
# of one account, from all networks: an attacker with many addresses gets no more
ACCOUNT_FAILURES_MAX = 10
# of all accounts from one network, which may be an office, a school or a mobile carrier: one common
# password tried on many accounts does not show in the counts of the accounts
NETWORK_FAILURES_MAX = 50


@frozen
class Attempt:
    """Whose password is tried and from where; both are hashes, so no e-mail or address is stored.

    ``source`` is a device that has logged in to this account before, or else a network.
    """

    account: bytes
    source: bytes
    is_known_device: bool


class Wait(Row):
    """Seconds until another attempt is allowed; none, zero or less: it is allowed now."""

    seconds: int | None


# A limit of n is reached until the n-th newest failure is as old as the window.
CHECK = Query(
    Wait,
    """
with wait as (
  select ceil(extract(epoch from greatest(
    (select failed_at from shop.login_failures
     where account = %(account)s::bytea and source = %(source)s::bytea
     order by failed_at desc offset %(source_max)s::int - 1 limit 1),
    (select failed_at from shop.login_failures
     where account = %(account)s::bytea and not is_known_device and not %(is_known_device)s::bool
     order by failed_at desc offset %(account_max)s::int - 1 limit 1),
    (select failed_at from shop.login_failures where source = %(source)s::bytea
     order by failed_at desc offset %(network_max)s::int - 1 limit 1)
  ) + make_interval(secs => %(window)s::int) - now()))::int as seconds
), recorded as (
  insert into shop.login_failures (account, source, is_known_device)
  select %(account)s::bytea, %(source)s::bytea, %(is_known_device)s::bool from wait
  where %(has_failed)s::bool and coalesce(seconds, 0) <= 0
)
select seconds from wait
""",
)

# Without it, concurrent failures of one account could together exceed its limit.
LOCK = Query(
    Row,
    """
select pg_advisory_xact_lock(%(key)s::bigint)
""",
)

DISREGARD = Command(
    """
delete from shop.login_failures where account = %(account)s and source = %(source)s
"""
)

DISREGARD_ACCOUNT = Command(
    """
delete from shop.login_failures where account = %(account)s
"""
)

# Skips what a log-in is deleting at the moment, in an order of its own.
DELETE_OLD = Command(
    """
delete from shop.login_failures where failure_id in (
  select failure_id from shop.login_failures
  where failed_at < now() - shop.retention('login_failures')
  for update skip locked limit %(batch)s)
"""
)


def attempt_on(email_key: str, *, device: str | None, network: str) -> Attempt:
    """An attempt by a device that has logged in to the account before, or else from a network."""
    is_known = device is not None
    source = _digest("device", device) if is_known else _digest("network", network)
    return Attempt(_digest("account", email_key), source, is_known_device=is_known)


def check(attempt: Attempt) -> Statement[Wait]:
    """Reads whether the attempt is allowed."""
    return _check(attempt, has_failed=False)


def lock(attempt: Attempt) -> Statement[Row]:
    """Serialises the results of one account's attempts until the end of the transaction."""
    return LOCK(key=int.from_bytes(attempt.account[:8], "big", signed=True))


def record(attempt: Attempt) -> Statement[Wait]:
    """Counts a failure, unless a limit is reached; send ``lock`` before it."""
    return _check(attempt, has_failed=True)


def disregard(attempt: Attempt) -> Statement[Row]:
    """Forgets the failures of a source that then logged in (NIST SP 800-63B section 3.2.2).

    Those from other sources still count.
    """
    return DISREGARD(account=attempt.account, source=attempt.source)


def disregard_account(email_key: str) -> Statement[Row]:
    """Forgets the failures of an e-mail that had no account yet: no password was guessed."""
    return DISREGARD_ACCOUNT(account=_digest("account", email_key))


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` failures that no longer count."""
    return DELETE_OLD(batch=batch)


def check_allowed(waits: Sequence[Wait]) -> None:
    """429 with Retry-After while a limit is reached; the request after that time is allowed."""
    check_wait(waits[0].seconds, "too many failed log-ins, try again later")


def _check(attempt: Attempt, *, has_failed: bool) -> Statement[Wait]:
    return CHECK(
        account=attempt.account,
        source=attempt.source,
        is_known_device=attempt.is_known_device,
        has_failed=has_failed,
        window=WINDOW_SECONDS,
        source_max=SOURCE_FAILURES_MAX,
        account_max=ACCOUNT_FAILURES_MAX,
        network_max=NETWORK_FAILURES_MAX,
    )


def _digest(kind: str, name: str) -> bytes:
    return hashlib.sha256(f"{kind}:{name}".encode()).digest()
