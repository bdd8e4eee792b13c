"""``shop ghosts``: after a restore, charges that only the provider knows, and giving them back.

A database that went back in time has forgotten payments whose money the provider holds.  No order
is waiting for that money any more (an order that is still there is charged again, under a new key),
so all of it goes back.  The provider's books are the memory of this command: what was given back
under a ghost's key is read there before anything is sent, so dying half-way, or running twice,
gives nothing twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg

from shop import operator_alerts, reconciliation, unmatched_charges
from shop.adapters.payment_provider.factory import open_provider
from shop.adapters.payment_provider.protocol import (
    ChargeCall,
    Provider,
    ProviderTransaction,
    RefundCall,
)
from tools.checker import provider_transactions
from tools.checker.provider_transactions import ProviderAccess
from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table

CONNECT_SECONDS = 5
# Between the provider's clock and the database's, in which the moment is given.
CLOCKS_APART = timedelta(minutes=1)
CLOSED_NOW = "nothing is kept"
CLOSED = ("CAPTURED", "DECLINED", "VOIDED")

KNOWN: LiteralString = """
select provider_key from shop.payments where provider_key = any(%(keys)s)
union all
select provider_key from shop.ghosts where provider_key = any(%(keys)s)
"""

IS_COPY: LiteralString = """
select pg_is_in_recovery()
"""


@dataclass(frozen=True)
class Ghost:
    """A charge without a payment, and what of it went back already; 0: it never took money."""

    key: str
    amount_minor: int
    currency: str | None
    provider_ref: str
    given_back_minor: int = 0
    refund_keys: tuple[str, ...] = ()
    times: int = 1
    status: str = "CAPTURED"

    @property
    def rest_minor(self) -> int:
        """What is still to be given back."""
        return self.amount_minor - self.given_back_minor


def run_list(database_url: str, access: ProviderAccess, *, since: datetime, as_json: bool) -> int:
    """1 when there are ghosts that nobody closed."""
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        found = find(connection, access, since)
    _show([(ghost, "open") for ghost in found], as_json=as_json)
    return EXIT_FOUND if found else EXIT_OK


def run_return(database_url: str, access: ProviderAccess, *, since: datetime, as_json: bool) -> int:
    """Closes every ghost; 1 when one stayed open.  Then the sweep reads the books once more."""
    provider = open_provider(
        access.kind, access.url, access.api_key, provider_transactions.TIMEOUT_SECONDS
    )
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        results = []
        for ghost in find(connection, access, since):
            what = _close(provider, ghost)
            if not what:
                _record(connection, ghost)
            results.append((ghost, what or CLOSED_NOW))
        connection.execute(reconciliation.READ_AGAIN)
    _show(results, as_json=as_json)
    return EXIT_FOUND if any(what != CLOSED_NOW for _, what in results) else EXIT_OK


def find(
    connection: psycopg.Connection[Any], access: ProviderAccess, since: datetime
) -> list[Ghost]:
    """Charges under keys of ours without a payment.  Raises ValueError for a copy of the database.

    The books are read first: a payment is committed before its call, so whatever they show has its
    row by then, or has lost it.
    """
    if since.tzinfo is None:
        raise ValueError("the moment needs an offset, such as 2026-11-23T12:00:00+0000")
    candidates = [
        *_charged(
            list(provider_transactions.list_transactions(access, since=since - CLOCKS_APART)), since
        )
    ]
    candidates += _unpaid(access)
    if connection.execute(IS_COPY).fetchone() != (False,):
        raise ValueError("the database is still recovering, or is a copy of another")
    keys = [ghost.key for ghost in candidates]
    known = {key for (key,) in connection.execute(KNOWN, {"keys": keys})}
    connection.commit()
    return [ghost for ghost in candidates if ghost.key not in known]


def _charged(entries: list[ProviderTransaction], since: datetime) -> Iterable[Ghost]:
    """Money that was taken since the moment, with all refunds of it."""
    charges: dict[str, list[ProviderTransaction]] = defaultdict(list)
    refunds: dict[str, list[ProviderTransaction]] = defaultdict(list)
    for entry in entries:
        by_charge = charges if entry.kind == "charge" else refunds
        by_charge[entry.charge_key].append(entry)
    for key, taken in charges.items():
        if key.startswith(unmatched_charges.KEY_PREFIX) and taken[0].at >= since - CLOCKS_APART:
            yield Ghost(
                key=key,
                amount_minor=taken[0].amount_minor,
                currency=taken[0].currency,
                provider_ref=taken[0].provider_ref,
                given_back_minor=sum(refund.amount_minor for refund in refunds[key]),
                refund_keys=tuple(refund.key for refund in refunds[key]),
                times=len(taken),
            )


def _unpaid(access: ProviderAccess) -> list[Ghost]:
    """Refused or open charges, which only the sandbox shows."""
    if access.kind != "sandbox":
        return []
    return [
        Ghost(key, 0, None, "", status=status)
        for key, _, status in provider_transactions.external_records(access).charges
        if key.startswith(unmatched_charges.KEY_PREFIX) and status != "CAPTURED"
    ]


def _close(provider: Provider, ghost: Ghost) -> str:
    """Sees to it that the provider keeps nothing; what stood in the way, or the empty string."""
    if ghost.times > 1:
        return f"charged {ghost.times} times: for a person"
    if ghost.status not in CLOSED:
        # its amount is not ours to compare, so the books have the last word, at the next reading
        provider.cancel(_call_of(ghost))
        return "was open: run this again"
    if not ghost.rest_minor:
        return ""
    assert ghost.currency is not None, "money has a currency"
    call = RefundCall(
        key=unmatched_charges.refund_key(ghost.key),
        charge_key=ghost.key,
        provider_ref=ghost.provider_ref,
        amount_minor=ghost.rest_minor,
        currency=ghost.currency,
    )
    outcome = provider.refund(call)
    return "" if outcome.kind == "succeeded" else f"{outcome.kind}: {outcome.reason or 'no reason'}"


def _call_of(ghost: Ghost) -> ChargeCall:
    payment_id = ghost.key.removeprefix(unmatched_charges.KEY_PREFIX)
    return ChargeCall(ghost.key, ghost.amount_minor, ghost.currency or "", "", "", payment_id)


def _record(connection: psycopg.Connection[Any], ghost: Ghost) -> None:
    """The ghost's row, and the end of the alarms about it, in one transaction."""
    connection.execute(
        *unmatched_charges.record(
            provider_key=ghost.key, amount_minor=ghost.amount_minor, currency=ghost.currency
        )
    )
    about = {"ghost_charge": [ghost.key], "ghost_refund": list(ghost.refund_keys)}
    for kind, subjects in about.items():
        connection.execute(operator_alerts.RESOLVE_ABOUT, {"kind": kind, "subjects": subjects})
    connection.commit()


def _show(results: list[tuple[Ghost, str]], *, as_json: bool) -> None:
    if as_json:
        show_json([vars(ghost) | {"state": what} for ghost, what in results])
        return
    columns = ("charge", "amount", "currency", "given back before", "state")
    show_table(
        columns,
        [(g.key, g.amount_minor, g.currency, g.given_back_minor, what) for g, what in results],
    )
    print(f"{len(results)} charges that only the provider knows")
