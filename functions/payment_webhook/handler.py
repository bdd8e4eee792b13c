"""Take the provider's signed notice: the same truth as its answers, by another way."""

from __future__ import annotations

from typing import Any

from shop import crash, inbox, saga
from shop.db import Transaction
from shop.errors import Refused
from shop.message import OpenTransaction, Reply, Request
from shop.ordering import lifecycle, payments, refunds
from shop.provider.webhook import WebhookNotice, verify


def take_notice(request: Request, open_transaction: OpenTransaction) -> Reply:
    """204 when applied, repeated or none of our business; 202 when it was not believed and alarmed.

    401 without a fresh and right signature, 422 for a key that is not ours.
    """
    secret = request.settings.payment_webhook_secret.reveal()
    notice = verify(request.headers, request.raw_body, secret, request.now)
    if notice.kind == "ignored":
        return Reply(204)
    with open_transaction() as tx:
        if not _is_new(tx, request, notice):
            return Reply(204)
        crash.point("W1")
        effects = _apply(tx, notice)
    is_doubtful = any(isinstance(effect, lifecycle.Alarm) for effect in effects)
    return Reply(202 if is_doubtful else 204)


def _is_new(tx: Transaction, request: Request, notice: WebhookNotice) -> bool:
    statement, parameters = inbox.claim(
        consumer="payment_webhook",
        source=f"/provider/{request.settings.payment_provider}",
        event_id=notice.event_id,
    )
    return tx.one(statement, **parameters) is not None


def _apply(tx: Transaction, notice: WebhookNotice) -> lifecycle.Effects:
    question = refunds.ORDER_OF_KEY if notice.is_refund else payments.ORDER_OF_KEY
    row = tx.one(question, provider_key=notice.key)
    if row is None:
        raise Refused(422, "UNKNOWN_KEY", "this key is not one of ours")
    return saga.tell(tx, row.order_id, _message(notice, row)).effects


def _message(notice: WebhookNotice, row: Any) -> Any:
    match notice.kind:
        case "captured":
            return lifecycle.Captured(
                row.payment_id, notice.amount_minor, notice.currency, notice.provider_ref
            )
        case "declined":
            return lifecycle.Declined(row.payment_id)
        case "voided":
            return lifecycle.Voided(row.payment_id)
        case "succeeded":
            return lifecycle.Refunded(row.refund_id, notice.amount_minor, notice.currency)
        case "rejected":
            return lifecycle.RefundRejected(row.refund_id)
    raise Refused(400, "BAD_NOTICE", "this kind of notice is not known")
