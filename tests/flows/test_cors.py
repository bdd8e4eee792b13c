"""Browsers on allowed origins may call the shop, through each edge; those on others may not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shop.primitives.cors import METHODS, REQUEST_HEADERS, RESPONSE_HEADERS, parse_origins
from tests.harness import MakeShop, ShopHarness
from tests.tools.local_platform.platform_under_test import running_platform, send

OURS, OTHER = "https://www.shop.kr", "https://evil.example"
PREFLIGHT = {"access-control-request-method": "PATCH", "access-control-request-headers": "if-match"}
MAY_READ = {
    "vary": "Origin",
    "access-control-allow-origin": OURS,
    "access-control-expose-headers": RESPONSE_HEADERS,
}
MAY_CALL = {
    "vary": "Origin",
    "access-control-allow-origin": OURS,
    "access-control-allow-methods": METHODS,
    "access-control-allow-headers": REQUEST_HEADERS,
    "access-control-max-age": "600",
}
MAY_NOT = {"vary": "Origin"}


def cors_in(headers: dict[str, str]) -> dict[str, str]:
    cors = {name: value for name, value in headers.items() if name.startswith("access-control-")}
    # a problem document varies by language too
    vary = [name for name in headers.get("vary", "").split(", ") if name == "Origin"]
    return cors | ({"vary": "Origin"} if vary else {})


@pytest.fixture
def shop(make_shop: MakeShop) -> ShopHarness:
    return make_shop(cors_origins=f"{OURS},http://localhost:3000")


# ---------------------------------------------------------------- functions


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/cart", 401),
        ("POST", "/cart", 405),
        ("OPTIONS", "/cart", 204),
    ],
)
def test_scripts_of_allowed_origins_may_read_every_response(
    shop: ShopHarness, method: str, path: str, status: int
) -> None:
    for origin, expected in ((OURS, MAY_READ), (OTHER, MAY_NOT), ("null", MAY_NOT)):
        answer = shop.call(method, path, headers={"origin": origin}, function="cart")
        assert (answer.status, cors_in(dict(answer.headers))) == (status, expected), origin
    assert cors_in(dict(shop.call(method, path, function="cart").headers)) == MAY_NOT, (
        "a cache keeps them apart"
    )


def test_preflight_of_an_allowed_origin_is_answered_without_a_token(shop: ShopHarness) -> None:
    allowed = shop.call(
        "OPTIONS", "/cart/items/1", headers={"origin": OURS, **PREFLIGHT}, function="cart"
    )
    other = shop.call(
        "OPTIONS", "/cart/items/1", headers={"origin": OTHER, **PREFLIGHT}, function="cart"
    )

    assert (allowed.status, cors_in(dict(allowed.headers))) == (204, MAY_CALL)
    assert (other.status, cors_in(dict(other.headers))) == (204, MAY_NOT)


@pytest.mark.parametrize(
    "origin",
    [
        f"{OURS}.evil.example", f"{OURS}/", f"{OURS}:443", f"{OURS}:8443", "http://www.shop.kr",
        "https://WWW.shop.kr", "https://shop.kr", f"{OURS},http://localhost:3000", "*", "",
    ],
)  # fmt: skip
def test_origin_is_compared_as_a_whole(shop: ShopHarness, origin: str) -> None:
    answer = shop.call("GET", "/products", headers={"origin": origin})

    assert cors_in(dict(answer.headers)) == MAY_NOT


def test_no_origin_is_allowed_by_default_and_no_header_is_sent(make_shop: MakeShop) -> None:
    for headers in ({"origin": OURS}, {"origin": OURS, **PREFLIGHT}):
        for method in ("GET", "OPTIONS"):
            answer = make_shop().call(method, "/products", headers=headers)
            assert cors_in(dict(answer.headers)) == {}


@pytest.mark.parametrize(
    "text",
    [
        "*", "null", "shop.kr", "https://shop.kr/", "https://*.shop.kr", "https://SHOP.kr",
        "https://shop.kr:443", "http://shop.kr:80", "https://a.kr https://b.kr", "https://a.kr,",
        "ftp://a.kr", "https://u@a.kr", "https://a.kr?x", "https://", ",",
    ],
)  # fmt: skip
def test_origin_that_no_browser_sends_is_a_setting_error(text: str) -> None:
    with pytest.raises(ValueError, match="list of origins"):
        parse_origins(text)


def test_list_of_origins_is_read() -> None:
    text = "https://a.kr, http://localhost:3000,https://[::1]:8443"

    assert parse_origins(text) == set(text.replace(" ", "").split(","))
    assert parse_origins("") == frozenset()


# ---------------------------------------------------------------- edges


def test_local_edge_allows_origins_for_its_own_responses(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with running_platform(tmp_path, cors_origins=frozenset({OURS})) as platform:
            for method, path, status in (("GET", "/echo", 200), ("GET", "/nothing", 404)):
                for origin, expected in ((OURS, MAY_READ), (OTHER, MAY_NOT)):
                    headers = {"origin": origin}
                    answer = await send(platform.port, method, path, headers=headers)
                    seen = {n.decode(): v.decode() for n, v in answer.headers}
                    assert (answer.status, cors_in(seen)) == (status, expected), path
            headers = {"origin": OURS, **PREFLIGHT}
            answer = await send(platform.port, "OPTIONS", "/echo", headers=headers)
            seen = {n.decode(): v.decode() for n, v in answer.headers}
            assert (answer.status, cors_in(seen)) == (204, MAY_CALL)

    asyncio.run(scenario())
