"""Packs and sends the goods of orders, takes returned ones back, and hears of carriers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, assert_never

from shop import audit_log
from shop.adapters import db
from shop.audit_log import Action
from shop.messaging import inbox
from shop.orders import apply, decide, queries, returns, shipments
from shop.orders.lines import Line
from shop.orders.messages import (
    ReturnApproved,
    ReturnReceived,
    ReturnRejected,
    ShipmentArrived,
    ShipmentDropped,
    ShipmentRequested,
    ShipmentSent,
)
from shop.primitives import failpoints
from shop.primitives.errors import ClientError, not_found
from shop.primitives.failpoints import Failpoint
from shop.primitives.ids import new_uuid, parse_uuid
from shop.primitives.messages import Request, Response
from shop.primitives.statuses import ReturnStatus, ShipmentStatus

if TYPE_CHECKING:
    from uuid import UUID

    from functions.fulfil_orders.schema import (
        NewShipment,
        ReturnDecision,
        ReturnReceipt,
        ShipmentChange,
        TrackingReport,
    )
    from shop.adapters.db import Transaction
    from shop.orders.apply import OrderRows
    from shop.orders.messages import Message
    from shop.orders.states import OrderState, Return
    from shop.runtime.request_context import RequestContext

CARRIER_ROLE = "carrier"


def create_shipment(request: Request[NewShipment, None], context: RequestContext) -> Response:
    """201 with the shipment, which is PREPARING; its lines can no longer be cancelled.

    409 NOT_SHIPPABLE unless the order is paid and keeps money, EXCEEDS_ORDER for more than what is
    in no shipment yet.
    """
    tx, shipment_id = context.tx, new_uuid()
    rows = apply.lock_any(tx, queries.id_in(request.path))
    lines = _lines(request.body, rows.state)
    decided = apply.decide_on(rows, ShipmentRequested(shipment_id, lines))
    order_id = rows.order.order_id
    entry = audit_log.record(
        audit_log.actor_of(request),
        Action.ORDER_SHIPMENT_CREATED,
        order_id,
        after={
            "shipmentId": str(shipment_id),
            "items": [{"productId": line.product_id, "quantity": line.qty} for line in lines],
        },
    )
    apply.write(tx, rows, decided, audit=entry)
    location = {"Location": f"/admin/orders/{order_id}"}
    return Response(201, _represented(tx, order_id, shipment_id), location)


def change_shipment(request: Request[ShipmentChange, None], context: RequestContext) -> Response:
    """200 with the shipment; 404 for one of another order.

    409 NOT_PREPARING or NOT_SHIPPED for a status that does not come next, NOT_SHIPPABLE when all
    money is being returned, TRACKING_NUMBER_IN_USE while another parcel has the number.
    """
    tx, body = context.tx, request.body
    rows = apply.lock_any(tx, queries.id_in(request.path))
    shipment_id = _id_of_shipment(request.path, rows)
    decided = apply.decide_on(rows, _message(shipment_id, body))
    order_id = rows.order.order_id
    before = rows.state.shipment(shipment_id)
    after = decide.after_effects(rows.state, decided).shipment(shipment_id)
    assert before is not None and after is not None, "the shipment was found"
    changed = body.model_dump(mode="json", by_alias=True, exclude_none=True)
    entry = audit_log.record(
        audit_log.actor_of(request),
        Action.ORDER_SHIPMENT_CHANGED,
        order_id,
        before={"shipmentId": str(shipment_id), "status": before.status},
        after={"shipmentId": str(shipment_id), **changed},
    )
    try:
        apply.write(tx, rows, decided, audit=entry)
    except db.UniqueViolation as error:
        if error.diag.constraint_name != "one_parcel_per_number":
            raise
        message = "another parcel of this carrier with this number is under way"
        raise ClientError(409, "TRACKING_NUMBER_IN_USE", message) from error
    return Response(200, _represented(tx, order_id, shipment_id))


def receive_tracking(request: Request[TrackingReport, None], context: RequestContext) -> Response:
    """204 once a carrier's report is applied; also for one that is repeated, late or outdated.

    SHIPPED changes nothing: staff have said so before, with the number.  422 UNKNOWN_PARCEL for a
    number that no shipment has (yet): the carrier sends the report again.  The signature is checked
    before the body is read.
    """
    report = request.body
    with context.transaction() as tx:
        # sees orders as staff do; no account can have it
        tx.execute(apply.SET_ROLE(role=CARRIER_ROLE))
        parcel = tx.fetch_one(shipments.parcel(report.carrier, report.tracking_number))
        if parcel is None:
            raise ClientError(422, "UNKNOWN_PARCEL", "no shipment has this tracking number")
        claim = inbox.claim(
            consumer="fulfil_orders",
            source=f"/carrier/{report.carrier}",
            event_id=request.headers["webhook-id"],
        )
        if tx.fetch_one(claim) is None:
            return Response(204)
        failpoints.hit(Failpoint.CLAIMED)
        # a number of an earlier parcel may be used again
        is_outdated = report.occurred_at < parcel.created_at
        if report.status == ShipmentStatus.DELIVERED and not is_outdated:
            tx.actor = f"carrier:{report.carrier}"
            apply.apply_message(tx, parcel.order_id, ShipmentArrived(parcel.shipment_id))
    return Response(204)


def decide_return(request: Request[ReturnDecision, None], context: RequestContext) -> Response:
    """200 with the return; 403 for an order of one's own, 404 for a return of another order.

    409 NOT_REQUESTED or RETURN_CLOSED for a decision that does not come next.
    """
    tx = context.tx
    rows = apply.lock_any(tx, queries.id_in(request.path))
    row = _return_in(request.path, rows)
    if rows.order.user_id == request.user_id:
        raise ClientError(403, "FORBIDDEN", "a return of an order of one's own")
    is_approved = request.body.status == ReturnStatus.APPROVED
    message = ReturnApproved(row.return_id) if is_approved else ReturnRejected(row.return_id)
    return _returned(request, tx, rows, row, message)


def receive_return(request: Request[ReturnReceipt, None], context: RequestContext) -> Response:
    """200 with the return, RECEIVED, with what is restocked and given back of each line.

    409 NOT_APPROVED, or EXCEEDS_RETURN for more units than are returned.
    """
    tx = context.tx
    rows = apply.lock_any(tx, queries.id_in(request.path))
    row = _return_in(request.path, rows)
    given = request.body.restocked
    restocked = (
        row.lines
        if given is None
        else tuple(Line(line.product_id, line.quantity) for line in given if line.quantity)
    )
    return _returned(request, tx, rows, row, ReturnReceived(row.return_id, restocked))


# Any: the body, of which the message is made
def _returned(
    request: Request[Any, None], tx: Transaction, rows: OrderRows, row: Return, message: Message
) -> Response:
    """Applies a message about a return, with its entry in the audit log."""
    decided = apply.decide_on(rows, message)
    order_id = rows.order.order_id
    after = decide.after_effects(rows.state, decided).return_of(row.return_id)
    assert after is not None, "the return was found"
    known: dict[str, object] = {"returnId": str(row.return_id)}
    entry = audit_log.record(
        audit_log.actor_of(request),
        Action.ORDER_RETURN_CHANGED,
        order_id,
        before={**known, "status": row.status},
        after={**known, "status": after.status},
    )
    apply.write(tx, rows, decided, audit=entry)
    written = tx.fetch_all(returns.of_order(order_id))
    found = next(each for each in written if each.return_id == row.return_id)
    return Response(200, returns.represent(found))


def _return_in(path: Mapping[str, str], rows: OrderRows) -> Return:
    return_id = parse_uuid(path["returnId"])
    row = rows.state.return_of(return_id) if return_id else None
    if row is None:
        raise not_found("the return")
    return row


def _lines(body: NewShipment, state: OrderState) -> tuple[Line, ...]:
    """The requested lines, or all that are in no shipment; 409 when there is none."""
    if body.items is not None:
        return tuple(Line(line.product_id, line.quantity) for line in body.items)
    left = (Line(line.product_id, state.unassigned(line.product_id)) for line in state.lines)
    lines = tuple(line for line in left if line.qty > 0)
    if not lines:
        raise ClientError(409, "EXCEEDS_ORDER", "all lines are in shipments", stored=True)
    return lines


def _message(shipment_id: UUID, body: ShipmentChange) -> Message:
    match body.status:
        case "SHIPPED":
            assert body.carrier is not None and body.tracking_number is not None
            return ShipmentSent(shipment_id, body.carrier, body.tracking_number)
        case "DELIVERED":
            return ShipmentArrived(shipment_id)
        case "CANCELLED":
            return ShipmentDropped(shipment_id)
        case _:
            assert_never(body.status)


def _id_of_shipment(path: Mapping[str, str], rows: OrderRows) -> UUID:
    shipment_id = parse_uuid(path["shipmentId"])
    if shipment_id is None or rows.state.shipment(shipment_id) is None:
        raise not_found("the shipment")
    return shipment_id


def _represented(tx: Transaction, order_id: UUID, shipment_id: UUID) -> dict[str, object]:
    rows = tx.fetch_all(shipments.of_order(order_id))
    return shipments.represent(next(row for row in rows if row.shipment_id == shipment_id))
