"""Counters that expire, in Redis or, while Redis does not respond, in this process.

The rate limit (``shop/runtime/rate_limit.py``) and the limit on log-in attempts
(``functions/login/attempt_limit.py``) use them.  Without Redis each process counts separately, so a
limit is multiplied by the number of processes, but it is never off.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shop.adapters.cache import Cache

LOCAL_COUNTERS_MAX = 10_000


class Counters:
    """Counters by key; each expires ``ttl_seconds`` after its first increment.  Thread-safe."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._local = _LocalCounters()

    def read(self, key: str) -> int:
        """The count of ``key``, 0 when it was never incremented or has expired."""
        stored = self._cache.get(key)
        shared = int(stored) if stored is not None and stored.isdigit() else 0
        return max(shared, self._local.read(key))

    def increment(self, key: str, ttl_seconds: float) -> int:
        """Adds one and returns the count."""
        shared = self._cache.increment(key, ttl_seconds)
        if shared is None:
            return self._local.add(key, 1, ttl_seconds)
        # counts of an outage stay valid until they expire
        return max(shared, self._local.read(key))

    def increment_and_read(self, key: str, other: str, ttl_seconds: float) -> tuple[int, int]:
        """Adds one to ``key``; returns its count and that of ``other``, in one round trip."""
        shared = self._cache.increment_beside(key, other, ttl_seconds)
        if shared is None:
            return self._local.add(key, 1, ttl_seconds), self._local.read(other)
        return shared

    def decrement(self, key: str, ttl_seconds: float) -> None:
        """Takes back one increment."""
        if self._cache.decrement(key, ttl_seconds) is None and self._local.read(key):
            self._local.add(key, -1, ttl_seconds)

    def reset(self, key: str) -> None:
        """Sets the count of ``key`` to 0."""
        self._cache.delete(key)
        self._local.reset(key)

    def seconds_left(self, key: str) -> float | None:
        """Seconds until the counter expires; None when Redis does not hold it."""
        return self._cache.expires_in(key)


class _LocalCounters:
    """The counters of this process; above ``LOCAL_COUNTERS_MAX`` the oldest are dropped."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._counts)

    def read(self, key: str) -> int:
        count, expires_at = self._counts.get(key, (0, 0.0))
        return count if monotonic() < expires_at else 0

    def add(self, key: str, amount: int, ttl_seconds: float) -> int:
        now = monotonic()
        with self._lock:
            count, expires_at = self._counts.pop(key, (0, 0.0))
            if expires_at <= now:
                count, expires_at = 0, now + ttl_seconds
            while len(self._counts) >= LOCAL_COUNTERS_MAX:
                del self._counts[next(iter(self._counts))]
            self._counts[key] = (count + amount, expires_at)
            return count + amount

    def reset(self, key: str) -> None:
        with self._lock:
            self._counts.pop(key, None)
