"""Limits on log-in attempts: five per account and fifty failures per network in 15 minutes.

An attempt on an account is counted before its password is verified, so concurrent guesses are
counted like sequential ones; a correct password resets the count.  An attempt that ends without a
verdict (the database was unavailable) is taken back, so that an outage locks no account.

The count of a network holds failures only, and its limit is ten times an account's: an office, a
school or a mobile carrier is one address with many users.  It stops an attacker who tries one
common password on many accounts, which the counts of the accounts do not show.

Five wrong passwords lock an account's log-in for the rest of the window, also for its
owner; open sessions continue, and refreshing a session is not limited.

Keys are hashed, so Redis holds no e-mail address.  An unknown e-mail is counted like a known one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from shop.primitives.errors import ClientError
from shop.runtime.rate_limit import network_of

if TYPE_CHECKING:
    from shop.adapters.counters import Counters

WINDOW_SECONDS = 900
ACCOUNT_ATTEMPTS_MAX = 5
NETWORK_FAILURES_MAX = 50


def count_attempt(counters: Counters, email_key: str, client: str) -> None:
    """Counts an attempt on an account; 429 when its limit or its network's is reached."""
    network = network_counter(client)
    if counters.read(network) >= NETWORK_FAILURES_MAX:
        raise _too_many(counters, network)
    account = account_counter(email_key)
    if counters.increment(account, WINDOW_SECONDS) > ACCOUNT_ATTEMPTS_MAX:
        raise _too_many(counters, account)


def take_back_attempt(counters: Counters, email_key: str) -> None:
    """Takes back a counted attempt whose password was not verified."""
    counters.decrement(account_counter(email_key), WINDOW_SECONDS)


def count_failure(counters: Counters, client: str) -> None:
    """Counts a wrong password or an unknown e-mail against the client's network."""
    counters.increment(network_counter(client), WINDOW_SECONDS)


def count_success(counters: Counters, email_key: str) -> None:
    """Resets the account's count.

    The network's count stays: an attacker could reset it by logging in to an account of their own.
    """
    counters.reset(account_counter(email_key))


def account_counter(email_key: str) -> str:
    """The key of an account's count."""
    return f"login:account:{_digest(email_key)}"


def network_counter(client: str) -> str:
    """The key of a network's count; the network is an IPv4 address or an IPv6 /64."""
    return f"login:network:{_digest(network_of(client))}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _too_many(counters: Counters, key: str) -> ClientError:
    left = counters.seconds_left(key)
    seconds = WINDOW_SECONDS if left is None else max(1, int(left) + 1)
    return ClientError(
        429,
        "TOO_MANY_ATTEMPTS",
        "too many failed log-ins, try again later",
        headers={"retry-after": str(min(seconds, WINDOW_SECONDS))},
    )
