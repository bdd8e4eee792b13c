"""Logs: one line per message, with function, route, status, duration and trace, without secrets."""

# Discards the services that the function has made, so that the next request makes them again.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from shop.primitives.errors import Unavailable
from shop.runtime import log
from shop.runtime.config import Secret
from shop.runtime.routing import Operation
from tests.harness import MakeShop, ShopHarness

PASSWORD = "a secret password 알다"
NAME = "김비밀"


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.splitlines()]


def test_logs_of_an_order_flow_contain_no_secrets(
    shop: ShopHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    email = f"{uuid4().hex}@secret.test"
    account = {"email": email, "password": PASSWORD, "name": NAME}
    product = shop.product(name="비밀 물건")

    calls = [
        shop.call("POST", "/users", json_body=account),
        shop.call("POST", "/users", json_body=account),
        shop.call("POST", "/auth/login", json_body={"email": email, "password": "wrong " * 3}),
        login := shop.call("POST", "/auth/login", json_body={"email": email, "password": PASSWORD}),
        shop.call("POST", "/auth/login", raw=f'{{"password":"{PASSWORD}"'.encode()),
        shop.call("GET", f"/users/{email}"),
        shop.call("GET", "/orders/me", token=f"{login.json['accessToken']}x"),
    ]
    token, refresh = login.json["accessToken"], login.json["refreshToken"]
    key = f"key-{uuid4().hex}"
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    order = shop.call("POST", "/orders", json_body=body, token=token, key=key)
    delivered = shop.deliver_all()
    calls += [
        order,
        shop.call("GET", f"/products?name={NAME}"),
        shop.call("PATCH", f"/orders/{order.json['id']}/cancel", token=token),
        shop.call("POST", "/auth/refresh", json_body={"refreshToken": refresh}),
    ]
    delivered += shop.deliver_all()

    assert [call.status for call in calls[:5]] == [201, 409, 401, 200, 400]
    assert [call.status for call in calls[5:8]] == [404, 401, 201]
    assert [call.status for call in calls[8:]] == [200, 200, 200]
    text = capsys.readouterr().out
    assert len(text.splitlines()) == len(calls) + delivered
    private = [PASSWORD, "wrong wrong", email, email.split("@")[0], NAME, "비밀", token, refresh]
    for secret in [*private, token.split(".")[2], key, "Bearer", "eyJ"]:
        assert secret not in text, secret


def test_line_has_route_status_duration_trace_and_cold_start(
    shop: ShopHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.apps["list_products"].ready_seconds = 0.25
    shop.call("GET", "/categories")
    shop.call("GET", "/categories")

    first, second = lines_of(capsys)
    assert first["cold"] is True
    assert first["startup_ms"] == pytest.approx(250 + first["milliseconds"], abs=1)
    assert "cold" not in second and "startup_ms" not in second
    for line in (first, second):
        assert (line["function"], line["route"]) == ("list_products", "GET /categories")
        assert (line["method"], line["status"]) == ("GET", 200)
        assert len(line["trace"]) == 32 and line["milliseconds"] >= 0


def test_cold_start_excludes_the_time_that_the_client_asked_to_wait(
    shop: ShopHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    customer = shop.person()
    order = customer.order(shop.product())
    shop.apps["read_orders"].ready_seconds = 0.25
    customer.get(f"/orders/{order['id']}", headers={"prefer": "wait=1"})

    (*_, line) = lines_of(capsys)
    assert line["milliseconds"] >= 1000
    assert line["startup_ms"] <= 250 + line["milliseconds"] - 999


def test_line_of_503_has_retry_after(shop: ShopHarness, capsys: pytest.CaptureFixture[str]) -> None:
    services = shop.apps["read_orders"].services
    services._instances.clear()
    object.__setattr__(
        services.settings,
        "database_url",
        type(services.settings.database_url)("postgresql://127.0.0.1:9"),
    )

    response = shop.person().get("/orders/me")

    (*_, line) = lines_of(capsys)
    assert (response.status, line["status"]) == (503, 503)
    assert line["retry_after"] == response.headers["retry-after"]


def test_503_logs_the_reason_of_the_database(
    make_shop: MakeShop, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = database_url.rpartition("@")[2]
    shop = make_shop(database_url=Secret(f"postgresql://shop_unknown:a-password@{address}"))

    assert shop.call("GET", "/categories").status == 503

    unavailable, request = lines_of(capsys)
    assert (unavailable["message"], unavailable["error"]) == ("unavailable", "OperationalError")
    assert unavailable["route"] == request["route"] == "GET /categories"
    assert "shop_unknown" in unavailable["reason"]
    assert "a-password" not in unavailable["reason"]


def test_error_without_a_text_is_explained_by_the_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = Unavailable("too many log-ins at once")
    error.__cause__ = TimeoutError()

    log.unavailable("unavailable", error)

    (line,) = lines_of(capsys)
    assert (line["error"], line["reason"]) == ("TimeoutError", "too many log-ins at once")


def test_traceback_of_a_bug_is_logged_without_row_data(
    shop: ShopHarness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = shop.person().token
    quoted = f"boom\nDETAIL:  Key (email_key)=(kim@secret.test) already exists.\n{token}"

    def fails(*_: Any) -> Any:
        raise RuntimeError(f"{quoted} 'lee@secret.test'")

    monkeypatch.setattr(Operation, "handler", fails)

    assert shop.call("GET", "/categories").status == 500

    bug, request = lines_of(capsys)
    assert (bug["message"], request["status"]) == ("bug", 500)
    assert bug["trace"] == request["trace"]
    assert "RuntimeError" in bug["traceback"] and "boom" in bug["traceback"]
    for secret in ("kim@", "lee@", "secret.test", token):
        assert secret not in bug["traceback"]


def test_line_outside_a_message_has_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    log.write("left for later", what="nothing")

    (line,) = lines_of(capsys)
    assert "trace" not in line
