"""What several tests of the pages do: fill the cart, sign in, check out."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from tools.seed import LOCAL_ACCOUNTS
from tools.showcase import FIRST_ID

_, EMAIL, PASSWORD = LOCAL_ACCOUNTS[0]


def fill_cart(page: Page) -> None:
    page.goto(f"/#/products/{FIRST_ID}")
    page.get_by_role("button", name="장바구니에 담기").click()
    expect(page.get_by_text("장바구니에 담았습니다").first).to_be_visible()
    expect(page.get_by_role("link", name=re.compile(r"장바구니 \([1-9]"))).to_be_visible()


def sign_in(page: Page) -> None:
    page.get_by_label("이메일").fill(EMAIL)
    page.get_by_label("비밀번호").fill(PASSWORD)
    page.get_by_role("button", name="로그인").click()


def sign_in_first(page: Page) -> None:
    page.goto("/#/sign-in")
    sign_in(page)
    expect(page.get_by_role("link", name="내 계정")).to_be_visible()


def fill_address(page: Page, line: str) -> None:
    """Fills the fields of an address, also where saved ones are offered."""
    expect(page.get_by_label("결제 수단").or_(page.get_by_role("dialog"))).to_be_visible()
    other = page.get_by_label("다른 주소로 받기")
    if other.count():
        other.check()
    page.get_by_label("받는 사람").fill("김손님")
    page.get_by_label("전화번호").fill("010-1234-5678")
    page.get_by_label("우편번호").fill("04524")
    page.locator("[name='line1']").fill(line)


def check_out(page: Page, method: str = "CARD") -> None:
    page.goto("/#/checkout")
    fill_address(page, "서울 중구 세종대로 110")
    page.get_by_label("결제 수단").select_option(method)
    page.get_by_role("button", name="결제하기").click()


def status_is(page: Page, text: str) -> None:
    expect(page.locator("main header .badge")).to_have_text(text, timeout=60_000)


def listed_orders(page: Page) -> list[str]:
    """The addresses of the customer's newest orders, of which a page has ten at most."""
    page.goto("/#/orders")
    expect(page.get_by_role("heading", name="주문 내역")).to_be_visible()
    expect(page.locator(".order-row, .empty").first).to_be_visible()
    rows = page.locator(".order-row").all()
    return [row.get_attribute("href") or "" for row in rows]


def is_one_more(after: list[str], before: list[str]) -> bool:
    """Whether exactly one order was placed between two looks at the list."""
    return after[0] not in before and after[1:] == before[: len(after) - 1]
