"""Long random sequences of steps of one order, driven through the shipped ``decide()``.

They cover what the exhaustive model leaves out: several lines, partial and rejected refunds,
responses that name another amount, a provider that stores cancelled intents and one that does
not.  Messages are lost, repeated and late; processes crash between any two steps.  The provider
also refunds without a request, and customers dispute charges and win or lose.  Some payments wait
for the customer, who acts, transfers or returns in time, late, repeatedly, wrongly or never.

300 sequences of 60 steps; ``HYPOTHESIS_PROFILE=long`` runs 2,000 of 100.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from shop.adapters.payment_provider.protocol import NextAction
from shop.orders import decide, effects, messages
from shop.orders.effects import Effect, Effects
from shop.orders.lines import Line
from shop.orders.messages import Message
from shop.orders.states import OrderState, Payment, Refund
from shop.primitives.statuses import (
    CREATED,
    OPEN_REFUND,
    ActionType,
    CancelReason,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundMeans,
    RefundOrigin,
    RefundStatus,
    ReturnStatus,
    ShipmentStatus,
)
from shop.schema.triggers_and_views import ALLOWED_TRANSITIONS
from tests import order_model
from tests.order_model import ModelOrder

# Coverage would double the time of this search, and adds nothing to that of the other tests.
pytestmark = pytest.mark.no_cover

EXAMPLES, STEPS = (2_000, 100) if os.environ.get("HYPOTHESIS_PROFILE") == "long" else (300, 60)
MUTANT_EXAMPLES = 3_000
TIMER_ROUNDS_MAX = 60
PICK = st.integers(min_value=0, max_value=1_000)
# quantities and unit prices
LINES = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=4)
REFUND_MAX = 20
TOKEN, BAD_TOKEN = "token", "bad token"
LEGAL = {(entity, old, new) for entity, old, new, _ in ALLOWED_TRANSITIONS}


class Provider:
    """The provider's transactions: each key is executed at most once."""

    def __init__(self, *, stores_cancellations: bool) -> None:
        self.stores_cancellations = stores_cancellations
        self.total_minor = 0
        self.charges: dict[UUID, str] = {}
        self.actions: dict[UUID, str] = {}
        self.refunds: dict[UUID, str] = {}
        self.amounts: dict[UUID, int] = {}
        self.payment_of: dict[UUID, UUID] = {}
        self.disputes: dict[UUID, messages.DisputeReported] = {}

    @property
    def held(self) -> int:
        captured = self.total_minor * list(self.charges.values()).count("captured")
        refunded_minor = sum(
            self.amounts[key] for key, status in self.refunds.items() if status == "succeeded"
        )
        return captured - refunded_minor - sum(map(withheld, self.disputes.values()))

    def free(self, payment_id: UUID) -> int:
        """What of a charge is neither returned nor withheld."""
        if self.charges.get(payment_id) != "captured":
            return 0
        returned_minor = sum(
            self.amounts[key]
            for key, status in self.refunds.items()
            if status == "succeeded" and self.payment_of[key] == payment_id
        )
        disputed = self.disputes.get(payment_id)
        return self.total_minor - returned_minor - (withheld(disputed) if disputed else 0)

    def charge(
        self,
        payment_id: UUID,
        *,
        approves: bool,
        token: str | None = None,
        requires_action: bool = False,
        by_transfer: bool = False,
    ) -> None:
        """Collects at once, or after the customer has acted and the shop confirms it."""
        if requires_action and payment_id not in self.charges:
            self.actions.setdefault(payment_id, "awaited")
        action = self.actions.get(payment_id)
        if action == "authorized" and token == TOKEN and by_transfer:
            self.actions[payment_id] = "transfer"
        elif action is None or (action == "authorized" and token == TOKEN):
            self.charges.setdefault(payment_id, "captured" if approves else "declined")

    def waiting(self, *actions: str) -> list[UUID]:
        """The payments for which the customer can do something."""
        return [p for p, a in self.actions.items() if a in actions and p not in self.charges]

    def cancel(self, payment_id: UUID) -> str:
        """The outcome of the charge, else voided, which only some providers store."""
        if self.stores_cancellations:
            return self.charges.setdefault(payment_id, "voided")
        return self.charges.get(payment_id, "voided")

    def reverse(self, refund_id: UUID) -> None:
        self.refunds[refund_id] = "reversed"

    def refund(self, refund: Refund, *, accepts: bool) -> None:
        if refund.refund_id in self.refunds:
            return
        is_left = refund.amount_minor <= self.free(refund.payment_id)
        self.record_refund(refund.refund_id, refund.payment_id, refund.amount_minor)
        if not (accepts and is_left):
            self.refunds[refund.refund_id] = "rejected"

    def record_refund(self, refund_id: UUID, payment_id: UUID, amount_minor: int) -> None:
        self.refunds[refund_id] = "succeeded"
        self.amounts[refund_id] = amount_minor
        self.payment_of[refund_id] = payment_id

    def dispute(self, payment_id: UUID, amount_minor: int) -> None:
        """Withdraws the amount and a fee."""
        amount = (amount_minor, "KRW")
        self.disputes[payment_id] = messages.DisputeReported(
            order_model.dispute_id(payment_id.int),
            payment_id,
            f"dp_{payment_id.int}",
            DisputeStatus.OPEN,
            *amount,
            (
                messages.DisputeMovement(PostingKind.DISPUTE, *amount),
                messages.DisputeMovement(PostingKind.DISPUTE_FEE, 1, "KRW"),
            ),
        )

    def close_dispute(self, payment_id: UUID, status: DisputeStatus) -> None:
        """A won dispute pays the amount back."""
        report = self.disputes[payment_id]
        back = messages.DisputeMovement(
            PostingKind.DISPUTE_REVERSAL, report.amount_minor, report.currency
        )
        movements = (*report.movements, back) if status == DisputeStatus.WON else report.movements
        self.disputes[payment_id] = replace(report, status=status, movements=movements)


def withheld(report: messages.DisputeReported) -> int:
    return 0 if report.status == DisputeStatus.WON else report.amount_minor


def checked(state: OrderState, message: Message) -> Effects:
    """The shipped rules; every status change is in the table of legal transitions."""
    decided = decide.decide(state, message)
    changes = {change for effect in decided if (change := status_change_of(effect))}
    assert changes <= LEGAL, changes - LEGAL
    return decided


# C901: one case for each effect that changes a status
def status_change_of(effect: Effect) -> tuple[str, str, str] | None:  # noqa: C901
    """The row of ``transitions`` that an effect writes."""
    match effect:
        case effects.ChangeOrderStatus():
            return "order", effect.from_status, effect.to_status
        case effects.ChangeReservations():
            return "reservation", effect.from_status, effect.to_status
        case effects.ChangePaymentStatus():
            return "payment", effect.from_status, effect.to_status
        case effects.ChangeRefundStatus():
            return "refund", effect.from_status, effect.to_status
        case effects.AwaitAction():
            is_new = effect.from_status != PaymentStatus.REQUIRES_ACTION
            change = ("payment", effect.from_status, PaymentStatus.REQUIRES_ACTION)
            return change if is_new else None
        case effects.OpenPayment():
            return "payment", CREATED, PaymentStatus.INTENT
        case effects.OpenRefund():
            return "refund", CREATED, RefundStatus.INTENT
        case effects.RecordRefund():
            return "refund", CREATED, RefundStatus.SUCCEEDED
        case effects.OpenDispute():
            return "dispute", CREATED, DisputeStatus.OPEN
        case effects.ChangeDisputeStatus():
            return "dispute", effect.from_status, effect.to_status
        case effects.OpenShipment():
            return "shipment", CREATED, ShipmentStatus.PREPARING
        case effects.ChangeShipmentStatus():
            return "shipment", effect.from_status, effect.to_status
        case effects.OpenReturn():
            return "return", CREATED, effect.status
        case effects.ChangeReturnStatus():
            return "return", effect.from_status, effect.to_status
        case _:
            return None


class OneOrder(RuleBasedStateMachine):
    """Each rule is a step that can happen; it ends in the shipped ``decide()``."""

    def __init__(self) -> None:
        super().__init__()
        self.model: ModelOrder = order_model.placed()
        self.provider = Provider(stores_cancellations=True)
        self.charges_in_flight: list[tuple[UUID, str | None]] = []
        self.refunds_in_flight: list[Refund] = []
        self.messages: list[Message] = []

    @initialize(
        lines=LINES,
        discount=st.integers(0, 10),
        shipping=st.integers(0, 3),
        stores_cancellations=st.booleans(),
        is_paid=st.booleans(),
        is_sent=st.booleans(),
        is_awaited=st.booleans(),
    )
    def begin(
        self,
        lines: list[tuple[int, int]],
        discount: int,
        shipping: int,
        stores_cancellations: bool,
        is_paid: bool,
        is_sent: bool,
        is_awaited: bool,
    ) -> None:
        """Half of the orders are paid at once, since random steps seldom reach a refund.

        Half of these are sent at once, since random steps seldom reach a return; half of the others
        wait for their customer.
        """
        discount = min(discount, sum(qty * price for qty, price in lines) - 1)
        self.model = order_model.placed(lines, discount_minor=discount, shipping_minor=shipping)
        self.provider.stores_cancellations = stores_cancellations
        self.provider.total_minor = self.total
        if is_paid:
            self.apply_message(messages.ChargeDue())
            payment = self.model.state.open_payment
            assert payment is not None
            self.resolve(payment)
        if is_awaited and not is_paid:
            self.apply_message(messages.ChargeDue())
            (payment,) = self.model.state.payments
            self.provider.charge(payment.payment_id, approves=True, requires_action=True)
            self.apply_message(self.outcome_message(payment.payment_id))
        if is_paid and is_sent:
            first = order_model.shipment_id(1)
            ordered = tuple(Line(each.product_id, each.qty) for each in self.model.state.lines)
            self.apply_message(messages.ShipmentRequested(first, ordered))
            self.apply_message(messages.ShipmentSent(first, "cj", "1234"))

    @property
    def total(self) -> int:
        return self.model.state.order.total_minor

    def apply_message(self, message: Message) -> None:
        """Every status change is in the table of legal transitions."""
        self.model = order_model.apply_message(self.model, message, checked)

    def pick(self, rows: list[Any] | tuple[Any, ...], number: int) -> Any:
        return rows[number % len(rows)]

    # ------------------------------------------------------------ requests

    @rule()
    def charge_event(self) -> None:
        self.apply_message(messages.ChargeDue())

    @precondition(lambda self: self.model.state.payments)
    @rule()
    def pay_again(self) -> None:
        self.apply_message(messages.PayAgainRequested("CARD"))

    @precondition(lambda self: self.model.state.payments)
    @rule(
        reason=st.sampled_from([CancelReason.USER, CancelReason.OPERATOR]),
        is_meant=st.sampled_from([True] + 7 * [False]),
    )
    def cancel(self, reason: CancelReason, is_meant: bool) -> None:
        """Seldom, since few rules apply afterwards."""
        if is_meant:
            self.apply_message(messages.CancelRequested(reason))

    @precondition(lambda self: self.model.state.captures)
    @rule(
        amount=st.integers(min_value=1, max_value=REFUND_MAX),
        means=st.sampled_from([RefundMeans.PROVIDER, *RefundMeans]),
        restock=st.booleans(),
    )
    def request_refund(self, amount: int, means: RefundMeans, restock: bool) -> None:
        self.apply_message(messages.RefundRequested(amount, "support", means, restock=restock))

    @precondition(lambda self: any(p.rest_minor for p in self.model.state.captures))
    @rule(means=st.sampled_from(RefundMeans), restock=st.booleans())
    def request_refund_of_the_rest(self, means: RefundMeans, restock: bool) -> None:
        rest = next(p.rest_minor for p in self.model.state.captures if p.rest_minor)
        self.apply_message(messages.RefundRequested(rest, "support", means, restock=restock))

    @precondition(
        lambda self: len(self.model.state.payments) > 1 or self.model.state.order.charge_requested
    )
    @rule(hard=st.booleans())
    def time_passes(self, hard: bool) -> None:
        """An accepted charge is tried before a timer may cancel the order."""
        self.model = order_model.with_expiry(self.model, hard=hard)
        before = self.model
        self.apply_message(messages.ExpiryDue())
        assert self.model == before or not before.state.order.charge_requested

    @precondition(lambda self: self.model.state.payments)
    @rule()
    def order_is_replaced(self) -> None:
        """A payment that may still succeed is not given up for another order."""
        before = self.model
        self.apply_message(messages.OrderReplaced())
        may_succeed = before.state.open_payment or before.state.order.charge_requested
        assert self.model == before or not may_succeed

    # ------------------------------------------------------------ processes

    @precondition(lambda self: self.model.state.open_payment)
    @rule()
    def decide_to_charge(self) -> None:
        payment = self.model.state.open_payment
        assert payment is not None
        if decide.provider_call(self.model.state, payment) == "confirm":
            self.charges_in_flight.append((payment.payment_id, payment.token))

    @precondition(lambda self: self.charges_in_flight)
    @rule(
        number=PICK,
        approves=st.booleans(),
        requires_action=st.booleans(),
        by_transfer=st.booleans(),
        has_response=st.booleans(),
        is_sent_again=st.booleans(),
    )
    def provider_receives_charge(
        self,
        number: int,
        approves: bool,
        requires_action: bool,
        by_transfer: bool,
        has_response: bool,
        is_sent_again: bool,
    ) -> None:
        """At once or much later; after a crash another process sends the same key again."""
        payment_id, token = self.pick(self.charges_in_flight, number)
        if not is_sent_again:
            self.charges_in_flight.remove((payment_id, token))
        self.provider.charge(
            payment_id,
            approves=approves,
            token=token,
            requires_action=requires_action,
            by_transfer=by_transfer,
        )
        if has_response:
            self.messages.append(self.outcome_message(payment_id, token=token))
        else:
            self.messages.append(messages.PaymentUnknown(payment_id))

    @precondition(lambda self: self.charges_in_flight)
    @rule(number=PICK)
    def charge_is_lost(self, number: int) -> None:
        self.charges_in_flight.remove(self.pick(self.charges_in_flight, number))

    @precondition(lambda self: self.model.state.open_payment)
    @rule(has_response=st.booleans())
    def void_payment(self, has_response: bool) -> None:
        payment = self.model.state.open_payment
        assert payment is not None
        if decide.provider_call(self.model.state, payment) == "cancel":
            outcome = self.provider.cancel(payment.payment_id)
            if has_response:
                self.messages.append(self.outcome_message(payment.payment_id, outcome))

    # ------------------------------------------------------------ the customer

    @precondition(lambda self: self.provider.waiting("awaited"))
    @rule(number=PICK, is_confirmed_by_shop=st.booleans())
    def customer_acts(self, number: int, is_confirmed_by_shop: bool) -> None:
        """Also after the shop has given the payment up, where the provider does not store that."""
        payment_id = self.pick(self.provider.waiting("awaited"), number)
        if is_confirmed_by_shop:
            self.provider.actions[payment_id] = "authorized"
        else:
            self.provider.charges[payment_id] = "captured"
            self.messages.append(self.outcome_message(payment_id))

    @precondition(lambda self: self.provider.waiting("transfer"))
    @rule(number=PICK)
    def customer_transfers(self, number: int) -> None:
        payment_id = self.pick(self.provider.waiting("transfer"), number)
        self.provider.charges[payment_id] = "captured"
        self.messages.append(self.outcome_message(payment_id))

    @precondition(lambda self: self.provider.actions)
    @rule(
        number=PICK,
        token=st.sampled_from([TOKEN, TOKEN, BAD_TOKEN]),
        beyond=st.sampled_from([0, 0, 1]),
    )
    def customer_returns(self, number: int, token: str, beyond: int) -> None:
        """In time, late or repeatedly; with another amount nothing is confirmed."""
        payment = self.pick(self.model.state.payments, number)
        before = self.model
        returned = messages.ActionReturned(payment.payment_id, token, self.total + beyond)
        self.apply_message(returned)
        assert not beyond or self.model == before
        once = self.model
        self.apply_message(returned)
        assert self.model == once

    @precondition(
        lambda self: self.model.state.open_payment and self.model.state.open_payment.awaits_customer
    )
    @rule()
    def deadline_passes(self) -> None:
        self.model = order_model.after_deadline(self.model)

    @precondition(lambda self: self.model.state.refunds)
    @rule(number=PICK)
    def send_refund(self, number: int) -> None:
        self.refunds_in_flight.append(self.pick(self.model.state.refunds, number))

    @precondition(lambda self: self.refunds_in_flight)
    @rule(
        number=PICK, is_rejected=st.sampled_from([False] * 4 + [True]), has_response=st.booleans()
    )
    def provider_receives_refund(self, number: int, is_rejected: bool, has_response: bool) -> None:
        refund = self.pick(self.refunds_in_flight, number)
        self.refunds_in_flight.remove(refund)
        if refund.means != RefundMeans.PROVIDER:
            self.messages.append(messages.Refunded(refund.refund_id))
            return
        self.provider.refund(refund, accepts=not is_rejected)
        if has_response:
            self.messages.append(self.refund_message(refund))
        else:
            self.messages.append(messages.RefundUnknown(refund.refund_id))

    @precondition(lambda self: self.reversible)
    @rule(number=PICK)
    def provider_reverses_refund(self, number: int) -> None:
        refund_id = self.pick(self.reversible, number)
        self.provider.reverse(refund_id)
        self.apply_message(messages.Refunded(refund_id))
        self.messages.append(messages.RefundRejected(refund_id))

    @property
    def reversible(self) -> list[UUID]:
        """The executed refunds of which the shop has a row."""
        return [
            key
            for key, status in self.provider.refunds.items()
            if status == "succeeded" and self.model.state.refund(key)
        ]

    # ------------------------------------------------------------ shipments

    @precondition(lambda self: self.model.state.captures)
    @rule(product=PICK, qty=st.integers(1, 3))
    def pack(self, product: int, qty: int) -> None:
        """Any quantity of a line, also more than is left of it."""
        line = self.pick(self.model.state.lines, product)
        new_id = order_model.shipment_id(len(self.model.state.shipments) + 1)
        self.apply_message(messages.ShipmentRequested(new_id, (Line(line.product_id, qty),)))

    @precondition(lambda self: self.model.state.shipments)
    @rule(number=PICK, step=st.sampled_from(["send", "deliver", "drop"]))
    def shipment_goes_on(self, number: int, step: str) -> None:
        shipment_id = self.pick(self.model.state.shipments, number).shipment_id
        match step:
            case "send":
                self.apply_message(messages.ShipmentSent(shipment_id, "cj", "1234"))
            case "deliver":
                self.apply_message(messages.ShipmentArrived(shipment_id))
            case _:
                self.apply_message(messages.ShipmentDropped(shipment_id))

    # ------------------------------------------------------------ cancelled and returned lines

    @precondition(lambda self: self.model.state.captures)
    @rule(product=PICK, qty=st.integers(1, 3), is_sent=st.booleans())
    def customer_wants_units_back(self, product: int, qty: int, is_sent: bool) -> None:
        """Any quantity of a line: a cancellation before it is sent, or a return."""
        line = self.pick(self.model.state.lines, product)
        new_id = order_model.return_id(len(self.model.state.returns) + 1)
        units = (Line(line.product_id, qty),)
        if is_sent:
            sent = frozenset(s.shipment_id for s in self.model.state.shipments)
            self.apply_message(messages.ReturnRequested(new_id, units, "too small", sent))
        else:
            self.apply_message(messages.LinesCancelled(new_id, units, "customer"))

    @precondition(lambda self: self.model.state.returns)
    @rule(
        number=PICK,
        step=st.sampled_from(["approve", "reject", "receive", "receive"]),
        lost=st.integers(0, 2),
    )
    def return_goes_on(self, number: int, step: str, lost: int) -> None:
        """Some of the units that arrive are not restocked."""
        row = self.pick(self.model.state.returns, number)
        match step:
            case "approve":
                self.apply_message(messages.ReturnApproved(row.return_id))
            case "reject":
                self.apply_message(messages.ReturnRejected(row.return_id))
            case _:
                stocked = tuple(
                    Line(line.product_id, line.qty - lost) for line in row.lines if line.qty > lost
                )
                self.apply_message(messages.ReturnReceived(row.return_id, stocked))

    # ------------------------------------------------------------ without a request of the shop

    @property
    def refundable_by_hand(self) -> list[UUID]:
        return [
            payment_id
            for payment_id in self.provider.charges
            if self.provider.free(payment_id) > 0
            and order_model.provider_refund_id(payment_id.int) not in self.provider.refunds
        ]

    @property
    def disputable(self) -> list[UUID]:
        return [
            payment_id
            for payment_id, outcome in self.provider.charges.items()
            if outcome == "captured" and payment_id not in self.provider.disputes
        ]

    @property
    def open_disputes(self) -> list[UUID]:
        return [
            payment_id
            for payment_id, report in self.provider.disputes.items()
            if report.status == DisputeStatus.OPEN
        ]

    @precondition(lambda self: self.refundable_by_hand)
    @rule(number=PICK, amount=st.integers(min_value=1, max_value=REFUND_MAX))
    def provider_refunds_by_itself(self, number: int, amount: int) -> None:
        """A part or all of what is left; the report is late, repeated or lost."""
        payment_id = self.pick(self.refundable_by_hand, number)
        refund_id = order_model.provider_refund_id(payment_id.int)
        amount_minor = min(amount, self.provider.free(payment_id))
        self.provider.record_refund(refund_id, payment_id, amount_minor)
        self.messages.append(self.found_message(refund_id))

    @precondition(lambda self: self.disputable)
    @rule(number=PICK, amount=st.integers(min_value=1, max_value=REFUND_MAX))
    def customer_disputes_charge(self, number: int, amount: int) -> None:
        """Also a charge that was refunded already."""
        payment_id = self.pick(self.disputable, number)
        self.provider.dispute(payment_id, min(amount, self.total))
        self.messages.append(self.provider.disputes[payment_id])

    @precondition(lambda self: self.open_disputes)
    @rule(number=PICK, status=st.sampled_from([DisputeStatus.WON, DisputeStatus.LOST]))
    def bank_decides_dispute(self, number: int, status: DisputeStatus) -> None:
        payment_id = self.pick(self.open_disputes, number)
        self.provider.close_dispute(payment_id, status)
        self.messages.append(self.provider.disputes[payment_id])

    def found_message(self, refund_id: UUID) -> Message:
        return messages.RefundFound(
            refund_id,
            self.provider.payment_of[refund_id],
            self.provider.amounts[refund_id],
            "KRW",
            f"re_{refund_id.int}",
            RefundOrigin.PROVIDER,
        )

    # ------------------------------------------------------------ messages

    @precondition(lambda self: self.messages)
    @rule(number=PICK, is_repeated=st.booleans())
    def message_arrives(self, number: int, is_repeated: bool) -> None:
        """A message applied twice in a row changes nothing the second time."""
        message = self.pick(self.messages, number)
        if not is_repeated:
            self.messages.remove(message)
        self.apply_message(message)
        once = self.model
        self.apply_message(message)
        assert self.model == once

    @precondition(lambda self: self.messages)
    @rule(number=PICK)
    def crash_before_commit(self, number: int) -> None:
        """Nothing is written, so the repeated message is decided in the same way."""
        message = self.pick(self.messages, number)
        first = decide.decide(self.model.state, message)
        assert decide.decide(self.model.state, message) == first

    @precondition(lambda self: self.messages)
    @rule(number=PICK)
    def message_is_lost(self, number: int) -> None:
        self.messages.remove(self.pick(self.messages, number))

    @precondition(lambda self: self.model.state.payments)
    @rule(number=PICK)
    def contradicting_response_arrives(self, number: int) -> None:
        payment = self.pick(self.model.state.payments, number)
        before = self.model.state
        self.apply_message(messages.Captured(payment.payment_id, self.total + 1, "KRW"))
        self.apply_message(messages.PaymentMismatched(payment.payment_id, "another amount"))
        assert self.model.state.order == before.order

    def outcome_message(
        self, payment_id: UUID, outcome: str | None = None, token: str | None = None
    ) -> Message:
        outcome = outcome or self.provider.charges.get(payment_id)
        if outcome is None:
            is_transfer = self.provider.actions[payment_id] == "transfer"
            kind = ActionType.TRANSFER if is_transfer else ActionType.WIDGET
            return messages.ActionRequired(payment_id, NextAction(kind, {}, 1), token)
        match outcome:
            case "captured":
                return messages.Captured(payment_id, self.total, "KRW")
            case "declined":
                return messages.Declined(payment_id)
            case _:
                return messages.Voided(payment_id)

    def refund_message(self, refund: Refund) -> Message:
        if self.provider.refunds.get(refund.refund_id, "succeeded") == "succeeded":
            return messages.Refunded(refund.refund_id)
        return messages.RefundRejected(refund.refund_id)

    # ------------------------------------------------------------ invariants

    @invariant()
    def no_rule_is_violated(self) -> None:
        assert order_model.violations(self.model) == []

    @invariant()
    def ledger_and_provider_agree(self) -> None:
        """Every transaction of the provider has a row, and every posting a transaction (I-11)."""
        known = {p.payment_id for p in self.model.state.payments}
        assert self.provider.charges.keys() <= known
        by_hand = {order_model.provider_refund_id(p.int) for p in self.provider.charges}
        requested = {r.refund_id for r in self.model.state.refunds}
        assert self.provider.refunds.keys() <= requested | by_hand
        refunds_posted = sum(a for kind, _, a in self.model.ledger if kind == PostingKind.REFUND)
        refunded_minor = sum(
            self.provider.amounts[key]
            for key, status in self.provider.refunds.items()
            if status in ("succeeded", "reversed")
        )
        captures = sum(a for kind, _, a in self.model.ledger if kind == PostingKind.CAPTURE)
        assert refunds_posted <= refunded_minor
        assert captures <= self.total * list(self.provider.charges.values()).count("captured")

    def teardown(self) -> None:
        """With timers alone and nothing lost, the order becomes final and matches the provider.

        Every action ends by its deadline.
        """
        for payment_id, token in self.charges_in_flight:
            self.provider.charge(payment_id, approves=True, token=token)
        for payment_id in self.open_disputes:
            self.provider.close_dispute(payment_id, DisputeStatus.LOST)
        for _ in range(TIMER_ROUNDS_MAX):
            before = self.model
            self.timers()
            if self.model == before:
                break
        held_minor = self.provider.held + self.unrecorded_minor()
        assert order_model.faults_when_final(self.model, held_minor) == []

    def unrecorded_minor(self) -> int:
        """What the provider returned beside money that the shop returned by other means or wrote
        off: it fits into no capture, so an operator is alerted."""
        sum_minor = 0
        for key, status in self.provider.refunds.items():
            row = self.model.state.refund(key)
            if status == "succeeded" and (row is None or row.status == RefundStatus.REJECTED):
                subjects = {subject for _, subject in self.model.alerts}
                assert subjects & {key, f"re_{key.int}"}
                others = [r for r in self.model.state.refunds if r.means != RefundMeans.PROVIDER]
                assert any(r.payment_id == self.provider.payment_of[key] for r in others)
                sum_minor += self.provider.amounts[key]
        return sum_minor

    def timers(self) -> None:
        self.apply_message(messages.ChargeDue())
        payment = self.model.state.open_payment
        if payment is not None:
            self.resolve(payment)
        for refund in self.model.state.refunds:
            if refund.status in OPEN_REFUND:
                if refund.means == RefundMeans.PROVIDER:
                    self.provider.refund(refund, accepts=True)
                self.apply_message(self.refund_message(refund))
        self.reconcile()
        payment = self.model.state.open_payment
        if payment is not None and payment.awaits_customer:
            self.model = order_model.after_deadline(self.model)
        self.model = order_model.with_expiry(self.model, hard=True)
        self.apply_message(messages.ExpiryDue())
        self.apply_message(messages.FinishDue())

    def resolve(self, payment: Payment) -> None:
        if decide.provider_call(self.model.state, payment) == "confirm":
            self.provider.charge(payment.payment_id, approves=True, token=payment.token)
            self.apply_message(self.outcome_message(payment.payment_id, token=payment.token))
        else:
            self.apply_message(
                self.outcome_message(payment.payment_id, self.provider.cancel(payment.payment_id))
            )

    def reconcile(self) -> None:
        for payment_id, status in self.provider.charges.items():
            if status == "captured":
                self.apply_message(self.outcome_message(payment_id))
        for refund_id, status in self.provider.refunds.items():
            if status in ("succeeded", "reversed"):
                if refund_id == order_model.provider_refund_id(
                    self.provider.payment_of[refund_id].int
                ):
                    self.apply_message(self.found_message(refund_id))
                self.apply_message(messages.Refunded(refund_id))
            if status == "reversed":
                self.apply_message(messages.RefundRejected(refund_id))
        for report in self.provider.disputes.values():
            self.apply_message(report)


OneOrder.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestOneOrder = OneOrder.TestCase


# ---------------------------------------------------------------- mutants

shipped = decide.decide


def refunds_the_total_twice(state: OrderState, message: Message) -> Effects:
    """The refund of a cancelled order ignores earlier partial refunds."""
    decided = shipped(state, message)
    if not isinstance(message, messages.CancelRequested):
        return decided
    total = state.order.total_minor
    return tuple(
        replace(e, amount_minor=total) if isinstance(e, effects.OpenRefund) else e for e in decided
    )


def refunds_more_than_was_captured(state: OrderState, message: Message) -> Effects:
    decided = shipped(state, message)
    if (
        isinstance(message, messages.RefundRequested)
        and state.order.status == OrderStatus.PAID
        and state.settling_payment
    ):
        payment_id = state.settling_payment.payment_id
        return (effects.OpenRefund(payment_id, message.amount_minor, message.reason),)
    return decided


def expires_before_the_requested_charge(state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.ExpiryDue):
        state = replace(state, order=replace(state.order, charge_requested=False))
    return shipped(state, message)


def posts_the_total(state: OrderState, message: Message) -> Effects:
    """A partial refund is posted as a full one."""
    total = state.order.total_minor
    return tuple(
        replace(e, amount_minor=total)
        if isinstance(e, effects.PostToLedger) and e.kind == PostingKind.REFUND
        else e
        for e in shipped(state, message)
    )


def ignores_refunds_without_a_request(state: OrderState, message: Message) -> Effects:
    return () if isinstance(message, messages.RefundFound) else shipped(state, message)


def refunds_what_a_dispute_withholds(state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.RefundRequested | messages.CancelRequested):
        state = replace(state, disputes=())
    return shipped(state, message)


def posts_no_movement_of_a_dispute(state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.DisputeReported):
        message = replace(message, movements=())
    return shipped(state, message)


def awaits_customers_forever(state: OrderState, message: Message) -> Effects:
    """A deadline that has passed does not end the payment."""
    if isinstance(message, messages.Voided):
        return ()
    return shipped(state, message)


def accepts_any_amount(state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.Captured):
        message = replace(message, amount_minor=state.order.total_minor)
    return shipped(state, message)


def packs_whatever_is_requested(state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.ShipmentRequested):
        return (effects.OpenShipment(message.shipment_id, message.lines),)
    return shipped(state, message)


def cancels_what_was_sent(state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.CancelRequested):
        state = replace(state, shipments=())
    return shipped(state, message)


def returns_what_was_not_sent(state: OrderState, message: Message) -> Effects:
    if isinstance(message, messages.ReturnRequested) and state.order.status == OrderStatus.PAID:
        opened = effects.OpenReturn(
            message.return_id, ReturnStatus.REQUESTED, message.reason, message.lines
        )
        return (opened,)
    return shipped(state, message)


def gives_back_what_is_not_left(state: OrderState, message: Message) -> Effects:
    """Each line gives one won more back than was paid for its units."""
    return tuple(
        replace(e, amount_minor=e.amount_minor + 1) if isinstance(e, effects.GiveBack) else e
        for e in shipped(state, message)
    )


@pytest.mark.parametrize(
    "mutant",
    [
        returns_what_was_not_sent,
        gives_back_what_is_not_left,
        packs_whatever_is_requested,
        cancels_what_was_sent,
        refunds_the_total_twice,
        refunds_more_than_was_captured,
        expires_before_the_requested_charge,
        posts_the_total,
        ignores_refunds_without_a_request,
        refunds_what_a_dispute_withholds,
        posts_no_movement_of_a_dispute,
        awaits_customers_forever,
        accepts_any_amount,
    ],
)
def test_each_mutant_violates_a_rule(
    mutant: Callable[[OrderState, Message], Effects], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decide, "decide", mutant)
    quick = settings(
        OneOrder.TestCase.settings,
        # it ends at the first violation; the rarest needs about 140 sequences on average
        max_examples=MUTANT_EXAMPLES,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        derandomize=True,
        database=None,
    )

    with pytest.raises(AssertionError):
        run_state_machine_as_test(OneOrder, settings=quick)
