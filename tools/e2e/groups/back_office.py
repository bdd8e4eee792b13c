"""Back office: operators handle the orders of all customers, and change products and stock."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode
from uuid import uuid4

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


def price_is_scheduled_and_set_back(context: ScenarioContext) -> None:
    """A due job sets a price at its time; cancelling the schedule sets it back at once."""
    staff, customer = context.staff(), context.customer(1)
    product = context.create_product(price=1_000, stock=10)
    path, admin = f"/products/{product['id']}", f"/admin/products/{product['id']}"
    now = datetime.now(UTC)
    times = {"startsAt": now.isoformat(), "endsAt": (now + timedelta(days=1)).isoformat()}
    planned = expect(context.post(f"{admin}/price-schedules", {"price": 700, **times}, staff), 201)
    again = context.post(f"{admin}/price-schedules", {"price": 600, **times}, staff)
    context.check.problem("an overlapping price answers 409", again, 409)

    def price() -> int:
        found: int = expect(context.get(path, customer), 200).json()["price"]
        return found

    seen = context.poll(price, lambda found: found == 700)
    context.check.equal("the price is the scheduled one", seen, 700)
    changed = context.write("PATCH", path, {"price": 650}, staff, if_match="*")
    context.check.problem("changing it meanwhile answers 409", changed, 409)
    schedule = f"{admin}/price-schedules/{planned.json()['id']}"
    cancelled = context.write("DELETE", schedule, None, staff)
    context.check.status("cancelling it answers 200", cancelled, 200)
    context.check.equal("the price is what it was", price(), 1_000)
    history = expect(context.get(f"{admin}/prices", staff), 200).json()["changes"]
    changes = [change["to"] for change in history]
    context.check.equal("the history has each change once", changes, [1_000, 700, 1_000])


def coupon_takes_a_part_off_and_ends(context: ScenarioContext) -> None:
    """Staff add a coupon for one use; its order costs less, and a second one is rejected."""
    staff, customer = context.staff(), context.customer(1)
    product, code = context.create_product(price=1_000, stock=10), f"E2E-{uuid4().hex[:12]}"
    terms = {"code": code, "discountBasisPoints": 1_500, "usesMaximum": 1}
    expect(context.post("/admin/coupons", terms, staff), 201)
    body = {"productId": product["id"], "quantity": 2, "paymentMethod": "CARD", "coupons": [code]}
    order = expect(context.post("/orders", body, customer), 201).json()
    context.check.equal("15 % are taken off", order["totalAmount"], 1_700)
    again = context.post("/orders", body, customer)
    context.check.problem("a second use answers 409", again, 409)
    reasons = [coupon["reason"] for coupon in again.json()["coupons"]]
    context.check.equal("it says why", reasons, ["USED_UP"])
    seen = expect(context.get(f"/admin/coupons/{code}", staff), 200)
    context.check.equal("one use is counted", seen.json()["uses"], 1)
    ended = context.write("DELETE", f"/admin/coupons/{code}", None, staff)
    context.check.status("ending it answers 200", ended, 200)


def products_of_a_group_show_each_other(context: ScenarioContext) -> None:
    """Two products with an image each differ in their size; their pages show both sizes."""
    staff, customer = context.staff(), context.customer(1)
    new = {"name": "Shirt", "options": ["size"]}
    group = expect(context.post("/admin/product-groups", new, staff), 201).json()["id"]
    products = [context.create_product(price=1_000, stock=10)["id"] for _ in range(2)]
    image = {"url": "https://images.example.com/shirt.webp", "alt": "A shirt"}
    for product, size in zip(products, ("M", "L"), strict=True):
        seen = expect(context.get(f"/admin/products/{product}", staff), 200)
        body = {"images": [image], "group": {"id": group, "options": {"size": size}}}
        etag = seen.headers["etag"]
        changed = context.write("PATCH", f"/products/{product}", body, staff, if_match=etag)
        context.check.status(f"size {size} joins the group", changed, 200)
    page = expect(context.get(f"/products/{products[0]}", customer), 200).json()
    context.check.equal("the page shows the image", page["images"], [image])
    sizes = [member["options"]["size"] for member in page["group"]["members"]]
    context.check.equal("and the sizes of the group", sizes, ["M", "L"])
    same = {"group": {"id": group, "options": {"size": "M"}}}
    taken = context.write("PATCH", f"/products/{products[1]}", same, staff, if_match="*")
    context.check.problem("a size of another product answers 409", taken, 409)


def settlements_are_exported_as_csv(context: ScenarioContext) -> None:
    """Finance exports the days of a month, with a byte order mark on request.

    Others may as far as they may read settlements, which is a setting.
    """
    month = f"{datetime.now(UTC):%Y-%m}"
    path = f"/settlements/daily.csv?yearMonth={month}&bom=true"
    exported = context.get(path, context.finance())
    context.check.status("finance exports a month", exported, 200)
    head = b"\xef\xbb\xbfsettlementDate,totalAmount,"
    context.check.equal("it begins with the mark", exported.content[: len(head)], head)
    customer = context.customer(1)
    read = context.get("/settlements/daily", customer)
    others = context.get(path, customer).status_code
    context.check.equal("a customer's export answers as reading does", others, read.status_code)


def order_is_cancelled_for_its_customer_with_a_note(context: ScenarioContext) -> None:
    """Support cancels a paid order with a reason; the page of the order shows it; no customer."""
    support, customer = context.support(), context.customer(1)
    product = context.create_product(price=3_300, stock=10)
    order_id = context.place_paid_order(customer, (product["id"], 1))["id"]
    path = f"/admin/orders/{order_id}"
    unexplained = context.write("PATCH", f"{path}/cancel", {}, support)
    context.check.problem("without a reason it answers 422", unexplained, 422)
    by_customer = context.write("PATCH", f"{path}/cancel", {"reason": "x"}, customer)
    context.check.problem("a customer may not: 403", by_customer, 403)
    body = {"reason": "ordered twice"}
    cancelled = context.write("PATCH", f"{path}/cancel", body, support)
    context.check.status("support cancels it: 200", cancelled, 200)
    context.check.equal("the reason is OPERATOR", cancelled.json()["reason"], "OPERATOR")
    final = context.wait_for_final_status(customer, order_id)
    context.check.equal("it is cancelled", final["status"], "CANCELLED")
    context.check.equal("its money is returned", final["refundedAmount"], 3_300)
    again = context.write("PATCH", f"{path}/cancel", body, support)
    context.check.problem("a second time answers 409", again, 409)
    note = context.post(f"{path}/notes", {"text": "called\ntwice"}, support)
    context.check.status("a note is added: 201", note, 201)
    page = expect(context.get(path, support), 200).json()
    texts = [each["text"] for each in page["notes"]]
    context.check.equal("the page has it and the reason", texts, ["called\ntwice", "ordered twice"])
    refunds = [(each["status"], each["amount"]) for each in page["refunds"]]
    context.check.equal("and the refund", refunds, [("SUCCEEDED", 3_300)])
    kinds = [posting["kind"] for posting in page["postings"]]
    context.check.equal("and the postings", kinds, ["CAPTURE", "REFUND"])
    changes = [(each["from"], each["to"]) for each in page["statusHistory"]]
    ends = changes.count(("CANCELLING", "CANCELLED"))
    context.check.equal("and the end of the cancellation", ends, 1)
    missing = context.get("/admin/orders/00000000-0000-7000-8000-000000000000", support)
    context.check.problem("an unknown order answers 404", missing, 404)


def customer_has_a_page_for_support(context: ScenarioContext) -> None:
    """Support sees a customer's account, orders and notes; staff do not."""
    support, customer = context.support(), context.new_customer()
    product = context.create_product(price=1_100, stock=10)
    order = context.place_order(customer, (product["id"], 1))
    path = f"/admin/customers/{order['userId']}"
    note = context.post(f"{path}/notes", {"text": "prefers to be called"}, context.staff())
    context.check.status("staff add a note: 201", note, 201)
    page = expect(context.get(path, support), 200).json()
    context.check.equal("the page has the address", page["email"], customer.email)
    context.check.equal("and the order", [each["id"] for each in page["orders"]], [order["id"]])
    context.check.equal("and the note", page["notes"], [note.json()])
    context.check.that("and an open session", page["sessions"])
    context.check.problem("staff do not see it: 403", context.get(path, context.staff()), 403)


def orders_are_exported_as_csv(context: ScenarioContext) -> None:
    """Finance exports the orders of one product; a spreadsheet can read the file."""
    finance, customer = context.finance(), context.customer(1)
    product = context.create_product(price=5_500, stock=10)
    placed = [context.place_order(customer, (product["id"], 1))["id"] for _ in range(2)]
    path = f"/admin/orders.csv?productId={product['id']}"
    answer = expect(context.get(f"{path}&bom=true", finance), 200)
    header, *rows = csv.reader(io.StringIO(answer.content.decode("utf-8-sig"), newline=""))
    kind = answer.headers["content-type"]
    context.check.equal("it is CSV in UTF-8", kind, "text/csv; charset=utf-8")
    context.check.equal("it begins with a byte order mark", answer.content[:3], b"\xef\xbb\xbf")
    context.check.equal("its first column is the id", header[0], "id")
    context.check.equal("it has the orders", [row[0] for row in rows], placed[::-1])
    context.check.problem("a customer gets none: 403", context.get(path, customer), 403)


SCENARIOS = (
    Scenario(settlements_are_exported_as_csv, needs=("finance",)),
    Scenario(price_is_scheduled_and_set_back, needs=("staff",)),
    Scenario(coupon_takes_a_part_off_and_ends, needs=("staff",)),
    Scenario(products_of_a_group_show_each_other, needs=("staff",)),
    Scenario(orders_are_found_by_every_criterion, needs=("staff", "support")),
    Scenario(stock_is_adjusted_but_not_below_what_is_reserved, needs=("staff", "support")),
    Scenario(product_is_withdrawn_and_brought_back, needs=("staff",)),
    Scenario(order_is_cancelled_for_its_customer_with_a_note, needs=("staff", "support")),
    Scenario(customer_has_a_page_for_support, needs=("staff", "support")),
    Scenario(orders_are_exported_as_csv, needs=("staff", "finance")),
)
