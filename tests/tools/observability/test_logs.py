"""The log: one line per message, with what an operator asks for and nothing that is a secret."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from shop.runtime import log
from shop.runtime.routing import Operation
from tests.harness import ShopHarness

PASSWORD = "a password that nobody 알다"
NAME = "김비밀"


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.err == ""
    return [json.loads(line) for line in captured.out.splitlines()]


def test_a_whole_flow_says_no_secret(shop: ShopHarness, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_a_line_says_what_an_operator_asks_for(
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


def test_a_line_says_when_to_come_again(
    shop: ShopHarness, capsys: pytest.CaptureFixture[str]
) -> None:
    away = shop.apps["read_orders"].services
    away._made.clear()
    object.__setattr__(
        away.settings, "database_url", type(away.settings.database_url)("postgresql://127.0.0.1:9")
    )

    answer = shop.person().get("/orders/me")

    (*_, line) = lines_of(capsys)
    assert (answer.status, line["status"]) == (503, 503)
    assert line["retry_after"] == answer.headers["retry-after"]


def test_a_bug_keeps_its_trace_and_loses_what_rows_hold(
    shop: ShopHarness, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = shop.person().token
    quoted = f"boom\nDETAIL:  Key (email_key)=(kim@secret.test) already exists.\n{token}"

    def fails(*_: Any) -> Any:
        raise RuntimeError(f"{quoted} 'lee@secret.test'")

    monkeypatch.setattr(Operation, "handler", fails)

    assert shop.call("GET", "/categories").status == 500

    bug, answered = lines_of(capsys)
    assert (bug["message"], answered["status"]) == ("bug", 500)
    assert bug["trace"] == answered["trace"]
    assert "RuntimeError" in bug["traceback"] and "boom" in bug["traceback"]
    for secret in ("kim@", "lee@", "secret.test", token):
        assert secret not in bug["traceback"]


def test_a_line_outside_of_messages_has_no_trace(capsys: pytest.CaptureFixture[str]) -> None:
    log.write("left for later", what="nothing")

    (line,) = lines_of(capsys)
    assert "trace" not in line
