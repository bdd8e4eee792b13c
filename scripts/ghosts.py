"""``shop ghosts``: what the provider has charged and the shop has forgotten, and its way back.

There are none until a database has been restored to a moment in the past (docs/adr/0020).  A person
decides, because an account at a provider may serve another shop too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg.rows import namedtuple_row

from scripts.check.books import TIMEOUT_SECONDS, ProviderAccess, entries
from scripts.reporting import FINE, FOUND, show_table
from shop import alarms, ghosts
from shop.provider.opening import open_provider
from shop.provider.protocol import BookEntry, Provider, RefundCall

CONNECT_SECONDS = 5
OURS = "shop:"
RETURNED_MAX = 100_000

OURS_TOO: LiteralString = """
select provider_key from shop.payments where provider_key = any(%(keys)s::text[])
union select provider_key from shop.ghosts
  where provider_key = any(%(keys)s::text[]) and returned_at is not null
"""
ALARM: LiteralString = """
select alarm_id from shop.alarms
where kind = 'ghost_charge' and subject = %(subject)s and resolved_at is null
"""


@dataclass
class Books:
    """The provider's charges by key, and what it has given back of each."""

    charges: dict[str, BookEntry] = field(default_factory=dict)
    refunded: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def rest(self, key: str) -> int:
        """What is left of a charge."""
        return self.charges[key].amount_minor - self.refunded[key]


def unreturned(database_url: str, access: ProviderAccess) -> list[BookEntry]:
    """The provider's charges that neither a payment nor a settled ghost has."""
    books = _read(access)
    with _connect(database_url) as connection:
        return list(_unknown(connection, books).values())


def run_list(database_url: str, access: ProviderAccess) -> int:
    """Lists the ghosts whose money was not given back; 1 when there are some."""
    found = unreturned(database_url, access)
    show_table(
        ("charge", "amount", "at the provider since"),
        [
            (each.key, f"{each.amount_minor} {each.currency}", f"{each.at:%F %T%z}")
            for each in found
        ],
    )
    return FOUND if found else FINE


def run_return(database_url: str, access: ProviderAccess) -> int:
    """Gives back every ghost's money, once however often it is asked; 1 when one is left.

    The intent is committed before the provider is called, and the call is made under the ghost's
    own key; whoever dies in between is followed by another run.
    """
    books = _read(access)
    provider = open_provider(access.kind, access.url, access.api_key, TIMEOUT_SECONDS)
    status = FINE
    with _connect(database_url) as connection:
        for entry in _unknown(connection, books).values():
            connection.execute(*ghosts.remember(entry))
        rows = connection.execute(ghosts.TO_RETURN, {"limit": RETURNED_MAX}).fetchall()
        for row in rows:
            outcome = _give_back(provider, books, row)
            print(f"{row.provider_key}: {outcome}")
            if outcome != "returned":
                status = FOUND
                continue
            connection.execute(*ghosts.returned(row.provider_key))
            for alarm in connection.execute(ALARM, {"subject": row.provider_key}).fetchall():
                connection.execute(*alarms.resolve(alarm.alarm_id))
    print(f"{len(rows)} ghosts")
    return status


def _read(access: ProviderAccess) -> Books:
    books = Books()
    for entry in entries(access):
        if entry.kind == "refund":
            books.refunded[entry.charge_key] += entry.amount_minor
        else:
            books.charges[entry.key] = entry
    return books


def _unknown(connection: psycopg.Connection[Any], books: Books) -> dict[str, BookEntry]:
    """Charges under keys like ours that neither a payment nor a settled ghost has."""
    keys = [key for key in books.charges if key.startswith(OURS)]
    rows = connection.execute(OURS_TOO, {"keys": keys}).fetchall()
    known = {row.provider_key for row in rows}
    return {key: books.charges[key] for key in keys if key not in known}


def _give_back(provider: Provider, books: Books, row: Any) -> str:
    """``returned``, or why not; nothing is asked for where all went back already."""
    if row.provider_key not in books.charges:
        return "the provider does not list it any more"
    rest = books.rest(row.provider_key)
    if rest == 0:
        return "returned"
    call = RefundCall(
        key=row.refund_key,
        charge_key=row.provider_key,
        provider_ref=row.provider_ref,
        amount_minor=rest,
        currency=row.currency,
    )
    outcome = provider.refund(call)
    return "returned" if outcome.kind == "succeeded" else f"{outcome.kind}: {outcome.reason}"


def _connect(url: str) -> psycopg.Connection[Any]:
    """Every statement is a transaction of its own."""
    return psycopg.connect(
        url, connect_timeout=CONNECT_SECONDS, autocommit=True, row_factory=namedtuple_row
    )
