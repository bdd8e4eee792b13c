"""The storefront of a shop with faults: duplicated and lost events, killed processes, slow answers.

However often an answer is late or missing, one press of the button is one order, and every page
says what has happened and goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from playwright.sync_api import Browser, Page, Route, TimeoutError, expect

from tests.browser.steps import (
    check_out,
    fill_address,
    fill_cart,
    is_one_more,
    listed_orders,
    sign_in,
)
from tests.tools.e2e.running_shop import RunningShop, running_shop
from tools import web

FAULTS = ("--duplicate", "0.3", "--lose", "0.05", "--kill", "0.05")
ORDERS = 3
# a press of the button is repeated where its answer says that it may be
ATTEMPTS = 5


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningShop]:
    """A shop of its own whose events are duplicated and lost, and whose processes are killed."""
    web.build()
    settings = {"RATE_LIMIT_PER_MINUTE": "0"}
    folder = tmp_path_factory.mktemp("faults")
    with running_shop(folder, *FAULTS, environment=settings) as running:
        yield running


@pytest.fixture(scope="module")
def customer(browser: Browser, shop: RunningShop) -> Iterator[Page]:
    """A tab of a signed-in customer without orders."""
    context = browser.new_context(base_url=shop.url, locale="ko-KR")
    context.set_default_timeout(60_000)
    page = context.new_page()
    open_sign_in(page)
    signed_in = page.get_by_role("link", name="내 계정")
    for _ in range(ATTEMPTS):
        sign_in(page)
        expect(signed_in.or_(page.get_by_role("alert"))).to_be_visible()
        if signed_in.is_visible():
            break
    expect(signed_in).to_be_visible()
    yield page
    context.close()


def open_sign_in(page: Page) -> None:
    """Opens the page as a person does who loads it again when it stays empty.

    Its first file may be lost with the process that serves it, before any script can say so.
    """
    for _ in range(ATTEMPTS):
        page.goto("about:blank")
        page.goto("/#/sign-in")
        with suppress(TimeoutError):
            page.get_by_label("이메일").wait_for(timeout=15_000)
            return
    raise AssertionError("the page did not arrive")


def test_each_press_is_one_order_while_processes_die(customer: Page) -> None:
    for _ in range(ORDERS):
        fill_cart(customer)
        check_out(customer)
        badge = customer.locator("main header .badge")
        alert = customer.get_by_role("alert")
        for _ in range(ATTEMPTS):
            expect(badge.or_(alert).first).to_be_visible()
            if badge.is_visible():
                break
            customer.get_by_role("button", name="결제하기").click()
        expect(badge).to_have_text("결제 완료", timeout=120_000)
    assert len(listed_orders(customer)) == ORDERS


def test_key_is_kept_until_the_shop_has_answered(customer: Page) -> None:
    before = listed_orders(customer)
    fill_cart(customer)
    keys: list[str] = []

    def lose(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        route.abort()

    customer.route("**/orders/from-cart", lose)
    check_out(customer)
    expect(customer.get_by_text("다시 눌러도 한 번만 처리됩니다")).to_be_visible()
    customer.reload()
    fill_address(customer, "서울 중구 세종대로 110")
    customer.get_by_role("button", name="결제하기").click()
    expect(customer.get_by_text("다시 눌러도 한 번만 처리됩니다")).to_be_visible()
    customer.unroute("**/orders/from-cart")
    customer.get_by_role("button", name="결제하기").click()
    expect(customer.locator("main header .badge")).to_be_visible()
    assert len({*keys}) == 1
    assert is_one_more(listed_orders(customer), before)


def test_file_that_does_not_arrive_is_loaded_again(customer: Page) -> None:
    customer.goto("about:blank")
    customer.goto("/")
    customer.route("**/assets/access-*.js", lambda route: route.abort())
    customer.goto("/#/register")
    expect(customer.get_by_text("서버에 연결할 수 없습니다")).to_be_visible()
    customer.unroute("**/assets/access-*.js")
    customer.get_by_role("button", name="다시 시도").click()
    expect(customer.get_by_role("heading", name="회원가입")).to_be_visible()


def test_catalogue_of_a_busy_shop_is_repeated_and_shown(customer: Page) -> None:
    answers = iter([503, 502])

    def busy(route: Route) -> None:
        status = next(answers, None)
        route.continue_() if status is None else route.fulfill(status=status, json={})

    customer.route("**/products?*", busy)
    customer.goto("/#/?sort=price")
    expect(customer.locator(".product").first).to_be_visible()
    expect(customer.get_by_role("alert")).to_have_count(0)
    customer.unroute("**/products?*")
