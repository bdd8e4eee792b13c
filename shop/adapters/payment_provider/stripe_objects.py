"""Reads Stripe's refunds and disputes, which its lists and its webhooks show in the same form.

Without the official library, since webhooks are read by a function that does not need it.
"""

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
from shop.adapters.payment_provider.stripe_currency import amount_from_stripe
from shop.primitives.statuses import DisputeStatus, PostingKind

# https://docs.stripe.com/api/disputes/object: an inquiry (warning_...) withdraws nothing
_STATUSES = {
    "won": DisputeStatus.WON,
    "warning_closed": DisputeStatus.WON,
    "lost": DisputeStatus.LOST,
}


def kind_of_refund(refund: dict[str, object]) -> EntryKind | None:
    """What a refund in a final status is; None while it is pending or requires an action."""
    match refund.get("status"):
        case "succeeded":
            return "refund"
        case "failed" | "canceled":
            return "failed_refund"
        case _:
            return None


def read_refund(refund: dict[str, object]) -> ProviderTransaction | None:
    """A refund in a final status; None for another, or in a currency that the shop cannot have.

    A refund made in the dashboard has no metadata of the shop: its key is Stripe's id.
    """
    provider_ref, currency = text_in(refund.get("id")), currency_in(refund.get("currency"))
    amount_minor = amount_from_stripe(amount_in(refund.get("amount")), currency)
    created = amount_in(refund.get("created"))
    kind = kind_of_refund(refund)
    if not (kind and provider_ref and currency and amount_minor and created):
        return None
    return ProviderTransaction(
        kind=kind,
        key=text_in(_metadata(refund, "shop_key")) or provider_ref,
        charge_key=text_in(_metadata(refund, "charge_key")) or "",
        charge_ref=_charge_ref(refund),
        amount_minor=amount_minor,
        currency=currency,
        provider_ref=provider_ref,
        at=datetime.fromtimestamp(created, UTC),
    )


def read_dispute(dispute: dict[str, object]) -> ProviderTransaction | None:
    """A dispute with what its balance transactions moved; None when a field is invalid."""
    provider_ref, currency = text_in(dispute.get("id")), currency_in(dispute.get("currency"))
    amount_minor = amount_from_stripe(amount_in(dispute.get("amount")), currency)
    created, listed = amount_in(dispute.get("created")), dispute.get("balance_transactions")
    if not (provider_ref and currency and amount_minor and created):
        return None
    opened_at = datetime.fromtimestamp(created, UTC)
    balance = cast("list[object]", listed) if isinstance(listed, list) else []
    return ProviderTransaction(
        kind="dispute",
        key=provider_ref,
        charge_key="",
        charge_ref=_charge_ref(dispute),
        amount_minor=amount_minor,
        currency=currency,
        provider_ref=provider_ref,
        at=opened_at,
        dispute=DisputeReport(
            _STATUSES.get(str(dispute.get("status")), DisputeStatus.OPEN),
            tuple(
                moved
                for item in balance
                for moved in _moved(object_in(item) or {}, amount_minor, currency, opened_at)
            ),
        ),
    )


def _moved(
    balance: dict[str, object], disputed_minor: int, currency: str, opened_at: datetime
) -> list[DisputeTransaction]:
    """One balance transaction: the disputed amount, in the charge's currency, and the fee.

    The balance may be in another currency than the charge; the fee is in the balance's.
    """
    created = amount_in(balance.get("created"))
    at = datetime.fromtimestamp(created, UTC) if created else opened_at
    found: list[DisputeTransaction] = []
    if sign := _sign(balance.get("amount")):
        kind = PostingKind.DISPUTE if sign < 0 else PostingKind.DISPUTE_REVERSAL
        found.append(DisputeTransaction(kind, disputed_minor, currency, at))
    fee, fee_currency = balance.get("fee"), currency_in(balance.get("currency"))
    if isinstance(fee, int) and (sign := _sign(fee)) and fee_currency:
        fee_minor = amount_from_stripe(amount_in(abs(fee)), fee_currency)
        kind = PostingKind.DISPUTE_FEE if sign > 0 else PostingKind.DISPUTE_FEE_REVERSAL
        if fee_minor:
            found.append(DisputeTransaction(kind, fee_minor, fee_currency, at))
    return found


def _sign(value: object) -> int:
    """-1, 0 or 1; 0 for what is not a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return (value > 0) - (value < 0)


def _charge_ref(item: dict[str, object]) -> str:
    """The PaymentIntent, as in the outcome of a charge; a charge without one is of another shop."""
    return text_in(item.get("payment_intent")) or text_in(item.get("charge")) or ""


def _metadata(item: dict[str, object], name: str) -> object:
    return (object_in(item.get("metadata")) or {}).get(name)
