"""``shop order explain``: everything the tables know about one order, told as one story."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.rows import dict_row

from tools.operations.reporting import EXIT_FOUND, EXIT_OK, show_json, shown
from tools.operations.snapshot import snapshot

Row = dict[str, Any]

ORDER: LiteralString = """
select order_id, user_id, status, reason, total_minor, currency::text as currency, payment_method,
  idem_key, created_at, updated_at, expires_at, hard_expires_at
from shop.orders where order_id = %(order_id)s
"""
LINES: LiteralString = """
select l.product_id, p.name, l.qty, l.unit_price_minor from shop.order_lines l
join shop.products p using (product_id) where l.order_id = %(order_id)s order by l.product_id
"""
PAYMENTS: LiteralString = """
select payment_id, attempt, status, amount_minor, currency::text as currency, payment_method, late,
  provider_key, provider_ref, refund_reserved_minor, tries, created_at, updated_at
from shop.payments where order_id = %(order_id)s order by attempt
"""
REFUNDS: LiteralString = """
select r.refund_id, r.payment_id, r.amount_minor, r.currency::text as currency, r.status, r.reason,
  r.requested_by, r.provider_key, r.tries, r.created_at, r.updated_at
from shop.refunds r join shop.payments p using (payment_id)
where p.order_id = %(order_id)s order by r.created_at, r.refund_id
"""
RESERVATIONS: LiteralString = """
select reservation_id, product_id, qty, status from shop.reservations
where order_id = %(order_id)s order by product_id
"""
MOVES: LiteralString = """
select m.seq, m.moved_at, m.product_id, m.kind, m.qty from shop.stock_moves m
join shop.reservations r using (reservation_id)
where r.order_id = %(order_id)s order by m.seq
"""
TRANSITIONS: LiteralString = """
select seq, at, entity, entity_id, from_status, to_status, actor, event_id from shop.transitions
where order_id = %(order_id)s order by seq
"""
POSTINGS: LiteralString = """
select l.seq, l.posted_at, l.kind, l.source_id, l.debit, l.credit, l.amount_minor,
  l.currency::text as currency, l.chain, l.chain_seq, s.day as settled_on
from shop.ledger l left join shop.settlement_lines s using (seq)
where l.order_id = %(order_id)s order by l.seq
"""
EVENTS: LiteralString = """
select event_id, source, type, data, traceparent, created_at, sent_at, done_at, parked_at, tries
from shop.outbox where order_id = %(order_id)s order by created_at, event_id
"""
DELIVERIES: LiteralString = """
select o.event_id, o.type, s.consumer, i.received_at from shop.outbox o
join shop.subscriptions s using (type)
left join shop.inbox i on i.consumer = s.consumer and i.source = o.source
  and i.event_id = o.event_id::text
where o.order_id = %(order_id)s order by i.received_at, s.consumer
"""
DEAD_LETTERS: LiteralString = """
select d.dead_letter_id, d.event_id, d.type, d.destination, d.error_code, d.received_at,
  d.replayed_at
from shop.dead_letters d
where d.subject = %(order_id)s::uuid::text or exists (select from shop.outbox o
  where o.order_id = %(order_id)s and o.event_id::text = d.event_id)
order by d.received_at
"""
# Alarms and due work name an order, a payment, a refund, an event or a key made of one of these.
ALARMS: LiteralString = """
with names(id) as (
  select %(order_id)s::uuid::text
  union all select payment_id::text from shop.payments where order_id = %(order_id)s
  union all select r.refund_id::text from shop.refunds r join shop.payments p using (payment_id)
    where p.order_id = %(order_id)s
  union all select event_id::text from shop.outbox where order_id = %(order_id)s)
select a.alarm_id, a.kind, a.subject, a.detail, a.raised_at, a.resolved_at from shop.alarms a
where exists (select from names where position(names.id in a.subject) > 0) order by a.raised_at
"""
DUE: LiteralString = """
with names(id) as (
  select %(order_id)s::uuid::text
  union all select payment_id::text from shop.payments where order_id = %(order_id)s
  union all select r.refund_id::text from shop.refunds r join shop.payments p using (payment_id)
    where p.order_id = %(order_id)s
  union all select event_id::text from shop.outbox where order_id = %(order_id)s)
select d.kind, d.id, d.due_at from shop.due_work d join names using (id) order by d.due_at
"""

QUESTIONS: dict[str, LiteralString] = {
    "lines": LINES,
    "payments": PAYMENTS,
    "refunds": REFUNDS,
    "reservations": RESERVATIONS,
    "moves": MOVES,
    "transitions": TRANSITIONS,
    "postings": POSTINGS,
    "events": EVENTS,
    "deliveries": DELIVERIES,
    "dead_letters": DEAD_LETTERS,
    "alarms": ALARMS,
    "due": DUE,
}


@dataclass(frozen=True)
class Moment:
    """One thing that happened; ``rank`` orders what one transaction did."""

    at: datetime
    rank: int
    seq: int
    what: str


def run_explain(database_url: str, order_id: str, *, time_zone: str, as_json: bool) -> int:
    """Prints the order's story; 1 when there is no such order.  Raises ValueError for no id."""
    zone = ZoneInfo(time_zone)
    story = read(database_url, UUID(order_id))
    if story is None:
        print(f"{order_id}: there is no such order")
        return EXIT_FOUND
    if as_json:
        show_json(story)
    else:
        print("\n".join(shown(line) for line in tell(story, zone)))
    return EXIT_OK


def read(url: str, order_id: UUID) -> dict[str, Any] | None:
    """All rows about the order by table, of one snapshot; None when there is no such order."""
    with snapshot(url) as snapshot_connection:
        connection = snapshot_connection.cursor(row_factory=dict_row)
        asked = {"order_id": order_id}
        order = connection.execute(ORDER, asked).fetchone()
        if order is None:
            return None
        found: dict[str, Any] = {"order": order}
        for name, question in QUESTIONS.items():
            found[name] = connection.execute(question, asked).fetchall()
    found["trace_ids"] = sorted({row["traceparent"].split("-")[1] for row in found["events"]})
    return found


def tell(story: dict[str, Any], zone: ZoneInfo) -> Iterator[str]:
    """The story in lines: what was ordered, what happened when, where it stands."""
    order = story["order"]
    yield (
        f"Order {order['order_id']} of customer {order['user_id']}: "
        f"{_amount(order['total_minor'], order)} by {order['payment_method']}"
    )
    for line in story["lines"]:
        price = _amount(line["unit_price_minor"], order)
        yield f"  {line['qty']} × {line['name']} (product {line['product_id']}) at {price}"
    if order["idem_key"]:
        yield f"  placed with the idempotency key {order['idem_key']}"
    yield f"  traces: {', '.join(story['trace_ids']) or 'none'}"
    yield f"What happened ({zone.key}):"
    before = None
    for moment in timeline(story):
        when = f"{moment.at.astimezone(zone):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        yield f"  {when if moment.at != before else ' ' * len(when)}  {moment.what}"
        before = moment.at
    yield from _end(story, zone)


def timeline(story: dict[str, Any]) -> list[Moment]:
    """Everything with a time, in the order it happened."""
    moments = [moment for tellers in _TELLERS for moment in tellers(story)]
    return sorted(moments, key=lambda moment: (moment.at, moment.rank, moment.seq, moment.what))


def _deliveries(story: dict[str, Any]) -> Iterator[Moment]:
    for row in story["deliveries"]:
        if row["received_at"]:
            yield Moment(row["received_at"], 0, 0, f"{row['consumer']} took {row['type']}")


def _transitions(story: dict[str, Any]) -> Iterator[Moment]:
    names = _names(story)
    for row in story["transitions"]:
        what = names.get(row["entity_id"], row["entity"])
        began = "" if row["from_status"] == "-" else f"{row['from_status']} → "
        text = f"{what}: {began}{row['to_status']}, by {row['actor']}"
        yield Moment(row["at"], 1, row["seq"], text)


def _moves(story: dict[str, Any]) -> Iterator[Moment]:
    for row in story["moves"]:
        text = f"stock of product {row['product_id']}: {row['kind']} {row['qty']:+}"
        yield Moment(row["moved_at"], 2, row["seq"], text)


def _postings(story: dict[str, Any]) -> Iterator[Moment]:
    for row in story["postings"]:
        settled = f", settled on {row['settled_on']}" if row["settled_on"] else ""
        text = (
            f"ledger {row['seq']}: {row['kind']} {_amount(row['amount_minor'], row)}, debit "
            f"{row['debit']}, credit {row['credit']}, link {row['chain']}/{row['chain_seq']}"
        )
        yield Moment(row["posted_at"], 3, row["seq"], text + settled)


def _events(story: dict[str, Any]) -> Iterator[Moment]:
    for row in story["events"]:
        text = f"{row['source']} announced {row['type']} ({row['event_id']})"
        yield Moment(row["created_at"], 4, 0, text)
        if row["parked_at"]:
            yield Moment(row["parked_at"], 4, 1, f"{row['type']} was given up by the relay")


def _dead_letters(story: dict[str, Any]) -> Iterator[Moment]:
    for row in story["dead_letters"]:
        text = f"{row['type']} was not taken by {row['destination']}, status {row['error_code']}"
        yield Moment(row["received_at"], 5, 0, f"{text}: dead letter {row['dead_letter_id']}")
        if row["replayed_at"]:
            yield Moment(row["replayed_at"], 5, 1, f"dead letter {row['dead_letter_id']} replayed")


def _alarms(story: dict[str, Any]) -> Iterator[Moment]:
    for row in story["alarms"]:
        yield Moment(row["raised_at"], 6, 0, f"alarm {row['kind']}: {row['detail']}")
        if row["resolved_at"]:
            yield Moment(row["resolved_at"], 6, 1, f"alarm {row['kind']} resolved")


_TELLERS: tuple[Callable[[dict[str, Any]], Iterator[Moment]], ...] = (
    _deliveries,
    _transitions,
    _moves,
    _postings,
    _events,
    _dead_letters,
    _alarms,
)


def _names(story: dict[str, Any]) -> dict[UUID, str]:
    """What the transitions' entities are called in the story."""
    names = {story["order"]["order_id"]: "order"}
    for row in story["payments"]:
        late = " (late)" if row["late"] else ""
        names[row["payment_id"]] = (
            f"payment {row['attempt']}{late} of {_amount(row['amount_minor'], row)}"
        )
    for row in story["refunds"]:
        names[row["refund_id"]] = f"refund of {_amount(row['amount_minor'], row)}"
    for row in story["reservations"]:
        names[row["reservation_id"]] = f"reservation of {row['qty']} × product {row['product_id']}"
    return names


def _end(story: dict[str, Any], zone: ZoneInfo) -> Iterator[str]:
    order = story["order"]
    sums = {
        kind: sum(row["amount_minor"] for row in story["postings"] if row["kind"] == kind)
        for kind in ("CAPTURE", "REFUND")
    }
    why = f" ({order['reason']})" if order["reason"] else ""
    yield (
        f"Now {order['status']}{why}: {_amount(sums['CAPTURE'], order)} captured, "
        f"{_amount(sums['REFUND'], order)} given back"
    )
    for row in story["payments"]:
        yield f"  payment {row['attempt']} {row['status']} {row['payment_id']}, {_provider(row)}"
    for row in story["refunds"]:
        yield f"  refund {row['status']} {row['refund_id']}, {_provider(row)}: {row['reason']}"
    for row in story["deliveries"]:
        if not row["received_at"]:
            yield f"  {row['consumer']} has not taken {row['type']} ({row['event_id']})"
    for row in story["due"]:
        yield f"  due: {row['kind']} {row['id']} at {row['due_at'].astimezone(zone):%F %T}"
    waiting = [row for row in story["alarms"] if not row["resolved_at"]]
    yield f"  {len(story['due'])} timers, {len(waiting)} open alarms"


def _provider(row: Row) -> str:
    ref = f", reference {row['provider_ref']}" if row.get("provider_ref") else ""
    return f"key {row['provider_key']}{ref}, {row['tries']} retries"


def _amount(minor: int, row: Row) -> str:
    return f"{minor:,} {row['currency']}"
