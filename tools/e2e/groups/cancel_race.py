"""Concurrent commands: cancel against charge, the last units, full refunds."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from functools import partial

import httpx

from tools.e2e.accounts import Account
from tools.e2e.client import JsonObject, error_code
from tools.e2e.context import ScenarioContext, run_in_parallel, run_simultaneously
from tools.e2e.scenario import Scenario

ORDERS = 20
CUSTOMERS = 4
ORDERS_IN_PARALLEL = 4
CANCEL_DELAY_SECONDS_MAX = 0.05
QUANTITY = 2
PRICE = 700
RANDOM = random.SystemRandom()


@dataclass(frozen=True)
class CancelRace:
    """One order, the responses of its two concurrent cancels, and its final state."""

    customer: Account
    cancels: list[httpx.Response]
    order: JsonObject


def concurrent_cancel_and_charge_keeps_no_money(context: ScenarioContext) -> None:
    """Twenty orders, each cancelled twice at once, at most 50 ms after it was placed."""
    product = context.create_product(price=PRICE, stock=ORDERS * QUANTITY)
    customers = [context.customer(number) for number in range(1, CUSTOMERS + 1)]
    jobs = [
        partial(_race, context, customers[number % CUSTOMERS], product["id"])
        for number in range(ORDERS)
    ]
    races = run_in_parallel(jobs, ORDERS_IN_PARALLEL)
    for number, race in enumerate(races, start=1):
        _check_race(context, number, race)
    context.check.equal(
        "the whole stock is available again", context.stock(product["id"]), ORDERS * QUANTITY
    )


def _race(context: ScenarioContext, customer: Account, product_id: int) -> CancelRace:
    order = context.place_order(customer, (product_id, QUANTITY))
    path = f"/orders/{order['id']}/cancel"

    def cancel() -> httpx.Response:
        time.sleep(RANDOM.uniform(0.0, CANCEL_DELAY_SECONDS_MAX))
        return context.write("PATCH", path, None, customer)

    cancels = run_simultaneously([cancel, cancel])
    return CancelRace(customer, cancels, context.wait_for_final_status(customer, order["id"]))


def _check_race(context: ScenarioContext, number: int, race: CancelRace) -> None:
    responses = [(response.status_code, error_code(response)) for response in race.cancels]
    context.check.that(
        f"order {number}: one cancel answers 200, the other 200 or NOT_CANCELLABLE",
        (200, "") in responses and set(responses) <= {(200, ""), (409, "NOT_CANCELLABLE")},
        responses,
    )
    order_id = race.order["id"]
    context.check.equal(
        f"order {number}: its final status is CANCELLED", race.order["status"], "CANCELLED"
    )
    captures = _count(context, race, order_id, "payment", "CAPTURED")
    refunds = _count(context, race, order_id, "refund", "SUCCEEDED")
    kept = captures * PRICE * QUANTITY - race.order["refundedAmount"]
    context.check.equal(
        f"order {number}: every capture is refunded", (kept, captures - refunds), (0, 0)
    )
    cancelled = [
        to
        for _, to in context.status_changes(race.customer, order_id, "order")
        if to == "CANCELLED"
    ]
    context.check.equal(f"order {number}: it was cancelled once", len(cancelled), 1)


def _count(
    context: ScenarioContext, race: CancelRace, order_id: str, entity: str, status: str
) -> int:
    changes = context.status_changes(race.customer, order_id, entity)
    return len([to for _, to in changes if to == status])


def last_units_are_sold_once(context: ScenarioContext) -> None:
    """Of ten concurrent orders for the last three units exactly three are accepted."""
    product = context.create_product(stock=3)
    customers = [context.customer(1 + number % CUSTOMERS) for number in range(10)]
    responses = run_simultaneously(
        [partial(context.post_order, customer, (product["id"], 1)) for customer in customers]
    )
    counts = sorted((response.status_code, error_code(response)) for response in responses)
    expected = [(201, "")] * 3 + [(409, "OUT_OF_STOCK")] * 7
    context.check.equal("three orders are accepted, seven answer OUT_OF_STOCK", counts, expected)
    context.check.equal("the stock is 0", context.stock(product["id"]), 0)


def concurrent_full_refunds_succeed_once(context: ScenarioContext) -> None:
    """Of ten concurrent refunds of the whole amount one succeeds."""
    customer, support, product = (
        context.customer(1),
        context.support(),
        context.create_product(price=1000, stock=1),
    )
    order = context.place_paid_order(customer, (product["id"], 1))
    body = {"amount": 1000, "reason": "race"}
    jobs = [partial(context.post, f"/orders/{order['id']}/refunds", body, support)] * 10
    responses = run_simultaneously(jobs)
    accepted = [response for response in responses if response.status_code < 300]
    rejected = [response for response in responses if response.status_code == 409]
    counts = (len(accepted), len(rejected))
    context.check.equal("one refund is accepted, nine answer 409", counts, (1, 9))
    seen = context.poll(
        lambda: context.read_order(customer, order["id"]),
        lambda seen: seen["refundedAmount"] >= 1000,
    )
    context.check.equal("the amount was refunded once", seen["refundedAmount"], 1000)


SCENARIOS = (
    Scenario(concurrent_cancel_and_charge_keeps_no_money, ("staff",)),
    Scenario(last_units_are_sold_once, ("staff",)),
    Scenario(concurrent_full_refunds_succeed_once, ("staff", "support")),
)
