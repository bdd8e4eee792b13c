"""Reads and changes a customer's cart."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from shop import carts, coupons, shipping_fees
from shop.primitives.errors import ClientError, not_found
from shop.primitives.ids import parse_product_id
from shop.primitives.languages import Phrase
from shop.primitives.messages import Request, Response
from shop.primitives.price_lines import Goods, PriceLine, Vat, lines_of, total, unit_price
from shop.shipping_fees import Destination

if TYPE_CHECKING:
    from functions.cart.schema import ItemChange, NewItem, SummaryQuery
    from shop.adapters.db import Transaction
    from shop.carts import AddedLine, ChangedLine, Line
    from shop.coupons import OfferedCoupon
    from shop.runtime.request_context import RequestContext
    from shop.shipping_fees import PresentFee


def show_cart(request: Request[None, None], context: RequestContext) -> Response:
    """200 with the array of lines at current prices, oldest first; ``[]`` when empty."""
    lines = context.tx.fetch_all(carts.lines(request.user_id))
    return Response(200, [_represent(line, line.qty) for line in lines])


def summarise_cart(request: Request[None, SummaryQuery], context: RequestContext) -> Response:
    """200 with the number of lines and one total per currency; unavailable lines are included.

    A total, its lines and its coupons are those of an order that is placed now, for the postcode if
    one is given.
    """
    query = request.query
    codes, country = query.codes, query.country or shipping_fees.COUNTRY
    lines, found, fees = context.tx.pipeline(
        carts.lines(request.user_id),
        coupons.offered(codes, request.user_id),
        shipping_fees.present(),
    )
    destination = Destination(country=country, postcode=query.postcode)
    goods: defaultdict[str, list[Goods]] = defaultdict(list)
    for line in lines:
        goods[line.currency].append(_goods(line, line.qty))
    totals = [
        _represent_total(currency, goods[currency], codes, found, fees, destination)
        for currency in sorted(goods)
    ]
    return Response(200, {"lines": len(lines), "totals": totals})


def add_item(request: Request[NewItem, None], context: RequestContext) -> Response:
    """201 with the line and its new quantity; 404 no product, 422 over a limit, 409 no stock."""
    body = request.body
    _, rows = context.tx.pipeline(
        carts.lock(request.user_id),
        carts.add(request.user_id, body.product_id, body.quantity),
    )
    if not rows:
        raise not_found("the product")
    row = rows[0]
    if row.qty is not None:
        return Response(201, _represent(row, row.qty))
    if row.qty_before + body.quantity > carts.QUANTITY_MAX:
        raise ClientError(
            422,
            "INVALID",
            Phrase("a line may have at most {quantity} of a product", quantity=carts.QUANTITY_MAX),
        )
    if row.qty_before == 0 and row.lines >= carts.LINES_MAX:
        raise ClientError(
            422, "INVALID", Phrase("a cart may have at most {lines} lines", lines=carts.LINES_MAX)
        )
    raise _out_of_stock(row)


def change_item(request: Request[ItemChange, None], context: RequestContext) -> Response:
    """200 with the line, 204 when a quantity below 1 removed it; 404 no line, 409 no stock."""
    product_id = parse_product_id(request.path["productId"])
    if product_id is None:
        raise not_found("the cart's line")
    quantity = request.body.quantity
    if quantity <= 0:
        return _remove(context.tx, request.user_id, product_id)
    row = context.tx.fetch_one(carts.set_quantity(request.user_id, product_id, quantity))
    if row is None or (row.qty is None and row.available >= quantity):  # removed meanwhile
        raise not_found("the cart's line")
    if row.qty is None:
        raise _out_of_stock(row)
    return Response(200, _represent(row, row.qty))


def remove_item(request: Request[None, None], context: RequestContext) -> Response:
    """204, also when the line was not in the cart; 404 for an invalid product id."""
    product_id = parse_product_id(request.path["productId"])
    if product_id is None:
        raise not_found("the cart's line")
    context.tx.execute(carts.remove(request.user_id, product_id))
    return Response(204)


def empty_cart(request: Request[None, None], context: RequestContext) -> Response:
    """204; afterwards the cart is empty."""
    context.tx.execute(carts.empty(request.user_id))
    return Response(204)


def _remove(tx: Transaction, user_id: int, product_id: int) -> Response:
    if tx.execute(carts.remove(user_id, product_id)) == 0:
        raise not_found("the cart's line")
    return Response(204)


def _out_of_stock(row: AddedLine | ChangedLine) -> ClientError:
    product = {"productId": row.product_id, "available": row.available}
    return ClientError(
        409,
        "OUT_OF_STOCK",
        "there is not that much in stock",
        extra={"products": [product]},
    )


def _goods(line: Line | AddedLine | ChangedLine, quantity: int) -> Goods:
    vat = Vat(basis_points=line.vat_basis_points, is_included=line.vat_included)
    return Goods(
        product_id=line.product_id, quantity=quantity, price_minor=line.price_minor, vat=vat
    )


def _represent_total(
    currency: str,
    goods: list[Goods],
    codes: list[str],
    found: list[OfferedCoupon],
    fees: list[PresentFee],
    destination: Destination,
) -> dict[str, object]:
    goods_minor = total(lines_of(goods))
    taken_off = coupons.discounts(codes, found, goods_minor=goods_minor, currency=currency)
    discount_minor = sum(taken_off.minor.values())
    shipping = shipping_fees.shipping(
        fees,
        goods_minor=goods_minor - discount_minor,
        currency=currency,
        destination=destination,
    )
    lines = lines_of(goods, discount_minor=discount_minor, shipping=shipping.fee)
    return {
        "currency": currency,
        "totalAmount": total(lines),
        "priceLines": [_represent_price_line(line) for line in lines],
        "coupons": [
            {
                "code": code,
                "discountAmount": taken_off.minor.get(code, 0),
                "reason": taken_off.obstacles.get(code),
            }
            for code in codes
        ],
    }


def _represent_price_line(line: PriceLine) -> dict[str, object]:
    return {
        "kind": line.kind,
        "productId": line.product_id,
        "amount": line.amount_minor,
        "vatAmount": line.vat_minor,
        "vatPercent": line.vat_basis_points / 100,
    }


def _represent(line: Line | AddedLine | ChangedLine, quantity: int) -> dict[str, object]:
    goods = _goods(line, quantity)
    return {
        "productId": line.product_id,
        "name": line.name,
        "price": unit_price(goods.price_minor, goods.vat),
        "currency": line.currency,
        "quantity": quantity,
        "lineAmount": total(lines_of([goods])),
        "stockQuantity": line.available,
        "available": line.active and line.available >= quantity,
    }
