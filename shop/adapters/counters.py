"""Counters that expire, in Redis or, while Redis does not respond, in this process.

The rate limit (``shop/runtime/rate_limit.py``) uses them.  Without Redis each process counts
separately, so a limit is multiplied by the number of processes, but it is never off.
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

    def increment_and_read(self, key: str, other: str, ttl_seconds: float) -> tuple[int, int]:
        """Adds one to ``key``; returns its count and that of ``other``, in one round trip."""
        shared = self._cache.increment_beside(key, other, ttl_seconds)
        if shared is None:
            return self._local.increment(key, ttl_seconds), self._local.read(other)
        return shared


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

    def increment(self, key: str, ttl_seconds: float) -> int:
        now = monotonic()
        with self._lock:
            count, expires_at = self._counts.pop(key, (0, 0.0))
            if expires_at <= now:
                count, expires_at = 0, now + ttl_seconds
            while len(self._counts) >= LOCAL_COUNTERS_MAX:
                del self._counts[next(iter(self._counts))]
            self._counts[key] = (count + 1, expires_at)
            return count + 1
