"""Every page of the storefront against the rules of axe-core for WCAG 2.2 A and AA.

Each page is checked in Korean, light and wide, and in English, dark and 320 pixels wide.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.steps import (
    EMAIL,
    check_out,
    fill_cart,
    sign_in_first,
    status_is,
)
from tests.tools.e2e.running_shop import RunningShop
from tools import web
from tools.showcase import FIRST_ID

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """async (tags) => {
  const { violations } = await axe.run(document, { runOnly: tags, resultTypes: ["violations"] });
  const said = (node) => `${node.html} ${node.failureSummary}`;
  return violations.map(({ id, nodes }) => [id, nodes.map(said)]);
}"""
APPEARANCES: tuple[tuple[str, Literal["light", "dark"], int], ...] = (
    ("ko", "light", 1280),
    ("en", "dark", 320),
)
LOADED = "main h1, main h2, dialog h2"


@pytest.fixture(scope="module")
def axe() -> str:
    """The program, from the locked packages of ``web/``."""
    web.install()
    return (web.PACKAGES / "axe-core" / "axe.min.js").read_text("utf-8")


def new_context(browser: Browser, shop: RunningShop) -> BrowserContext:
    opened = browser.new_context(base_url=shop.url, locale="ko-KR", reduced_motion="reduce")
    opened.set_default_timeout(60_000)
    return opened


@pytest.fixture(scope="module")
def visitor(browser: Browser, shop: RunningShop) -> Iterator[Page]:
    """A tab of somebody without an account."""
    context = new_context(browser, shop)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def customer(browser: Browser, shop: RunningShop) -> Iterator[Page]:
    """A tab of a customer with a filled cart and one paid order."""
    context = new_context(browser, shop)
    page = context.new_page()
    sign_in_first(page)
    fill_cart(page)
    check_out(page)
    status_is(page, "결제 완료")
    fill_cart(page)
    yield page
    context.close()


def violations(page: Page, axe: str) -> dict[str, Any]:
    """What axe-core finds in each appearance, and by how much the page is too wide for a phone."""
    found: dict[str, Any] = {}
    for language, theme, width in APPEARANCES:
        page.emulate_media(color_scheme=theme)
        page.set_viewport_size({"width": width, "height": 800})
        speak(page, language)
        page.evaluate(axe)
        for rule, nodes in page.evaluate(RUN, TAGS):
            found[f"{rule} ({language}, {theme}, {width})"] = nodes
    for language in ("en", "ko"):
        speak(page, language)
        if too_wide := page.evaluate("document.documentElement.scrollWidth - innerWidth"):
            found[f"pixels beyond 320 ({language})"] = too_wide
    return found


def visit(page: Page, address: str) -> None:
    """Opens the page as a new document, also from another fragment of the same one."""
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator(LOADED).first).to_be_visible()


def speak(page: Page, language: str) -> None:
    if page.evaluate("document.documentElement.lang") == language:
        return
    page.locator("header .icon-button[lang]").dispatch_event("click")
    expect(page.locator("html")).to_have_attribute("lang", language)
    page.wait_for_load_state("networkidle")


VISITOR = {
    "catalogue": "/#/",
    "no-products": "/#/?name=xyzxyz",
    "product": f"/#/products/{FIRST_ID}",
    "empty-cart": "/#/cart",
    "sign-in": "/#/sign-in?next=/checkout",
    "register": "/#/register",
    "reset": "/#/reset",
    "not-found": "/#/nothing",
    "set-password": "/set-password#token=abc",
    "verify-email": "/verify-email#token=abc",
}


@pytest.mark.parametrize("address", VISITOR.values(), ids=VISITOR)
def test_page_of_a_visitor_follows_the_rules(visitor: Page, axe: str, address: str) -> None:
    visit(visitor, address)
    visitor.wait_for_load_state("networkidle")
    assert violations(visitor, axe) == {}


CUSTOMER: dict[str, tuple[str, Callable[[Page], None]]] = {
    "cart": ("/#/cart", lambda page: None),
    "checkout": ("/#/checkout", lambda page: None),
    "orders": ("/#/orders", lambda page: None),
    "order": ("/#/orders", lambda page: page.locator(".order-row").first.click()),
    "account": ("/#/account", lambda page: None),
    "close-account": (
        "/#/account",
        lambda page: page.get_by_role("button", name="회원 탈퇴").click(),
    ),
}


@pytest.mark.parametrize(("address", "then"), CUSTOMER.values(), ids=CUSTOMER)
def test_page_of_a_customer_follows_the_rules(
    customer: Page, axe: str, address: str, then: Callable[[Page], None]
) -> None:
    visit(customer, address)
    then(customer)
    expect(customer.locator(LOADED).first).to_be_visible()
    customer.wait_for_timeout(500)
    assert violations(customer, axe) == {}


def test_dialog_keeps_the_focus_and_gives_it_back(customer: Page) -> None:
    customer.set_viewport_size({"width": 1280, "height": 900})
    visit(customer, "/#/account")
    opener = customer.get_by_role("button", name="회원 탈퇴")
    opener.press("Enter")
    dialog = customer.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(6):
        customer.keyboard.press("Tab")
        assert customer.evaluate(
            "document.activeElement === document.body || !!document.activeElement.closest('dialog')"
        )
    customer.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(opener).to_be_focused()


def test_forms_of_a_password_name_its_account(customer: Page) -> None:
    visit(customer, "/#/account")
    customer.get_by_role("button", name="회원 탈퇴").click()
    expect(customer.get_by_role("dialog")).to_be_visible()
    forms = customer.locator("form:has([type='password'])")
    assert forms.count() == 2
    for form in forms.all():
        assert form.locator("[autocomplete='username']").input_value() == EMAIL


def test_rejected_field_gets_the_focus_and_names_its_error(visitor: Page) -> None:
    visit(visitor, "/#/register")
    visitor.get_by_label("이름").fill("김손님")
    visitor.get_by_label("이메일").fill("x@localhost")
    visitor.get_by_label("비밀번호").fill("correct horse battery")
    visitor.get_by_role("button", name="회원가입").click()
    field = visitor.get_by_label("이메일")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_have_accessible_description(re.compile("."))
