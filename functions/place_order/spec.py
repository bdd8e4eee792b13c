"""Placing orders, and paying again after a decline."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="place_order",
    summary="Place an order: hold the stock, remember the price, never wait for money",
    database_role="ordering",
    needs=("postgres",),
    emits=("order.placed", "payment.retry-requested", "order.cancelling", "order.cancelled"),
    scale=Scale(concurrency=8, max_scale=10),
    routes=(
        Route(
            method="POST",
            path="/orders",
            handler="place_order",
            auth="customer",
            group="orders",
            summary="Place an order of one product or of many lines",
            body="PlaceOrder",
            response="Order",
            status=201,
            error_statuses=(409, 422, 429),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="POST",
            path="/orders/from-cart",
            handler="place_order_from_cart",
            auth="customer",
            group="orders",
            summary="Place one order of everything in the cart, and empty it",
            body="PlaceOrderFromCart",
            response="Order",
            status=201,
            error_statuses=(400, 409, 422, 429),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="POST",
            path="/orders/{orderId}/payments",
            handler="pay_again",
            auth="customer",
            group="orders",
            summary="Try to pay once more after a decline",
            body="PayAgain",
            response="Order",
            status=201,
            error_statuses=(404, 409, 422),
            idempotent=True,
            writes=True,
        ),
    ),
)
