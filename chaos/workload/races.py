"""Races (F-22): conflicting requests that start at the same time, and their allowed outcomes.

A request without a response may have been executed or not, so "exactly one" becomes "at most one"
as soon as a response is missing.  The invariants check the rows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from random import Random

from chaos.controlled_process import JsonObject
from chaos.workload.client import Account, Client, Outcome, PlacedOrder
from chaos.workload.customers import CHARGE_SECONDS
from chaos.workload.dataset import Dataset, DatasetError
from chaos.workload.operations import Call

CONCURRENT_RACES = 4
LAST_UNIT_ORDERS = 20
SAME_KEY_REQUESTS = 10
STOCK, RESTOCKED, ORDERS = 3, 5, 10
PRICE_ORDERS = 5
PRICE = 1_000
PAID_SECONDS_MAX = 20.0
WRONG_SHOWN = 20


class Inconclusive(Exception):
    """The race could not be set up."""


Race = Callable[[Random], Awaitable[list[str]]]


class Races:
    """Runs races by name; a race returns the mistakes in its outcome."""

    def __init__(self, client: Client, dataset: Dataset) -> None:
        self._client = client
        self._calls = client.calls
        self._dataset = dataset
        self._races: dict[str, Race] = {
            "cancel_cancel": self._cancel_cancel,
            "cancel_charge": self._cancel_charge,
            "refund_refund": self._refund_refund,
            "refund_cancel": self._refund_cancel,
            "same_key": self._same_key,
            "last_unit": self._last_unit,
            "restock_reserve": self._restock_reserve,
            "price_order": self._price_order,
        }

    async def run(self, name: str, times: int, seed: int) -> JsonObject:
        """Runs a race several times, up to four at once; raises KeyError for an unknown one."""
        race = self._races[name]
        slots = asyncio.Semaphore(CONCURRENT_RACES)
        wrong: list[JsonObject] = []
        completed: list[int] = []

        async def run_once(number: int) -> None:
            async with slots:
                try:
                    mistakes = await race(Random(f"{seed} {name} {number}"))  # noqa: S311
                except Inconclusive:
                    return
            completed.append(number)
            if mistakes:
                wrong.append({"race": number, "wrong": mistakes})

        await asyncio.gather(*map(run_once, range(times)))
        return {"races": len(completed), "wrong": wrong[:WRONG_SHOWN]}

    # ---- cancellations and refunds

    async def _cancel_cancel(self, random: Random) -> list[str]:
        placed = await self._placed(random)
        if random.random() < 0.5:
            await self._wait_until_paid(placed)
        cancels = [self._cancel(placed) for _ in range(2)]
        responses = await self._together([(call, placed.account) for call in cancels])
        return one_wins(responses, winner=200, loser="NOT_CANCELLABLE")

    async def _cancel_charge(self, random: Random) -> list[str]:
        placed = await self._placed(random)
        await asyncio.sleep(random.uniform(0.0, CHARGE_SECONDS))
        cancelled = await self._client.send(self._cancel(placed), placed.account)
        mistakes = mistakes_in(cancelled, {(200, "")})
        call = self._calls.make("read_order", orderId=placed.order_id)
        order = await self._client.send(call, placed.account)
        if cancelled.status == order.status == 200:
            status = order.document["status"]
            if status not in ("CANCELLING", "CANCELLED"):
                mistakes.append(f"order {placed.order_id} was cancelled and is {status}")
        return mistakes

    async def _refund_refund(self, random: Random) -> list[str]:
        placed = await self._paid(random)
        amount = placed.total // 2 + 1
        refunds = [(self._refund(placed, amount), self._dataset.support) for _ in range(2)]
        responses = await self._together(refunds)
        return one_wins(responses, winner=201, loser="EXCEEDS_CAPTURE")

    async def _refund_cancel(self, random: Random) -> list[str]:
        placed = await self._paid(random)
        part = random.randint(1, placed.total - 1)  # a full refund may close the order first
        refund = (self._refund(placed, part), self._dataset.support)
        refunded, cancelled = await self._together([refund, (self._cancel(placed), placed.account)])
        return [
            *mistakes_in(refunded, {(201, ""), (409, "NOT_REFUNDABLE")}),
            *mistakes_in(cancelled, {(200, "")}),
        ]

    # ---- orders

    async def _same_key(self, random: Random) -> list[str]:
        product, account = self._dataset.choose_product(random), self._customer(random)
        call = self._order(product.product_id)
        responses = await self._together([(call, account)] * SAME_KEY_REQUESTS)
        different = {response.fingerprint for response in responses if response.is_definite}
        mistakes: list[str] = []
        if len(different) > 1:
            texts = sorted(map(str, different))
            mistakes.append(f"one key, {len(different)} responses: {texts}")
        for response in responses:
            mistakes += mistakes_in(response, {(201, ""), (409, "OUT_OF_STOCK")})
        self._log_order(account, next((one for one in responses if one.status == 201), None))
        return mistakes

    async def _last_unit(self, random: Random) -> list[str]:
        product = await self._product(stock=1)
        orders = [(self._order(product), self._customer(random)) for _ in range(LAST_UNIT_ORDERS)]
        responses = await self._together(orders)
        self._log_orders(orders, responses)
        return one_wins(responses, winner=201, loser="OUT_OF_STOCK")

    async def _restock_reserve(self, random: Random) -> list[str]:
        product = await self._product(stock=STOCK)
        body = {"quantity": RESTOCKED}
        restock = (
            self._calls.make("change_stock", body=body, productId=product),
            self._dataset.staff,
        )
        orders = [(self._order(product), self._customer(random)) for _ in range(ORDERS)]
        restocked, *responses = await self._together([restock, *orders])
        self._log_orders(orders, responses)
        mistakes = mistakes_in(restocked, {(200, "")})
        for response in responses:
            mistakes += mistakes_in(response, {(201, ""), (409, "OUT_OF_STOCK")})
        sold = sum(response.status == 201 for response in responses)
        are_definite = all(response.is_definite for response in responses)
        if sold > STOCK + RESTOCKED or (are_definite and sold < STOCK):
            mistakes.append(f"{sold} sold of {STOCK}, {RESTOCKED} restocked")
        return mistakes

    async def _price_order(self, random: Random) -> list[str]:
        product = await self._product(stock=100)
        read = self._calls.make("show_product", productId=product)
        response = await self._client.send(read, self._dataset.staff)
        headers, body = {"if-match": response.header(b"etag") or "*"}, {"price": PRICE + 100}
        change = self._calls.make("change_product", body=body, headers=headers, productId=product)
        expected = PRICE + self._dataset.shipping_fee(PRICE)
        orders = [
            (self._order(product, expectedTotalAmount=expected), self._customer(random))
            for _ in range(PRICE_ORDERS)
        ]
        changed, *responses = await self._together([(change, self._dataset.staff), *orders])
        self._log_orders(orders, responses)
        mistakes = mistakes_in(changed, {(200, "")})
        for response in responses:
            mistakes += mistakes_in(response, {(201, ""), (409, "PRICE_CHANGED")})
            if response.status == 201 and response.document["totalAmount"] != expected:
                charged = response.document["totalAmount"]
                mistakes.append(f"expected {expected}, was charged {charged}")
        return mistakes

    # ---- parts of the races

    async def _together(self, calls: Sequence[tuple[Call, Account]]) -> list[Outcome]:
        """Sends all calls at the same time, after every token and connection is ready."""
        await asyncio.gather(*(account.token() for _, account in calls), return_exceptions=True)
        await self._client.open(len(calls))
        return await asyncio.gather(*(self._client.send(call, account) for call, account in calls))

    def _customer(self, random: Random) -> Account:
        return random.choice(self._dataset.customers)

    def _order(self, product_id: int, **more: int) -> Call:
        line = {"productId": product_id, "quantity": 1}
        return self._calls.make("place_order", body={**line, "paymentMethod": "CARD", **more})

    def _cancel(self, placed: PlacedOrder) -> Call:
        self._client.log.add_intervention(placed.order_id, "cancel")
        return self._calls.make("cancel_order", orderId=placed.order_id)

    def _refund(self, placed: PlacedOrder, amount: int) -> Call:
        self._client.log.add_intervention(placed.order_id, "refund")
        return self._calls.make("refund_order", body={"amount": amount}, orderId=placed.order_id)

    async def _product(self, *, stock: int) -> int:
        try:
            product = await self._dataset.add_product(price=PRICE, stock=stock, name="Race")
        except DatasetError as error:
            raise Inconclusive("no product") from error
        return product.product_id

    async def _placed(self, random: Random) -> PlacedOrder:
        product, account = random.choice(self._dataset.products), self._customer(random)
        call = self._order(product.product_id)
        outcome = await self._client.send(call, account)
        placed = self._log_order(account, outcome)
        if placed is None:
            raise Inconclusive("no order")
        return placed

    async def _paid(self, random: Random) -> PlacedOrder:
        placed = await self._placed(random)
        if not await self._wait_until_paid(placed):
            raise Inconclusive("not paid in time")
        return placed

    async def _wait_until_paid(self, placed: PlacedOrder) -> bool:
        deadline = time.monotonic() + PAID_SECONDS_MAX
        while time.monotonic() < deadline:
            read = self._calls.make(
                "read_order", headers={"prefer": "wait=5"}, orderId=placed.order_id
            )
            response = await self._client.send(read, placed.account)
            if response.status == 200 and response.document["status"] != "PENDING":
                return response.document["status"] == "PAID"
            await asyncio.sleep(0.1)
        return False

    def _log_order(self, account: Account, outcome: Outcome | None) -> PlacedOrder | None:
        """Logs an accepted order; None when it was not accepted."""
        if outcome is None or outcome.status != 201:
            return None
        document = outcome.document
        self._client.log.add_order(document["id"], account.user_id, document["paymentMethod"])
        return PlacedOrder(document["id"], document["totalAmount"], account)

    def _log_orders(
        self, calls: Sequence[tuple[Call, Account]], responses: Sequence[Outcome]
    ) -> None:
        for (_call, account), outcome in zip(calls, responses, strict=True):
            self._log_order(account, outcome)


def mistakes_in(response: Outcome, allowed: set[tuple[int, str]]) -> list[str]:
    """The mistake, if a definite response is none of these pairs of status and error code."""
    if not response.is_definite or (response.status or 0) >= 500:
        return []
    if (response.status, response.code) in allowed:
        return []
    return [f"{response.status} {response.code}".strip()]


def one_wins(responses: Sequence[Outcome], *, winner: int, loser: str) -> list[str]:
    """The mistakes, unless one response has the status ``winner`` and all others 409 ``loser``."""
    mistakes: list[str] = []
    for response in responses:
        mistakes += mistakes_in(response, {(winner, ""), (409, loser)})
    won = sum(response.status == winner for response in responses)
    are_definite = all(
        response.is_definite and (response.status or 0) < 500 for response in responses
    )
    if won > 1 or (are_definite and won == 0):
        mistakes.append(f"{won} of {len(responses)} have {winner}")
    return mistakes
