"""Shipments: staff pack, send and deliver orders, which can then no longer be cancelled."""

from __future__ import annotations

from tools.e2e.client import new_key
from tools.e2e.context import ScenarioContext, expect
from tools.e2e.scenario import Scenario


def order_is_sent_in_two_shipments(context: ScenarioContext) -> None:
    """Staff pack a part, then the rest; the customer follows both, and can cancel neither."""
    staff, customer = context.staff(), context.customer(1)
    product = context.create_product(price=2_200, stock=10)
    order_id = context.place_paid_order(customer, (product["id"], 3))["id"]
    path = f"/admin/orders/{order_id}/shipments"
    one = {"items": [{"productId": product["id"], "quantity": 1}]}
    by_customer = context.post(path, one, customer)
    context.check.problem("a customer packs nothing: 403", by_customer, 403)
    first = context.post(path, one, staff)
    context.check.status("staff pack one unit: 201", first, 201)
    packed = context.write("PATCH", f"/orders/{order_id}/cancel", None, customer)
    context.check.problem("then the customer cannot cancel: 409", packed, 409)
    context.check.equal("and sees why", packed.json()["error"], "IN_PREPARATION")
    rest = context.post(path, {}, staff)
    context.check.equal("the rest is packed", rest.json()["items"][0]["quantity"], 2)
    nothing = context.post(path, {}, staff)
    context.check.problem("nothing is left to pack: 409", nothing, 409)
    sent = {"status": "SHIPPED", "carrier": "e2e", "trackingNumber": new_key()[:40]}
    change = context.write("PATCH", f"{path}/{first.json()['id']}", sent, staff)
    context.check.status("the first is sent: 200", change, 200)
    same = context.write("PATCH", f"{path}/{rest.json()['id']}", sent, staff)
    context.check.problem("the number of a parcel under way answers 409", same, 409)
    late = context.write("PATCH", f"/orders/{order_id}/cancel", None, customer)
    context.check.equal("what was sent is not cancelled", late.json()["error"], "ALREADY_SHIPPED")
    done = context.write("PATCH", f"{path}/{first.json()['id']}", {"status": "DELIVERED"}, staff)
    context.check.status("it is delivered: 200", done, 200)
    seen = expect(context.get(f"/orders/{order_id}", customer), 200).json()
    statuses = [each["status"] for each in seen["shipments"]]
    context.check.equal("the customer sees both", statuses, ["DELIVERED", "PREPARING"])
    context.check.equal("the order stays paid", seen["status"], "PAID")


def packing_ends_when_support_cancels(context: ScenarioContext) -> None:
    """Support cancels an order that is packed; the money is returned and the goods are in stock."""
    staff, customer = context.staff(), context.customer(1)
    product = context.create_product(price=1_300, stock=5)
    order_id = context.place_paid_order(customer, (product["id"], 2))["id"]
    path = f"/admin/orders/{order_id}"
    packed = context.post(f"{path}/shipments", {}, staff)
    context.check.status("staff pack it: 201", packed, 201)
    cancelled = context.write("PATCH", f"{path}/cancel", {"reason": "by phone"}, context.support())
    context.check.status("support cancels it: 200", cancelled, 200)
    final = context.wait_for_final_status(customer, order_id)
    context.check.equal("it is cancelled", final["status"], "CANCELLED")
    context.check.equal("its money is returned", final["refundedAmount"], 2_600)
    context.check.equal("it is not packed", final["shipments"][0]["status"], "CANCELLED")
    path = f"/admin/products/{product['id']}/stock-moves"
    newest = expect(context.get(path, staff), 200).json()["moves"][0]
    context.check.equal(
        "the goods are in stock", (newest["kind"], newest["quantity"]), ("RETURN", 2)
    )


def goods_are_returned_and_refunded(context: ScenarioContext) -> None:
    """Of two units, one is cancelled and one sent back, and all money is returned."""
    staff, support, customer = context.staff(), context.support(), context.customer(1)
    product = context.create_product(price=4_400, stock=5)
    order_id = context.place_paid_order(customer, (product["id"], 2))["id"]
    path, unit = f"/orders/{order_id}", [{"productId": product["id"], "quantity": 1}]
    cancelled = context.post(f"{path}/cancellations", {"items": unit}, customer)
    context.check.status("one unit is cancelled: 200", cancelled, 200)
    context.check.equal("the order stays paid", cancelled.json()["status"], "PAID")
    shipments = f"/admin/orders/{order_id}/shipments"
    packed = expect(context.post(shipments, {}, staff), 201).json()
    early = context.post(f"{path}/returns", {"items": unit, "reason": "too small"}, customer)
    context.check.equal("nothing was sent yet", early.json()["error"], "NOT_RETURNABLE")
    sent = {"status": "SHIPPED", "carrier": "e2e", "trackingNumber": new_key()[:40]}
    for change in (sent, {"status": "DELIVERED"}):
        expect(context.write("PATCH", f"{shipments}/{packed['id']}", change, staff), 200)
    asked = context.post(f"{path}/returns", {"items": unit, "reason": "too small"}, customer)
    context.check.status("the customer asks to return the other: 201", asked, 201)
    returned = f"/admin/orders/{order_id}/returns/{asked.json()['id']}"
    approved = context.write("PATCH", returned, {"status": "APPROVED"}, support)
    context.check.status("support approves it: 200", approved, 200)
    received = context.post(f"{returned}/receipt", {}, staff)
    context.check.status("staff receive it: 200", received, 200)
    line = received.json()["items"][0]
    context.check.equal("its price is given back", (line["restocked"], line["amount"]), (1, 4_400))
    again = context.post(f"{returned}/receipt", {}, staff)
    context.check.problem("a second receipt answers 409", again, 409)
    final = context.poll(
        lambda: context.read_order(customer, order_id),
        lambda order: order["status"] == "REFUNDED",
    )
    context.check.equal("all money is returned", final["refundedAmount"], 8_800)


SCENARIOS = (
    Scenario(order_is_sent_in_two_shipments, needs=("staff",)),
    Scenario(goods_are_returned_and_refunded, needs=("staff", "support")),
    Scenario(packing_ends_when_support_cancels, needs=("staff", "support")),
)
