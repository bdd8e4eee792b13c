"""``shop order list``: the newest orders, by status, age, product and customer."""

from __future__ import annotations

from shop.orders import search
from shop.orders.search import Criteria, FoundOrder
from tools.operations.reader import connect_at_replica, fetch_all
from tools.operations.reporting import EXIT_OK, show_json, show_table


def run_list(
    database_url: str, replica_url: str, criteria: Criteria, *, limit: int, as_json: bool
) -> int:
    """Lists at most ``limit`` orders, newest first; always returns 0."""
    statement = search.page(criteria, limit=limit)
    with connect_at_replica(database_url, replica_url) as connection:
        orders = fetch_all(connection, statement)
    if as_json:
        show_json([dict(zip(FoundOrder.columns, order, strict=True)) for order in orders])
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
