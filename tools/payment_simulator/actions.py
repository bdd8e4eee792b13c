"""Payments for which the customer has to act first: what is required, and the customer's part.

The shop's confirmation collects nothing until the customer has acted at ``/pay/{reference}``, a
path without an API key, as a customer's browser has none.
"""

from __future__ import annotations

import sqlite3
from secrets import token_hex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.payment_simulator.records import Body, ProviderRecords, Response

# After the customer has acted, the provider has collected the money (redirect), or does so once the
# shop confirms it with the token (widget); to a virtual account the customer transfers it then.
METHOD_ACTIONS = {
    "CARD_REDIRECT": "redirect",
    "CARD_REDIRECT_LATE": "redirect",
    "CARD_WIDGET": "widget",
    "CARD_WIDGET_BRIEF": "widget",
    "VIRTUAL_ACCOUNT": "widget",
}
# Its customer can pay after the shop has cancelled.
METHOD_LATE = "CARD_REDIRECT_LATE"
METHOD_TRANSFER = "VIRTUAL_ACCOUNT"
# Its widget closes by itself, sooner than the shop's own limit.
METHOD_BRIEF = "CARD_WIDGET_BRIEF"
BRIEF_SECONDS = 12

ACTIONS = "select intent_id, type, status, token from actions where intent_id = :intent_id"
INSERT_ACTION = """
insert into actions (intent_id, type, status, token)
values (:intent_id, :type, 'awaited', :token)"""
CHANGE_ACTION = """
update actions set type = :type, status = :status where intent_id = :intent_id"""
INTENT_BY_REF = """
select intent_id, key, provider_ref, status, amount_minor, currency, payment_method,
  order_id, payment_id, reason, tries, created_at, closed_at
from intents where provider_ref = :provider_ref"""


def action_type(payment_method: str) -> str | None:
    """What a payment with this method requires first, or None."""
    return METHOD_ACTIONS.get(payment_method.upper())


class Customers:
    """Acts on the records as customers do; thread-safe."""

    def __init__(self, records: ProviderRecords) -> None:
        self._records = records

    def required(self, intent: sqlite3.Row, token: str | None) -> Body | None:
        """What an open intent requires before it is collected; None: nothing, or no more.

        Runs in the transaction of the confirmation.
        """
        required = action_type(intent["payment_method"])
        if required is None or intent["status"] != "created":
            return None
        records, intent_id = self._records, intent["intent_id"]
        action = records.one(ACTIONS, intent_id=intent_id)
        if action is None:
            records.run(INSERT_ACTION, intent_id=intent_id, type=required, token=token_hex(16))
            action = records.found(ACTIONS, intent_id=intent_id)
        if action["status"] == "authorized" and token == action["token"]:
            if intent["payment_method"].upper() != METHOD_TRANSFER:
                return None
            self._change(intent, "transfer", "awaited")
            action = records.found(ACTIONS, intent_id=intent_id)
        return action_body(intent, action)

    def shown(self, intent: sqlite3.Row) -> Body | None:
        """What an intent requires now; None when nothing."""
        action = self._records.one(ACTIONS, intent_id=intent["intent_id"])
        is_open = intent["status"] == "created" and action is not None
        return action_body(intent, action) if is_open and action else None

    def payment(self, provider_ref: str) -> sqlite3.Row | None:
        """The payment whose customer has, or had, to act; None for every other reference."""
        with self._records.transaction():
            intent = self._records.one(INTENT_BY_REF, provider_ref=provider_ref)
            requires = intent and self._records.one(ACTIONS, intent_id=intent["intent_id"])
            return intent if requires else None

    def act(self, provider_ref: str, step: str) -> Response:
        """``finish`` or ``fail`` what is required, or make the ``deposit``; 409 when it is over.

        Returns the token with which the shop confirms, and the amount.
        """
        records = self._records
        with records.transaction() as now:
            intent = records.one(INTENT_BY_REF, provider_ref=provider_ref)
            action = records.one(ACTIONS, intent_id=intent["intent_id"]) if intent else None
            if intent is None or action is None:
                return 404, {"error": "no such payment"}
            is_late = intent["payment_method"].upper() == METHOD_LATE
            if intent["status"] in ("declined", "voided") and not is_late:
                return 409, {"error": f"the payment is {intent['status']}"}
            self._act(intent, action, step, now)
            return 200, {
                "token": action["token"],
                "order_id": intent["order_id"],
                "amount_minor": intent["amount_minor"],
                "currency": intent["currency"],
            }

    def _act(self, intent: sqlite3.Row, action: sqlite3.Row, step: str, now: float) -> None:
        records = self._records
        is_late = intent["payment_method"].upper() == METHOD_LATE
        match step, action["type"], action["status"]:
            case "finish", "redirect", "awaited":
                records.execute(intent, now, also_from="voided" if is_late else "created")
            case "finish", "widget", "awaited":
                self._change(intent, "widget", "authorized")
            case "deposit", "transfer", "awaited":
                records.execute(intent, now, also_from="created")
            case "fail", _, _:
                records.decline(intent, "authentication_failed", now)
            case _:
                pass  # done before: the customer has opened the page again

    def _change(self, intent: sqlite3.Row, action: str, status: str) -> None:
        intent_id = intent["intent_id"]
        self._records.run(CHANGE_ACTION, intent_id=intent_id, type=action, status=status)


def action_body(intent: sqlite3.Row, action: sqlite3.Row) -> Body:
    """An intent that requires an action, as the API shows it."""
    reference = intent["provider_ref"]
    details: dict[str, Body] = {
        "redirect": {"type": "redirect"},
        "widget": {"type": "widget", "client_secret": reference},
        "transfer": {
            "type": "transfer",
            "bank": "SIMULATED",
            "account_number": f"{intent['intent_id']:012d}",
        },
    }
    is_brief = intent["payment_method"].upper() == METHOD_BRIEF
    brief = {"seconds": BRIEF_SECONDS} if is_brief else {}
    return {
        "key": intent["key"],
        "provider_ref": reference,
        "status": "requires_action",
        "amount_minor": intent["amount_minor"],
        "currency": intent["currency"],
        "next_action": {**details[action["type"]], **brief, "path": f"/pay/{reference}"},
    }
