"""The six steps of a customer: products, registration, login, order, order page, settlement."""

from __future__ import annotations

from tools.e2e.accounts import Account, Credentials
from tools.e2e.client import Call, JsonObject, new_key
from tools.e2e.context import PASSWORD, ScenarioContext, expect, unique
from tools.e2e.days import business_day
from tools.e2e.scenario import Scenario

SEEDED_PRODUCT = 1
RESTOCK = 100


def customer_flow_in_six_steps(context: ScenarioContext) -> None:
    """A new customer orders a product; the payment is in today's settlement."""
    product = _products(context)
    account = _register_and_log_in(context)
    order = _order(context, account, product)
    _check_final_status(context, account, order)
    _settlement(context)


def _products(context: ScenarioContext) -> JsonObject:
    listed = context.get("/products")
    context.check.status("step 1, products: answers 200", listed, 200)
    context.check.that(
        "step 1, products: the list is a JSON array with at least one product",
        isinstance(listed.json(), list) and bool(listed.json()),
        listed.text,
    )
    path = f"/products/{SEEDED_PRODUCT}"
    product: JsonObject = expect(context.get(path), 200).json()
    if product["stockQuantity"] < 1:
        expect(context.post(f"{path}/stock", {"quantity": RESTOCK}, context.staff()), 200, 201)
    return product


def _register_and_log_in(context: ScenarioContext) -> Account:
    credentials = Credentials(f"e2e-flow-{unique()}@example.com", PASSWORD)
    body = {"email": credentials.email, "password": credentials.password, "name": "여섯 걸음"}
    registered = context.send_once(Call("POST", "/users", json=body, key=new_key()))
    context.check.status("step 2, registration: answers 201", registered, 201)
    del body["name"]
    session = context.send_once(Call("POST", "/auth/login", json=body))
    context.check.status("step 3, login: answers 200", session, 200)
    context.check.that(
        "step 3, login: accessToken, refreshToken, tokenType and expiresIn",
        {"accessToken", "refreshToken", "tokenType", "expiresIn"} <= set(session.json()),
        session.text,
    )
    return Account(context.run.client, credentials, "flow")


def _order(context: ScenarioContext, account: Account, product: JsonObject) -> JsonObject:
    # The short form: one product instead of a list of lines.
    body = {"productId": SEEDED_PRODUCT, "quantity": 1, "paymentMethod": "CARD"}
    response = context.post("/orders", body, account)
    context.check.status("step 4, order: answers 201", response, 201)
    order: JsonObject = response.json()
    context.check.equal("step 4, order: it is PENDING", order["status"], "PENDING")
    context.check.equal(
        "step 4, order: Location is its path",
        response.headers.get("Location"),
        f"/orders/{order['id']}",
    )
    context.check.equal(
        "step 4, order: its total is the price", order["totalAmount"], product["price"]
    )
    return order


def _check_final_status(context: ScenarioContext, account: Account, order: JsonObject) -> None:
    seen = context.wait_for_final_status(account, order["id"])
    context.check.equal("step 5, order page: its final status is PAID", seen["status"], "PAID")


def _settlement(context: ScenarioContext) -> None:
    day = business_day(context.run.time_zone)
    response = context.get(f"/settlements/daily?date={day}", context.finance())
    context.check.status("step 6, today's settlement: answers 200", response, 200)
    today = response.json()
    context.check.equal(
        "step 6, today's settlement: it has today's date", today["settlementDate"], day
    )
    context.check.that("step 6, today's settlement: the day is open", today["closed"] is False)
    context.check.that(
        "step 6, today's settlement: it includes the payment",
        today["paymentCount"] >= 1,
        response.text,
    )


SCENARIOS = (Scenario(customer_flow_in_six_steps, needs=("finance",)),)
