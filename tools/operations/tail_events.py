"""``shop events tail``: prints events as functions write them to the outbox."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from uuid import UUID

import psycopg

from shop.adapters.statements import Query, Row
from shop.primitives.clock import utc_now
from shop.primitives.ids import first_uuid_at
from tools.operations.reader import connect, fetch_all
from tools.operations.reporting import EXIT_OK, printable, show_json_line

POLL_SECONDS = 1.0
# An id is made before its transaction commits, so an older id may appear after a newer one.
COMMIT_SECONDS = 15.0
READ_MAX = 500


class TailedEvent(Row):
    """An event of the outbox, and how far it is."""

    event_id: UUID
    created_at: datetime
    type: str
    subject: str
    source: str
    state: str


EVENTS = Query(
    TailedEvent,
    """
select event_id, created_at, type, subject, source,
  case when parked_at is not null then 'quarantined' when done_at is not null then 'consumed'
    when sent_at is not null then 'sent' else 'not sent' end as state
from shop.outbox
where event_id > %(after)s and (%(type)s::text is null or type = %(type)s)
  and (%(order_id)s::uuid is null or order_id = %(order_id)s)
order by event_id limit %(limit)s
""",
)


def run_tail(
    database_url: str,
    *,
    since_seconds: float,
    event_type: str | None,
    order_id: UUID | None,
    follow: bool,
    as_json: bool,
) -> int:
    """Prints the events of the last seconds and those that follow, until Ctrl-C; returns 0.

    Each event is printed once, with its state at that moment.  JSON is one document a line.
    """
    printed: set[UUID] = set()
    after = first_uuid_at(utc_now() - timedelta(seconds=since_seconds))
    with connect(database_url) as connection:
        try:
            while True:
                found = _read_new(connection, after, event_type, order_id)
                new = [event for event in found if event.event_id not in printed]
                for event in new:
                    _show(event, as_json=as_json)
                printed.update(event.event_id for event in new)
                if len(found) == READ_MAX:
                    after = found[-1].event_id
                    continue
                if not follow:
                    return EXIT_OK
                after = max(after, first_uuid_at(utc_now() - timedelta(seconds=COMMIT_SECONDS)))
                printed = {event_id for event_id in printed if event_id > after}
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            return EXIT_OK


def _read_new(
    connection: psycopg.Connection, after: UUID, event_type: str | None, order_id: UUID | None
) -> list[TailedEvent]:
    statement = EVENTS(after=after, type=event_type, order_id=order_id, limit=READ_MAX)
    return fetch_all(connection, statement)


def _show(event: TailedEvent, *, as_json: bool) -> None:
    if as_json:
        show_json_line(dict(zip(TailedEvent.columns, event, strict=True)))
        return
    when = f"{event.created_at:%Y-%m-%d %H:%M:%S}"
    text = (
        f"{when}  {event.state:11}  {event.type:25}  {event.subject}  {event.source}  "
        f"{event.event_id}"
    )
    print(printable(text), flush=True)
