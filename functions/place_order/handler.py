"""Place an order: hold the stock, remember the price, announce it, answer.

Three round trips in all: BEGIN with the key's claim, everything below in one pipeline, and the
stored answer with COMMIT.  Money is never waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from events.orders import OrderPlaced
from shop import carts, inventory, outbox, saga, transitions
from shop.db import BACK_TO_MARK, MARK, Transaction
from shop.errors import Refused, not_found
from shop.ids import new_uuid
from shop.message import Reply, Request
from shop.money import ORDER_TOTAL_MAX
from shop.ordering import lifecycle, orders
from shop.transitions import Transition


def place_order(request: Request, tx: Transaction) -> Reply:
    """201 with the PENDING order; 409 OUT_OF_STOCK or PRICE_CHANGED; 422 for unknown products."""
    return _place(request, tx, request.body.lines)


def place_order_from_cart(request: Request, tx: Transaction) -> Reply:
    """One order with all lines of the cart, which is empty afterwards; 400 for an empty cart."""
    lines = carts.take(tx, request.user_id)
    if not lines:
        raise Refused(400, "CART_EMPTY", "there is nothing in the cart", stored=True)
    return _place(request, tx, lines)


def pay_again(request: Request, tx: Transaction) -> Reply:
    """201 with the order; 409 while a payment is being made or when the order is not PENDING."""
    order_id = orders.id_in(request.path)
    if tx.one(orders.OWNED, order_id=order_id, user_id=request.user_id) is None:
        raise not_found("the order")
    saga.tell(tx, order_id, lifecycle.PayAgainAsked(request.body.payment_method))
    row = tx.one(orders.VIEW, order_id=order_id)
    return Reply(201, orders.represent(row), {"Location": f"/orders/{order_id}"})


def _place(request: Request, tx: Transaction, lines: Sequence[tuple[int, int]]) -> Reply:
    order_id = new_uuid()
    written, held, order = _write(request, tx, order_id, lines)
    if len(written) != len(lines):
        return _not_written(request, tx, lines)
    if len(held) != len(lines) and _free_expired_holds(request, tx, lines):
        order_id = new_uuid()
        written, held, order = _write(request, tx, order_id, lines)
    _refuse_missing_stock(tx, lines, held=held)
    _refuse_other_price(request.body.expected_total_amount, order)
    _refuse_hoarding(request, order.open_orders)
    body = _body(request, order_id, order, written)
    return Reply(201, body, {"Location": f"/orders/{order_id}"})


def _write(
    request: Request, tx: Transaction, order_id: UUID, lines: Sequence[tuple[int, int]]
) -> tuple[list[Any], list[int], Any]:
    """Lines written, products held, and the order as it reads back; one round trip."""
    announcement, (event_id,) = outbox.emit(tx, OrderPlaced(order_id=order_id))
    moved = Transition("order", order_id, "-", "PENDING", event_id)
    _, written, held, read_back, *_ = tx.together(
        (MARK, {}),
        _order(request, order_id, lines),
        inventory.hold(order_id, lines),
        orders.placed(order_id, request.user_id),
        announcement,
        transitions.record(tx, order_id, [moved]),
        transitions.record_reservations(tx, order_id, from_status="-", to_status="HELD"),
    )
    return written, [row.product_id for row in held], next(iter(read_back), None)


def _free_expired_holds(request: Request, tx: Transaction, lines: Sequence[tuple[int, int]]) -> int:
    """A hold past its time does not count, swept or not.  Undoes the order that came up short."""
    assert request.caller is not None, "only somebody places an order"
    tx.together((BACK_TO_MARK, {}))
    tx.announced.clear()
    return saga.expire_holders(
        tx, [product_id for product_id, _ in lines], role=request.caller.role
    )


def _order(request: Request, order_id: UUID, lines: Sequence[tuple[int, int]]) -> Any:
    key = request.idempotency_key
    return orders.place(
        order_id=order_id,
        user_id=request.user_id,
        lines=lines,
        payment_method=request.body.payment_method,
        idem_scope=f"{request.method} {request.route}" if key else None,
        idem_key=key,
        soft_seconds=request.settings.order_soft_expiry_seconds,
        hard_seconds=request.settings.order_hard_expiry_seconds,
        total_max=ORDER_TOTAL_MAX,
    )


def _not_written(request: Request, tx: Transaction, lines: Sequence[tuple[int, int]]) -> Reply:
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
        raise Refused(422, "UNKNOWN_PRODUCT", "a product is not for sale", extra=extra, stored=True)
    if len({row.currency for row in known.values()}) > 1:
        raise Refused(422, "MIXED_CURRENCIES", "one order has one currency", stored=True)
    raise Refused(422, "TOTAL_TOO_LARGE", f"the total is over {ORDER_TOTAL_MAX}", stored=True)


def _existing(tx: Transaction, order_id: UUID) -> Reply:
    """A key older than its stored answer finds its order; it never makes a second one."""
    tx.start_over()
    row = tx.one(orders.VIEW, order_id=order_id)
    return Reply(201, orders.represent(row), {"Location": f"/orders/{order_id}"})


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
    raise Refused(
        409,
        "OUT_OF_STOCK",
        "there is not enough in stock",
        extra={"products": products},
        stored=True,
    )


def _refuse_other_price(expected_total: int | None, order: Any) -> None:
    if expected_total is not None and expected_total != order.total_minor:
        raise Refused(
            409,
            "PRICE_CHANGED",
            "the total is not the expected one",
            extra={"totalAmount": order.total_minor, "currency": order.currency},
            stored=True,
        )


def _refuse_hoarding(request: Request, open_orders: int) -> None:
    limit = request.settings.open_orders_max
    if limit and open_orders > limit:
        raise Refused(
            429,
            "TOO_MANY_OPEN_ORDERS",
            f"at most {limit} unpaid orders at a time",
            headers={"retry-after": "5"},
        )


def _body(request: Request, order_id: UUID, order: Any, lines: list[Any]) -> dict[str, Any]:
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
