"""Staff change the catalogue.

Each change bumps the product's version and announces product.changed in its transaction; a restock
announces it too but leaves the version alone, since a version guards what staff edit (If-Match) and
stock is not edited but counted.  After the commit the cached lists are made stale at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from events.catalog import ProductChanged
from shop import catalog, inventory
from shop.messaging.outbox import emit
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import strong_tags
from shop.primitives.ids import parse_product_id
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.manage_products.schema import (
        NewCategory,
        NewProduct,
        ProductChange,
        Restock,
    )
    from shop.runtime.request_context import RequestContext


def add_product(request: Request[NewProduct, None], context: RequestContext) -> Response:
    """201 with the product and its Location; 422 for an unknown category or a foreign currency.

    Two round trips: the product's id is needed for its stock and its event.
    """
    tx = context.tx
    body = request.body
    currency = body.currency or context.settings.currency
    if currency != context.settings.currency:
        raise ClientError(422, "INVALID", f"this shop sells in {context.settings.currency}")
    statement, parameters = catalog.add_product(
        name=body.name,
        description=body.description,
        category=body.category,
        price_minor=body.price,
        currency=currency,
    )
    added = tx.one(statement, **parameters)
    if added is None:
        raise _unknown_category()
    announce, _ = emit(tx, ProductChanged(product_id=added.product_id, product_version=1))
    *_, now = tx.together(
        inventory.open_stock(added.product_id, body.stock_quantity),
        announce,
        catalog.product_now(added.product_id),
    )
    _forget_lists_after_commit(context)
    location = {"location": f"/products/{added.product_id}"}
    return _answer(now[0], status=201, headers=location)


def change_product(request: Request[ProductChange, None], context: RequestContext) -> Response:
    """200 with the product; 428 without If-Match, 412 when it names no present version.

    Of an entity tag only the version counts here: stock may move between reading and changing.
    404, 412 and 422 are decided in this order.  Two round trips.
    """
    tx = context.tx
    product_id = _product_id(request.path)
    versions = _versions_wanted(request.headers.get("if-match"))
    change = catalog.Change(
        name=request.body.name,
        description=request.body.description,
        category=request.body.category,
        price_minor=request.body.price,
        active=request.body.active,
    )
    changed, now = tx.together(
        catalog.change_product(product_id, change, versions=versions),
        catalog.product_now(product_id),
    )
    if not now:
        raise not_found("the product")
    if not changed:
        raise _why_unchanged(now[0].version, versions)
    announce, _ = emit(
        tx, ProductChanged(product_id=product_id, product_version=changed[0].version)
    )
    tx.together(announce)
    _forget_lists_after_commit(context)
    return _answer(now[0])


def restock(request: Request[Restock, None], context: RequestContext) -> Response:
    """200 with the product and its new stock; 404 when there is none.  Two round trips."""
    tx = context.tx
    product_id = _product_id(request.path)
    counted, now = tx.together(
        inventory.restock(product_id, request.body.quantity),
        catalog.product_now(product_id),
    )
    if not now:
        raise not_found("the product")
    if not counted:
        raise ClientError(422, "INVALID", "the shelf cannot hold that many")
    announce, _ = emit(tx, ProductChanged(product_id=product_id, product_version=now[0].version))
    tx.together(announce)
    _forget_lists_after_commit(context)
    return _answer(now[0])


def add_category(request: Request[NewCategory, None], context: RequestContext) -> Response:
    """201 with the category; 409 when there is one of that name."""
    statement, parameters = catalog.add_category(request.body.name)
    if context.tx.one(statement, **parameters) is None:
        raise ClientError(409, "CONFLICT", "there is a category of this name")
    return Response(201, {"name": request.body.name})


def _product_id(path: Mapping[str, str]) -> int:
    product_id = parse_product_id(path["productId"])
    if product_id is None:
        raise not_found("the product")
    return product_id


def _versions_wanted(if_match: str | None) -> list[int] | None:
    if if_match is None:
        raise ClientError(
            428,
            "PRECONDITION_REQUIRED",
            "If-Match must name the ETag of the product you read",
        )
    tags = strong_tags(if_match)
    if tags is None:
        return None
    return [version for tag in tags if (version := catalog.version_of_tag(tag)) is not None]


def _why_unchanged(version: int, versions: list[int] | None) -> ClientError:
    if versions is not None and version not in versions:
        return ClientError(
            412,
            "PRECONDITION_FAILED",
            "the product was changed since you read it; read it again",
        )
    return _unknown_category()


def _unknown_category() -> ClientError:
    return ClientError(422, "UNKNOWN_CATEGORY", "there is no such category")


def _forget_lists_after_commit(context: RequestContext) -> None:
    context.after_commit(lambda: catalog.forget_lists(context.services.cache))


def _answer(now: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    product = {
        "id": now.product_id,
        "name": now.name,
        "description": now.description,
        "category": now.category,
        "price": now.price_minor,
        "currency": now.currency,
        "stockQuantity": now.available,
        "active": now.active,
    }
    etag = catalog.etag_of(version=now.version, available=now.available)
    return Response(status, product, {**(headers or {}), "etag": etag})
