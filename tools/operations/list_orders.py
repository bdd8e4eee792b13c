"""``shop order list``: the newest orders, by status, age, product and customer."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from uuid import UUID

from shop.adapters.statements import Query, Row
from tools.operations.reader import connect_at_replica, fetch_all, first_id_at
from tools.operations.reporting import EXIT_OK, show_json, show_table


class ListedOrder(Row):
    """An order as it is listed."""

    order_id: UUID
    user_id: int
    status: str
    reason: str | None
    total_minor: int
    currency: str
    created_at: datetime


# Planned for its values: what is not asked for is left out of the plan.  The id of an order begins
# with the time at which it was placed.
ORDERS = Query(
    ListedOrder,
    """
select o.order_id, o.user_id, o.status, o.reason, o.total_minor, o.currency::text as currency,
  o.created_at
from shop.orders o
where (%(status)s::text is null or o.status = %(status)s)
  and (%(user_id)s::bigint is null or o.user_id = %(user_id)s)
  and o.order_id < %(before)s::uuid
  and (%(product_id)s::bigint is null or exists (select from shop.order_lines l
    where l.order_id = o.order_id and l.product_id = %(product_id)s))
order by o.order_id desc limit %(limit)s
""",
)


def run_list(
    database_url: str,
    replica_url: str,
    *,
    status: str | None,
    older_than: timedelta,
    product_id: int | None,
    user_id: int | None,
    limit: int,
    as_json: bool,
) -> int:
    """Lists at most ``limit`` orders, newest first; always returns 0."""
    statement = ORDERS(
        status=status,
        user_id=user_id,
        before=first_id_at(time.time() - older_than.total_seconds()),
        product_id=product_id,
        limit=limit,
    )
    with connect_at_replica(database_url, replica_url) as connection:
        orders = fetch_all(connection, statement)
    if as_json:
        show_json([dict(zip(ListedOrder.columns, order, strict=True)) for order in orders])
        return EXIT_OK
    show_table(
        ("order", "customer", "status", "reason", "total", "placed"),
        [
            (
                order.order_id,
                order.user_id,
                order.status,
                order.reason,
                f"{order.total_minor:,} {order.currency}",
                f"{order.created_at:%Y-%m-%d %H:%M:%S%z}",
            )
            for order in orders
        ],
    )
    if len(orders) == limit:
        print(f"the newest {limit} only")
    return EXIT_OK
