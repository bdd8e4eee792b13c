"""The six steps: products, register, log in, order, look the order up, today's settlement."""

from __future__ import annotations

from typing import Any

from tools.e2e.accounts import Account, Credentials
from tools.e2e.client import Call, new_key
from tools.e2e.days import business_day
from tools.e2e.harness import PASSWORD, Stage, expect, unique
from tools.e2e.scenario import Scenario

SEEDED_PRODUCT = 1
RESTOCK = 100


def six_steps(stage: Stage) -> None:
    """What every customer does, and what the shop then earned."""
    product = _products(stage)
    account = _register_and_log_in(stage)
    order = _order(stage, account, product)
    _look_up(stage, account, order)
    _settlement(stage, order)


def _products(stage: Stage) -> dict[str, Any]:
    listed = stage.get("/products")
    stage.check.status("step 1, products: answers 200", listed, 200)
    stage.check.that(
        "step 1, products: the list is a JSON array with products in it",
        isinstance(listed.json(), list) and bool(listed.json()),
        listed.text,
    )
    path = f"/products/{SEEDED_PRODUCT}"
    product: dict[str, Any] = expect(stage.get(path), 200).json()
    if product["stockQuantity"] < 1:
        expect(stage.post(f"{path}/stock", {"quantity": RESTOCK}, stage.staff()), 200, 201)
    return product


def _register_and_log_in(stage: Stage) -> Account:
    credentials = Credentials(f"e2e-flow-{unique()}@example.com", PASSWORD)
    body = {"email": credentials.email, "password": credentials.password, "name": "여섯 걸음"}
    made = stage.once(Call("POST", "/users", json=body, key=new_key()))
    stage.check.status("step 2, register: answers 201", made, 201)
    del body["name"]
    entered = stage.once(Call("POST", "/auth/login", json=body))
    stage.check.status("step 3, log in: answers 200", entered, 200)
    stage.check.that(
        "step 3, log in: accessToken, refreshToken, tokenType and expiresIn",
        {"accessToken", "refreshToken", "tokenType", "expiresIn"} <= set(entered.json()),
        entered.text,
    )
    return Account(stage.cast.client, credentials, "flow")


def _order(stage: Stage, account: Account, product: dict[str, Any]) -> dict[str, Any]:
    # The original's own body: one product, no list of lines.
    body = {"productId": SEEDED_PRODUCT, "quantity": 1, "paymentMethod": "CARD"}
    answer = stage.post("/orders", body, account)
    stage.check.status("step 4, order: answers 201", answer, 201)
    order: dict[str, Any] = answer.json()
    stage.check.equal("step 4, order: it is PENDING", order["status"], "PENDING")
    stage.check.equal(
        "step 4, order: Location names it", answer.headers.get("Location"), f"/orders/{order['id']}"
    )
    stage.check.equal("step 4, order: it costs the price", order["totalAmount"], product["price"])
    return order


def _look_up(stage: Stage, account: Account, order: dict[str, Any]) -> None:
    seen = stage.at_rest(account, order["id"])
    stage.check.equal("step 5, order lookup: Prefer: wait sees it PAID", seen["status"], "PAID")


def _settlement(stage: Stage, order: dict[str, Any]) -> None:
    day = business_day(stage.cast.time_zone)
    answer = stage.get(f"/settlements/daily?date={day}", stage.finance())
    stage.check.status("step 6, today's settlement: answers 200", answer, 200)
    today = answer.json()
    stage.check.equal("step 6, today's settlement: it is today's", today["settlementDate"], day)
    stage.check.equal("step 6, today's settlement: the day is open", today["closed"], False)
    stage.check.that(
        "step 6, today's settlement: the payment is in it", today["paymentCount"] >= 1, answer.text
    )


SCENARIOS = (Scenario(six_steps, needs=("finance",)),)
