"""The last result of each audit, which an operator or a schedule runs.  Writer of ``audits``."""

from __future__ import annotations

from shop.adapters.statements import Command, Row, Statement

RECORD = Command(
    """
insert into shop.audits (name, ran_at, found) values (%(name)s, now(), %(found)s)
on conflict (name) do update set ran_at = excluded.ran_at, found = excluded.found
"""
)


def record(name: str, *, found: bool) -> Statement[Row]:
    """Replaces the last result of an audit: whether it found anything."""
    return RECORD(name=name, found=found)
