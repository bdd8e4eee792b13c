"""Requests and responses of manage_products."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    RootModel,
    StringConstraints,
    model_validator,
)

from shop.primitives.languages import Phrase
from shop.primitives.statuses import (
    STOCK_DECREASES,
    CouponState,
    PriceRuleState,
    PriceScheduleState,
    StockMove,
)
from shop.primitives.text import many_lines, one_line
from shop.request_models import Moment
from shop.runtime.model import (
    ONE_LINE,
    CouponCode,
    CurrencyCode,
    Model,
    PageSize,
    QueryModel,
    QueryNumber,
    Timestamp,
    Uuid,
)

PRICE_MAX = 1_000_000_000
STOCK_MAX = 1_000_000
NAME_LENGTH_MAX = 200
DESCRIPTION_LENGTH_MAX = 2_000
CATEGORY_LENGTH_MAX = 50
OPTION_LENGTH_MAX = 50
OPTIONS_MAX = 5
IMAGES_MAX = 10
ALTERNATIVE_LENGTH_MAX = 300
URL_LENGTH_MAX = 2_000
# browsers block images of other protocols in pages of https
IMAGE_URL = r"^https://[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*/[!#-;=?-\[\]_a-z~]*$"


def _without_spaces_around(text: str) -> str:
    if text != text.strip():
        raise ValueError("must not begin or end with a space")
    return text


Name = Annotated[
    str,
    Field(pattern=ONE_LINE),
    AfterValidator(partial(one_line, length_max=NAME_LENGTH_MAX)),
    AfterValidator(_without_spaces_around),
    Field(min_length=1, max_length=NAME_LENGTH_MAX),
]
Description = Annotated[
    str,
    AfterValidator(partial(many_lines, length_max=DESCRIPTION_LENGTH_MAX)),
    Field(max_length=DESCRIPTION_LENGTH_MAX),
]
CategoryName = Annotated[
    str,
    Field(pattern=ONE_LINE),
    AfterValidator(partial(one_line, length_max=CATEGORY_LENGTH_MAX)),
    AfterValidator(_without_spaces_around),
    Field(min_length=1, max_length=CATEGORY_LENGTH_MAX),
]
OptionName = Annotated[
    str,
    Field(pattern=ONE_LINE),
    AfterValidator(partial(one_line, length_max=OPTION_LENGTH_MAX)),
    AfterValidator(_without_spaces_around),
    Field(min_length=1, max_length=OPTION_LENGTH_MAX),
]
AlternativeText = Annotated[
    str,
    Field(pattern=ONE_LINE),
    AfterValidator(partial(one_line, length_max=ALTERNATIVE_LENGTH_MAX)),
    Field(min_length=1, max_length=ALTERNATIVE_LENGTH_MAX),
]


ImageUrl = Annotated[str, StringConstraints(pattern=IMAGE_URL, max_length=URL_LENGTH_MAX)]
Price = Annotated[int, Field(ge=1, le=PRICE_MAX, description="In the currency's minor unit.")]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217; the shop's own.")]


def _reason(text: object) -> object:
    """Why staff change the stock: not the kinds of moves that orders make."""
    return StockMove(text) if isinstance(text, str) and text in _REASONS else text


_REASONS = ("RESTOCK", "DAMAGE", "LOSS", "SUPPLIER_RETURN", "CUSTOMER_RETURN", "COUNT")
StockReason = Annotated[
    Literal[
        StockMove.RESTOCK,
        StockMove.DAMAGE,
        StockMove.LOSS,
        StockMove.SUPPLIER_RETURN,
        StockMove.CUSTOMER_RETURN,
        StockMove.COUNT,
    ],
    BeforeValidator(_reason),
]
Cursor = Annotated[QueryNumber, Field(ge=1)]


def _without_repetition(options: list[str]) -> list[str]:
    if len(set(options)) != len(options):
        raise ValueError("must name each option once")
    return options


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


# null is rejected; None means that the property is absent
_OPTIONAL: Any = Field(
    default=None,
    exclude_if=lambda value: value is None,
    json_schema_extra=_without_default,
)


class Image(Model):
    """An image elsewhere, and the text for those who cannot see it (WCAG 2.2, 1.1.1)."""

    url: ImageUrl
    alt: AlternativeText


Images = Annotated[list[Image], Field(max_length=IMAGES_MAX)]


class Membership(Model):
    """The group that a product is in, and its value of each of the group's options."""

    id: Annotated[int, Field(ge=1, le=2**63 - 1)]
    options: Annotated[dict[OptionName, OptionName], Field(min_length=1, max_length=OPTIONS_MAX)]


class Translation(Model):
    """A product's texts in another language; without a description its own is shown.

    ``imageAlts`` are the alternative texts of its images, in their order.
    """

    name: Name
    description: Description = _OPTIONAL
    image_alts: Annotated[list[AlternativeText], Field(max_length=IMAGES_MAX)] = _OPTIONAL


Translations = Annotated[
    dict[Literal["ko", "en"], Translation],
    Field(description="By language, other than the shop's, in which the product's own texts are."),
]


class NewProduct(Model):
    """A new product and its initial stock."""

    name: Name
    description: Description = ""
    category: CategoryName
    price: Price
    currency: Currency | None = None
    stock_quantity: Annotated[int, Field(ge=0, le=STOCK_MAX)]
    images: Images = Field(default_factory=list[Image])
    translations: Translations = Field(default_factory=dict[Literal["ko", "en"], Translation])
    flash_sale: bool = False  # an account may have two unpaid orders of it at a time


class ProductChange(Model):
    """The properties to change, at least one; stock is changed by restocking.

    ``images`` and ``translations`` replace all of them, the first image is the main one; ``group``
    null takes the product out
    of its group.
    """

    name: Name = _OPTIONAL
    description: Description = _OPTIONAL
    category: CategoryName = _OPTIONAL
    price: Price = _OPTIONAL
    active: bool = _OPTIONAL  # false ends the sale of the product
    flash_sale: bool = _OPTIONAL
    images: Images = _OPTIONAL
    translations: Translations = _OPTIONAL
    group: Annotated[Membership | None, Field(json_schema_extra=_without_default)] = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change")
        return self


class StockChange(Model):
    """The quantity to add to the stock, negative to take it away, and why.

    ``DAMAGE``, ``LOSS`` and ``SUPPLIER_RETURN`` take away, ``COUNT`` does either, others add.
    """

    quantity: Annotated[int, Field(ge=-STOCK_MAX, le=STOCK_MAX)]
    reason: StockReason = StockMove.RESTOCK

    @model_validator(mode="after")
    def _changes_as_the_reason_says(self) -> Self:
        adds, takes = self.quantity > 0, self.quantity < 0
        if not (adds or takes):
            raise ValueError("quantity must not be 0")
        if self.reason != StockMove.COUNT and takes != (self.reason in STOCK_DECREASES):
            sign = "negative" if adds else "positive"
            message = "quantity must be {sign} for the reason {reason}"
            raise ValueError(Phrase(message, sign=sign, reason=self.reason))
        return self


class ListProducts(QueryModel):
    """``active`` false lists withdrawn products; ``cursor`` is the id of the last one before."""

    active: Literal["true", "false"] | None = None
    name: Annotated[
        Name | None, Field(description="Part of the name, in either case; no pattern.")
    ] = None
    limit: PageSize = 20
    cursor: Cursor | None = None


class ListChanges(QueryModel):
    """Keyset paging: ``cursor`` is the seq of the last change before."""

    limit: PageSize = 20
    cursor: Cursor | None = None


class Move(Model):
    """A change of the stock on hand; ``COMMIT`` and ``RETURN`` are those of an order."""

    seq: int
    kind: StockMove
    quantity: int
    order_id: Uuid | None
    moved_at: Timestamp


class StockHistory(Model):
    """What is on hand and how much of it is reserved now, and a page of changes, newest first."""

    on_hand: int
    reserved: int
    moves: list[Move]


class NewPriceSchedule(Model):
    """A price from ``startsAt`` until ``endsAt``, after which the price is what it was before."""

    price: Price
    starts_at: Moment
    ends_at: Moment

    @model_validator(mode="after")
    def _starts_before_it_ends(self) -> Self:
        if self.starts_at >= self.ends_at:
            raise ValueError("startsAt must be before endsAt")
        return self


class PriceSchedule(Model):
    """A price for a time; ``regularPrice`` is the price before, once the time has begun.

    ``MISSED``: its whole time passed while no due job ran, so it changed no price.
    """

    id: Uuid
    price: int
    regular_price: int | None
    starts_at: Timestamp
    ends_at: Timestamp
    state: PriceScheduleState
    created_by: int


class PriceChange(Model):
    """A change of the price, by an account or by a schedule; ``from`` is null for the first one."""

    seq: int
    from_: Annotated[int | None, Field(alias="from")]
    to: int
    changed_at: Timestamp
    changed_by: int | None
    schedule_id: Uuid | None


class Prices(Model):
    """The price now, its planned and active schedules, and a page of its history, newest first."""

    price: int
    currency: CurrencyCode
    schedules: list[PriceSchedule]
    changes: list[PriceChange]


Limit = Annotated[int, Field(ge=1, le=1_000_000_000)]


class NewCoupon(Model):
    """What a coupon takes off the goods of an order: an amount, or a part of at most a maximum.

    ``goodsMinimum`` is what the goods must cost; without ``startsAt`` it can be used at once.
    """

    code: CouponCode
    discount_amount: Price | None = None
    discount_basis_points: Annotated[int, Field(ge=1, le=10_000)] | None = None
    discount_maximum: Price | None = None
    currency: Currency | None = None
    goods_minimum: Annotated[int, Field(ge=0, le=PRICE_MAX)] = 0
    combinable: bool = False
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    uses_maximum: Limit | None = None
    uses_per_customer_maximum: Limit | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.discount_amount is None) == (self.discount_basis_points is None):
            raise ValueError("give either discountAmount or discountBasisPoints")
        if self.discount_maximum is not None and self.discount_basis_points is None:
            raise ValueError("discountMaximum belongs to discountBasisPoints")
        if self.starts_at and self.ends_at and self.starts_at >= self.ends_at:
            raise ValueError("startsAt must be before endsAt")
        return self


class CouponChange(Model):
    """Until when, and how often in all, a coupon may be used; null is no limit."""

    ends_at: Annotated[Moment | None, Field(json_schema_extra=_without_default)] = None
    uses_maximum: Annotated[Limit | None, Field(json_schema_extra=_without_default)] = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change")
        return self


class ListCoupons(QueryModel):
    """Keyset paging: ``cursor`` is the code of the last coupon before."""

    limit: PageSize = 20
    cursor: CouponCode | None = None


class Coupon(Model):
    """A coupon; ``uses`` are those of orders that are not paid yet, or were paid."""

    code: str
    discount_amount: int | None
    discount_basis_points: int | None
    discount_maximum: int | None
    currency: CurrencyCode
    goods_minimum: int
    combinable: bool
    starts_at: Timestamp
    ends_at: Timestamp | None
    uses_maximum: int | None
    uses_per_customer_maximum: int | None
    uses: int
    state: CouponState
    created_at: Timestamp


class Coupons(RootModel[list[Coupon]]):
    """A page of coupons, by code."""


PostcodePart = Annotated[str, Field(pattern=r"^[A-Z0-9]{1,10}$")]


class ShippingSurcharge(Model):
    """What shipping costs more for postcodes that begin with any text of this range."""

    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")] = "KR"
    postcode_from: PostcodePart
    postcode_to: PostcodePart
    amount: Price

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if len(self.postcode_from) != len(self.postcode_to):
            raise ValueError("postcodeFrom and postcodeTo must have the same length")
        if self.postcode_from > self.postcode_to:
            raise ValueError("postcodeFrom must not be after postcodeTo")
        return self


class NewShippingFee(Model):
    """What shipping costs from ``startsAt``, at once without it, VAT included.

    Nothing for goods that cost ``freeFrom`` less discounts; the surcharge of the first region that
    has the postcode is added in any case.
    """

    amount: Annotated[int, Field(ge=0, le=PRICE_MAX)]
    free_from: Price | None = None
    vat_percent: Annotated[int, Field(ge=0, le=100)] = 10
    surcharges: Annotated[list[ShippingSurcharge], Field(max_length=100)] = Field(
        default_factory=list[ShippingSurcharge]
    )
    starts_at: Moment | None = None


class ListVersions(QueryModel):
    """Keyset paging: ``cursor`` is the last version of the page before."""

    limit: PageSize = 20
    cursor: Cursor | None = None


class ShippingFee(Model):
    """A version of what shipping costs; it is ACTIVE while it applies."""

    version: int
    amount: int
    free_from: int | None
    vat_percent: int
    currency: CurrencyCode
    surcharges: list[ShippingSurcharge]
    starts_at: Timestamp
    state: PriceRuleState
    created_at: Timestamp


class ShippingFees(RootModel[list[ShippingFee]]):
    """A page of versions, the highest first."""


class NewCategory(Model):
    """A new category; where prices do not contain VAT, orders add it to them."""

    name: CategoryName
    vat_percent: Annotated[int, Field(ge=0, le=100)] = 10
    vat_included: bool = True


class Category(Model):
    """A category, known by its name, with the VAT of its products."""

    name: str
    vat_percent: int
    vat_included: bool


class StaffProduct(Model):
    """A product as staff see it, for sale (``active``) or not."""

    id: int
    name: str
    description: str
    category: str
    price: int
    currency: CurrencyCode
    stock_quantity: int
    active: bool
    flash_sale: bool
    images: list[Image]
    translations: dict[str, Translation]
    group: Membership | None


class StaffProducts(RootModel[list[StaffProduct]]):
    """A page of products, newest first."""


Options = Annotated[
    list[OptionName],
    AfterValidator(_without_repetition),
    Field(min_length=1, max_length=OPTIONS_MAX),
]


class NewProductGroup(Model):
    """A group of products that differ in the values of its options, such as size and colour."""

    name: Name
    options: Options


class ProductGroupChange(Model):
    """The properties to change, at least one; options are renamed in their order."""

    name: Name = _OPTIONAL
    options: Options = _OPTIONAL

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change")
        return self


class ListGroups(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last group before."""

    limit: PageSize = 20
    cursor: Cursor | None = None


class GroupMember(Model):
    """A product of a group, for sale (``active``) or not, with its value of each option."""

    product_id: int
    options: dict[str, str]
    active: bool


class ListedGroup(Model):
    """A group without its members."""

    id: int
    name: str
    options: list[str]


class ProductGroups(RootModel[list[ListedGroup]]):
    """A page of groups, newest first."""


class ProductGroup(Model):
    """A group with its members, by the ids of their products."""

    id: int
    name: str
    options: list[str]
    members: list[GroupMember]
