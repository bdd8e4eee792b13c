"""Finds, reads, exports and annotates orders, reads customers; ``alert_routes`` handles alerts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, timedelta
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from functions.manage_orders import representation as represent
from functions.manage_orders.alert_routes import drop_dead_letter as drop_dead_letter
from functions.manage_orders.alert_routes import list_alerts as list_alerts
from functions.manage_orders.alert_routes import list_dead_letters as list_dead_letters
from functions.manage_orders.alert_routes import read_dead_letter as read_dead_letter
from functions.manage_orders.alert_routes import resolve_alert as resolve_alert
from shop import accounts, audit_log, notes
from shop.audit_log import Action
from shop.orders import addresses, queries, records, returns, search, shipments
from shop.orders.search import COUNT_MAX, Criteria
from shop.primitives import csv_text
from shop.primitives.clock import start_of_day
from shop.primitives.csv_text import Value
from shop.primitives.errors import not_found
from shop.primitives.ids import new_uuid, parse_user_id, parse_uuid
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.manage_orders.schema import (
        ExportOrders,
        NewNote,
        OrderCriteria,
        ReadCustomer,
        SearchOrders,
    )
    from shop.adapters.statements import Row, Statement
    from shop.orders.addresses import OrderAddress
    from shop.orders.search import FoundOrder, PriceSums
    from shop.runtime.request_context import RequestContext

NOTES_MAX = 100
SESSIONS_MAX = 20
EXPORT_BATCH = 1_000
EXPORT_COLUMNS = (
    "id",
    "userId",
    "status",
    "reason",
    "totalAmount",
    "currency",
    "createdAt",
    "goodsAmount",
    "discountAmount",
    "shippingAmount",
    "vatAmount",
)


def search_orders(request: Request[None, SearchOrders], context: RequestContext) -> Response:
    """200 with a page of orders, newest first, and the next page in ``Link``.

    The total is counted up to 1,000.  Three round trips, with BEGIN and COMMIT.
    """
    query = request.query
    criteria = _criteria(query, context.settings.business_time_zone)
    before = parse_uuid(query.cursor) if query.cursor else None
    rows, counted = context.tx.pipeline(
        search.page(criteria, before=before, limit=query.limit + 1), search.count(criteria)
    )
    found, count = rows[: query.limit], counted[0].orders
    total = {"count": min(count, COUNT_MAX), "exact": count <= COUNT_MAX}
    body = {"orders": [represent.found_order(order) for order in found], "total": total}
    is_last = len(rows) <= query.limit
    return Response(200, body, {} if is_last else _link("/admin/orders", query, found[-1]))


def export_orders(request: Request[None, ExportOrders], context: RequestContext) -> Response:
    """200 with all orders that meet the criteria, newest first, sent while they are read.

    Each batch is a transaction of its own, in which the caller's session is checked again; orders
    that are placed meanwhile are left out.  When the database fails, so does the response: at the
    first batch with a problem document, later by the end of the connection.
    """
    criteria = _criteria(request.query, context.settings.business_time_zone)
    batches = _batches(criteria, context)
    mark = csv_text.BYTE_ORDER_MARK if request.query.bom == "true" else b""
    beginning = mark + csv_text.encode([EXPORT_COLUMNS]) + next(batches)
    return Response(
        200,
        chain((beginning,), batches),
        {"Content-Disposition": 'attachment; filename="orders.csv"'},
        csv_text.MEDIA_TYPE,
    )


def read_order_records(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the order and everything that refers to it, but to finance without the address.

    Four round trips, with BEGIN and COMMIT.
    """
    tx, order_id = context.tx, queries.id_in(request.path)
    found, lines, priced, payments, refunds, disputes, sent = tx.pipeline(
        records.order(order_id),
        records.lines(order_id),
        records.price_lines(order_id),
        records.payments(order_id),
        records.refunds(order_id),
        records.disputes(order_id),
        shipments.of_order(order_id),
    )
    if not found:
        raise not_found("the order")
    history, postings, events, deliveries, written, returned, given = tx.pipeline(
        records.status_history(order_id),
        records.postings(order_id),
        records.events(order_id),
        records.deliveries(order_id),
        notes.of_order(order_id, limit=NOTES_MAX),
        returns.of_order(order_id),
        addresses.of_order(order_id),
    )
    body = {
        **represent.order(found[0]),
        "shippingAddress": _address(given, request),
        "items": [represent.line(row) for row in lines],
        "priceLines": [represent.price_line(row) for row in priced],
        "payments": [represent.payment(row) for row in payments],
        "refunds": [represent.refund(row) for row in refunds],
        "disputes": [represent.dispute(row) for row in disputes],
        "shipments": [shipments.represent(row) for row in sent],
        "returns": [returns.represent(row) | {"reason": row.reason} for row in returned],
        "statusHistory": [represent.status_change(row) for row in history],
        "postings": [represent.posting(row) for row in postings],
        "events": [represent.event(row, deliveries) for row in events],
        "notes": [represent.note(row) for row in written],
    }
    return Response(200, body)


def add_note_to_order(request: Request[NewNote, None], context: RequestContext) -> Response:
    """201 with the note; 404 when there is no such order."""
    order_id, note_id = queries.id_in(request.path), new_uuid()
    added, _ = context.tx.pipeline(
        notes.add_to_order(
            note_id, order_id=order_id, author_id=request.user_id, text=request.body.text
        ),
        _entry(request, Action.ORDER_NOTED, order_id, note_id=str(note_id)),
    )
    if not added:
        raise not_found("the order")
    return Response(201, represent.note(added[0]), {"Location": f"/admin/orders/{order_id}"})


def add_note_to_customer(request: Request[NewNote, None], context: RequestContext) -> Response:
    """201 with the note; 404 when there is no such account."""
    user_id, note_id = _user_id(request.path), new_uuid()
    added, _ = context.tx.pipeline(
        notes.add_to_user(
            note_id, user_id=user_id, author_id=request.user_id, text=request.body.text
        ),
        _entry(request, Action.USER_NOTED, user_id, note_id=str(note_id)),
    )
    if not added:
        raise not_found("the customer")
    return Response(201, represent.note(added[0]), {"Location": f"/admin/customers/{user_id}"})


def read_customer(request: Request[None, ReadCustomer], context: RequestContext) -> Response:
    """200 with the account, a page of its orders, its open sessions and the notes about it.

    The next page of orders is in ``Link``.  Three round trips, with BEGIN and COMMIT.
    """
    query, user_id = request.query, _user_id(request.path)
    before = parse_uuid(query.cursor) if query.cursor else None
    found, orders, sessions, written = context.tx.pipeline(
        accounts.read_managed(user_id),
        search.page(Criteria(user_id=user_id), before=before, limit=query.limit + 1),
        accounts.open_sessions(user_id, before=None, limit=SESSIONS_MAX),
        notes.of_user(user_id, limit=NOTES_MAX),
    )
    if not found:
        raise not_found("the customer")
    page = orders[: query.limit]
    body = {
        **represent.customer(found[0]),
        "orders": [represent.found_order(row) for row in page],
        "sessions": [represent.session(row) for row in sessions],
        "notes": [represent.note(row) for row in written],
    }
    is_last = len(orders) <= query.limit
    path = f"/admin/customers/{user_id}"
    return Response(200, body, {} if is_last else _link(path, query, page[-1]))


def _address(given: Sequence[OrderAddress], request: Request[None, None]) -> dict[str, str] | None:
    """Who sends an order and who answers its customer need the address; finance does not."""
    assert request.caller is not None
    return addresses.represent(given[0]) if given and request.caller.role != "finance" else None


def _criteria(query: OrderCriteria, time_zone: str) -> Criteria:
    day_after = query.to_day + timedelta(days=1) if query.to_day else None
    return Criteria(
        order_id=parse_uuid(query.id) if query.id else None,
        user_id=query.user_id,
        email=query.email,
        product_id=query.product_id,
        status=query.status,
        placed_from=start_of_day(query.from_day, time_zone) if query.from_day else None,
        placed_before=start_of_day(day_after, time_zone) if day_after else None,
        total_min=query.min_total,
        total_max=query.max_total,
    )


def _link(path: str, query: SearchOrders | ReadCustomer, last: FoundOrder) -> dict[str, str]:
    given = query.model_dump(mode="json", exclude_none=True) | {"cursor": str(last.order_id)}
    return {"link": f'<{path}?{urlencode(given)}>; rel="next"'}


def _batches(criteria: Criteria, context: RequestContext) -> Iterator[bytes]:
    """The orders as CSV, in batches, so that a few of them are in memory."""
    before = None
    while True:
        with context.transaction() as tx:
            rows = tx.fetch_all(search.page(criteria, before=before, limit=EXPORT_BATCH))
            found = tx.fetch_all(search.price_sums([row.order_id for row in rows])) if rows else []
        sums = {each.order_id: each for each in found}
        yield csv_text.encode(_exported(row, sums.get(row.order_id)) for row in rows)
        if len(rows) < EXPORT_BATCH:
            return
        before = rows[-1].order_id


def _exported(order: FoundOrder, sums: PriceSums | None) -> tuple[Value, ...]:
    """The fields of ``EXPORT_COLUMNS``; the last are empty for an order without price lines."""
    parts = (
        (None, None, None, None)
        if sums is None
        else (sums.goods_minor, sums.discount_minor, sums.shipping_minor, sums.vat_minor)
    )
    return (
        str(order.order_id),
        order.user_id,
        order.status,
        order.reason,
        order.total_minor,
        order.currency,
        order.created_at.astimezone(UTC).isoformat(),
        *parts,
    )


def _entry(
    request: Request[NewNote, None], action: Action, object_id: object, *, note_id: str
) -> Statement[Row]:
    """The audit log names the note, and does not hold its text."""
    return audit_log.record(
        audit_log.actor_of(request), action, object_id, after={"noteId": note_id}
    )


def _user_id(path: Mapping[str, str]) -> int:
    user_id = parse_user_id(path["userId"])
    if user_id is None:
        raise not_found("the customer")
    return user_id
