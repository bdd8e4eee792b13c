"""Unknown paths, wrong methods, missing resources and internal paths; errors in Korean."""

from __future__ import annotations

from uuid import uuid4

from tools.e2e.client import Call
from tools.e2e.context import ScenarioContext
from tools.e2e.scenario import Scenario

UNKNOWN = ("/nothing", "/products/", "/orders/", "/ORDERS", "/orders;x=1", "/api/products")
INTERNAL_PATHS = (
    "/metrics",
    "/events",
    "/actuator/env",
    "/internal/stocks/reserve",
    "/h2-console",
    "/openapi.json",
    "/debug",
    "/.git/config",
    "/products/../internal/x",
)
WRONG_METHODS = (
    ("DELETE", "/products", "GET"),
    ("PUT", "/orders", "POST"),
    ("GET", "/auth/login", "POST"),
    ("POST", "/users/me", "GET"),
    ("DELETE", "/settlements/daily", "GET"),
)


def unknown_paths_answer_404(context: ScenarioContext) -> None:
    """An unknown path answers 404 with a problem document, with or without a token."""
    customer = context.customer(1)
    for path in UNKNOWN:
        response = context.send(Call("GET", path), customer)
        context.check.problem(f"GET {path}: 404", response, 404, "NOT_FOUND")
    anonymous = context.get("/nothing")
    context.check.problem("GET /nothing without a token: 404", anonymous, 404, "NOT_FOUND")


def internal_paths_answer_404(context: ScenarioContext) -> None:
    """Paths for internal traffic, monitoring and the previous system answer 404."""
    customer = context.customer(1)
    for path in INTERNAL_PATHS:
        response = context.send(Call("GET", path), customer)
        context.check.that(f"GET {path}: 404", response.status_code == 404, response.text)
    event = {"Content-Type": "application/cloudevents+json"}
    call = Call("POST", "/events", content=b"{}", headers=event, repeats=True)
    response = context.send(call, customer)
    context.check.that("POST /events: 404", response.status_code == 404, response.text)


def wrong_method_answers_405_with_allow(context: ScenarioContext) -> None:
    """A known path with another method: 405, and Allow lists the allowed methods."""
    customer = context.customer(1)
    for method, path, allowed in WRONG_METHODS:
        response = context.send(Call(method, path, repeats=True), customer)
        context.check.problem(f"{method} {path}: 405", response, 405)
        allow = [method.strip() for method in response.headers.get("Allow", "").split(",")]
        context.check.that(f"{method} {path}: Allow names {allowed}", allowed in allow, allow)


def missing_products_and_orders_answer_404(context: ScenarioContext) -> None:
    """Missing products and orders answer 404, and so do invalid ids."""
    customer = context.customer(1)
    for name in (str(2**40), "0", "-1", "abc"):
        response = context.get(f"/products/{name}", customer)
        context.check.problem(f"GET /products/{name}: 404", response, 404, "NOT_FOUND")
    missing = context.get(f"/orders/{uuid4()}", customer)
    context.check.problem("GET of a missing order: 404", missing, 404, "NOT_FOUND")
    malformed = context.get("/orders/42", customer)
    context.check.problem("GET /orders/42: 404", malformed, 404, "NOT_FOUND")
    cancel = context.write("PATCH", f"/orders/{uuid4()}/cancel", None, customer)
    context.check.problem("cancelling a missing order: 404", cancel, 404, "NOT_FOUND")


def errors_are_in_the_language_that_is_preferred(context: ScenarioContext) -> None:
    """Sentences are Korean or English by Accept-Language; codes are the same."""
    path, body = f"/orders/{uuid4()}", {"email": "x"}
    for preferred, language, missing, empty in (
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko", "주문을 찾을 수 없습니다", "필수 항목입니다"),
        ("en-US,en;q=0.9,ko;q=0.8", "en", "the order was not found", "Field required"),
        ("fr", "en", "the order was not found", "Field required"),
    ):
        headers = {"Accept-Language": preferred}
        found = context.send(Call("GET", path, headers=headers), context.customer(1))
        context.check.problem(f"{preferred}: 404", found, 404, "NOT_FOUND")
        context.check.equal(f"{preferred}: detail", found.json()["detail"], missing)
        context.check.equal("its language", found.headers["Content-Language"], language)
        call = Call("POST", "/auth/login", json=body, headers=headers, repeats=True)
        invalid = context.send(call)
        context.check.problem(f"{preferred}: 422", invalid, 422, "INVALID")
        messages = {each["field"]: each["message"] for each in invalid.json()["errors"]}
        context.check.equal(f"{preferred}: of a field", messages["password"], empty)


def inactive_product_answers_404(context: ScenarioContext) -> None:
    """A deactivated product answers 404 and cannot be ordered."""
    product, customer = context.create_product(), context.customer(1)
    context.deactivate_products()
    response = context.get(f"/products/{product['id']}", customer)
    context.check.problem("an inactive product: 404", response, 404, "NOT_FOUND")
    order = context.post_order(customer, (product["id"], 1))
    context.check.problem("an inactive product cannot be ordered: 422", order, 422)


SCENARIOS = (
    Scenario(unknown_paths_answer_404),
    Scenario(internal_paths_answer_404),
    Scenario(wrong_method_answers_405_with_allow),
    Scenario(missing_products_and_orders_answer_404),
    Scenario(errors_are_in_the_language_that_is_preferred),
    Scenario(inactive_product_answers_404, ("staff",)),
)
