"""Every page of the back office against the rules of axe-core for WCAG 2.2 A and AA.

Each page is checked in Korean, light and wide, and in English, dark and 320 pixels wide; one is
used by the keyboard alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.test_accessibility import axe as axe
from tests.browser.test_accessibility import new_context, violations, visit
from tests.browser.test_back_office import Client, order, sign_in
from tests.tools.e2e.running_shop import RunningShop
from tools.showcase import FIRST_ID

PAGES = {
    "staff": ("orders", "products", f"products/{FIRST_ID}", "product-groups", "coupons"),
    "finance": ("settlements", "alerts"),
    "admin": ("accounts", "accounts/1", "customers/1", "webhooks", "dead-letters", "audit-log"),
}
FORMS = {"products": "상품 추가", f"products/{FIRST_ID}": "이미지", "coupons": "쿠폰 추가"}

__all__ = ["axe", "order"]


@pytest.fixture(scope="module")
def tabs(browser: Browser, shop: RunningShop) -> Iterator[dict[str, Page]]:
    """A signed-in tab of each role."""
    contexts = {role: new_context(browser, shop) for role in (*PAGES, "support")}
    opened = {role: context.new_page() for role, context in contexts.items()}
    for role, page in opened.items():
        sign_in(page, role)
    yield opened
    for context in contexts.values():
        context.close()


@pytest.mark.parametrize(
    ("role", "path"), [(role, path) for role, paths in PAGES.items() for path in paths]
)
def test_page_of_a_role_follows_the_rules(
    tabs: dict[str, Page], axe: str, role: str, path: str
) -> None:
    page = tabs[role]
    visit(page, f"/admin#/{path}")
    page.wait_for_load_state("networkidle")
    assert violations(page, axe) == {}


@pytest.mark.parametrize(("path", "label"), FORMS.items())
def test_confirmation_follows_the_rules(
    tabs: dict[str, Page], axe: str, path: str, label: str
) -> None:
    page = tabs["staff"]
    visit(page, f"/admin#/{path}")
    page.get_by_role("button", name=label, exact=True).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert violations(page, axe) == {}


def test_order_follows_the_rules(tabs: dict[str, Page], axe: str, order: str) -> None:
    page = tabs["support"]
    visit(page, f"/admin#/orders/{order}")
    page.wait_for_load_state("networkidle")
    assert violations(page, axe) == {}


def test_order_is_cancelled_by_the_keyboard_alone(tabs: dict[str, Page], order: str) -> None:
    page = tabs["support"]
    visit(page, f"/admin#/orders/{order}")
    page.get_by_role("button", name="주문 취소").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="닫기").focus()
    page.keyboard.press("Tab")
    page.keyboard.type("고객 요청")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    states = {Client(page, "support").get(f"/admin/orders/{order}")["status"]}
    assert states <= {"CANCELLING", "CANCELLED", "REFUNDED"}
