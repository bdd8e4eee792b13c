"""The checkout in Chromium: address book, coupons, a declined card, and the shop's own amounts."""

from __future__ import annotations

from secrets import token_hex

from playwright.sync_api import Locator, Page, expect

from tests.browser.steps import fill_address, fill_cart, sign_in_first, status_is
from tools.seed import LOCAL_ACCOUNTS

PASSWORDS = {role: (email, password) for role, email, password in LOCAL_ACCOUNTS}


def add(page: Page, path: str, terms: dict[str, object]) -> None:
    """Adds something as staff do."""
    email, password = PASSWORDS["staff"]
    pair = page.request.post("/auth/login", data={"email": email, "password": password}).json()
    answer = page.request.post(
        path,
        data=terms,
        headers={
            "authorization": f"Bearer {pair['accessToken']}",
            "idempotency-key": token_hex(16),
        },
    )
    assert answer.ok, answer.text()


def new_coupon(page: Page, discount: int) -> str:
    """Adds a coupon; returns its code."""
    code = f"SPRING-{token_hex(3)}".upper()
    add(page, "/admin/coupons", {"code": code, "discountAmount": discount})
    return code


def amount(page: Page, label: str) -> Locator:
    return page.locator(".amounts div", has=page.get_by_text(label, exact=True)).locator("dd")


def use_coupon(page: Page, code: str) -> None:
    page.get_by_label("쿠폰 코드").fill(code)
    page.get_by_role("button", name="적용").click()


def test_buyer_keeps_an_address_uses_a_coupon_and_pays_again(page: Page) -> None:
    sign_in_first(page)
    code = new_coupon(page, 1000)
    fill_cart(page)
    page.goto("/#/checkout")
    fill_address(page, "서울 중구 세종대로 110")
    use_coupon(page, "NO-SUCH-CODE")
    expect(page.get_by_text("없는 쿠폰입니다")).to_be_visible()
    use_coupon(page, code)
    expect(amount(page, "할인")).to_have_text("-₩1,000")
    page.get_by_label("이 주소를 주소록에 저장").check()
    page.get_by_label("결제 수단").select_option("CARD_DECLINED")
    page.get_by_role("button", name="결제하기").click()
    expect(page.get_by_text("결제가 거절되었습니다")).to_be_visible()
    expect(amount(page, "할인")).to_have_text("-₩1,000")
    page.get_by_label("결제 수단").select_option("CARD")
    page.get_by_role("button", name="다시 결제하기").click()
    status_is(page, "결제 완료")

    fill_cart(page)
    page.goto("/#/checkout")
    saved = page.get_by_role("radio", name="서울 중구 세종대로 110")
    expect(saved).to_be_checked()
    page.get_by_role("button", name="결제하기").click()
    status_is(page, "결제 완료")
    expect(page.locator("address")).to_contain_text("서울 중구 세종대로 110")


def test_saved_address_is_added_changed_and_removed(page: Page) -> None:
    sign_in_first(page)
    page.goto("/#/account")
    line = f"부산 해운대구 {token_hex(3)}"
    page.get_by_role("button", name="주소 추가").click()
    dialog = page.get_by_role("dialog")
    fill_address(page, line)
    dialog.get_by_role("button", name="저장").click()
    row = page.get_by_role("listitem").filter(has_text=line)
    row.get_by_role("button", name="고치기").click()
    page.locator("[name='line1']").fill(f"{line} 2층")
    dialog.get_by_role("button", name="저장").click()
    row = page.get_by_role("listitem").filter(has_text=f"{line} 2층")
    expect(row).to_be_visible()
    row.get_by_role("button", name="빼기").click()
    expect(row).to_have_count(0)


def test_amounts_are_those_of_the_shop(page: Page) -> None:
    sign_in_first(page)
    fill_cart(page)
    with page.expect_response("**/cart/summary") as answered:
        page.goto("/#/cart")
    (total,) = answered.value.json()["totals"]
    expect(amount(page, "합계")).to_have_text(f"₩{total['totalAmount']:,}")


def test_postcode_decides_what_shipping_costs_before_the_order_is_placed(page: Page) -> None:
    sign_in_first(page)
    surcharge = {"postcodeFrom": "63000", "postcodeTo": "63644", "amount": 3_000}
    add(page, "/admin/shipping-fees", {"amount": 0, "surcharges": [surcharge]})
    fill_cart(page)
    page.goto("/#/checkout")
    fill_address(page, "제주 제주시 첨단로 242")
    expect(page.get_by_text("배송비")).to_have_count(0)
    page.locator("[name='postcode']").fill("63122")
    expect(amount(page, "배송비")).to_have_text("₩3,000")
    page.get_by_role("button", name="결제하기").click()
    status_is(page, "결제 완료")
    expect(amount(page, "배송비")).to_have_text("₩3,000")
