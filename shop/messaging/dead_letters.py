"""Dead letters: events that ran out of retries, or that could never work, kept whole.

A dead letter is stored without a question, poison too: nothing here is believed, least of all the
event's own words.  Replaying one sends its bytes again, and the consumer's inbox makes that safe.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, LiteralString

from shop.primitives.ids import new_uuid

if TYPE_CHECKING:
    from uuid import UUID

    from shop.adapters.db import Statement
    from shop.primitives.messages import DeadLetter

# PostgreSQL's text and jsonb hold no NUL; what poison brings is written down, not passed on
NUL = "\x00"
NUL_SHOWN = "\N{SYMBOL FOR NULL}"

# three of these fit into one row of the unique index (2,704 bytes)
IDENTITY_BYTES_MAX = 500

# A letter that comes back after its replay is open again.
STORE: LiteralString = """
insert into shop.dead_letters (dead_letter_id, event_id, source, type, subject, destination,
  error_code, error_data, headers, body)
values (%(dead_letter_id)s, %(event_id)s, %(source)s, %(type)s, %(subject)s, %(destination)s,
  %(error_code)s, %(error_data)s, %(headers)s::jsonb, %(body)s)
on conflict on constraint one_dead_letter_per_consumer
  do update set replayed_at = null where dead_letters.replayed_at is not null
"""

# Whoever holds the row replays it; a second operator is told so instead of waiting.
MARK_REPLAYED: LiteralString = """
update shop.dead_letters set replayed_at = now() where dead_letter_id = (
  select dead_letter_id from shop.dead_letters where dead_letter_id = %(dead_letter_id)s
  for update skip locked)
returning dead_letter_id
"""


def store(letter: DeadLetter) -> Statement:
    """The statement that keeps a letter; the same event of the same destination is kept once."""
    return STORE, {
        "dead_letter_id": new_uuid(),
        "event_id": _identity(letter.event_id),
        "source": _identity(letter.source),
        "type": _storable(letter.type),
        "subject": _storable_or_none(letter.subject),
        "destination": _identity(letter.destination),
        "error_code": _storable_or_none(letter.error_code),
        "error_data": _storable_or_none(letter.error_data),
        "headers": json.dumps({_storable(k): _storable(v) for k, v in letter.headers.items()}),
        "body": letter.body,
    }


def mark_replayed(dead_letter_id: UUID) -> Statement:
    """The statement that notes a replay; no row: there is no such letter, or somebody has it."""
    return MARK_REPLAYED, {"dead_letter_id": dead_letter_id}


def name_of(letter: DeadLetter) -> str:
    """What names a dead letter among all: who announced it, its id, who did not take it."""
    return " ".join(
        _identity(part) for part in (letter.source, letter.event_id, letter.destination)
    )


def _identity(text: str) -> str:
    """The text, or its beginning and its digest when it is too long to be part of a key."""
    storable = _storable(text)
    if len(storable.encode()) <= IDENTITY_BYTES_MAX:
        return storable
    # only poison is that long: OpenSSL stays off everyone else's cold start
    from hashlib import sha256

    return f"{storable[:100]} sha256:{sha256(storable.encode()).hexdigest()}"


def _storable(text: str) -> str:
    """Text that UTF-8 and PostgreSQL can hold; what cannot be is shown, never dropped."""
    return text.replace(NUL, NUL_SHOWN).encode(errors="backslashreplace").decode()


def _storable_or_none(text: str | None) -> str | None:
    return None if text is None else _storable(text)
