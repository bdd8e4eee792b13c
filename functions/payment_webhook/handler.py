"""Applies a payment provider's signed webhook to its order, as the response to a call is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shop.adapters.payment_provider.webhook import WebhookNotice, verify
from shop.messaging import inbox
from shop.orders import apply, messages, payments, refunds
from shop.orders.effects import Effects, RaiseAlert
from shop.primitives import failpoints
from shop.primitives.errors import ClientError
from shop.primitives.failpoints import Failpoint
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.runtime.request_context import RequestContext


def handle_webhook(request: Request[None, None], context: RequestContext) -> Response:
    """204 when applied, repeated or irrelevant; 202 when it raised an operator alert.

    401 without a valid and recent signature, 422 for a key that is not ours.
    """
    secret = context.settings.payment_webhook_secret.reveal()
    notice = verify(request.headers, request.raw_body, secret, request.now)
    if notice.kind == "ignored":
        return Response(204)
    with context.transaction() as tx:
        if not _is_new(tx, notice, provider=context.settings.payment_provider):
            return Response(204)
        failpoints.hit(Failpoint.CLAIMED)
        effects = _apply(tx, notice)
    has_alert = any(isinstance(effect, RaiseAlert) for effect in effects)
    return Response(202 if has_alert else 204)


def _is_new(tx: Transaction, notice: WebhookNotice, *, provider: str) -> bool:
    claim = inbox.claim(
        consumer="payment_webhook",
        source=f"/provider/{provider}",
        event_id=notice.event_id,
    )
    return tx.fetch_one(claim) is not None


def _apply(tx: Transaction, notice: WebhookNotice) -> Effects:
    return _apply_refund(tx, notice) if notice.is_refund else _apply_payment(tx, notice)


def _apply_payment(tx: Transaction, notice: WebhookNotice) -> Effects:
    payment = tx.fetch_one(payments.with_key(notice.key))
    if payment is None:
        raise _unknown_key()
    message: messages.Message
    match notice.kind:
        case "captured":
            message = messages.Captured(
                payment.payment_id, notice.amount_minor, notice.currency, notice.provider_ref
            )
        case "declined":
            message = messages.Declined(payment.payment_id)
        case "voided":
            message = messages.Voided(payment.payment_id)
        case _:
            raise _unknown_kind()
    return apply.apply_message(tx, payment.order_id, message).effects


def _apply_refund(tx: Transaction, notice: WebhookNotice) -> Effects:
    refund = tx.fetch_one(refunds.with_key(notice.key))
    if refund is None:
        raise _unknown_key()
    message: messages.Message
    match notice.kind:
        case "succeeded":
            message = messages.Refunded(refund.refund_id, notice.amount_minor, notice.currency)
        case "rejected":
            message = messages.RefundRejected(refund.refund_id)
        case _:
            raise _unknown_kind()
    return apply.apply_message(tx, refund.order_id, message).effects


def _unknown_key() -> ClientError:
    return ClientError(422, "UNKNOWN_KEY", "this key is not one of ours")


def _unknown_kind() -> ClientError:
    return ClientError(400, "BAD_NOTICE", "this kind of notice is not known")
