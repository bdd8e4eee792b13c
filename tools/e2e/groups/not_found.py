"""What is not there is not there: unknown paths, wrong methods, missing things, our insides."""

from __future__ import annotations

from uuid import uuid4

from tools.e2e.client import Call
from tools.e2e.harness import Stage
from tools.e2e.scenario import Scenario

UNKNOWN = ("/nothing", "/products/", "/orders/", "/ORDERS", "/orders;x=1", "/api/products")
INSIDES = (
    "/metrics",
    "/events",
    "/actuator/health",
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


def answer_404_for_unknown_paths(stage: Stage) -> None:
    """A path nobody serves is refused as a problem document, signed in or not."""
    buyer = stage.customer(1)
    for path in UNKNOWN:
        answer = stage.send(Call("GET", path), buyer)
        stage.check.problem(f"GET {path}: 404", answer, 404, "NOT_FOUND")
    nobody = stage.get("/nothing")
    stage.check.problem("GET /nothing by nobody: 404", nobody, 404, "NOT_FOUND")


def hide_the_insides(stage: Stage) -> None:
    """Nothing that functions, scrapers or the old system use inside answers outside."""
    buyer = stage.customer(1)
    for path in INSIDES:
        answer = stage.send(Call("GET", path), buyer)
        stage.check.that(f"GET {path}: 404", answer.status_code == 404, answer.text)
    event = {"Content-Type": "application/cloudevents+json"}
    call = Call("POST", "/events", content=b"{}", headers=event, repeats=True)
    answer = stage.send(call, buyer)
    stage.check.that("POST /events: 404", answer.status_code == 404, answer.text)


def name_the_allowed_methods(stage: Stage) -> None:
    """A known path with another method: 405, and Allow says which there are."""
    buyer = stage.customer(1)
    for method, path, allowed in WRONG_METHODS:
        answer = stage.send(Call(method, path, repeats=True), buyer)
        stage.check.problem(f"{method} {path}: 405", answer, 405)
        allow = [word.strip() for word in answer.headers.get("Allow", "").split(",")]
        stage.check.that(f"{method} {path}: Allow names {allowed}", allowed in allow, allow)


def miss_what_never_was(stage: Stage) -> None:
    """Missing products and orders: 404; names that cannot be one: 404 too."""
    buyer = stage.customer(1)
    for name in (str(2**40), "0", "-1", "abc"):
        answer = stage.get(f"/products/{name}", buyer)
        stage.check.problem(f"GET /products/{name}: 404", answer, 404, "NOT_FOUND")
    missing = stage.get(f"/orders/{uuid4()}", buyer)
    stage.check.problem("GET of a missing order: 404", missing, 404, "NOT_FOUND")
    malformed = stage.get("/orders/42", buyer)
    stage.check.problem("GET /orders/42: 404", malformed, 404, "NOT_FOUND")
    cancel = stage.write("PATCH", f"/orders/{uuid4()}/cancel", None, buyer)
    stage.check.problem("cancelling a missing order: 404", cancel, 404, "NOT_FOUND")


def miss_what_was_put_away(stage: Stage) -> None:
    """A product that is no longer sold is no longer found."""
    product, buyer = stage.product(), stage.customer(1)
    stage.put_away()
    answer = stage.get(f"/products/{product['id']}", buyer)
    stage.check.problem("an inactive product: 404", answer, 404, "NOT_FOUND")
    order = stage.order(buyer, (product["id"], 1))
    stage.check.problem("an inactive product cannot be ordered: 422", order, 422)


SCENARIOS = (
    Scenario(answer_404_for_unknown_paths),
    Scenario(hide_the_insides),
    Scenario(name_the_allowed_methods),
    Scenario(miss_what_never_was),
    Scenario(miss_what_was_put_away, ("staff",)),
)
