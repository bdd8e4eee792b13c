"""Stripe's amounts and ISO 4217's, where they differ (https://docs.stripe.com/currencies).

Stripe counts almost every currency in its ISO 4217 minor unit. ISK and UGX have none, but Stripe
keeps two decimals for them; MGA has two digits in ISO 4217 and none at Stripe.
"""

from __future__ import annotations

_STRIPE_UNITS_PER_MINOR = {"ISK": 100, "UGX": 100}
_UNSUPPORTED = ("MGA",)


def amount_to_stripe(amount_minor: int, currency: str) -> int:
    """The amount in Stripe's unit; raises ValueError for a currency that cannot be expressed."""
    if currency in _UNSUPPORTED:
        raise ValueError(f"{currency} cannot be charged through Stripe exactly")
    return amount_minor * _STRIPE_UNITS_PER_MINOR.get(currency, 1)


def amount_from_stripe(amount: int | None, currency: str | None) -> int | None:
    """The amount in ISO 4217 minor units, or None when it is not a whole number of them."""
    if amount is None or currency is None or currency in _UNSUPPORTED:
        return None
    whole, rest = divmod(amount, _STRIPE_UNITS_PER_MINOR.get(currency, 1))
    return None if rest else whole
