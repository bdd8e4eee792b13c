"""Read the caller's orders."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="read_orders",
    summary="Read the caller's orders, wait for a payment, and show an order's timeline.",
    database_role="ordering",
    cold_start_budget=1.35,
    needs=("postgres",),
    scale=Scale(concurrency=8, waiting_max=8, max_scale=10),
    routes=(
        Route(
            method="GET",
            path="/orders/me",
            handler="list_my_orders",
            auth="customer",
            group="orders",
            summary="A page of the caller's orders, newest first.",
            query="ListOrders",
            response="Orders",
            error_statuses=(400,),
            headers=("Link",),
        ),
        Route(
            method="GET",
            path="/orders/{orderId}",
            handler="read_order",
            auth="customer",
            group="orders",
            summary="One order; with Prefer: wait=N, as soon as it is no longer PENDING.",
            response="OrderWithAddress",
            error_statuses=(400, 404),
            headers=("Preference-Applied",),
            transaction=False,
        ),
        Route(
            method="GET",
            path="/orders/{orderId}/timeline",
            handler="read_timeline",
            auth="customer",
            group="orders",
            summary="Every status change of an order, its payments, refunds and reservations.",
            response="Timeline",
            error_statuses=(404,),
        ),
        Route(
            method="GET",
            path="/orders/{orderId}/receipt",
            handler="show_receipt",
            auth="customer",
            group="orders",
            summary="The receipt of the caller's own order, as JSON or as a page to print.",
            response="Receipt",
            error_statuses=(404,),
            headers=("Content-Language", "Content-Security-Policy", "Referrer-Policy", "Vary"),
            is_also_page=True,
        ),
    ),
)
