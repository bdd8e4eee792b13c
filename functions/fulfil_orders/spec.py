"""Staff pack and send the goods of orders."""

from __future__ import annotations

from shop.primitives.spec import FunctionSpec, Route, Scale

SPEC = FunctionSpec(
    name="fulfil_orders",
    summary="Let staff pack orders, send them, and record their delivery.",
    database_role="ordering",
    cold_start_budget=1.5,
    needs=("postgres",),
    emits=("shipment.created", "shipment.shipped", "shipment.delivered"),
    scale=Scale(concurrency=4, max_scale=2),
    routes=(
        Route(
            method="POST",
            path="/admin/orders/{orderId}/shipments",
            handler="create_shipment",
            auth="staff",
            group="admin",
            summary="Begin to pack lines of a paid order, or all that are in no shipment.",
            body="NewShipment",
            body_is_optional=True,
            response="Shipment",
            status=201,
            error_statuses=(404, 409, 422),
            headers=("Location",),
            idempotent=True,
            writes=True,
        ),
        Route(
            method="PATCH",
            path="/admin/orders/{orderId}/shipments/{shipmentId}",
            handler="change_shipment",
            auth="staff",
            group="admin",
            summary="Record that a shipment was sent, was delivered, or will not be sent.",
            body="ShipmentChange",
            response="Shipment",
            error_statuses=(404, 409, 422),
            idempotent=True,
            writes=True,
        ),
    ),
)
