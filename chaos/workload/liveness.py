"""The liveness check: every operation of the API succeeds at its first attempt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from chaos.controlled_process import JsonObject
from chaos.workload.client import NO_RETRIES, Account, Client, LoginFailed, Outcome
from chaos.workload.customers import DECLINED_METHOD
from chaos.workload.dataset import PASSWORD, Dataset
from chaos.workload.operations import PLACING, Call

WAIT_SECONDS_MAX = 30.0
POLL_SECONDS = 0.1
FAILED_SHOWN = 20
STOCK = 500_000

Request = tuple[Call, Account | None]
Prepare = Callable[[], Awaitable[Request]]


class PreparationFailed(Exception):
    """The precondition of an operation could not be established."""


@dataclass
class LivenessCheck:
    """Sends every operation several times, each with a single attempt."""

    client: Client
    dataset: Dataset
    product_id: int = 0
    requested: int = 0
    failed: list[JsonObject] = field(default_factory=list[JsonObject])
    waited_max_seconds: float = 0.0

    async def run(self, count: int) -> JsonObject:
        """Sends every operation ``count`` times; returns what did not succeed.

        ``waited`` is how long this process waited for a processor at most.  When it is seconds, the
        functions may have waited as long, and respond 503 as they should: a log-in, for one, hashes
        a password within 4 s or not at all.
        """
        waits = asyncio.create_task(self._measure_waits())
        try:
            await self._send_all(count)
        finally:
            waits.cancel()
        failed = self.failed[:FAILED_SHOWN]
        return {"requested": self.requested, "failed": failed, "waited": self.waited_max_seconds}

    async def _measure_waits(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(POLL_SECONDS)
            late = time.monotonic() - began - POLL_SECONDS
            self.waited_max_seconds = max(self.waited_max_seconds, late)

    async def _send_all(self, count: int) -> None:
        product = await self.dataset.add_product(price=1_000, stock=STOCK, name="Liveness")
        self.product_id = product.product_id
        operations = {**self._reads(), **self._sessions(), **self._writes(), **self._orders()}
        for name, prepare in operations.items():
            for _ in range(count):
                await self._send(name, prepare)

    async def _send(self, name: str, prepare: Prepare) -> None:
        self.requested += 1
        try:
            call, account = await prepare()
            outcome = await self.client.send(call, account, NO_RETRIES)
        except (PreparationFailed, LoginFailed) as error:
            self._add_failure(name, None, str(error))
            return
        if outcome.status == call.operation.success:
            self._log_order(call, account, outcome)
        else:
            self._add_failure(name, outcome.status, outcome.code)

    def _add_failure(self, name: str, status: int | None, reason: str) -> None:
        failure = {"at": time.time(), "operation": name, "status": status, "reason": reason}
        self.failed.append(failure)

    def _log_order(self, call: Call, account: Account | None, outcome: Outcome) -> None:
        if call.operation.name in PLACING and account is not None:
            order = outcome.document
            self.client.log.add_order(order["id"], account.user_id, order["paymentMethod"])

    # ---- operations by name, and how to prepare their requests

    def _reads(self) -> dict[str, Prepare]:
        account, finance = self.dataset.customers[0], self.dataset.finance
        return {
            "list_products": self._plain("list_products", query={"limit": 20}),
            "show_product": self._plain("show_product", productId=self.product_id),
            "list_categories": self._plain("list_categories"),
            "show_keys": self._plain("show_keys"),
            "show_openapi": self._plain("show_openapi"),
            "read_me": self._plain("read_me", account),
            "list_my_orders": self._plain("list_my_orders", account),
            "read_order": self._of_order("read_order"),
            "read_timeline": self._of_order("read_timeline"),
            "search_orders": self._plain("search_orders", self.dataset.support),
            "read_customer": self._plain(
                "read_customer", self.dataset.support, userId=account.user_id
            ),
            "read_daily": self._plain("read_daily", finance),
            "read_monthly": self._plain("read_monthly", finance),
        }

    def _sessions(self) -> dict[str, Prepare]:
        return {
            "log_in": self._log_in,
            "refresh": self._of_session("refresh"),
            "log_out": self._of_session("log_out"),
            "register": self._register,
        }

    def _writes(self) -> dict[str, Prepare]:
        account, staff, number = self.dataset.customers[0], self.dataset.staff, self.product_id
        one = {"quantity": 1}
        return {
            "add_item": self._plain("add_item", account, body={"productId": number, **one}),
            "show_cart": self._plain("show_cart", account),
            "change_item": self._plain("change_item", account, body=one, productId=number),
            "remove_item": self._plain("remove_item", account, productId=number),
            "empty_cart": self._plain("empty_cart", account),
            "change_stock": self._plain("change_stock", staff, body=one, productId=number),
            "add_product": self._add_product,
            "add_category": self._add_category,
            "change_product": self._change_product,
        }

    def _orders(self) -> dict[str, Prepare]:
        account = self.dataset.customers[0]
        body = {"productId": self.product_id, "quantity": 1, "paymentMethod": "CARD"}
        return {
            "place_order": self._plain("place_order", account, body=body),
            "place_order_from_cart": self._from_cart,
            "cancel_order": self._of_order("cancel_order"),
            "pay_again": self._pay_again,
            "refund_order": self._refund,
            "read_order_records": self._by_support("read_order_records"),
            "add_note_to_order": self._by_support("add_note_to_order", {"text": "called"}),
            "cancel_for_customer": self._by_support("cancel_for_customer", {"reason": "called"}),
        }

    # ---- preparation

    def _plain(
        self,
        name: str,
        account: Account | None = None,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str | int] | None = None,
        **path: str | int,
    ) -> Prepare:
        async def prepare() -> Request:
            call = self.client.calls.make(name, body=body, query=query, headers=None, **path)
            return call, account

        return prepare

    def _of_order(self, name: str) -> Prepare:
        async def prepare() -> Request:
            order_id, account = await self._placed("CARD")
            if name == "cancel_order":
                self.client.log.add_intervention(order_id, "cancel")
            return self.client.calls.make(name, orderId=order_id), account

        return prepare

    def _by_support(self, name: str, body: Mapping[str, object] | None = None) -> Prepare:
        async def prepare() -> Request:
            order_id, _ = await self._placed("CARD")
            if name == "cancel_for_customer":
                self.client.log.add_intervention(order_id, "cancel")
            call = self.client.calls.make(name, body=body, orderId=order_id)
            return call, self.dataset.support

        return prepare

    def _of_session(self, name: str) -> Prepare:
        async def prepare() -> Request:
            outcome = await self.dataset.customers[0].log_in()
            if outcome.status != 200:
                raise PreparationFailed(f"no session: {outcome.status}")
            body = {"refreshToken": outcome.document["refreshToken"]}
            return self.client.calls.make(name, body=body), None

        return prepare

    async def _log_in(self) -> Request:
        body = {"email": self.dataset.customers[0].email, "password": PASSWORD}
        return self.client.calls.make("log_in", body=body), None

    async def _register(self) -> Request:
        email = f"{self.client.calls.new_key()}@example.com"
        body = {"email": email, "password": PASSWORD, "name": "Liveness"}
        return self.client.calls.make("register", body=body), None

    async def _add_product(self) -> Request:
        name = f"Liveness {self.client.calls.new_key()}"
        body = {"name": name, "category": self.dataset.category, "price": 500, "stockQuantity": 1}
        return self.client.calls.make("add_product", body=body), self.dataset.staff

    async def _add_category(self) -> Request:
        body = {"name": self.client.calls.new_key()}
        return self.client.calls.make("add_category", body=body), self.dataset.staff

    async def _change_product(self) -> Request:
        read = self.client.calls.make("show_product", productId=self.product_id)
        response = await self.client.send(read, self.dataset.staff)
        call = self.client.calls.make(
            "change_product",
            body={"price": 1_000},
            headers={"if-match": response.header(b"etag") or '"none"'},
            productId=self.product_id,
        )
        return call, self.dataset.staff

    async def _from_cart(self) -> Request:
        account = self.dataset.customers[0]
        item = {"productId": self.product_id, "quantity": 1}
        await self.client.send(self.client.calls.make("add_item", body=item), account)
        body = {"paymentMethod": "CARD"}
        return self.client.calls.make("place_order_from_cart", body=body), account

    async def _pay_again(self) -> Request:
        order_id, account = await self._placed(DECLINED_METHOD)
        self.client.log.add_intervention(order_id, "decline")
        await self._wait_until(order_id, account, _is_declined)
        self.client.log.add_intervention(order_id, "pay_again")
        body = {"paymentMethod": "CARD"}
        return self.client.calls.make("pay_again", body=body, orderId=order_id), account

    async def _refund(self) -> Request:
        order_id, account = await self._placed("CARD")
        await self._wait_until(order_id, account, _is_paid)
        self.client.log.add_intervention(order_id, "refund")
        call = self.client.calls.make("refund_order", body={"amount": 1}, orderId=order_id)
        return call, self.dataset.support

    async def _placed(self, method: str) -> tuple[str, Account]:
        account = self.dataset.customers[0]
        body = {"productId": self.product_id, "quantity": 1, "paymentMethod": method}
        call = self.client.calls.make("place_order", body=body)
        outcome = await self.client.send(call, account)
        if outcome.status != 201:
            raise PreparationFailed(f"no order: {outcome.status} {outcome.code}")
        self._log_order(call, account, outcome)
        return str(outcome.document["id"]), account

    async def _wait_until(
        self, order_id: str, account: Account, condition: Callable[[JsonObject], bool]
    ) -> None:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while time.monotonic() < deadline:
            read = self.client.calls.make("read_order", orderId=order_id)
            response = await self.client.send(read, account)
            if response.status == 200 and condition(response.document):
                return
            await asyncio.sleep(POLL_SECONDS)
        raise PreparationFailed(f"order {order_id} was not ready after {WAIT_SECONDS_MAX:.0f} s")


def _is_declined(order: JsonObject) -> bool:
    payment: JsonObject = order["payment"] or {}
    return payment.get("status") == "DECLINED"


def _is_paid(order: JsonObject) -> bool:
    return order["status"] == "PAID"
