"""Work that nobody waits for: transactions and provider calls of event and clock handlers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

from shop import crash, db, outbox
from shop.runtime import log
from shop.runtime.handling import step

if TYPE_CHECKING:
    from shop.db import Row, Statement, Transaction
    from shop.message import Phases
    from shop.outbox import OutboxRow
    from shop.provider.protocol import Provider
    from shop.runtime.config import Settings
    from shop.runtime.services import Services

RELAY_BUDGET_SECONDS = 5.0


class Work:
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
            step("transaction"),
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
            crash.point("W5")
            try:
                self._services.database.run_now(outbox.mark_sent(accepted))
            except db.DatabaseError as error:
                log.write("not marked sent", error=type(error).__name__)
        return len(accepted)

    def note(self, what: str) -> None:
        """Writes a line to the log about work that has to come again."""
        log.write("left for later", function=self._actor, what=what)

    def run(self, phases: Phases, subject: UUID) -> None:
        """All phases for one subject: remember, act, record."""
        with self.transaction() as tx:
            call = phases.remember(tx, subject)
        if call is not None:
            self.act_and_record(phases, call)

    def act_and_record(self, phases: Phases, call: Any) -> None:
        """The outside call, then its outcome in a transaction of its own."""
        crash.point("W7")
        outcome = phases.act(self.provider, call, self.transaction)
        with self.transaction(before_commit="W9") as tx:
            phases.record(tx, call, outcome)
