"""Reads the payment simulator's objects, which its list and its webhooks show in the same form."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from shop.adapters.payment_provider.protocol import (
    DisputeReport,
    DisputeTransaction,
    EntryKind,
    ProviderTransaction,
)
from shop.adapters.payment_provider.response_fields import (
    amount_in,
    currency_in,
    object_in,
    text_in,
)
from shop.primitives.statuses import DisputeStatus, PostingKind

_STATUSES = {status.lower(): status for status in DisputeStatus}
_KINDS = {
    "withdrawn": PostingKind.DISPUTE,
    "reinstated": PostingKind.DISPUTE_REVERSAL,
    "fee": PostingKind.DISPUTE_FEE,
    "fee_reversed": PostingKind.DISPUTE_FEE_REVERSAL,
}


def read_transaction(kind: EntryKind, item: dict[str, object]) -> ProviderTransaction | None:
    """A charge, refund or dispute; None when a field is missing or invalid."""
    key, charge_key = text_in(item.get("key")), text_in(item.get("charge_key"))
    amount_minor, currency = amount_in(item.get("amount_minor")), currency_in(item.get("currency"))
    provider_ref, at = text_in(item.get("provider_ref")), amount_in(item.get("at"))
    charge_ref = text_in(item.get("charge_ref")) or (provider_ref if kind == "charge" else None)
    report = _read_report(item) if kind == "dispute" else None
    if not (key and charge_key and charge_ref and amount_minor and currency and provider_ref):
        return None
    if at is None or (kind == "dispute" and report is None):
        return None
    return ProviderTransaction(
        kind=kind,
        key=key,
        charge_key=charge_key,
        charge_ref=charge_ref,
        amount_minor=amount_minor,
        currency=currency,
        provider_ref=provider_ref,
        at=datetime.fromtimestamp(at, UTC),
        dispute=report,
    )


def _read_report(item: dict[str, object]) -> DisputeReport | None:
    status, listed = _STATUSES.get(str(item.get("status"))), item.get("transactions")
    if status is None or not isinstance(listed, list):
        return None
    moved = [_read_moved(object_in(value) or {}) for value in cast("list[object]", listed)]
    known = tuple(each for each in moved if each is not None)
    return DisputeReport(status, known) if len(known) == len(moved) else None


def _read_moved(item: dict[str, object]) -> DisputeTransaction | None:
    kind, at = _KINDS.get(str(item.get("kind"))), amount_in(item.get("at"))
    amount_minor, currency = amount_in(item.get("amount_minor")), currency_in(item.get("currency"))
    if not (kind and amount_minor and currency and at):
        return None
    return DisputeTransaction(kind, amount_minor, currency, datetime.fromtimestamp(at, UTC))
