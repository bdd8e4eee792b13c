"""What an order costs: lines whose sum is the total, by one function for carts and for orders.

Amounts are integers in the currency's minor unit and contain VAT; each line states the part that is
VAT.  Rounding: VAT that is added to a unit price, and the VAT part of a line, are rounded half up
to the minor unit, each by itself; the part of a negative amount is that of the positive one,
negated, so an amount and its refund have opposite parts.  A discount that is a part of the goods is
rounded down.  What is divided among several lines or
units is divided so that the first parts of it, summed, are the exact share rounded down: all parts
sum to the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from events.records import frozen
from shop.primitives.statuses import PriceLineKind

WHOLE = 10_000  # basis points


@frozen(kw_only=True)
class Vat:
    """A rate in basis points (10 % is 1,000), and whether prices contain it already."""

    basis_points: int
    is_included: bool


@frozen(kw_only=True)
class Goods:
    """A quantity of one product; ``price_minor`` is the price of one in the catalogue."""

    product_id: int
    quantity: int
    price_minor: int
    vat: Vat


@frozen(kw_only=True)
class Fee:
    """What shipping costs, VAT included."""

    amount_minor: int
    vat_basis_points: int


@frozen(kw_only=True)
class Surcharge:
    """What shipping costs more in a region: postcodes whose beginnings are in a range."""

    country: str
    first: str
    last: str
    amount_minor: int


@frozen(kw_only=True)
class FeeRule:
    """What shipping costs, VAT included: nothing from an amount of goods, but for surcharges."""

    amount_minor: int
    free_from_minor: int | None
    vat_basis_points: int
    surcharges: tuple[Surcharge, ...]


@frozen(kw_only=True)
class Discount:
    """What is taken off goods: an amount, or a part in basis points, of at most a maximum."""

    amount_minor: int | None = None
    basis_points: int | None = None
    maximum_minor: int | None = None


@frozen(kw_only=True)
class PriceLine:
    """A part of a total; a discount is negative and is given on a product."""

    kind: PriceLineKind
    product_id: int | None
    amount_minor: int
    vat_basis_points: int

    @property
    def vat_minor(self) -> int:
        """The part of the amount that is VAT."""
        return vat_part(self.amount_minor, self.vat_basis_points)


def lines_of(
    goods: Sequence[Goods], *, discount_minor: int = 0, shipping: Fee | None = None
) -> list[PriceLine]:
    """The lines of a cart or an order, whose amounts sum to its total.

    A discount, of at most the sum of the goods, is divided among them in proportion to their
    amounts.
    """
    lines = [
        PriceLine(
            kind=PriceLineKind.GOODS,
            product_id=each.product_id,
            amount_minor=each.quantity * unit_price(each.price_minor, each.vat),
            vat_basis_points=each.vat.basis_points,
        )
        for each in goods
    ]
    amounts = [line.amount_minor for line in lines]
    assert 0 <= discount_minor <= sum(amounts), "a discount is a part of the goods"
    parts = divide(discount_minor, amounts) if discount_minor else []
    lines += [
        PriceLine(
            kind=PriceLineKind.DISCOUNT,
            product_id=line.product_id,
            amount_minor=-part,
            vat_basis_points=line.vat_basis_points,
        )
        for line, part in zip(lines, parts, strict=False)
        if part
    ]
    if shipping is not None and shipping.amount_minor:
        lines.append(
            PriceLine(
                kind=PriceLineKind.SHIPPING,
                product_id=None,
                amount_minor=shipping.amount_minor,
                vat_basis_points=shipping.vat_basis_points,
            )
        )
    return lines


def discount_of(discount: Discount, goods_minor: int, *, left_minor: int) -> int:
    """What a discount takes off goods, at most what other discounts have left of them."""
    if discount.amount_minor is not None:
        return min(discount.amount_minor, left_minor)
    assert discount.basis_points is not None, "a discount is an amount or a part"
    part = goods_minor * discount.basis_points // WHOLE
    return min(part, discount.maximum_minor or part, left_minor)


def region_of(rule: FeeRule, *, country: str, postcode: str | None) -> int | None:
    """The number, from 0, of the first region in which a postcode is; None where there is none.

    Spaces and hyphens in the postcode do not count.
    """
    letters = (postcode or "").replace(" ", "").replace("-", "")
    for number, region in enumerate(rule.surcharges):
        beginning = letters[: len(region.first)]
        if region.country == country and region.first <= beginning <= region.last:
            return number
    return None


def fee_of(rule: FeeRule, *, goods_minor: int, region: int | None) -> Fee:
    """What shipping costs for goods of this amount, less discounts; a surcharge is always added."""
    is_free = rule.free_from_minor is not None and goods_minor >= rule.free_from_minor
    surcharge_minor = 0 if region is None else rule.surcharges[region].amount_minor
    return Fee(
        amount_minor=(0 if is_free else rule.amount_minor) + surcharge_minor,
        vat_basis_points=rule.vat_basis_points,
    )


def unit_price(price_minor: int, vat: Vat) -> int:
    """What one costs: the catalogue's price, and VAT where that does not contain it."""
    if vat.is_included:
        return price_minor
    return price_minor + _half_up(price_minor * vat.basis_points, WHOLE)


def vat_part(amount_minor: int, basis_points: int) -> int:
    """The part of an amount that is VAT of this rate."""
    part = _half_up(abs(amount_minor) * basis_points, WHOLE + basis_points)
    return part if amount_minor >= 0 else -part


def total(lines: Sequence[PriceLine]) -> int:
    """The sum of the lines' amounts."""
    return sum(line.amount_minor for line in lines)


def divide(amount_minor: int, weights: Sequence[int]) -> list[int]:
    """Parts of an amount in proportion to weights, which are not negative nor all zero."""
    whole = sum(weights)
    shares = [amount_minor * sum_ // whole for sum_ in accumulate(weights, initial=0)]
    return [after - before for before, after in pairwise(shares)]


def _half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)
