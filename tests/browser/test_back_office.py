"""The back office in Chromium: what each role sees, and every action from its page to the shop."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from tests.tools.e2e.running_shop import RunningShop
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
        ("staff", ["주문", "상품", "상품 그룹", "쿠폰", "운영 알림"]),
        ("support", ["주문", "상품", "상품 그룹", "쿠폰", "운영 알림"]),
        ("finance", ["주문", "상품", "상품 그룹", "쿠폰", "정산", "운영 알림"]),
        ("admin", ["계정", "웹훅", "운영 알림", "처리하지 못한 이벤트", "감사 로그"]),
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
    expect(section(page, "금액 내역")).to_contain_text("부가세")
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

    page.goto("/admin#/audit-log")
    page.get_by_label("대상 번호").fill(order)
    page.get_by_role("button", name="검색").click()

    row = page.locator("tbody tr")
    expect(row).to_have_count(1)
    expect(row).to_contain_text("order.noted")
    expect(row).to_contain_text("PERSON support")
    assert re.search("objectId=", page.url)


def add_product(page: Page, name: str) -> int:
    """The id of a new product of ten units."""
    body = {"name": name, "category": "생활", "price": 1000, "stockQuantity": 10}
    return int(Client(page, "staff").post("/products", body)["id"])


def test_staff_adds_edits_and_withdraws_a_product(page: Page) -> None:
    sign_in(page, "staff")
    page.goto("/admin#/products")
    page.get_by_role("button", name="상품 추가").click()
    dialog = page.get_by_role("dialog")
    for label, value in (("이름", HOSTILE), ("이름 (en)", "Cup"), ("단가", "1200"), ("재고", "7")):
        dialog.get_by_label(re.compile(f"^{re.escape(label)}[*]?$")).fill(value)
    dialog.get_by_label("카테고리").select_option("생활")
    dialog.get_by_role("button", name="상품 추가").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(HOSTILE)
    expect(page.locator("main img")).to_have_count(0)
    expect(section(page, "상품")).to_contain_text("Cup")

    confirm(page, "수정", 단가="1500")
    expect(section(page, "단가")).to_contain_text("₩1,500")
    page.get_by_role("button", name="이미지", exact=True).click()
    dialog.get_by_label("이미지 주소 1").fill("https://img.example.test/cup.png")
    dialog.get_by_label("이미지 설명 1").fill("흰 컵")
    dialog.get_by_role("button", name="이미지", exact=True).click()
    expect(section(page, "이미지")).to_contain_text("흰 컵")
    confirm(page, "판매 중지")
    expect(page.locator("h1")).to_contain_text("판매 중지")
    page.goto("/admin#/products?active=false")
    page.get_by_role("link", name="<img").first.click()
    confirm(page, "판매 재개")
    expect(page.locator("h1")).to_contain_text("판매 중")


def test_edit_of_a_product_that_somebody_else_changed_keeps_what_was_typed(page: Page) -> None:
    product = add_product(page, "동시 수정")
    sign_in(page, "staff")
    page.goto(f"/admin#/products/{product}")
    page.get_by_role("button", name="수정").click()
    client = Client(page, "staff")
    etag = page.request.get(f"/admin/products/{product}", headers=client.headers).headers["etag"]
    other = {**client.headers, "if-match": etag}
    path = f"/products/{product}"
    assert page.request.patch(path, data={"description": "먼저"}, headers=other).ok

    dialog = page.get_by_role("dialog")
    dialog.get_by_label("단가").fill("1700")
    dialog.get_by_role("button", name="수정").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    expect(dialog.get_by_label("단가")).to_have_value("1700")
    expect(section(page, "상품")).to_contain_text("먼저")
    dialog.get_by_role("button", name="수정").click()
    expect(dialog).to_have_count(0)
    expect(section(page, "단가")).to_contain_text("₩1,700")


def test_staff_adjusts_stock_and_plans_a_price(page: Page) -> None:
    product = add_product(page, "재고 시험")
    sign_in(page, "staff")
    page.goto(f"/admin#/products/{product}")
    stock, price = section(page, "재고"), section(page, "단가")
    expect(stock).to_contain_text("보유 10")

    confirm(page, "재고 조정", 수량="-3", 사유="DAMAGE")
    expect(stock).to_contain_text("보유 7")
    expect(stock.locator("tbody tr").first).to_contain_text("파손")
    page.get_by_role("button", name="재고 조정").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("수량").fill("-3")
    dialog.get_by_role("button", name="재고 조정").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_role("button", name="닫기").click()
    confirm(page, "가격 예약", 단가="900", 시작="2090-01-01T09:00", 종료="2090-01-02T09:00")
    expect(price).to_contain_text("PLANNED")
    confirm(page, "예약 종료")
    expect(price).not_to_contain_text("PLANNED")


def test_products_of_a_group_have_options(page: Page) -> None:
    product = add_product(page, "옵션 시험")
    sign_in(page, "staff")
    page.goto("/admin#/product-groups")
    confirm(page, "그룹 추가", 이름="머그 컵", 옵션="크기, 색상")
    expect(page.locator("h1")).to_have_text("머그 컵")
    group = page.url.rpartition("/")[2]
    page.goto(f"/admin#/products/{product}")
    page.get_by_role("button", name="옵션").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("상품 그룹").select_option(group)
    dialog.get_by_label("크기").fill("L")
    dialog.get_by_label("색상").fill("빨강")
    dialog.get_by_role("button", name="옵션").click()
    expect(section(page, "상품")).to_contain_text("빨강")

    page.goto(f"/admin#/product-groups/{group}")
    expect(section(page, "상품")).to_contain_text("크기: L, 색상: 빨강")
    confirm(page, "수정", 옵션="크기, 색")
    expect(section(page, "상품")).to_contain_text("색: 빨강")


def test_staff_adds_changes_and_ends_a_coupon(page: Page) -> None:
    sign_in(page, "staff")
    page.goto("/admin#/coupons")
    page.get_by_role("button", name="쿠폰 추가").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("쿠폰 코드").fill("BACK-OFFICE")
    dialog.get_by_label("할인 비율 (%)").fill("12.5")
    dialog.get_by_label("최대 할인 금액").fill("3000")
    dialog.get_by_role("button", name="쿠폰 추가").click()
    expect(page.locator("h1")).to_contain_text("BACK-OFFICE")
    facts = section(page, "쿠폰")
    expect(facts).to_contain_text("12.5 % (최대 할인 금액 ₩3,000)")

    confirm(page, "수정", 전체_사용_횟수="5")
    expect(facts).to_contain_text("0 / 5")
    confirm(page, "쿠폰 종료")
    expect(page.locator("h1")).to_contain_text("ENDED")
    expect(page.get_by_role("button", name="수정")).to_have_count(0)


@pytest.mark.parametrize("role", ["support", "finance"])
def test_only_staff_changes_what_is_sold(page: Page, role: str) -> None:
    sign_in(page, role)
    for path in ("products", f"products/{FIRST_ID}", "product-groups", "coupons"):
        page.goto(f"/admin#/{path}")
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        expect(page.locator("main .table, main .muted").first).to_be_visible()
        expect(page.locator("main button:not([type=submit])")).to_have_count(0)


def test_finance_sees_settlements_as_chart_table_and_file(page: Page, order: str) -> None:
    assert order
    sign_in(page, "finance")
    page.goto("/admin#/settlements")

    expect(page.locator("svg.chart rect").first).to_be_visible()
    expect(page.locator("tbody tr").first).to_contain_text("진행 중")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV 내려받기").click()
    assert download.value.suggested_filename == "settlements-day.csv"
    page.get_by_label("단위").select_option("month")
    page.get_by_role("button", name="검색").click()
    expect(page.locator("tbody tr").first).to_contain_text(re.compile(r"^20\d\d-\d\d₩"))


@contextmanager
def receiver() -> Generator[str]:
    """The address of a receiver that accepts every message."""

    class Accepting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Accepting)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_administrator_adds_tests_and_redelivers_a_webhook(page: Page) -> None:
    sign_in(page, "admin")
    page.goto("/admin#/webhooks")
    with receiver() as url:
        page.get_by_role("button", name="웹훅 추가").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("주소").fill(url)
        dialog.get_by_label("order.paid", exact=True).check()
        dialog.get_by_role("button", name="웹훅 추가").click()
        expect(page.locator(".secret")).to_contain_text("whsec_")
        page.get_by_role("link", name=url).click()
        confirm(page, "시험 전송")
        expect(page.get_by_text("시험 전송: HTTP 204")).to_be_visible()
        Client(page, "customer").paid_order(1)
        deliveries = section(page, "전달")
        reload_until(page, lambda: deliveries.locator(".badge.good").count() == 1)
        deliveries.get_by_role("link", name="order.paid").first.click()
        expect(section(page, "시도").locator("tbody tr")).to_have_count(1)
        confirm(page, "다시 보내기")
        reload_until(page, lambda: section(page, "시도").locator("tbody tr").count() == 2)
        page.get_by_role("link", name="← 전달").click()
        confirm(page, "사용 중지")
        expect(page.locator("h1")).to_contain_text("DISABLED")
        confirm(page, "비밀 값 바꾸기")
        expect(page.locator(".secret")).to_contain_text("whsec_")
        confirm(page, "삭제")
        expect(page.get_by_role("link", name=url)).to_have_count(0)


def test_administrator_invites_changes_and_disables_an_account(page: Page) -> None:
    sign_in(page, "admin")
    confirm(page, "초대", 이메일="new@shop.test", 이름="새 직원", 역할="staff")
    expect(page.locator("h1")).to_contain_text("새 직원")

    facts = section(page, "계정")
    confirm(page, "역할 변경", 역할="support")
    expect(facts).to_contain_text("support")
    confirm(page, "사용 중지")
    expect(page.locator("h1")).to_contain_text("DISABLED")
    confirm(page, "사용 재개")
    expect(page.locator("h1")).to_contain_text("ACTIVE")
    page.goto("/admin#/accounts?role=support&email=new%40shop.test")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_role("link", name=re.compile("^[0-9]+$")).click()
    page.get_by_role("link", name="주문과 세션").click()
    expect(section(page, "열린 세션")).to_be_visible()


def test_administrator_gives_and_ends_an_api_key(page: Page) -> None:
    sign_in(page, "admin")
    confirm(page, "서비스 계정 추가", 이름="reports", 역할="finance")
    page.get_by_role("button", name="API 키 추가").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("admin:read", exact=True).check()
    dialog.get_by_role("button", name="API 키 추가").click()

    key = page.locator(".secret").inner_text()
    headers = {"authorization": f"Bearer {key}"}
    assert page.request.get("/admin/orders", headers=headers).ok
    confirm(page, "키 종료")
    expect(page.get_by_role("button", name="키 종료")).to_have_count(0)
    assert page.request.get("/admin/orders", headers=headers).status == 401


@pytest.mark.parametrize("role", ["staff", "support", "finance"])
def test_parts_of_administrators_are_not_shown_to_operators(page: Page, role: str) -> None:
    sign_in(page, role)
    for path in ("accounts", "webhooks", "audit-log"):
        page.goto(f"/admin#/{path}")
        expect(page.get_by_role("heading", level=1)).to_have_text("주문")


RAISE = """
insert into shop.alarms (alarm_id, kind, subject, detail)
values (gen_random_uuid(), 'dead_letter', '/shop browser-test', 'status 422')
"""
STORE = """
insert into shop.dead_letters (dead_letter_id, event_id, source, type, destination, error_code,
  headers, body)
values (gen_random_uuid(), 'browser-test', '/shop', %s, 'http://charge/events', '422', '{}', %s)
"""


def test_operator_resolves_an_alert_with_a_note(page: Page, shop: RunningShop) -> None:
    with psycopg.connect(shop.database_url) as connection:
        connection.execute(RAISE.replace("dead_letter", "stuck_browser_test"))
    sign_in(page, "support")
    page.goto("/admin#/alerts")
    row = page.locator("tbody tr").filter(has_text="stuck_browser_test")
    expect(row).to_contain_text("함수의 로그")

    row.get_by_role("button", name="해결").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("메모").fill("다시 시작함")
    dialog.get_by_role("button", name="해결").click()
    expect(row).to_have_count(0)
    page.goto("/admin#/alerts?state=RESOLVED")
    expect(row).to_contain_text("다시 시작함")


def test_administrator_drops_a_dead_letter(page: Page, shop: RunningShop) -> None:
    with psycopg.connect(shop.database_url) as connection:
        connection.execute(RAISE)
        connection.execute(STORE, (HOSTILE, b"<script>alert(1)</script>"))
    sign_in(page, "admin")
    page.goto("/admin#/dead-letters")
    page.get_by_role("link", name="<img").click()
    expect(page.locator("main img, main script")).to_have_count(0)
    expect(page.locator("main pre")).to_have_text("<script>alert(1)</script>")

    confirm(page, "폐기", 사유="시험")
    expect(section(page, "이벤트")).to_contain_text("폐기됨 시험")
    page.goto("/admin#/alerts")
    expect(page.get_by_text("/shop browser-test")).to_have_count(0)
