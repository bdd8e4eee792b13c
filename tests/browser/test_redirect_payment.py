"""Payments at the provider's page in Chromium: approved, abandoned, declined, doubled, late."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.steps import check_out, fill_cart, sign_in_first, status_is


@pytest.fixture
def buyer(page: Page) -> Page:
    """A tab with an order whose payment waits for the provider's page."""
    sign_in_first(page)
    fill_cart(page)
    check_out(page, "CARD_REDIRECT")
    expect(page.get_by_role("link", name="결제 계속하기")).to_be_visible()
    return page


def open_provider(page: Page) -> str:
    """Follows the link of the order to the provider's page; returns its address."""
    page.get_by_role("link", name="결제 계속하기").click()
    expect(page.get_by_role("heading", name="모의 결제사")).to_be_visible()
    return page.url


def test_approved_payment_returns_to_its_order_also_twice(buyer: Page) -> None:
    provider = open_provider(buyer)
    buyer.get_by_role("button", name="승인").click()
    status_is(buyer, "결제 완료")
    order = buyer.url
    buyer.goto(provider)
    expect(buyer.get_by_text("결제는 끝났습니다: captured")).to_be_visible()
    buyer.get_by_role("link", name="상점으로 돌아가기").click()
    status_is(buyer, "결제 완료")
    assert buyer.url == order


def test_abandoned_payment_is_continued_declined_and_paid_by_another_card(buyer: Page) -> None:
    open_provider(buyer)
    buyer.get_by_role("link", name="상점으로 돌아가기").click()
    status_is(buyer, "결제 중")
    open_provider(buyer)
    buyer.get_by_role("button", name="거절").click()
    expect(buyer.get_by_text("결제가 거절되었습니다")).to_be_visible()
    before = buyer.url
    buyer.get_by_label("결제 수단").select_option("CARD")
    buyer.get_by_role("button", name="다시 결제하기").click()
    status_is(buyer, "결제 완료")
    assert buyer.url == before


def test_customer_who_is_late_pays_nothing(buyer: Page, context: BrowserContext) -> None:
    late = context.new_page()
    late.goto(buyer.get_by_role("link", name="결제 계속하기").get_attribute("href") or "")
    expect(late.get_by_role("button", name="승인")).to_be_visible()
    buyer.get_by_role("button", name="주문 취소").click()
    buyer.get_by_role("dialog").get_by_role("button", name="주문 취소").click()
    status_is(buyer, "취소됨")
    expect(buyer.get_by_text("주문을 취소했습니다")).to_be_visible()
    late.get_by_role("button", name="승인").click()
    expect(late.get_by_text("결제는 끝났습니다: voided")).to_be_visible()
    late.get_by_role("link", name="상점으로 돌아가기").click()
    status_is(late, "취소됨")
