"""``shop order explain``: prints the timeline of one order from every table that refers to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID
from zoneinfo import ZoneInfo

from psycopg.rows import dict_row

from shop.orders import records, shipments
from tools.operations.reporting import EXIT_OK, printable, show_json, show_unknown
from tools.operations.snapshot import snapshot

# Any: the columns differ by query, and the JSON output has all of them as they are.
Row = dict[str, Any]
Tables = dict[str, list[Row]]

# An operator alert names an order, or one of its payments, refunds, disputes, shipments or returns.
ORDER_OF: LiteralString = """
select order_id from shop.payments where payment_id = %(id)s
union all
select p.order_id from shop.refunds r join shop.payments p using (payment_id)
where r.refund_id = %(id)s
union all
select p.order_id from shop.disputes d join shop.payments p using (payment_id)
where d.dispute_id = %(id)s
union all
select order_id from shop.shipments where shipment_id = %(id)s
union all
select order_id from shop.returns where return_id = %(id)s
"""
# without the reason, a text of the customer's that auditors may not read
RETURNS: LiteralString = """
select r.return_id, r.status, r.created_at, r.updated_at,
  (select json_agg(json_build_object('product_id', l.product_id, 'qty', l.qty,
      'restocked_qty', l.restocked_qty, 'amount_minor', l.amount_minor) order by l.product_id)
    from shop.return_lines l where l.return_id = r.return_id) as lines
from shop.returns r where r.order_id = %(order_id)s::uuid order by r.created_at, r.return_id
"""
RESERVATIONS: LiteralString = """
select reservation_id, product_id, qty, status from shop.reservations
where order_id = %(order_id)s order by product_id
"""
STOCK_MOVES: LiteralString = """
select m.seq, m.moved_at, m.product_id, m.kind, m.qty from shop.stock_moves m
join shop.reservations r using (reservation_id)
where r.order_id = %(order_id)s order by m.seq
"""
DEAD_LETTERS: LiteralString = """
select d.dead_letter_id, d.event_id, d.type, d.destination, d.error_code, d.received_at,
  d.replayed_at, d.dropped_at, d.dropped_reason
from shop.dead_letters d
where d.subject = %(order_id)s::uuid::text or exists (select from shop.outbox o
  where o.order_id = %(order_id)s and o.event_id::text = d.event_id)
order by d.received_at
"""
# The subject of an alert or due job contains the id of an order, payment, refund or event.
ALERTS: LiteralString = """
with names(id) as (
  select %(order_id)s::uuid::text
  union all select payment_id::text from shop.payments where order_id = %(order_id)s
  union all select r.refund_id::text from shop.refunds r join shop.payments p using (payment_id)
    where p.order_id = %(order_id)s
  union all select d.dispute_id::text from shop.disputes d join shop.payments p using (payment_id)
    where p.order_id = %(order_id)s
  union all select shipment_id::text from shop.shipments where order_id = %(order_id)s
  union all select return_id::text from shop.returns where order_id = %(order_id)s
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

QUERIES: dict[str, LiteralString] = {
    "lines": records.LINES.sql,
    "payments": records.PAYMENTS.sql,
    "refunds": records.REFUNDS.sql,
    "disputes": records.DISPUTES.sql,
    "shipments": shipments.OF_ORDER.sql,
    "returns": RETURNS,
    "reservations": RESERVATIONS,
    "moves": STOCK_MOVES,
    "transitions": records.STATUS_HISTORY.sql,
    "postings": records.POSTINGS.sql,
    "events": records.EVENTS.sql,
    "deliveries": records.DELIVERIES.sql,
    "dead_letters": DEAD_LETTERS,
    "alarms": ALERTS,
    "due": DUE,
}


@dataclass(frozen=True)
class OrderRecords:
    """An order's row, and the rows that refer to it by the names in ``QUERIES``."""

    order: Row
    tables: Tables

    @property
    def trace_ids(self) -> list[str]:
        """The ids of the traces that the order's events belong to."""
        return sorted({row["traceparent"].split("-")[1] for row in self.tables["events"]})


@dataclass(frozen=True)
class TimelineEntry:
    """One entry of the timeline; ``rank`` orders what one transaction wrote."""

    at: datetime
    rank: int
    seq: int
    text: str


def run_explain(database_url: str, order_id: str, *, time_zone: str, as_json: bool) -> int:
    """Prints the order's timeline; returns 1 when it is unknown; raises ValueError for a bad id."""
    zone = ZoneInfo(time_zone)
    found = read_records(database_url, UUID(order_id))
    if found is None:
        return show_unknown(f"order {order_id}", as_json=as_json)
    if as_json:
        show_json({"order": found.order, **found.tables, "trace_ids": found.trace_ids})
    else:
        print("\n".join(printable(line) for line in describe_records(found, zone)))
    return EXIT_OK


def read_records(url: str, order_id: UUID) -> OrderRecords | None:
    """All rows about the order with this id, or with a payment or refund of this id.

    From one snapshot; None when there is no such order.
    """
    with snapshot(url) as connection:
        cursor = connection.cursor(row_factory=dict_row)
        found = cursor.execute(ORDER_OF, {"id": order_id}).fetchone()
        order_id = found["order_id"] if found else order_id
        parameters = {"order_id": order_id}
        order = cursor.execute(records.ORDER.sql, parameters).fetchone()
        if order is None:
            return None
        tables = {
            name: cursor.execute(query, parameters).fetchall() for name, query in QUERIES.items()
        }
    return OrderRecords(order, tables)


def describe_records(records: OrderRecords, zone: ZoneInfo) -> Iterator[str]:
    """The lines of the report: the order, its timeline, and its current state."""
    order = records.order
    yield (
        f"Order {order['order_id']} of customer {order['user_id']}: "
        f"{_amount(order['total_minor'], order)} by {order['payment_method']}"
    )
    for line in records.tables["lines"]:
        price = _amount(line["unit_price_minor"], order)
        yield f"  {line['qty']} × {line['name']} (product {line['product_id']}) at {price}"
    if order["idem_key"]:
        yield f"  placed with the idempotency key {order['idem_key']}"
    yield f"  traces: {', '.join(records.trace_ids) or 'none'}"
    yield f"Timeline ({zone.key}):"
    previous = None
    for entry in build_timeline(records.order, records.tables):
        when = f"{entry.at.astimezone(zone):%Y-%m-%d %H:%M:%S.%f}"[:-3]
        yield f"  {when if entry.at != previous else ' ' * len(when)}  {entry.text}"
        previous = entry.at
    yield from _current_state(records, zone)


def build_timeline(order: Row, tables: Tables) -> list[TimelineEntry]:
    """All entries of the timeline, in chronological order."""
    entries = list(_status_changes(order, tables))
    entries += [entry for read_entries in _SOURCES for entry in read_entries(tables)]
    return sorted(entries, key=lambda entry: (entry.at, entry.rank, entry.seq, entry.text))


def _deliveries(tables: Tables) -> Iterator[TimelineEntry]:
    for row in tables["deliveries"]:
        if row["received_at"]:
            yield TimelineEntry(
                row["received_at"], 0, 0, f"{row['consumer']} consumed {row['type']}"
            )


def _status_changes(order: Row, tables: Tables) -> Iterator[TimelineEntry]:
    names = _entity_names(order, tables)
    for row in tables["transitions"]:
        name = names.get(row["entity_id"], row["entity"])
        before = "" if row["from_status"] == "-" else f"{row['from_status']} → "
        text = f"{name}: {before}{row['to_status']}, by {row['actor']}"
        yield TimelineEntry(row["at"], 1, row["seq"], text)


def _stock_moves(tables: Tables) -> Iterator[TimelineEntry]:
    for row in tables["moves"]:
        text = f"stock of product {row['product_id']}: {row['kind']} {row['qty']:+}"
        yield TimelineEntry(row["moved_at"], 2, row["seq"], text)


def _postings(tables: Tables) -> Iterator[TimelineEntry]:
    for row in tables["postings"]:
        settled = f", settled on {row['settled_on']}" if row["settled_on"] else ""
        text = (
            f"ledger {row['seq']}: {row['kind']} {_amount(row['amount_minor'], row)}, debit "
            f"{row['debit']}, credit {row['credit']}, link {row['chain']}/{row['chain_seq']}"
        )
        yield TimelineEntry(row["posted_at"], 3, row["seq"], text + settled)


def _events(tables: Tables) -> Iterator[TimelineEntry]:
    for row in tables["events"]:
        text = f"{row['source']} emitted {row['type']} ({row['event_id']})"
        yield TimelineEntry(row["created_at"], 4, 0, text)
        if row["parked_at"]:
            yield TimelineEntry(
                row["parked_at"], 4, 1, f"{row['type']} was quarantined by the relay"
            )


def _dead_letters(tables: Tables) -> Iterator[TimelineEntry]:
    for row in tables["dead_letters"]:
        text = f"{row['type']} was not accepted by {row['destination']}, status {row['error_code']}"
        yield TimelineEntry(
            row["received_at"], 5, 0, f"{text}: dead letter {row['dead_letter_id']}"
        )
        if row["replayed_at"]:
            replayed = f"dead letter {row['dead_letter_id']} replayed"
            yield TimelineEntry(row["replayed_at"], 5, 1, replayed)
        if row["dropped_at"]:
            dropped = f"dead letter {row['dead_letter_id']} dropped: {row['dropped_reason']}"
            yield TimelineEntry(row["dropped_at"], 5, 1, dropped)


def _alerts(tables: Tables) -> Iterator[TimelineEntry]:
    for row in tables["alarms"]:
        text = f"operator alert {row['kind']}: {row['detail']}"
        yield TimelineEntry(row["raised_at"], 6, 0, text)
        if row["resolved_at"]:
            resolved = f"operator alert {row['kind']} resolved"
            yield TimelineEntry(row["resolved_at"], 6, 1, resolved)


_SOURCES: tuple[Callable[[Tables], Iterator[TimelineEntry]], ...] = (
    _deliveries,
    _stock_moves,
    _postings,
    _events,
    _dead_letters,
    _alerts,
)


def _entity_names(order: Row, tables: Tables) -> dict[UUID, str]:
    """How the timeline names the entities of the status history."""
    names: dict[UUID, str] = {order["order_id"]: "order"}
    for row in tables["payments"]:
        late = " (late)" if row["late"] else ""
        names[row["payment_id"]] = (
            f"payment {row['attempt']}{late} of {_amount(row['amount_minor'], row)}"
        )
    for row in tables["refunds"]:
        names[row["refund_id"]] = f"refund of {_amount(row['amount_minor'], row)}"
    for row in tables["disputes"]:
        names[row["dispute_id"]] = f"dispute about {_amount(row['amount_minor'], row)}"
    for row in tables["shipments"]:
        units = sum(line["qty"] for line in row["lines"])
        names[row["shipment_id"]] = f"shipment of {units} units"
    for row in tables["returns"]:
        units = sum(line["qty"] for line in row["lines"])
        names[row["return_id"]] = f"return of {units} units"
    for row in tables["reservations"]:
        names[row["reservation_id"]] = f"reservation of {row['qty']} × product {row['product_id']}"
    return names


def _current_state(records: OrderRecords, zone: ZoneInfo) -> Iterator[str]:
    order, tables = records.order, records.tables
    sums = Counter[str]()
    for row in tables["postings"]:
        sums[row["kind"]] += row["amount_minor"]
    refunded = sums["REFUND"] + sums["REFUND_BY_OTHER_MEANS"] - sums["REFUND_REVERSED"]
    written_off = f", {_amount(sums['WRITE_OFF'], order)} written off" if sums["WRITE_OFF"] else ""
    reason = f" ({order['reason']})" if order["reason"] else ""
    yield (
        f"Now {order['status']}{reason}: {_amount(sums['CAPTURE'], order)} captured, "
        f"{_amount(refunded, order)} refunded{written_off}"
    )
    for row in tables["payments"]:
        yield f"  payment {row['attempt']} {row['status']} {row['payment_id']}, {_provider(row)}"
    for row in tables["refunds"]:
        yield f"  refund {row['status']} {row['refund_id']}, {_means(row)}: {row['reason']}"
    for row in tables["disputes"]:
        yield f"  dispute {row['status']} {row['dispute_id']}, {row['provider_ref']}"
    for row in tables["shipments"]:
        carrier = f", {row['carrier']} {row['tracking_number']}" if row["carrier"] else ""
        yield f"  shipment {row['status']} {row['shipment_id']}{carrier}"
    for row in tables["returns"]:
        yield f"  return {row['status']} {row['return_id']}"
    for row in tables["deliveries"]:
        if not row["received_at"]:
            yield f"  {row['consumer']} has not consumed {row['type']} ({row['event_id']})"
    for row in tables["due"]:
        yield f"  due: {row['kind']} {row['id']} at {row['due_at'].astimezone(zone):%F %T}"
    open_alerts = [row for row in tables["alarms"] if not row["resolved_at"]]
    yield f"  {len(tables['due'])} due jobs, {len(open_alerts)} open operator alerts"


def _means(refund: Row) -> str:
    by = f", requested by user {refund['requested_by']}" if refund["requested_by"] else ""
    if refund["means"] == "PROVIDER":
        return f"{_provider(refund)}{by}"
    reference = f", reference {refund['reference']}" if refund["reference"] else ""
    return f"{refund['means']}{reference}{by}"


def _provider(row: Row) -> str:
    ref = f", reference {row['provider_ref']}" if row.get("provider_ref") else ""
    return f"key {row['provider_key']}{ref}, {row['tries']} retries"


def _amount(minor: int, row: Row) -> str:
    return f"{minor:,} {row['currency']}"
