"""The callers of API keys."""

from __future__ import annotations

import hashlib
import threading
import time
from typing import TYPE_CHECKING

from shop import api_keys
from shop.adapters import db
from shop.adapters.tokens import unauthenticated
from shop.primitives.messages import Caller

if TYPE_CHECKING:
    from shop.adapters.db import Database

CACHED_KEYS_MAX = 1024
CACHED_SECONDS = 3600


class KeyCallers:
    """Finds the callers of API keys; thread-safe.

    A key takes one query, at its first request in a process and once an hour, which also records
    that it is used.  What a key is for never changes, and whether it has ended is checked with
    every request, as for every session (``shop.sessions``).
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[bytes, tuple[Caller, float]] = {}
        self._lock = threading.Lock()

    def caller_of(self, key: str) -> Caller:
        """The caller; 401, the same as for every other token, unless the key can be used."""
        digest, now = hashlib.sha256(key.encode()).digest(), time.monotonic()
        with self._lock:
            caller, known_until = self._known.get(digest, (None, 0.0))
        if caller is None or known_until < now:
            caller = self._find(key)
            with self._lock:
                while len(self._known) >= CACHED_KEYS_MAX:
                    del self._known[next(iter(self._known))]
                self._known[digest] = caller, now + CACHED_SECONDS
        return caller

    def _find(self, key: str) -> Caller:
        try:
            (rows,) = self._database.run_now(api_keys.find(key))
        except db.UNAVAILABLE_ERRORS as error:
            raise db.unavailable() from error
        found = [row for row in rows if isinstance(row, api_keys.KeyCaller)]
        if not found:
            raise unauthenticated()
        row = found[0]
        return Caller(row.user_id, row.role, row.session_id, frozenset(row.scopes))
