"""A valid request for every route, in which a test changes one property at a time."""

from __future__ import annotations

from base64 import b32decode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from uuid import UUID, uuid4

from functions.web.handler import PAGES
from shop.one_time_links import token_of
from shop.primitives.ids import new_uuid
from shop.primitives.spec import ROLES, WITHOUT_ACCOUNT, Route
from shop.registry import all_specs
from shop.second_factors import STEP_SECONDS, code_at
from tests.harness import PASSWORD, Person, Response, ShopHarness

# an account that may use the routes of a policy or of several roles
ROLE_OF = {
    "settlements": "finance",
    "operator": "support",
    "operator_or_admin": "support",
    "support_or_admin": "support",
}

# a version of what shipping costs by which no order is priced
LATER_FEE: dict[str, Any] = {"amount": 3_000, "startsAt": "2099-01-01T00:00:00Z"}
# after which there is no account any more
CLOSING = ("DELETE", "/users/me")
COUNTED = (
    "orders",
    "users",
    "products",
    "outbox",
    "idempotency",
    "cart_items",
    "saved_addresses",
    "refunds",
    "shipments",
    "returns",
    "one_time_links",
    "notes",
)
COUNT_ROWS = "select " + ", ".join(f"(select count(*) from shop.{t}) as {t}" for t in COUNTED)

ADDRESS = {
    "recipient": "김보람",
    "phone": "010-1234-5678",
    "postcode": "04524",
    "line1": "서울특별시 중구 세종대로 110",
}

ROUTES: dict[tuple[str, str], Route] = {
    (route.method, route.path): route for spec in all_specs() for route in spec.routes
}


@dataclass
class SampleRequest:
    """One request without its caller."""

    path: str
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Samples:
    """A shop with accounts, products and orders for the sample requests to refer to."""

    def __init__(self, shop: ShopHarness) -> None:
        self.shop = shop
        self.email = f"{uuid4().hex}@test.kr"
        self.owner = shop.person()

    @cached_property
    def product(self) -> int:
        return self.shop.product(stock=100_000)

    @cached_property
    def expensive(self) -> int:
        """The product of the order that is paid."""
        return self.shop.product(price=1_000_000, stock=1_000)

    @cached_property
    def paid(self) -> str:
        """A paid order of the owner, large enough for many refunds and shipments."""
        return str(self.owner.paid_order(self.expensive, 500)["id"])

    def shipment(self) -> str:
        """Begins to pack one unit of the paid order; returns the id of the shipment."""
        body = {"items": [self.unit()]}
        packed = self.people["staff"].post(f"/admin/orders/{self.paid}/shipments", body)
        assert packed.status == 201, packed.body
        return str(packed.json["id"])

    def unit(self) -> dict[str, int]:
        """One unit of the paid order."""
        return {"productId": self.expensive, "quantity": 1}

    def parcel(self) -> str:
        """The number of a shipment of one more unit of the paid order, which is under way."""
        number = uuid4().hex
        sent = {"status": "SHIPPED", "carrier": "cj", "trackingNumber": number}
        self._change_shipment(self.shipment(), sent)
        return number

    def delivered(self) -> str:
        """The paid order, of which one more unit is delivered."""
        shipment = self.shipment()
        sent = {"status": "SHIPPED", "carrier": "cj", "trackingNumber": uuid4().hex}
        for body in (sent, {"status": "DELIVERED"}):
            self._change_shipment(shipment, body)
        return self.paid

    def _change_shipment(self, shipment: str, body: dict[str, str]) -> None:
        path = f"/admin/orders/{self.paid}/shipments/{shipment}"
        changed = self.people["staff"].patch(path, body)
        assert changed.status == 200, changed.body

    def goods_return(self, *, is_approved: bool = False) -> str:
        """The id of a new return of one unit of the paid order."""
        body = {"items": [self.unit()], "reason": "too small"}
        asked = self.owner.post(f"/orders/{self.delivered()}/returns", body)
        assert asked.status == 201, asked.body
        path = f"/admin/orders/{self.paid}/returns/{asked.json['id']}"
        if is_approved:
            decided = self.people["support"].patch(path, {"status": "APPROVED"})
            assert decided.status == 200, decided.body
        return str(asked.json["id"])

    def order(self) -> str:
        """Places a new order of the owner; returns its id."""
        return str(self.owner.order(self.product)["id"])

    def awaited_payment(self) -> str:
        """An order whose payment waits for the owner; returns the path of the payment."""
        order_id, payment_id = self.order(), new_uuid()
        self.shop.sql(
            "insert into shop.payments (payment_id, order_id, user_id, attempt, status, "
            "amount_minor, currency, payment_method, provider_key, charge_not_after, next_try_at, "
            "action, act_until) select %s, order_id, user_id, 1, 'REQUIRES_ACTION', total_minor, "
            "currency, payment_method, 'shop:' || order_id::text, now() + interval '1 hour', "
            """now() + interval '1 hour', '{"type": "widget"}', now() + interval '1 hour' """
            "from shop.orders where order_id = %s",
            payment_id,
            order_id,
        )
        return f"/orders/{order_id}/payments/{payment_id}"

    def fill_cart(self, person: Person) -> None:
        self.shop.sql(
            "insert into shop.cart_items (user_id, product_id, qty) values (%s, %s, 1) "
            "on conflict do nothing",
            person.user_id,
            self.product,
        )

    @cached_property
    def account(self) -> dict[str, str]:
        """Credentials of an account that can log in."""
        body = {"email": self.email, "password": PASSWORD, "name": "Kim"}
        response = self.shop.call("POST", "/users", json_body=body)
        assert response.status == 201, response.body
        return {"email": self.email, "password": PASSWORD}

    def refresh_token(self) -> str:
        response = self.shop.call("POST", "/auth/login", json_body=self.account)
        assert response.status == 200, response.body
        return str(response.json["refreshToken"])

    def operator(self) -> dict[str, str]:
        """The credentials of a new account with a role."""
        email = f"{uuid4().hex}@test.kr"
        assert self.shop.register(email).status == 201
        self.shop.sql("update shop.users set role = 'finance' where email = %s", email)
        return {"email": email, "password": PASSWORD}

    def unconfirmed_factor(self) -> dict[str, str]:
        """Credentials with the first code of a second factor."""
        credentials = self.operator()
        begun = self.shop.call("POST", "/auth/second-factor", json_body=credentials)
        assert begun.status == 201, begun.body
        step = int(datetime.now(UTC).timestamp()) // STEP_SECONDS
        return {**credentials, "code": code_at(step, b32decode(begun.json["secret"]))}

    def confirmed_factor(self) -> dict[str, str]:
        """Credentials with a recovery code of a second factor."""
        body = self.unconfirmed_factor()
        confirmed = self.shop.call("POST", "/auth/second-factor/confirm", json_body=body)
        assert confirmed.status == 200, confirmed.body
        return {**body, "code": confirmed.json["recoveryCodes"][0]}

    def new_token(self, person: Person) -> str:
        """An access token of a new session of the account, with its present role."""
        (account,) = self.shop.sql("select role from shop.users where user_id = %s", person.user_id)
        return self.shop.token(person.user_id, account["role"])

    def saved_address(self) -> str:
        """The path of an address in the owner's book."""
        listed = self.owner.get("/users/me/addresses").json
        if not listed:
            key = {"idempotency-key": str(uuid4())}
            added = self.owner.post("/users/me/addresses", {"address": ADDRESS}, headers=key)
            assert added.status == 201, added.body
            listed = [added.json]
        return f"/users/me/addresses/{listed[0]['id']}"

    def session_of_owner(self) -> str:
        """Opens a session of the owner; returns its id."""
        self.shop.token(self.owner.user_id)
        (session,) = self.shop.sql(
            "select session_id from shop.sessions where user_id = %s and revoked_at is null "
            "order by created_at desc limit 1",
            self.owner.user_id,
        )
        return str(session["session_id"])

    def new_product(self) -> int:
        """A product without price schedules."""
        return self.shop.product()

    @property
    def price_schedule(self) -> dict[str, object]:
        """A price for a time that has not begun."""
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        times = (tomorrow, tomorrow + timedelta(days=1))
        starts_at, ends_at = (time.isoformat() for time in times)
        return {"price": 900, "startsAt": starts_at, "endsAt": ends_at}

    @cached_property
    def product_group(self) -> str:
        """The path of a group without products."""
        body = {"name": "옷", "options": ["색"]}
        response = self.people["staff"].post("/admin/product-groups", body)
        assert response.status == 201, response.body
        return f"/admin/product-groups/{response.json['id']}"

    def alert(self) -> UUID:
        """The id of a new operator alert."""
        alert_id = new_uuid()
        self.shop.sql(
            "insert into shop.alarms (alarm_id, kind, subject, detail) values (%s, 'x', %s, '')",
            alert_id,
            str(alert_id),
        )
        return alert_id

    def dead_letter(self) -> UUID:
        """The id of a new dead letter."""
        letter_id = new_uuid()
        self.shop.sql(
            "insert into shop.dead_letters (dead_letter_id, event_id, source, type, destination, "
            "headers, body) values (%s, %s, '/shop', 'x', 'http://charge', '{}', 'x')",
            letter_id,
            str(letter_id),
        )
        return letter_id

    def shipping_fee(self) -> str:
        """The path of a new version of what shipping costs, which no order has."""
        key = {"idempotency-key": uuid4().hex}
        response = self.people["staff"].post("/admin/shipping-fees", LATER_FEE, headers=key)
        assert response.status == 201, response.body
        return f"/admin/shipping-fees/{response.json['version']}"

    def coupon(self) -> str:
        """The path of a new coupon."""
        code = uuid4().hex[:12]
        body = {"code": code, "discountAmount": 100}
        key = {"idempotency-key": str(uuid4())}
        response = self.people["staff"].post("/admin/coupons", body, headers=key)
        assert response.status == 201, response.body
        return f"/admin/coupons/{code}"

    def planned_price(self) -> str:
        """Plans a price; returns the path of its schedule."""
        path = f"/admin/products/{self.new_product()}/price-schedules"
        response = self.people["staff"].post(path, self.price_schedule)
        assert response.status == 201, response.body
        return f"{path}/{response.json['id']}"

    def link(self, purpose: str) -> UUID:
        """The id of a new link of a new account; only a change has addresses."""
        link_id = new_uuid()
        address = f"{uuid4().hex}@test.kr" if purpose == "CHANGE_EMAIL" else None
        self.shop.sql(
            "insert into shop.one_time_links "
            "(link_id, purpose, user_id, expires_at, email, email_before) "
            "values (%s, %s, %s, now() + interval '30 minutes', %s, %s)",
            link_id,
            purpose,
            self.shop.person().user_id,
            address,
            address and f"before-{address}",
        )
        return link_id

    def link_token(self, purpose: str) -> str:
        """The token of a new link of a new account."""
        return token_of(self.link(purpose), self.shop.secrets.link_key)

    def webhook(self) -> str:
        """The id of a new webhook whose receiver does not listen."""
        webhook_id = str(new_uuid())
        self.shop.sql(
            "insert into shop.webhooks (webhook_id, url, event_types) "
            "values (%s, 'http://127.0.0.1:9/' || %s, '{order.paid}')",
            webhook_id,
            webhook_id,
        )
        return webhook_id

    def delivery(self) -> str:
        """The path of a new delivery, below that of all webhooks."""
        webhook_id, event_id = self.webhook(), str(new_uuid())
        self.shop.sql(
            "insert into shop.webhook_deliveries (webhook_id, event_id, type) "
            "values (%s, %s, 'order.paid')",
            webhook_id,
            event_id,
        )
        return f"{webhook_id}/deliveries/{event_id}"

    def service(self) -> int:
        """A new service account."""
        body = {"name": f"s{uuid4().hex[:20]}", "role": "staff"}
        created = self.people["admin"].post("/admin/service-accounts", body)
        assert created.status == 201, created.body
        return int(created.json["id"])

    def api_key(self) -> str:
        """The path of a new API key of a new service account."""
        path = f"/admin/users/{self.service()}/api-keys"
        created = self.people["admin"].post(path, {"scopes": ["catalog:read"]})
        assert created.status == 201, created.body
        return f"{path}/{created.json['id']}"

    def rows(self) -> dict[str, int]:
        """The row count of each table, to prove that an error response wrote nothing."""
        (counts,) = self.shop.sql(COUNT_ROWS)
        return counts

    def person_for(self, route: Route) -> Person | None:
        """An account that may use the route; None where the route needs no token."""
        if route.auth in WITHOUT_ACCOUNT:
            return None
        if (route.method, route.path) == CLOSING:
            return self.shop.person()
        if route.auth == "customer":
            return self.owner
        return self.people[ROLE_OF.get(route.auth, route.auth)]

    @cached_property
    def people(self) -> dict[str, Person]:
        return {role: self.shop.person(role) for role in ROLES}

    def send(
        self, route: Route, sent: SampleRequest, *, token: str | None = None, **options: Any
    ) -> Response:
        return self.shop.call(
            route.method,
            sent.path,
            json_body=sent.body,
            token=token,
            headers=sent.headers | options.pop("headers", {}),
            **options,
        )


RequestBuilder = Callable[[Samples, Person], SampleRequest]


def _page(path: str) -> RequestBuilder:
    return lambda _samples, _person: SampleRequest(path, headers={"accept": "text/html"})


def _web_asset() -> str:
    """The name of a style sheet of the pages, which ``make web`` has built."""
    return next((PAGES / "assets").glob("*.css")).name


def _cart_line(samples: Samples, person: Person) -> str:
    samples.fill_cart(person)
    return f"/cart/items/{samples.product}"


def _from_cart(samples: Samples, person: Person) -> SampleRequest:
    samples.fill_cart(person)
    return SampleRequest("/orders/from-cart", {"paymentMethod": "CARD"})


def _new_product(_samples: Samples, _person: Person) -> SampleRequest:
    body = {"name": "물건", "category": "시험", "price": 100, "stockQuantity": 5}
    _samples.product  # noqa: B018 (brings the category with it)
    return SampleRequest("/products", body)


# A GET without a path parameter is its own sample, if it has no row here.
SAMPLES: dict[tuple[str, str], RequestBuilder] = {
    ("POST", "/users"): lambda s, p: SampleRequest(
        "/users", {"email": f"{uuid4().hex}@test.kr", "password": PASSWORD, "name": "Kim"}
    ),
    ("POST", "/users/me/password"): lambda s, p: SampleRequest(
        "/users/me/password", {"currentPassword": PASSWORD, "newPassword": PASSWORD}
    ),
    ("POST", "/users/me/export"): lambda s, p: SampleRequest("/users/me/export"),
    ("DELETE", "/users/me"): lambda s, p: SampleRequest("/users/me", {"password": PASSWORD}),
    ("POST", "/users/me/addresses"): lambda s, p: SampleRequest(
        "/users/me/addresses", {"address": ADDRESS}
    ),
    ("GET", "/users/me/addresses/{addressId}"): lambda s, p: SampleRequest(s.saved_address()),
    ("PATCH", "/users/me/addresses/{addressId}"): lambda s, p: SampleRequest(
        s.saved_address(), {"isDefault": True}, {"if-match": "*"}
    ),
    ("DELETE", "/users/me/addresses/{addressId}"): lambda s, p: SampleRequest(s.saved_address()),
    ("DELETE", "/users/me/sessions"): lambda s, p: SampleRequest("/users/me/sessions"),
    ("DELETE", "/users/me/sessions/{sessionId}"): lambda s, p: SampleRequest(
        f"/users/me/sessions/{s.session_of_owner()}"
    ),
    ("POST", "/auth/password-reset"): lambda s, p: SampleRequest(
        "/auth/password-reset", {"email": f"{uuid4().hex}@test.kr"}
    ),
    ("POST", "/auth/password-reset/confirm"): lambda s, p: SampleRequest(
        "/auth/password-reset/confirm",
        {"token": s.link_token("SET_PASSWORD"), "newPassword": PASSWORD},
    ),
    ("POST", "/auth/email-verification/confirm"): lambda s, p: SampleRequest(
        "/auth/email-verification/confirm", {"token": s.link_token("VERIFY_EMAIL")}
    ),
    ("PATCH", "/users/me"): lambda s, p: SampleRequest(
        "/users/me", {"language": "en"}, {"if-match": "*"}
    ),
    ("POST", "/users/me/email"): lambda s, p: SampleRequest(
        "/users/me/email", {"email": f"{uuid4().hex}@test.kr", "password": PASSWORD}
    ),
    ("POST", "/users/me/email-verification"): lambda s, p: SampleRequest(
        "/users/me/email-verification"
    ),
    ("POST", "/auth/login"): lambda s, p: SampleRequest("/auth/login", s.account),
    ("POST", "/auth/second-factor"): lambda s, p: SampleRequest(
        "/auth/second-factor", s.operator()
    ),
    ("POST", "/auth/second-factor/confirm"): lambda s, p: SampleRequest(
        "/auth/second-factor/confirm", s.unconfirmed_factor()
    ),
    ("POST", "/auth/second-factor/remove"): lambda s, p: SampleRequest(
        "/auth/second-factor/remove", s.confirmed_factor()
    ),
    ("POST", "/auth/second-factor/recovery-codes"): lambda s, p: SampleRequest(
        "/auth/second-factor/recovery-codes", s.confirmed_factor()
    ),
    ("POST", "/auth/refresh"): lambda s, p: SampleRequest(
        "/auth/refresh", {"refreshToken": s.refresh_token()}
    ),
    ("POST", "/auth/logout"): lambda s, p: SampleRequest("/auth/logout"),
    ("GET", "/products"): lambda s, p: SampleRequest("/products?limit=2"),
    ("GET", "/products/{productId}"): lambda s, p: SampleRequest(f"/products/{s.product}"),
    ("POST", "/products"): _new_product,
    ("PATCH", "/products/{productId}"): lambda s, p: SampleRequest(
        f"/products/{s.product}", {"price": 1000}, {"if-match": "*"}
    ),
    ("POST", "/products/{productId}/stock"): lambda s, p: SampleRequest(
        f"/products/{s.product}/stock", {"quantity": 1}
    ),
    ("GET", "/settlements/daily.csv"): lambda s, p: SampleRequest(
        "/settlements/daily.csv?yearMonth=2026-02"
    ),
    ("GET", "/settlements/monthly.csv"): lambda s, p: SampleRequest(
        "/settlements/monthly.csv?year=2026"
    ),
    ("GET", "/admin/products/{productId}"): lambda s, p: SampleRequest(
        f"/admin/products/{s.product}"
    ),
    ("GET", "/admin/products/{productId}/stock-moves"): lambda s, p: SampleRequest(
        f"/admin/products/{s.product}/stock-moves"
    ),
    ("GET", "/admin/products/{productId}/prices"): lambda s, p: SampleRequest(
        f"/admin/products/{s.product}/prices"
    ),
    ("POST", "/admin/products/{productId}/price-schedules"): lambda s, p: SampleRequest(
        f"/admin/products/{s.new_product()}/price-schedules", s.price_schedule
    ),
    ("DELETE", "/admin/products/{productId}/price-schedules/{scheduleId}"): lambda s, p: (
        SampleRequest(s.planned_price())
    ),
    ("POST", "/admin/product-groups"): lambda s, p: SampleRequest(
        "/admin/product-groups", {"name": "옷", "options": ["색", "크기"]}
    ),
    ("GET", "/admin/product-groups/{groupId}"): lambda s, p: SampleRequest(s.product_group),
    ("PATCH", "/admin/product-groups/{groupId}"): lambda s, p: SampleRequest(
        s.product_group, {"name": "옷"}, {"if-match": "*"}
    ),
    ("POST", "/admin/coupons"): lambda s, p: SampleRequest(
        "/admin/coupons", {"code": uuid4().hex[:12], "discountAmount": 100}
    ),
    ("POST", "/admin/shipping-fees"): lambda s, p: SampleRequest(
        "/admin/shipping-fees", dict(LATER_FEE)
    ),
    ("GET", "/admin/shipping-fees"): lambda s, p: SampleRequest("/admin/shipping-fees"),
    ("GET", "/admin/shipping-fees/{version}"): lambda s, p: SampleRequest(s.shipping_fee()),
    ("GET", "/admin/coupons/{code}"): lambda s, p: SampleRequest(s.coupon()),
    ("PATCH", "/admin/coupons/{code}"): lambda s, p: SampleRequest(
        s.coupon(), {"usesMaximum": 5}, {"if-match": "*"}
    ),
    ("DELETE", "/admin/coupons/{code}"): lambda s, p: SampleRequest(s.coupon()),
    ("POST", "/categories"): lambda s, p: SampleRequest("/categories", {"name": uuid4().hex}),
    ("POST", "/cart/items"): lambda s, p: SampleRequest(
        "/cart/items", {"productId": s.product, "quantity": 1}
    ),
    ("PATCH", "/cart/items/{productId}"): lambda s, p: SampleRequest(
        _cart_line(s, p), {"quantity": 2}
    ),
    ("DELETE", "/cart/items/{productId}"): lambda s, p: SampleRequest(_cart_line(s, p)),
    ("DELETE", "/cart"): lambda s, p: SampleRequest("/cart"),
    ("POST", "/orders"): lambda s, p: SampleRequest(
        "/orders", {"productId": s.product, "quantity": 1, "paymentMethod": "CARD"}
    ),
    ("POST", "/orders/from-cart"): _from_cart,
    ("POST", "/orders/{orderId}/payments"): lambda s, p: SampleRequest(
        f"/orders/{s.order()}/payments", {"paymentMethod": "CARD"}
    ),
    ("POST", "/orders/{orderId}/payments/{paymentId}/confirm"): lambda s, p: SampleRequest(
        f"{s.awaited_payment()}/confirm", {"token": "a-token", "amount": 1000}
    ),
    ("GET", "/orders/{orderId}"): lambda s, p: SampleRequest(f"/orders/{s.order()}"),
    ("GET", "/orders/{orderId}/timeline"): lambda s, p: SampleRequest(
        f"/orders/{s.order()}/timeline"
    ),
    ("GET", "/orders/{orderId}/receipt"): lambda s, p: SampleRequest(
        f"/orders/{s.order()}/receipt"
    ),
    ("PATCH", "/orders/{orderId}/cancel"): lambda s, p: SampleRequest(
        f"/orders/{s.order()}/cancel"
    ),
    ("POST", "/orders/{orderId}/refunds"): lambda s, p: SampleRequest(
        f"/orders/{s.paid}/refunds", {"amount": 1, "reason": "SUPPORT"}
    ),
    ("POST", "/payments/webhook"): lambda s, p: SampleRequest("/payments/webhook", {"id": "evt"}),
    ("POST", "/shipments/webhook"): lambda s, p: SampleRequest(
        "/shipments/webhook",
        {
            "carrier": "cj",
            "trackingNumber": s.parcel(),
            "status": "DELIVERED",
            "occurredAt": datetime.now(UTC).isoformat(),
        },
    ),
    ("PATCH", "/admin/orders/{orderId}/cancel"): lambda s, p: SampleRequest(
        f"/admin/orders/{s.order()}/cancel", {"reason": "ordered twice"}
    ),
    ("POST", "/admin/orders/{orderId}/shipments"): lambda s, p: SampleRequest(
        f"/admin/orders/{s.paid}/shipments",
        {"items": [s.unit()]},
    ),
    ("PATCH", "/admin/orders/{orderId}/shipments/{shipmentId}"): lambda s, p: SampleRequest(
        f"/admin/orders/{s.paid}/shipments/{s.shipment()}",
        {"status": "SHIPPED", "carrier": "cj", "trackingNumber": uuid4().hex},
    ),
    ("POST", "/orders/{orderId}/cancellations"): lambda s, p: SampleRequest(
        f"/orders/{s.paid}/cancellations", {"items": [s.unit()]}
    ),
    ("POST", "/orders/{orderId}/returns"): lambda s, p: SampleRequest(
        f"/orders/{s.delivered()}/returns", {"items": [s.unit()], "reason": "too small"}
    ),
    ("PATCH", "/admin/orders/{orderId}/returns/{returnId}"): lambda s, p: SampleRequest(
        f"/admin/orders/{s.paid}/returns/{s.goods_return()}", {"status": "APPROVED"}
    ),
    ("POST", "/admin/orders/{orderId}/returns/{returnId}/receipt"): lambda s, p: SampleRequest(
        f"/admin/orders/{s.paid}/returns/{s.goods_return(is_approved=True)}/receipt", {}
    ),
    ("GET", "/admin/orders/{orderId}"): lambda s, p: SampleRequest(f"/admin/orders/{s.order()}"),
    ("POST", "/admin/orders/{orderId}/notes"): lambda s, p: SampleRequest(
        f"/admin/orders/{s.order()}/notes", {"text": "called twice"}
    ),
    ("GET", "/admin/customers/{userId}"): lambda s, p: SampleRequest(
        f"/admin/customers/{s.owner.user_id}"
    ),
    ("POST", "/admin/customers/{userId}/notes"): lambda s, p: SampleRequest(
        f"/admin/customers/{s.owner.user_id}/notes", {"text": "prefers to be called"}
    ),
    ("GET", "/admin/alerts"): lambda s, p: SampleRequest("/admin/alerts"),
    ("POST", "/admin/alerts/{alertId}/resolution"): lambda s, p: SampleRequest(
        f"/admin/alerts/{s.alert()}/resolution", {"note": "restarted it"}
    ),
    ("GET", "/admin/dead-letters"): lambda s, p: SampleRequest("/admin/dead-letters"),
    ("GET", "/admin/dead-letters/{deadLetterId}"): lambda s, p: SampleRequest(
        f"/admin/dead-letters/{s.dead_letter()}"
    ),
    ("POST", "/admin/dead-letters/{deadLetterId}/drop"): lambda s, p: SampleRequest(
        f"/admin/dead-letters/{s.dead_letter()}/drop", {"reason": "a test"}
    ),
    ("POST", "/admin/users"): lambda s, p: SampleRequest(
        "/admin/users", {"email": f"{uuid4().hex}@test.kr", "name": "Kim", "role": "staff"}
    ),
    ("GET", "/admin/users/{userId}"): lambda s, p: SampleRequest(f"/admin/users/{s.owner.user_id}"),
    ("PATCH", "/admin/users/{userId}"): lambda s, p: SampleRequest(
        f"/admin/users/{s.shop.person().user_id}", {"role": "support"}, {"if-match": "*"}
    ),
    ("DELETE", "/admin/users/{userId}"): lambda s, p: SampleRequest(
        f"/admin/users/{s.shop.person().user_id}"
    ),
    ("POST", "/admin/webhooks"): lambda s, p: SampleRequest(
        "/admin/webhooks",
        {"url": f"http://127.0.0.1:9/{uuid4().hex}", "eventTypes": ["order.paid"]},
    ),
    ("GET", "/admin/webhooks/{webhookId}"): lambda s, p: SampleRequest(
        f"/admin/webhooks/{s.webhook()}"
    ),
    ("PATCH", "/admin/webhooks/{webhookId}"): lambda s, p: SampleRequest(
        f"/admin/webhooks/{s.webhook()}", {"state": "DISABLED"}, {"if-match": "*"}
    ),
    ("DELETE", "/admin/webhooks/{webhookId}"): lambda s, p: SampleRequest(
        f"/admin/webhooks/{s.webhook()}"
    ),
    ("POST", "/admin/webhooks/{webhookId}/secret"): lambda s, p: SampleRequest(
        f"/admin/webhooks/{s.webhook()}/secret", {"overlapHours": 1}, {"if-match": "*"}
    ),
    ("POST", "/admin/webhooks/{webhookId}/test"): lambda s, p: SampleRequest(
        f"/admin/webhooks/{s.webhook()}/test"
    ),
    ("GET", "/admin/webhooks/{webhookId}/deliveries"): lambda s, p: SampleRequest(
        f"/admin/webhooks/{s.webhook()}/deliveries"
    ),
    ("GET", "/admin/webhooks/{webhookId}/deliveries/{eventId}"): lambda s, p: SampleRequest(
        f"/admin/webhooks/{s.delivery()}"
    ),
    ("POST", "/admin/webhooks/{webhookId}/deliveries/{eventId}/redelivery"): (
        lambda s, p: SampleRequest(f"/admin/webhooks/{s.delivery()}/redelivery")
    ),
    ("POST", "/admin/webhooks/{webhookId}/redeliveries"): lambda s, p: SampleRequest(
        f"/admin/webhooks/{s.webhook()}/redeliveries",
        {"fromTime": "2026-02-01T00:00:00Z", "toTime": "2026-02-02T00:00:00Z"},
    ),
    ("POST", "/admin/service-accounts"): lambda s, p: SampleRequest(
        "/admin/service-accounts", {"name": f"s{uuid4().hex[:20]}", "role": "staff"}
    ),
    ("GET", "/admin/users/{userId}/api-keys"): lambda s, p: SampleRequest(
        f"/admin/users/{s.service()}/api-keys"
    ),
    ("POST", "/admin/users/{userId}/api-keys"): lambda s, p: SampleRequest(
        f"/admin/users/{s.service()}/api-keys", {"scopes": ["catalog:read"]}
    ),
    ("POST", "/admin/users/{userId}/api-keys/{keyId}/rotate"): lambda s, p: SampleRequest(
        f"{s.api_key()}/rotate", {"overlapHours": 1}
    ),
    ("DELETE", "/admin/users/{userId}/api-keys/{keyId}"): lambda s, p: SampleRequest(s.api_key()),
    ("GET", "/api-docs/{asset}"): lambda s, p: SampleRequest("/api-docs/api-docs.css"),
    **{("GET", path): _page(path) for path in ("/", "/set-password", "/verify-email", "/admin")},
    ("GET", "/assets/{asset}"): lambda s, p: SampleRequest(f"/assets/{_web_asset()}"),
    ("GET", "/v3/api-docs/{group}"): lambda s, p: SampleRequest("/v3/api-docs/auth"),
    ("GET", "/schemas/{name}"): lambda s, p: SampleRequest("/schemas/order.placed.v1.json"),
}


def sample_request(samples: Samples, route: Route, person: Person | None = None) -> SampleRequest:
    """A valid request to the route, for ``person`` or an account that may use it."""
    caller = person or samples.person_for(route) or samples.owner
    build = SAMPLES.get((route.method, route.path))
    if build is None:
        assert _is_its_own_sample(route), f"{route.method} {route.path} has no row in SAMPLES"
        return SampleRequest(route.path)
    return build(samples, caller)


def _is_its_own_sample(route: Route) -> bool:
    return route.method == "GET" and "{" not in route.path
