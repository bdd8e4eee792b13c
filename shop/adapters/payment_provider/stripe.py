"""The adapter for Stripe, on its official library (optional extra ``stripe``).

A charge is a PaymentIntent that is created with the call's key and confirmed in a second request.
An intent is found again by repeating its creation: for 24 hours Stripe returns the same intent for
the key. After that, and in ``find``, it is searched by the key in its metadata.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import requests
import stripe
from urllib3.exceptions import NewConnectionError

from shop.adapters.connection_attempts import ConnectionAttempts, is_refused
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
    name_of_invalid,
    object_in,
    text_in,
)
from shop.adapters.payment_provider.stripe_currency import amount_from_stripe, amount_to_stripe
from shop.adapters.payment_provider.stripe_objects import (
    kind_of_refund,
    read_dispute,
    read_refund,
)
from shop.primitives.errors import Unavailable
from shop.primitives.statuses import ActionType

FIRST_LIST_SECONDS = 7 * 24 * 3600
LIST_OVERLAP_SECONDS = 3600
LIST_WINDOW_SECONDS = 6 * 3600
DISPUTE_LIFE_SECONDS = 120 * 24 * 3600
LIST_ENTRIES_MAX = 10_000
PAGE_LIMIT_MAX = 100
REFUNDS_PER_CHARGE_MAX = 1_000

# The last is what API versions before 2024-10-28 call it.
REFUND_EVENTS = ("refund.updated", "refund.failed", "charge.refund.updated")

_REFUND_REJECTIONS = ("charge_already_refunded", "charge_disputed", "refund_disputed_payment")


class StripeProvider:
    """PaymentIntents captured on confirmation; no retries, one deadline per call.

    The deadline limits the timeout of each request of a call, which in ``requests`` counts from the
    last byte received. Threads may share the adapter.
    """

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
        self._timeout_seconds = timeout_seconds
        self._options = options
        self._session = _DeadlineSession(traceparent, attempts or ConnectionAttempts())
        base_addresses: dict[str, str] = {"api": url.rstrip("/")} if url else {}
        client = stripe.StripeClient(
            api_key,
            base_addresses=base_addresses,  # type: ignore[arg-type]
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=timeout_seconds, session=self._session),
        )
        self._intents = client.v1.payment_intents
        self._refunds = client.v1.refunds
        self._charges = client.v1.charges
        self._disputes = client.v1.disputes
        self._events = client.v1.events

    def create(self, call: ChargeCall) -> Intent:
        """Creates an unconfirmed PaymentIntent; a body that Stripe rejects is ``declined``."""
        with self._deadline():
            intent = self._create(call)
        if isinstance(intent, Outcome):
            return Intent(intent.kind, reason=intent.reason)
        difference = _difference(intent, call)
        return Intent("mismatch" if difference else "created", intent["id"], difference)

    def confirm(self, call: ChargeCall) -> Outcome:
        """Captures; repeats the creation to obtain the intent's id."""
        return self.charge(call)

    def charge(self, call: ChargeCall) -> Outcome:
        """Creates and confirms. ``declined`` is final: an intent gets no other card.

        An intent that waits for the customer is only read: confirming it again would begin the
        authentication again.  The token of a customer who returns is not needed for that.
        """
        with self._deadline():
            intent = self._create(call)
            if isinstance(intent, Outcome):
                return intent
            difference = _difference(intent, call)
            if difference:
                return Outcome("mismatch", provider_ref=intent["id"], reason=difference)
            if call.token is not None:
                read = self._retrieve(call, intent["id"])
                if read.kind != "unknown":
                    return read
            # No idempotency key: an intent succeeds only once anyway, and Stripe would repeat a
            # 500 that it stored for the key for a day.
            return self._change(call, intent["id"], self._confirm_of(call))

    def cancel(self, call: ChargeCall) -> Outcome:
        """Cancels the intent; creates it first for an unknown key, as a tombstone.

        After ``charge_not_after`` Stripe may have dropped the key, so the intent is searched first.
        """
        with self._deadline():
            if _is_past(call.charge_not_after):
                found = self._search(call)
                if found.kind != "unknown" or found.provider_ref is not None:
                    return self._cancel_found(call, found)
            intent = self._create(call, ignores_time=True)
            if isinstance(intent, Outcome):
                if intent.kind == "declined":
                    return Outcome("voided", reason=intent.reason)
                return intent
            return self._change(call, intent["id"], self._intents.cancel)

    def find(self, call: ChargeCall) -> Outcome:
        """Searches by key, then reads the intent; the search index lags about a minute."""
        with self._deadline():
            return self._search(call)

    def refund(self, call: RefundCall) -> RefundOutcome:
        """Refunds; after an error response the charge's refunds are read once."""
        params: Any = {
            "payment_intent": call.provider_ref,
            "amount": amount_to_stripe(call.amount_minor, call.currency),
            "metadata": {"shop_key": call.key, "charge_key": call.charge_key},
        }
        with self._deadline():
            try:
                refund = self._refunds.create(params, {"idempotency_key": call.key})
            except stripe.IdempotencyError as error:
                return _refund_failure(error)
            except stripe.StripeError as error:
                found = self._find_refund(call) if error.http_status else None
                if found is not None and found.kind not in ("unknown", "missing"):
                    return found
                return _refund_failure(error)
            return _refund_outcome(refund.to_dict(), call)

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        """The refund with this key among those of the charge."""
        with self._deadline():
            return self._find_refund(call)

    def list_since(self, cursor: str, limit: int) -> ProviderTransactionPage:
        """Charges, refunds and disputes of at most six hours, overlapping by an hour.

        Refunds that were made earlier and changed in these hours are found in Stripe's events,
        which it keeps for 30 days.  The page that reaches the present has every dispute of the last
        four months, since a dispute changes for that long.  ``limit`` is the page size of the
        requests to Stripe.  Raises Unavailable.
        """
        now = int(time.time())
        if cursor and not (cursor.isascii() and cursor.isdigit()):
            raise Unavailable("the cursor of the payment provider's list is invalid")
        since = int(cursor) if cursor else now - FIRST_LIST_SECONDS
        until = min(now, since + LIST_WINDOW_SECONDS)
        begin = since - LIST_OVERLAP_SECONDS
        disputes_begin = begin if until < now else min(begin, now - DISPUTE_LIFE_SECONDS)
        page_size = max(1, min(limit, PAGE_LIMIT_MAX))
        with self._deadline():
            try:
                charges = _list(self._charges, begin, until, page_size)
                changes = _list(self._events, begin, until, page_size, types=REFUND_EVENTS)
                refunds = _list(self._refunds, begin, until, page_size)
                disputes = _list(self._disputes, disputes_begin, until, page_size)
            except stripe.StripeError as error:
                raise Unavailable(
                    f"the payment provider's list is unavailable: {_reason(error)}"
                ) from error
        listed = [(item, _charge_entry(item)) for item in charges if _is_captured_by_shop(item)]
        listed += [(item, read_refund(item)) for item in _final_refunds(refunds, changes)]
        listed += [(item, read_dispute(item)) for item in disputes]
        entries = sorted((entry for _, entry in listed if entry), key=lambda entry: entry.at)
        invalid = [
            name_of_invalid(item) for item, entry in listed if entry is None and _has_key(item)
        ]
        return ProviderTransactionPage(tuple(entries), str(until), until < now, tuple(invalid))

    def _create(self, call: ChargeCall, *, ignores_time: bool = False) -> dict[str, Any] | Outcome:
        """The created intent of the key, or the outcome if there is none."""
        if not ignores_time and _is_past(call.charge_not_after):
            return Outcome("unknown", reason="past charge_not_after")
        params: Any = {
            "amount": amount_to_stripe(call.amount_minor, call.currency),
            "currency": call.currency.lower(),
            "payment_method": call.payment_method,
            "payment_method_types": ["card"],
            "capture_method": "automatic",
            "metadata": {
                "shop_key": call.key,
                "order_id": call.order_id,
                "payment_id": call.payment_id,
            },
        }
        try:
            return self._intents.create(params, {"idempotency_key": call.key}).to_dict()
        except stripe.IdempotencyError as error:
            return _idempotency_outcome(error)
        except stripe.StripeError as error:
            if error.http_status in (400, 402) or error.code == "resource_missing":
                # Stripe rejects this body, so no intent with this key can exist.
                return Outcome("declined", reason=_reason(error))
            return Outcome("unknown", reason=_reason(error))

    def _change(self, call: ChargeCall, intent_id: str, change: Any) -> Outcome:
        """Confirms or cancels; after an error response, the outcome of the intent as it is."""
        try:
            return self._outcome(change(intent_id).to_dict(), call)
        except stripe.StripeError as error:
            if not error.http_status:
                return Outcome("unknown", provider_ref=intent_id, reason=_reason(error))
            read = self._retrieve(call, intent_id)
            if read.kind == "unknown":
                return Outcome("unknown", provider_ref=intent_id, reason=_reason(error))
            return read

    def _confirm_of(self, call: ChargeCall) -> Callable[[str], Any]:
        return_url = self._options.return_url_of(call)
        params: Any = {"return_url": return_url} if return_url else {}
        return lambda intent_id: self._intents.confirm(intent_id, params)

    def _outcome(self, intent: dict[str, Any], call: ChargeCall) -> Outcome:
        outcome = _outcome(intent, call)
        if outcome.kind != "unknown" or intent.get("status") != "requires_action":
            return outcome
        action = _next_action(intent, self._options.action_seconds)
        return replace(outcome, kind="requires_action", action=action) if action else outcome

    def _cancel_found(self, call: ChargeCall, found: Outcome) -> Outcome:
        if found.kind != "unknown" or found.provider_ref is None:
            return found
        return self._change(call, found.provider_ref, self._intents.cancel)

    def _search(self, call: ChargeCall) -> Outcome:
        quoted = call.key.replace("\\", "\\\\").replace('"', '\\"')
        try:
            found = self._intents.search({"query": f'metadata["shop_key"]:"{quoted}"'})
        except stripe.StripeError as error:
            return Outcome("unknown", reason=_reason(error))
        read = [self._retrieve(call, item["id"]) for item in found.data[:PAGE_LIMIT_MAX]]
        read.sort(key=lambda outcome: (outcome.kind != "captured", outcome.kind == "unknown"))
        return read[0] if read else Outcome("unknown", reason="not found")

    def _retrieve(self, call: ChargeCall, intent_id: str) -> Outcome:
        try:
            return self._outcome(self._intents.retrieve(intent_id).to_dict(), call)
        except stripe.StripeError as error:
            return Outcome("unknown", provider_ref=intent_id, reason=_reason(error))

    def _find_refund(self, call: RefundCall) -> RefundOutcome:
        params: Any = {"payment_intent": call.provider_ref, "limit": PAGE_LIMIT_MAX}
        try:
            refunds = _all_pages(self._refunds.list(params), REFUNDS_PER_CHARGE_MAX)
        except stripe.StripeError as error:
            return RefundOutcome("unknown", reason=_reason(error))
        except Unavailable as error:
            return RefundOutcome("unknown", reason=error.message)
        matching = [item for item in refunds if _metadata(item, "shop_key") == call.key]
        return _refund_outcome(matching[0], call) if matching else RefundOutcome("missing")

    @contextmanager
    def _deadline(self) -> Generator[None]:
        self._session.start(self._timeout_seconds)
        yield


class _DeadlineSession(requests.Session):
    """Limits each request to the remaining time of its thread's call."""

    def __init__(self, traceparent: Callable[[], str] | None, attempts: ConnectionAttempts) -> None:
        super().__init__()
        self._attempts = attempts
        self._running = threading.local()
        self._traceparent = traceparent

    def start(self, seconds: float) -> None:
        """Starts the deadline of the current thread's call."""
        self._running.deadline = time.monotonic() + seconds

    def request(self, *args: Any, **options: Any) -> requests.Response:
        """Sends one request within the remaining time; only connecting is repeated."""
        return self._attempts.open(
            lambda: self._request_once(*args, **options),
            until=self._running.deadline,
            is_refused=_is_not_connected,
        )

    def _request_once(self, *args: Any, **options: Any) -> requests.Response:
        left = self._running.deadline - time.monotonic()
        if left <= 0:
            raise requests.Timeout("the call's time is over")
        options["timeout"] = left
        traceparent = self._traceparent() if self._traceparent else ""
        if traceparent:
            options["headers"] = {**(options.get("headers") or {}), "traceparent": traceparent}
        return super().request(*args, **options)


def _is_not_connected(error: Exception) -> bool:
    """Whether the request was not sent because no connection could be opened."""
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else None
    is_unsent = isinstance(getattr(cause, "reason", None), NewConnectionError)
    return is_unsent and is_refused(error)


def _outcome(intent: dict[str, Any], call: ChargeCall) -> Outcome:
    """The outcome of a PaymentIntent (https://docs.stripe.com/payments/paymentintents)."""
    status, ref = intent.get("status"), text_in(intent.get("id"))
    currency = currency_in(intent.get("currency"))
    amount = intent.get("amount_received") if status == "succeeded" else None
    amount_minor = amount_from_stripe(amount_in(amount or intent.get("amount")), currency)
    difference = _difference(intent, call)
    if difference is None and amount_minor != call.amount_minor:
        difference = "another amount"
    if difference is not None:
        return Outcome("mismatch", amount_minor, currency, ref, difference)
    if status == "succeeded":
        return Outcome("captured", amount_minor, currency, ref)
    if status == "canceled":
        reason = text_in(intent.get("cancellation_reason"))
        return Outcome("voided", amount_minor, currency, ref, reason)
    failure = object_in(intent.get("last_payment_error"))
    if status == "requires_payment_method" and failure is not None:
        reason = text_in(failure.get("decline_code")) or text_in(failure.get("code"))
        return Outcome("declined", amount_minor, currency, ref, reason)
    return Outcome("unknown", amount_minor, currency, ref, f"status {status}")


def _next_action(intent: dict[str, Any], seconds: int) -> NextAction | None:
    """A redirect to the card's bank, or what Stripe's script shows with the intent's secret."""
    required = object_in(intent.get("next_action")) or {}
    url = (object_in(required.get("redirect_to_url")) or {}).get("url")
    secret = text_in(intent.get("client_secret"))
    if required.get("type") == "redirect_to_url" and isinstance(url, str):
        return NextAction(ActionType.REDIRECT, {"url": url}, seconds)
    return NextAction(ActionType.WIDGET, {"clientSecret": secret}, seconds) if secret else None


def _difference(intent: dict[str, Any], call: ChargeCall) -> str | None:
    """The first field that differs from the call, or None."""
    currency = currency_in(intent.get("currency"))
    if text_in(intent.get("id")) is None:
        return "no id"
    if _metadata(intent, "shop_key") != call.key:
        return "another key"
    if currency != call.currency:
        return "another currency"
    if amount_from_stripe(amount_in(intent.get("amount")), currency) != call.amount_minor:
        return "another amount"
    return None


def _refund_outcome(refund: dict[str, Any], call: RefundCall) -> RefundOutcome:
    status, ref = refund.get("status"), text_in(refund.get("id"))
    currency = currency_in(refund.get("currency"))
    amount_minor = amount_from_stripe(amount_in(refund.get("amount")), currency)
    difference = None
    if _metadata(refund, "shop_key") != call.key or _metadata(refund, "charge_key") != (
        call.charge_key
    ):
        difference = "another key"
    elif currency != call.currency:
        difference = "another currency"
    elif amount_minor != call.amount_minor or ref is None:
        difference = "another amount"
    if difference is not None:
        return RefundOutcome("mismatch", amount_minor, currency, ref, difference)
    if status == "succeeded":
        return RefundOutcome("succeeded", amount_minor, currency, ref)
    if status in ("failed", "canceled"):
        reason = text_in(refund.get("failure_reason")) or str(status)
        return RefundOutcome("rejected", amount_minor, currency, ref, reason)
    return RefundOutcome("unknown", amount_minor, currency, ref, f"status {status}")


def _refund_failure(error: stripe.StripeError) -> RefundOutcome:
    if isinstance(error, stripe.IdempotencyError):
        outcome = _idempotency_outcome(error)
        is_mismatch = outcome.kind == "mismatch"
        return RefundOutcome("mismatch" if is_mismatch else "unknown", reason=outcome.reason)
    if error.code in _REFUND_REJECTIONS:
        return RefundOutcome("rejected", reason=error.code)
    if error.http_status == 400 and getattr(error, "param", None) == "amount":
        # part of the charge was refunded in the dashboard: this amount is more than what is left
        return RefundOutcome("rejected", reason="more than is left of the charge")
    return RefundOutcome("unknown", reason=_reason(error))


def _idempotency_outcome(error: stripe.IdempotencyError) -> Outcome:
    if error.http_status == 409:
        return Outcome("unknown", reason="a request with this key is in progress")
    return Outcome("mismatch", reason="the key was used for another call")


def _has_key(item: dict[str, Any]) -> bool:
    return _metadata(item, "shop_key") is not None


def _is_captured_by_shop(charge: dict[str, Any]) -> bool:
    """False also for a charge of another shop on the same account, which has no key of ours."""
    is_captured = charge.get("status") == "succeeded" and charge.get("captured") is True
    return is_captured and _has_key(charge)


def _charge_entry(charge: dict[str, Any]) -> ProviderTransaction | None:
    """The entry of a captured charge of the shop; None when a field is invalid."""
    key = text_in(_metadata(charge, "shop_key"))
    currency = currency_in(charge.get("currency"))
    amount = amount_in(charge.get("amount_captured", charge.get("amount")))
    amount_minor = amount_from_stripe(amount, currency)
    ref, created = text_in(charge.get("payment_intent")), amount_in(charge.get("created"))
    if not (key and currency and ref and amount_minor and created):
        return None
    moment = datetime.fromtimestamp(created, UTC)
    return ProviderTransaction("charge", key, key, ref, amount_minor, currency, ref, moment)


def _final_refunds(
    refunds: list[dict[str, Any]], events: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Refunds in a final status: as they are now, or as events left those that were made earlier.

    A refund may fail after it succeeded, never the other way, so the order of events is irrelevant.
    """
    changed = [event["data"]["object"] for event in events]
    changed.sort(key=lambda refund: kind_of_refund(refund) == "failed_refund")
    last = {str(refund["id"]): refund for refund in (*changed, *refunds) if kind_of_refund(refund)}
    pending = {str(refund["id"]) for refund in refunds if not kind_of_refund(refund)}
    return [refund for refund_id, refund in last.items() if refund_id not in pending]


def _list(
    resource: Any, begin: int, until: int, page_size: int, **filters: object
) -> list[dict[str, Any]]:
    params: Any = {"created": {"gte": begin, "lte": until}, "limit": page_size, **filters}
    return _all_pages(resource.list(params), LIST_ENTRIES_MAX)


def _all_pages(first: Any, items_max: int) -> list[dict[str, Any]]:
    """Every item of a list; raises Unavailable if there are more than ``items_max``."""
    items = [item.to_dict() for item in islice(first.auto_paging_iter(), items_max + 1)]
    if len(items) > items_max:
        raise Unavailable(f"the payment provider lists more than {items_max} entries at once")
    return items


def _metadata(item: dict[str, Any], name: str) -> object:
    return (object_in(item.get("metadata")) or {}).get(name)


def _reason(error: stripe.StripeError) -> str:
    """Stripe's error code or status; not its message, which may quote the request."""
    if isinstance(error, stripe.CardError) or error.code:
        return str(error.code)
    return f"HTTP {error.http_status}" if error.http_status else "no response"


def _is_past(moment: datetime | None) -> bool:
    return moment is not None and datetime.now(UTC) >= moment
