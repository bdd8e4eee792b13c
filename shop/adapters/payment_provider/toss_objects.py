"""Reads Toss Payments' payments and their cancellations, and what its webhooks are about."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import cast
from uuid import UUID

from shop.adapters.payment_provider.protocol import ProviderTransaction
from shop.adapters.payment_provider.response_fields import (
    amount_in,
    currency_in,
    object_in,
    text_in,
)
from shop.primitives.ids import parse_uuid

KOREA = timezone(timedelta(hours=9))


def moment_in(value: object) -> datetime | None:
    """A time with its offset (ISO 8601), or None."""
    text = text_in(value)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=KOREA)


def cancels_of(payment: dict[str, object]) -> list[dict[str, object]]:
    """The cancellations of a payment."""
    listed = payment.get("cancels")
    items = cast("list[object]", listed) if isinstance(listed, list) else []
    return [item for value in items if (item := object_in(value)) is not None]


def read_refunds(payment: dict[str, object]) -> list[ProviderTransaction]:
    """The refunds of a collected payment; one of the dashboard has its transaction as its key."""
    charge_ref, order_id = text_in(payment.get("paymentKey")), text_in(payment.get("orderId"))
    currency = currency_in(payment.get("currency"))
    if not (charge_ref and order_id and currency and payment.get("approvedAt")):
        return []
    refunds: list[ProviderTransaction] = []
    for item in cancels_of(payment):
        ref, at = text_in(item.get("transactionKey")), moment_in(item.get("canceledAt"))
        amount_minor, reason = (
            amount_in(item.get("cancelAmount")),
            text_in(item.get("cancelReason")),
        )
        if not (ref and at and amount_minor) or item.get("cancelStatus", "DONE") != "DONE":
            continue
        key = reason if reason and _is_key(reason) else ref
        refunds.append(
            ProviderTransaction(
                "refund", key, f"shop:{order_id}", charge_ref, amount_minor, currency, ref, at
            )
        )
    return refunds


def payment_of_webhook(event: dict[str, object]) -> UUID | None:
    """The id of the payment that a webhook is about; None when it is about none of a shop's.

    ``PAYMENT_STATUS_CHANGED`` has the payment as its data, ``DEPOSIT_CALLBACK`` the order id.
    """
    data = object_in(event.get("data")) or event
    return parse_uuid(text_in(data.get("orderId")) or "")


def _is_key(reason: str) -> bool:
    """Whether the shop has made a cancellation: its keys have a prefix and an id."""
    prefix, _, text = reason.rpartition(":")
    return bool(prefix) and parse_uuid(text) is not None
