"""The adapter for the payment simulator, ``python -m tools.payment_simulator``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast
from urllib.parse import quote

from shop.adapters.connection_attempts import ConnectionAttempts
from shop.adapters.payment_provider.json_api import Exchange, JsonApi, JsonResponse
from shop.adapters.payment_provider.protocol import (
    ACTION_OPTIONS_DEFAULT,
    ActionOptions,
    ChargeCall,
    Intent,
    NextAction,
    Outcome,
    OutcomeKind,
    ProviderTransaction,
    ProviderTransactionPage,
    RefundCall,
    RefundKind,
    RefundOutcome,
)
from shop.adapters.payment_provider.response_fields import (
    amount_in,
    currency_in,
    name_of_invalid,
    object_in,
    text_in,
)
from shop.adapters.payment_provider.simulator_objects import read_transaction
from shop.primitives.errors import Unavailable
from shop.primitives.statuses import ActionType

PAGE_LIMIT_MAX = 500

_OUTCOMES = ("captured", "declined", "voided", "requires_action")
_REFUND_OUTCOMES = ("succeeded", "rejected")
_NO_SUCH_REFUND = "no such refund"


class SimulatorProvider:
    """Has no state between calls, so threads may share it."""

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
        headers = {"Authorization": f"Bearer {api_key}"}
        self._api = JsonApi(url, headers, timeout_seconds, traceparent, attempts)
        self._read = _OutcomeReader(url.rstrip("/"), options)

    def create(self, call: ChargeCall) -> Intent:
        """Creates the intent; no money moves. After ``charge_not_after`` nothing is sent."""
        with self._api.open() as exchange:
            return self._create(exchange, call)

    def confirm(self, call: ChargeCall) -> Outcome:
        """Captures the created intent. After ``charge_not_after`` nothing is sent."""
        with self._api.open() as exchange:
            return self._confirm(exchange, call)

    def charge(self, call: ChargeCall) -> Outcome:
        """Creates, then confirms, over one connection and within one timeout."""
        with self._api.open() as exchange:
            intent = self._create(exchange, call)
            if intent.kind == "created":
                return self._confirm(exchange, call)
        return Outcome(intent.kind, provider_ref=intent.provider_ref, reason=intent.reason)

    def cancel(self, call: ChargeCall) -> Outcome:
        """Voids the charge or returns its final outcome; leaves a tombstone for an unknown key."""
        with self._api.open() as exchange:
            return self._read(exchange.send("POST", f"{_intent_path(call)}/cancel", {}), call)

    def find(self, call: ChargeCall) -> Outcome:
        """The charge in the simulator's records."""
        with self._api.open() as exchange:
            return self._read(exchange.send("GET", _intent_path(call)), call)

    def refund(self, call: RefundCall) -> RefundOutcome:
        """Refunds the amount, at most once per key."""
        body = {
            "key": call.key,
            "charge_key": call.charge_key,
            "provider_ref": call.provider_ref or None,
            "amount_minor": call.amount_minor,
            "currency": call.currency,
        }
        with self._api.open() as exchange:
            return _refund_outcome(exchange.send("POST", "/refunds", body), call)

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        """The refund in the simulator's records."""
        with self._api.open() as exchange:
            response = exchange.send("GET", f"/refunds/{quote(call.key, safe='')}")
        if response.status == 404 and response.body.get("error") == _NO_SUCH_REFUND:
            return RefundOutcome("missing")
        return _refund_outcome(response, call)

    def list_since(self, cursor: str, limit: int) -> ProviderTransactionPage:
        """Entries in commit order; raises Unavailable when they cannot be read."""
        bounded = max(1, min(limit, PAGE_LIMIT_MAX))
        with self._api.open() as exchange:
            response = exchange.send(
                "GET", f"/charges?since={quote(cursor, safe='')}&limit={bounded}"
            )
        return _page(response)

    def _create(self, exchange: Exchange, call: ChargeCall) -> Intent:
        if _is_past(call.charge_not_after):
            return Intent("unknown", reason="past charge_not_after")
        body = {
            "key": call.key,
            "amount_minor": call.amount_minor,
            "currency": call.currency,
            "payment_method": call.payment_method,
            "order_id": call.order_id,
            "payment_id": call.payment_id,
        }
        response = exchange.send("POST", "/intents", body)
        if response.status == 200 and response.body.get("status") == "created":
            reason = _difference(response.body, call.key, call.amount_minor, call.currency)
            ref = text_in(response.body.get("provider_ref"))
            return Intent("mismatch" if reason else "created", provider_ref=ref, reason=reason)
        outcome = self._read(response, call)
        return Intent(outcome.kind, provider_ref=outcome.provider_ref, reason=outcome.reason)

    def _confirm(self, exchange: Exchange, call: ChargeCall) -> Outcome:
        if _is_past(call.charge_not_after):
            return Outcome("unknown", reason="past charge_not_after")
        body = {"token": call.token} if call.token else {}
        return self._read(exchange.send("POST", f"{_intent_path(call)}/confirm", body), call)


class _OutcomeReader:
    """Reads what a response says about a charge, and what its customer has to do."""

    def __init__(self, url: str, options: ActionOptions) -> None:
        self._url = url
        self._options = options

    def __call__(self, response: JsonResponse, call: ChargeCall) -> Outcome:
        outcome = _outcome(response, call)
        if outcome.kind != "requires_action":
            return outcome
        action = self._action(object_in(response.body.get("next_action")) or {}, call)
        if action is None:
            return Outcome("unknown", reason="an action that is not known")
        return replace(outcome, action=action)

    def _action(self, item: dict[str, object], call: ChargeCall) -> NextAction | None:
        path, secret = text_in(item.get("path")), text_in(item.get("client_secret"))
        bank, account = text_in(item.get("bank")), text_in(item.get("account_number"))
        # a simulator in a container names the address that browsers reach
        page: dict[str, str | int] = {"url": text_in(item.get("url")) or f"{self._url}{path}"}
        amount: dict[str, str | int] = {"amount": call.amount_minor, "currency": call.currency}
        limit = self._options.action_seconds
        seconds = min(limit, amount_in(item.get("seconds")) or limit)
        match item.get("type"):
            case "redirect" if path:
                return NextAction(ActionType.REDIRECT, page, seconds)
            case "widget" if secret:
                details = {"clientSecret": secret, "orderId": call.payment_id, **amount, **page}
                return NextAction(ActionType.WIDGET, details, seconds)
            case "transfer" if bank and account:
                details = {"bank": bank, "accountNumber": account, **amount, **page}
                return NextAction(ActionType.TRANSFER, details, self._options.transfer_seconds)
            case _:
                return None


def _outcome(response: JsonResponse, call: ChargeCall) -> Outcome:
    kind = response.body.get("status")
    if response.status == 422:
        return Outcome("mismatch", reason="the key was used for another charge")
    if response.status != 200 or kind not in _OUTCOMES:
        return Outcome("unknown", reason=_why_unknown(response))
    amount_minor = amount_in(response.body.get("amount_minor"))
    currency = currency_in(response.body.get("currency"))
    provider_ref = text_in(response.body.get("provider_ref"))
    difference = _difference(response.body, call.key, call.amount_minor, call.currency)
    if kind == "voided" and response.body.get("amount_minor") is None:
        # The tombstone of an unknown key has no amount; only its key can be compared.
        difference = None if response.body.get("key") == call.key else "another key"
    elif difference is None and provider_ref is None:
        difference = "no provider_ref"
    if difference is not None:
        return Outcome("mismatch", amount_minor, currency, provider_ref, difference)
    reason = text_in(response.body.get("reason"))
    return Outcome(cast(OutcomeKind, kind), amount_minor, currency, provider_ref, reason)


def _refund_outcome(response: JsonResponse, call: RefundCall) -> RefundOutcome:
    kind = response.body.get("status")
    if response.status == 422:
        return RefundOutcome("mismatch", reason="the key was used for another refund")
    if response.status != 200 or kind not in _REFUND_OUTCOMES:
        return RefundOutcome("unknown", reason=_why_unknown(response))
    amount_minor = amount_in(response.body.get("amount_minor"))
    currency = currency_in(response.body.get("currency"))
    provider_ref = text_in(response.body.get("provider_ref"))
    difference = _difference(response.body, call.key, call.amount_minor, call.currency)
    if difference is None and response.body.get("charge_key") != call.charge_key:
        difference = "another charge_key"
    if difference is not None:
        return RefundOutcome("mismatch", amount_minor, currency, provider_ref, difference)
    reason = text_in(response.body.get("reason"))
    return RefundOutcome(cast(RefundKind, kind), amount_minor, currency, provider_ref, reason)


def _page(response: JsonResponse) -> ProviderTransactionPage:
    entries, next_cursor = response.body.get("entries"), response.body.get("next_cursor")
    if response.status != 200 or not isinstance(entries, list) or not isinstance(next_cursor, str):
        raise Unavailable(f"the payment provider's list is unavailable: {_why_unknown(response)}")
    has_more = response.body.get("has_more") is True
    items = [object_in(value) or {} for value in cast("list[object]", entries)]
    listed = [(item, _entry(item)) for item in items]
    return ProviderTransactionPage(
        tuple(entry for _, entry in listed if entry is not None),
        next_cursor,
        has_more,
        tuple(name_of_invalid(item) for item, entry in listed if entry is None),
    )


def _entry(item: dict[str, object]) -> ProviderTransaction | None:
    """The entry, or None if it is invalid."""
    kind = item.get("kind")
    if kind == "refund" and item.get("status") == "rejected":
        kind = "failed_refund"
    is_known = kind in ("charge", "refund", "failed_refund", "dispute")
    return read_transaction(kind, item) if is_known else None


def _difference(body: dict[str, object], key: str, amount_minor: int, currency: str) -> str | None:
    """The first field that differs from the call, or None."""
    if body.get("key") != key:
        return "another key"
    if amount_in(body.get("amount_minor")) != amount_minor:
        return "another amount"
    if currency_in(body.get("currency")) != currency:
        return "another currency"
    return None


def _why_unknown(response: JsonResponse) -> str:
    if response.reason is not None:
        return response.reason
    if response.status == 200:
        return f"status {text_in(response.body.get('status')) or 'unreadable'}"
    return f"HTTP {response.status}"


def _intent_path(call: ChargeCall) -> str:
    return f"/intents/{quote(call.key, safe='')}"


def _is_past(moment: datetime | None) -> bool:
    # The caller has compared with the database's clock just before; this stops a process that was
    # suspended in between. The process's own clock may be wrong.
    return moment is not None and datetime.now(UTC) >= moment
