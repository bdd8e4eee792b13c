"""Charges that only the provider knows: a restore took our rows away.  Writer of ``ghosts``.

A row is written once, when the provider's books show that nothing of the charge is kept any more;
what the provider has under a ghost's key is from then on no contradiction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from shop.adapters.db import Statement

REFUND_PREFIX = "ghost:"
KEY_PREFIX = "shop:"

KNOWN: LiteralString = """
select provider_key from shop.ghosts where provider_key = %(provider_key)s
"""

# Whoever has a payment is no ghost, whatever the caller believed a moment ago.
RECORD: LiteralString = """
insert into shop.ghosts (provider_key, amount_minor, currency)
select %(provider_key)s, %(amount_minor)s, %(currency)s
where not exists (select from shop.payments p where p.provider_key = %(provider_key)s)
on conflict do nothing
returning provider_key
"""


def refund_key(provider_key: str) -> str:
    """The key under which a ghost's money goes back: the same one however often it is tried."""
    return f"{REFUND_PREFIX}{provider_key}"


def record(*, provider_key: str, amount_minor: int, currency: str | None) -> Statement:
    """The statement that closes a ghost; one that never took money has amount 0, no currency."""
    return RECORD, {
        "provider_key": provider_key,
        "amount_minor": amount_minor,
        "currency": currency,
    }
