"""Places an order: reserves the stock, fixes the prices and emits order.placed.

Four round trips: BEGIN with the claim of the idempotency key, the prices, everything that is
written in one pipeline, and the stored response with COMMIT.  The payment is collected afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from events.orders import OrderPlaced
from events.records import frozen
from shop import carts, coupons, inventory, saved_addresses, shipping_fees, status_history
from shop.adapters.db import SAVEPOINT
from shop.coupons import OfferedCoupon, UsedCoupon
from shop.messaging import outbox
from shop.orders import addresses, apply, orders, queries
from shop.orders.messages import ActionReturned, PayAgainRequested
from shop.orders.orders import ProductPrice, UnpaidOrders, Verification
from shop.orders.queries import OrderView
from shop.primitives.errors import ClientError, not_found
from shop.primitives.ids import new_uuid, parse_uuid
from shop.primitives.languages import Phrase
from shop.primitives.messages import Request, Response
from shop.primitives.money import ORDER_TOTAL_MAX
from shop.primitives.price_lines import Goods, PriceLine, Vat, lines_of, total
from shop.primitives.statuses import CREATED, CouponObstacle, OrderStatus, ReservationStatus
from shop.saved_addresses import SavedAddress
from shop.shipping_fees import Destination, PresentFee, Shipping
from shop.status_history import StatusChange

if TYPE_CHECKING:
    from functions.place_order.schema import (
        ConfirmPayment,
        PayAgain,
        PlaceOrder,
        PlaceOrderFromCart,
    )
    from shop.adapters.db import Transaction
    from shop.adapters.statements import Statement
    from shop.orders.orders import PlacedLine
    from shop.request_models import Address
    from shop.runtime.config import Settings
    from shop.runtime.request_context import RequestContext

    PlacingRequest = Request[PlaceOrder, None] | Request[PlaceOrderFromCart, None]

Lines = Sequence[tuple[int, int]]
AddressFields = Mapping[str, str | None]

# An account's unpaid orders of a product in a flash sale, at most.
FLASH_ORDERS_MAX = 2
# Any account may hold as many units of a product unpaid, however small the stock is.
FREE_UNITS = 10


@frozen
class Offers:
    """By what an order is priced: prices, coupons and the shipping fee; and its saved address."""

    prices: list[ProductPrice]
    coupons: list[OfferedCoupon]
    fees: list[PresentFee]
    saved: SavedAddress | None


@frozen
class Priced:
    """What is ordered, the lines of its price, what each coupon takes off, and where it is sent."""

    goods: list[Goods]
    lines: list[PriceLine]
    currency: str
    coupons: Mapping[str, int]
    shipping: Shipping
    address: AddressFields | None


@frozen
class Written:
    """A written order, what it holds and uses, and its customer's unpaid orders.

    ``order`` is None when its idempotency key was used before.
    """

    order: OrderView | None
    held: set[int]
    coupons: set[str]
    unpaid: UnpaidOrders


def place_order(request: Request[PlaceOrder, None], context: RequestContext) -> Response:
    """201 with the PENDING order; 409 OUT_OF_STOCK or PRICE_CHANGED; 422 for unknown products.

    409 COUPON_NOT_USABLE says of each coupon why, 422 NOTHING_TO_PAY when they take all of it off.

    403 EMAIL_NOT_VERIFIED where EMAIL_VERIFICATION requires an address that is verified.
    """
    return _place(request, context, request.body.lines, is_from_cart=False)


def place_order_from_cart(
    request: Request[PlaceOrderFromCart, None], context: RequestContext
) -> Response:
    """201 with one order of all lines of the cart, which is emptied; 400 for an empty cart."""
    # the lock first: a closing of the account takes it before it erases the lines
    _, _, taken = context.tx.pipeline(
        orders.lock_account(request.user_id),
        carts.lock(request.user_id),
        carts.empty(request.user_id),
    )
    lines = sorted((line.product_id, line.qty) for line in taken)
    if not lines:
        raise ClientError(400, "CART_EMPTY", "there is nothing in the cart", stored=True)
    if len(lines) > carts.LINES_MAX:  # lines of an unpaid order were returned to a full cart
        raise ClientError(
            422, "INVALID", Phrase("an order may have at most {lines} lines", lines=carts.LINES_MAX)
        )
    return _place(request, context, lines, is_from_cart=True)


def pay_again(request: Request[PayAgain, None], context: RequestContext) -> Response:
    """201 with the order; 409 while a payment is being made or when the order is not PENDING.

    A payment that waits for the customer is given up for the next attempt.
    """
    tx = context.tx
    order_id = queries.id_in(request.path)
    rows = apply.lock_own(tx, order_id, request.user_id)
    decided = apply.decide_on(rows, PayAgainRequested(request.body.payment_method))
    apply.write(tx, rows, decided)
    return _represented(201, tx, order_id)


def confirm_payment(request: Request[ConfirmPayment, None], context: RequestContext) -> Response:
    """202 with the order, whose payment the provider is asked to confirm; also when repeated.

    409 AMOUNT_MISMATCH, NOT_PAYABLE, ACTION_EXPIRED or PAYMENT_IN_PROGRESS: nothing is confirmed.
    """
    tx = context.tx
    order_id, payment_id = queries.id_in(request.path), parse_uuid(request.path["paymentId"])
    rows = apply.lock_own(tx, order_id, request.user_id)
    if payment_id is None or rows.state.payment(payment_id) is None:
        raise not_found("the payment")
    returned = ActionReturned(payment_id, request.body.token, request.body.amount)
    apply.write(tx, rows, apply.decide_on(rows, returned))
    return _represented(202, tx, order_id)


def _place(
    request: PlacingRequest, context: RequestContext, lines: Lines, *, is_from_cart: bool
) -> Response:
    tx = context.tx
    _check_address(request, context.settings)
    offers = _read_offers(request, context, lines)
    address = _address(request, offers.saved, context.settings)
    priced = (
        address
        if isinstance(address, ClientError)
        else _priced(lines, request.body.coupons, offers, address)
    )
    if isinstance(priced, ClientError):
        return _placed_before(request, tx, otherwise=priced)
    written = _write(request, context, priced, is_from_cart=is_from_cart)
    if written.order is None:
        return _placed_before(request, tx)
    if len(written.held) != len(lines) and _cancel_unpaid_holders(request, tx, lines):
        written = _write(request, context, priced, is_from_cart=is_from_cart)
    order = written.order
    assert order is not None, "an order with this key was written a moment ago"
    _check_stock(tx, lines, held=written.held)
    _check_coupons(request, tx, used=written.coupons)
    _check_expected_total(request.body.expected_total_amount, order)
    _check_limits(context.settings.open_orders_max, written.unpaid)
    location = {"Location": f"/orders/{order.order_id}"}
    return Response(201, queries.represent(order), location)


def _read_offers(request: PlacingRequest, context: RequestContext, lines: Lines) -> Offers:
    """Lets the account place one order at a time, if it may; by what the order is priced."""
    user_id, codes, address_id = request.user_id, request.body.coupons, request.body.address_id
    is_checked = context.settings.email_verification != "off"
    verification = (orders.verification(user_id),) if is_checked else ()
    offered = (coupons.offered(codes, user_id),) if codes else ()
    address = (saved_addresses.read(user_id, UUID(address_id)),) if address_id else ()
    _, *read = context.tx.pipeline(
        orders.lock_account(user_id),
        orders.prices([product_id for product_id, _ in lines]),
        shipping_fees.present(),
        *verification,
        *offered,
        *address,
    )
    rows = [row for each in read for row in each]
    if not all(row.is_verified for row in rows if isinstance(row, Verification)):
        raise ClientError(403, "EMAIL_NOT_VERIFIED", "the e-mail address is not verified yet")
    return Offers(
        prices=[row for row in rows if isinstance(row, ProductPrice)],
        coupons=[row for row in rows if isinstance(row, OfferedCoupon)],
        fees=[row for row in rows if isinstance(row, PresentFee)],
        saved=next((row for row in rows if isinstance(row, SavedAddress)), None),
    )


def _priced(
    lines: Lines, codes: Sequence[str], offers: Offers, address: AddressFields | None
) -> Priced | ClientError:
    """The price of the lines, or why they cannot be one order."""
    by_product = {price.product_id: price for price in offers.prices}
    unknown = [product_id for product_id, _ in lines if product_id not in by_product]
    if unknown:
        return _unknown_products(unknown)
    currencies = {price.currency for price in offers.prices}
    if len(currencies) > 1:
        return ClientError(422, "MIXED_CURRENCIES", "one order has one currency", stored=True)
    goods = [_goods(by_product[product_id], quantity) for product_id, quantity in lines]
    (currency,), goods_minor = currencies, total(lines_of(goods))
    taken_off = coupons.discounts(codes, offers.coupons, goods_minor=goods_minor, currency=currency)
    if taken_off.obstacles:
        return _not_usable(taken_off.obstacles)
    discount_minor = sum(taken_off.minor.values())
    shipping = shipping_fees.shipping(
        offers.fees,
        goods_minor=goods_minor - discount_minor,
        currency=currency,
        destination=_destination(address),
    )
    price_lines = lines_of(goods, discount_minor=discount_minor, shipping=shipping.fee)
    if total(price_lines) > ORDER_TOTAL_MAX:
        message = Phrase("the total is over {total}", total=ORDER_TOTAL_MAX)
        return ClientError(422, "TOTAL_TOO_LARGE", message, stored=True)
    if not total(price_lines):
        message = "the coupons leave nothing to pay"
        return ClientError(422, "NOTHING_TO_PAY", message, stored=True)
    return Priced(goods, price_lines, currency, taken_off.minor, shipping, address)


def _unknown_products(product_ids: list[int]) -> ClientError:
    return ClientError(
        422,
        "UNKNOWN_PRODUCT",
        "a product is not for sale",
        extra={"products": [{"productId": product_id} for product_id in product_ids]},
        stored=True,
    )


def _destination(address: AddressFields | None) -> Destination | None:
    if address is None:
        return None
    return Destination(country=address["country"] or "", postcode=address["postcode"])


def _goods(price: ProductPrice, quantity: int) -> Goods:
    vat = Vat(basis_points=price.vat_basis_points, is_included=price.vat_included)
    return Goods(
        product_id=price.product_id, quantity=quantity, price_minor=price.price_minor, vat=vat
    )


def _write(
    request: PlacingRequest, context: RequestContext, priced: Priced, *, is_from_cart: bool
) -> Written:
    """Writes the order with its reservations and reads it back; one round trip."""
    tx = context.tx
    order_id = new_uuid()
    announcement, (event_id,) = outbox.emit(tx, OrderPlaced(order_id=order_id))
    sent_to = (addresses.record(order_id, priced.address),) if priced.address else ()
    used = (coupons.use(order_id, request.user_id, priced.coupons),) if priced.coupons else ()
    lines = [(each.product_id, each.quantity) for each in priced.goods]
    placed = StatusChange("order", order_id, CREATED, OrderStatus.PENDING, event_id)
    _, _, held, unpaid, _, *rest = tx.pipeline(
        SAVEPOINT(),
        _order(request, context.settings, order_id, priced, is_from_cart=is_from_cart),
        inventory.hold(order_id, lines),
        orders.unpaid(
            request.user_id,
            [product_id for product_id, _ in lines],
            flash_orders_max=FLASH_ORDERS_MAX,
            share_percent=context.settings.unpaid_stock_percent,
            free_units=FREE_UNITS,
        ),
        announcement,
        *used,
        status_history.record(tx, order_id, [placed]),
        status_history.record_reservations(
            tx, order_id, from_status=CREATED, to_status=ReservationStatus.HELD
        ),
        *sent_to,
        queries.order(order_id),
    )
    rows = [row for each in rest for row in each]
    return Written(
        order=next((row for row in rows if isinstance(row, OrderView)), None),
        held={row.product_id for row in held},
        coupons={row.code for row in rows if isinstance(row, UsedCoupon)},
        unpaid=unpaid[0],
    )


def _order(
    request: PlacingRequest,
    settings: Settings,
    order_id: UUID,
    priced: Priced,
    *,
    is_from_cart: bool,
) -> Statement[PlacedLine]:
    key = request.idempotency_key
    return orders.place(
        order_id=order_id,
        user_id=request.user_id,
        goods=priced.goods,
        price_lines=priced.lines,
        currency=priced.currency,
        shipping_version=priced.shipping.version,
        shipping_region=priced.shipping.region,
        payment_method=request.body.payment_method,
        is_from_cart=is_from_cart,
        idem_scope=_scope(request) if key else None,
        idem_key=key,
        soft_seconds=settings.order_soft_expiry_seconds,
        hard_seconds=settings.order_hard_expiry_seconds,
    )


def _check_address(request: PlacingRequest, settings: Settings) -> None:
    """422 where an order needs an address, or for a country to which the shop does not send."""
    address, address_id = request.body.shipping_address, request.body.address_id
    if address is None and address_id is None and settings.shipping_address == "required":
        message = "an order needs an address"
        raise ClientError(422, "INVALID", message, extra=_mistake("shippingAddress", message))
    if address is not None:
        _check_country(address.country, settings, field="shippingAddress.country")


def _address(
    request: PlacingRequest, saved: SavedAddress | None, settings: Settings
) -> AddressFields | ClientError | None:
    """Where the order is sent; the same error for a saved address of another customer and none."""
    address: Address | None = request.body.shipping_address
    if request.body.address_id is None:
        return address.model_dump() if address else None
    if saved is None:
        message = "the address is not in the customer's address book"
        extra = _mistake("addressId", message)
        return ClientError(422, "UNKNOWN_ADDRESS", message, extra=extra)
    _check_country(saved.country, settings, field="addressId")
    return saved_addresses.fields_of(saved)


def _check_country(country: str, settings: Settings, *, field: str) -> None:
    countries = settings.shipping_countries.replace(" ", "").split(",")
    if country not in countries:
        message = Phrase("orders are sent to {countries}", countries=", ".join(countries))
        raise ClientError(422, "INVALID", message, extra=_mistake(field, message))


def _mistake(field: str, message: str) -> dict[str, object]:
    """As in the response to a body that cannot be read."""
    return {"errors": [{"field": field, "message": message}]}


def _scope(request: PlacingRequest) -> str:
    return f"{request.method} {request.route}"


def _cancel_unpaid_holders(request: PlacingRequest, tx: Transaction, lines: Lines) -> int:
    """Undoes an order that lacks stock; cancels and counts the unpaid orders that hold it."""
    assert request.caller is not None, "the route requires a token"
    tx.rollback_to_savepoint()
    return apply.cancel_unpaid_holders(
        tx,
        [product_id for product_id, _ in lines],
        request.body.coupons,
        user_id=request.user_id,
        role=request.caller.role,
    )


def _placed_before(
    request: PlacingRequest, tx: Transaction, *, otherwise: ClientError | None = None
) -> Response:
    """The order that was placed with this key before; raises ``otherwise`` without one."""
    existing = None
    if request.idempotency_key:
        existing = tx.fetch_one(
            orders.with_key(
                request.user_id, idem_scope=_scope(request), idem_key=request.idempotency_key
            )
        )
    if existing is None:
        assert otherwise is not None, "only an order with the same key prevents one"
        raise otherwise
    # the stored response was deleted after 7 days; the order still has the key
    tx.rollback_to_claim()
    return _represented(201, tx, existing.order_id)


def _represented(status: int, tx: Transaction, order_id: UUID) -> Response:
    order = tx.fetch_one(queries.order(order_id))
    assert order is not None, "the caller has found or locked the order"
    return Response(status, queries.represent(order), {"Location": f"/orders/{order_id}"})


def _check_stock(tx: Transaction, lines: Lines, *, held: set[int]) -> None:
    short = {product_id: qty for product_id, qty in lines if product_id not in held}
    if not short:
        return
    rows = tx.fetch_all(inventory.available(list(short)))
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


def _check_coupons(request: PlacingRequest, tx: Transaction, *, used: set[str]) -> None:
    """409 for coupons that others used up, or that ended, since they were read."""
    missed = [code for code in request.body.coupons if code not in used]
    if not missed:
        return
    rows = tx.fetch_all(coupons.offered(missed, request.user_id))
    obstacles = {row.code: CouponObstacle(row.obstacle) for row in rows if row.obstacle}
    raise _not_usable({code: obstacles.get(code, CouponObstacle.USED_UP) for code in missed})


def _not_usable(obstacles: Mapping[str, CouponObstacle]) -> ClientError:
    return ClientError(
        409,
        "COUPON_NOT_USABLE",
        "a coupon cannot be used",
        extra={"coupons": [{"code": code, "reason": why} for code, why in obstacles.items()]},
        stored=True,
    )


def _check_expected_total(expected_total: int | None, order: OrderView) -> None:
    if expected_total is not None and expected_total != order.total_minor:
        raise ClientError(
            409,
            "PRICE_CHANGED",
            "the total is not the expected one",
            extra={"totalAmount": order.total_minor, "currency": order.currency},
            stored=True,
        )


def _check_limits(open_orders_max: int, unpaid: UnpaidOrders) -> None:
    """Unpaid orders hold stock that others could buy, so an account has few of them."""
    if open_orders_max and unpaid.open_orders > open_orders_max:
        message = Phrase("at most {count} unpaid orders at a time", count=open_orders_max)
        raise _too_many("TOO_MANY_OPEN_ORDERS", message, [], unpaid)
    if unpaid.flash_products:
        message = Phrase(
            "at most {count} unpaid orders of a product in a flash sale", count=FLASH_ORDERS_MAX
        )
        raise _too_many("TOO_MANY_OPEN_ORDERS", message, unpaid.flash_products, unpaid)
    if unpaid.products_beyond_share:
        message = "one account may not hold that much of a product unpaid"
        raise _too_many("TOO_MUCH_UNPAID", message, unpaid.products_beyond_share, unpaid)


def _too_many(code: str, message: str, product_ids: list[int], unpaid: UnpaidOrders) -> ClientError:
    """429; Retry-After only when other orders count, since waiting does not help a single one."""
    wait = {"retry-after": str(max(1, unpaid.seconds_left or 0))} if unpaid.open_orders > 1 else {}
    products = [{"productId": product_id} for product_id in product_ids]
    return ClientError(
        429, code, message, extra={"products": products} if products else {}, headers=wait
    )
