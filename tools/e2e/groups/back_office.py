"""Back office: operators find the orders of all customers."""

from __future__ import annotations

from urllib.parse import urlencode

from tools.e2e.context import ScenarioContext, expect
from tools.e2e.scenario import Scenario


def orders_are_found_by_every_criterion(context: ScenarioContext) -> None:
    """Support finds an order by id, address, product and total; a customer finds none."""
    support, customer = context.support(), context.customer(1)
    product = context.create_product(price=7_700, stock=10)
    order = expect(context.post_order(customer, (product["id"], 2)), 201).json()
    for criterion in (
        {"id": order["id"]},
        {"email": customer.email, "productId": product["id"]},
        {"productId": product["id"], "minTotal": 15_400, "maxTotal": 15_400},
    ):
        answer = context.get(f"/admin/orders?{urlencode(criterion)}", support)
        context.check.status(f"a search by {', '.join(criterion)} answers 200", answer, 200)
        found = [each["id"] for each in answer.json()["orders"]]
        context.check.equal("it finds the order", found, [order["id"]])
        one = {"count": 1, "exact": True}
        context.check.equal("it counts one", answer.json()["total"], one)
    unknown = context.get("/admin/orders?colour=red", support)
    context.check.problem("an unknown parameter answers 400", unknown, 400)
    context.check.equal("it is named", unknown.json()["errors"][0]["field"], "colour")
    forbidden = context.get("/admin/orders", customer)
    context.check.problem("a customer finds no orders: 403", forbidden, 403)


SCENARIOS = (Scenario(orders_are_found_by_every_criterion, needs=("staff", "support")),)
