"""Reads the payment provider's transactions for the checker and the operator's commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from shop.adapters.payment_provider.factory import open_provider
from shop.adapters.payment_provider.protocol import ProviderTransaction
from shop.adapters.payment_provider.simulator_objects import read_transaction
from shop.primitives.errors import Unavailable
from shop.unmatched_charges import is_key_of_shop
from tools.checker.evaluate import ChargeRow, DisputeRow, ExternalRecords, RefundRow

TIMEOUT_SECONDS = 30.0
PAGE_SIZE = 500


@dataclass(frozen=True, repr=False)
class ProviderAccess:
    """Access to the provider: ``kind`` as in PAYMENT_PROVIDER, address and API key."""

    kind: str
    url: str
    api_key: str


def list_transactions(
    access: ProviderAccess, *, since: datetime | None = None, until: datetime | None = None
) -> list[ProviderTransaction]:
    """Every charge, refund and dispute that the provider lists from ``since`` to ``until``, once.

    Refunds that failed are left out, also those that had succeeded before: the money was not given
    back.  Some transactions outside the range may be included.  Without ``since`` Stripe lists its
    last seven days.  Raises ValueError for an invalid access, Unavailable when the provider does
    not respond or rejects the key.
    """
    provider = open_provider(access.kind, access.url, access.api_key, TIMEOUT_SECONDS)
    listed: dict[tuple[str, str, str], ProviderTransaction] = {}
    cursor, has_more = _first_cursor(access, since), True
    while has_more:
        page = provider.list_since(cursor, PAGE_SIZE)
        if page.invalid:
            raise Unavailable(f"the payment provider lists an invalid entry: {page.invalid[0]}")
        for entry in page.entries:
            listed.setdefault((entry.kind, entry.key, entry.provider_ref), entry)
        cursor, has_more = page.next_cursor, page.has_more
        if until and page.entries and min(entry.at for entry in page.entries) > until:
            break
    failed = {each.provider_ref for each in listed.values() if each.kind == "failed_refund"}
    return [entry for entry in listed.values() if entry.provider_ref not in failed]


def _first_cursor(access: ProviderAccess, since: datetime | None) -> str:
    """Stripe's cursor is a timestamp; the payment simulator counts from its first entry."""
    return str(int(since.timestamp())) if since and access.kind == "stripe" else ""


def external_records(access: ProviderAccess) -> ExternalRecords:
    """All charges and refunds of the provider, as rows of ``psp_charges`` and ``psp_refunds``.

    The payment simulator also lists charges without a capture, other providers do not.
    """
    if access.kind == "sandbox":
        return _simulator_records(access)
    charges: dict[str, ChargeRow] = {}
    refunds: list[RefundRow] = []
    for entry in list_transactions(access):
        if not is_key_of_shop(entry.charge_key) or entry.kind == "dispute":
            continue
        if entry.kind == "refund":
            refunds.append((entry.key, entry.charge_key, entry.amount_minor))
            continue
        key = f"{entry.key} again {len(charges)}" if entry.key in charges else entry.key
        charges[key] = (key, entry.amount_minor, "CAPTURED")
    return ExternalRecords(tuple(charges.values()), number_repeated_refunds(refunds))


def _simulator_records(access: ProviderAccess) -> ExternalRecords:
    headers = {"Authorization": f"Bearer {access.api_key}"}
    try:
        response = httpx.get(
            f"{access.url.rstrip('/')}/records", headers=headers, timeout=TIMEOUT_SECONDS
        )
        response.raise_for_status()
        document = response.json()
        charges, refunds = provider_records(document["intents"], document["refunds"])
        disputes = dispute_records(document["disputes"])
        return ExternalRecords(charges, refunds, disputes=disputes)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise Unavailable(f"cannot read the payment provider's transactions: {error}") from error


# Any: the rows are JSON objects of the payment simulator; a missing field raises KeyError.
def provider_records(
    intents: Iterable[Mapping[str, Any]], refunds: Iterable[Mapping[str, Any]]
) -> tuple[tuple[ChargeRow, ...], tuple[RefundRow, ...]]:
    """The payment simulator's records as rows of ``psp_charges`` and ``psp_refunds``.

    A key may have several intents after the simulator discarded it.  A capture has precedence.  A
    second capture gets a new key without a payment row, so that the invariants report it.  Those of
    other shops on the same account are left out.
    """
    charges: dict[str, ChargeRow] = {}
    for intent in intents:
        if not is_key_of_shop(intent["key"]):
            continue
        key, status = intent["key"], intent["status"].upper()
        is_captured = charges.get(key, ("", 0, ""))[2] == "CAPTURED"
        if is_captured and status == "CAPTURED":
            key = f"{key} again {len(charges)}"
        if not is_captured or status == "CAPTURED":
            charges[key] = (key, intent["amount_minor"], status)
    succeeded = [
        (r["key"], r["charge_key"], r["amount_minor"])
        for r in refunds
        if r["status"] == "succeeded" and is_key_of_shop(r["charge_key"])
    ]
    return tuple(charges.values()), number_repeated_refunds(succeeded)


# Any: as in ``provider_records``
def dispute_records(disputes: Iterable[Mapping[str, Any]]) -> tuple[DisputeRow, ...]:
    """What the payment simulator's disputes moved, as rows of ``psp_disputes``."""
    rows: list[DisputeRow] = []
    for dispute in disputes:
        entry = read_transaction("dispute", dict(dispute))
        if entry is None or entry.dispute is None:
            raise ValueError(f"invalid dispute {dispute}")
        if is_key_of_shop(entry.charge_key):
            rows += [
                (entry.key, entry.charge_key, moved.kind, moved.amount_minor)
                for moved in entry.dispute.transactions
            ]
    return tuple(rows)


def number_repeated_refunds(refunds: Iterable[RefundRow]) -> tuple[RefundRow, ...]:
    """Gives each repeated refund a new key without a refund row, so that invariants report it."""
    times: Counter[str] = Counter()
    numbered: list[RefundRow] = []
    for key, charge_key, amount_minor in refunds:
        times[key] += 1
        unique_key = f"{key} again {times[key]}" if times[key] > 1 else key
        numbered.append((unique_key, charge_key, amount_minor))
    return tuple(numbered)
