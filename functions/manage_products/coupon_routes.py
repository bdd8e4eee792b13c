"""Coupons, for staff: routes of ``handler.py``.

Only until when and how often in all a coupon may be used is changed: orders are compared with the
rest.  Each write has an entry in the audit log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shop import audit_log, coupons
from shop.audit_log import Action, actor_of
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import is_known, precondition_failed, require_if_match, strong_tags
from shop.primitives.languages import Phrase
from shop.primitives.messages import Request, Response
from shop.primitives.paging import next_page
from shop.primitives.price_lines import Discount
from shop.primitives.statuses import CouponState

if TYPE_CHECKING:
    from functions.manage_products.schema import CouponChange, ListCoupons, NewCoupon
    from shop.adapters.db import Transaction
    from shop.coupons import Coupon
    from shop.runtime.request_context import RequestContext

CODE = re.compile(r"[A-Z0-9][A-Z0-9-]{2,31}")
TAG = re.compile(r"([1-9][0-9]{0,8})\.[0-9]{1,10}")


def add_coupon(request: Request[NewCoupon, None], context: RequestContext) -> Response:
    """201 with the coupon, its Location and ETag; 409 COUPON_EXISTS for a code that was used."""
    tx, body, currency = context.tx, request.body, context.settings.currency
    if body.currency not in (None, currency):
        message = Phrase("this shop sells in {currency}", currency=currency)
        raise ClientError(422, "INVALID", message)
    discount = Discount(
        amount_minor=body.discount_amount,
        basis_points=body.discount_basis_points,
        maximum_minor=body.discount_maximum,
    )
    add = coupons.add(
        code=body.code,
        discount=discount,
        currency=currency,
        goods_min_minor=body.goods_minimum,
        combinable=body.combinable,
        starts_at=body.starts_at,
        ends_at=body.ends_at,
        uses_max=body.uses_maximum,
        uses_per_customer_max=body.uses_per_customer_maximum,
    )
    coupon = tx.fetch_one(add)
    if coupon is None:
        raise _why_not_added(tx, body.code)
    _record(request, tx, Action.COUPON_ADDED, None, coupon)
    headers = {"location": f"/admin/coupons/{coupon.code}", "etag": _etag_of(coupon)}
    return Response(201, _represent(coupon), headers)


def list_coupons(request: Request[None, ListCoupons], context: RequestContext) -> Response:
    """200 with a page of coupons, by code."""
    query = request.query
    rows = context.tx.fetch_all(coupons.coupons(after=query.cursor or "", limit=query.limit + 1))
    page = rows[: query.limit]
    body = [_represent(coupon) for coupon in page]
    if len(rows) <= query.limit:
        return Response(200, body)
    more = {"limit": query.limit, "cursor": page[-1].code}
    return Response(200, body, next_page("/admin/coupons", more))


def show_coupon(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the coupon and its ETag, 304 to one who has it; 404 when there is none."""
    coupon = context.tx.fetch_one(coupons.read(_code(request.path)))
    if coupon is None:
        raise not_found("the coupon")
    etag = _etag_of(coupon)
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(304, None, {"etag": etag})
    return _response(coupon)


def change_coupon(request: Request[CouponChange, None], context: RequestContext) -> Response:
    """200 with the coupon; 428 without If-Match, 412 when it does not name the present version.

    409 COUPON_ENDED, 409 LIMIT_BELOW_USES for a limit below the present number of uses, 422 for an
    end that is not after the start.
    """
    tx, body = context.tx, request.body
    tags = strong_tags(require_if_match(request.headers.get("if-match"), "coupon"))
    before = _locked(tx, request.path)
    if tags is not None and before.version not in map(_version_of, tags):
        raise precondition_failed("If-Match names no strong tag of the present state")
    given = {name: getattr(body, name) for name in body.model_fields_set}
    ends_at = given.get("ends_at", before.ends_at)
    uses_max = given.get("uses_maximum", before.uses_max)
    _check_change(before, ends_at, uses_max)
    change = coupons.change(before.code, ends_at=ends_at, uses_max=uses_max)
    return _response(_changed(request, tx, Action.COUPON_CHANGED, before, tx.fetch_one(change)))


def end_coupon(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the coupon, which no new order can use; also repeatedly."""
    tx = context.tx
    before = _locked(tx, request.path)
    if before.state == CouponState.ENDED:
        return _response(before)
    ended = tx.fetch_one(coupons.end(before.code))
    return _response(_changed(request, tx, Action.COUPON_ENDED, before, ended))


def _why_not_added(tx: Transaction, code: str) -> ClientError:
    if tx.fetch_one(coupons.read(code)) is None:
        return ClientError(422, "INVALID", "endsAt must be in the future")
    return ClientError(409, "COUPON_EXISTS", "there is a coupon of this code")


def _locked(tx: Transaction, path: Mapping[str, str]) -> Coupon:
    coupon = tx.fetch_one(coupons.lock(_code(path)))
    if coupon is None:
        raise not_found("the coupon")
    return coupon


def _check_change(before: Coupon, ends_at: datetime | None, uses_max: int | None) -> None:
    if before.state == CouponState.ENDED:
        raise ClientError(409, "COUPON_ENDED", "the coupon has ended")
    if ends_at is not None and ends_at <= before.starts_at:
        raise ClientError(422, "INVALID", "startsAt must be before endsAt")
    if uses_max is not None and uses_max < before.uses:
        message = Phrase("the coupon was used {count} times", count=before.uses)
        raise ClientError(409, "LIMIT_BELOW_USES", message, extra={"uses": before.uses})


def _changed(
    request: Request[CouponChange, None] | Request[None, None],
    tx: Transaction,
    action: Action,
    before: Coupon,
    after: Coupon | None,
) -> Coupon:
    assert after is not None, "the coupon is locked"
    _record(request, tx, action, before, after)
    return after


def _record(
    request: Request[NewCoupon, None] | Request[CouponChange, None] | Request[None, None],
    tx: Transaction,
    action: Action,
    before: Coupon | None,
    after: Coupon,
) -> None:
    tx.execute(
        audit_log.record(
            actor_of(request),
            action,
            after.code,
            before=None if before is None else _represent(before),
            after=_represent(after),
        )
    )


def _code(path: Mapping[str, str]) -> str:
    code = path["code"].upper()
    if CODE.fullmatch(code) is None:
        raise not_found("the coupon")
    return code


def _response(coupon: Coupon) -> Response:
    return Response(200, _represent(coupon), {"etag": _etag_of(coupon)})


def _etag_of(coupon: Coupon) -> str:
    return f'"{coupon.version}.{coupon.uses}"'


def _version_of(tag: str) -> int | None:
    """The version alone is compared: customers may use the coupon between reading and changing."""
    match = TAG.fullmatch(tag)
    return int(match[1]) if match else None


def _represent(coupon: Coupon) -> dict[str, object]:
    return {
        "code": coupon.code,
        "discountAmount": coupon.discount_minor,
        "discountBasisPoints": coupon.discount_basis_points,
        "discountMaximum": coupon.discount_max_minor,
        "currency": coupon.currency,
        "goodsMinimum": coupon.goods_min_minor,
        "combinable": coupon.combinable,
        "startsAt": _time(coupon.starts_at),
        "endsAt": None if coupon.ends_at is None else _time(coupon.ends_at),
        "usesMaximum": coupon.uses_max,
        "usesPerCustomerMaximum": coupon.uses_per_customer_max,
        "uses": coupon.uses,
        "state": coupon.state,
        "createdAt": _time(coupon.created_at),
    }


def _time(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()
