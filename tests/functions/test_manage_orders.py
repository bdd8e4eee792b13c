"""manage_orders: operators find, read, export and annotate the orders of all customers."""

from __future__ import annotations

import csv
import io
import tracemalloc
from urllib.parse import urlencode
from uuid import UUID

import psycopg
import pytest

from shop.orders import search
from shop.primitives.ids import new_uuid
from shop.runtime.http_messages import BrokenOff, HttpRequest
from shop.schema.grants import GRANTS
from tests.harness import PASSWORD, FlowHarness, Person, ShopHarness

UNKNOWN = "00000000-0000-7000-8000-000000000000"
UNREACHABLE_URL = "postgresql://shop_back_office@127.0.0.1:9/shop"


def found(operator: Person, **criteria: object) -> list[str]:
    answer = operator.get(f"/admin/orders?{urlencode(criteria)}")
    assert answer.status == 200, answer.body
    assert answer.json["total"] == {"count": len(answer.json["orders"]), "exact": True}
    return [order["id"] for order in answer.json["orders"]]


@pytest.mark.parametrize("role", ["staff", "support", "finance"])
def test_orders_are_found_by_each_criterion_and_by_all(shop: ShopHarness, role: str) -> None:
    operator, first, second = shop.person(role), shop.person(), shop.person()
    cheap, dear = shop.product(price=100), shop.product(price=9_000)
    paid, pending = first.paid_order(cheap)["id"], first.order(dear)["id"]
    other = second.order(cheap, 2)["id"]
    (account,) = shop.sql("select email from shop.users where user_id = %s", second.user_id)

    assert found(operator) == [other, pending, paid]
    assert found(operator, id=paid) == [paid]
    assert found(operator, id=str(new_uuid())) == []
    assert found(operator, id=str(search.LAST_ID)) == []
    assert found(operator, userId=first.user_id) == [pending, paid]
    assert found(operator, email=account["email"].upper()) == [other]
    assert found(operator, email="absent@shop.local") == []
    assert found(operator, productId=cheap, status="PAID", maxTotal=100) == [paid]
    assert found(operator, minTotal=200, maxTotal=9_000) == [other, pending]
    assert found(operator, id=paid, userId=second.user_id) == []


def test_days_are_inclusive_business_days(shop: ShopHarness) -> None:
    operator, buyer, product = shop.person("support"), shop.person(), shop.product()
    # midnight of 2026-02-02 in Seoul is 15:00 UTC of the day before
    for number, milliseconds in enumerate((1769957999999, 1769958000000, 1770044399999)):
        shop.sql(
            "insert into shop.orders (order_id, user_id, status, total_minor, currency, "
            "payment_method, expires_at, hard_expires_at) select %s, user_id, status, "
            "total_minor, currency, payment_method, expires_at, hard_expires_at "
            "from shop.orders where order_id = %s",
            UUID(int=(milliseconds << 80) + number),
            buyer.order(product)["id"],
        )

    days = found(operator, fromDay="2026-02-02", toDay="2026-02-02")

    assert [UUID(order).int >> 80 for order in days] == [1770044399999, 1769958000000]


def test_pages_have_each_order_once_and_the_same_total(shop: ShopHarness) -> None:
    operator, buyer, product = shop.person("staff"), shop.person(), shop.product()
    placed = [buyer.order(product)["id"] for _ in range(3)]

    first = operator.get(f"/admin/orders?productId={product}&status=PENDING&limit=2")
    second = operator.get(first.headers["link"].partition("<")[2].partition(">")[0])

    ids = [order["id"] for page in (first, second) for order in page.json["orders"]]
    assert ids == placed[::-1]
    assert first.json["total"] == second.json["total"] == {"count": 3, "exact": True}
    assert "link" not in second.headers


def test_total_above_the_limit_is_not_exact(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator, buyer, product = shop.person("staff"), shop.person(), shop.product()
    for _ in range(3):
        buyer.order(product)
    monkeypatch.setattr("shop.orders.search.COUNT_MAX", 2)
    monkeypatch.setattr("functions.manage_orders.handler.COUNT_MAX", 2)

    answer = operator.get("/admin/orders?limit=1")

    assert answer.json["total"] == {"count": 2, "exact": False}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("colour=red", "colour"),
        ("id=1", "id"),
        ("cursor=x", "cursor"),
        ("userId=0", "userId"),
        ("email=kim", "email"),
        ("productId=-1", "productId"),
        ("status=paid", "status"),
        ("fromDay=2026-02-30", "fromDay"),
        ("toDay=1770044399", "toDay"),
        ("minTotal=1.5", "minTotal"),
        ("maxTotal=", "maxTotal"),
        ("limit=101", "limit"),
        ("userId=1&email=kim@example.kr", ""),
    ],
)
def test_invalid_parameter_is_400_and_named(shop: ShopHarness, query: str, field: str) -> None:
    answer = shop.person("support").get(f"/admin/orders?{query}")

    assert (answer.status, answer.error) == (400, "BAD_QUERY")
    assert [error["field"] for error in answer.json["errors"]] == [field]


# ---------------------------------------------------------------- one order


def test_order_has_everything_that_refers_to_it(flow: FlowHarness) -> None:
    support, buyer = flow.shop.person("support"), flow.shop.person()
    product = flow.shop.product(price=1000, name="연필")
    order = buyer.order(product, 2)
    flow.deliver()
    refund = {"amount": 500, "reason": "dented"}
    assert support.post(f"/orders/{order['id']}/refunds", refund).status == 201
    note = support.post(f"/admin/orders/{order['id']}/notes", {"text": "called\ntwice"}).json
    flow.run_until_idle()

    page = support.get(f"/admin/orders/{order['id']}").json

    assert (page["id"], page["userId"], page["status"]) == (order["id"], buyer.user_id, "PAID")
    assert page["items"] == [
        {
            "productId": product,
            "productName": "연필",
            "quantity": 2,
            "unitPrice": 1000,
            "lineAmount": 2000,
        }
    ]
    (payment,) = page["payments"]
    assert (payment["status"], payment["amount"]) == ("CAPTURED", 2000)
    assert payment["reservedForRefunds"] == 500
    (returned,) = page["refunds"]
    assert (returned["status"], returned["amount"], returned["reason"]) == (
        "SUCCEEDED",
        500,
        "dented",
    )
    assert returned["requestedBy"] == support.user_id
    assert page["disputes"] == []
    assert [posting["kind"] for posting in page["postings"]] == ["CAPTURE", "REFUND"]
    history = flow.shop.sql(
        "select actor from shop.transitions where order_id = %s order by seq", order["id"]
    )
    assert [change["actor"] for change in page["statusHistory"]] == [r["actor"] for r in history]
    placed = next(event for event in page["events"] if event["type"] == "order.placed")
    assert [delivery["consumer"] for delivery in placed["deliveries"]] == ["charge"]
    assert placed["deliveries"][0]["receivedAt"] is not None
    assert page["notes"] == [note]


def test_page_of_an_order_names_no_address(shop: ShopHarness) -> None:
    buyer = shop.person()
    order = buyer.order(shop.product())
    (account,) = shop.sql("select email from shop.users where user_id = %s", buyer.user_id)

    page = shop.person("finance").get(f"/admin/orders/{order['id']}")

    assert account["email"] not in page.body.decode()


@pytest.mark.parametrize("order_id", [UNKNOWN, "1"])
def test_order_that_does_not_exist_is_404(shop: ShopHarness, order_id: str) -> None:
    answer = shop.person("staff").get(f"/admin/orders/{order_id}")

    assert (answer.status, answer.error) == (404, "NOT_FOUND")


# ---------------------------------------------------------------- notes


@pytest.mark.parametrize("role", ["staff", "support", "finance", "admin"])
def test_each_operator_adds_notes_with_an_entry_in_the_audit_log(
    shop: ShopHarness, role: str
) -> None:
    author, buyer = shop.person(role), shop.person()
    order = buyer.order(shop.product())

    about = {
        "order": author.post(f"/admin/orders/{order['id']}/notes", {"text": "about the order"}),
        "user": author.post(f"/admin/customers/{buyer.user_id}/notes", {"text": "about them"}),
    }

    entries = shop.sql(
        "select action, object_id, after from shop.audit_log where actor_id = %s order by seq",
        author.user_id,
    )
    assert [answer.status for answer in about.values()] == [201, 201]
    assert about["order"].headers["location"] == f"/admin/orders/{order['id']}"
    assert {answer.json["authorId"] for answer in about.values()} == {author.user_id}
    assert entries == [
        {
            "action": "order.noted",
            "object_id": order["id"],
            "after": {"noteId": about["order"].json["id"]},
        },
        {
            "action": "user.noted",
            "object_id": str(buyer.user_id),
            "after": {"noteId": about["user"].json["id"]},
        },
    ]


@pytest.mark.parametrize(
    "path",
    [f"/admin/orders/{UNKNOWN}/notes", "/admin/orders/1/notes", "/admin/customers/0/notes"],
)
def test_note_about_what_does_not_exist_is_404_and_not_audited(
    shop: ShopHarness, path: str
) -> None:
    author = shop.person("staff")

    answer = author.post(path, {"text": "about nothing"})

    assert (answer.status, answer.error) == (404, "NOT_FOUND")
    (counts,) = shop.sql(
        "select (select count(*) from shop.notes) as notes, (select count(*) from shop.audit_log "
        "where actor_id = %s) as entries",
        author.user_id,
    )
    assert counts == {"notes": 0, "entries": 0}


@pytest.mark.parametrize("text", ["", " \n ", "x" * 2_001, "a\x00b", "\u202eabc", None])
def test_note_without_readable_text_is_422_and_not_written(
    shop: ShopHarness, text: str | None
) -> None:
    order = shop.person().order(shop.product())

    answer = shop.person("staff").post(f"/admin/orders/{order['id']}/notes", {"text": text})

    assert answer.status == 422
    assert [error["field"] for error in answer.json["errors"]] == ["text"]
    assert shop.sql("select note_id from shop.notes") == []


def test_longest_note_is_kept_and_a_repeated_one_is_written_once(shop: ShopHarness) -> None:
    author, order = shop.person("finance"), shop.person().order(shop.product())
    path, body = f"/admin/orders/{order['id']}/notes", {"text": "가" * 2_000}

    answers = [author.post(path, body, key="a-note-to-repeat-01") for _ in range(2)]

    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].body == answers[1].body
    assert shop.sql("select text from shop.notes") == [body]


def test_customer_never_sees_notes(shop: ShopHarness) -> None:
    author, buyer = shop.person("support"), shop.person()
    order = buyer.order(shop.product())
    author.post(f"/admin/orders/{order['id']}/notes", {"text": "a secret remark"})
    author.post(f"/admin/customers/{buyer.user_id}/notes", {"text": "a secret remark"})

    answers = [
        buyer.get(path)
        for path in (
            f"/orders/{order['id']}",
            f"/orders/{order['id']}/timeline",
            "/orders/me",
            "/users/me",
        )
    ]

    assert {answer.status for answer in answers} == {200}
    assert all(b"remark" not in answer.body for answer in answers)


@pytest.mark.parametrize("role", sorted(set(GRANTS) - {"shop_back_office"}))
def test_text_of_notes_is_read_by_the_back_office_only(shop: ShopHarness, role: str) -> None:
    url = shop.role_url(role.removeprefix("shop_"))
    with (
        psycopg.connect(url) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("select text from shop.notes")


def test_note_in_the_name_of_another_account_is_rejected_by_the_database(
    shop: ShopHarness,
) -> None:
    author, other, buyer = shop.person("staff"), shop.person("staff"), shop.person()
    with psycopg.connect(shop.role_url("back_office")) as connection:
        connection.execute("select set_config('shop.user_id', %s, true)", (str(author.user_id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "insert into shop.notes (note_id, user_id, author_id, text) "
                "values (gen_random_uuid(), %s, %s, 'x')",
                (buyer.user_id, other.user_id),
            )


@pytest.mark.parametrize("role", ["customer", ""])
def test_note_of_no_operator_is_rejected_by_the_database(shop: ShopHarness, role: str) -> None:
    buyer = shop.person()
    order = buyer.order(shop.product())
    with psycopg.connect(shop.role_url("ordering")) as connection:
        connection.execute(
            "select set_config('shop.user_id', %s, true), set_config('shop.role', %s, true)",
            (str(buyer.user_id), role),
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "insert into shop.notes (note_id, order_id, author_id, text) "
                "values (gen_random_uuid(), %s, %s, 'x')",
                (order["id"], buyer.user_id),
            )


def test_note_about_a_closed_account_is_404(shop: ShopHarness) -> None:
    buyer = shop.person()
    assert buyer.delete("/users/me", {"password": PASSWORD}).status == 204

    answer = shop.person("staff").post(
        f"/admin/customers/{buyer.user_id}/notes", {"text": "called"}
    )

    assert answer.status == 404


def test_note_is_never_changed(shop: ShopHarness) -> None:
    author = shop.person("staff")
    author.post(f"/admin/customers/{author.user_id}/notes", {"text": "as it was"})

    with pytest.raises(psycopg.errors.RestrictViolation):
        shop.sql("update shop.notes set text = 'changed'")


# ---------------------------------------------------------------- a customer


@pytest.mark.parametrize("role", ["support", "admin"])
def test_customer_has_account_orders_sessions_and_notes(shop: ShopHarness, role: str) -> None:
    operator, buyer = shop.person(role), shop.person()
    placed = [buyer.order(shop.product())["id"] for _ in range(3)]
    shop.person().order(shop.product())
    shop.token(buyer.user_id)
    shop.sql(
        "update shop.sessions set revoked_at = now() where session_id = (select session_id "
        "from shop.sessions where user_id = %s order by created_at limit 1)",
        buyer.user_id,
    )
    note = operator.post(f"/admin/customers/{buyer.user_id}/notes", {"text": "calls often"}).json
    (account,) = shop.sql("select email from shop.users where user_id = %s", buyer.user_id)

    page = operator.get(f"/admin/customers/{buyer.user_id}?limit=2")
    rest = operator.get(page.headers["link"].partition("<")[2].partition(">")[0])

    body = page.json
    assert (body["id"], body["email"]) == (buyer.user_id, account["email"])
    assert (body["role"], body["state"]) == ("customer", "ACTIVE")
    assert [order["id"] for order in body["orders"]] == [placed[2], placed[1]]
    assert [order["id"] for order in rest.json["orders"]] == [placed[0]]
    assert "link" not in rest.headers
    assert len(body["sessions"]) == 1
    assert body["notes"] == [note]


@pytest.mark.parametrize("user_id", ["0", "999999999", "x"])
def test_customer_that_does_not_exist_is_404(shop: ShopHarness, user_id: str) -> None:
    answer = shop.person("support").get(f"/admin/customers/{user_id}")

    assert (answer.status, answer.error) == (404, "NOT_FOUND")


# ---------------------------------------------------------------- export


def exported(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))


def test_export_has_the_orders_that_the_search_finds(shop: ShopHarness) -> None:
    operator, buyer, product = shop.person("finance"), shop.person(), shop.product(price=700)
    paid, pending = buyer.paid_order(product, 2)["id"], buyer.order(product)["id"]
    other = shop.person().order(shop.product())["id"]

    answer = operator.get("/admin/orders.csv")
    narrowed = operator.get(f"/admin/orders.csv?productId={product}&status=PAID&bom=true")

    header, *rows = exported(answer.body)
    assert header == [
        "id", "userId", "status", "reason", "totalAmount", "currency", "createdAt",
        "goodsAmount", "discountAmount", "shippingAmount", "vatAmount",
    ]  # fmt: skip
    assert [row[0] for row in rows] == [other, pending, paid]
    found = operator.get(f"/admin/orders?id={paid}").json["orders"][0]
    assert rows[2][:7] == ["" if value is None else str(value) for value in found.values()]
    assert rows[2][7:] == [
        str(found["totalAmount"]),
        "0",
        "0",
        str(round(found["totalAmount"] / 11)),
    ]
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="orders.csv"'
    assert answer.body.startswith(b"id,userId")
    assert narrowed.body.startswith(b"\xef\xbb\xbfid,userId")
    assert [row[0] for row in exported(narrowed.body)[1:]] == [paid]


@pytest.mark.parametrize("query", ["limit=10", "cursor=1", "bom=yes", "status=paid"])
def test_export_rejects_what_the_search_would_ignore(shop: ShopHarness, query: str) -> None:
    answer = shop.person("finance").get(f"/admin/orders.csv?{query}")

    assert (answer.status, answer.error) == (400, "BAD_QUERY")


def test_export_in_batches_has_each_order_once(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("functions.manage_orders.handler.EXPORT_BATCH", 2)
    operator, buyer, product = shop.person("staff"), shop.person(), shop.product()
    placed = [buyer.order(product)["id"] for _ in range(4)]

    rows = exported(operator.get("/admin/orders.csv").body)[1:]

    assert [row[0] for row in rows] == placed[::-1]


def test_operators_see_the_price_lines_of_an_order(shop: ShopHarness) -> None:
    staff, buyer = shop.person("staff"), shop.person()
    assert staff.post("/admin/shipping-fees", {"amount": 2_500}).status == 201
    staff.post("/admin/coupons", {"code": "TEN", "discountAmount": 100})
    body = {"productId": shop.product(price=11_000), "quantity": 1, "paymentMethod": "CARD"}
    order = buyer.post("/orders", {**body, "coupons": ["TEN"]}).json

    shown = staff.get(f"/admin/orders/{order['id']}").json
    (row,) = exported(staff.get("/admin/orders.csv").body)[1:]

    assert shown["priceLines"] == order["priceLines"]
    assert [line["kind"] for line in shown["priceLines"]] == ["GOODS", "DISCOUNT", "SHIPPING"]
    assert row[7:] == ["11000", "-100", "2500", str(1_000 - 9 + 227)]


def test_export_of_an_order_without_price_lines_has_no_parts(shop: ShopHarness) -> None:
    order = shop.person().order(shop.product())
    shop.sql("delete from shop.order_price_lines")
    staff = shop.person("staff")

    (row,) = exported(staff.get("/admin/orders.csv").body)[1:]

    assert (row[4], row[7:]) == ("1000", ["", "", "", ""])
    assert staff.get(f"/admin/orders/{order['id']}").json["priceLines"] == []


ADD_ORDERS = """
with buyer as (select user_id from shop.users where user_id = %s)
insert into shop.orders (order_id, user_id, status, total_minor, currency, payment_method,
  expires_at, hard_expires_at)
select ('01990000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, user_id, 'PENDING', n, 'KRW',
  'CARD', now() + interval '1 day', now() + interval '1 day'
from buyer, generate_series(1, 20000) n
returning 1 as one
"""


def test_export_of_20000_orders_holds_a_few_of_them_in_memory(shop: ShopHarness) -> None:
    operator, buyer = shop.person("finance"), shop.person()
    assert len(shop.sql(ADD_ORDERS, buyer.user_id)) == 20_000
    headers = {"authorization": f"Bearer {operator.token}"}
    request = HttpRequest("GET", "/admin/orders.csv", "", headers, "", io.BytesIO().read, 0)
    shop.apps["manage_orders"].answer(request)  # imports and connects

    tracemalloc.start()
    try:
        parts = shop.apps["manage_orders"].answer(request).parts
        assert parts is not None
        size = lines = 0
        for part in parts:
            size, lines = size + len(part), lines + part.count(b"\r\n")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert lines == 20_001
    assert peak < 1_500_000 < size


@pytest.mark.parametrize(
    "failure",
    [
        "update shop.sessions set revoked_at = now() where user_id = %s returning session_id",
        "select pg_terminate_backend(pid) from pg_stat_activity, (values (%s::bigint)) v "
        "where usename = 'shop_back_office' and datname = current_database()",
    ],
    ids=["session ended", "database fails"],
)
def test_export_that_cannot_go_on_is_broken_off(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    monkeypatch.setattr("functions.manage_orders.handler.EXPORT_BATCH", 1)
    operator, buyer, product = shop.person("finance"), shop.person(), shop.product()
    for _ in range(3):
        buyer.order(product)
    headers = {"authorization": f"Bearer {operator.token}"}
    request = HttpRequest("GET", "/admin/orders.csv", "", headers, "", io.BytesIO().read, 0)
    response = shop.apps["manage_orders"].answer(request)
    assert response.status == 200 and response.parts is not None
    next(response.parts)

    assert shop.sql(failure, operator.user_id)
    monkeypatch.setattr(shop.apps["manage_orders"].services.database, "_url", UNREACHABLE_URL)

    with pytest.raises(BrokenOff):
        list(response.parts)


def test_export_before_its_first_row_fails_with_a_problem_document(
    shop: ShopHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = shop.person("finance")
    database = shop.apps["manage_orders"].services.database
    database.close()
    monkeypatch.setattr(database, "_url", UNREACHABLE_URL)

    answer = operator.get("/admin/orders.csv")

    assert (answer.status, answer.error) == (503, "UNAVAILABLE")
