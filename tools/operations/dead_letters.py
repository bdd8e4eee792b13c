"""``shop dlq``: look at dead letters, and send them again.

A replay sends the event as it came, signature and all: whoever consumed it already finds it in the
inbox and does nothing.  Events older than a day are believed because the outbox has their row.
"""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from typing import Any, LiteralString
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from events import envelope
from shop.messaging import dead_letters
from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, show_table

CONNECT_SECONDS = 5
TIMEOUT_SECONDS = 20
LISTED_MAX = 500
ACCEPTED = range(200, 300)
# What the broker wrote on the envelope when it gave up; the next receiver must not read it.
NOTES_OF_THE_BROKER = ("knativeerrordest", "knativeerrorcode", "knativeerrordata")

LIST: LiteralString = """
select dead_letter_id, type, subject, destination, error_code, received_at, replayed_at
from shop.dead_letters
where replayed_at is null or %(replayed_too)s
order by received_at desc limit %(limit)s
"""

SHOW: LiteralString = """
select dead_letter_id, event_id, source, type, subject, destination, error_code, error_data,
  headers, body, received_at, replayed_at
from shop.dead_letters where dead_letter_id = %(dead_letter_id)s
"""

OPEN: LiteralString = """
select dead_letter_id from shop.dead_letters where replayed_at is null
order by received_at, dead_letter_id
"""

# A letter is held while it is sent, which may take as long as the receiver likes.
PATIENCE: LiteralString = "set local idle_in_transaction_session_timeout = '1min'"


def run_list(database_url: str, *, replayed_too: bool, as_json: bool) -> int:
    """Lists the letters that wait, newest first, or the replayed ones too."""
    with _connect(database_url) as connection:
        rows = connection.execute(
            LIST, {"replayed_too": replayed_too, "limit": LISTED_MAX}
        ).fetchall()
    if as_json:
        show_json(rows)
        return EXIT_OK
    if len(rows) == LISTED_MAX:
        print(f"the newest {LISTED_MAX} only")
    show_table(
        ("letter", "type", "subject", "status", "received", "replayed", "not taken by"),
        [
            (
                row["dead_letter_id"],
                row["type"],
                row["subject"],
                row["error_code"],
                f"{row['received_at']:%Y-%m-%d %H:%M:%S%z}",
                "yes" if row["replayed_at"] else "",
                row["destination"],
            )
            for row in rows
        ],
    )
    return EXIT_OK


def run_show(database_url: str, letter_id: str, *, as_json: bool) -> int:
    """Prints one letter whole; 1 when there is none of that id."""
    with _connect(database_url) as connection:
        letter = _letter(connection, UUID(letter_id))
    if letter is None:
        print(f"{letter_id}: there is no such letter")
        return EXIT_FOUND
    if as_json:
        show_json(letter)
        return EXIT_OK
    body, headers = bytes(letter.pop("body")), letter.pop("headers")
    fields = [*letter.items(), *((f"header {n}", text) for n, text in sorted(headers.items()))]
    show_table(("field", "value"), [*fields, ("body", body.decode("utf-8", "backslashreplace"))])
    return EXIT_OK


def run_replay(
    database_url: str, url: str, letter_ids: Sequence[str], *, every: bool, dry_run: bool
) -> int:
    """Sends letters again to the broker's ingress, or to a consumer's /events, at ``url``.

    ``every`` takes all that wait, oldest first.  1 when one was not accepted; it keeps waiting.
    """
    if every == bool(letter_ids):
        raise ValueError("name letters, or say --all")
    with _connect(database_url) as connection:
        wanted = [UUID(text) for text in letter_ids]
        if every:
            wanted = [row["dead_letter_id"] for row in connection.execute(OPEN)]
            connection.commit()
        outcomes = [_replay(connection, url, one, dry_run=dry_run) for one in wanted]
    if not outcomes:
        print("no letter waits")
    return EXIT_OK if all(outcomes) else EXIT_FOUND


def _replay(
    connection: psycopg.Connection[dict[str, Any]], url: str, letter_id: UUID, *, dry_run: bool
) -> bool:
    """The letter's row stays locked while it is sent, against rule 26 and on purpose.

    A receiver that refuses it again has the same row written; that waits for our commit, so the
    letter is open again and never lost behind our mark.  When we die here, nothing was marked.
    """
    connection.execute(PATIENCE)
    letter = _letter(connection, letter_id)
    if letter is None:
        connection.rollback()
        print(f"{letter_id}: there is no such letter")
        return False
    headers, body = as_it_came(letter["headers"], bytes(letter["body"]))
    if dry_run:
        connection.rollback()
        print(f"{letter_id}: would send {letter['type']} to {url}, {len(body)} bytes")
        return True
    if connection.execute(*dead_letters.mark_replayed(letter_id)).fetchone() is None:
        connection.rollback()
        print(f"{letter_id}: somebody else is replaying it")
        return False
    word = _send(url, headers, body)
    if word is not None:
        connection.rollback()
        print(f"{letter_id}: not accepted, {word}")
        return False
    connection.commit()
    print(f"{letter_id}: sent {letter['type']} {letter['subject']}")
    return True


def as_it_came(headers: dict[str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    """The event's own headers and bytes, without those of the way it came and of its failure."""
    if any(name.startswith("ce-") for name in headers):
        notes = {f"ce-{name}" for name in NOTES_OF_THE_BROKER}
        kept = {
            name: text
            for name, text in headers.items()
            if (name.startswith("ce-") and name not in notes) or name == "content-type"
        }
        return kept, body
    return envelope.to_binary(_without_notes(envelope.parse(headers, body)))


def _without_notes(event: envelope.CloudEvent) -> envelope.CloudEvent:
    own = {n: text for n, text in event.extensions.items() if n not in NOTES_OF_THE_BROKER}
    return envelope.CloudEvent(
        id=event.id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        time=event.time,
        datacontenttype=event.datacontenttype,
        dataschema=event.dataschema,
        extensions=own,
        data=event.data,
    )


def _send(url: str, headers: dict[str, str], body: bytes) -> str | None:
    """None when it was accepted, otherwise why not."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not an address of a broker or a function: {url!r}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("POST", parts.path or "/", body, headers)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError) as error:
        # ValueError: poison may have headers that HTTP cannot carry
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return None if status in ACCEPTED else f"status {status}"


def _letter(
    connection: psycopg.Connection[dict[str, Any]], letter_id: UUID
) -> dict[str, Any] | None:
    return connection.execute(SHOW, {"dead_letter_id": letter_id}).fetchone()


def _connect(url: str) -> psycopg.Connection[dict[str, Any]]:
    return psycopg.connect(url, connect_timeout=CONNECT_SECONDS, row_factory=dict_row)
