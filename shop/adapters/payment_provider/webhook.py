"""Believes a provider's webhook, or refuses it.

Both providers sign alike: ``t=<unix seconds>,v1=<hex HMAC-SHA256 of "t.body">`` over the bytes as
received, in ``Webhook-Signature`` (sandbox) or ``Stripe-Signature``
(https://docs.stripe.com/webhooks#verify-manually).
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from events.records import frozen
from shop.adapters.payment_provider.response_fields import amount_in, currency_in, text_in
from shop.adapters.payment_provider.stripe_currency import amount_from_stripe
from shop.primitives.errors import ClientError

AGE_SECONDS_MAX = 300
TIMESTAMP_DIGITS_MAX = 12
SIGNATURES_MAX = 8

NoticeKind = Literal["captured", "declined", "voided", "succeeded", "rejected", "ignored"]

_SANDBOX_KINDS: dict[str, tuple[NoticeKind, bool]] = {
    "charge.captured": ("captured", False),
    "charge.declined": ("declined", False),
    "charge.voided": ("voided", False),
    "refund.succeeded": ("succeeded", True),
    "refund.rejected": ("rejected", True),
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


@frozen
class WebhookNotice:
    """What a provider says happened; to be compared with our rows like any answer.

    ``key`` is the charge's or the refund's idempotency key. ``ignored`` notices are authentic but
    none of our business (another type, another shop's payment): their key is empty, their amount 0.
    """

    event_id: str
    kind: NoticeKind
    key: str
    amount_minor: int
    currency: str
    provider_ref: str
    is_refund: bool


def verify(headers: Mapping[str, str], body: bytes, secret: str, now: datetime) -> WebhookNotice:
    """The notice in an authentic webhook.

    Raises Refused 401 when the signature is missing, wrong, or more than five minutes away from
    ``now`` in either direction, and 400 when an authentic body is not what the provider documents.
    Whether the event was seen before is the inbox's question, not ours.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    sandbox, stripe = lowered.get("webhook-signature"), lowered.get("stripe-signature")
    if (sandbox is None) == (stripe is None):
        raise _not_authentic("exactly one signature header is needed")
    _check_signature(sandbox or stripe or "", body, secret, now)
    event = _read_event(body)
    return _sandbox_notice(event) if sandbox is not None else _stripe_notice(event)


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
    # Every signature is compared (a secret being rotated sends two), each in constant time.
    if not any([hmac.compare_digest(expected, given.encode()) for given in signatures]):
        raise _not_authentic("the signature is wrong")
    if abs(now.timestamp() - int(stamp)) > AGE_SECONDS_MAX:
        raise _not_authentic("the signature is too old or too far ahead")


def _read_event(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _malformed("the body is not JSON") from error
    if not isinstance(event, dict):
        raise _malformed("the body is not a JSON object")
    return event


def _sandbox_notice(event: dict[str, Any]) -> WebhookNotice:
    event_id, event_type = text_in(event.get("id")), text_in(event.get("type"))
    data = event.get("data")
    if event_id is None or event_type is None or not isinstance(data, dict):
        raise _malformed("id, type or data is missing")
    if event_type not in _SANDBOX_KINDS:
        return _ignored(event_id)
    kind, is_refund = _SANDBOX_KINDS[event_type]
    return _notice(
        event_id, kind, data, amount_in(data.get("amount_minor")), data.get("provider_ref"),
        is_refund=is_refund, key=data.get("key"),
    )  # fmt: skip


def _stripe_notice(event: dict[str, Any]) -> WebhookNotice:
    event_id, event_type = text_in(event.get("id")), text_in(event.get("type"))
    data = event.get("data")
    thing = data.get("object") if isinstance(data, dict) else None
    if event_id is None or event_type is None or not isinstance(thing, dict):
        raise _malformed("id, type or data.object is missing")
    is_refund = event_type in _STRIPE_REFUND_EVENTS
    status = str(thing.get("status"))
    kind = _STRIPE_REFUND_KINDS.get(status) if is_refund else _STRIPE_INTENT_KINDS.get(event_type)
    metadata = thing.get("metadata")
    key = metadata.get("shop_key") if isinstance(metadata, dict) else None
    if kind is None or key is None:
        return _ignored(event_id)
    amount = thing.get("amount_received") if kind == "captured" else thing.get("amount")
    amount_minor = amount_from_stripe(amount_in(amount), currency_in(thing.get("currency")))
    return _notice(
        event_id, kind, thing, amount_minor, thing.get("id"), is_refund=is_refund, key=key
    )


def _notice(
    event_id: str,
    kind: NoticeKind,
    data: dict[str, Any],
    amount_minor: int | None,
    provider_ref: object,
    *,
    is_refund: bool,
    key: object,
) -> WebhookNotice:
    currency, ref, known_key = (
        currency_in(data.get("currency")),
        text_in(provider_ref),
        text_in(key),
    )
    if amount_minor is None or currency is None or ref is None or known_key is None:
        raise _malformed("key, amount, currency or reference is missing or unreadable")
    return WebhookNotice(event_id, kind, known_key, amount_minor, currency, ref, is_refund)


def _ignored(event_id: str) -> WebhookNotice:
    return WebhookNotice(event_id, "ignored", "", 0, "", "", is_refund=False)


def _not_authentic(message: str) -> ClientError:
    return ClientError(401, "INVALID_SIGNATURE", message)


def _malformed(message: str) -> ClientError:
    return ClientError(400, "MALFORMED_WEBHOOK", message)
