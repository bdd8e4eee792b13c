"""Rate limits: how many requests a client may make in a sliding minute, over all replicas.

Counted in Redis; while Redis is gone each process counts for itself.  The client is the signed-in
account, or the address that the last trusted hop saw.  Headers follow
draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from shop.errors import Refused
from shop.runtime.wire import Wire

if TYPE_CHECKING:
    from shop.message import Caller
    from shop.runtime.services import Services

WINDOW_SECONDS = 60
CLIENTS_MAX = 10_000
PROVIDER_FACTOR = 100

_own_counts: dict[str, int] = {}
_own_window = 0
_lock = threading.Lock()


def client_address(wire: Wire, trusted_hops: int) -> str:
    """The address the outermost trusted hop saw; what a client wrote before it is not believed."""
    if trusted_hops <= 0:
        return wire.peer
    hops = [
        hop.strip() for hop in wire.headers.get("x-forwarded-for", "").split(",") if hop.strip()
    ]
    return hops[-trusted_hops] if len(hops) >= trusted_hops else (hops[0] if hops else wire.peer)


def count_request(
    services: Services, wire: Wire, caller: Caller | None, *, is_provider: bool = False
) -> dict[str, str]:
    """Counts one request; returns the headers to answer with, or raises 429 with Retry-After.

    The payment provider speaks for all customers from few addresses, so it may say more.
    """
    limit = services.settings.rate_limit_per_minute * (PROVIDER_FACTOR if is_provider else 1)
    if limit == 0:
        return {}
    address = client_address(wire, services.settings.trusted_hops)
    client = f"user:{caller.user_id}" if caller else f"address:{address}"
    now = time.time()
    window, elapsed = int(now // WINDOW_SECONDS), now % WINDOW_SECONDS
    used = _count(services, client, window, elapsed)
    left = WINDOW_SECONDS - int(elapsed)
    headers = {
        "ratelimit-policy": f'"default";q={limit};w={WINDOW_SECONDS}',
        "ratelimit": f'"default";r={max(0, limit - used)};t={left}',
    }
    if used > limit:
        raise Refused(
            429,
            "RATE_LIMITED",
            f"at most {limit} requests a minute",
            headers={**headers, "retry-after": str(left)},
        )
    return headers


def _count(services: Services, client: str, window: int, elapsed: float) -> int:
    """Requests in the last 60 s: this window's, and the last one's in proportion."""
    counted = services.cache.increment_beside(
        f"rate:{client}:{window}", f"rate:{client}:{window - 1}", 2 * WINDOW_SECONDS
    )
    if counted is None:
        return _count_alone(client, window)
    current, last = counted
    return current + int(last * (1 - elapsed / WINDOW_SECONDS))


def _count_alone(client: str, window: int) -> int:
    global _own_window
    with _lock:
        if window != _own_window or len(_own_counts) > CLIENTS_MAX:
            _own_counts.clear()
            _own_window = window
        _own_counts[client] = _own_counts.get(client, 0) + 1
        return _own_counts[client]
