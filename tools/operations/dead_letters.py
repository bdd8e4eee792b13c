"""``shop dlq``: lists dead letters, shows them, sends them again, and drops them.

A replay sends the original event with its signature, so a consumer that has processed it already
finds it in its inbox and ignores it.  Consumers accept an event older than a day when it is in the
outbox.
A broker of class imc responds when every consumer has handled the event, so a replay waits as long
as that broker does, without a lock: when a consumer fails, the letter is stored again meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from http.client import HTTPException
from typing import LiteralString
from urllib.parse import SplitResult
from uuid import UUID

import psycopg
from psycopg.rows import TupleRow, class_row

from events import envelope
from shop import operator_alerts
from shop.messaging import dead_letters
from shop.runtime.config import look_up
from shop.runtime.publisher import ACCEPTED, DELIVERY_SECONDS_MAX, authorization_of
from tools.operations.reporting import (
    EXIT_OK,
    Outcome,
    show_json,
    show_outcomes,
    show_table,
    show_unknown,
)
from tools.tick import post_event, url_of

CONNECT_SECONDS = 5
LISTED_MAX = 500
REASON_MAX = 500
# Of attributes that a broker adds: when the event arrived, how many more brokers it may pass, and
# what its last attempt failed by.  They are not part of the original event.
BROKER_EXTENSIONS = ("knativearrivaltime", "knativebrokerttl", "knativeerror")

LIST: LiteralString = """
select dead_letter_id, type, subject, destination, error_code, received_at, replayed_at, dropped_at
from shop.dead_letters
where (replayed_at is null and dropped_at is null) or %(include_closed)s
order by received_at desc limit %(limit)s
"""

SHOW: LiteralString = """
select dead_letter_id, event_id, source, type, subject, destination, error_code, error_data,
  headers, body, received_at, replayed_at, dropped_at, dropped_reason, xmin::text as version
from shop.dead_letters where dead_letter_id = %(dead_letter_id)s
"""

OPEN: LiteralString = """
select dead_letter_id from shop.dead_letters where replayed_at is null and dropped_at is null
order by received_at, dead_letter_id
"""


@dataclass(frozen=True)
class DeadLetterSummary:
    """The columns of ``LIST``."""

    dead_letter_id: UUID
    type: str
    subject: str | None
    destination: str
    error_code: str | None
    received_at: datetime
    replayed_at: datetime | None
    dropped_at: datetime | None


@dataclass(frozen=True)
class DeadLetter:
    """The columns of ``SHOW``."""

    dead_letter_id: UUID
    event_id: str
    source: str
    type: str
    subject: str | None
    destination: str
    error_code: str | None
    error_data: str | None
    headers: dict[str, str]
    body: bytes
    received_at: datetime
    replayed_at: datetime | None
    dropped_at: datetime | None
    dropped_reason: str | None
    version: str


def run_list(database_url: str, *, include_closed: bool, as_json: bool) -> int:
    """Lists the dead letters that are neither replayed nor dropped, or all, newest first."""
    with _connect(database_url) as connection:
        cursor = connection.cursor(row_factory=class_row(DeadLetterSummary))
        values = {"include_closed": include_closed, "limit": LISTED_MAX}
        letters = cursor.execute(LIST, values).fetchall()
    if as_json:
        show_json([vars(letter) for letter in letters])
        return EXIT_OK
    if len(letters) == LISTED_MAX:
        print(f"the newest {LISTED_MAX} only")
    show_table(
        ("dead letter", "type", "subject", "status", "received", "closed", "destination"),
        [
            (
                letter.dead_letter_id,
                letter.type,
                letter.subject,
                letter.error_code,
                f"{letter.received_at:%Y-%m-%d %H:%M:%S%z}",
                "replayed" if letter.replayed_at else "dropped" if letter.dropped_at else "",
                letter.destination,
            )
            for letter in letters
        ],
    )
    return EXIT_OK


def run_show(database_url: str, letter_id: str, *, as_json: bool) -> int:
    """Prints all fields of one dead letter and its consumer's response; 1 for an unknown id."""
    with _connect(database_url) as connection:
        letter = _read(connection, UUID(letter_id))
    if letter is None:
        return show_unknown(f"dead letter {letter_id}", as_json=as_json)
    response = dead_letters.response_of(letter.error_data)
    shown = {k: v for k, v in vars(letter).items() if k != "version"}
    if as_json:
        show_json(shown | {"response": response})
        return EXIT_OK
    fields = {k: v for k, v in shown.items() if k not in ("headers", "body", "error_data")}
    for name, text in response.items() if isinstance(response, dict) else [("", response)]:
        fields[f"response {name}".rstrip()] = text
    headers = {f"header {name}": text for name, text in sorted(letter.headers.items())}
    body = letter.body.decode("utf-8", "backslashreplace")
    show_table(("field", "value"), [*fields.items(), *headers.items(), ("body", body)])
    return EXIT_OK


def run_drop(database_url: str, letter_ids: Sequence[str], *, reason: str, as_json: bool) -> int:
    """Closes dead letters that will never be processed; returns 1 when one of them is not open.

    The alert about an event is resolved with its last open letter.  Raises ValueError for an
    invalid id, and without a reason.
    """
    if not reason.strip() or len(reason) > REASON_MAX:
        raise ValueError(f"--reason must have 1 to {REASON_MAX} characters")
    selected = [UUID(text) for text in letter_ids]
    with _connect(database_url) as connection:
        drop = dead_letters.drop(selected, reason.strip())
        rows = connection.execute(drop.sql, drop.parameters).fetchall()
        dropped = {letter_id for letter_id, _ in rows}
        resolve = operator_alerts.resolve_closed([name for _, name in rows])
        connection.execute(resolve.sql, resolve.parameters)
    outcomes = [
        Outcome(str(one), one in dropped, "dropped" if one in dropped else "is not open")
        for one in selected
    ]
    return show_outcomes(outcomes, as_json=as_json)


def run_replay(
    database_url: str,
    url: str,
    letter_ids: Sequence[str],
    *,
    every: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Sends dead letters to ``url``, the broker's ingress or a consumer's /events.

    ``every`` selects all that are open, oldest first.  Returns 1 when at least one was not
    accepted; it stays open.
    """
    if every == bool(letter_ids):
        raise ValueError("give the ids of dead letters, or --all")
    selected = [UUID(text) for text in letter_ids]
    with _connect(database_url) as connection:
        connection.autocommit = True
        if every:
            selected = [letter_id for (letter_id,) in connection.execute(OPEN)]
        if not selected and not as_json:
            print("no open dead letters")
        outcomes = (_replay(connection, url, one, dry_run=dry_run) for one in selected)
        return show_outcomes(outcomes, as_json=as_json)


def _replay(
    connection: psycopg.Connection[TupleRow], url: str, letter_id: UUID, *, dry_run: bool
) -> Outcome:
    """Sends one dead letter, and marks it as replayed if it was not stored again meanwhile.

    If this process crashes, the letter stays open, and its event may have been processed.
    """
    letter = _read(connection, letter_id)
    if letter is None:
        return Outcome(str(letter_id), is_done=False, what="unknown dead letter")
    to = url_of(url)
    headers, body = original_event(letter.headers, letter.body)
    if dry_run:
        what = f"would send {letter.type} to {url}, {len(body)} bytes"
        return Outcome(str(letter_id), is_done=True, what=what)
    failure = _send(to, headers, body)
    if failure is not None:
        return Outcome(str(letter_id), is_done=False, what=f"not accepted, {failure}")
    mark = dead_letters.mark_replayed(letter_id, letter.version)
    if connection.execute(mark.sql, mark.parameters).fetchone() is None:
        what = "sent, and meanwhile it failed again or another operator closed it"
        return Outcome(str(letter_id), is_done=False, what=what)
    return Outcome(str(letter_id), is_done=True, what=f"sent {letter.type} {letter.subject}")


def original_event(headers: Mapping[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """The event as first published, without transport headers and the broker's attributes."""
    if any(name.startswith("ce-") for name in headers):
        added = tuple(f"ce-{name}" for name in BROKER_EXTENSIONS)
        event_headers = {
            name: text
            for name, text in headers.items()
            if (name.startswith("ce-") and not name.startswith(added)) or name == "content-type"
        }
        return event_headers, body
    event = envelope.parse(headers, body)
    original = {n: t for n, t in event.extensions.items() if not n.startswith(BROKER_EXTENSIONS)}
    return envelope.to_binary(replace(event, extensions=original))


def _send(url: SplitResult, headers: dict[str, str], body: bytes) -> str | None:
    """Sends an event; None when it was accepted, otherwise the reason."""
    authorization = authorization_of(look_up("broker_token_path") or "")
    try:
        status = post_event(url, headers | authorization, body, seconds=DELIVERY_SECONDS_MAX)
    except (OSError, HTTPException, ValueError) as error:
        # ValueError: a malformed event may have headers that are invalid in HTTP
        return f"{type(error).__name__}: {error}"
    return None if status in ACCEPTED else f"status {status}"


def _read(connection: psycopg.Connection[TupleRow], letter_id: UUID) -> DeadLetter | None:
    cursor = connection.cursor(row_factory=class_row(DeadLetter))
    return cursor.execute(SHOW, {"dead_letter_id": letter_id}).fetchone()


def _connect(url: str) -> psycopg.Connection[TupleRow]:
    return psycopg.connect(url, connect_timeout=CONNECT_SECONDS)
