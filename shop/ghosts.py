"""Ghosts: charges that only the provider knows, and how their money goes back.

A payment is committed before its provider is called, so there are none, until a database has been
restored to a moment in the past: then the provider has charged what our books forgot.  Nobody can
ship for a payment that is not there, so the money is given back.  Writer of ``ghosts``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from shop.db import Statement
    from shop.provider.protocol import BookEntry

PREFIX = "ghost:"

REMEMBER: LiteralString = """
insert into shop.ghosts (provider_key, amount_minor, currency, provider_ref, refund_key)
select %(provider_key)s, %(amount_minor)s, %(currency)s, %(provider_ref)s, %(refund_key)s
where not exists (select from shop.payments where provider_key = %(provider_key)s)
on conflict do nothing
returning provider_key
"""

KNOWN: LiteralString = """
select provider_key from shop.ghosts where provider_key = %(provider_key)s
"""

TO_RETURN: LiteralString = """
select provider_key, amount_minor, currency, provider_ref, refund_key from shop.ghosts
where returned_at is null order by found_at, provider_key limit %(limit)s
"""

RETURNED: LiteralString = """
update shop.ghosts set returned_at = now()
where provider_key = %(provider_key)s and returned_at is null
returning provider_key
"""


def remember(entry: BookEntry) -> Statement:
    """The statement that commits to giving a charge back; no row: a payment or a ghost has it."""
    return REMEMBER, {
        "provider_key": entry.key,
        "amount_minor": entry.amount_minor,
        "currency": entry.currency,
        "provider_ref": entry.provider_ref,
        "refund_key": PREFIX + entry.key,
    }


def returned(provider_key: str) -> Statement:
    """The statement that notes the provider's word: the money went back."""
    return RETURNED, {"provider_key": provider_key}
