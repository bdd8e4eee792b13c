"""Shipping fees, for staff: routes of ``handler.py``.

A version is never changed: another one is added, and orders keep the number of theirs.  Each
addition has an entry in the audit log.
"""

from __future__ import annotations

import re
from datetime import UTC
from typing import TYPE_CHECKING

from shop import audit_log, shipping_fees
from shop.audit_log import Action, actor_of
from shop.primitives.errors import ClientError, not_found
from shop.primitives.etags import is_known
from shop.primitives.messages import Request, Response
from shop.primitives.paging import next_page
from shop.primitives.price_lines import FeeRule, Surcharge

if TYPE_CHECKING:
    from functions.manage_products.schema import ListVersions, NewShippingFee
    from shop.runtime.request_context import RequestContext
    from shop.shipping_fees import ShippingFee

VERSION = re.compile(r"[1-9][0-9]{0,8}")


def add_shipping_fee(request: Request[NewShippingFee, None], context: RequestContext) -> Response:
    """201 with the version, its Location and ETag; 422 for one that begins in the past."""
    body = request.body
    rule = FeeRule(
        amount_minor=body.amount,
        free_from_minor=body.free_from,
        vat_basis_points=body.vat_percent * 100,
        surcharges=tuple(
            Surcharge(
                country=each.country,
                first=each.postcode_from,
                last=each.postcode_to,
                amount_minor=each.amount,
            )
            for each in body.surcharges
        ),
    )
    add = shipping_fees.add(rule, currency=context.settings.currency, starts_at=body.starts_at)
    _, added = context.tx.pipeline(shipping_fees.lock(), add)
    if not added:
        raise ClientError(422, "INVALID", "startsAt must not be in the past")
    (fee,) = added
    shown = _represent(fee)
    context.tx.execute(
        audit_log.record(actor_of(request), Action.SHIPPING_FEE_ADDED, fee.version, after=shown)
    )
    headers = {"location": f"/admin/shipping-fees/{fee.version}", "etag": _etag_of(fee)}
    return Response(201, shown, headers)


def list_shipping_fees(request: Request[None, ListVersions], context: RequestContext) -> Response:
    """200 with a page of versions, the highest first; 304 to one who has it.

    The ETag has the version that applies and the latest one, which together decide every page.
    """
    query = request.query
    rows, (latest,) = context.tx.pipeline(
        shipping_fees.versions(before=query.cursor, limit=query.limit + 1), shipping_fees.latest()
    )
    etag = f'"{latest.applying or 0}.{latest.latest or 0}"'
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(304, None, {"etag": etag})
    page = rows[: query.limit]
    headers = {"etag": etag}
    if len(rows) > query.limit:
        more = {"limit": query.limit, "cursor": page[-1].version}
        headers |= next_page("/admin/shipping-fees", more)
    return Response(200, [_represent(fee) for fee in page], headers)


def show_shipping_fee(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the version and its ETag, 304 to one who has it; 404 when there is none.

    The ETag also has the version that applies, which decides the state of this one.
    """
    version = request.path["version"]
    rows = (
        context.tx.fetch_all(shipping_fees.read(int(version))) if VERSION.fullmatch(version) else []
    )
    if not rows:
        raise not_found("the version")
    (fee,) = rows
    etag = _etag_of(fee)
    if is_known(request.headers.get("if-none-match"), etag):
        return Response(304, None, {"etag": etag})
    return Response(200, _represent(fee), {"etag": etag})


def _etag_of(fee: ShippingFee) -> str:
    return f'"{fee.applying or 0}.{fee.version}"'


def _represent(fee: ShippingFee) -> dict[str, object]:
    return {
        "version": fee.version,
        "amount": fee.amount_minor,
        "freeFrom": fee.free_from_minor,
        "vatPercent": fee.vat_basis_points // 100,
        "currency": fee.currency,
        "surcharges": [
            {
                "country": each["country"],
                "postcodeFrom": each["from"],
                "postcodeTo": each["to"],
                "amount": each["amount"],
            }
            for each in fee.surcharges
        ],
        "startsAt": fee.starts_at.astimezone(UTC).isoformat(),
        "state": fee.state,
        "createdAt": fee.created_at.astimezone(UTC).isoformat(),
    }
