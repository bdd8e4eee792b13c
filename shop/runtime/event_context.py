"""Work that nobody waits for: transactions and provider calls of event and clock handlers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shop.adapters import db
from shop.messaging import outbox
from shop.primitives import failpoints
from shop.runtime import log
from shop.runtime.message_context import span

if TYPE_CHECKING:
    from shop.adapters.db import Row, Statement, Transaction
    from shop.adapters.payment_provider.protocol import Provider
    from shop.messaging.outbox import OutboxRow
    from shop.primitives.messages import TwoPhaseCall
    from shop.runtime.config import Settings
    from shop.runtime.services import Services

RELAY_BUDGET_SECONDS = 5.0


class EventContext:
    """One delivery or one tick: opens transactions, publishes what each of them announced."""

    def __init__(self, services: Services, *, traceparent: str, actor: str) -> None:
        self._services = services
        self._traceparent = traceparent
        self._actor = actor
        self.opened: list[list[Row]] = []

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        return self._services.settings

    @property
    def provider(self) -> Provider:
        """The payment provider."""
        return self._services.provider

    @contextmanager
    def transaction(
        self, opening: tuple[Statement, ...] = (), *, before_commit: str = "W2"
    ) -> Iterator[Transaction]:
        """A transaction that commits when the block ends well, and then publishes its events.

        ``opening`` statements travel with BEGIN; their rows are in ``self.opened``.
        ``before_commit`` is its last crash window.
        """
        with (
            span("transaction"),
            self._services.database.transaction(
                opening=opening, traceparent=self._traceparent, actor=self._actor
            ) as session,
        ):
            self.opened = session.opened
            yield session.tx
            session.commit(before=before_commit)
            announced = session.tx.announced
        if announced:
            self.publish(announced)

    def publish(self, rows: list[OutboxRow], *, relay: bool = False) -> int:
        """Sends rows to the broker and marks those it accepted; answers how many."""
        publisher = self._services.publisher
        accepted = (
            publisher.publish(rows, budget_seconds=RELAY_BUDGET_SECONDS)
            if relay
            else publisher.publish(rows)
        )
        if accepted:
            failpoints.point("W5")
            try:
                self._services.database.run_now(outbox.mark_sent(accepted))
            except db.DatabaseError as error:
                log.write("not marked sent", error=type(error).__name__)
        return len(accepted)

    def note(self, what: str) -> None:
        """Writes a line to the log about work that has to come again."""
        log.write("left for later", function=self._actor, what=what)

    def run(self, phases: TwoPhaseCall, subject: UUID) -> None:
        """All phases for one subject: prepare, execute, record."""
        with self.transaction() as tx:
            call = phases.prepare(tx, subject)
        if call is not None:
            self.execute_and_record(phases, call)

    def execute_and_record(self, phases: TwoPhaseCall, call: Any) -> None:
        """The outside call, then its outcome in a transaction of its own."""
        failpoints.point("W7")
        outcome = phases.execute(self.provider, call, self.transaction)
        with self.transaction(before_commit="W9") as tx:
            phases.record(tx, call, outcome)
