"""A customer's cart.  Every operation is one round trip and one guarded statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shop import carts
from shop.primitives.errors import ClientError, not_found
from shop.primitives.ids import parse_product_id
from shop.primitives.messages import Request, Response

if TYPE_CHECKING:
    from functions.cart.schema import ItemChange, NewItem
    from shop.adapters.db import Transaction
    from shop.runtime.request_context import RequestContext


def show_cart(request: Request[None, None], context: RequestContext) -> Response:
    """The caller's cart at today's prices; the total counts every line, available or not."""
    lines = [_line(row) for row in context.tx.all(carts.LINES, user_id=request.user_id)]
    total = sum(line["lineAmount"] for line in lines)
    return Response(
        200,
        {"items": lines, "totalAmount": total, "currency": context.settings.currency},
    )


def add_item(request: Request[NewItem, None], context: RequestContext) -> Response:
    """201 with the line and its summed quantity; 404 no product, 422 too much, 409 no stock."""
    body = request.body
    _, rows = context.tx.together(*carts.add(request.user_id, body.product_id, body.quantity))
    if not rows:
        raise not_found("the product")
    row = rows[0]
    if row.qty is not None:
        return Response(201, _line(row))
    if row.had + body.quantity > carts.QUANTITY_MAX:
        raise ClientError(
            422, "INVALID", f"a line may have at most {carts.QUANTITY_MAX} of a product"
        )
    if row.had == 0 and row.lines >= carts.LINES_MAX:
        raise ClientError(422, "INVALID", f"a cart may have at most {carts.LINES_MAX} lines")
    raise _out_of_stock(row)


def change_item(request: Request[ItemChange, None], context: RequestContext) -> Response:
    """200 with the line, 204 when nought or less removed it; 404 not in the cart, 409 no stock."""
    tx = context.tx
    product_id = parse_product_id(request.path["productId"])
    if product_id is None:
        raise not_found("the cart's line")
    quantity = request.body.quantity
    if quantity <= 0:
        return _remove(request, tx, product_id)
    row = tx.one(carts.SET_QTY, user_id=request.user_id, product_id=product_id, qty=quantity)
    if row is None or (row.qty is None and row.available >= quantity):  # removed a moment ago
        raise not_found("the cart's line")
    if row.qty is None:
        raise _out_of_stock(row)
    return Response(200, _line(row))


def remove_item(request: Request[None, None], context: RequestContext) -> Response:
    """204 whether the line was there or not: afterwards it is not, which is what was asked.

    404 for what can be no product's number.
    """
    product_id = parse_product_id(request.path["productId"])
    if product_id is None:
        raise not_found("the cart's line")
    context.tx.run(carts.REMOVE, user_id=request.user_id, product_id=product_id)
    return Response(204)


def empty_cart(request: Request[None, None], context: RequestContext) -> Response:
    """204; afterwards the cart is empty."""
    context.tx.run(carts.EMPTY, user_id=request.user_id)
    return Response(204)


def _remove(request: Request[ItemChange, None], tx: Transaction, product_id: int) -> Response:
    if tx.run(carts.REMOVE, user_id=request.user_id, product_id=product_id) == 0:
        raise not_found("the cart's line")
    return Response(204)


def _out_of_stock(row: Any) -> ClientError:
    product = {"productId": row.product_id, "available": row.available}
    return ClientError(
        409,
        "OUT_OF_STOCK",
        "there is not that much in stock",
        extra={"products": [product]},
    )


def _line(row: Any) -> dict[str, Any]:
    return {
        "productId": row.product_id,
        "name": row.name,
        "price": row.price_minor,
        "currency": row.currency,
        "quantity": row.qty,
        "lineAmount": row.price_minor * row.qty,
        "stockQuantity": row.available,
        "available": row.active and row.available >= row.qty,
    }
