"""Take the provider's signed notice: the same truth as its answers, by another way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shop.adapters.db import Transaction
from shop.adapters.payment_provider.webhook import WebhookNotice, verify
from shop.messaging import inbox
from shop.orders import apply, decide, payments, refunds
from shop.primitives import failpoints
from shop.primitives.errors import ClientError
from shop.primitives.failpoints import Failpoint
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from shop.runtime.request_context import RequestContext


def handle_webhook(request: Request[None, None], context: RequestContext) -> Response:
    """204 when applied, repeated or none of our business; 202 when it was not believed and alarmed.

    401 without a fresh and right signature, 422 for a key that is not ours.
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
    is_doubtful = any(isinstance(effect, decide.OperatorAlert) for effect in effects)
    return Response(202 if is_doubtful else 204)


def _is_new(tx: Transaction, notice: WebhookNotice, *, provider: str) -> bool:
    statement, parameters = inbox.claim(
        consumer="payment_webhook",
        source=f"/provider/{provider}",
        event_id=notice.event_id,
    )
    return tx.one(statement, **parameters) is not None


def _apply(tx: Transaction, notice: WebhookNotice) -> decide.Effects:
    question = refunds.ORDER_OF_KEY if notice.is_refund else payments.ORDER_OF_KEY
    row = tx.one(question, provider_key=notice.key)
    if row is None:
        raise ClientError(422, "UNKNOWN_KEY", "this key is not one of ours")
    return apply.apply_message(tx, row.order_id, _message(notice, row)).effects


def _message(notice: WebhookNotice, row: Any) -> Any:
    match notice.kind:
        case "captured":
            return decide.Captured(
                row.payment_id, notice.amount_minor, notice.currency, notice.provider_ref
            )
        case "declined":
            return decide.Declined(row.payment_id)
        case "voided":
            return decide.Voided(row.payment_id)
        case "succeeded":
            return decide.Refunded(row.refund_id, notice.amount_minor, notice.currency)
        case "rejected":
            return decide.RefundRejected(row.refund_id)
    raise ClientError(400, "BAD_NOTICE", "this kind of notice is not known")
