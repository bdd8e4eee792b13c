"""What happens at the provider without a request of the shop: the work of its dashboard.

Staff refund a charge by hand or capture an intent, a customer disputes a charge and wins or loses,
another shop on the same account charges, the provider pays out.  Each is an operation on request
(``POST /dashboard/…``); some are also drawn at random when a charge is captured.
"""

from __future__ import annotations

import sqlite3
from secrets import token_hex
from typing import Literal

from tools.payment_simulator.faults import Fault, FaultSource
from tools.payment_simulator.records import (
    CAPTURED_BY_KEY_OR_REF,
    DISPUTE_BY_REF,
    INSERT_REFUND,
    INTENT_BY_KEY,
    REFUND_BY_REF,
    REFUNDED_SUM,
    WITHHELD_SUM,
    Body,
    ProviderRecords,
    Response,
    Unrequested,
    dispute_body,
    intent_body,
    refund_body,
)

OTHER_SHOP_PREFIX = "other-shop:"
FEE_MINOR_DEFAULT = 15
UNREQUESTED = {Fault.PROVIDER_REFUND, Fault.DISPUTE, Fault.OTHER_SHOP}

Result = Literal["won", "lost"]

INSERT_DISPUTE = """
insert into disputes (provider_ref, charge_key, charge_ref, status, amount_minor, currency,
                      fee_minor, opened_at)
values (:provider_ref, :charge_key, :charge_ref, 'open', :amount_minor, :currency, :fee_minor,
        :now)"""
CLOSE_DISPUTE = """
update disputes set status = :status, closed_at = :now
where provider_ref = :provider_ref and status = 'open'"""
OPEN_DISPUTE_OF = """
select provider_ref from disputes where charge_key = :charge_key and status = 'open'
order by dispute_id limit 1"""
INSERT_OTHER_CHARGE = """
insert into intents (key, provider_ref, status, amount_minor, currency, payment_method, order_id,
                     payment_id, created_at, closed_at)
values (:key, :provider_ref, 'captured', :amount_minor, :currency, 'CARD', '', '', :now, :now)"""
FAIL_REFUND = """
update refunds set status = 'rejected', reason = 'lost_or_stolen_card'
where provider_ref = :provider_ref and status = 'succeeded'"""
UNREQUESTED_DUE = """
select action_id, charge_key, action, amount_minor, due_at from unrequested
order by due_at, action_id limit 1"""
DELETE_UNREQUESTED = "delete from unrequested where action_id = :action_id"


class Dashboard:
    """Acts on the records as staff, customers and other shops do; thread-safe."""

    def __init__(self, records: ProviderRecords) -> None:
        self._records = records

    def refund(self, charge_key: str, amount_minor: int | None) -> Response:
        """Refunds a charge without a key of the shop; without an amount, all that is left."""
        records = self._records
        with records.transaction() as now:
            charge = self._charge(charge_key)
            if charge is None:
                return 404, {"error": "no such capture"}
            left = charge["amount_minor"] - self._returned(charge)
            amount = left if amount_minor is None else amount_minor
            if not 0 < amount <= left:
                return 409, {"error": f"{left} is left of the charge"}
            provider_ref = f"re_{token_hex(12)}"
            row: Body = {
                "key": provider_ref,
                "charge_key": charge_key,
                "charge_ref": charge["provider_ref"],
                "provider_ref": provider_ref,
                "status": "succeeded",
                "amount_minor": amount,
                "currency": charge["currency"],
                "reason": None,
            }
            records.run(INSERT_REFUND, **row, now=now)
            records.add_entry("refund", row, now)
            body = refund_body(records.found(REFUND_BY_REF, provider_ref=provider_ref))
            records.add_webhook("refund.succeeded", body, now)
            return 200, body

    def fail_refund(self, provider_ref: str) -> Response:
        """The customer's bank returns the money of a refund that had succeeded."""
        records = self._records
        with records.transaction() as now:
            if not records.run(FAIL_REFUND, provider_ref=provider_ref):
                return 409, {"error": "no such succeeded refund"}
            body = refund_body(records.found(REFUND_BY_REF, provider_ref=provider_ref))
            records.add_entry("refund", body, now)
            records.add_webhook("refund.rejected", body, now)
            return 200, body

    def dispute(self, charge_key: str, amount_minor: int | None, fee_minor: int) -> Response:
        """Opens a dispute: withdraws the amount (by default all of the charge) and a fee."""
        records = self._records
        with records.transaction() as now:
            charge = self._charge(charge_key)
            if charge is None:
                return 404, {"error": "no such capture"}
            provider_ref = f"dp_{token_hex(12)}"
            records.run(
                INSERT_DISPUTE,
                provider_ref=provider_ref,
                charge_key=charge_key,
                charge_ref=charge["provider_ref"],
                amount_minor=min(amount_minor or charge["amount_minor"], charge["amount_minor"]),
                currency=charge["currency"],
                fee_minor=fee_minor,
                now=now,
            )
            return self._report_dispute("opened", provider_ref, now)

    def close_dispute(self, provider_ref: str, result: Result) -> Response:
        """Closes an open dispute; a won one pays the amount and the fee back."""
        records = self._records
        with records.transaction() as now:
            closed = records.run(CLOSE_DISPUTE, provider_ref=provider_ref, status=result, now=now)
            if not closed:
                return 409, {"error": "no such open dispute"}
            return self._report_dispute(result, provider_ref, now)

    def charge_of_other_shop(self, amount_minor: int, currency: str) -> Response:
        """A charge of another shop on the same account; its key has another form."""
        records = self._records
        key = f"{OTHER_SHOP_PREFIX}{token_hex(12)}"
        with records.transaction() as now:
            records.run(
                INSERT_OTHER_CHARGE,
                key=key,
                provider_ref=f"ch_{token_hex(12)}",
                amount_minor=amount_minor,
                currency=currency,
                now=now,
            )
            body = intent_body(records.found(INTENT_BY_KEY, key=key))
            records.add_entry("charge", body, now)
            records.add_webhook("charge.captured", body, now)
            return 200, body

    def payout(self, amount_minor: int, currency: str) -> Response:
        """Pays the account's balance out; only a webhook says so."""
        body: Body = {
            "provider_ref": f"po_{token_hex(12)}",
            "amount_minor": amount_minor,
            "currency": currency,
        }
        with self._records.transaction() as now:
            self._records.add_webhook("payout.paid", body, now)
        return 200, body

    def run_due(self, now: float) -> float | None:
        """Executes the drawn actions that are due; returns the time of the next, or None."""
        records = self._records
        while True:
            with records.transaction():
                due = records.one(UNREQUESTED_DUE)
                if due is None or due["due_at"] > now:
                    return None if due is None else due["due_at"]
                records.run(DELETE_UNREQUESTED, action_id=due["action_id"])
                self._act(due)

    def _act(self, due: sqlite3.Row) -> None:
        """One drawn action; one that is not possible any more does nothing."""
        key, amount = due["charge_key"], due["amount_minor"]
        match due["action"]:
            case "refund":
                self.refund(key, amount)
            case "dispute":
                self.dispute(key, amount, FEE_MINOR_DEFAULT)
            case "won" | "lost":
                found = self._records.one(OPEN_DISPUTE_OF, charge_key=key)
                if found is not None:
                    self.close_dispute(found["provider_ref"], due["action"])
            case _:
                self.charge_of_other_shop(amount, "KRW")

    def _report_dispute(self, change: str, provider_ref: str, now: float) -> Response:
        records = self._records
        body = dispute_body(records.found(DISPUTE_BY_REF, provider_ref=provider_ref))
        records.add_entry("dispute", body, now)
        records.add_webhook(f"dispute.{change}", body, now)
        return 200, body

    def _charge(self, charge_key: str) -> sqlite3.Row | None:
        return self._records.one(CAPTURED_BY_KEY_OR_REF, charge_key=charge_key, provider_ref=None)

    def _returned(self, charge: sqlite3.Row) -> int:
        sums = (REFUNDED_SUM, WITHHELD_SUM)
        charge_ref = charge["provider_ref"]
        return sum(self._records.found(each, charge_ref=charge_ref)[0] for each in sums)


def plan_unrequested(fault_source: FaultSource, captured_minor: int) -> list[Unrequested]:
    """What will happen to a charge that was just captured; drawn, nearly always nothing."""
    planned: list[Unrequested] = []
    if not UNREQUESTED & fault_source.settings.probabilities.keys():
        return planned  # nothing is drawn, so that the draws of other faults stay the same
    latest = fault_source.settings.unrequested_seconds
    if fault_source.draw_fault(Fault.PROVIDER_REFUND):
        part = max(1, round(captured_minor * fault_source.uniform(0.2, 1.3)))
        amount = min(part, captured_minor)
        planned.append(Unrequested("refund", amount, fault_source.uniform(0, latest)))
    if fault_source.draw_fault(Fault.DISPUTE):
        opened = fault_source.uniform(0, latest)
        result = "won" if fault_source.uniform(0, 1) < 0.5 else "lost"
        closed = opened + fault_source.uniform(0, latest)
        planned.append(Unrequested("dispute", captured_minor, opened))
        planned.append(Unrequested(result, captured_minor, closed))
    if fault_source.draw_fault(Fault.OTHER_SHOP):
        planned.append(Unrequested("other_shop", captured_minor, 0.0))
    return planned
