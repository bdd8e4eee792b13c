"""Verifies the signature of a provider's webhook and reads its event.

Both providers sign in the same way, ``t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`` over the
bytes as received, in ``Webhook-Signature`` (simulator) or ``Stripe-Signature``
(https://docs.stripe.com/webhooks#verify-manually).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from events.records import frozen
from shop.adapters.payment_provider.protocol import ProviderTransaction
from shop.adapters.payment_provider.response_fields import (
    amount_in,
    currency_in,
    object_in,
    text_in,
)
from shop.adapters.payment_provider.simulator_objects import read_transaction
from shop.adapters.payment_provider.stripe_currency import amount_from_stripe
from shop.adapters.payment_provider.stripe_objects import read_dispute, read_refund
from shop.primitives.errors import ClientError

AGE_SECONDS_MAX = 300
TIMESTAMP_DIGITS_MAX = 12
SIGNATURES_MAX = 8

NoticeKind = Literal[
    "captured", "declined", "voided", "succeeded", "rejected", "dispute", "ignored"
]

_SIMULATOR_KINDS: dict[str, NoticeKind] = {
    "charge.captured": "captured",
    "charge.declined": "declined",
    "charge.voided": "voided",
    "refund.succeeded": "succeeded",
    "refund.rejected": "rejected",
    "dispute.opened": "dispute",
    "dispute.won": "dispute",
    "dispute.lost": "dispute",
}
_STRIPE_INTENT_KINDS: dict[str, NoticeKind] = {
    "payment_intent.succeeded": "captured",
    "payment_intent.payment_failed": "declined",
    "payment_intent.canceled": "voided",
}
_STRIPE_REFUND_EVENTS = ("refund.created", "refund.updated", "refund.failed")
_STRIPE_REFUND_KINDS: dict[str, NoticeKind] = {
    "succeeded": "succeeded",
    "failed": "rejected",
    "canceled": "rejected",
}
_STRIPE_DISPUTE_PREFIX = "charge.dispute."


@frozen
class WebhookNotice:
    """What a webhook reports; the caller compares it with the payment or refund.

    ``key`` is the charge's or the refund's idempotency key, and the provider's own reference of
    what has none. ``entry`` is set for an executed refund and a dispute, as the provider's list has
    it. ``ignored`` notices are authentic but not relevant (another type, another shop's payment):
    their key is empty, their amount 0.
    """

    event_id: str
    kind: NoticeKind
    key: str
    amount_minor: int
    currency: str
    provider_ref: str
    entry: ProviderTransaction | None = None


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> WebhookNotice:
    """The notice of an authentic webhook.

    Raises ClientError 401 when the signature is missing, wrong, or more than five minutes before or
    after ``now``, and 400 when an authentic body is not what the provider documents. Duplicates are
    detected by the inbox, not here.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    simulator, stripe = lowered.get("webhook-signature"), lowered.get("stripe-signature")
    if (simulator is None) == (stripe is None):
        raise _not_authentic("exactly one signature header is needed")
    _check_signature(simulator or stripe or "", body, secret, now)
    event = read_event(body)
    return _simulator_notice(event) if simulator is not None else _stripe_notice(event)


def _check_signature(header: str, body: bytes, secret: str, now: datetime) -> None:
    if not secret:
        raise _not_authentic("no webhook secret is set")
    pairs = [item.strip().partition("=")[::2] for item in header.split(",")]
    times = [value for name, value in pairs if name == "t"]
    signatures = [value for name, value in pairs if name == "v1"][:SIGNATURES_MAX]
    if len(times) != 1 or not signatures:
        raise _not_authentic("the signature header is unreadable")
    stamp = times[0]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= TIMESTAMP_DIGITS_MAX):
        raise _not_authentic("the signature's time is unreadable")
    signed = stamp.encode() + b"." + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()
    # Every signature is compared in constant time; during a rotation of the secret there are two.
    if not any([hmac.compare_digest(expected, given.encode()) for given in signatures]):
        raise _not_authentic("the signature is wrong")
    if abs(now.timestamp() - int(stamp)) > AGE_SECONDS_MAX:
        raise _not_authentic("the signature is too old or too far ahead")


def read_event(body: bytes) -> dict[str, object]:
    """The JSON object of a webhook's body; ClientError 400 when it is none."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _malformed("the body is not JSON") from error
    event = object_in(value)
    if event is None:
        raise _malformed("the body is not a JSON object")
    return event


def _simulator_notice(event: dict[str, object]) -> WebhookNotice:
    event_id, event_type = text_in(event.get("id")), text_in(event.get("type"))
    data = object_in(event.get("data"))
    if event_id is None or event_type is None or data is None:
        raise _malformed("id, type or data is missing")
    kind = _SIMULATOR_KINDS.get(event_type)
    if kind is None:
        return _ignored(event_id)
    if kind in ("succeeded", "dispute"):
        dated = {"at": event.get("created"), **data}
        entry = read_transaction("refund" if kind == "succeeded" else "dispute", dated)
        if entry is None:
            raise _malformed("a field of the refund or dispute is missing or unreadable")
        return _entry_notice(event_id, kind, entry)
    amount_minor = amount_in(data.get("amount_minor"))
    return _notice(event_id, kind, data, amount_minor, data.get("provider_ref"), data.get("key"))


def _stripe_notice(event: dict[str, object]) -> WebhookNotice:
    event_id, event_type = text_in(event.get("id")), text_in(event.get("type"))
    data = object_in(event.get("data")) or {}
    item = object_in(data.get("object"))
    if event_id is None or event_type is None or item is None:
        raise _malformed("id, type or data.object is missing")
    if event_type.startswith(_STRIPE_DISPUTE_PREFIX):
        entry = read_dispute(item)
        return _entry_notice(event_id, "dispute", entry) if entry else _ignored(event_id)
    if event_type in _STRIPE_REFUND_EVENTS:
        return _stripe_refund_notice(event_id, item)
    kind = _STRIPE_INTENT_KINDS.get(event_type)
    key = (object_in(item.get("metadata")) or {}).get("shop_key")
    if kind is None or key is None:
        return _ignored(event_id)
    amount = item.get("amount_received") if kind == "captured" else item.get("amount")
    amount_minor = amount_from_stripe(amount_in(amount), currency_in(item.get("currency")))
    return _notice(event_id, kind, item, amount_minor, item.get("id"), key)


def _stripe_refund_notice(event_id: str, refund: dict[str, object]) -> WebhookNotice:
    kind = _STRIPE_REFUND_KINDS.get(str(refund.get("status")))
    if kind is None:
        return _ignored(event_id)
    if kind == "succeeded":
        entry = read_refund(refund)
        return _entry_notice(event_id, kind, entry) if entry else _ignored(event_id)
    key = (object_in(refund.get("metadata")) or {}).get("shop_key") or refund.get("id")
    amount = amount_in(refund.get("amount"))
    amount_minor = amount_from_stripe(amount, currency_in(refund.get("currency")))
    return _notice(event_id, kind, refund, amount_minor, refund.get("id"), key)


def _entry_notice(event_id: str, kind: NoticeKind, entry: ProviderTransaction) -> WebhookNotice:
    amount = (entry.amount_minor, entry.currency)
    return WebhookNotice(event_id, kind, entry.key, *amount, entry.provider_ref, entry)


def _notice(
    event_id: str,
    kind: NoticeKind,
    data: dict[str, object],
    amount_minor: int | None,
    provider_ref: object,
    key: object,
) -> WebhookNotice:
    currency, ref, known_key = (
        currency_in(data.get("currency")),
        text_in(provider_ref),
        text_in(key),
    )
    if amount_minor is None or currency is None or ref is None or known_key is None:
        raise _malformed("key, amount, currency or reference is missing or unreadable")
    return WebhookNotice(event_id, kind, known_key, amount_minor, currency, ref)


def _ignored(event_id: str) -> WebhookNotice:
    return WebhookNotice(event_id, "ignored", "", 0, "", "")


def _not_authentic(message: str) -> ClientError:
    return ClientError(401, "INVALID_SIGNATURE", message)


def _malformed(message: str) -> ClientError:
    return ClientError(400, "MALFORMED_WEBHOOK", message)
