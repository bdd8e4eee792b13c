"""Records every call to the payment provider or the mail server as a span with its outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from shop.primitives import failpoints
from shop.primitives.failpoints import Failpoint
from shop.runtime.message_context import span

if TYPE_CHECKING:
    from email.message import EmailMessage

    from shop.adapters.mail_server import SendOutcome, Sends
    from shop.adapters.payment_provider.protocol import (
        ChargeCall,
        Intent,
        Outcome,
        Provider,
        ProviderTransactionPage,
        RefundCall,
        RefundOutcome,
    )

# These move money or prevent it.
EXECUTING_STEPS = ("charge", "cancel", "refund")

Call = TypeVar("Call", "ChargeCall", "RefundCall")
Result = TypeVar("Result", "Intent", "Outcome", "RefundOutcome")


class InstrumentedProvider:
    """A provider that passes each call to another one and records it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def create(self, call: ChargeCall) -> Intent:
        """See ``Provider``, as for the other methods."""
        return _record("create", self._provider.create, call)

    def confirm(self, call: ChargeCall) -> Outcome:
        return _record("confirm", self._provider.confirm, call)

    def charge(self, call: ChargeCall) -> Outcome:
        return _record("charge", self._provider.charge, call)

    def cancel(self, call: ChargeCall) -> Outcome:
        return _record("cancel", self._provider.cancel, call)

    def find(self, call: ChargeCall) -> Outcome:
        return _record("find", self._provider.find, call)

    def refund(self, call: RefundCall) -> RefundOutcome:
        return _record("refund", self._provider.refund, call)

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        return _record("find_refund", self._provider.find_refund, call)

    def list_since(self, cursor: str, limit: int) -> ProviderTransactionPage:
        with span("provider list_since", "client", step="list_since") as recorded:
            page = self._provider.list_since(cursor, limit)
            recorded.outcome = "read"
        return page


class InstrumentedMailServer:
    """A mail server that passes each mail to another one and records it."""

    def __init__(self, server: Sends) -> None:
        self._server = server

    def send(self, message: EmailMessage) -> SendOutcome:
        """See ``Sends``."""
        with span("mail send", "client") as recorded:
            outcome = self._server.send(message)
            recorded.outcome = outcome.kind
        # while it is not reachable, it has not received the mail
        if outcome.kind != "unreachable":
            failpoints.hit(Failpoint.AFTER_PROVIDER_CALL)
        return outcome


def _record(step: str, method: Callable[[Call], Result], call: Call) -> Result:
    with span(f"provider {step}", "client", step=step) as recorded:
        result = method(call)
        recorded.outcome = result.kind
    # with an unknown outcome the provider may not have been reached
    if step in EXECUTING_STEPS and result.kind != "unknown":
        failpoints.hit(Failpoint.AFTER_PROVIDER_CALL)
    return result
