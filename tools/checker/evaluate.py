"""Evaluates the invariants in one snapshot."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg

from tools.checker.invariants import INVARIANTS, OUTSIDE, Invariant
from tools.operations.snapshot import snapshot

State = Literal["holds", "broken", "not asked"]

ROWS_SHOWN = 5


@dataclass(frozen=True)
class Outside:
    """What other parties saw, one tuple per row of the tables that ``OUTSIDE`` makes.

    Read the provider's books before the snapshot: a payment's row is committed before its call, so
    whatever the books show must have its row by then.
    """

    charges: tuple[tuple[str, int | None, str], ...] = ()
    refunds: tuple[tuple[str, str, int], ...] = ()
    client_ops: tuple[tuple[Any, ...], ...] = ()
    poison: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Violation:
    """A broken invariant and the first rows that break it."""

    id: str
    what: str
    rows: list[Any] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.id} {self.what}: {self.rows}"


@dataclass(frozen=True)
class Verdict:
    """What one invariant came to: the first rows that break it, or why it was not asked."""

    invariant: Invariant
    state: State
    rows: tuple[Any, ...] = ()
    seconds: float = 0.0
    reason: str = ""


def load_outside(connection: psycopg.Connection[Any], outside: Outside) -> None:
    """Fills the temporary tables of this connection; the database itself is only read."""
    connection.execute(OUTSIDE)
    with connection.cursor() as cursor:
        cursor.executemany("insert into psp_charges values (%s, %s, %s)", outside.charges)
        cursor.executemany("insert into psp_refunds values (%s, %s, %s)", outside.refunds)
        cursor.executemany(
            "insert into client_ops (user_id, scope, key, status_code, body_sha256, order_id) "
            "values (%s, %s, %s, %s, %s, %s)",
            outside.client_ops,
        )
        cursor.executemany("insert into injected_poison values (%s, %s)", outside.poison)


def verdicts(
    connection: psycopg.Connection[Any],
    *,
    at_rest: bool,
    unknown: Mapping[str, str] | None = None,
) -> Iterator[Verdict]:
    """Asks one invariant after the other, as the connection's transaction sees the shop.

    ``connection`` reads past row security, has had its outside loaded, and is in a REPEATABLE READ
    transaction when others write meanwhile.  ``unknown`` says of invariants why they are not asked.
    """
    for invariant in INVARIANTS:
        reason = (unknown or {}).get(invariant.id, "")
        if invariant.at_rest_only and not at_rest:
            reason = "only at rest"
        if reason:
            yield Verdict(invariant, "not asked", reason=reason)
            continue
        began = time.monotonic()
        rows = connection.execute(invariant.query).fetchmany(ROWS_SHOWN)
        state: State = "broken" if rows else "holds"
        yield Verdict(invariant, state, tuple(rows), time.monotonic() - began)


def violations(connection: psycopg.Connection[Any], *, at_rest: bool) -> list[Violation]:
    """Every broken invariant, in order; the connection is one for ``verdicts``."""
    return [
        Violation(verdict.invariant.id, verdict.invariant.what, list(verdict.rows))
        for verdict in verdicts(connection, at_rest=at_rest)
        if verdict.state == "broken"
    ]


def check(url: str, outside: Outside, *, at_rest: bool) -> list[Violation]:
    """Loads ``outside`` and names what is broken in one repeatable read, read-only snapshot."""
    with _looking(url, outside) as connection:
        return violations(connection, at_rest=at_rest)


def ask(url: str, outside: Outside, *, at_rest: bool, unknown: Mapping[str, str]) -> list[Verdict]:
    """Loads ``outside`` and says of every invariant what it found in one such snapshot."""
    with _looking(url, outside) as connection:
        return list(verdicts(connection, at_rest=at_rest, unknown=unknown))


def _looking(url: str, outside: Outside) -> AbstractContextManager[psycopg.Connection[Any]]:
    return snapshot(url, prepare=lambda connection: load_outside(connection, outside))


def books_as_outside(
    intents: Iterable[dict[str, Any]], refunds: Iterable[dict[str, Any]]
) -> tuple[tuple[tuple[str, int | None, str], ...], tuple[tuple[str, str, int], ...]]:
    """The sandbox's books as the rows of ``psp_charges`` and ``psp_refunds``.

    A key may have several intents once the provider forgot it.  A capture counts before all else,
    and a second capture is a charge of its own that no payment announced.
    """
    charges: dict[str, tuple[str, int | None, str]] = {}
    for intent in intents:
        key, status = intent["key"], intent["status"].upper()
        is_captured = charges.get(key, ("", 0, ""))[2] == "CAPTURED"
        if is_captured and status == "CAPTURED":
            key = f"{key} again {len(charges)}"
        if not is_captured or status == "CAPTURED":
            charges[key] = (key, intent["amount_minor"], status)
    given_back = [
        (r["key"], r["charge_key"], r["amount_minor"])
        for r in refunds
        if r["status"] == "succeeded"
    ]
    return tuple(charges.values()), each_once(given_back)


def each_once(refunds: Iterable[tuple[str, str, int]]) -> tuple[tuple[str, str, int], ...]:
    """A refund that was executed again is one that no row announced, as with charges."""
    times: Counter[str] = Counter()
    named = []
    for key, charge_key, amount_minor in refunds:
        times[key] += 1
        again = f"{key} again {times[key]}" if times[key] > 1 else key
        named.append((again, charge_key, amount_minor))
    return tuple(named)
