"""The adapter for Toss Payments (https://docs.tosspayments.com/reference), in KRW.

The customer pays in a widget, which gives a ``paymentKey``: the token with which the shop confirms.
Nothing is created before, and nothing is collected without that confirmation, so what was not
confirmed is void once the shop does not confirm it any more.  A virtual account is issued by the
confirmation; the customer transfers the amount to it later.

Toss Payments has no metadata: the payment's id is the ``orderId``, and a refund's key the
``cancelReason``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import cast
from urllib.parse import quote, urlencode

from shop.adapters.connection_attempts import ConnectionAttempts
from shop.adapters.payment_provider.json_api import Exchange, JsonApi, JsonResponse
from shop.adapters.payment_provider.protocol import (
    ACTION_OPTIONS_DEFAULT,
    ActionOptions,
    ChargeCall,
    Intent,
    NextAction,
    Outcome,
    ProviderTransaction,
    ProviderTransactionPage,
    RefundCall,
    RefundOutcome,
)
from shop.adapters.payment_provider.response_fields import (
    amount_in,
    currency_in,
    object_in,
    text_in,
)
from shop.adapters.payment_provider.toss_objects import KOREA, cancels_of, moment_in, read_refunds
from shop.primitives.errors import Unavailable
from shop.primitives.ids import parse_uuid
from shop.primitives.statuses import ActionType

ADDRESS = "https://api.tosspayments.com"
FIRST_LIST_SECONDS = 7 * 24 * 3600
LIST_OVERLAP_SECONDS = 3600
LIST_WINDOW_SECONDS = 6 * 3600
PAGE_LIMIT_MAX = 5_000
# Of these statuses nothing says that the request was not, or will not be, executed.
UNCLEAR = (0, 401, 408, 409, 429)


class TossProvider:
    """Has no state between calls, so threads may share it; one deadline per call, no retries."""

    def __init__(
        self,
        *,
        url: str,
        api_key: str,
        timeout_seconds: float,
        traceparent: Callable[[], str] | None = None,
        attempts: ConnectionAttempts | None = None,
        options: ActionOptions = ACTION_OPTIONS_DEFAULT,
    ) -> None:
        credentials = base64.b64encode(f"{api_key}:".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        self._api = JsonApi(url or ADDRESS, headers, timeout_seconds, traceparent, attempts)
        self._options = options

    def create(self, call: ChargeCall) -> Intent:
        """Creates nothing: the widget does, in the customer's browser."""
        with self._api.open() as exchange:
            found = self._find(exchange, call)
        if found is None or found.kind == "requires_action":
            return Intent("created")
        return Intent(found.kind, found.provider_ref, found.reason)

    def confirm(self, call: ChargeCall) -> Outcome:
        """Confirms with the customer's token."""
        return self.charge(call)

    def charge(self, call: ChargeCall) -> Outcome:
        """Confirms with the customer's token; without one, or with one that is no good, the widget.

        Looks first, so that a repeated call returns what an earlier one has led to.
        """
        if call.currency != "KRW":
            return Outcome("declined", reason="currency")
        with self._api.open() as exchange:
            found = self._find(exchange, call)
            if found is not None:
                return found
            if call.token is None:
                return self._widget(call)
            if _is_past(call.charge_not_after):
                return Outcome("unknown", reason="past charge_not_after")
            return self._confirm(exchange, call, call.token)

    def cancel(self, call: ChargeCall) -> Outcome:
        """Ends a virtual account; what was not confirmed is void already."""
        with self._api.open() as exchange:
            found = self._find(exchange, call)
            if found is None:
                return Outcome("voided", reason="not confirmed")
            if found.kind != "requires_action" or found.provider_ref is None:
                return found
            response = exchange.send(
                "POST", f"{_payment(found.provider_ref)}/cancel", {"cancelReason": call.key},
                f"void:{call.key}",
            )  # fmt: skip
            if response.status == 200:
                return self._outcome(response, call) or Outcome("voided")
            # a deposit may have come in between: it is not returned without an account to return to
            left = self._find(exchange, call) or Outcome("unknown", reason=_reason(response))
            if left.kind != "requires_action":
                return left
            return Outcome("unknown", provider_ref=left.provider_ref, reason=_reason(response))

    def find(self, call: ChargeCall) -> Outcome:
        """The payment with this order id; ``unknown`` while it was not confirmed."""
        with self._api.open() as exchange:
            return self._find(exchange, call) or Outcome("unknown", reason="not confirmed")

    def refund(self, call: RefundCall) -> RefundOutcome:
        """Cancels a part of the payment; after an error response its cancellations are read.

        What was paid to a virtual account needs the customer's account, which the shop does not
        have: ``rejected``.
        """
        body = {"cancelReason": call.key, "cancelAmount": call.amount_minor}
        with self._api.open() as exchange:
            response = exchange.send(
                "POST", f"{_payment(call.provider_ref)}/cancel", body, call.key
            )
            if response.status == 200:
                return _refund_outcome(response.body, call)
            if response.status in UNCLEAR or response.status >= 500:
                return RefundOutcome("unknown", reason=_reason(response))
            found = self._find_refund(exchange, call)
        if found.kind == "missing":
            return RefundOutcome("rejected", reason=_reason(response))
        return found

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        """The cancellation with this key among those of the payment."""
        with self._api.open() as exchange:
            return self._find_refund(exchange, call)

    def list_since(self, cursor: str, limit: int) -> ProviderTransactionPage:
        """Payments and cancellations of at most six hours, overlapping by an hour.

        A payment with a cancellation is read, since only that has the refund's key.  Raises
        Unavailable.  Toss Payments lists no disputes.
        """
        now = int(datetime.now(UTC).timestamp())
        if cursor and not (cursor.isascii() and cursor.isdigit()):
            raise Unavailable("the cursor of the payment provider's list is invalid")
        since = int(cursor) if cursor else now - FIRST_LIST_SECONDS
        until = min(now, since + LIST_WINDOW_SECONDS)
        with self._api.open() as exchange:
            items = list(_transactions(exchange, since - LIST_OVERLAP_SECONDS, until, limit))
            read = {
                key: _read(exchange, key)
                for key in {str(i.get("paymentKey")) for i in items if i.get("status") != "DONE"}
            }
        listed = [(item, _charge_entry(item)) for item in items if item.get("status") == "DONE"]
        entries = [entry for _, entry in listed if entry is not None]
        for payment in read.values():
            entries += [e for e in (_charge_of(payment),) if e is not None]
            entries += read_refunds(payment)
        invalid = tuple(
            text_in(item.get("transactionKey")) or "an entry without a name"
            for item, entry in listed
            if entry is None
        )
        unique = {(entry.kind, entry.provider_ref): entry for entry in entries}
        ordered = tuple(sorted(unique.values(), key=lambda entry: entry.at))
        return ProviderTransactionPage(ordered, str(until), until < now, invalid)

    def _find(self, exchange: Exchange, call: ChargeCall) -> Outcome | None:
        """The payment of this attempt; None when nothing was confirmed."""
        response = exchange.send("GET", f"/v1/payments/orders/{quote(call.payment_id, safe='')}")
        if response.status == 404:
            return None
        return self._outcome(response, call)

    def _confirm(self, exchange: Exchange, call: ChargeCall, token: str) -> Outcome:
        body = {"paymentKey": token, "orderId": call.payment_id, "amount": call.amount_minor}
        # another token is another request; the same one is executed once
        key = f"{call.key}:{hashlib.sha256(token.encode()).hexdigest()[:16]}"
        response = exchange.send("POST", "/v1/payments/confirm", body, key)
        if response.status in UNCLEAR or response.status >= 500:
            return Outcome("unknown", reason=_reason(response))
        if response.status == 200:
            return self._outcome(response, call) or Outcome("unknown", reason="not confirmed")
        found = self._find(exchange, call)
        return self._widget(call) if found is None else found

    def _outcome(self, response: JsonResponse, call: ChargeCall) -> Outcome | None:
        """The outcome of a payment (its statuses are in the reference of the Payment object)."""
        body = response.body
        if response.status != 200:
            return Outcome("unknown", reason=_reason(response))
        ref, status = text_in(body.get("paymentKey")), body.get("status")
        amount_minor, currency = amount_in(body.get("totalAmount")), currency_in(body["currency"])
        if status in ("READY", "IN_PROGRESS"):
            return None  # not confirmed, also by a customer who agreed to another amount
        difference = _difference(body, call)
        if difference is not None:
            return Outcome("mismatch", amount_minor, currency, ref, difference)
        match status:
            case "DONE":
                return Outcome("captured", amount_minor, currency, ref)
            case "CANCELED" | "PARTIAL_CANCELED":
                kind = "captured" if body.get("approvedAt") else "voided"
                return Outcome(kind, amount_minor, currency, ref)
            case "ABORTED" | "EXPIRED":
                failure = object_in(body.get("failure")) or {}
                reason = text_in(failure.get("code")) or str(status)
                return Outcome("declined", amount_minor, currency, ref, reason)
            case "WAITING_FOR_DEPOSIT":
                return self._transfer(body, amount_minor, currency, ref)
            case _:
                return Outcome("unknown", provider_ref=ref, reason=f"status {text_in(status)}")

    def _widget(self, call: ChargeCall) -> Outcome:
        details: dict[str, str | int] = {
            "clientKey": self._options.client_key,
            "orderId": call.payment_id,
            "amount": call.amount_minor,
            "currency": call.currency,
        }
        action = NextAction(ActionType.WIDGET, details, self._options.action_seconds)
        return Outcome("requires_action", call.amount_minor, call.currency, action=action)

    def _transfer(
        self,
        body: dict[str, object],
        amount_minor: int | None,
        currency: str | None,
        ref: str | None,
    ) -> Outcome:
        account = object_in(body.get("virtualAccount")) or {}
        bank, number = text_in(account.get("bankCode")), text_in(account.get("accountNumber"))
        due = moment_in(account.get("dueDate"))
        if bank is None or number is None or amount_minor is None or currency is None:
            return Outcome("unknown", reason="a virtual account without a number")
        seconds = self._options.transfer_seconds
        if due is not None:
            seconds = max(1, min(seconds, int((due - datetime.now(UTC)).total_seconds())))
        details: dict[str, str | int] = {
            "bank": bank,
            "accountNumber": number,
            "amount": amount_minor,
            "currency": currency,
        }
        action = NextAction(ActionType.TRANSFER, details, seconds)
        return Outcome("requires_action", amount_minor, currency, ref, action=action)

    def _find_refund(self, exchange: Exchange, call: RefundCall) -> RefundOutcome:
        response = exchange.send("GET", _payment(call.provider_ref))
        if response.status != 200:
            return RefundOutcome("unknown", reason=_reason(response))
        return _refund_outcome(response.body, call)


def _refund_outcome(payment: dict[str, object], call: RefundCall) -> RefundOutcome:
    """What the payment's cancellation with this key is; ``missing`` when it has none."""
    found = [item for item in cancels_of(payment) if item.get("cancelReason") == call.key]
    if not found:
        return RefundOutcome("missing")
    amount_minor, currency = (
        amount_in(found[0].get("cancelAmount")),
        currency_in(payment["currency"]),
    )
    ref = text_in(found[0].get("transactionKey"))
    if (amount_minor, currency) != (call.amount_minor, call.currency) or ref is None:
        return RefundOutcome("mismatch", amount_minor, currency, ref, "another amount")
    if found[0].get("cancelStatus", "DONE") != "DONE":
        return RefundOutcome("unknown", amount_minor, currency, ref, "not executed yet")
    return RefundOutcome("succeeded", amount_minor, currency, ref)


def _difference(payment: dict[str, object], call: ChargeCall) -> str | None:
    if payment.get("orderId") != call.payment_id:
        return "another key"
    if amount_in(payment.get("totalAmount")) != call.amount_minor:
        return "another amount"
    return None if currency_in(payment.get("currency")) == call.currency else "another currency"


def _transactions(
    exchange: Exchange, begin: int, until: int, limit: int
) -> Iterator[dict[str, object]]:
    """Every transaction of a time; Toss Payments takes local times of Korea."""
    query = {
        "startDate": _local(begin),
        "endDate": _local(until + 1),
        "limit": str(max(1, min(limit, PAGE_LIMIT_MAX))),
    }
    while True:
        response = exchange.send("GET", f"/v1/transactions?{urlencode(query)}")
        items = response.body.get("items")
        if response.status != 200 or not isinstance(items, list):
            raise Unavailable(f"the payment provider's list is unavailable: {_reason(response)}")
        page = [object_in(item) or {} for item in cast("list[object]", items)]
        # other shops on the account have other order ids
        yield from (item for item in page if parse_uuid(text_in(item.get("orderId")) or ""))
        if len(page) < int(query["limit"]):
            return
        query["startingAfter"] = str(page[-1].get("transactionKey"))


def _read(exchange: Exchange, payment_key: str) -> dict[str, object]:
    response = exchange.send("GET", _payment(payment_key))
    if response.status != 200:
        raise Unavailable(f"a payment of the provider is unavailable: {_reason(response)}")
    return response.body


def _charge_entry(item: dict[str, object]) -> ProviderTransaction | None:
    """A collected payment of the list; None when a field is invalid."""
    key, ref = text_in(item.get("orderId")), text_in(item.get("paymentKey"))
    amount_minor, currency = amount_in(item.get("amount")), currency_in(item.get("currency"))
    at = moment_in(item.get("transactionAt"))
    if not (key and ref and amount_minor and currency and at):
        return None
    charge_key = f"shop:{key}"
    return ProviderTransaction(
        "charge", charge_key, charge_key, ref, amount_minor, currency, ref, at
    )


def _charge_of(payment: dict[str, object]) -> ProviderTransaction | None:
    """The collected payment that has cancellations; None when nothing was collected."""
    item = {
        **payment,
        "amount": payment.get("totalAmount"),
        "transactionAt": payment.get("approvedAt"),
    }
    return _charge_entry(item)


def _payment(payment_key: str) -> str:
    return f"/v1/payments/{quote(payment_key, safe='')}"


def _local(moment: int) -> str:
    return datetime.fromtimestamp(moment, KOREA).strftime("%Y-%m-%dT%H:%M:%S")


def _reason(response: JsonResponse) -> str:
    """Toss Payments' error code or the status; not the message, which may quote the request."""
    return response.reason or text_in(response.body.get("code")) or f"HTTP {response.status}"


def _is_past(moment: datetime | None) -> bool:
    return moment is not None and datetime.now(UTC) >= moment
