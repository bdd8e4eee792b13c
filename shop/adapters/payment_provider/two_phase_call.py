"""A provider call in two transactions: prepare (commit the intent), execute, record the result."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Generic, TypeVar, final
from uuid import UUID

from events.records import frozen
from shop.primitives.messages import Event

if TYPE_CHECKING:
    from shop.adapters.db import Transaction
    from shop.adapters.payment_provider.protocol import Provider

Call = TypeVar("Call")
Outcome = TypeVar("Outcome")

OpenTransaction = Callable[[], AbstractContextManager["Transaction"]]


@final
@frozen
class TwoPhaseCall(Generic[Call, Outcome]):
    """The three steps of a provider call; the runtime runs them in this order.

    ``subject(event)`` is the id that an event passes to ``prepare``.
    ``prepare(tx, subject)`` commits the intent and returns the call, or None when nothing is due.
    ``execute(provider, call, open_transaction)`` runs outside any transaction and returns the
    outcome; an unknown outcome is returned, not raised.
    ``record(tx, call, outcome)`` writes the outcome in a second transaction.
    """

    subject: Callable[[Event], UUID]
    prepare: Callable[[Transaction, UUID], Call | None]
    execute: Callable[[Provider, Call, OpenTransaction], Outcome]
    record: Callable[[Transaction, Call, Outcome], None]
