"""Evaluates the invariants in one snapshot of the database."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Literal, LiteralString

import psycopg
from psycopg.rows import TupleRow

from tools.checker.invariants import EXTERNAL_TABLES, INVARIANTS, Invariant
from tools.operations.snapshot import snapshot

State = Literal["holds", "broken", "skipped"]
# (key, amount in minor units, status), (key, charge key, amount in minor units), (event id, source)
ChargeRow = tuple[str, int | None, str]
RefundRow = tuple[str, str, int]
# (key, charge key, kind of the posting, amount in minor units)
DisputeRow = tuple[str, str, str, int]
PoisonRow = tuple[str, str]


@dataclass(frozen=True)
class ExternalRecords:
    """What other systems recorded, one tuple per row of the tables in ``EXTERNAL_TABLES``.

    Read the provider's transactions before the snapshot: a payment's row is committed before the
    provider is called, so the snapshot contains the row of every transaction that was read.
    """

    charges: tuple[ChargeRow, ...] = ()
    refunds: tuple[RefundRow, ...] = ()
    # (user id, scope, key, status code, SHA-256 of the body, order id) of each HTTP attempt
    client_ops: tuple[tuple[object, ...], ...] = ()
    poison: tuple[PoisonRow, ...] = ()
    disputes: tuple[DisputeRow, ...] = ()


@dataclass(frozen=True)
class Violation:
    """A broken invariant and the first rows that break it."""

    id: str
    what: str
    rows: list[TupleRow] = field(default_factory=list[TupleRow])

    def __str__(self) -> str:
        return f"{self.id} {self.what}: {self.rows}"


@dataclass(frozen=True)
class InvariantResult:
    """The result of one invariant: the first rows that break it, or why it was skipped."""

    invariant: Invariant
    state: State
    rows: tuple[TupleRow, ...] = ()
    seconds: float = 0.0
    reason: str = ""


def load_external_records(
    connection: psycopg.Connection[TupleRow], external: ExternalRecords
) -> None:
    """Fills temporary tables of this connection; the shop's own tables are not changed."""
    connection.execute(EXTERNAL_TABLES)
    with connection.cursor() as cursor:
        cursor.executemany("insert into psp_charges values (%s, %s, %s)", external.charges)
        cursor.executemany("insert into psp_refunds values (%s, %s, %s)", external.refunds)
        cursor.executemany("insert into psp_disputes values (%s, %s, %s, %s)", external.disputes)
        cursor.executemany(
            "insert into client_ops (user_id, scope, key, status_code, body_sha256, order_id) "
            "values (%s, %s, %s, %s, %s, %s)",
            external.client_ops,
        )
        cursor.executemany("insert into injected_poison values (%s, %s)", external.poison)


def evaluate_each(
    connection: psycopg.Connection[TupleRow],
    *,
    at_rest: bool,
    skipped: Mapping[str, str] | None = None,
) -> Iterator[InvariantResult]:
    """Evaluates all invariants in order, in the connection's transaction.

    No row may be hidden from the connection's role by row security, and the external records must
    be loaded.  With concurrent writers the transaction must be REPEATABLE READ.
    ``skipped`` maps the id of each invariant that cannot be evaluated to the reason.
    """
    for invariant in INVARIANTS:
        yield _evaluate(connection, invariant, at_rest=at_rest, skipped=skipped or {})


def _evaluate(
    connection: psycopg.Connection[TupleRow],
    invariant: Invariant,
    *,
    at_rest: bool,
    skipped: Mapping[str, str],
) -> InvariantResult:
    reason = skipped.get(invariant.id, "")
    if invariant.at_rest_only and not at_rest:
        reason = "only at rest"
    if reason:
        return InvariantResult(invariant, "skipped", reason=reason)
    began = time.monotonic()
    rows = first_rows(connection, invariant.query)
    state: State = "broken" if rows else "holds"
    return InvariantResult(invariant, state, tuple(rows), time.monotonic() - began)


def first_rows(connection: psycopg.Connection[TupleRow], query: LiteralString) -> list[TupleRow]:
    """The first five rows of a query; the others are not computed.

    PostgreSQL plans a materialized query for all of its rows, but evaluates it only as far as it
    is read: neither side keeps more than these rows, however many rows break an invariant.
    """
    # a literal of this package
    sql = f"with found as materialized ({query}\n) select * from found limit 5"  # noqa: S608
    return connection.execute(sql).fetchall()


def violations_in(connection: psycopg.Connection[TupleRow], *, at_rest: bool) -> list[Violation]:
    """Every broken invariant, in order; requirements on the connection as in ``evaluate_each``."""
    return [
        Violation(result.invariant.id, result.invariant.what, list(result.rows))
        for result in evaluate_each(connection, at_rest=at_rest)
        if result.state == "broken"
    ]


def find_violations(url: str, external: ExternalRecords, *, at_rest: bool) -> list[Violation]:
    """Every broken invariant, in one read-only snapshot of the database at ``url``."""
    with _snapshot_with(url, external) as connection:
        return violations_in(connection, at_rest=at_rest)


def evaluate_invariants(
    url: str, external: ExternalRecords, *, at_rest: bool, skipped: Mapping[str, str]
) -> list[InvariantResult]:
    """The result of every invariant, in one read-only snapshot of the database at ``url``.

    Two connections share the snapshot and the invariants.
    """
    with (
        _snapshot_with(url, external) as first,
        _snapshot_with(url, external, same_as=first) as second,
        ThreadPoolExecutor(max_workers=2) as threads,
    ):
        free = SimpleQueue[psycopg.Connection[TupleRow]]()
        free.put(first)
        free.put(second)

        def evaluate(invariant: Invariant) -> InvariantResult:
            connection = free.get()
            try:
                return _evaluate(connection, invariant, at_rest=at_rest, skipped=skipped)
            finally:
                free.put(connection)

        return list(threads.map(evaluate, INVARIANTS))


def _snapshot_with(
    url: str,
    external: ExternalRecords,
    same_as: psycopg.Connection[TupleRow] | None = None,
) -> AbstractContextManager[psycopg.Connection[TupleRow]]:
    def prepare(connection: psycopg.Connection[TupleRow]) -> None:
        load_external_records(connection, external)

    return snapshot(url, prepare=prepare, same_as=same_as)
