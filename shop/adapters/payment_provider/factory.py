"""Opens the configured payment provider; only the chosen adapter is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shop.adapters.connection_attempts import ConnectionAttempts
    from shop.adapters.payment_provider.protocol import Provider

TIMEOUT_SECONDS_DEFAULT = 10.0


def open_provider(
    kind: str,
    url: str,
    api_key: str,
    timeout_seconds: float = TIMEOUT_SECONDS_DEFAULT,
    traceparent: Callable[[], str] | None = None,
    attempts: ConnectionAttempts | None = None,
) -> Provider:
    """The adapter for ``PAYMENT_PROVIDER`` = ``sandbox`` or ``stripe``; nothing is sent yet.

    ``url`` is the provider's base address (empty for stripe: Stripe's own). ``traceparent``
    returns the W3C trace context of a call (empty: none); ``attempts`` counts its connections.
    Raises ValueError for an unknown provider, a missing key or address, or a timeout that is not
    positive.
    """
    if timeout_seconds <= 0:
        raise ValueError("PAYMENT_PROVIDER_TIMEOUT_SECONDS must be positive")
    if not api_key:
        raise ValueError("PAYMENT_PROVIDER_API_KEY is missing")
    if kind == "sandbox":
        # Imported here, as below, so that a cold start imports only the adapter that is used.
        from shop.adapters.payment_provider.simulator import SimulatorProvider

        return SimulatorProvider(
            url=url,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            traceparent=traceparent,
            attempts=attempts,
        )
    if kind == "stripe":
        # Imported here because the official library costs 200 ms and is an optional extra.
        from shop.adapters.payment_provider.stripe import StripeProvider

        return StripeProvider(
            url=url,
            api_key=api_key,
            timeout_seconds=timeout_seconds,
            traceparent=traceparent,
            attempts=attempts,
        )
    raise ValueError(f"PAYMENT_PROVIDER must be sandbox or stripe, not {kind!r}")
