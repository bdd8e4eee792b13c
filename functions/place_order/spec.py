"""Place orders, and pay again after a decline."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="place_order",
    summary="Place an order: reserve its stock, fix its prices; never wait for the payment.",
    database_role="ordering",
    cold_start_budget=1.75,
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
            summary="Place an order of one product or of several lines.",
            body="PlaceOrder",
            response="Order",
            status=201,
            error_statuses=(403, 409, 422, 429),
            headers=("Location",),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="POST",
            path="/orders/from-cart",
            handler="place_order_from_cart",
            auth="customer",
            group="orders",
            summary="Place one order of all lines of the cart, and empty the cart.",
            body="PlaceOrderFromCart",
            body_is_optional=True,
            response="Order",
            status=201,
            error_statuses=(400, 403, 409, 422, 429),
            headers=("Location",),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="POST",
            path="/orders/{orderId}/payments",
            handler="pay_again",
            auth="customer",
            group="orders",
            summary="Try the payment again after a decline.",
            body="PayAgain",
            response="Order",
            status=201,
            error_statuses=(404, 409, 422),
            headers=("Location",),
            idempotent=True,
            writes=True,
        ),
    ),
)
