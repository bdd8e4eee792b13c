"""What clients of the replaced system send and expect, in the order of its nine scenarios.

The group needs a fresh shop with the local seed and the default rate limit.  Requests are sent as
those clients send them: without idempotency keys and without retries, so a 429 before the last
scenario fails a check.
"""

from __future__ import annotations

import httpx

from tools.e2e.client import Call, JsonObject
from tools.e2e.context import ScenarioContext, expect
from tools.e2e.days import business_day
from tools.e2e.scenario import Scenario

EMAIL, PASSWORD, NAME = "test@test.com", "test1234", "테스트"
PRODUCT_A, PRODUCT_B, PRODUCT_C = 1, 2, 3
PRICE_B = 25_000
MISSING = 999_999
ORDER_FIELDS = ("id", "userId", "productId", "quantity", "totalAmount", "status")
SERVICES = ("user", "product", "order", "payment", "settlement")
RATE_LIMIT = 120


def flow(context: ScenarioContext) -> None:
    """Products, registration, login, order, order page, today's settlement."""
    products = expect(_send(context, "GET", "/products"), 200).json()
    found = {product["id"]: product for product in products}
    context.check.equal("product B costs 25,000", found[PRODUCT_B]["price"], PRICE_B)
    _check_fields(
        context, "a product", found[PRODUCT_A], "id", "name", "category", "price", "stockQuantity"
    )
    body = {"email": EMAIL, "password": PASSWORD, "name": NAME}
    registered = _send(context, "POST", "/users", body)
    context.check.status("registration of test@test.com with test1234: 201", registered, 201)
    _check_fields(context, "an account", registered.json(), "id", "email", "name")
    token = _log_in(context)
    order = _order(context, token, PRODUCT_A, 1)
    _check_fields(context, "an order", order, *ORDER_FIELDS)
    seen = expect(_send(context, "GET", f"/orders/{order['id']}", token=token), 200).json()
    _check_fields(context, "the order page", seen, *ORDER_FIELDS)
    path = f"/settlements/daily?date={business_day(context.run.time_zone)}"
    today = context.poll(
        lambda: _send(context, "GET", path), lambda response: response.status_code == 200
    )
    context.check.status("today's settlement, without a token: 200", today, 200)
    _check_fields(context, "a day", today.json(), "settlementDate", "totalAmount", "paymentCount")


def auth(context: ScenarioContext) -> None:
    """Protected paths need a valid token."""
    for path in ("/users/me", "/orders/me", "/cart"):
        _check_error(context, f"{path} without a token", _send(context, "GET", path), 401)
        bad = _send(context, "GET", path, token="bad")  # noqa: S106
        _check_error(context, f"{path} with a bad token", bad, 401)
    wrong = {"email": EMAIL, "password": "wrong-password"}
    _check_error(context, "a wrong password", _send(context, "POST", "/auth/login", wrong), 401)
    body = {"email": EMAIL, "password": PASSWORD, "name": NAME}
    _check_error(context, "a taken address", _send(context, "POST", "/users", body), 409)
    me = expect(_send(context, "GET", "/users/me", token=_log_in(context)), 200).json()
    context.check.equal("the account is the caller's", (me["email"], me["name"]), (EMAIL, NAME))


def order(context: ScenarioContext) -> None:
    """An order, the list of orders, and its cancellation."""
    token = _log_in(context)
    placed = _order(context, token, PRODUCT_B, 2)
    totals = placed["productId"], placed["quantity"], placed["totalAmount"]
    context.check.equal("product, quantity and total", totals, (PRODUCT_B, 2, 2 * PRICE_B))
    mine = expect(_send(context, "GET", "/orders/me", token=token), 200).json()
    context.check.equal("the newest order is first in the list", mine[0]["id"], placed["id"])
    _check_fields(context, "a listed order", mine[0], *ORDER_FIELDS, "createdAt")
    path = f"/orders/{placed['id']}"
    cancelled = _send(context, "PATCH", f"{path}/cancel", token=token)
    context.check.status("cancelling: 200", cancelled, 200)
    last = context.poll(
        lambda: expect(_send(context, "GET", path, token=token), 200).json(),
        lambda seen: seen["status"] == "CANCELLED",
    )
    context.check.equal("it becomes CANCELLED", last["status"], "CANCELLED")
    again = _send(context, "PATCH", f"{path}/cancel", token=token)
    _check_error(context, "cancelling again", again, 409)


def failure(context: ScenarioContext) -> None:
    """Orders that cannot be placed."""
    token = _log_in(context)
    body = {"productId": PRODUCT_C, "quantity": 100, "paymentMethod": "CARD"}
    _check_error(context, "no token", _send(context, "POST", "/orders", body), 401)
    _check_error(context, "no stock", _send(context, "POST", "/orders", body, token), 409)
    empty = _send(context, "POST", "/orders/from-cart", token=token)
    _check_error(context, "an empty cart", empty, 400)


def not_found(context: ScenarioContext) -> None:
    """Resources that do not exist."""
    token = _log_in(context)
    paths = (f"/products/{MISSING}", f"/orders/{MISSING}")
    for path in paths:
        _check_error(context, f"GET {path}", _send(context, "GET", path, token=token), 404)
    cancelled = _send(context, "PATCH", f"/orders/{MISSING}/cancel", token=token)
    _check_error(context, "cancelling a missing order", cancelled, 404)
    changed = _send(context, "PATCH", f"/cart/items/{MISSING}", {"quantity": 1}, token)
    _check_error(context, "changing a missing line", changed, 404)


def product_search(context: ScenarioContext) -> None:
    """Search by name, category and price."""
    searches = {
        "/products?name=상품 B": [PRODUCT_B],
        "/products?category=식품": [PRODUCT_C],
        "/products?name=테스트&minPrice=6000&maxPrice=20000": [PRODUCT_A],
        "/products?name=테스트&minPrice=10000": [PRODUCT_A, PRODUCT_B],
    }
    for path, expected in searches.items():
        found = expect(_send(context, "GET", path), 200).json()
        context.check.equal(path, [product["id"] for product in found], expected)
    none = _send(context, "GET", "/products?name=없는상품")
    context.check.equal("no match is exactly []", none.content, b"[]")


def settlement(context: ScenarioContext) -> None:
    """Settlements need no token; a bad date is 400, a day without payments 404."""
    for path, key in (
        ("/settlements/daily", "settlementDate"),
        ("/settlements/monthly", "yearMonth"),
    ):
        listed = expect(_send(context, "GET", path), 200).json()
        _check_fields(context, path, listed[0], key, "totalAmount", "paymentCount")
    for query in ("daily?date=not-a-date", "daily?date=2026-02-30", "monthly?yearMonth=2026-13"):
        _check_error(context, query, _send(context, "GET", f"/settlements/{query}"), 400)
    for query in ("daily?date=2001-01-01", "monthly?yearMonth=2001-01"):
        _check_error(context, query, _send(context, "GET", f"/settlements/{query}"), 404)


def cart(context: ScenarioContext) -> None:
    """Adding, changing, removing and ordering; an empty cart is exactly ``[]``."""
    token = _log_in(context)
    empty = expect(_send(context, "GET", "/cart", token=token), 200)
    context.check.equal("a new cart is exactly []", empty.content, b"[]")
    for quantity, total in ((1, 1), (2, 3)):
        body = {"productId": PRODUCT_A, "quantity": quantity}
        added = expect(_send(context, "POST", "/cart/items", body, token), 201).json()
        line = added["productId"], added["quantity"]
        context.check.equal("quantities add up", line, (PRODUCT_A, total))
    body = {"productId": PRODUCT_C, "quantity": 100}
    over = _send(context, "POST", "/cart/items", body, token)
    _check_error(context, "more than is in stock", over, 409)
    path = f"/cart/items/{PRODUCT_A}"
    changed = expect(_send(context, "PATCH", path, {"quantity": 2}, token), 200).json()
    context.check.equal("the quantity is changed", changed["quantity"], 2)
    removed = _send(context, "PATCH", path, {"quantity": 0}, token)
    context.check.status("a quantity of 0: 204", removed, 204)
    deleted = _send(context, "DELETE", path, token=token)
    context.check.status("deleting a line: 204", deleted, 204)
    _order_the_cart(context, token)


def _order_the_cart(context: ScenarioContext, token: str) -> None:
    body = {"productId": PRODUCT_A, "quantity": 1}
    expect(_send(context, "POST", "/cart/items", body, token), 201)
    lines = expect(_send(context, "GET", "/cart", token=token), 200).json()
    seen = [(line["productId"], line["quantity"]) for line in lines]
    context.check.equal("the cart is an array of lines", seen, [(PRODUCT_A, 1)])
    ordered = _send(context, "POST", "/orders/from-cart", token=token)
    context.check.status("ordering the cart without a body: 201", ordered, 201)
    context.check.equal("it is paid by card", ordered.json()["paymentMethod"], "CARD")
    after = expect(_send(context, "GET", "/cart", token=token), 200)
    context.check.equal("the cart is exactly [] afterwards", after.content, b"[]")
    expect(_send(context, "POST", "/cart/items", body, token), 201)
    emptied = _send(context, "DELETE", "/cart", token=token)
    context.check.status("emptying the cart: 204", emptied, 204)


def documents_and_health(context: ScenarioContext) -> None:
    """The addresses of API documents, health and metrics."""
    for path in ("/swagger-ui.html", "/api-docs.html"):
        moved = _send(context, "GET", path)
        target = moved.status_code, moved.headers.get("Location")
        context.check.equal(f"{path} redirects", target, (302, "/api-docs"))
    for path in ("/api-docs", "/v3/api-docs", "/actuator/health", "/actuator/prometheus"):
        context.check.status(f"{path}: 200", _send(context, "GET", path), 200)
    for name in SERVICES:
        document = expect(_send(context, "GET", f"/api-docs/{name}-service"), 200).json()
        context.check.that(f"OpenAPI of the {name} service has operations", document["paths"])


def rate_limit(context: ScenarioContext) -> None:
    """More than 120 requests a minute: 429."""
    statuses: list[int] = []
    while 429 not in statuses and len(statuses) <= 2 * RATE_LIMIT:
        statuses.append(_send(context, "GET", "/products").status_code)
    context.check.that("requests within the limit: 200", {*statuses[:-1]} == {200}, statuses)
    context.check.equal("beyond the limit: 429", statuses[-1], 429)


def _send(
    context: ScenarioContext, method: str, path: str, body: object = None, token: str | None = None
) -> httpx.Response:
    call = Call(method, path, json=body, token=token, headers={"Accept": "*/*"})
    return context.send_unretried(call)


def _log_in(context: ScenarioContext) -> str:
    body = {"email": EMAIL, "password": PASSWORD}
    token: str = expect(_send(context, "POST", "/auth/login", body), 200).json()["accessToken"]
    return token


def _order(context: ScenarioContext, token: str, product: int, quantity: int) -> JsonObject:
    body = {"productId": product, "quantity": quantity, "paymentMethod": "CARD"}
    placed: JsonObject = expect(_send(context, "POST", "/orders", body, token), 201).json()
    return placed


def _check_fields(context: ScenarioContext, what: str, body: JsonObject, *names: str) -> None:
    missing = [name for name in names if name not in body]
    context.check.equal(f"{what} has {', '.join(names)}", missing, [])


def _check_error(
    context: ScenarioContext, what: str, response: httpx.Response, status: int
) -> None:
    context.check.status(f"{what}: {status}", response, status)
    context.check.that(
        f"{what}: error and message", {"error", "message"} <= set(response.json()), response.text
    )


SCENARIOS = tuple(
    Scenario(execute)
    for execute in (
        flow,
        auth,
        order,
        failure,
        not_found,
        product_search,
        settlement,
        cart,
        documents_and_health,
        rate_limit,
    )
)
