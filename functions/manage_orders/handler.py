"""Finds the orders of all customers for operators."""

from __future__ import annotations

from datetime import UTC, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from shop.orders import search
from shop.orders.search import COUNT_MAX, Criteria
from shop.primitives.clock import start_of_day
from shop.primitives.ids import parse_uuid
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.manage_orders.schema import SearchOrders
    from shop.orders.search import FoundOrder
    from shop.runtime.request_context import RequestContext


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
    body = {"orders": [_represent(order) for order in found], "total": total}
    is_last = len(rows) <= query.limit
    return Response(200, body, {} if is_last else _link(query, found[-1]))


def _criteria(query: SearchOrders, time_zone: str) -> Criteria:
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


def _link(query: SearchOrders, last: FoundOrder) -> dict[str, str]:
    given = query.model_dump(mode="json", exclude_none=True) | {"cursor": str(last.order_id)}
    return {"link": f'</admin/orders?{urlencode(given)}>; rel="next"'}


def _represent(order: FoundOrder) -> dict[str, object]:
    return {
        "id": str(order.order_id),
        "userId": order.user_id,
        "status": order.status,
        "reason": order.reason,
        "totalAmount": order.total_minor,
        "currency": order.currency,
        "createdAt": order.created_at.astimezone(UTC).isoformat(),
    }
