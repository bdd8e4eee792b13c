"""Dead letters: events that ran out of retries or could never be processed, stored whole.

Apart from the signature nothing is validated, since invalid events become dead letters too.  What
the signature does not cover (destination and failure) is bounded in size by ``events.envelope`` and
in number here.
Replaying one sends its bytes again; the consumer's inbox makes that safe.
"""

from __future__ import annotations

import binascii
import json
from base64 import b64decode
from datetime import datetime
from typing import TYPE_CHECKING, cast
from uuid import UUID

from shop.adapters.statements import Command, Query, Row, Statement
from shop.primitives.ids import new_uuid

if TYPE_CHECKING:
    from shop.primitives.messages import DeadLetter

# PostgreSQL's text and jsonb cannot hold NUL; it is replaced by a visible symbol
NUL = "\x00"
NUL_SHOWN = "\N{SYMBOL FOR NULL}"

# three of these fit into one row of the unique index (2,704 bytes)
IDENTITY_BYTES_MAX = 500

# more than there are functions
DESTINATIONS_MAX = 32

# A letter that fails again after its replay is open again; one that was dropped is not.  The update
# of an open one changes its version only, by which a replay sees that it failed.
STORE = Command(
    """
insert into shop.dead_letters (dead_letter_id, event_id, source, type, subject, destination,
  error_code, error_data, headers, body)
select %(dead_letter_id)s::uuid, %(event_id)s, %(source)s, %(type)s, %(subject)s, %(destination)s,
  %(error_code)s, %(error_data)s, %(headers)s::jsonb, %(body)s::bytea
where (select count(*) from shop.dead_letters where source = %(source)s
    and event_id = %(event_id)s and destination <> %(destination)s) < %(destinations_max)s
on conflict on constraint one_dead_letter_per_consumer
  do update set replayed_at = null
"""
)

# xmin is the transaction that wrote this version of the row.
MARK_REPLAYED = Query(
    Row,
    """
update shop.dead_letters set replayed_at = now(), dropped_at = null, dropped_reason = null
where dead_letter_id = %(dead_letter_id)s and xmin::text = %(version)s
returning dead_letter_id
""",
)


class Summary(Row):
    """A letter as it is listed; neither replayed nor dropped means that it is open."""

    dead_letter_id: UUID
    type: str
    subject: str | None
    destination: str
    error_code: str | None
    received_at: datetime
    replayed_at: datetime | None
    dropped_at: datetime | None


class Whole(Summary):
    """A letter with its event, as it was received."""

    event_id: str
    source: str
    error_data: str | None
    headers: dict[str, str]
    body: bytes
    dropped_reason: str | None


LIST_OPEN = Query(
    Summary,
    """
select dead_letter_id, type, subject, destination, error_code, received_at, replayed_at, dropped_at
from shop.dead_letters
where replayed_at is null and dropped_at is null
  and (%(before)s::uuid is null or (received_at, dead_letter_id) < (
    select b.received_at, b.dead_letter_id from shop.dead_letters b
    where b.dead_letter_id = %(before)s))
order by received_at desc, dead_letter_id desc limit %(limit)s::int
""",
)

LIST = Query(
    Summary,
    """
select dead_letter_id, type, subject, destination, error_code, received_at, replayed_at, dropped_at
from shop.dead_letters
where %(before)s::uuid is null or (received_at, dead_letter_id) < (
  select b.received_at, b.dead_letter_id from shop.dead_letters b
  where b.dead_letter_id = %(before)s)
order by received_at desc, dead_letter_id desc limit %(limit)s::int
""",
)

READ = Query(
    Whole,
    """
select dead_letter_id, type, subject, destination, error_code, received_at, replayed_at, dropped_at,
  event_id, source, error_data, headers, body, dropped_reason
from shop.dead_letters where dead_letter_id = %(dead_letter_id)s
""",
)


class Closed(Row):
    """A letter that was closed now, and the name of its event, about which there is an alert."""

    dead_letter_id: UUID
    name: str


DROP = Query(
    Closed,
    """
update shop.dead_letters set dropped_at = now(), dropped_reason = %(reason)s
where dead_letter_id = any(%(dead_letter_ids)s) and replayed_at is null and dropped_at is null
returning dead_letter_id, source || ' ' || event_id as name
""",
)

CLOSE_CONSUMED = Query(
    Closed,
    """
update shop.dead_letters set replayed_at = now()
where dead_letter_id = %(dead_letter_id)s::uuid and replayed_at is null and dropped_at is null
returning dead_letter_id, source || ' ' || event_id as name
""",
)

DELETE_OLD = Command(
    """
delete from shop.dead_letters where dead_letter_id in (
  select dead_letter_id from shop.dead_letters
  where received_at < now() - shop.retention('dead_letters') limit %(batch)s)
"""
)


def store(letter: DeadLetter) -> Statement[Row]:
    """Stores a letter; the same event is stored once for each of ``DESTINATIONS_MAX``."""
    return STORE(
        dead_letter_id=new_uuid(),
        event_id=_identity(letter.event_id),
        source=_identity(letter.source),
        type=_storable(letter.type),
        subject=_storable_or_none(letter.subject),
        destination=_identity(letter.destination),
        error_code=_storable_or_none(letter.error_code),
        error_data=_storable_or_none(letter.error_data),
        headers=json.dumps({_storable(k): _storable(v) for k, v in letter.headers.items()}),
        body=letter.body,
        destinations_max=DESTINATIONS_MAX,
    )


def page(*, is_open: bool, before: UUID | None, limit: int) -> Statement[Summary]:
    """Open letters, or all, newest first."""
    statement = LIST_OPEN if is_open else LIST
    return statement(before=before, limit=limit)


def read(dead_letter_id: UUID) -> Statement[Whole]:
    """A letter with its event."""
    return READ(dead_letter_id=dead_letter_id)


def response_of(error_data: str | None) -> dict[str, object] | str:
    """The consumer's response, decoded: the members of a JSON object, otherwise its text.

    A broker sends base64 of the first 1,024 bytes, so the end of a long response is missing.
    """
    try:
        text = b64decode(error_data or "", validate=True).decode("utf-8", "backslashreplace")
    except (binascii.Error, ValueError):
        return error_data or ""
    try:
        document: object = json.loads(text)
    except ValueError:
        return text
    return cast("dict[str, object]", document) if isinstance(document, dict) else text


def mark_replayed(dead_letter_id: UUID, version: str) -> Statement[Row]:
    """Records a replay, also of a letter that was dropped.

    No row: since it was read, with this ``xmin``, the letter was stored again or closed.
    """
    return MARK_REPLAYED(dead_letter_id=dead_letter_id, version=version)


def drop(dead_letter_ids: list[UUID], reason: str) -> Statement[Closed]:
    """Closes open letters that will never be processed; no row for one that is not open."""
    return DROP(dead_letter_ids=dead_letter_ids, reason=_storable(reason))


def close_consumed(dead_letter_id: UUID) -> Statement[Closed]:
    """Closes an open letter, whose event another delivery brought to every subscriber."""
    return CLOSE_CONSUMED(dead_letter_id=dead_letter_id)


def delete_old(batch: int) -> Statement[Row]:
    """Deletes at most ``batch`` dead letters that are older than they are kept."""
    return DELETE_OLD(batch=batch)


def name_of(letter: DeadLetter) -> str:
    """The source and id of the event, which its signature covers: one alert for all its letters."""
    return f"{_identity(letter.source)} {_identity(letter.event_id)}"


def _identity(text: str) -> str:
    """The text, or its beginning and its digest when it is too long to be part of a key."""
    storable = _storable(text)
    if len(storable.encode()) <= IDENTITY_BYTES_MAX:
        return storable
    # imported here: only invalid events are that long, and OpenSSL would slow every cold start
    from hashlib import sha256

    return f"{storable[:100]} sha256:{sha256(storable.encode()).hexdigest()}"


def _storable(text: str) -> str:
    """The text with what UTF-8 or PostgreSQL cannot hold replaced by visible characters."""
    return text.replace(NUL, NUL_SHOWN).encode(errors="backslashreplace").decode()


def _storable_or_none(text: str | None) -> str | None:
    return None if text is None else _storable(text)
