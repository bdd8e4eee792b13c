"""The context of a route's handler: its transactions and the services."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from shop.adapters.statements import Query, Row, Statement
from shop.runtime import log
from shop.runtime.authentication import check_session, check_session_now
from shop.runtime.message_context import span

if TYPE_CHECKING:
    from shop.adapters.db import Session, Transaction
    from shop.primitives.messages import Caller, OutboxRow
    from shop.runtime.config import Settings
    from shop.runtime.services import Services
    from shop.sessions import SessionAccount

SET_CALLER = Query(
    Row,
    """
select set_config('shop.user_id', %(user_id)s, true) as user_id,
  set_config('shop.role', %(role)s, true) as role
""",
)


class RequestContext:
    """One request's transactions and services.

    ``tx`` is the transaction that the runtime opened, with the caller's row-level security set and
    the caller's session checked.  A route with ``transaction=False`` opens its own with
    ``transaction()`` instead.
    """

    def __init__(
        self,
        services: Services,
        *,
        source: str,
        caller: Caller | None,
        traceparent: str,
        has_database: bool,
        is_read_only: bool,
        may_lag: bool = False,
    ) -> None:
        self.services = services
        self.emitted: list[OutboxRow] = []
        self._source = source
        self._caller = caller
        self._traceparent = traceparent
        self._has_database = has_database
        self._is_read_only = is_read_only
        self._may_lag = may_lag
        self._tx: Transaction | None = None
        self._actions: list[Callable[[], None]] = []

    @property
    def settings(self) -> Settings:
        """The process's settings."""
        return self.services.settings

    @property
    def tx(self) -> Transaction:
        """The transaction that the runtime opened for the handler."""
        assert self._tx is not None, "this route opens its own transactions"
        return self._tx

    def after_commit(self, action: Callable[[], None]) -> None:
        """Runs ``action`` once the transaction is committed and its events are published."""
        self._actions.append(action)

    @contextmanager
    def transaction(self, *, session_may_be_over: bool = False) -> Generator[Transaction]:
        """A transaction for a handler that opens its own; commits when the block ends normally.

        401 when the caller's session has ended, unless it may be over.
        """
        from shop.adapters import db

        try:
            with self.session(session_may_be_over=session_may_be_over) as session:
                yield session.tx
                session.commit()
                self.emitted.extend(session.tx.announced)
        except db.UNAVAILABLE_ERRORS as error:
            raise db.unavailable() from error

    @contextmanager
    def session(
        self, *claim: Statement[Row], session_may_be_over: bool = False
    ) -> Generator[Session]:
        """Begins a transaction; only the runtime may commit it.

        BEGIN, the caller's identity, the check that the caller's session is still open, and the
        statements of ``claim`` take one round trip.  At the replica the session is checked in
        another one before, at the primary: a log-out takes effect at once.
        """
        with span("transaction"), ExitStack() as stack:
            session = self._begin_at_replica(stack) if self._may_lag else None
            session = session or self._begin(stack, claim, checks_session=not session_may_be_over)
            self._tx = session.tx
            try:
                yield session
            finally:
                self._tx = None

    def _begin(
        self, stack: ExitStack, claim: tuple[Statement[Row], ...], *, checks_session: bool
    ) -> Session:
        opening = [*claim]
        open_session: Statement[SessionAccount] | None = None
        if self._caller is not None and checks_session:
            from shop.sessions import open_session as open_session_of

            open_session = open_session_of(self._caller.session_id, self._caller.user_id)
            opening.insert(0, open_session)
        if self._has_database:
            opening.insert(0, self._set_caller())
        session = stack.enter_context(
            self.services.database.transaction(
                opening=tuple(opening),
                traceparent=self._traceparent,
                actor=self._actor,
                source=self._source,
                is_read_only=self._is_read_only,
            )
        )
        if self._caller is not None and open_session is not None:
            check_session(self._caller, session.rows_of(open_session))
        return session

    def _begin_at_replica(self, stack: ExitStack) -> Session | None:
        """None where the primary has to answer."""
        replica = self.services.replica
        if replica is None or not replica.may_be_asked():
            return None
        if self._caller is not None:
            check_session_now(self.services, self._caller)
        return replica.begin(
            stack,
            opening=(self._set_caller(),),
            traceparent=self._traceparent,
            actor=self._actor,
            source=self._source,
        )

    @property
    def _actor(self) -> str:
        return f"user:{self._caller.user_id}" if self._caller else "anonymous"

    def publish(self) -> None:
        """Publishes the events of committed transactions."""
        if self.emitted:
            self.services.publisher.publish_and_mark_sent(self.services.database, self.emitted)

    def run_after_commit(self) -> None:
        """Runs the actions that the handler registered; an error is logged, never raised."""
        for action in self._actions:
            try:
                action()
            except Exception as error:
                log.unexpected(error)

    def discard_attempt(self) -> None:
        """Drops what a rolled-back attempt emitted and registered."""
        self.emitted.clear()
        self._actions.clear()

    def _set_caller(self) -> Statement[Row]:
        caller = self._caller
        user_id = str(caller.user_id) if caller else ""
        return SET_CALLER(user_id=user_id, role=caller.role if caller else "")
