"""Requests and responses of manage_webhooks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    RootModel,
    StringConstraints,
    model_validator,
)

from shop.primitives.ids import parse_uuid
from shop.primitives.statuses import DeliveryState, DisabledBy, WebhookState
from shop.runtime.model import Model, PageSize, QueryModel, Timestamp, Uuid
from shop.webhooks import EVENT_TYPES, URL_LENGTH_MAX

# no user information, which would be logged, and no fragment, which would not be sent
URL = r"^https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?(?:[/?][!-\"$-~]*)?$"


def _check_host_and_port(url: str) -> str:
    """ValueError for a host in brackets that is no address, or a port above 65535."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("is no URL") from None
    return url


Url = Annotated[
    str,
    StringConstraints(pattern=URL, max_length=URL_LENGTH_MAX),
    AfterValidator(_check_host_and_port),
]
EventType = Literal[
    "order.paid",
    "order.cancelling",
    "order.cancelled",
    "order.refunded",
    "payment.captured",
    "payment.declined",
    "refund.succeeded",
    "refund.rejected",
    "shipment.created",
    "shipment.shipped",
    "shipment.delivered",
    "return.requested",
    "return.approved",
    "return.rejected",
    "return.received",
]


def _without_repetition(types: list[str]) -> list[str]:
    if len(set(types)) != len(types):
        raise ValueError("must name each type once")
    return types


EventTypes = Annotated[
    list[EventType],
    AfterValidator(_without_repetition),
    Field(min_length=1, max_length=len(EVENT_TYPES)),
]


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


# null is rejected; None means that the property is absent
_OPTIONAL: Any = Field(
    default=None,
    exclude_if=lambda value: value is None,
    json_schema_extra=_without_default,
)


def _moment(text: object) -> object:
    """Only RFC 3339 with a zone: a strict model accepts no text, and a lax one also numbers."""
    if not isinstance(text, str):
        raise ValueError("must be a time such as 2026-02-01T00:00:00Z")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a time such as 2026-02-01T00:00:00Z") from None
    if moment.tzinfo is None or len(text) < len("2026-02-01T00:00:00Z"):
        raise ValueError("must be a time with a zone, such as 2026-02-01T00:00:00Z")
    return moment


Moment = Annotated[datetime, BeforeValidator(_moment)]


def _event_id(text: str) -> str:
    if parse_uuid(text) is None:
        raise ValueError("must be the id of an event")
    return text


class NewWebhook(Model):
    """Where to send events of which types; the address is https but for the local profile."""

    url: Url
    event_types: EventTypes


class WebhookChange(Model):
    """The properties to change, at least one."""

    url: Url = _OPTIONAL
    event_types: EventTypes = _OPTIONAL
    state: Literal["ACTIVE", "DISABLED"] = _OPTIONAL

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("there is nothing to change")
        return self


class Webhook(Model):
    """A webhook; ``failingSince`` is when the first of the latest failures in a row was."""

    id: Uuid
    url: str
    event_types: list[EventType]
    state: WebhookState
    disabled_by: DisabledBy | None
    failing_since: Timestamp | None
    previous_secret_valid_until: Timestamp | None
    created_at: Timestamp


class Webhooks(RootModel[list[Webhook]]):
    """Every webhook, oldest first."""


class CreatedWebhook(Webhook):
    """A new webhook with its secret, which no other response shows."""

    secret: str


class Rotation(Model):
    """How long the secret until now stays valid."""

    overlap_hours: Annotated[int, Field(ge=0, le=168)] = 24


class NewSecret(Model):
    """The new secret, which no other response shows."""

    secret: str
    previous_secret_valid_until: Timestamp


class TestResult(Model):
    """What the receiver responded; without a status, ``error`` says why there is no response."""

    delivered: bool
    status: int | None
    error: str | None
    milliseconds: int
    request_head: str
    response_head: str


class ListDeliveries(QueryModel):
    """Keyset paging: ``cursor`` is the id of the last event before."""

    state: Literal["PENDING", "DELIVERED", "FAILED"] | None = None
    limit: PageSize = 20
    cursor: (
        Annotated[
            str,
            AfterValidator(_event_id),
            Field(json_schema_extra={"format": "uuid"}, max_length=36),
        ]
        | None
    ) = None


class Delivery(Model):
    """The delivery of one event; ``nextTryAt`` is null unless it is pending."""

    event_id: Uuid
    type: EventType
    state: DeliveryState
    attempts: int
    created_at: Timestamp
    next_try_at: Timestamp | None
    delivered_at: Timestamp | None


class Deliveries(RootModel[list[Delivery]]):
    """A page of deliveries, newest event first."""


class Attempt(Model):
    """One request; without a status, ``error`` says why there was no response."""

    number: int
    at: Timestamp
    milliseconds: int
    status: int | None
    error: str | None
    request_head: str
    response_head: str


class DeliveryWithAttempts(Delivery):
    """A delivery, and its newest hundred attempts."""

    log: list[Attempt]


class Range(Model):
    """Events from a time up to another one; those delivered already only if wanted."""

    from_time: Moment
    to_time: Moment
    include_delivered: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.from_time >= self.to_time:
            raise ValueError("fromTime must be before toTime")
        return self


class Redeliveries(Model):
    """How many deliveries were scheduled; unless ``complete``, ask again from ``lastEventAt``."""

    deliveries: int
    complete: bool
    last_event_at: Timestamp | None
