"""Lists, searches and shows products.

A cached list takes no round trip to PostgreSQL; one that is not cached takes three (BEGIN, query,
COMMIT), like every other route of this function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from functions.list_products.page_cache import Page, PageCache, make_page
from functions.list_products.paging import PageRequest, link_to_next, page_request_of
from shop import catalog
from shop.catalog import Position
from shop.primitives.errors import not_found
from shop.primitives.etags import check_if_match, is_known, tag_of_bytes
from shop.primitives.ids import parse_product_id
from shop.primitives.languages import preferred_language
from shop.primitives.messages import Event, Request, Response

if TYPE_CHECKING:
    from functions.list_products.schema import ListProducts
    from shop.adapters.db import Transaction
    from shop.adapters.statements import Statement
    from shop.catalog import ProductForSale, ProductPage
    from shop.runtime.event_context import EventContext
    from shop.runtime.request_context import RequestContext

# A copy may be stored, but must be revalidated, mostly by an empty 304.
REVALIDATE = "public, no-cache"
# A proxy that compresses a response may weaken its tag, with which no product can be changed.
UNCHANGED_BY_PROXIES = f"{REVALIDATE}, no-transform"

LISTS = PageCache()


def list_products(request: Request[None, ListProducts], context: RequestContext) -> Response:
    """200 with one page of products for sale, or 304; 400 for a bad cursor, 422 for bad prices.

    Names, descriptions and alternative texts are in the language that ``Accept-Language`` prefers,
    where a product has them in it.
    """
    page_request = page_request_of(request.query)
    language = _other_language(request, context)

    def read() -> Page:
        with context.transaction() as tx:
            return _read_page(tx, page_request, language)

    digest = page_request.digest + (f".{language}" if language else "")
    page = LISTS.find_or_make(context.services.cache, digest, read)
    headers = _language_headers(language, context)
    if page.link:
        headers["link"] = page.link
    return _conditional(request.headers, page.body, page.etag, headers)


def show_product(request: Request[None, None], context: RequestContext) -> Response:
    """200 with one product for sale, or 304; 404 for a missing, withdrawn or invalid id.

    In the language that ``Accept-Language`` prefers, if the product has texts in it.
    """
    product_id = parse_product_id(request.path["productId"])
    if product_id is None:
        raise not_found("the product")
    row, language = _read_product(context, product_id, _other_language(request, context))
    if row is None:
        raise not_found("the product")
    etag = catalog.etag_of(row, language=language)
    headers = {"cache-control": UNCHANGED_BY_PROXIES, **_language_headers(language, context)}
    return _conditional(request.headers, row.body.encode(), etag, headers)


def list_categories(request: Request[None, None], context: RequestContext) -> Response:
    """200 with every category by name (the first 1,000), or 304."""
    row = context.tx.fetch_one(catalog.categories())
    assert row is not None, "an aggregate always returns a row"
    body = row.body.encode()
    return _conditional(request.headers, body, tag_of_bytes(body), {})


def invalidate_lists(_event: Event, context: EventContext) -> None:
    """Invalidates every cached list, in case the changing function crashed after its commit."""
    catalog.invalidate_lists(context.services.cache)


# Any: the query of a request, which is not read
def _other_language(request: Request[None, Any], context: RequestContext) -> str | None:
    """The language that the request prefers; None for the catalogue's own."""
    own = context.settings.shop_language
    preferred = preferred_language(request.headers.get("accept-language"), default=own)
    return None if preferred == own else preferred


def _language_headers(language: str | None, context: RequestContext) -> dict[str, str]:
    return {
        "content-language": language or context.settings.shop_language,
        "vary": "Accept-Language",
    }


def _read_product(
    context: RequestContext, product_id: int, language: str | None
) -> tuple[ProductForSale | None, str | None]:
    """The product, and the language of its texts; None for its own."""
    if language is None:
        return context.tx.fetch_one(catalog.product_for_sale(product_id)), None
    # imported here: most requests prefer the catalogue's own language
    from shop import translated_catalog

    row = context.tx.fetch_one(translated_catalog.product_for_sale(product_id, language))
    return row, language if row is not None and row.is_translated else None


def _read_page(tx: Transaction, page_request: PageRequest, language: str | None) -> Page:
    row = tx.fetch_one(_page(page_request, language))
    assert row is not None, "an aggregate always returns a row"
    if not row.has_more:
        return make_page(row.body, "")
    key = {"id": row.last_id, "price": row.last_price, "name": row.last_name}
    last_key = key[page_request.sort.lstrip("-")]
    assert row.last_id is not None and last_key is not None, "a full page has a last row"
    last = Position(last_key, row.last_id)
    return make_page(row.body, link_to_next(page_request, last))


def _page(page_request: PageRequest, language: str | None) -> Statement[ProductPage]:
    sort, filters = page_request.sort, page_request.filters
    after, limit = page_request.after, page_request.limit
    if language is None:
        return catalog.page(sort=sort, filters=filters, after=after, limit=limit)
    # imported here: most requests prefer the catalogue's own language
    from shop import translated_catalog

    return translated_catalog.page(
        sort=sort, filters=filters, after=after, limit=limit, language=language
    )


def _conditional(
    request_headers: Mapping[str, str], body: bytes, etag: str, headers: dict[str, str]
) -> Response:
    check_if_match(request_headers.get("if-match"), etag)
    headers = {"cache-control": REVALIDATE, **headers, "etag": etag}
    if is_known(request_headers.get("if-none-match"), etag):
        return Response(304, None, headers)
    return Response(200, body, headers)
