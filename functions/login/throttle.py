"""How often a password may be guessed: five times an account, fifty times a network, in 15 minutes.

An attempt on an account is counted *before* its password is looked at, so guesses sent at once
are counted like guesses in turn; the right password clears the count.  One that came to no judgment
(the database was away) is given back, or an outage would lock out whoever tried again.  A network's
count holds only failures, and its limit is ten times an account's: an office, a school or a mobile
carrier is one address with many people behind it, while somebody who tries one common password on
account after account (which no account's counter sees) reaches fifty soon.  Names are hashed: Redis
learns no e-mail.  An unknown e-mail is counted like a known one.

Whoever sends five wrong passwords locks an account's log-in for the rest of the window.  That is
the price of a hard bound on guesses; sessions that are open go on, refreshing is not throttled.

Without Redis each process counts for itself, so a bound is multiplied by the number of processes
for as long as Redis is away; the limit never falls away entirely.
"""

from __future__ import annotations

import hashlib
import threading
from time import monotonic
from typing import TYPE_CHECKING

from shop.primitives.errors import ClientError
from shop.runtime.rate_limit import network_of

if TYPE_CHECKING:
    from shop.adapters.cache import Cache

WINDOW_SECONDS = 900
ACCOUNT_ATTEMPTS_MAX = 5
NETWORK_FAILURES_MAX = 50
COUNTERS_MAX = 10_000


class LocalCounters:
    """Counters of this process, for the time Redis is away; too many, and the oldest go."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def count(self, key: str) -> int:
        """How often the key was counted in its window."""
        with self._lock:
            return self._live(key)[0]

    def increment(self, key: str) -> int:
        """Counts one up; the window begins with the first count."""
        with self._lock:
            count, ends_at = self._live(key)
            while key not in self._counts and len(self._counts) >= COUNTERS_MAX:
                del self._counts[next(iter(self._counts))]
            self._counts[key] = (count + 1, ends_at)
            return count + 1

    def decrement(self, key: str) -> None:
        """Takes one back, if there is one."""
        with self._lock:
            count, ends_at = self._live(key)
            if count:
                self._counts[key] = (count - 1, ends_at)

    def forget(self, key: str) -> None:
        """Begins anew with the next count."""
        with self._lock:
            self._counts.pop(key, None)

    def _live(self, key: str) -> tuple[int, float]:
        count, ends_at = self._counts.get(key, (0, 0.0))
        now = monotonic()
        if ends_at <= now:
            self._counts.pop(key, None)
            return 0, now + WINDOW_SECONDS
        return count, ends_at


class Throttle:
    """Counts attempts in Redis, or in this process while Redis does not answer."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._local = LocalCounters()

    def admit(self, email_key: str, client: str) -> None:
        """Counts an attempt, or refuses it with 429 before anything was compared."""
        network = network_counter(client)
        if self._count(network) >= NETWORK_FAILURES_MAX:
            raise self._too_many(network)
        account = account_counter(email_key)
        if self._increment(account) > ACCOUNT_ATTEMPTS_MAX:
            raise self._too_many(account)

    def give_back(self, email_key: str) -> None:
        """Takes back an attempt that was admitted and whose password nobody came to judge."""
        account = account_counter(email_key)
        if self._cache.decrement(account, WINDOW_SECONDS) is None:
            self._local.decrement(account)

    def note_failure(self, client: str) -> None:
        """Counts a wrong password or an unknown e-mail against the network it came from."""
        self._increment(network_counter(client))

    def note_success(self, email_key: str) -> None:
        """Clears the account's count; the network's stays, or one's own account would clear it."""
        account = account_counter(email_key)
        self._cache.delete(account)
        self._local.forget(account)

    def _count(self, key: str) -> int:
        stored = self._cache.get(key)
        shared = int(stored) if stored is not None and stored.isdigit() else 0
        return max(shared, self._local.count(key))

    def _increment(self, key: str) -> int:
        shared = self._cache.increment(key, WINDOW_SECONDS)
        if shared is None:
            return self._local.increment(key)
        return max(shared, self._local.count(key))

    def _too_many(self, key: str) -> ClientError:
        remaining = self._cache.expires_in(key)
        seconds = WINDOW_SECONDS if remaining is None else max(1, int(remaining) + 1)
        return ClientError(
            429,
            "TOO_MANY_ATTEMPTS",
            "too many failed log-ins, try again later",
            headers={"Retry-After": str(min(seconds, WINDOW_SECONDS))},
        )


def account_counter(email_key: str) -> str:
    """The key under which attempts on one account are counted."""
    return f"login:account:{_digest(email_key)}"


def network_counter(client: str) -> str:
    """The key of a client's network: its IPv4 address, or the /64 its IPv6 address is one of."""
    return f"login:network:{_digest(network_of(client))}"


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]
