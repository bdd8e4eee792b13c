"""``shop unmatched-charges``: lists and refunds charges without a payment row, after a restore.

A database restored to an earlier time has lost the rows of later payments, which the provider has
charged.  These charges are refunded in full: an order that still exists is charged again under a
new key.  The refunds of a charge are read from the provider before one is sent, so an interrupted
or repeated run refunds nothing twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow

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
# The restore time is read from the database's clock, charges are dated by the provider's.
CLOCK_SKEW_MAX = timedelta(minutes=1)
CLOSED = "closed"
FINAL_STATUSES = ("CAPTURED", "DECLINED", "VOIDED")

KNOWN: LiteralString = """
select provider_key from shop.payments where provider_key = any(%(keys)s)
union all
select provider_key from shop.unmatched_charges where provider_key = any(%(keys)s)
"""

IS_REPLICA: LiteralString = """
select pg_is_in_recovery()
"""


@dataclass(frozen=True)
class UnmatchedCharge:
    """A charge without a payment row, and its refunds; ``amount_minor`` is 0 without a capture."""

    key: str
    amount_minor: int
    currency: str | None
    provider_ref: str
    refunded_minor: int = 0
    refund_keys: tuple[str, ...] = ()
    captures: int = 1
    status: str = "CAPTURED"

    @property
    def remaining_minor(self) -> int:
        """The amount that is not refunded yet."""
        return self.amount_minor - self.refunded_minor


def run_list(database_url: str, access: ProviderAccess, *, since: datetime, as_json: bool) -> int:
    """Lists unmatched charges that are not closed; returns 1 when there is one."""
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        found = find_unmatched(connection, access, since)
    _show([(charge, "open") for charge in found], as_json=as_json)
    return EXIT_FOUND if found else EXIT_OK


def run_return(database_url: str, access: ProviderAccess, *, since: datetime, as_json: bool) -> int:
    """Closes every unmatched charge; returns 1 when one stays open.

    Afterwards the sweep reads the provider's transactions again from the beginning.
    """
    provider = open_provider(
        access.kind, access.url, access.api_key, provider_transactions.TIMEOUT_SECONDS
    )
    results: list[tuple[UnmatchedCharge, str]] = []
    with psycopg.connect(database_url, connect_timeout=CONNECT_SECONDS) as connection:
        for charge in find_unmatched(connection, access, since):
            problem = _close(provider, charge)
            if not problem:
                _record(connection, charge)
            results.append((charge, problem or CLOSED))
        connection.execute(reconciliation.start_over().sql)
    _show(results, as_json=as_json)
    return EXIT_FOUND if any(state != CLOSED for _, state in results) else EXIT_OK


def find_unmatched(
    connection: psycopg.Connection[TupleRow], access: ProviderAccess, since: datetime
) -> list[UnmatchedCharge]:
    """Charges under the shop's keys without a payment row.  Raises ValueError for a replica.

    The provider's transactions are read before the database: a payment's row is committed before
    the provider is called, so a transaction without a row has lost it in the restore.
    """
    if since.tzinfo is None:
        raise ValueError("--since needs a time zone offset, such as 2026-11-23T12:00:00+0000")
    listed = provider_transactions.list_transactions(access, since=since - CLOCK_SKEW_MAX)
    candidates = [*_captured(listed, since), *_not_captured(access)]
    if connection.execute(IS_REPLICA).fetchone() != (False,):
        raise ValueError("the database is in recovery, or is a replica")
    keys = [charge.key for charge in candidates]
    known = {key for (key,) in connection.execute(KNOWN, {"keys": keys})}
    connection.commit()
    return [charge for charge in candidates if charge.key not in known]


def _captured(entries: Iterable[ProviderTransaction], since: datetime) -> Iterable[UnmatchedCharge]:
    """Charges captured since the restore time, each with all its refunds."""
    charges: dict[str, list[ProviderTransaction]] = defaultdict(list)
    refunds: dict[str, list[ProviderTransaction]] = defaultdict(list)
    for entry in entries:
        by_charge = charges if entry.kind == "charge" else refunds
        by_charge[entry.charge_key].append(entry)
    for key, captures in charges.items():
        is_ours = key.startswith(unmatched_charges.KEY_PREFIX)
        if is_ours and captures[0].at >= since - CLOCK_SKEW_MAX:
            yield UnmatchedCharge(
                key=key,
                amount_minor=captures[0].amount_minor,
                currency=captures[0].currency,
                provider_ref=captures[0].provider_ref,
                refunded_minor=sum(refund.amount_minor for refund in refunds[key]),
                refund_keys=tuple(refund.key for refund in refunds[key]),
                captures=len(captures),
            )


def _not_captured(access: ProviderAccess) -> list[UnmatchedCharge]:
    """Declined, voided and pending charges, which only the payment simulator lists."""
    if access.kind != "sandbox":
        return []
    return [
        UnmatchedCharge(key, 0, None, "", status=status)
        for key, _, status in provider_transactions.external_records(access).charges
        if key.startswith(unmatched_charges.KEY_PREFIX) and status != "CAPTURED"
    ]


def _close(provider: Provider, charge: UnmatchedCharge) -> str:
    """Refunds or cancels a charge; the reason if it stays open, else the empty string."""
    if charge.captures > 1:
        return f"charged {charge.captures} times: needs a manual refund"
    if charge.status not in FINAL_STATUSES:
        # a cancel may lose against a capture, so the charge is read again before it is closed
        provider.cancel(_charge_call(charge))
        return "was pending: run this again"
    if not charge.remaining_minor:
        return ""
    assert charge.currency is not None, "a captured charge has a currency"
    call = RefundCall(
        key=unmatched_charges.refund_key(charge.key),
        charge_key=charge.key,
        provider_ref=charge.provider_ref,
        amount_minor=charge.remaining_minor,
        currency=charge.currency,
    )
    outcome = provider.refund(call)
    return "" if outcome.kind == "succeeded" else f"{outcome.kind}: {outcome.reason or 'no reason'}"


def _charge_call(charge: UnmatchedCharge) -> ChargeCall:
    payment_id = charge.key.removeprefix(unmatched_charges.KEY_PREFIX)
    return ChargeCall(charge.key, charge.amount_minor, charge.currency or "", "", "", payment_id)


def _record(connection: psycopg.Connection[TupleRow], charge: UnmatchedCharge) -> None:
    """Inserts the charge's row and resolves the operator alerts about it in one transaction."""
    record = unmatched_charges.record(
        provider_key=charge.key, amount_minor=charge.amount_minor, currency=charge.currency
    )
    connection.execute(record.sql, record.parameters)
    about = {"ghost_charge": [charge.key], "ghost_refund": list(charge.refund_keys)}
    for kind, subjects in about.items():
        resolve = operator_alerts.resolve_about(kind, subjects)
        connection.execute(resolve.sql, resolve.parameters)
    connection.commit()


def _show(results: list[tuple[UnmatchedCharge, str]], *, as_json: bool) -> None:
    if as_json:
        show_json([vars(charge) | {"state": state} for charge, state in results])
        return
    show_table(
        ("charge", "amount", "currency", "refunded before", "state"),
        [(c.key, c.amount_minor, c.currency, c.refunded_minor, state) for c, state in results],
    )
    print(f"{len(results)} unmatched charges")
