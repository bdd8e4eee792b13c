"""Requests and responses of fulfil_orders."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from shop.primitives.ids import PRODUCT_ID_MAX
from shop.primitives.statuses import ShipmentStatus
from shop.request_models import Moment
from shop.response_models import Return as Return
from shop.response_models import Shipment as Shipment
from shop.runtime.model import Model

LINES_MAX = 100
QUANTITY_MAX = 1000

Carrier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,49}$", max_length=50)]
TrackingNumber = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{3,39}$", max_length=40)
]


class Line(Model):
    """How many units of a product of the order."""

    product_id: Annotated[int, Field(ge=1, le=PRODUCT_ID_MAX)]
    quantity: Annotated[int, Field(ge=1, le=QUANTITY_MAX)]


class NewShipment(Model):
    """The lines to pack together; without ``items`` all that are in no shipment yet."""

    items: Annotated[list[Line], Field(min_length=1, max_length=LINES_MAX)] | None = None

    @model_validator(mode="after")
    def _one_line_per_product(self) -> NewShipment:
        products = [line.product_id for line in self.items or ()]
        if len(set(products)) != len(products):
            raise ValueError("a product may be in one line only")
        return self


class ReturnDecision(Model):
    """Whether the goods may come back; an approved return is rejected when they do not arrive."""

    status: Literal["APPROVED", "REJECTED"]


class RestockedLine(Model):
    """How many of the returned units of a product are put into the stock."""

    product_id: Annotated[int, Field(ge=1, le=PRODUCT_ID_MAX)]
    quantity: Annotated[int, Field(ge=0, le=QUANTITY_MAX)]


class ReturnReceipt(Model):
    """What is put into the stock: without ``restocked`` everything; the rest is written off."""

    restocked: Annotated[list[RestockedLine], Field(max_length=LINES_MAX)] | None = None

    @model_validator(mode="after")
    def _one_line_per_product(self) -> ReturnReceipt:
        products = [line.product_id for line in self.restocked or ()]
        if len(set(products)) != len(products):
            raise ValueError("a product may be in one line only")
        return self


class ShipmentChange(Model):
    """The next status; SHIPPED needs the carrier's code, such as ``cj``, and its number."""

    status: Literal["SHIPPED", "DELIVERED", "CANCELLED"]
    carrier: Carrier | None = None
    tracking_number: TrackingNumber | None = None

    @model_validator(mode="after")
    def _sent_by_a_carrier(self) -> ShipmentChange:
        given = (self.carrier is not None, self.tracking_number is not None)
        if given != (self.status == ShipmentStatus.SHIPPED,) * 2:
            raise ValueError("carrier and trackingNumber are given with SHIPPED, and only then")
        return self


class TrackingReport(Model):
    """What a carrier says of a parcel: that it has it, or that it was delivered, and when."""

    carrier: Carrier
    tracking_number: TrackingNumber
    status: Literal["SHIPPED", "DELIVERED"]
    occurred_at: Moment
