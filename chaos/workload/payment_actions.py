"""Customers of payments that require an action: in time, late, twice, wrongly, failing or never.

Some change their mind while the payment waits: they cancel the order, or pay in another way.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Literal

import httpx

from chaos.controlled_process import JsonObject
from chaos.workload.client import Client, Outcome, PlacedOrder

METHODS = ("CARD_REDIRECT", "CARD_REDIRECT_LATE", "CARD_WIDGET", "VIRTUAL_ACCOUNT")
# Of all orders.
SHARE = 0.08
# Longer than the time that a run gives customers (``chaos/startup.py``).
LATE_SECONDS = 40.0
READS_MAX = 20
READ_EVERY_SECONDS = 1.0
PROVIDER_SECONDS = 5.0

Behaviour = Literal[
    "in time", "twice", "at once", "another amount", "another token", "cancels", "another way",
    "fails", "late", "never",
]  # fmt: skip
BEHAVIOURS: tuple[Behaviour, ...] = (
    "in time", "in time", "in time", "twice", "at once", "another amount", "another token",
    "cancels", "cancels", "another way", "another way", "fails", "late", "never",
)  # fmt: skip


class PayingCustomer:
    """Does what the payment of one order requires, at the provider and at the shop."""

    def __init__(self, client: Client, placed: PlacedOrder, provider: httpx.AsyncClient) -> None:
        self._client = client
        self._placed = placed
        self._provider = provider

    async def pay(self, random: Random) -> None:
        """Acts as one of ``BEHAVIOURS``; an order that is final already requires nothing."""
        behaviour = random.choice(BEHAVIOURS)
        order = await self._order_with_action("redirect", "widget")
        if order is None or behaviour == "never":
            return
        if behaviour == "another way":
            order = await self._pay_in_another_way(random)
        if behaviour == "late":
            await asyncio.sleep(LATE_SECONDS)
        if behaviour == "cancels" and random.random() < 0.5:
            await self._cancel()
        acted = order and await self._act(order, "fail" if behaviour == "fails" else "finish")
        if order is None or acted is None or behaviour == "fails":
            return
        await self._return_as(behaviour, order, acted["token"])
        if (transfer := await self._order_with_action("transfer")) is not None:
            await self._act(transfer, "deposit")

    async def _return_as(self, behaviour: Behaviour, order: JsonObject, token: str) -> None:
        """The return of a customer who has acted; once, if nothing else is said."""
        total = self._placed.total
        if behaviour == "another amount":
            await self._return(order, token, total + 1)
        if behaviour == "another token":
            await self._return(order, f"not-{token}", total)
        first = self._return(order, token, total)
        match behaviour:
            case "at once":
                await asyncio.gather(first, self._return(order, token, total))
            case "cancels":
                await asyncio.gather(first, self._cancel())
            case "twice":
                await first
                await self._return(order, token, total)
            case _:
                await first

    async def _cancel(self) -> None:
        order_id = self._placed.order_id
        self._client.log.add_intervention(order_id, "cancel")
        call = self._client.calls.make("cancel_order", orderId=order_id)
        await self._client.send(call, self._placed.account)

    async def _pay_in_another_way(self, random: Random) -> JsonObject | None:
        """Gives the action up for a card, or for another action; that one if there is one."""
        method = random.choice(("CARD", "CARD_REDIRECT", "CARD_WIDGET"))
        call = self._client.calls.make(
            "pay_again", body={"paymentMethod": method}, orderId=self._placed.order_id
        )
        await self._client.send(call, self._placed.account)
        return await self._order_with_action("redirect", "widget")

    async def _order_with_action(self, *types: str) -> JsonObject | None:
        """The order once its payment requires one of these actions; None when it does not."""
        for _ in range(READS_MAX):
            read = self._client.calls.make("read_order", orderId=self._placed.order_id)
            outcome = await self._client.send(read, self._placed.account)
            if outcome.status == 200:
                order = outcome.document
                payment: JsonObject = order["payment"] or {}
                action: JsonObject | None = payment.get("nextAction")
                if action is not None and action["type"] in types:
                    return order
                if order["status"] != "PENDING":
                    return None
            await asyncio.sleep(READ_EVERY_SECONDS)
        return None

    async def _act(self, order: JsonObject, step: str) -> JsonObject | None:
        """The customer's part at the provider; None when that does not accept it any more."""
        url = f"{order['payment']['nextAction']['url']}/{step}"
        try:
            response = await self._provider.post(url, timeout=PROVIDER_SECONDS)
        except httpx.HTTPError:
            return None
        acted: JsonObject = response.json()
        return acted if response.status_code == 200 else None

    async def _return(self, order: JsonObject, token: str, amount: int) -> Outcome:
        payment_id: str = order["payment"]["id"]
        call = self._client.calls.make(
            "confirm_payment",
            body={"token": token, "amount": amount},
            orderId=self._placed.order_id,
            paymentId=payment_id,
        )
        return await self._client.send(call, self._placed.account)
