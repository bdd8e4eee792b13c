"""Staff, support and finance find the orders of all customers."""

from shop.primitives.spec import FunctionSpec, Route, Scale

# No route reads at a replica: the same people cancel and refund orders, and look at them next.
SPEC = FunctionSpec(
    name="manage_orders",
    summary="Let staff, support and finance find the orders of all customers.",
    database_role="back_office",
    cold_start_budget=1.75,
    routes=(
        Route(
            method="GET",
            path="/admin/orders",
            handler="search_orders",
            auth="operator",
            summary="Orders by id, customer, product, status, days and total, newest first.",
            query="SearchOrders",
            response="FoundOrders",
            headers=("Link",),
            group="admin",
        ),
    ),
    needs=("postgres",),
    scale=Scale(concurrency=2, max_scale=2),
    timeout_seconds=10,
)
