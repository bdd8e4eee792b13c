"""Notes that operators write about an order or a customer, for each other.  Writer of ``notes``.

A note is never shown to a customer, and never changed; it is deleted when it is old, or when the
account is closed.  No database role of a customer's function may read one.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement

TEXT_LENGTH_MAX = 2_000


class Note(Row):
    """A note, and the account of its author."""

    note_id: UUID
    author_id: int
    text: str
    at: datetime


ADD_TO_ORDER = Query(
    Note,
    """
insert into shop.notes (note_id, order_id, author_id, text)
select %(note_id)s::uuid, o.order_id, %(author_id)s::bigint, %(text)s::text
from shop.orders o where o.order_id = %(order_id)s::uuid
returning note_id, author_id, text, at
""",
)

ADD_TO_USER = Query(
    Note,
    """
insert into shop.notes (note_id, user_id, author_id, text)
select %(note_id)s::uuid, u.user_id, %(author_id)s::bigint, %(text)s::text
from shop.users u where u.user_id = %(user_id)s::bigint and u.state <> 'CLOSED'
returning note_id, author_id, text, at
""",
)

OF_ORDER = Query(
    Note,
    """
select note_id, author_id, text, at from shop.notes
where order_id = %(order_id)s::uuid order by note_id desc limit %(limit)s::int
""",
)

OF_USER = Query(
    Note,
    """
select note_id, author_id, text, at from shop.notes
where user_id = %(user_id)s::bigint order by note_id desc limit %(limit)s::int
""",
)

RECORD = Command(
    """
insert into shop.notes (note_id, order_id, author_id, text)
values (%(note_id)s, %(order_id)s, %(author_id)s, %(text)s)
"""
)

DELETE_OLD = Command(
    """
delete from shop.notes where note_id in (
  select note_id from shop.notes where at < now() - shop.retention('notes') limit %(batch)s)
"""
)


def add_to_order(note_id: UUID, *, order_id: UUID, author_id: int, text: str) -> Statement[Note]:
    """Adds a note about an order; no row when there is no such order."""
    return ADD_TO_ORDER(note_id=note_id, order_id=order_id, author_id=author_id, text=text)


def add_to_user(note_id: UUID, *, user_id: int, author_id: int, text: str) -> Statement[Note]:
    """Adds a note about an account; no row when there is no such account, or it is closed."""
    return ADD_TO_USER(note_id=note_id, user_id=user_id, author_id=author_id, text=text)


def record(note_id: UUID, *, order_id: UUID, author_id: int, text: str) -> Statement[Row]:
    """Adds a note about a locked order, also as a role that may read none."""
    return RECORD(note_id=note_id, order_id=order_id, author_id=author_id, text=text)


def of_order(order_id: UUID, *, limit: int) -> Statement[Note]:
    """The newest notes about an order, newest first."""
    return OF_ORDER(order_id=order_id, limit=limit)


def of_user(user_id: int, *, limit: int) -> Statement[Note]:
    """The newest notes about an account, newest first."""
    return OF_USER(user_id=user_id, limit=limit)


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` notes that were written longer ago than they are kept."""
    return DELETE_OLD(batch=batch)
