"""Rate limits: how many requests a client may make in a sliding minute, over all replicas.

Counted in Redis; while Redis is gone each process counts for itself.  The client is the signed-in
account, or the address that the last trusted hop saw.  Headers follow
draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from shop.primitives.errors import ClientError
from shop.runtime.http_messages import HttpRequest

if TYPE_CHECKING:
    from shop.primitives.messages import Caller
    from shop.runtime.services import Services

WINDOW_SECONDS = 60
CLIENTS_MAX = 10_000
PROVIDER_FACTOR = 100

_own_counts: dict[tuple[str, int], int] = {}
_lock = threading.Lock()


def client_address(wire: HttpRequest, trusted_hops: int) -> str:
    """The address the outermost trusted hop saw; what a client wrote before it is not believed."""
    if trusted_hops <= 0:
        return wire.peer
    listed = wire.headers.get("x-forwarded-for", "").split(",")
    hops = [hop.strip() for hop in listed if hop.strip()]
    return hops[-trusted_hops] if len(hops) >= trusted_hops else wire.peer


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


def count_request(
    services: Services, wire: HttpRequest, caller: Caller | None, *, is_provider: bool = False
) -> dict[str, str]:
    """Counts one request; returns the headers to answer with, or raises 429 with Retry-After.

    The payment provider speaks for all customers from few addresses, so it may say more.
    """
    limit = services.settings.rate_limit_per_minute * (PROVIDER_FACTOR if is_provider else 1)
    if limit == 0:
        return {}
    address = client_address(wire, services.settings.trusted_hops)
    client = f"user:{caller.user_id}" if caller else f"address:{network_of(address)}"
    now = time.time()
    window, elapsed = int(now // WINDOW_SECONDS), now % WINDOW_SECONDS
    current, last = _count(services, client, window)
    used = current + int(last * (1 - elapsed / WINDOW_SECONDS))
    left = WINDOW_SECONDS - int(elapsed)
    headers = {
        "ratelimit-policy": f'"default";q={limit};w={WINDOW_SECONDS}',
        "ratelimit": f'"default";r={max(0, limit - used)};t={left}',
    }
    if used > limit:
        wait = seconds_until_let_in(limit, current, last, elapsed)
        raise ClientError(
            429,
            "RATE_LIMITED",
            f"at most {limit} requests a minute",
            headers={**headers, "retry-after": str(wait)},
        )
    return headers


def seconds_until_let_in(limit: int, current: int, last: int, elapsed: float) -> int:
    """When a refused client's next request will pass, if it asks no sooner: what Retry-After says.

    ``current`` and ``last`` are the requests of this window and the one before, refused ones too:
    whoever goes on knocking waits longer, at most two windows.
    """
    if current < limit:
        # the last window's share has to shrink below what this one leaves
        return int(WINDOW_SECONDS * (1 - (limit - current) / last) - elapsed) + 1
    next_window = WINDOW_SECONDS - elapsed
    return int(next_window + WINDOW_SECONDS * (1 - limit / current)) + 1


def _count(services: Services, client: str, window: int) -> tuple[int, int]:
    """Requests counted in this window, this one among them, and in the window before."""
    counted = services.cache.increment_beside(
        f"rate:{client}:{window}", f"rate:{client}:{window - 1}", 2 * WINDOW_SECONDS
    )
    return _count_alone(client, window) if counted is None else counted


def _count_alone(client: str, window: int) -> tuple[int, int]:
    """This process's own counts of this window and the last; the oldest go when they are many."""
    with _lock:
        current = _own_counts.pop((client, window), 0) + 1
        while len(_own_counts) >= CLIENTS_MAX:
            del _own_counts[next(iter(_own_counts))]
        _own_counts[client, window] = current
        return current, _own_counts.get((client, window - 1), 0)
