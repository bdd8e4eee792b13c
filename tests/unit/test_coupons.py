"""Properties of what coupons take off, and of what the parts of a discounted order give back."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from shop.coupons import OfferedCoupon, discounts
from shop.orders.lines import Line
from shop.orders.states import Order, OrderedLine, OrderState, Return
from shop.primitives.ids import new_uuid
from shop.primitives.price_lines import Goods, Vat, lines_of, total
from shop.primitives.statuses import CouponObstacle, OrderStatus, ReturnStatus

CODES = ["AAA", "BBB", "CCC", "DDD", "EEE"]
VAT = Vat(basis_points=1_000, is_included=True)


@st.composite
def coupons(draw: st.DrawFn) -> OfferedCoupon:
    amount = draw(st.none() | st.integers(1, 100_000))
    part = draw(st.integers(1, 10_000)) if amount is None else None
    most = draw(st.none() | st.integers(1, 50_000)) if part else None
    minimum, combinable = draw(st.integers(0, 60_000)), draw(st.sampled_from([True, True, False]))
    obstacle = draw(st.sampled_from([None, None, None, "ENDED"]))
    code, currency = draw(st.sampled_from(CODES)), draw(st.sampled_from(["KRW", "KRW", "USD"]))
    return OfferedCoupon((code, amount, part, most, currency, minimum, combinable, obstacle))


COUPONS = st.lists(coupons(), max_size=5, unique_by=lambda coupon: coupon.code)
GOODS = st.lists(
    st.builds(
        Goods,
        product_id=st.integers(1, 20),
        quantity=st.integers(1, 12),
        price_minor=st.integers(1, 5_000),
        vat=st.just(VAT),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda goods: goods.product_id,
)


@given(COUPONS, st.permutations(CODES), st.integers(1, 100_000))
def test_each_coupon_takes_something_off_or_says_why_not(
    found: list[OfferedCoupon], codes: list[str], goods_minor: int
) -> None:
    taken = discounts(codes, found, goods_minor=goods_minor, currency="KRW")

    assert taken.minor.keys() | taken.obstacles.keys() == set(codes)
    assert not taken.minor.keys() & taken.obstacles.keys()
    assert all(minor > 0 for minor in taken.minor.values())
    assert sum(taken.minor.values()) <= goods_minor
    known = {coupon.code: coupon for coupon in found}
    for code in codes:
        is_unknown = taken.obstacles.get(code) == CouponObstacle.UNKNOWN
        assert is_unknown == (code not in known)
    for code in taken.minor:
        coupon = known[code]
        assert (coupon.obstacle, coupon.currency, coupon.combinable) == (None, "KRW", True)
        assert coupon.goods_min_minor <= goods_minor


@given(COUPONS, st.integers(1, 100_000))
def test_sequence_of_the_codes_changes_nothing(
    found: list[OfferedCoupon], goods_minor: int
) -> None:
    codes = [coupon.code for coupon in found]

    forth = discounts(codes, found, goods_minor=goods_minor, currency="KRW")
    back = discounts(codes[::-1], found[::-1], goods_minor=goods_minor, currency="KRW")

    assert (dict(forth.minor), dict(forth.obstacles)) == (dict(back.minor), dict(back.obstacles))


@given(goods=GOODS, share=st.fractions(0, 1), data=st.data())
def test_parts_of_a_discounted_order_give_back_exactly_what_was_paid(
    goods: list[Goods], share: Fraction, data: st.DataObject
) -> None:
    discount = int(total(lines_of(goods)) * share)
    lines = lines_of(goods, discount_minor=discount)
    ordered = tuple(
        OrderedLine(
            each.product_id,
            each.quantity,
            total([line for line in lines if line.product_id == each.product_id]),
        )
        for each in goods
    )
    state = OrderState(Order(OrderStatus.PAID, total(lines), "KRW"), lines=ordered)
    units = [each.product_id for each in goods for _ in range(each.quantity)]
    given_back: list[int] = []

    for product_id in data.draw(st.permutations(units)):
        unit = Line(product_id, 1)
        given_back.append(state.amount_minor(unit))
        row = Return(new_uuid(), ReturnStatus.UNSENT, (unit,))
        state = replace(state, returns=(*state.returns, row))

    assert min(given_back) >= 0
    assert sum(given_back) == total(lines) == total(lines_of(goods)) - discount
