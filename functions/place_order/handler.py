"""Place an order: hold the stock, remember the price, announce it, answer.

Three round trips in all: BEGIN with the key's claim, everything below in one pipeline, and the
stored answer with COMMIT.  Money is never waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from events.orders import OrderPlaced
from shop import carts, inventory, status_history
from shop.adapters.db import BACK_TO_MARK, MARK, Transaction
from shop.messaging import outbox
from shop.orders import apply, decide, orders
from shop.primitives.errors import ClientError, not_found
from shop.primitives.ids import new_uuid
from shop.primitives.messages import Request, Response
from shop.primitives.money import ORDER_TOTAL_MAX
from shop.status_history import StatusChange

if TYPE_CHECKING:
    from functions.place_order.schema import PayAgain, PlaceOrder, PlaceOrderFromCart
    from shop.runtime.config import Settings
    from shop.runtime.request_context import RequestContext

    PlacingRequest = Request[PlaceOrder, None] | Request[PlaceOrderFromCart, None]


def place_order(request: Request[PlaceOrder, None], context: RequestContext) -> Response:
    """201 with the PENDING order; 409 OUT_OF_STOCK or PRICE_CHANGED; 422 for unknown products."""
    return _place(request, context, request.body.lines)


def place_order_from_cart(
    request: Request[PlaceOrderFromCart, None], context: RequestContext
) -> Response:
    """One order with all lines of the cart, which is empty afterwards; 400 for an empty cart."""
    lines = carts.take(context.tx, request.user_id)
    if not lines:
        raise ClientError(400, "CART_EMPTY", "there is nothing in the cart", stored=True)
    return _place(request, context, lines)


def pay_again(request: Request[PayAgain, None], context: RequestContext) -> Response:
    """201 with the order; 409 while a payment is being made or when the order is not PENDING."""
    tx = context.tx
    order_id = orders.id_in(request.path)
    if tx.one(orders.OWNED, order_id=order_id, user_id=request.user_id) is None:
        raise not_found("the order")
    apply.apply_message(tx, order_id, decide.PayAgainAsked(request.body.payment_method))
    row = tx.one(orders.VIEW, order_id=order_id)
    return Response(201, orders.represent(row), {"Location": f"/orders/{order_id}"})


def _place(
    request: PlacingRequest, context: RequestContext, lines: Sequence[tuple[int, int]]
) -> Response:
    tx = context.tx
    order_id = new_uuid()
    written, held, order = _write(request, context, order_id, lines)
    if len(written) != len(lines):
        return _not_written(request, tx, lines)
    if len(held) != len(lines) and _free_expired_holds(request, tx, lines):
        order_id = new_uuid()
        written, held, order = _write(request, context, order_id, lines)
    _refuse_missing_stock(tx, lines, held=held)
    _refuse_other_price(request.body.expected_total_amount, order)
    _check_open_order_limit(context.settings.open_orders_max, order.open_orders)
    body = _body(request, order_id, order, written)
    return Response(201, body, {"Location": f"/orders/{order_id}"})


def _write(
    request: PlacingRequest,
    context: RequestContext,
    order_id: UUID,
    lines: Sequence[tuple[int, int]],
) -> tuple[list[Any], list[int], Any]:
    """Lines written, products held, and the order as it reads back; one round trip."""
    tx = context.tx
    announcement, (event_id,) = outbox.emit(tx, OrderPlaced(order_id=order_id))
    moved = StatusChange("order", order_id, "-", "PENDING", event_id)
    _, written, held, read_back, *_ = tx.together(
        (MARK, {}),
        _order(request, context.settings, order_id, lines),
        inventory.hold(order_id, lines),
        orders.placed(order_id, request.user_id),
        announcement,
        status_history.record(tx, order_id, [moved]),
        status_history.record_reservations(tx, order_id, from_status="-", to_status="HELD"),
    )
    return written, [row.product_id for row in held], next(iter(read_back), None)


def _free_expired_holds(
    request: PlacingRequest, tx: Transaction, lines: Sequence[tuple[int, int]]
) -> int:
    """A hold past its time does not count, swept or not.  Undoes the order that came up short."""
    assert request.caller is not None, "only somebody places an order"
    tx.together((BACK_TO_MARK, {}))
    tx.announced.clear()
    return apply.expire_holders(
        tx, [product_id for product_id, _ in lines], role=request.caller.role
    )


def _order(
    request: PlacingRequest, settings: Settings, order_id: UUID, lines: Sequence[tuple[int, int]]
) -> Any:
    key = request.idempotency_key
    return orders.place(
        order_id=order_id,
        user_id=request.user_id,
        lines=lines,
        payment_method=request.body.payment_method,
        idem_scope=f"{request.method} {request.route}" if key else None,
        idem_key=key,
        soft_seconds=settings.order_soft_expiry_seconds,
        hard_seconds=settings.order_hard_expiry_seconds,
        total_max=ORDER_TOTAL_MAX,
    )


def _not_written(
    request: PlacingRequest, tx: Transaction, lines: Sequence[tuple[int, int]]
) -> Response:
    """Why no order came of it: its key was used long ago, or its lines cannot be one order."""
    if request.idempotency_key:
        scope = f"{request.method} {request.route}"
        found = tx.one(
            orders.BY_KEY,
            user_id=request.user_id,
            idem_scope=scope,
            idem_key=request.idempotency_key,
        )
        if found is not None:
            return _existing(tx, found.order_id)
    known = {r.product_id: r for r in tx.all(orders.PRODUCTS, product_ids=[p for p, _ in lines])}
    unknown = [product_id for product_id, _ in lines if product_id not in known]
    if unknown:
        extra = {"products": [{"productId": product_id} for product_id in unknown]}
        raise ClientError(
            422, "UNKNOWN_PRODUCT", "a product is not for sale", extra=extra, stored=True
        )
    if len({row.currency for row in known.values()}) > 1:
        raise ClientError(422, "MIXED_CURRENCIES", "one order has one currency", stored=True)
    raise ClientError(422, "TOTAL_TOO_LARGE", f"the total is over {ORDER_TOTAL_MAX}", stored=True)


def _existing(tx: Transaction, order_id: UUID) -> Response:
    """A key older than its stored answer finds its order; it never makes a second one."""
    tx.rollback_to_claim()
    row = tx.one(orders.VIEW, order_id=order_id)
    return Response(201, orders.represent(row), {"Location": f"/orders/{order_id}"})


def _refuse_missing_stock(
    tx: Transaction, lines: Sequence[tuple[int, int]], *, held: list[int]
) -> None:
    short = {product_id: qty for product_id, qty in lines if product_id not in held}
    if not short:
        return
    rows = tx.all(inventory.AVAILABLE, product_ids=list(short))
    available = {row.product_id: row.available for row in rows}
    products = [
        {"productId": p, "requested": qty, "available": available.get(p, 0)}
        for p, qty in sorted(short.items())
    ]
    raise ClientError(
        409,
        "OUT_OF_STOCK",
        "there is not enough in stock",
        extra={"products": products},
        stored=True,
    )


def _refuse_other_price(expected_total: int | None, order: Any) -> None:
    if expected_total is not None and expected_total != order.total_minor:
        raise ClientError(
            409,
            "PRICE_CHANGED",
            "the total is not the expected one",
            extra={"totalAmount": order.total_minor, "currency": order.currency},
            stored=True,
        )


def _check_open_order_limit(limit: int, open_orders: int) -> None:
    if limit and open_orders > limit:
        raise ClientError(
            429,
            "TOO_MANY_OPEN_ORDERS",
            f"at most {limit} unpaid orders at a time",
            headers={"retry-after": "5"},
        )


def _body(request: PlacingRequest, order_id: UUID, order: Any, lines: list[Any]) -> dict[str, Any]:
    return {
        "id": str(order_id),
        "userId": request.user_id,
        "status": "PENDING",
        "totalAmount": order.total_minor,
        "currency": order.currency,
        "paymentMethod": request.body.payment_method,
        "createdAt": order.created_at.isoformat(),
        "items": [
            {
                "productId": line.product_id,
                "quantity": line.qty,
                "unitPrice": line.unit_price_minor,
                "lineAmount": line.qty * line.unit_price_minor,
            }
            for line in lines
        ],
        "payment": None,
        "refundedAmount": 0,
    }
