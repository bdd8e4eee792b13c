"""A call of another system in two transactions: prepare (commit the intent), execute, record."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, final

from events.records import frozen
from shop.primitives.messages import Event

if TYPE_CHECKING:
    from shop.adapters.db import Transaction

System = TypeVar("System")
Subject = TypeVar("Subject")
Call = TypeVar("Call")
Outcome = TypeVar("Outcome")

OpenTransaction = Callable[[], AbstractContextManager["Transaction"]]


@final
@frozen
class TwoPhaseCall(Generic[System, Subject, Call, Outcome]):
    """The three steps of a call; the runtime runs them in this order.

    ``subject(event)`` is what an event passes to ``prepare``.
    ``prepare(tx, subject)`` commits the intent and returns the call, or None when nothing is due.
    ``execute(system, call, open_transaction)`` runs outside any transaction and returns the
    outcome; an unknown outcome is returned, not raised.
    ``record(tx, call, outcome)`` writes the outcome in a second transaction.
    ``system`` is the service that is called: the payment provider, or what sends mails.
    """

    subject: Callable[[Event], Subject]
    prepare: Callable[[Transaction, Subject], Call | None]
    execute: Callable[[System, Call, OpenTransaction], Outcome]
    record: Callable[[Transaction, Call, Outcome], None]
    system: Literal["provider", "mailing"] = "provider"
