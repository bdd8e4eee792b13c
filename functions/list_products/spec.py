"""The public catalogue."""

from shop.primitives.spec import FunctionSpec, Route, Scale, Subscription

SPEC = FunctionSpec(
    name="list_products",
    summary="List, search and show products; lists are cached and never show an outdated price.",
    database_role="catalog_ro",
    cold_start_budget=1.6,
    routes=(
        Route(
            method="GET",
            path="/products",
            handler="list_products",
            auth="public",
            may_lag=True,
            summary="One page of products as an array; the next page is in the Link header.",
            query="ListProducts",
            response="Products",
            other_statuses=(304,),
            error_statuses=(400, 412, 422),
            headers=("Content-Language", "ETag", "Link"),
            transaction=False,
            group="catalog",
        ),
        Route(
            method="GET",
            path="/products/{productId}",
            handler="show_product",
            auth="public",
            may_lag=True,
            summary="One product for sale, with its entity tag.",
            response="Product",
            other_statuses=(304,),
            error_statuses=(404, 412),
            headers=("Content-Language", "ETag"),
            group="catalog",
        ),
        Route(
            method="GET",
            path="/categories",
            handler="list_categories",
            auth="public",
            may_lag=True,
            summary="Every category, by name.",
            response="Categories",
            other_statuses=(304,),
            error_statuses=(412,),
            headers=("ETag",),
            group="catalog",
        ),
    ),
    subscriptions=(
        Subscription(
            event="product.changed",
            handler="invalidate_lists",
            summary="Invalidate cached lists, in case the changing function crashed before it did.",
        ),
    ),
    needs=("postgres", "redis"),
    scale=Scale(concurrency=8, max_scale=5),
    timeout_seconds=10,
)
