"""The pages of the shop in a browser."""

from shop.primitives.spec import FunctionSpec, Route, Scale

HEADERS = (
    "Content-Security-Policy",
    "Cross-Origin-Opener-Policy",
    "ETag",
    "Permissions-Policy",
    "Referrer-Policy",
    "Vary",
)


def _page(path: str, handler: str, summary: str) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        auth="public",
        summary=summary,
        other_statuses=(304,),
        error_statuses=(404,),
        media_type="text/html",
        headers=HEADERS,
        static="page",
        transaction=False,
        group="pages",
    )


SPEC = FunctionSpec(
    name="web",
    summary="Serve the storefront and the back office: HTML, scripts, styles and pictures.",
    database_role=None,
    cold_start_budget=0.7,
    routes=(
        _page("/", "show_storefront", "The storefront."),
        _page("/set-password", "show_password_page", "The storefront: a new password, by a link."),
        _page("/verify-email", "show_email_page", "The storefront: verify an address, by a link."),
        _page("/admin", "show_back_office", "The back office."),
        Route(
            method="GET",
            path="/assets/{asset}",
            handler="show_web_asset",
            auth="public",
            summary="A script, a style sheet or a picture of the pages; its name has its digest.",
            other_statuses=(304,),
            error_statuses=(404,),
            media_type="application/octet-stream",
            headers=HEADERS,
            static="file",
            transaction=False,
            group="pages",
        ),
    ),
    scale=Scale(concurrency=8, max_scale=2),
)
