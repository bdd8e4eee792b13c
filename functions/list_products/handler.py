"""Show what the shop sells.  A list: no round trip to PostgreSQL when it is known, else one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from functions.list_products.page_cache import Page, PageCache, make_page
from functions.list_products.paging import PageRequest, link_to_next, page_request_of
from shop import catalog
from shop.catalog import Position
from shop.primitives.errors import not_found
from shop.primitives.etags import is_known, tag_of_bytes
from shop.primitives.ids import parse_product_id
from shop.primitives.messages import Event, Request, Response

if TYPE_CHECKING:
    from functions.list_products.schema import ListProducts
    from shop.adapters.db import Transaction
    from shop.runtime.event_context import EventContext
    from shop.runtime.request_context import RequestContext

# a copy may be kept, but never used without asking: the answer to that is mostly an empty 304
REVALIDATE = "public, no-cache"

LISTS = PageCache()


def list_products(request: Request[None, ListProducts], context: RequestContext) -> Response:
    """One page of products for sale, or 304 when the caller has it; 400 and 422 as paging says."""
    question = page_request_of(request.query)

    def read() -> Page:
        with context.transaction() as tx:
            return _read_page(tx, question)

    page = LISTS.find_or_make(context.services.cache, question.digest, read)
    headers = {"link": page.link} if page.link else {}
    return _conditional(request.headers, page.body, page.etag, headers)


def show_product(request: Request[None, None], context: RequestContext) -> Response:
    """One product for sale, or 304; 404 in the same bytes for a missing, withdrawn or odd id."""
    product_id = parse_product_id(request.path["productId"])
    if product_id is None:
        raise not_found("the product")
    row = context.tx.fetch_one(catalog.product_for_sale(product_id))
    if row is None:
        raise not_found("the product")
    etag = catalog.etag_of(version=row.version, available=row.available)
    return _conditional(request.headers, row.body.encode(), etag, {})


def list_categories(request: Request[None, None], context: RequestContext) -> Response:
    """Every category by name (the first 1,000), or 304."""
    row = context.tx.fetch_one(catalog.categories())
    assert row is not None, "an aggregate always answers"
    body = row.body.encode()
    return _conditional(request.headers, body, tag_of_bytes(body), {})


def forget_lists(_event: Event, context: EventContext) -> None:
    """Makes every cached list stale; the guarantee when the changing function died after commit."""
    catalog.invalidate_lists(context.services.cache)


def _read_page(tx: Transaction, question: PageRequest) -> Page:
    row = tx.fetch_one(
        catalog.page(
            sort=question.sort,
            wanted=question.wanted,
            after=question.after,
            limit=question.limit,
        )
    )
    assert row is not None, "an aggregate always answers"
    if not row.has_more:
        return make_page(row.body, "")
    key = {"id": row.last_id, "price": row.last_price, "name": row.last_name}
    last_key = key[question.sort.lstrip("-")]
    assert row.last_id is not None and last_key is not None, "a full page has a last row"
    last = Position(last_key, row.last_id)
    return make_page(row.body, link_to_next(question, last))


def _conditional(
    request_headers: Mapping[str, str], body: bytes, etag: str, headers: dict[str, str]
) -> Response:
    headers = {**headers, "etag": etag, "cache-control": REVALIDATE}
    if is_known(request_headers.get("if-none-match"), etag):
        return Response(304, None, headers)
    return Response(200, body, headers)
