"""The rate limit: requests per client in a sliding minute, over all replicas.

The client is the signed-in account, or the address that the last trusted hop saw.  Headers follow
draft-ietf-httpapi-ratelimit-headers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shop.primitives.errors import ClientError
from shop.primitives.languages import Phrase
from shop.runtime.client_address import client_network

if TYPE_CHECKING:
    from shop.primitives.messages import Caller
    from shop.runtime.http_messages import HttpRequest
    from shop.runtime.services import Services

WINDOW_SECONDS = 60
PROVIDER_FACTOR = 100


def count_request(
    services: Services,
    http_request: HttpRequest,
    caller: Caller | None,
    *,
    is_provider: bool = False,
) -> dict[str, str]:
    """Counts one request; returns the rate limit headers, or raises 429 with Retry-After.

    Payment provider and carriers send for all customers from few addresses: their limit is higher.
    """
    limit = services.settings.rate_limit_per_minute * (PROVIDER_FACTOR if is_provider else 1)
    if limit == 0:
        return {}
    network = client_network(http_request, services.settings)
    client = f"user:{caller.user_id}" if caller else f"address:{network}"
    now = time.time()
    window, elapsed = int(now // WINDOW_SECONDS), now % WINDOW_SECONDS
    current, previous = services.counters.increment_and_read(
        f"rate:{client}:{window}", f"rate:{client}:{window - 1}", 2 * WINDOW_SECONDS
    )
    used = current + int(previous * (1 - elapsed / WINDOW_SECONDS))
    headers = {
        "ratelimit-policy": f'"default";q={limit};w={WINDOW_SECONDS}',
        "ratelimit": f'"default";r={max(0, limit - used)};t={WINDOW_SECONDS - int(elapsed)}',
    }
    if used > limit:
        wait = retry_after_seconds(limit, current, previous, elapsed)
        raise ClientError(
            429,
            "RATE_LIMITED",
            Phrase("at most {limit} requests a minute", limit=limit),
            headers={**headers, "retry-after": str(wait)},
        )
    return headers


def retry_after_seconds(limit: int, current: int, previous: int, elapsed: float) -> int:
    """Seconds after which the client's next request passes, if it sends none before.

    ``current`` and ``previous`` count the requests of this window and the one before, rejected
    ones too, so repeated requests extend the wait, to at most two windows.
    """
    if current < limit:
        # the share of the previous window has to shrink below what this one leaves
        return int(WINDOW_SECONDS * (1 - (limit - current) / previous) - elapsed) + 1
    next_window = WINDOW_SECONDS - elapsed
    return int(next_window + WINDOW_SECONDS * (1 - limit / current)) + 1
