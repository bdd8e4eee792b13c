"""Customers of payments that require an action: in time, late, twice, wrongly, failing or never."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Literal

import httpx

from chaos.controlled_process import JsonObject
from chaos.workload.client import Client, Outcome, PlacedOrder

METHODS = ("CARD_REDIRECT", "CARD_REDIRECT_LATE", "CARD_WIDGET", "VIRTUAL_ACCOUNT")
# Of all orders.
SHARE = 0.05
# Longer than the time that a run gives customers (``chaos/startup.py``).
LATE_SECONDS = 40.0
READS_MAX = 20
READ_EVERY_SECONDS = 1.0
PROVIDER_SECONDS = 5.0

Behaviour = Literal["in time", "twice", "another amount", "fails", "late", "never"]
BEHAVIOURS: tuple[Behaviour, ...] = (
    "in time", "in time", "in time", "twice", "another amount", "fails", "late", "never",
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
        if behaviour == "late":
            await asyncio.sleep(LATE_SECONDS)
        acted = await self._act(order, "fail" if behaviour == "fails" else "finish")
        if acted is None or behaviour == "fails":
            return
        if behaviour == "another amount":
            await self._return(order, acted["token"], self._placed.total + 1)
        for _ in range(2 if behaviour == "twice" else 1):
            await self._return(order, acted["token"], self._placed.total)
        if (transfer := await self._order_with_action("transfer")) is not None:
            await self._act(transfer, "deposit")

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
