"""Cookie mode: pages of the shop, and no others, hold a session without its refresh token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from functions.login.session_cookie import COOKIE
from shop.primitives.cors import REQUEST_HEADERS
from shop.runtime.http_messages import HttpResponse
from shop.runtime.wsgi import headers_of
from tests.harness import PASSWORD, Response, ShopHarness, shop_of_module

COOKIE_MODE = {"refresh-token": "cookie", "sec-fetch-site": "same-origin"}
PATHS = ("/auth/refresh", "/auth/logout")


@pytest.fixture(scope="module")
def shop(request: pytest.FixtureRequest) -> Iterator[ShopHarness]:
    with shop_of_module(request) as harness:
        yield harness


@pytest.fixture
def email(shop: ShopHarness) -> str:
    user_id = shop.person().user_id
    return str(shop.sql("select email from shop.users where user_id = %s", user_id)[0]["email"])


def log_in(shop: ShopHarness, email: str, headers: Mapping[str, str] = COOKIE_MODE) -> Response:
    body = {"email": email, "password": PASSWORD}
    return shop.call("POST", "/auth/login", body, headers=headers)


def cookie_of(answer: Response) -> dict[str, str]:
    """The Cookie header that a browser sends next."""
    lines = answer.headers["set-cookie"].splitlines()
    (value,) = (line.partition(";")[0] for line in lines if line.startswith(COOKIE))
    return {"cookie": value}


def send(shop: ShopHarness, path: str, cookie: Mapping[str, str], **headers: str) -> Response:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    sent = {"refresh-token": "cookie", **cookie, **named}
    return shop.call("POST", path, {}, headers=sent)


def test_refresh_token_is_in_a_cookie_that_no_script_reads(shop: ShopHarness, email: str) -> None:
    answer = log_in(shop, email)
    lines = answer.headers["set-cookie"].splitlines()
    assert answer.status == 200
    assert set(answer.json) == {"accessToken", "tokenType", "expiresIn"}
    (line,) = (line for line in lines if line.startswith(COOKIE))
    attributes = {part.strip() for part in line.split(";")[1:]}
    assert {"Path=/", "Secure", "HttpOnly", "SameSite=Strict"} < attributes
    assert not any(part.startswith("Domain") for part in attributes)
    assert len(lines) == 2  # the cookie of the device is another header


def test_cookies_are_headers_of_their_own() -> None:
    response = HttpResponse(204, b"", {"set-cookie": "a=1\nb=2"})
    assert headers_of(response) == [("set-cookie", "a=1"), ("set-cookie", "b=2")]


def test_session_is_renewed_and_ended_by_the_cookie(shop: ShopHarness, email: str) -> None:
    first = log_in(shop, email)
    second = send(shop, "/auth/refresh", cookie_of(first), sec_fetch_site="same-origin")
    assert second.status == 200
    assert "refreshToken" not in second.json
    assert cookie_of(second) != cookie_of(first)
    ended = send(shop, "/auth/logout", cookie_of(second), sec_fetch_site="same-origin")
    assert ended.status == 204
    assert ended.headers["set-cookie"].startswith(f"{COOKIE}=; Max-Age=0; Path=/")
    for token in (first.json["accessToken"], second.json["accessToken"]):
        assert shop.call("GET", "/users/me", token=token).status == 401
    assert send(shop, "/auth/refresh", cookie_of(second)).status == 401


def test_cookie_without_the_header_renews_nothing(shop: ShopHarness, email: str) -> None:
    cookie = cookie_of(log_in(shop, email))
    answer = shop.call("POST", "/auth/refresh", {}, headers=cookie)
    assert (answer.status, answer.error) == (422, "INVALID")
    assert send(shop, "/auth/refresh", cookie, sec_fetch_site="same-origin").status == 200


@pytest.mark.parametrize(
    "origin",
    [
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"origin": "https://evil.example", "host": "shop.example"},
        {"origin": "null", "host": "shop.example"},
        {"origin": "https://shop.example.evil.example", "host": "shop.example"},
        {"origin": "https://shop.example", "sec_fetch_site": "cross-site", "host": "shop.example"},
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_request_of_another_origin_is_rejected_and_changes_nothing(
    shop: ShopHarness, email: str, path: str, origin: dict[str, str]
) -> None:
    answer = log_in(shop, email)
    rejected = send(shop, path, cookie_of(answer), **origin)
    assert (rejected.status, rejected.error) == (403, "CROSS_ORIGIN")
    assert "set-cookie" not in rejected.headers
    assert shop.call("GET", "/users/me", token=answer.json["accessToken"]).status == 200
    assert send(shop, "/auth/refresh", cookie_of(answer)).status == 200


def test_log_in_of_another_origin_sets_no_cookie(shop: ShopHarness, email: str) -> None:
    answer = log_in(shop, email, {"refresh-token": "cookie", "sec-fetch-site": "cross-site"})
    assert (answer.status, answer.error) == (403, "CROSS_ORIGIN")
    assert "set-cookie" not in answer.headers


def test_older_browser_of_the_same_origin_is_accepted(shop: ShopHarness, email: str) -> None:
    cookie = cookie_of(log_in(shop, email))
    headers = {"origin": "https://shop.example", "host": "shop.example"}
    assert send(shop, "/auth/refresh", cookie, **headers).status == 200


def test_no_other_origin_may_send_the_header() -> None:
    assert "refresh-token" not in REQUEST_HEADERS
