"""Reads orders.  Row-level security hides the orders of other customers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from uuid import UUID

from functions.read_orders import receipt
from shop.orders import addresses, queries, receipts
from shop.primitives.errors import ClientError, not_found
from shop.primitives.ids import parse_uuid
from shop.primitives.languages import preferred_language
from shop.primitives.messages import Request, Response
from shop.primitives.statuses import OrderStatus, PaymentStatus

if TYPE_CHECKING:
    from functions.read_orders.schema import ListOrders
    from shop.adapters.db import Transaction
    from shop.orders.queries import OrderView, StatusHistoryEntry
    from shop.runtime.request_context import RequestContext

WAIT_SECONDS_MAX = 20
TIMELINE_MAX = 1000
# a separate preference: not a parameter of another one, and not inside quoted text
PREFER_WAIT = re.compile(
    r'(?:^|,)\s*wait\s*=\s*(?P<quote>"?)(?P<seconds>[0-9]{1,9})(?P=quote)\s*(?:[,;]|$)',
    re.IGNORECASE,
)


def read_order(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the order; with ``Prefer: wait=N`` (RFC 7240) as soon as it is final.

    The same 404 for a missing order, another customer's, and an invalid id.
    """
    order_id = queries.id_in(request.path)
    wait = wait_seconds(request.headers.get("prefer", ""))
    with context.transaction() as tx:
        found, given = tx.pipeline(queries.order(order_id), addresses.of_order(order_id))
        row = _check_visible(found[0] if found else None, request)
    body = queries.represent(row, reader_id=request.user_id)
    if given:
        body["shippingAddress"] = addresses.represent(given[0])
    headers = {"preference-applied": f"wait={wait}"} if wait is not None else {}
    return Response(
        200,
        body,
        headers,
        wait_seconds=wait if wait and is_waiting(row) else 0,
    )


def list_my_orders(request: Request[None, ListOrders], context: RequestContext) -> Response:
    """200 with a page of orders, newest first, and the next page in ``Link``."""
    limit, cursor = request.query.limit, request.query.cursor
    before = parse_uuid(cursor) if cursor else None
    if cursor and before is None:
        raise ClientError(400, "BAD_QUERY", "cursor: not one of ours")
    rows = context.tx.fetch_all(
        queries.orders_of_user(request.user_id, before=before, limit=limit + 1)
    )
    page = [queries.represent(row, reader_id=request.user_id) for row in rows[:limit]]
    headers: dict[str, str] = {}
    if len(rows) > limit:
        link = f"/orders/me?limit={limit}&cursor={page[-1]['id']}"
        headers["link"] = f'<{link}>; rel="next"'
    return Response(200, page, headers)


def read_timeline(request: Request[None, None], context: RequestContext) -> Response:
    """200 with every status change of the order, oldest first."""
    tx = context.tx
    order_id = queries.id_in(request.path)
    _visible(tx, request, order_id)
    rows = tx.fetch_all(queries.status_history(order_id, limit=TIMELINE_MAX))
    return Response(200, [_entry(row) for row in rows])


def show_receipt(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the receipt, as a page to a client that prefers HTML, else as JSON.

    The same 404 for a missing order, one of another account, whatever its role, and an invalid id.
    """
    order_id = queries.id_in(request.path)
    found, items, payments, refunds = context.tx.pipeline(
        queries.order(order_id),
        receipts.items(order_id),
        receipts.payments(order_id),
        receipts.refunds(order_id),
    )
    if not found or found[0].user_id != request.user_id:
        raise not_found("the order")
    shown = receipt.represent(found[0], items, payments, refunds, seller=context.settings.seller)
    if not receipt.prefers_page(request.headers.get("accept", "")):
        return Response(200, shown, {"vary": "Accept"})
    language = preferred_language(
        request.headers.get("accept-language"), default=context.settings.shop_language
    )
    headers = {**receipt.PAGE_HEADERS, "content-language": language}
    page = receipt.page(shown, language, time_zone=context.settings.business_time_zone)
    return Response(200, page, headers, receipt.PAGE)


def wait_seconds(prefer: str) -> int | None:
    """The seconds of a ``wait`` preference, at most 20; None when there is none."""
    match = PREFER_WAIT.search(prefer)
    return min(int(match["seconds"]), WAIT_SECONDS_MAX) if match else None


def is_waiting(row: OrderView) -> bool:
    """False once the order left PENDING, or nothing happens to it until its customer acts."""
    is_declined = row.payment is not None and row.payment["status"] in (
        PaymentStatus.DECLINED,
        PaymentStatus.VOIDED,
    )
    waits_for_customer = is_declined or queries.awaits_customer(row)
    return row.status == OrderStatus.PENDING and (row.charge_requested or not waits_for_customer)


def _visible(tx: Transaction, request: Request[None, None], order_id: UUID) -> OrderView:
    return _check_visible(tx.fetch_one(queries.order(order_id)), request)


def _check_visible(row: OrderView | None, request: Request[None, None]) -> OrderView:
    is_support = request.caller is not None and request.caller.role == "support"
    if row is None or (row.user_id != request.user_id and not is_support):
        raise not_found("the order")
    return row


def _entry(row: StatusHistoryEntry) -> dict[str, object]:
    # without its id: the ids of staff accounts must not be disclosed to customers
    return {
        "at": row.at.isoformat(),
        "entity": row.entity,
        "id": str(row.entity_id),
        "from": row.from_status,
        "to": row.to_status,
        "actor": "user" if row.actor.startswith("user:") else row.actor,
    }
