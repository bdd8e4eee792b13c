"""Charges that only the provider has, because a restore removed our rows.  Writer of
``unmatched_charges``.

A row is written once, when the provider's transactions show that all money of the charge was
returned; from then on reconciliation does not report that charge any more.
"""

from __future__ import annotations

from shop.adapters.statements import Query, Row, Statement

REFUND_PREFIX = "ghost:"
KEY_PREFIX = "shop:"

IS_CLOSED = Query(
    Row,
    """
select provider_key from shop.unmatched_charges where provider_key = %(provider_key)s
""",
)

# A charge with a payment row is matched, even if the row was missing when the caller looked.
RECORD = Query(
    Row,
    """
insert into shop.unmatched_charges (provider_key, amount_minor, currency)
select %(provider_key)s, %(amount_minor)s, %(currency)s
where not exists (select from shop.payments p where p.provider_key = %(provider_key)s)
on conflict do nothing
returning provider_key
""",
)


def refund_key(provider_key: str) -> str:
    """The provider key under which an unmatched charge is refunded, the same for every try."""
    return f"{REFUND_PREFIX}{provider_key}"


def is_key_of_shop(provider_key: str) -> bool:
    """Whether a charge has a key of this shop; other shops may share the provider's account."""
    return provider_key.startswith(KEY_PREFIX)


def is_closed(provider_key: str) -> Statement[Row]:
    """Returns a row if the charge was recorded as closed."""
    return IS_CLOSED(provider_key=provider_key)


def record(*, provider_key: str, amount_minor: int, currency: str | None) -> Statement[Row]:
    """Closes an unmatched charge; one that never took money has amount 0 and no currency."""
    return RECORD(provider_key=provider_key, amount_minor=amount_minor, currency=currency)
