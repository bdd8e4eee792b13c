"""The interface of a payment provider, in terms that do not depend on the provider.

It has two steps, like a PaymentIntent: ``create`` moves no money, ``confirm`` captures, ``cancel``
voids.  Every step takes the whole call, not only its key: a response is accepted only if its key,
amount and currency are those of the call, and a provider that finds a charge by repeating its
creation (Stripe) needs the same body again.

An adapter never retries.  Timeout, reset, 5xx, 429 and 404 are ``unknown``: the caller repeats the
call later with the same key.  A response with another key, amount or currency is ``mismatch``: the
caller reads the provider's records (``find``), and raises an operator alert if these differ too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Protocol

from events.records import frozen
from shop.primitives.statuses import ActionType, DisputeStatus, PostingKind

OutcomeKind = Literal["captured", "declined", "voided", "requires_action", "unknown", "mismatch"]
IntentKind = OutcomeKind | Literal["created"]
RefundKind = Literal["succeeded", "rejected", "unknown", "mismatch", "missing"]
EntryKind = Literal["charge", "refund", "failed_refund", "dispute"]


@frozen
class ChargeCall:
    """One payment attempt; the same payment row always builds the same call.

    ``key`` is the idempotency key (``shop:<payment_id>``, at most 255 characters), ``amount_minor``
    is in the currency's minor unit (ISO 4217).  After ``charge_not_after`` (UTC) nothing that could
    capture is sent, because the provider may have dropped the key; None: no limit.  ``token`` is
    what the provider gave the customer, who has done what the payment required.
    """

    key: str
    amount_minor: int
    currency: str
    payment_method: str
    order_id: str
    payment_id: str
    charge_not_after: datetime | None = None
    token: str | None = None


@frozen
class RefundCall:
    """A refund of one capture; ``provider_ref`` is that of the capture's Outcome."""

    key: str
    charge_key: str
    provider_ref: str
    amount_minor: int
    currency: str


@frozen
class Intent:
    """The result of ``create``: ``created`` if the intent exists and no money has moved."""

    kind: IntentKind
    provider_ref: str | None = None
    reason: str | None = None


@frozen
class NextAction:
    """What the customer has to do before the provider collects a payment, within ``seconds``.

    ``details`` are shown to the customer: ``url`` of a redirect; ``clientSecret`` or ``clientKey``
    of a widget; ``bank`` and ``accountNumber`` of a transfer.
    """

    type: ActionType
    details: Mapping[str, str | int]
    seconds: int


@frozen
class ActionOptions:
    """How long customers may take for a redirect or a widget, and for a transfer.

    ``return_url`` is the page to which a redirect returns: ``{orderId}`` and ``{paymentId}`` in it
    are replaced; empty: the provider's own script in the page that the customer sees does all.
    ``client_key`` is the public key with which a widget is opened, where it needs one.
    """

    action_seconds: int = 900
    transfer_seconds: int = 86_400
    return_url: str = ""
    client_key: str = ""

    def return_url_of(self, call: ChargeCall) -> str:
        """The page to which the customer returns from this payment."""
        url = self.return_url.replace("{orderId}", call.order_id)
        return url.replace("{paymentId}", call.payment_id)


ACTION_OPTIONS_DEFAULT = ActionOptions()


@frozen
class Outcome:
    """What is known about a charge.

    ``captured``, ``declined`` and ``voided`` are final.  ``requires_action`` has an ``action``: the
    provider collects nothing until the customer has acted.  Amount and currency are those in the
    provider's response (also for ``mismatch``), or None.
    """

    kind: OutcomeKind
    amount_minor: int | None = None
    currency: str | None = None
    provider_ref: str | None = None
    reason: str | None = None
    action: NextAction | None = None


@frozen
class RefundOutcome:
    """What is known about a refund; ``succeeded`` and ``rejected`` are final.

    ``missing``: the provider's records contain no refund with this key.
    """

    kind: RefundKind
    amount_minor: int | None = None
    currency: str | None = None
    provider_ref: str | None = None
    reason: str | None = None


@frozen
class DisputeTransaction:
    """Money that a dispute moved: withdrawn or paid back, or a fee charged or paid back."""

    kind: PostingKind
    amount_minor: int
    currency: str
    at: datetime


@frozen
class DisputeReport:
    """A dispute's status and everything that it has moved so far, each kind at most once."""

    status: DisputeStatus
    transactions: tuple[DisputeTransaction, ...] = ()


@frozen
class ProviderTransaction:
    """A charge, a refund or a dispute in the provider's records, requested by the shop or not.

    A ``failed_refund`` gave no money back, or no longer does: it may have succeeded before.
    ``key`` is the shop's key, and the provider's own reference of what has none: a refund made in
    the provider's dashboard, and every dispute.  ``charge_key`` is the key of the charge that it
    concerns, empty if the provider does not say; ``charge_ref`` is the provider's reference of that
    charge.  Only a dispute has a ``dispute``.
    """

    kind: EntryKind
    key: str
    charge_key: str
    charge_ref: str
    amount_minor: int
    currency: str
    provider_ref: str
    at: datetime
    dispute: DisputeReport | None = None


@frozen
class ProviderTransactionPage:
    """Entries in the provider's order; ``next_cursor`` is opaque and continues after them.

    A provider may repeat entries of an earlier page; the reader must not count them twice.
    ``invalid`` names the entries that lack a valid key, amount, currency, reference or time.
    """

    entries: tuple[ProviderTransaction, ...]
    next_cursor: str
    has_more: bool
    invalid: tuple[str, ...] = ()


class Provider(Protocol):
    """A payment provider; a call blocks for at most the adapter's timeout."""

    def create(self, call: ChargeCall) -> Intent:
        """Creates the charge's intent; no money moves. Idempotent."""
        ...

    def confirm(self, call: ChargeCall) -> Outcome:
        """Captures a created intent, at most once. Idempotent."""
        ...

    def charge(self, call: ChargeCall) -> Outcome:
        """Creates and confirms with the same key, and with the token if there is one. Idempotent.

        While the customer has to act it collects nothing: ``requires_action``.
        """
        ...

    def cancel(self, call: ChargeCall) -> Outcome:
        """Voids the charge, or returns its final outcome. Idempotent.

        Leaves a tombstone for an unknown key, so that a charge still in flight is not captured.
        """
        ...

    def find(self, call: ChargeCall) -> Outcome:
        """The charge in the provider's records; ``unknown`` while it is open or not found."""
        ...

    def refund(self, call: RefundCall) -> RefundOutcome:
        """Refunds the amount, at most once per key and never more than was captured.

        Idempotent only while the provider keeps the key (Stripe: 24 hours).
        """
        ...

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        """The refund in the provider's records, however old; ``missing`` if there is none.

        ``unknown`` while it is open, and when the records cannot be read.
        """
        ...

    def list_since(self, cursor: str, limit: int) -> ProviderTransactionPage:
        """Charges, refunds and disputes after ``cursor`` (empty: from the first one kept).

        Also those that the shop did not request, and refunds and disputes of other shops on the
        same account.  A refund that is not final is listed once it is; a refund that fails after
        it succeeded, and a dispute, are listed again when they change, however old they are.
        Raises Unavailable when the provider is unreachable or its response is invalid.
        """
        ...
