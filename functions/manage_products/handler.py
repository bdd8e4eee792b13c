"""Adds and changes products, prices, categories, stock, coupons, fees; operators see all of them.

Each change of a product increments its version and emits product.changed in its transaction.  A
change of its stock emits the event too but keeps the version: the version is for concurrent edits
(If-Match), and stock is not edited.  After the commit the cached lists are invalidated.  Each write
has an entry in the audit log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Literal

from events.catalog import ProductChanged
from functions.manage_products import groups
from functions.manage_products.coupon_routes import add_coupon as add_coupon
from functions.manage_products.coupon_routes import change_coupon as change_coupon
from functions.manage_products.coupon_routes import end_coupon as end_coupon
from functions.manage_products.coupon_routes import list_coupons as list_coupons
from functions.manage_products.coupon_routes import show_coupon as show_coupon
from functions.manage_products.fee_routes import add_shipping_fee as add_shipping_fee
from functions.manage_products.fee_routes import list_shipping_fees as list_shipping_fees
from functions.manage_products.fee_routes import show_shipping_fee as show_shipping_fee
from shop import audit_log, catalog, inventory, price_schedules
from shop.audit_log import Action, actor_of
from shop.messaging.outbox import emit
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import (
    check_if_match,
    is_known,
    precondition_failed,
    require_if_match,
    strong_tags,
)
from shop.primitives.ids import parse_product_id, parse_uuid
from shop.primitives.languages import Phrase
from shop.primitives.messages import Request, Response
from shop.primitives.paging import next_page
from shop.primitives.price_lines import Vat
from shop.primitives.statuses import PriceScheduleState, StockMove

if TYPE_CHECKING:
    from datetime import datetime

    from functions.manage_products.schema import (
        Image,
        ListChanges,
        ListGroups,
        ListProducts,
        NewCategory,
        NewPriceSchedule,
        NewProduct,
        NewProductGroup,
        ProductChange,
        ProductGroupChange,
        StockChange,
        Translation,
    )
    from shop.adapters.db import Transaction
    from shop.adapters.statements import Row, Statement
    from shop.catalog import Member, Membership, Product
    from shop.inventory import Move
    from shop.price_schedules import Obstacle, PriceChange, PriceSchedule
    from shop.runtime.request_context import RequestContext


def add_product(request: Request[NewProduct, None], context: RequestContext) -> Response:
    """201 with the product and its Location; 422 for an unknown category or another currency.

    Four round trips, with BEGIN and COMMIT: stock and event need the id of the inserted product.
    """
    tx = context.tx
    body = request.body
    currency = body.currency or context.settings.currency
    if currency != context.settings.currency:
        raise ClientError(
            422,
            "INVALID",
            Phrase("this shop sells in {currency}", currency=context.settings.currency),
        )
    add = catalog.add_product(
        name=body.name,
        description=body.description,
        category=body.category,
        price_minor=body.price,
        currency=currency,
        flash_sale=body.flash_sale,
        images=_images(body.images),
        translations=_translations(body.translations, context),
    )
    added = tx.fetch_one(add)
    if added is None:
        raise _why_not_added(tx, currency)
    _, now, _, _ = tx.pipeline(
        inventory.create_stock(added.product_id, body.stock_quantity),
        catalog.read_product(added.product_id),
        _announcement(tx, added.product_id, added.version),
        audit_log.record(
            actor_of(request),
            Action.PRODUCT_ADDED,
            added.product_id,
            after=body.model_dump(by_alias=True),
        ),
    )
    _invalidate_lists_after_commit(context)
    location = {"location": f"/products/{added.product_id}"}
    return _response(now[0], status=201, headers=location)


def change_product(request: Request[ProductChange, None], context: RequestContext) -> Response:
    """200 with the product; 428 without If-Match, 412 when it does not name the present version.

    Only the version in an entity tag is compared: stock may change between reading and changing.
    404, 412, 409 PRICE_IS_SCHEDULED and 422 are decided in this order.  Four round trips, with
    BEGIN and COMMIT, and two more for a change of its group, which is decided after 412: 422 for an
    unknown group or other options than the group's, 409 OPTIONS_TAKEN or GROUP_FULL.
    """
    tx = context.tx
    product_id = _product_id(request.path)
    versions = _accepted_versions(request.headers.get("if-match"))
    membership = _new_membership(request, tx, product_id, versions)
    locked, changed, now = tx.pipeline(
        catalog.lock_product(product_id),
        catalog.change_product(
            product_id, _change(request.body, membership, context), versions=versions
        ),
        catalog.read_product(product_id),
    )
    if not now:
        raise not_found("the product")
    if not changed:
        raise _why_unchanged(now[0], request.body, versions)
    if is_known(request.headers.get("if-none-match"), catalog.etag_of(locked[0])):
        raise precondition_failed("If-None-Match names the present state of the product")
    after = request.body.model_dump(by_alias=True, exclude_unset=True)
    tx.pipeline(
        _announcement(tx, product_id, changed[0].version),
        audit_log.record(
            actor_of(request),
            Action.PRODUCT_CHANGED,
            product_id,
            before={name: _representation(locked[0])[name] for name in after},
            after=after,
        ),
    )
    _invalidate_lists_after_commit(context)
    return _response(now[0])


def list_all_products(request: Request[None, ListProducts], context: RequestContext) -> Response:
    """200 with a page of products, for sale or withdrawn, newest first."""
    query = request.query
    active = None if query.active is None else query.active == "true"
    rows = context.tx.fetch_all(
        catalog.all_products(
            active=active, name=query.name, before=query.cursor, limit=query.limit + 1
        )
    )
    page = rows[: query.limit]
    body = [_representation(product) for product in page]
    if len(rows) <= query.limit:
        return Response(200, body)
    more = {
        "active": query.active,
        "name": query.name,
        "limit": query.limit,
        "cursor": page[-1].product_id,
    }
    return Response(200, body, next_page("/admin/products", more))


def show_any_product(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the product, for sale or withdrawn, and its ETag; 304 to one who has it."""
    product = context.tx.fetch_one(catalog.read_product(_product_id(request.path)))
    if product is None:
        raise not_found("the product")
    etag = catalog.etag_of(product)
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(304, None, {"etag": etag})
    return _response(product)


def change_stock(request: Request[StockChange, None], context: RequestContext) -> Response:
    """200 with the product and its new stock; 404 when there is none, 422 above the maximum.

    409 STOCK_RESERVED, which says how many are available, when more would be taken than that.  Four
    round trips, with BEGIN and COMMIT.
    """
    tx = context.tx
    product_id = _product_id(request.path)
    quantity, reason = request.body.quantity, request.body.reason
    adjusted, now = tx.pipeline(
        inventory.adjust(product_id, quantity, reason), catalog.read_product(product_id)
    )
    if not now:
        raise not_found("the product")
    if not adjusted:
        raise _why_not_adjusted(quantity, now[0].available)
    tx.pipeline(
        _announcement(tx, product_id, now[0].version),
        _record_of_adjustment(request, product_id, now[0].available),
    )
    _invalidate_lists_after_commit(context)
    return _response(now[0])


def list_stock_moves(request: Request[None, ListChanges], context: RequestContext) -> Response:
    """200 with the stock and a page of its changes, newest first; 404 without the product."""
    query, product_id = request.query, _product_id(request.path)
    stock, rows = context.tx.pipeline(
        inventory.read_stock(product_id),
        inventory.moves(product_id, before=query.cursor, limit=query.limit + 1),
    )
    if not stock:
        raise not_found("the product")
    page = rows[: query.limit]
    body = {
        "onHand": stock[0].on_hand,
        "reserved": stock[0].reserved,
        "moves": [_represent_move(move) for move in page],
    }
    if len(rows) <= query.limit:
        return Response(200, body)
    more = {"limit": query.limit, "cursor": page[-1].seq}
    return Response(200, body, next_page(f"/admin/products/{product_id}/stock-moves", more))


def list_prices(request: Request[None, ListChanges], context: RequestContext) -> Response:
    """200 with the price, its open schedules and a page of its history; 404 without the product."""
    query, product_id = request.query, _product_id(request.path)
    product, schedules, rows = context.tx.pipeline(
        catalog.read_product(product_id),
        price_schedules.open_schedules(product_id),
        price_schedules.changes(product_id, before=query.cursor, limit=query.limit + 1),
    )
    if not product:
        raise not_found("the product")
    page = rows[: query.limit]
    body = {
        "price": product[0].price_minor,
        "currency": product[0].currency,
        "schedules": [_represent_schedule(schedule) for schedule in schedules],
        "changes": [_represent_change(change) for change in page],
    }
    if len(rows) <= query.limit:
        return Response(200, body)
    more = {"limit": query.limit, "cursor": page[-1].seq}
    return Response(200, body, next_page(f"/admin/products/{product_id}/prices", more))


def schedule_price(request: Request[NewPriceSchedule, None], context: RequestContext) -> Response:
    """201 with the schedule; 409 PRICE_SCHEDULE_OVERLAPS names the one that is in the way.

    422 for a time that is over, 409 TOO_MANY_PRICE_SCHEDULES beyond 100 open ones.  Four round
    trips, with BEGIN and COMMIT.
    """
    tx, actor, body = context.tx, actor_of(request), request.body
    product_id = _product_id(request.path)
    assert actor.account_id is not None, "the route requires an account"
    plan = price_schedules.plan(
        product_id,
        price_minor=body.price,
        starts_at=body.starts_at,
        ends_at=body.ends_at,
        created_by=actor.account_id,
    )
    obstacle = price_schedules.obstacle(product_id, starts_at=body.starts_at, ends_at=body.ends_at)
    locked, obstacles, planned = tx.pipeline(catalog.lock_product(product_id), obstacle, plan)
    if not locked:
        raise not_found("the product")
    if not planned:
        raise _why_not_planned(obstacles[0])
    schedule = _represent_schedule(planned[0])
    action = Action.PRODUCT_PRICE_SCHEDULED
    tx.execute(audit_log.record(actor, action, product_id, after=schedule))
    return Response(201, schedule)


def cancel_price_schedule(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the cancelled schedule, whose price is set back if it was active; also repeatedly.

    404 when the product has no such schedule, 409 PRICE_SCHEDULE_ENDED when it is over.
    """
    tx, product_id = context.tx, _product_id(request.path)
    schedule_id = parse_uuid(request.path["scheduleId"])
    if schedule_id is None:
        raise not_found("the price schedule")
    locked, found = tx.pipeline(
        catalog.lock_product(product_id), price_schedules.read(schedule_id, product_id)
    )
    if not locked or not found:
        raise not_found("the price schedule")
    schedule = found[0]
    if schedule.state == PriceScheduleState.CANCELLED:
        return Response(200, _represent_schedule(schedule))
    if schedule.state not in (PriceScheduleState.PLANNED, PriceScheduleState.ACTIVE):
        raise ClientError(409, "PRICE_SCHEDULE_ENDED", "the time of this price is over")
    cancelled = price_schedules.cancel(tx, locked[0], schedule)
    tx.execute(
        audit_log.record(
            actor_of(request),
            Action.PRODUCT_PRICE_SCHEDULE_CANCELLED,
            product_id,
            before=_represent_schedule(schedule),
            after=_represent_schedule(cancelled),
        )
    )
    _invalidate_lists_after_commit(context)
    return Response(200, _represent_schedule(cancelled))


def add_group(request: Request[NewProductGroup, None], context: RequestContext) -> Response:
    """201 with the group, in which no product is yet, and its Location."""
    tx, body = context.tx, request.body
    group = tx.fetch_one(catalog.add_group(body.name, body.options))
    assert group is not None, "an insert without a condition returns its row"
    after = body.model_dump(by_alias=True)
    tx.execute(
        audit_log.record(actor_of(request), Action.PRODUCT_GROUP_ADDED, group.group_id, after=after)
    )
    location = f"/admin/product-groups/{group.group_id}"
    headers = {"location": location, "etag": groups.etag_of(group)}
    return Response(201, groups.represent_with_members(group, []), headers)


def list_groups(request: Request[None, ListGroups], context: RequestContext) -> Response:
    """200 with a page of groups, newest first."""
    query = request.query
    rows = context.tx.fetch_all(catalog.groups(before=query.cursor, limit=query.limit + 1))
    page = rows[: query.limit]
    body = [groups.represent(group) for group in page]
    if len(rows) <= query.limit:
        return Response(200, body)
    more = {"limit": query.limit, "cursor": page[-1].group_id}
    return Response(200, body, next_page("/admin/product-groups", more))


def show_group(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the group, its members and its ETag; 304 to one who has it."""
    group_id = _group_id(request.path)
    found, members = context.tx.pipeline(catalog.read_group(group_id), catalog.members(group_id))
    if not found:
        raise not_found("the product group")
    headers = {"etag": groups.etag_of(found[0])}
    if is_known(request.headers.get("if-none-match"), headers["etag"]):
        return Response(304, None, headers)
    return Response(200, groups.represent_with_members(found[0], members), headers)


def change_group(request: Request[ProductGroupChange, None], context: RequestContext) -> Response:
    """200 with the group; 428 without If-Match, 412 when it does not name the present version.

    409 GROUP_HAS_PRODUCTS for another number of options while products are in it.  The pages of its
    members change with it, so each of them is announced.
    """
    tx, body = context.tx, request.body
    if_match = require_if_match(request.headers.get("if-match"), "product group")
    before, members = groups.lock(tx, _group_id(request.path))
    check_if_match(if_match, groups.etag_of(before))
    if members and "options" in body.model_fields_set:
        _check_number(body.options, before.options)
    change = catalog.change_group(before.group_id, name=body.name, options=body.options)
    changed = tx.fetch_one(change)
    assert changed is not None, "the group is locked"
    after = body.model_dump(by_alias=True, exclude_unset=True)
    tx.pipeline(
        audit_log.record(
            actor_of(request),
            Action.PRODUCT_GROUP_CHANGED,
            before.group_id,
            before={name: groups.represent(before)[name] for name in after},
            after=after,
        ),
        *_announcements(tx, members),
    )
    _invalidate_lists_after_commit(context)
    headers = {"etag": groups.etag_of(changed)}
    return Response(200, groups.represent_with_members(changed, members), headers)


def add_category(request: Request[NewCategory, None], context: RequestContext) -> Response:
    """201 with the category; 409 when there is one of that name."""
    body, actor = request.body, actor_of(request)
    vat = Vat(basis_points=body.vat_percent * 100, is_included=body.vat_included)
    category = body.model_dump(by_alias=True)
    added, _ = context.tx.pipeline(
        catalog.add_category(body.name, vat),
        audit_log.record(actor, Action.CATEGORY_ADDED, body.name, after=category),
    )
    if not added:
        raise ClientError(409, "CONFLICT", "there is a category of this name")
    return Response(201, category)


def _announcement(tx: Transaction, product_id: int, version: int) -> Statement[Row]:
    statement, _ = emit(tx, ProductChanged(product_id=product_id, product_version=version))
    return statement


def _announcements(tx: Transaction, members: Sequence[Member]) -> list[Statement[Row]]:
    if not members:
        return []
    events = [
        ProductChanged(product_id=member.product_id, product_version=member.version)
        for member in members
    ]
    return [emit(tx, *events)[0]]


def _check_number(options: list[str], before: list[str]) -> None:
    if len(options) != len(before):
        message = "the number of options cannot change while products are in the group"
        raise ClientError(409, "GROUP_HAS_PRODUCTS", message)


def _new_membership(
    request: Request[ProductChange, None],
    tx: Transaction,
    product_id: int,
    versions: list[int] | None,
) -> Membership | None:
    """The membership that the request asks for; None when it leaves it as it is."""
    if "group" not in request.body.model_fields_set:
        return None
    product = tx.fetch_one(catalog.lock_product(product_id))
    if product is None:
        raise not_found("the product")
    _check_version(product, versions)
    return groups.membership_of(tx, product_id, request.body.group)


def _change(
    body: ProductChange, membership: Membership | None, context: RequestContext
) -> catalog.Change:
    has_translations = "translations" in body.model_fields_set
    return catalog.Change(
        name=body.name,
        description=body.description,
        category=body.category,
        price_minor=body.price,
        active=body.active,
        flash_sale=body.flash_sale,
        images=_images(body.images) if "images" in body.model_fields_set else None,
        translations=_translations(body.translations, context) if has_translations else None,
        membership=membership,
    )


def _images(images: list[Image]) -> list[dict[str, str]]:
    return [{"url": image.url, "alt": image.alt} for image in images]


def _translations(
    translations: Mapping[Literal["ko", "en"], Translation], context: RequestContext
) -> dict[str, object]:
    """What is stored; 422 for the shop's own language, in which a product's own texts are."""
    own = context.settings.shop_language
    if own in translations:
        message = Phrase(
            "translations must not have {language}: name and description are in it", language=own
        )
        raise ClientError(422, "INVALID", message)
    return {
        language: translation.model_dump(by_alias=True, exclude_unset=True)
        for language, translation in translations.items()
    }


def _why_not_adjusted(quantity: int, available: int) -> ClientError:
    if quantity > 0:
        return ClientError(422, "INVALID", "the shelf cannot hold that many")
    message = Phrase(
        "{available} are available: the others are reserved for orders", available=available
    )
    return ClientError(409, "STOCK_RESERVED", message, extra={"available": available})


def _record_of_adjustment(
    request: Request[StockChange, None], product_id: int, available: int
) -> Statement[Row]:
    quantity, reason = request.body.quantity, request.body.reason
    if reason == StockMove.RESTOCK:
        action, after = Action.PRODUCT_RESTOCKED, {"quantity": quantity}
        return audit_log.record(actor_of(request), action, product_id, after=after)
    return audit_log.record(
        actor_of(request),
        Action.PRODUCT_STOCK_ADJUSTED,
        product_id,
        before={"stockQuantity": available - quantity},
        after={"stockQuantity": available, "quantity": quantity, "reason": reason},
    )


def _why_not_added(tx: Transaction, currency: str) -> ClientError:
    """A shop has one currency: sums over two would be wrong, so a new setting changes nothing."""
    priced = tx.fetch_one(catalog.currency_of_products())
    if priced is not None and priced.currency != currency:
        return ClientError(
            422,
            "INVALID",
            Phrase("this shop's products are priced in {currency}", currency=priced.currency),
        )
    return _unknown_category()


def _product_id(path: Mapping[str, str]) -> int:
    product_id = parse_product_id(path["productId"])
    if product_id is None:
        raise not_found("the product")
    return product_id


def _group_id(path: Mapping[str, str]) -> int:
    group_id = parse_product_id(path["groupId"])
    if group_id is None:
        raise not_found("the product group")
    return group_id


def _accepted_versions(if_match: str | None) -> list[int] | None:
    tags = strong_tags(require_if_match(if_match, "product"))
    if tags is None:
        return None
    return [version for tag in tags if (version := catalog.version_of_tag(tag)) is not None]


def _why_unchanged(
    product: Product, change: ProductChange, versions: list[int] | None
) -> ClientError:
    _check_version(product, versions)
    if "price" in change.model_fields_set and product.price_schedule_id is not None:
        message = "a schedule sets the price: cancel it first, or wait until its time is over"
        extra = {"scheduleId": str(product.price_schedule_id)}
        return ClientError(409, "PRICE_IS_SCHEDULED", message, extra=extra)
    return _unknown_category()


def _check_version(product: Product, versions: list[int] | None) -> None:
    if versions is not None and product.version not in versions:
        raise precondition_failed(
            "If-Match names no strong tag of the present version; read the product again"
        )


def _why_not_planned(obstacle: Obstacle) -> ClientError:
    if obstacle.is_over:
        return ClientError(422, "INVALID", "endsAt must be in the future")
    if obstacle.overlapping is not None:
        message = "the product has another scheduled price in this time"
        extra = {"scheduleId": str(obstacle.overlapping)}
        return ClientError(409, "PRICE_SCHEDULE_OVERLAPS", message, extra=extra)
    message = Phrase(
        "a product has at most {count} open price schedules", count=price_schedules.OPEN_MAX
    )
    return ClientError(409, "TOO_MANY_PRICE_SCHEDULES", message)


def _unknown_category() -> ClientError:
    return ClientError(422, "UNKNOWN_CATEGORY", "there is no such category")


def _invalidate_lists_after_commit(context: RequestContext) -> None:
    context.after_commit(lambda: catalog.invalidate_lists(context.services.cache))


def _response(
    product: Product, *, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    etag = catalog.etag_of(product)
    return Response(status, _representation(product), {**(headers or {}), "etag": etag})


def _representation(product: Product) -> dict[str, object]:
    return {
        "id": product.product_id,
        "name": product.name,
        "description": product.description,
        "category": product.category,
        "price": product.price_minor,
        "currency": product.currency,
        "stockQuantity": product.available,
        "active": product.active,
        "flashSale": product.flash_sale,
        "images": product.images,
        "translations": product.translations,
        "group": product.group,
    }


def _represent_move(move: Move) -> dict[str, object]:
    return {
        "seq": move.seq,
        "kind": move.kind,
        "quantity": move.qty,
        "orderId": None if move.order_id is None else str(move.order_id),
        "movedAt": _time(move.moved_at),
    }


def _represent_schedule(schedule: PriceSchedule) -> dict[str, object]:
    return {
        "id": str(schedule.schedule_id),
        "price": schedule.price_minor,
        "regularPrice": schedule.regular_minor,
        "startsAt": _time(schedule.starts_at),
        "endsAt": _time(schedule.ends_at),
        "state": schedule.state,
        "createdBy": schedule.created_by,
    }


def _represent_change(change: PriceChange) -> dict[str, object]:
    return {
        "seq": change.seq,
        "from": change.from_minor,
        "to": change.to_minor,
        "changedAt": _time(change.changed_at),
        "changedBy": change.changed_by,
        "scheduleId": None if change.schedule_id is None else str(change.schedule_id),
    }


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()
