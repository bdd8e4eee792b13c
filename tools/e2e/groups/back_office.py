"""Back office: operators find the orders of all customers, and change products and stock."""

from __future__ import annotations

from datetime import UTC, datetime
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


def stock_is_adjusted_but_not_below_what_is_reserved(context: ScenarioContext) -> None:
    """Staff write off damaged goods, all but those of an order, and read why the stock changed."""
    staff, product = context.staff(), context.create_product(price=1_000, stock=10)
    expect(context.post_order(context.customer(1), (product["id"], 2)), 201)
    path = f"/products/{product['id']}"
    more = {"quantity": -9, "reason": "DAMAGE"}
    refused = context.post(f"{path}/stock", more, staff)
    context.check.problem("more than is available answers 409", refused, 409)
    context.check.equal("it says why", refused.json()["error"], "STOCK_RESERVED")
    damaged = context.post(f"{path}/stock", {"quantity": -3, "reason": "DAMAGE"}, staff)
    context.check.status("three damaged units answer 200", damaged, 200)
    context.check.equal("five are available", damaged.json()["stockQuantity"], 5)
    history = context.get(f"/admin{path}/stock-moves", context.support())
    context.check.status("support reads the history", history, 200)
    moves = [(move["kind"], move["quantity"]) for move in history.json()["moves"]]
    context.check.that("it has the reason", ("DAMAGE", -3) in moves, moves)


def product_is_withdrawn_and_brought_back(context: ScenarioContext) -> None:
    """A withdrawn product is missing for customers, is listed to operators, and comes back."""
    staff, customer = context.staff(), context.customer(1)
    product = context.create_product(price=1_000, stock=10)
    path = f"/products/{product['id']}"
    for active, status in ((False, 404), (True, 200)):
        seen = expect(context.get(f"/admin{path}", staff), 200)
        etag = seen.headers["etag"]
        changed = context.write("PATCH", path, {"active": active}, staff, if_match=etag)
        context.check.status(f"active: {active} answers 200", changed, 200)
        shown = context.get(path, customer)
        context.check.status(f"then a customer gets {status}", shown, status)
        listed = expect(context.get("/admin/products?active=false&limit=100", staff), 200).json()
        is_listed = product["id"] in [each["id"] for each in listed]
        context.check.equal("operators see whether it is withdrawn", is_listed, not active)


def settlements_are_exported_as_csv(context: ScenarioContext) -> None:
    """Finance exports the days of a month, with a byte order mark on request; others may not."""
    month = f"{datetime.now(UTC):%Y-%m}"
    path = f"/settlements/daily.csv?yearMonth={month}&bom=true"
    exported = context.get(path, context.finance())
    context.check.status("finance exports a month", exported, 200)
    head = b"\xef\xbb\xbfsettlementDate,totalAmount,"
    context.check.equal("it begins with the mark", exported.content[: len(head)], head)
    forbidden = context.get(path, context.customer(1))
    context.check.problem("a customer exports none: 403", forbidden, 403)


SCENARIOS = (
    Scenario(settlements_are_exported_as_csv, needs=("finance",)),
    Scenario(orders_are_found_by_every_criterion, needs=("staff", "support")),
    Scenario(stock_is_adjusted_but_not_below_what_is_reserved, needs=("staff", "support")),
    Scenario(product_is_withdrawn_and_brought_back, needs=("staff",)),
)
