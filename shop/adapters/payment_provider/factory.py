"""Opens the configured payment provider; only the chosen adapter is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shop.adapters.payment_provider.protocol import ACTION_OPTIONS_DEFAULT, ActionOptions

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
    options: ActionOptions = ACTION_OPTIONS_DEFAULT,
) -> Provider:
    """The adapter for ``PAYMENT_PROVIDER``: ``sandbox``, ``stripe`` or ``toss``; sends nothing yet.

    ``url`` is the provider's base address (empty: Stripe's, or Toss Payments', own).
    ``traceparent`` returns the W3C trace context of a call (empty: none); ``attempts`` counts its
    connections; ``options`` is about payments that need the customer.
    Raises ValueError for an unknown provider, a missing key or address, or a timeout that is not
    positive.
    """
    if timeout_seconds <= 0:
        raise ValueError("PAYMENT_PROVIDER_TIMEOUT_SECONDS must be positive")
    if not api_key:
        raise ValueError("PAYMENT_PROVIDER_API_KEY is missing")
    return _adapter(kind)(
        url=url,
        api_key=api_key,
        timeout_seconds=timeout_seconds,
        traceparent=traceparent,
        attempts=attempts,
        options=options,
    )


def _adapter(kind: str) -> Callable[..., Provider]:
    """The class; imported here, so that a cold start imports only the adapter that is used."""
    if kind == "sandbox":
        from shop.adapters.payment_provider.simulator import SimulatorProvider

        return SimulatorProvider
    if kind == "stripe":
        # the official library costs 200 ms and is an optional extra
        from shop.adapters.payment_provider.stripe import StripeProvider

        return StripeProvider
    if kind == "toss":
        from shop.adapters.payment_provider.toss import TossProvider

        return TossProvider
    raise ValueError(f"PAYMENT_PROVIDER must be sandbox, stripe or toss, not {kind!r}")
