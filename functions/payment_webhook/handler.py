"""Applies a payment provider's signed webhook to its order, as the response to a call is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from events.payments import PaymentConfirmRequested
from shop import unmatched_charges
from shop.adapters.payment_provider.toss_objects import payment_of_webhook
from shop.adapters.payment_provider.webhook import WebhookNotice, read_event, verify
from shop.messaging import inbox, outbox
from shop.orders import apply, messages, payments, provider_records, refunds
from shop.orders.effects import RaiseAlert
from shop.orders.provider_records import OrderMessage
from shop.primitives import failpoints
from shop.primitives.errors import ClientError, Unavailable
from shop.primitives.failpoints import Failpoint
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import ProviderTransaction
    from shop.runtime.request_context import RequestContext


def handle_webhook(request: Request[None, None], context: RequestContext) -> Response:
    """204 when applied, repeated or irrelevant; 202 when it raised an operator alert.

    401 without a valid and recent signature, 422 for a key of ours without a row, 503 for a refund
    or dispute whose charge is not recorded yet: the provider sends it again.  Those of Toss
    Payments are not signed: 200, and the shop asks the provider itself.
    """
    if context.settings.payment_provider == "toss":
        return _handle_hint(request, context)
    secret = context.settings.payment_webhook_secret.reveal()
    notice = verify(request.headers, request.raw_body, secret, request.now)
    if notice.kind == "ignored":
        return Response(204)
    with context.transaction() as tx:
        found = _message_of(tx, notice)
        if found is None or not _is_new(tx, notice, provider=context.settings.payment_provider):
            return Response(204)
        failpoints.hit(Failpoint.CLAIMED)
        applied = apply.apply_message(tx, found.order_id, found.message)
    has_alert = any(isinstance(effect, RaiseAlert) for effect in applied.effects)
    return Response(202 if has_alert else 204)


def _handle_hint(request: Request[None, None], context: RequestContext) -> Response:
    """Has the payment that a webhook names read at the provider; nothing else in it is believed."""
    payment_id = payment_of_webhook(read_event(request.raw_body))
    if payment_id is not None:
        with context.transaction() as tx:
            found = tx.fetch_one(payments.make_payment_due(payment_id))
            if found is not None:
                event = PaymentConfirmRequested(order_id=found.order_id, payment_id=payment_id)
                statement, _ = outbox.emit(tx, event)
                tx.execute(statement)
    return Response(200)


def _is_new(tx: Transaction, notice: WebhookNotice, *, provider: str) -> bool:
    claim = inbox.claim(
        consumer="payment_webhook",
        source=f"/provider/{provider}",
        event_id=notice.event_id,
    )
    return tx.fetch_one(claim) is not None


def _message_of(tx: Transaction, notice: WebhookNotice) -> OrderMessage | None:
    """The message about a notice; None for one of another shop on the same account."""
    if notice.entry is not None:
        return _message_of_entry(tx, notice.entry)
    if notice.kind == "rejected":
        return _message_of_rejection(tx, notice)
    payment = tx.fetch_one(payments.with_key(notice.key))
    if payment is None:
        if unmatched_charges.is_key_of_shop(notice.key):
            raise _unknown_key()
        return None
    return OrderMessage(payment.order_id, _payment_message(payment.payment_id, notice))


def _message_of_entry(tx: Transaction, entry: ProviderTransaction) -> OrderMessage | None:
    found = provider_records.message_of(tx, entry)
    if found is None and provider_records.has_key_of_shop(entry):
        raise _unknown_key()
    if found is not None and found.is_early:
        raise Unavailable("the charge of this refund or dispute is not recorded yet")
    return found


def _message_of_rejection(tx: Transaction, notice: WebhookNotice) -> OrderMessage | None:
    refund = tx.fetch_one(refunds.with_key(notice.key))
    if refund is None:
        if refunds.id_of_key(notice.key) is not None:
            raise _unknown_key()
        return None
    return OrderMessage(refund.order_id, messages.RefundRejected(refund.refund_id))


def _payment_message(payment_id: UUID, notice: WebhookNotice) -> messages.Message:
    match notice.kind:
        case "captured":
            return messages.Captured(
                payment_id, notice.amount_minor, notice.currency, notice.provider_ref
            )
        case "declined":
            return messages.Declined(payment_id)
        case "voided":
            return messages.Voided(payment_id)
        case _:
            raise ClientError(400, "BAD_NOTICE", "this kind of notice is not known")


def _unknown_key() -> ClientError:
    return ClientError(422, "UNKNOWN_KEY", "this key is not one of ours")
