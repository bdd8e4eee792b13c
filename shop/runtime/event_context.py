"""The context of a handler of an event or a tick: transactions, the provider, the services."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from shop.primitives import failpoints
from shop.primitives.errors import Unavailable, is_out_of_resources, out_of_resources
from shop.primitives.failpoints import Failpoint
from shop.runtime import log
from shop.runtime.message_context import span

if TYPE_CHECKING:
    from shop.adapters.db import Session, Transaction
    from shop.adapters.payment_provider.protocol import Provider
    from shop.adapters.statements import Row, Statement
    from shop.adapters.two_phase_call import TwoPhaseCall
    from shop.primitives.messages import OutboxRow
    from shop.primitives.spec import FunctionSpec
    from shop.runtime.config import Settings
    from shop.runtime.publisher import Publication
    from shop.runtime.services import Services

System = TypeVar("System")
Subject = TypeVar("Subject")
Call = TypeVar("Call")
Done = TypeVar("Done")
Outcome = TypeVar("Outcome")


class EventContext:
    """One delivery or one tick; each of its transactions publishes its events after the commit.

    ``tx`` is the transaction in which the runtime claimed the event; a handler of a tick opens its
    own with ``transaction()``.
    """

    def __init__(self, services: Services, spec: FunctionSpec, *, traceparent: str = "") -> None:
        self.services = services
        self._spec = spec
        self._traceparent = traceparent
        self._tx: Transaction | None = None

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        return self.services.settings

    @property
    def provider(self) -> Provider:
        """The payment provider."""
        return self.services.provider

    @property
    def tx(self) -> Transaction:
        """The transaction that is open now."""
        assert self._tx is not None, "no transaction is open"
        return self._tx

    @contextmanager
    def transaction(
        self, *, before_commit: Failpoint = Failpoint.BEFORE_COMMIT
    ) -> Generator[Transaction]:
        """A transaction that commits when the block ends normally, then publishes its events.

        ``before_commit`` is its last failpoint.
        """
        with self.session(before_commit=before_commit) as session:
            yield session.tx

    @contextmanager
    def session(
        self,
        opening: tuple[Statement[Row], ...] = (),
        *,
        before_commit: Failpoint = Failpoint.BEFORE_COMMIT,
    ) -> Generator[Session]:
        """Like ``transaction``, for the runtime: ``opening`` is sent with BEGIN."""
        with (
            span("transaction"),
            self.services.database.transaction(
                opening=opening,
                traceparent=self._traceparent,
                actor=self._spec.name,
                source=self._spec.source,
            ) as session,
        ):
            self._tx = session.tx
            try:
                yield session
                session.commit(before=before_commit)
            finally:
                self._tx = None
        if session.tx.announced:
            self.services.publisher.publish_and_mark_sent(
                self.services.database, session.tx.announced
            )

    def relay(self, rows: list[OutboxRow]) -> Publication:
        """Publishes rows of earlier transactions, several at once, and marks those accepted."""
        return self.services.publisher.relay(self.services.database, rows)

    def attempt(self, what: str, job: Callable[[], Done]) -> Done | Exception:
        """Runs one of several independent jobs; returns its result, or the failure that it causes.

        The failure is logged, so that the caller can alert an operator and go on with the others.
        Raises ``Unavailable`` or one of ``db.UNAVAILABLE_ERRORS`` when a dependency, or the want of
        memory, threads or files, is the cause.
        """
        # imported here: a function that only consumes events never runs a job
        from shop.adapters import db

        try:
            return job()
        except (Unavailable, *db.UNAVAILABLE_ERRORS):
            raise
        except Exception as error:
            log.unexpected(error, function=self._spec.name, what=what)
            if is_out_of_resources(error):
                raise out_of_resources() from error
            return error

    def log_postponed(self, what: str, error: Exception) -> None:
        """Logs why a job could not be done and stays due."""
        log.unavailable("left for later", error, function=self._spec.name, what=what)

    def run(
        self, two_phase_call: TwoPhaseCall[System, Subject, Call, Outcome], subject: Subject
    ) -> Outcome | None:
        """Runs all three steps for one subject: prepare, execute, record.

        Returns the outcome; None when there was nothing to call for.
        """
        with self.transaction() as tx:
            call = two_phase_call.prepare(tx, subject)
        return None if call is None else self.execute_and_record(two_phase_call, call)

    def execute_and_record(
        self, two_phase_call: TwoPhaseCall[System, Subject, Call, Outcome], call: Call
    ) -> Outcome:
        """Calls the system outside any transaction, then records the outcome in a new one."""
        failpoints.hit(Failpoint.BEFORE_PROVIDER_CALL)
        system: System = getattr(self.services, two_phase_call.system)
        outcome = two_phase_call.execute(system, call, self.transaction)
        with self.transaction(before_commit=Failpoint.OUTCOME_WRITTEN) as tx:
            two_phase_call.record(tx, call, outcome)
        return outcome
