"""Every operation of the API with a valid request, for the liveness check."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b32decode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from chaos.controlled_process import JsonObject
from chaos.workload.client import Account, Client, Outcome
from chaos.workload.customers import DECLINED_METHOD
from chaos.workload.dataset import PASSWORD, Dataset
from chaos.workload.operations import PLACING, Call
from shop.second_factors import STEP_SECONDS, code_at

WAIT_SECONDS_MAX = 30.0
POLL_SECONDS = 0.1
STOCK = 500_000
# nothing listens there
NO_RECEIVER = "http://127.0.0.1:9/liveness/"
NO_EVENTS = ["refund.succeeded", "refund.rejected"]
EVENTS = ["order.cancelling", "order.cancelled"]
IF_ANY = {"if-match": "*"}
# of no order of the run
LATER_FEE = {"amount": 3_000, "startsAt": "2099-01-01T00:00:00Z"}
ADDRESS = {
    "address": {
        "recipient": "Kim",
        "phone": "010-1234-5678",
        "postcode": "04524",
        "line1": "Sejong-daero 110",
    }
}
SCOPES = {"scopes": ["orders:read"]}

# What a client of the shop cannot send by itself.
NOT_SENT: Mapping[str, str] = {
    "handle_webhook": "the payment provider signs its requests; the run counts its webhooks",
    "confirm_email": "needs the token in a mail; e2e group accounts",
    **dict.fromkeys(
        ("show_storefront", "show_password_page", "show_email_page", "show_back_office"),
        "static pages, which a run does without",
    ),
    "show_web_asset": "a static file, which a run does without",
    "reset_password": "needs the token in a mail; e2e group accounts",
    "receive_tracking": "the carrier signs its requests; test_shipment_webhook.py",
    **dict.fromkeys(
        ("resolve_alert", "read_dead_letter", "drop_dead_letter"),
        "needs what only a fault leaves behind; test_operator_alerts.py",
    ),
}

Request = tuple[Call, Account | None]
Prepare = Callable[[], Awaitable[Request]]


class PreparationFailed(Exception):
    """The precondition of an operation could not be established."""


@dataclass(kw_only=True)
class LivenessOperations:
    """Prepares requests: each method that returns a mapping does so for a part of the API."""

    client: Client
    dataset: Dataset
    product_id: int
    owner: Account
    webhook_id: str = ""
    hours: Iterator[int] = field(default_factory=count)

    @staticmethod
    async def begin(client: Client, dataset: Dataset) -> LivenessOperations:
        """Adds a product to order, an account to change, and a webhook of cancelled orders."""
        product = await dataset.add_product(price=1_000, stock=STOCK, name="Liveness")
        owner = await _new_account(client, dataset)
        operations = LivenessOperations(
            client=client, dataset=dataset, product_id=product.product_id, owner=owner
        )
        call, admin = await operations._create_webhook(EVENTS)()
        created = await client.send(call, admin)
        if created.status != 201:
            raise PreparationFailed(f"no webhook: {created.status} {created.code}")
        operations.webhook_id = created.document["id"]
        return operations

    async def end(self) -> None:
        """Deletes the webhooks of the check, so that no delivery is left to be tried."""
        admin, make = self.dataset.admin, self.client.calls.make
        listed = await self.client.send(make("list_webhooks"), admin)
        webhooks: list[JsonObject] = json.loads(listed.body) if listed.status == 200 else []
        for webhook in webhooks:
            if webhook["url"].startswith(NO_RECEIVER):
                await self.client.send(make("delete_webhook", webhookId=webhook["id"]), admin)

    def by_name(self) -> Mapping[str, Prepare]:
        """All operations; those of a webhook come after those that cancel orders."""
        return {
            **self._documents(),
            **self._reads(),
            **self._sessions(),
            **self._account(),
            **self._writes(),
            **self._orders(),
            **self._administration(),
            **self._webhooks(),
        }

    def log_order(self, call: Call, account: Account | None, outcome: Outcome) -> None:
        """Enters a placed order in the clients' log."""
        if call.operation.name in PLACING and account is not None:
            order = outcome.document
            self.client.log.add_order(order["id"], account.user_id, order["paymentMethod"])

    def _documents(self) -> dict[str, Prepare]:
        return {
            "show_keys": self._plain("show_keys"),
            "show_openapi": self._plain("show_openapi"),
            "show_openapi_of_group": self._plain("show_openapi_of_group", group="auth"),
            "show_asyncapi": self._plain("show_asyncapi"),
            "show_asyncapi_page": self._plain("show_asyncapi_page"),
            "show_api_docs": self._plain("show_api_docs"),
            "show_asset": self._plain("show_asset", asset="api-docs.css"),
            "show_event_schema": self._plain("show_event_schema", name="order.placed.v1.json"),
            "redirect_api_docs": self._plain("redirect_api_docs"),
            "redirect_swagger_ui": self._plain("redirect_swagger_ui"),
        }

    def _account(self) -> dict[str, Prepare]:
        new = self.client.calls.new_key
        passwords = {"currentPassword": PASSWORD, "newPassword": PASSWORD}
        language = {"language": "en"}
        return {
            "change_profile": self._plain("change_profile", self.owner, language, headers=IF_ANY),
            "change_password": self._plain("change_password", self.owner, passwords),
            "list_sessions": self._plain("list_sessions", self.owner),
            "list_addresses": self._plain("list_addresses", self.owner),
            "add_address": self._plain("add_address", self.owner, ADDRESS),
            "read_address": self._of_address("read_address"),
            "change_address": self._of_address("change_address", ADDRESS, headers=IF_ANY),
            "remove_address": self._of_address("remove_address"),
            "end_session": self._end_session,
            "end_other_sessions": self._plain("end_other_sessions", self.owner),
            "request_email_verification": self._plain("request_email_verification", self.owner),
            "request_email_change": self._plain(
                "request_email_change",
                self.owner,
                {"email": f"{new()}@example.com", "password": PASSWORD},
            ),
            "request_password_reset": self._plain(
                "request_password_reset", body={"email": f"{new()}@example.com"}
            ),
            "export_data": self._plain("export_data", self.owner),
            "close_account": self._close_account,
        }

    def _administration(self) -> dict[str, Prepare]:
        admin, staff, support = self.dataset.admin, self.dataset.staff, self.dataset.support
        finance, owner, number = self.dataset.finance, self.owner.user_id, self.product_id
        text = {"text": "called"}
        return {
            "list_accounts": self._plain("list_accounts", admin),
            "invite": self._invite,
            "read_account": self._plain("read_account", admin, userId=owner),
            "change_account": self._plain(
                "change_account", admin, {"state": "ACTIVE"}, headers=IF_ANY, userId=owner
            ),
            "close_customer": self._close_customer,
            "list_entries": self._plain("list_entries", admin),
            "list_alerts": self._plain("list_alerts", admin),
            "list_dead_letters": self._plain("list_dead_letters", admin),
            "begin_second_factor": self._begin_second_factor,
            "confirm_second_factor": self._confirm_second_factor,
            "remove_second_factor": self._with_factor("remove_second_factor"),
            "renew_recovery_codes": self._with_factor("renew_recovery_codes"),
            "create_service": self._create_service,
            "create_key": self._of_service("create_key", SCOPES),
            "list_keys": self._of_service("list_keys"),
            "rotate_key": self._of_key("rotate_key", {"overlapHours": 0}),
            "end_key": self._of_key("end_key"),
            "list_all_products": self._plain("list_all_products", staff),
            "show_any_product": self._plain("show_any_product", staff, productId=number),
            "list_stock_moves": self._plain("list_stock_moves", staff, productId=number),
            "add_group": self._plain("add_group", staff, {"name": "G", "options": ["size"]}),
            "list_groups": self._plain("list_groups", staff),
            "show_group": self._of_group("show_group"),
            "change_group": self._of_group("change_group", {"name": "H"}, headers=IF_ANY),
            **self._price_rules(),
            "list_prices": self._plain("list_prices", staff, productId=number),
            "schedule_price": self._schedule_price,
            "cancel_price_schedule": self._cancel_price_schedule,
            "read_customer": self._plain("read_customer", support, userId=owner),
            "add_note_to_customer": self._plain(
                "add_note_to_customer", support, text, userId=owner
            ),
            "search_orders": self._plain("search_orders", support),
            "export_orders": self._plain("export_orders", support, query={"toDay": "2026-01-01"}),
            "read_daily": self._plain("read_daily", finance),
            "read_monthly": self._plain("read_monthly", finance),
            "export_daily": self._plain("export_daily", finance, query={"yearMonth": "2026-02"}),
            "export_monthly": self._plain("export_monthly", finance, query={"year": 2026}),
        }

    def _price_rules(self) -> dict[str, Prepare]:
        staff = self.dataset.staff
        return {
            "add_coupon": self._add_coupon,
            "list_coupons": self._plain("list_coupons", staff),
            "show_coupon": self._of_coupon("show_coupon"),
            "change_coupon": self._of_coupon("change_coupon", {"usesMaximum": 5}, headers=IF_ANY),
            "end_coupon": self._of_coupon("end_coupon"),
            "add_shipping_fee": self._plain("add_shipping_fee", staff, LATER_FEE),
            "list_shipping_fees": self._plain("list_shipping_fees", staff),
            "show_shipping_fee": self._show_shipping_fee,
        }

    def _webhooks(self) -> dict[str, Prepare]:
        of_one = self._of_webhook
        hours = {"overlapHours": 1}
        types = {"eventTypes": EVENTS}
        times = {"fromTime": "2026-02-01T00:00:00Z", "toTime": "2026-02-02T00:00:00Z"}
        return {
            "create_webhook": self._create_webhook(NO_EVENTS),
            "list_webhooks": self._plain("list_webhooks", self.dataset.admin),
            "read_webhook": of_one("read_webhook"),
            "change_webhook": of_one("change_webhook", types, headers=IF_ANY),
            "rotate_secret": of_one("rotate_secret", hours, headers=IF_ANY),
            "send_test": of_one("send_test"),
            "list_deliveries": of_one("list_deliveries"),
            "read_delivery": self._of_delivery("read_delivery"),
            "redeliver": self._of_delivery("redeliver"),
            "redeliver_range": of_one("redeliver_range", times),
            "delete_webhook": self._delete_webhook,
        }

    def _reads(self) -> dict[str, Prepare]:
        account = self.dataset.customers[0]
        return {
            "list_products": self._plain("list_products", query={"limit": 20}),
            "show_product": self._plain("show_product", productId=self.product_id),
            "list_categories": self._plain("list_categories"),
            "read_me": self._plain("read_me", account),
            "list_my_orders": self._plain("list_my_orders", account),
            "read_order": self._of_order("read_order"),
            "read_timeline": self._of_order("read_timeline"),
            "show_receipt": self._of_order("show_receipt"),
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
            "summarise_cart": self._plain("summarise_cart", account),
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
            "confirm_payment": self._confirm_payment,
            "refund_order": self._refund,
            "read_order_records": self._by_support("read_order_records"),
            "add_note_to_order": self._by_support("add_note_to_order", {"text": "called"}),
            "cancel_for_customer": self._by_support("cancel_for_customer", {"reason": "called"}),
            "create_shipment": self._pack,
            "change_shipment": self._send,
            "cancel_lines": self._cancel_lines,
            "request_return": self._ask_to_return,
            "decide_return": self._decide_return,
            "receive_return": self._receive_return,
        }

    # ---- preparation

    def _plain(
        self,
        name: str,
        /,
        account: Account | None = None,
        body: Mapping[str, object] | None = None,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        **path: str | int,
    ) -> Prepare:
        async def prepare() -> Request:
            call = self.client.calls.make(name, body=body, query=query, headers=headers, **path)
            return call, account

        return prepare

    def _of_address(
        self,
        name: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Prepare:
        async def prepare() -> Request:
            make = self.client.calls.make
            # an address book of its own: the owner's is full after "add_address"
            account = await _new_account(self.client, self.dataset)
            added = await self._sent_ok(make("add_address", body=ADDRESS), account)
            address = str(added.document["id"])
            return make(name, body=body, headers=headers, addressId=address), account

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

    async def _pack(self) -> Request:
        order_id = await self._paid()
        return self.client.calls.make("create_shipment", orderId=order_id), self.dataset.staff

    async def _send(self) -> Request:
        call, staff = await self._pack()
        packed = await self._sent_ok(call, staff)
        assert call.order_id is not None
        number = self.client.calls.new_key()
        body = {"status": "SHIPPED", "carrier": "liveness", "trackingNumber": number}
        shipment_id = packed.document["id"]
        make = self.client.calls.make
        change = make("change_shipment", body=body, orderId=call.order_id, shipmentId=shipment_id)
        return change, staff

    async def _cancel_lines(self) -> Request:
        """The last units cancel the order."""
        order_id = await self._paid()
        self.client.log.add_intervention(order_id, "cancel")
        body = {"items": [{"productId": self.product_id, "quantity": 1}]}
        call = self.client.calls.make("cancel_lines", body=body, orderId=order_id)
        return call, self.dataset.customers[0]

    async def _ask_to_return(self) -> Request:
        make = self.client.calls.make
        call, staff = await self._send()
        sent = await self._sent_ok(call, staff)
        body: dict[str, object] = {"status": "DELIVERED"}
        shipment = str(sent.document["id"])
        assert call.order_id is not None
        delivered = make("change_shipment", body=body, orderId=call.order_id, shipmentId=shipment)
        await self._sent_ok(delivered, staff)
        self.client.log.add_intervention(call.order_id, "refund")
        items = [{"productId": self.product_id, "quantity": 1}]
        asking = {"items": items, "reason": "too small"}
        return (
            make("request_return", body=asking, orderId=call.order_id),
            self.dataset.customers[0],
        )

    async def _decide_return(self) -> Request:
        call, customer = await self._ask_to_return()
        asked = await self._sent_ok(call, customer)
        assert call.order_id is not None
        decision = self.client.calls.make(
            "decide_return",
            body={"status": "APPROVED"},
            orderId=call.order_id,
            returnId=str(asked.document["id"]),
        )
        return decision, self.dataset.support

    async def _receive_return(self) -> Request:
        call, support = await self._decide_return()
        decided = await self._sent_ok(call, support)
        assert call.order_id is not None
        receipt = self.client.calls.make(
            "receive_return", orderId=call.order_id, returnId=str(decided.document["id"])
        )
        return receipt, self.dataset.staff

    async def _sent_ok(self, call: Call, account: Account | None) -> Outcome:
        """Sends a request that another one needs."""
        outcome = await self.client.send(call, account)
        if outcome.status != call.operation.success:
            raise PreparationFailed(f"{call.operation.name}: {outcome.status} {outcome.code}")
        return outcome

    def _of_session(self, name: str) -> Prepare:
        async def prepare() -> Request:
            outcome = await self.dataset.customers[0].log_in()
            if outcome.status != 200:
                raise PreparationFailed(f"no session: {outcome.status}")
            body = {"refreshToken": outcome.document["refreshToken"]}
            return self.client.calls.make(name, body=body), None

        return prepare

    def _of_webhook(
        self,
        name: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Prepare:
        return self._plain(
            name, self.dataset.admin, body, headers=headers, webhookId=self.webhook_id
        )

    def _of_delivery(self, name: str) -> Prepare:
        async def prepare() -> Request:
            listed = self.client.calls.make("list_deliveries", webhookId=self.webhook_id)
            event_id = _first(await self.client.send(listed, self.dataset.admin))["eventId"]
            call = self.client.calls.make(name, webhookId=self.webhook_id, eventId=str(event_id))
            return call, self.dataset.admin

        return prepare

    def _create_webhook(self, event_types: list[str]) -> Prepare:
        async def prepare() -> Request:
            body = {"url": NO_RECEIVER + self.client.calls.new_key(), "eventTypes": event_types}
            return self.client.calls.make("create_webhook", body=body), self.dataset.admin

        return prepare

    async def _delete_webhook(self) -> Request:
        """Of one that was created before and has had no events."""
        listed = self.client.calls.make("list_webhooks")
        outcome = await self.client.send(listed, self.dataset.admin)
        webhook_id = str(_first(outcome, eventTypes=NO_EVENTS)["id"])
        return self.client.calls.make("delete_webhook", webhookId=webhook_id), self.dataset.admin

    async def _end_session(self) -> Request:
        """Of two sessions of the owner, the one that made no request yet."""
        await Account(self.client, self.owner.email, PASSWORD).log_in()
        listed = await self.client.send(self.client.calls.make("list_sessions"), self.owner)
        session_id = _first(listed, current=False)["id"]
        return self.client.calls.make("end_session", sessionId=session_id), self.owner

    async def _close_account(self) -> Request:
        body = {"password": PASSWORD}
        account = await _new_account(self.client, self.dataset)
        return self.client.calls.make("close_account", body=body), account

    async def _close_customer(self) -> Request:
        user_id = (await _new_account(self.client, self.dataset)).user_id
        call = self.client.calls.make("close_customer", userId=str(user_id))
        return call, self.dataset.admin

    async def _invite(self) -> Request:
        email = f"{self.client.calls.new_key()}@example.com"
        body = {"email": email, "name": "Liveness", "role": "staff"}
        return self.client.calls.make("invite", body=body), self.dataset.admin

    async def _begin_second_factor(self) -> Request:
        """Of a new account, which gets a role before."""
        account = await _new_account(self.client, self.dataset)
        call = self.client.calls.make(
            "change_account", body={"role": "staff"}, headers=IF_ANY, userId=account.user_id
        )
        outcome = await self.client.send(call, self.dataset.admin)
        if outcome.status != 200:
            raise PreparationFailed(f"no role: {outcome.status} {outcome.code}")
        body = {"email": account.email, "password": PASSWORD}
        return self.client.calls.make("begin_second_factor", body=body), None

    async def _confirm_second_factor(self) -> Request:
        begin, _ = await self._begin_second_factor()
        outcome = await self.client.send(begin, None)
        if outcome.status != 201:
            raise PreparationFailed(f"no second factor: {outcome.status} {outcome.code}")
        secret = b32decode(outcome.document["secret"])
        body = {**json.loads(begin.body), "code": code_at(int(time.time()) // STEP_SECONDS, secret)}
        return self.client.calls.make("confirm_second_factor", body=body), None

    def _with_factor(self, name: str) -> Prepare:
        async def prepare() -> Request:
            confirm, _ = await self._confirm_second_factor()
            outcome = await self.client.send(confirm, None)
            if outcome.status != 200:
                raise PreparationFailed(f"not confirmed: {outcome.status} {outcome.code}")
            body = {**json.loads(confirm.body), "code": outcome.document["recoveryCodes"][0]}
            return self.client.calls.make(name, body=body), None

        return prepare

    async def _create_service(self) -> Request:
        body = {"name": self.client.calls.new_key().lower(), "role": "support"}
        return self.client.calls.make("create_service", body=body), self.dataset.admin

    def _of_service(self, name: str, body: Mapping[str, object] | None = None) -> Prepare:
        async def prepare() -> Request:
            user_id = await self._created(*await self._create_service())
            call = self.client.calls.make(name, body=body, userId=str(user_id))
            return call, self.dataset.admin

        return prepare

    def _of_key(self, name: str, body: Mapping[str, object] | None = None) -> Prepare:
        async def prepare() -> Request:
            make, admin = self.client.calls.make, self.dataset.admin
            user_id = str(await self._created(*await self._create_service()))
            key_id = str(
                await self._created(make("create_key", body=SCOPES, userId=user_id), admin)
            )
            return make(name, body=body, userId=user_id, keyId=key_id), admin

        return prepare

    async def _created(self, call: Call, account: Account | None) -> object:
        """The id of what a request creates."""
        outcome = await self.client.send(call, account)
        if outcome.status != 201:
            raise PreparationFailed(f"{call.operation.name}: {outcome.status} {outcome.code}")
        return outcome.document["id"]

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

    def _of_group(
        self,
        name: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Prepare:
        async def prepare() -> Request:
            make, staff = self.client.calls.make, self.dataset.staff
            group = {"name": "G", "options": ["size"]}
            outcome = await self.client.send(make("add_group", body=group), staff)
            if outcome.status != 201:
                raise PreparationFailed(f"no group: {outcome.status} {outcome.code}")
            group_id: int = outcome.document["id"]
            return make(name, body=body, headers=headers, groupId=group_id), staff

        return prepare

    async def _add_coupon(self) -> Request:
        body = {"code": self.client.calls.new_key(), "discountAmount": 100}
        return self.client.calls.make("add_coupon", body=body), self.dataset.staff

    def _of_coupon(
        self,
        name: str,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Prepare:
        async def prepare() -> Request:
            added = await self._sent_ok(*await self._add_coupon())
            code = str(added.document["code"])
            make = self.client.calls.make
            return make(name, body=body, headers=headers, code=code), self.dataset.staff

        return prepare

    async def _show_shipping_fee(self) -> Request:
        make, staff = self.client.calls.make, self.dataset.staff
        added = await self._sent_ok(make("add_shipping_fee", body=LATER_FEE), staff)
        return make("show_shipping_fee", version=added.document["version"]), staff

    async def _schedule_price(self) -> Request:
        """A price for an hour that no other schedule of the product has."""
        begin = datetime.now(UTC) + timedelta(days=1, hours=next(self.hours))
        times = {"startsAt": begin, "endsAt": begin + timedelta(hours=1)}
        body = {"price": 900, **{name: time.isoformat() for name, time in times.items()}}
        call = self.client.calls.make("schedule_price", body=body, productId=self.product_id)
        return call, self.dataset.staff

    async def _cancel_price_schedule(self) -> Request:
        call, staff = await self._schedule_price()
        outcome = await self.client.send(call, staff)
        if outcome.status != 201:
            raise PreparationFailed(f"no schedule: {outcome.status} {outcome.code}")
        schedule_id: str = outcome.document["id"]
        call = self.client.calls.make(
            "cancel_price_schedule", productId=self.product_id, scheduleId=schedule_id
        )
        return call, staff

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

    async def _confirm_payment(self) -> Request:
        """With a token that the provider does not accept, so the payment ends at its deadline."""
        order_id, account = await self._placed("CARD_WIDGET")
        self.client.log.add_intervention(order_id, "decline")
        order = await self._wait_until(order_id, account, _awaits_customer)
        body = {"token": "called", "amount": order["totalAmount"]}
        payment_id: str = order["payment"]["id"]
        call = self.client.calls.make(
            "confirm_payment", body=body, orderId=order_id, paymentId=payment_id
        )
        return call, account

    async def _refund(self) -> Request:
        order_id = await self._paid()
        self.client.log.add_intervention(order_id, "refund")
        call = self.client.calls.make("refund_order", body={"amount": 1}, orderId=order_id)
        return call, self.dataset.support

    async def _paid(self) -> str:
        order_id, account = await self._placed("CARD")
        await self._wait_until(order_id, account, _is_paid)
        return order_id

    async def _placed(self, method: str) -> tuple[str, Account]:
        account = self.dataset.customers[0]
        body = {"productId": self.product_id, "quantity": 1, "paymentMethod": method}
        call = self.client.calls.make("place_order", body=body)
        outcome = await self.client.send(call, account)
        if outcome.status != 201:
            raise PreparationFailed(f"no order: {outcome.status} {outcome.code}")
        self.log_order(call, account, outcome)
        return str(outcome.document["id"]), account

    async def _wait_until(
        self, order_id: str, account: Account, condition: Callable[[JsonObject], bool]
    ) -> JsonObject:
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while time.monotonic() < deadline:
            read = self.client.calls.make("read_order", orderId=order_id)
            response = await self.client.send(read, account)
            if response.status == 200 and condition(response.document):
                return response.document
            await asyncio.sleep(POLL_SECONDS)
        raise PreparationFailed(f"order {order_id} was not ready after {WAIT_SECONDS_MAX:.0f} s")


async def _new_account(client: Client, dataset: Dataset) -> Account:
    """A customer of the dataset, whose requests can be replayed; logs in at its first request.

    The registration has no key: a replay would make another account.
    """
    email = f"{client.calls.new_key()}@example.com"
    body = {"email": email, "password": PASSWORD, "name": "Liveness"}
    outcome = await client.send(replace(client.calls.make("register", body=body), key=None))
    if outcome.status != 201:
        raise PreparationFailed(f"no account: {outcome.status} {outcome.code}")
    account = Account(client, email, PASSWORD, outcome.document["id"])
    dataset.accounts[email] = account
    return account


def _first(listed: Outcome, **properties: object) -> JsonObject:
    """The first item of a list that has the properties."""
    items: list[JsonObject] = json.loads(listed.body) if listed.status == 200 else []
    for item in items:
        if all(item[name] == value for name, value in properties.items()):
            return item
    raise PreparationFailed(f"none of {len(items)} items has {properties}: {listed.status}")


def _is_declined(order: JsonObject) -> bool:
    payment: JsonObject = order["payment"] or {}
    return payment.get("status") == "DECLINED"


def _awaits_customer(order: JsonObject) -> bool:
    payment = order["payment"]
    return payment is not None and payment.get("nextAction") is not None


def _is_paid(order: JsonObject) -> bool:
    return order["status"] == "PAID"
