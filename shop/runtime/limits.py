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

_own_counts: dict[tuple[str, int], int] = {}
_lock = threading.Lock()


def client_address(wire: Wire, trusted_hops: int) -> str:
    """The address the outermost trusted hop saw; what a client wrote before it is not believed."""
    if trusted_hops <= 0:
        return wire.peer
    hops = [hop.strip() for hop in wire.headers.get("x-forwarded-for", "").split(",") if hop.strip()]
    return hops[-trusted_hops] if len(hops) >= trusted_hops else (hops[0] if hops else wire.peer)


def network_of(address: str) -> str:
    """An IPv4 address, or the /64 that an IPv6 address is one of 2**64 of."""
    if ":" not in address:
        return address
    import ipaddress  # needed for IPv6 clients only

    try:
        parsed = ipaddress.IPv6Address(address.strip("[]").partition("%")[0])
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


def count_request(services: Services, wire: Wire, caller: Caller | None) -> dict[str, str]:
    """Counts one request; returns the headers to answer with, or raises 429 with Retry-After."""
    limit = services.settings.rate_limit_per_minute
    if limit == 0:
        return {}
    client = f"user:{caller.user_id}" if caller else (
        f"address:{network_of(client_address(wire, services.settings.trusted_hops))}"
    )
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
    """Requests in the last 60 s: this window's, and the last one's in proportion to what is left."""
    key = f"rate:{client}:{window}"
    current = services.cache.increment(key, 2 * WINDOW_SECONDS)
    if current is None:
        current, last = _count_alone(client, window)
    else:
        last = int(services.cache.get(f"rate:{client}:{window - 1}") or b"0")
    return current + int(last * (1 - elapsed / WINDOW_SECONDS))


def _count_alone(client: str, window: int) -> tuple[int, int]:
    """This process's own counts of this window and the last; the oldest go when they are many."""
    with _lock:
        current = _own_counts.pop((client, window), 0) + 1
        while len(_own_counts) >= CLIENTS_MAX:
            del _own_counts[next(iter(_own_counts))]
        _own_counts[client, window] = current
        return current, _own_counts.get((client, window - 1), 0)
