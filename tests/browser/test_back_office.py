"""The back office in Chromium: what each role sees, and every action from its page to the shop."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tools.e2e.groups.accounts import present_code
from tools.seed import LOCAL_ACCOUNTS
from tools.showcase import FIRST_ID

PASSWORDS = {email: password for _, email, password in LOCAL_ACCOUNTS}
ADDRESS = {
    "recipient": "김손님",
    "phone": "010-1234-5678",
    "postcode": "04524",
    "line1": "서울 중구 세종대로 110",
}
HOSTILE = "<img src=x onerror=alert(1)>" + "가" * 100
# the address changes at once, the form at the next frame
ALL_EMPTY = """[...document.querySelectorAll("form[role=search] :is(input, select)")]
  .every((field, _, all) => all.length && !field.value && !location.hash.includes("?"))"""


def sign_in(page: Page, role: str) -> None:
    page.goto("/admin")
    fill_credentials(page, role)
    expect(page.get_by_role("button", name="로그아웃")).to_be_visible()


def fill_credentials(page: Page, role: str) -> None:
    email = f"{role}@shop.local"
    page.get_by_label("이메일").fill(email)
    page.get_by_label("비밀번호").fill(PASSWORDS[email])
    page.get_by_role("button", name="로그인").click()


class Client:
    """The API, as an account uses it without a page."""

    def __init__(self, page: Page, role: str) -> None:
        self.page = page
        email = f"{role}@shop.local"
        body = {"email": email, "password": PASSWORDS[email]}
        token = page.request.post("/auth/login", data=body).json()["accessToken"]
        self.headers = {"authorization": f"Bearer {token}"}
        self.sent = 0

    def get(self, path: str, **headers: str) -> Any:
        answer = self.page.request.get(path, headers={**self.headers, **headers})
        assert answer.ok, answer.text()
        return answer.json()

    def post(self, path: str, body: object) -> Any:
        self.sent += 1
        key = {"idempotency-key": f"{id(self.page)}-{id(self)}-{self.sent}"}
        answer = self.page.request.post(path, data=body, headers={**self.headers, **key})
        assert answer.ok, answer.text()
        return answer.json() if answer.status != 204 else None

    def paid_order(self, quantity: int = 2) -> str:
        """The id of a new order of this customer, which is paid."""
        body = {"productId": FIRST_ID, "quantity": quantity, "paymentMethod": "CARD"}
        order = self.post("/orders", {**body, "shippingAddress": ADDRESS})["id"]
        for _ in range(6):
            if self.get(f"/orders/{order}", prefer="wait=10")["status"] != "PENDING":
                break
        return str(order)


@pytest.fixture
def order(page: Page) -> str:
    """A paid order of two units."""
    return Client(page, "customer").paid_order()


def open_order(page: Page, role: str, order: str) -> None:
    sign_in(page, role)
    page.goto(f"/admin#/orders/{order}")
    expect(page.get_by_role("heading", level=1)).to_contain_text(order)


def confirm(page: Page, action: str, **fields: str) -> None:
    """Opens an action, fills the fields of its confirmation by their labels, and confirms."""
    page.get_by_role("button", name=action, exact=True).first.click()
    dialog = page.get_by_role("dialog", name=action)
    for label, value in fields.items():
        field = dialog.get_by_label(label.replace("_", " "))
        if field.evaluate("element => element.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)
    dialog.get_by_role("button", name=action, exact=True).click()
    expect(dialog).to_be_hidden()


def section(page: Page, title: str) -> Locator:
    return page.locator("section").filter(has=page.get_by_role("heading", name=title, exact=True))


def reload_until(page: Page, is_there: Callable[[], bool]) -> None:
    """Loads the page again until what another function does is visible."""
    for _ in range(40):
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        if is_there():
            return
        page.wait_for_timeout(500)
        page.reload()
    pytest.fail("it does not become visible")


@pytest.mark.parametrize(
    ("role", "parts"),
    [
        ("staff", ["주문"]),
        ("support", ["주문"]),
        ("finance", ["주문"]),
        ("admin", ["감사 로그"]),
    ],
)
def test_each_role_sees_its_parts(page: Page, role: str, parts: list[str]) -> None:
    sign_in(page, role)

    expect(page.locator("header nav a")).to_have_text(parts)
    expect(page.get_by_role("heading", level=1)).to_have_text(parts[0])
    expect(page.get_by_text("운영자 계정이 아닙니다.")).to_have_count(0)


def test_customer_is_no_operator(page: Page) -> None:
    sign_in(page, "customer")

    expect(page.get_by_text("운영자 계정이 아닙니다.")).to_be_visible()
    expect(page.locator("header nav a")).to_have_count(0)


def test_wrong_password_is_shown_beside_the_form(page: Page) -> None:
    page.goto("/admin")
    page.get_by_label("이메일").fill("staff@shop.local")
    page.get_by_label("비밀번호").fill("not-the-password")
    page.get_by_role("button", name="로그인").click()

    expect(page.get_by_role("alert")).to_be_visible()


def test_operator_logs_in_with_a_second_factor(page: Page) -> None:
    proof = {"email": "finance@shop.local", "password": PASSWORDS["finance@shop.local"]}
    begun = page.request.post("/auth/second-factor", data=proof).json()
    first = {**proof, "code": present_code(begun["secret"])}
    codes = page.request.post("/auth/second-factor/confirm", data=first).json()["recoveryCodes"]

    page.goto("/admin")
    fill_credentials(page, "finance")
    page.get_by_label("2단계 인증 코드").fill(codes[0])
    page.get_by_role("button", name="로그인").click()

    expect(page.get_by_role("heading", name="주문")).to_be_visible()
    removal = page.request.post("/auth/second-factor/remove", data={**proof, "code": codes[1]})
    assert removal.status == 204


def test_orders_are_found_by_each_filter_and_the_address_keeps_it(page: Page, order: str) -> None:
    found = Client(page, "support").get(f"/admin/orders?id={order}")["orders"][0]
    today = page.evaluate("new Date().toLocaleDateString('sv', {timeZone: 'Asia/Seoul'})")
    total = str(found["totalAmount"])
    sign_in(page, "support")
    for label, value in (
        ("주문 번호", order),
        ("이메일", "customer@shop.local"),
        ("고객 번호", str(found["userId"])),
        ("상품 번호", str(FIRST_ID)),
        ("시작일", today),
        ("종료일", today),
        ("최소 금액", total),
        ("최대 금액", total),
    ):
        page.goto("/admin#/orders")
        page.wait_for_function(ALL_EMPTY)
        page.get_by_label(label, exact=True).fill(value)
        page.get_by_role("button", name="검색").click()
        expect(page.get_by_role("link", name=order)).to_be_visible()
        page.reload()
        expect(page.get_by_role("link", name=order)).to_be_visible()
        expect(page.get_by_label(label, exact=True)).to_have_value(value)
    page.goto(f"/admin#/orders?id={order}&status=CANCELLED")
    expect(page.get_by_text("조건에 맞는 주문이 없습니다.")).to_be_visible()
    page.goto("/admin#/orders?id=1")
    expect(page.get_by_role("alert")).to_be_visible()


def test_orders_have_pages_and_a_file(page: Page) -> None:
    buyer = Client(page, "customer")
    orders = [buyer.paid_order(1) for _ in range(2)]
    sign_in(page, "finance")

    page.goto("/admin#/orders?limit=1")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_role("link", name=orders[1])).to_be_visible()
    page.get_by_role("link", name="다음").click()
    expect(page.get_by_role("link", name=orders[0])).to_be_visible()
    page.get_by_role("link", name="처음으로").click()
    expect(page.get_by_role("link", name=orders[1])).to_be_visible()
    page.goto("/admin#/orders")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV 내려받기").click()
    assert download.value.suggested_filename == "orders.csv"
    text = download.value.path().read_text("utf-8-sig")
    assert text.startswith("id,userId,status")
    assert orders[0] in text


def test_support_cancels_an_order_with_a_reason(page: Page, order: str) -> None:
    open_order(page, "support", order)

    page.get_by_role("button", name="주문 취소").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="주문 취소").click()
    assert dialog.get_by_label("사유").evaluate("field => field.validity.valueMissing")
    dialog.get_by_role("button", name="닫기").click()
    expect(dialog).to_have_count(0)
    confirm(page, "주문 취소", 사유="고객 요청")

    reload_until(page, lambda: page.locator("h1 .badge").inner_text() == "CANCELLED")
    expect(page.get_by_role("button", name="주문 취소")).to_have_count(0)
    expect(section(page, "상태 이력")).to_contain_text("CANCELLED")
    expect(section(page, "이벤트")).to_contain_text("order.cancelled")


def test_support_refunds_a_part_and_an_impossible_amount_is_explained(
    page: Page, order: str
) -> None:
    open_order(page, "support", order)

    page.get_by_role("button", name="환불", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("금액 (KRW)").fill("999999999")
    dialog.get_by_label("사유").fill("너무 많음")
    dialog.get_by_role("button", name="환불").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_role("button", name="닫기").click()
    page.get_by_role("button", name="환불", exact=True).click()
    dialog.get_by_label("금액 (KRW)").fill("100")
    dialog.get_by_label("사유").fill("파손")
    dialog.get_by_role("button", name="환불").click()
    expect(dialog).to_have_count(0)

    payments = section(page, "결제 · 환불 · 분쟁")
    reload_until(page, lambda: "SUCCEEDED" in payments.inner_text())
    expect(payments).to_contain_text("₩100")
    expect(payments).to_contain_text("파손")


def test_goods_are_sent_in_two_parts_and_come_back(page: Page, order: str) -> None:
    open_order(page, "staff", order)
    page.get_by_role("button", name="배송 준비").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("spinbutton").fill("1")
    dialog.get_by_role("button", name="배송 준비").click()
    shipments = section(page, "배송")
    expect(shipments).to_contain_text("× 1")
    confirm(page, "발송 처리", 택배사_코드="cj", 운송장_번호="689200001234")
    expect(shipments).to_contain_text("cj 689200001234")
    confirm(page, "배송 완료")
    expect(shipments).to_contain_text("DELIVERED")
    confirm(page, "배송 준비")
    expect(page.get_by_role("button", name="배송 준비")).to_have_count(0)
    confirm(page, "배송 취소")
    expect(page.get_by_role("button", name="배송 준비")).to_be_visible()
    wanted = {"items": [{"productId": FIRST_ID, "quantity": 1}], "reason": HOSTILE}
    Client(page, "customer").post(f"/orders/{order}/returns", wanted)
    page.reload()
    returns = section(page, "반품")
    expect(returns).to_contain_text("REQUESTED")
    expect(returns.locator("img")).to_have_count(0)
    expect(page.get_by_role("button", name="반품 승인")).to_have_count(0)
    page.get_by_role("button", name="로그아웃").click()

    open_order(page, "support", order)
    confirm(page, "반품 승인")
    expect(returns).to_contain_text("APPROVED")
    page.get_by_role("button", name="로그아웃").click()

    open_order(page, "staff", order)
    confirm(page, "반품 입고")
    expect(returns).to_contain_text("RECEIVED")
    expect(page.get_by_role("button", name="반품 입고")).to_have_count(0)


def test_note_is_written_once_although_its_response_is_lost(page: Page, order: str) -> None:
    open_order(page, "finance", order)
    keys: list[str] = []

    def lose(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/notes", lose)
    page.get_by_label("메모", exact=False).fill(HOSTILE)
    page.get_by_role("button", name="메모 추가").click()

    expect(section(page, "메모").locator("li")).to_have_count(1)
    expect(section(page, "메모").locator("li img")).to_have_count(0)
    assert len(keys) == 2
    assert len({*keys}) == 1


def test_finance_sees_the_ledger_and_no_address_and_acts_on_nothing(page: Page, order: str) -> None:
    open_order(page, "finance", order)

    expect(section(page, "원장")).to_contain_text("CAPTURE")
    expect(page.get_by_text("세종대로")).to_have_count(0)
    for action in ("주문 취소", "환불", "배송 준비"):
        expect(page.get_by_role("button", name=action, exact=True)).to_have_count(0)


def test_customer_page_is_for_support_and_administrators(page: Page, order: str) -> None:
    open_order(page, "support", order)
    section(page, "주문").get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("김손님")
    expect(page.get_by_text("customer@shop.local")).to_be_visible()
    expect(page.get_by_role("link", name=order)).to_be_visible()
    customer = page.url.partition("#")[2]
    page.get_by_role("button", name="로그아웃").click()

    sign_in(page, "staff")
    page.goto(f"/admin#{customer}")
    expect(page.get_by_role("heading", level=1)).to_have_text("주문")
    expect(page.get_by_text("customer@shop.local")).to_have_count(0)


def test_administrator_finds_an_action_in_the_audit_log(page: Page, order: str) -> None:
    note = {"text": "감사 로그 시험"}
    Client(page, "support").post(f"/admin/orders/{order}/notes", note)
    sign_in(page, "admin")

    page.get_by_label("대상 번호").fill(order)
    page.get_by_role("button", name="검색").click()

    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("order.noted")
    expect(row).to_contain_text("PERSON support")
    assert re.search("objectId=", page.url)
