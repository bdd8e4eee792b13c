"""Requests and responses of manage_orders."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, RootModel, model_validator

from shop.accounts import EMAIL_LENGTH_MAX, check_email
from shop.notes import TEXT_LENGTH_MAX
from shop.primitives.ids import parse_uuid
from shop.primitives.languages import Phrase
from shop.primitives.statuses import (
    AccountState,
    DisputeStatus,
    OrderStatus,
    PaymentStatus,
    PostingKind,
    RefundMeans,
    RefundOrigin,
    RefundStatus,
)
from shop.primitives.text import many_lines, one_line
from shop.response_models import OrderAddress, OrderPriceLine, Return, Shipment
from shop.runtime.model import (
    BusinessDay,
    CurrencyCode,
    Model,
    PageSize,
    QueryModel,
    QueryNumber,
    Timestamp,
    Uuid,
)

REASON_LENGTH_MAX = 500


def _order_id(text: str) -> str:
    if parse_uuid(text) is None:
        raise ValueError("must be the id of an order")
    return text


def _row_id(text: str) -> str:
    if parse_uuid(text) is None:
        raise ValueError("must be an id of the list")
    return text


RowId = Annotated[
    str, AfterValidator(_row_id), Field(json_schema_extra={"format": "uuid"}, max_length=36)
]
OrderId = Annotated[
    str, AfterValidator(_order_id), Field(json_schema_extra={"format": "uuid"}, max_length=36)
]
Email = Annotated[str, AfterValidator(check_email), Field(max_length=EMAIL_LENGTH_MAX)]
ObjectId = Annotated[QueryNumber, Field(ge=1)]
Amount = Annotated[QueryNumber, Field(ge=0)]


class OrderCriteria(QueryModel):
    """Criteria are combined; days are business days and, like totals, inclusive."""

    id: OrderId | None = None
    user_id: ObjectId | None = None
    email: Email | None = None
    product_id: ObjectId | None = None
    status: OrderStatus | None = None
    from_day: BusinessDay | None = None
    to_day: BusinessDay | None = None
    min_total: Amount | None = None
    max_total: Amount | None = None

    @model_validator(mode="after")
    def _one_customer(self) -> Self:
        if self.user_id is not None and self.email is not None:
            raise ValueError("give userId or email, not both")
        return self


class SearchOrders(OrderCriteria):
    """Keyset paging: ``cursor`` is the id of the last order before."""

    limit: PageSize = 20
    cursor: OrderId | None = None


class ExportOrders(OrderCriteria):
    """With ``bom=true`` the file begins with a byte order mark, for spreadsheets that need one."""

    bom: Literal["true", "false"] = "false"


class ReadCustomer(QueryModel):
    """Keyset paging of the orders: ``cursor`` is the id of the last order before."""

    limit: PageSize = 20
    cursor: OrderId | None = None


def _note_text(text: str) -> str:
    text = many_lines(text, length_max=TEXT_LENGTH_MAX)
    if not text.strip():
        raise ValueError(
            Phrase(
                "must have 1 to {length_max} characters, not only spaces",
                length_max=TEXT_LENGTH_MAX,
            )
        )
    return text


def _reason_text(text: str) -> str:
    text = one_line(text, length_max=REASON_LENGTH_MAX)
    if not text.strip():
        raise ValueError(
            Phrase(
                "must have 1 to {length_max} characters, not only spaces",
                length_max=REASON_LENGTH_MAX,
            )
        )
    return text.strip()


class NewNote(Model):
    """A note for other operators."""

    text: Annotated[
        str, AfterValidator(_note_text), Field(min_length=1, max_length=TEXT_LENGTH_MAX)
    ]


class FoundOrder(Model):
    """An order as it is listed; ``reason`` is that of a cancellation."""

    id: Uuid
    user_id: int
    status: OrderStatus
    reason: str | None
    total_amount: int
    currency: CurrencyCode
    created_at: Timestamp


class Total(Model):
    """The number of orders that match; unless ``exact``, there are more than this."""

    count: int
    exact: bool


class FoundOrders(Model):
    """A page of orders, newest first."""

    orders: list[FoundOrder]
    total: Total


class Line(Model):
    """A line at the price at which it was ordered, with the product's present name."""

    product_id: int
    product_name: str
    quantity: int
    unit_price: int
    line_amount: int


class Payment(Model):
    """An attempt to collect the total; a ``late`` capture is returned."""

    id: Uuid
    attempt: int
    status: PaymentStatus
    amount: int
    currency: CurrencyCode
    payment_method: str
    late: bool
    provider_key: str
    provider_reference: str | None
    reserved_for_refunds: int
    created_at: Timestamp
    updated_at: Timestamp


class Refund(Model):
    """Money to return; ``requestedBy`` is an operator's account."""

    id: Uuid
    payment_id: Uuid
    status: RefundStatus
    amount: int
    currency: CurrencyCode
    reason: str
    requested_by: int | None
    origin: RefundOrigin
    means: RefundMeans
    reference: str | None
    restock: bool
    provider_key: str
    created_at: Timestamp
    updated_at: Timestamp


class Dispute(Model):
    """A dispute about a payment."""

    id: Uuid
    payment_id: Uuid
    status: DisputeStatus
    amount: int
    currency: CurrencyCode
    provider_reference: str
    created_at: Timestamp
    updated_at: Timestamp


class ReturnRecord(Return):
    """A return, with what its customer wrote."""

    reason: str


class StatusChange(Model):
    """A status change of the order or of what refers to it; ``actor`` is an account or function."""

    at: Timestamp
    entity: Literal["order", "payment", "refund", "dispute", "reservation", "shipment", "return"]
    id: Uuid
    from_: Annotated[str, Field(alias="from")]
    to: str
    actor: str
    event_id: Uuid | None


class Posting(Model):
    """A posting of the ledger, and the business day in whose settlement it is."""

    seq: int
    kind: PostingKind
    source_id: Uuid
    debit: str
    credit: str
    amount: int
    currency: CurrencyCode
    posted_at: Timestamp
    settled_on: str | None


class Delivery(Model):
    """A consumer of an event, and when it consumed it."""

    consumer: str
    received_at: Timestamp | None


class Event(Model):
    """An event about the order; the outbox keeps it for 30 days after its consumption."""

    id: Uuid
    type: str
    source: str
    traceparent: str
    created_at: Timestamp
    sent_at: Timestamp | None
    done_at: Timestamp | None
    quarantined_at: Timestamp | None
    deliveries: list[Delivery]


class Note(Model):
    """A note, and the account of its author."""

    id: Uuid
    author_id: int
    text: str
    created_at: Timestamp


class OrderRecords(Model):
    """An order and everything that refers to it, oldest first, but notes newest first."""

    id: Uuid
    user_id: int
    status: OrderStatus
    reason: str | None
    total_amount: int
    currency: CurrencyCode
    payment_method: str
    created_at: Timestamp
    updated_at: Timestamp
    expires_at: Timestamp
    shipping_address: OrderAddress | None
    items: list[Line]
    price_lines: list[OrderPriceLine]
    payments: list[Payment]
    refunds: list[Refund]
    disputes: list[Dispute]
    shipments: list[Shipment]
    returns: list[ReturnRecord]
    status_history: list[StatusChange]
    postings: list[Posting]
    events: list[Event]
    notes: list[Note]


class Session(Model):
    """An open session; ``renewedAt`` is when it last got a refresh token."""

    id: Uuid
    created_at: Timestamp
    renewed_at: Timestamp
    expires_at: Timestamp


class Customer(Model):
    """An account with a page of its orders, its open sessions and the newest notes about it."""

    id: int
    email: str
    name: str
    role: str
    state: AccountState
    language: Literal["ko", "en"]
    created_at: Timestamp
    orders: list[FoundOrder]
    sessions: list[Session]
    notes: list[Note]


Reason = Annotated[
    str, AfterValidator(_reason_text), Field(min_length=1, max_length=REASON_LENGTH_MAX)
]


class ListAlerts(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last alert before."""

    state: Literal["OPEN", "RESOLVED"] = "OPEN"
    limit: PageSize = 20
    cursor: RowId | None = None


class Alert(Model):
    """What an operator must look at; ``note`` is what a person wrote who resolved it."""

    id: Uuid
    kind: str
    subject: str
    detail: str
    raised_at: Timestamp
    resolved_at: Timestamp | None
    note: str | None


class Alerts(RootModel[list[Alert]]):
    """A page of alerts: open ones, newest first, or those resolved last."""


class Resolution(Model):
    """What was done about the alert."""

    note: Reason


class ListDeadLetters(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last dead letter before."""

    state: Literal["OPEN", "ALL"] = "OPEN"
    limit: PageSize = 20
    cursor: RowId | None = None


class DeadLetter(Model):
    """An event that ran out of retries; open until it is replayed or dropped."""

    id: Uuid
    type: str
    subject: str | None
    destination: str
    error_code: str | None
    received_at: Timestamp
    replayed_at: Timestamp | None
    dropped_at: Timestamp | None


class DeadLetters(RootModel[list[DeadLetter]]):
    """A page of dead letters, newest first."""


class WholeDeadLetter(DeadLetter):
    """A dead letter with its event as it was received, and what its consumer responded."""

    event_id: str
    source: str
    response: str
    headers: dict[str, str]
    body: str
    dropped_reason: str | None


class DropReason(Model):
    """Why an event will never be processed."""

    reason: Reason
