"""Properties of the function that computes what carts and orders cost."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.primitives.price_lines import (
    Fee,
    FeeRule,
    Goods,
    PriceLine,
    Surcharge,
    Vat,
    divide,
    fee_of,
    lines_of,
    region_of,
    total,
    unit_price,
    vat_part,
)
from shop.primitives.statuses import PriceLineKind

AMOUNTS = st.integers(0, 1_000_000_000)
RATES = st.integers(0, 10_000)
GOODS = st.builds(
    Goods,
    product_id=st.integers(1, 50),
    quantity=st.integers(1, 1_000),
    price_minor=st.integers(1, 1_000_000),
    vat=st.builds(Vat, basis_points=RATES, is_included=st.booleans()),
)
FEES = st.none() | st.builds(Fee, amount_minor=st.integers(0, 100_000), vat_basis_points=RATES)
KOREAN = Vat(basis_points=1_000, is_included=True)


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[Goods], int, Fee | None]:
    goods = draw(st.lists(GOODS, min_size=1, max_size=10, unique_by=lambda each: each.product_id))
    return goods, draw(st.integers(0, total(lines_of(goods)))), draw(FEES)


def of_kind(lines: list[PriceLine], kind: PriceLineKind) -> list[PriceLine]:
    return [line for line in lines if line.kind == kind]


@given(orders())
def test_total_is_goods_less_discount_and_shipping_to_the_won(
    order: tuple[list[Goods], int, Fee | None],
) -> None:
    goods, discount, fee = order

    lines = lines_of(goods, discount_minor=discount, shipping=fee)

    expected = sum(each.quantity * unit_price(each.price_minor, each.vat) for each in goods)
    assert total(of_kind(lines, PriceLineKind.GOODS)) == expected
    assert total(of_kind(lines, PriceLineKind.DISCOUNT)) == -discount
    assert total(lines) == expected - discount + (fee.amount_minor if fee else 0)


@given(orders())
def test_discount_on_a_product_is_at_most_its_price(
    order: tuple[list[Goods], int, Fee | None],
) -> None:
    goods, discount, fee = order

    lines = lines_of(goods, discount_minor=discount, shipping=fee)

    for each in goods:
        of_product = [line for line in lines if line.product_id == each.product_id]
        assert total(of_product) >= 0
        assert len(of_product) <= 2
    signs = [line.amount_minor > 0 for line in lines]
    assert signs == [line.kind != PriceLineKind.DISCOUNT for line in lines]


@given(amount=AMOUNTS, rate=RATES)
def test_vat_part_is_rounded_half_up_and_opposite_for_a_refund(amount: int, rate: int) -> None:
    part = vat_part(amount, rate)

    error = Fraction(amount * rate, 10_000 + rate) - part
    assert Fraction(-1, 2) <= error < Fraction(1, 2)
    assert part + vat_part(-amount, rate) == 0


@given(price=st.integers(1, 1_000_000), rate=RATES)
def test_added_vat_is_rounded_half_up(price: int, rate: int) -> None:
    added = unit_price(price, Vat(basis_points=rate, is_included=False)) - price

    error = Fraction(price * rate, 10_000) - added
    assert Fraction(-1, 2) <= error < Fraction(1, 2)
    assert unit_price(price, Vat(basis_points=rate, is_included=True)) == price


@given(amount=AMOUNTS, weights=st.lists(AMOUNTS, min_size=1).filter(any))
def test_parts_sum_to_the_whole_and_are_near_their_shares(amount: int, weights: list[int]) -> None:
    parts = divide(amount, weights)

    assert sum(parts) == amount
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(amount * weight, sum(weights))) < 1
        assert weight or not part


@given(amount=AMOUNTS, quantity=st.integers(1, 1_000))
def test_refund_of_all_units_leaves_exactly_zero(amount: int, quantity: int) -> None:
    units = divide(amount, [1] * quantity)

    assert amount - sum(units) == 0
    assert max(units) - min(units) <= 1


@pytest.mark.parametrize(
    ("vat", "price", "amount", "part"),
    [
        (KOREAN, 11_000, 11_000, 1_000),
        (KOREAN, 1_000, 1_000, 91),
        (KOREAN, 5, 5, 0),
        (KOREAN, 6, 6, 1),
        (Vat(basis_points=1_000, is_included=False), 1_005, 1_106, 101),
        (Vat(basis_points=0, is_included=False), 1_005, 1_005, 0),
    ],
)
def test_known_prices(vat: Vat, price: int, amount: int, part: int) -> None:
    (line,) = lines_of([Goods(product_id=1, quantity=1, price_minor=price, vat=vat)])

    assert (line.amount_minor, line.vat_minor) == (amount, part)


def test_known_order_has_each_line_in_its_place() -> None:
    goods = [
        Goods(product_id=number, quantity=number, price_minor=1_000, vat=KOREAN)
        for number in (1, 2)
    ]

    lines = lines_of(
        goods, discount_minor=100, shipping=Fee(amount_minor=3_000, vat_basis_points=0)
    )

    shown: list[tuple[Any, ...]] = [
        (line.kind.value, line.product_id, line.amount_minor, line.vat_minor) for line in lines
    ]
    assert shown == [
        ("GOODS", 1, 1_000, 91),
        ("GOODS", 2, 2_000, 182),
        ("DISCOUNT", 1, -33, -3),
        ("DISCOUNT", 2, -67, -6),
        ("SHIPPING", None, 3_000, 0),
    ]


RULE = FeeRule(
    amount_minor=3_000,
    free_from_minor=50_000,
    vat_basis_points=1_000,
    surcharges=(
        Surcharge(country="KR", first="63000", last="63644", amount_minor=3_000),
        Surcharge(country="KR", first="402", last="402", amount_minor=5_000),
        Surcharge(country="KR", first="63", last="63", amount_minor=9_999),
        Surcharge(country="GB", first="BT", last="BT", amount_minor=7_000),
    ),
)


@pytest.mark.parametrize(
    ("country", "postcode", "region"),
    [
        ("KR", "63000", 0),
        ("KR", "63644", 0),
        ("KR", "63645", 2),
        ("KR", "62999", None),
        ("KR", "40240", 1),
        ("KR", None, None),
        ("KR", "", None),
        ("GB", "BT7 1NN", 3),
        ("GB", "B-T71", 3),
        ("GB", "B", None),
        ("GB", "63000", None),
    ],
)
def test_region_is_the_first_whose_range_has_the_beginning_of_the_postcode(
    country: str, postcode: str | None, region: int | None
) -> None:
    assert region_of(RULE, country=country, postcode=postcode) == region


@pytest.mark.parametrize(
    ("goods", "region", "amount"),
    [
        (0, None, 3_000),
        (49_999, None, 3_000),
        (50_000, None, 0),
        (49_999, 0, 6_000),
        (50_000, 0, 3_000),
        (50_000, 3, 7_000),
    ],
)
def test_fee_is_free_from_an_amount_but_for_the_surcharge(
    goods: int, region: int | None, amount: int
) -> None:
    fee = fee_of(RULE, goods_minor=goods, region=region)

    assert (fee.amount_minor, fee.vat_basis_points) == (amount, 1_000)
