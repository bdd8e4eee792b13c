"""The storefront in Chromium: a buyer's way, lost responses, hostile texts, keyboard, budget."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from functions.web.handler import PAGES
from tests.browser.steps import (
    check_out,
    fill_cart,
    is_one_more,
    listed_orders,
    sign_in,
    sign_in_first,
    status_is,
)
from tests.tools.e2e.running_shop import RunningShop
from tools.showcase import FIRST_ID, showpieces

FIRST_VIEW_BYTES_MAX = 60_000
HOSTILE = "<img src=x onerror=alert(1)>\u202eRTL\u200b" + "가" * 170


def test_visitor_buys_signs_in_on_the_way_and_cancels(page: Page, context: BrowserContext) -> None:
    fill_cart(page)
    page.get_by_role("link", name=re.compile("^장바구니")).click()
    page.get_by_role("link", name="주문하기").click()
    sign_in(page)
    expect(page.get_by_role("heading", name="주문서")).to_be_visible()
    check_out(page)
    status_is(page, "결제 완료")
    kept = {cookie.get("name"): cookie.get("httpOnly") for cookie in context.cookies()}
    assert kept["__Host-shop_refresh"] is True
    page.reload()
    status_is(page, "결제 완료")
    with page.expect_download() as saved:
        page.get_by_role("button", name="영수증").click()
    assert saved.value.suggested_filename.startswith("receipt-")
    assert "<html" in saved.value.path().read_text("utf-8")
    assert "ey" not in page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
    page.get_by_role("button", name="주문 취소").click()
    page.get_by_role("dialog").get_by_role("button", name="주문 취소").click()
    status_is(page, "취소됨")


def test_order_whose_response_is_lost_is_placed_once(page: Page) -> None:
    sign_in_first(page)
    before = listed_orders(page)
    fill_cart(page)
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append(route.request.headers["idempotency-key"])
        if len(lost) <= 2:
            route.fetch()  # the shop has placed it, and the answer does not arrive
            route.abort()
        else:
            route.continue_()

    page.route("**/orders/from-cart", lose)
    check_out(page)
    status_is(page, "결제 완료")
    assert len(lost) == 3
    assert len({*lost}) == 1
    assert is_one_more(listed_orders(page), before)


def test_catalogue_of_a_failing_shop_says_so_and_recovers(page: Page) -> None:
    page.route("**/products?*", lambda route: route.abort())
    page.goto("/")
    expect(page.get_by_text("서버에 연결할 수 없습니다")).to_be_visible(timeout=60_000)
    page.unroute("**/products?*")
    page.get_by_role("button", name="다시 시도").click()
    expect(page.locator(".product").first).to_be_visible()


def test_product_with_hostile_texts_is_shown_as_text(page: Page, shop: RunningShop) -> None:
    def replace(route: Route) -> None:
        answer = route.fetch()
        product = answer.json()
        product |= {"name": HOSTILE, "description": HOSTILE, "category": HOSTILE}
        product["images"] = [{"url": "javascript:alert(1)", "alt": HOSTILE}]
        route.fulfill(response=answer, json=product)

    page.route(f"**/products/{FIRST_ID}", replace)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.set_viewport_size({"width": 320, "height": 700})
    page.goto(f"/#/products/{FIRST_ID}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("main img[src='x']").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_keyboard_reaches_a_product_and_buys_it(page: Page) -> None:
    page.goto("/")
    expect(page.locator(".product").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_text("본문으로 건너뛰기")).to_be_focused()
    page.keyboard.press("Enter")
    tab_until(page, lambda: page.evaluate("document.activeElement.matches('.product')"))
    page.keyboard.press("Enter")
    expect(page.locator(".details")).to_be_visible()
    tab_until(page, lambda: page.evaluate("document.activeElement.matches('.button.primary')"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name=re.compile(r"장바구니 \([1-9]"))).to_be_visible()


def tab_until(page: Page, is_there: Callable[[], bool]) -> None:
    for _ in range(60):
        if is_there():
            return
        page.keyboard.press("Tab")
    pytest.fail("the keyboard does not reach it")


def test_english_shows_amounts_and_sentences_in_english(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="Good things for every day")).to_be_visible()
    assert page.evaluate("document.documentElement.lang") == "en"
    expect(page.get_by_role("link", name=showpieces()[-1].english)).to_be_visible()
    expect(page.locator(".price").first).to_contain_text("₩")


def test_scripts_of_the_first_view_are_within_the_budget() -> None:
    html = (PAGES / "storefront.html").read_text("utf-8")
    scripts = re.findall(r'(?:src|href)="/(assets/[^"]+\.js)"', html)
    sizes = {name: len(gzip.compress((PAGES / name).read_bytes())) for name in scripts}
    assert len(sizes) >= 1
    assert sum(sizes.values()) <= FIRST_VIEW_BYTES_MAX, sizes
