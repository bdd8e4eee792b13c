"""What the shop asks of a payment provider, in words that no provider owns.

The protocol is two-step, like a PaymentIntent: ``create`` moves no money, ``confirm`` takes it,
``cancel`` closes the door behind it. Every step takes the whole call, not only its key: an answer
is believed only when its key, amount and currency are those of the call, and a provider that finds
a charge by repeating its creation (Stripe) needs the same body again.

An adapter never guesses and never retries. Timeout, reset, 5xx, 429 and 404 are ``unknown``: the
caller asks again later with the same key. An answer that names another key, amount or currency is
``mismatch``: the caller asks the books (``find``), and when these differ too, a person.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Protocol

from events.records import frozen

IntentKind = Literal["created", "captured", "declined", "voided", "unknown", "mismatch"]
OutcomeKind = Literal["captured", "declined", "voided", "unknown", "mismatch"]
RefundKind = Literal["succeeded", "rejected", "unknown", "mismatch", "missing"]
EntryKind = Literal["charge", "refund"]


@frozen
class ChargeCall:
    """One attempt to collect money; the same payment row always builds the same call.

    ``key`` is the idempotency key (``shop:<payment_id>``, at most 255 characters), ``amount_minor``
    is in the currency's minor unit (ISO 4217). Past ``charge_not_after`` (UTC) nothing that could
    take money is sent any more, because the provider may have forgotten the key; None: no limit.
    """

    key: str
    amount_minor: int
    currency: str
    payment_method: str
    order_id: str
    payment_id: str
    charge_not_after: datetime | None = None


@frozen
class RefundCall:
    """Money to give back of one capture; ``provider_ref`` is what its Outcome named."""

    key: str
    charge_key: str
    provider_ref: str
    amount_minor: int
    currency: str


@frozen
class Intent:
    """The answer to ``create``: ``created`` when the intent stands and no money has moved."""

    kind: IntentKind
    provider_ref: str | None = None
    reason: str | None = None


@frozen
class Outcome:
    """What is known of a charge.

    ``captured``, ``declined`` and ``voided`` are definitive. Amount and currency are those the
    provider named (on ``mismatch`` the ones not believed), None when it named none.
    """

    kind: OutcomeKind
    amount_minor: int | None = None
    currency: str | None = None
    provider_ref: str | None = None
    reason: str | None = None


@frozen
class RefundOutcome:
    """What is known of a refund; ``succeeded`` and ``rejected`` are definitive.

    ``missing``: the books were read, and have no refund under this key.
    """

    kind: RefundKind
    amount_minor: int | None = None
    currency: str | None = None
    provider_ref: str | None = None
    reason: str | None = None


@frozen
class ProviderTransaction:
    """One movement of money in the provider's books, as the provider wrote it.

    ``charge_key`` equals ``key`` for a charge and names the refunded charge for a refund.
    """

    kind: EntryKind
    key: str
    charge_key: str
    amount_minor: int
    currency: str
    provider_ref: str
    at: datetime


@frozen
class ProviderTransactionPage:
    """Entries in the provider's order. ``next_cursor`` is opaque and continues after them.

    A provider may repeat entries of an earlier page, so whoever reads must not count them twice.
    """

    entries: tuple[ProviderTransaction, ...]
    next_cursor: str
    has_more: bool


class Provider(Protocol):
    """A payment provider. Calls block for at most the timeout the adapter was opened with."""

    def create(self, call: ChargeCall) -> Intent:
        """Announce the charge under its key; no money moves. The same call again is no new one."""

    def confirm(self, call: ChargeCall) -> Outcome:
        """Take the money of a created intent, at most once however often it is asked."""

    def charge(self, call: ChargeCall) -> Outcome:
        """Create and confirm with the same key; repeatable with the same call."""

    def cancel(self, call: ChargeCall) -> Outcome:
        """Close the charge: ``voided``, or what it had already become.

        Idempotent. Leaves a tombstone even when the key was never seen, so that a charge still in
        flight is refused when it arrives.
        """

    def find(self, call: ChargeCall) -> Outcome:
        """The provider's own books on this key; ``unknown`` while open or not found."""

    def refund(self, call: RefundCall) -> RefundOutcome:
        """Give the amount back, at most once per key and never more than was captured.

        Only for as long as the provider remembers the key; a day later it is a new one to it.
        """

    def find_refund(self, call: RefundCall) -> RefundOutcome:
        """The provider's own books on this refund, however old: ``missing``, if they lack it.

        ``unknown`` while it is open, and when the books cannot be read.
        """

    def list_since(self, cursor: str, limit: int) -> ProviderTransactionPage:
        """Charges and refunds after ``cursor`` (empty: from the beginning that is kept).

        Raises ``Unavailable`` when the provider cannot be asked or answers nonsense;
        then nothing is known and the cursor stands.
        """
