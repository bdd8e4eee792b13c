"""manage_products: staff add and change products, categories and stock; each change is an event."""

from __future__ import annotations

import json
import threading
import unicodedata
from typing import Any

import pytest

from shop.primitives.ids import new_uuid
from tests.harness import FlowHarness, Person, Response, ShopHarness

KEY = "a-key-of-this-test-01"


@pytest.fixture
def staff(shop: ShopHarness) -> Person:
    shop.sql("insert into shop.categories (name) values ('시험'), ('다른')")
    return shop.person("staff")


def new_product(**changes: Any) -> dict[str, Any]:
    product = {"name": "새 상품", "category": "시험", "price": 1500, "stockQuantity": 7}
    return {k: v for k, v in (product | changes).items() if v is not ...}


def state(shop: ShopHarness) -> list[Any]:
    """Every row that these operations may write."""
    tables = ("categories", "products", "stock", "stock_moves", "outbox")
    return [shop.sql(f"select * from shop.{table} order by 1") for table in tables]


def changes_announced(shop: ShopHarness) -> list[tuple[str, Any]]:
    return [(row["type"], row["data"]) for row in shop.outbox()]


def patch(staff: Person, product: int, body: Any, etag: str | None = "*") -> Response:
    headers = {} if etag is None else {"if-match": etag}
    return staff.patch(f"/products/{product}", body, headers=headers)


# ---------------------------------------------------------------- who


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/products", new_product()),
        ("PATCH", "/products/1", {"price": 1}),
        ("POST", "/products/1/stock", {"quantity": 1}),
        ("POST", "/categories", {"name": "새"}),
    ],
)
def test_other_roles_get_403(shop: ShopHarness, method: str, path: str, body: Any) -> None:
    before = state(shop)

    assert shop.call(method, path, json_body=body).status == 401
    for role in ("customer", "support", "finance"):
        token = shop.person(role).token
        answer = shop.call(method, path, json_body=body, token=token, headers={"if-match": "*"})
        assert (answer.status, answer.error) == (403, "FORBIDDEN")
    assert state(shop) == before


# ---------------------------------------------------------------- adding


def test_new_product_is_for_sale_with_stock_and_an_event(shop: ShopHarness, staff: Person) -> None:
    answer = staff.post("/products", new_product(description="두 줄\n설명"))

    product = answer.json["id"]
    expected: dict[str, Any] = {
        "id": product,
        "name": "새 상품",
        "description": "두 줄\n설명",
        "category": "시험",
        "price": 1500,
        "currency": "KRW",
        "stockQuantity": 7,
        "images": [],
        "group": None,
    }
    assert answer.status == 201
    assert answer.json == expected | {"active": True, "flashSale": False, "translations": {}}
    assert answer.headers["location"] == f"/products/{product}"
    assert answer.headers["etag"] == '"1.7"'
    shown = shop.call("GET", f"/products/{product}")
    assert shown.json == expected
    assert shown.headers["etag"] == '"1.7"'
    moves = shop.sql("select kind, qty from shop.stock_moves where product_id = %s", product)
    assert moves == [{"kind": "INITIAL", "qty": 7}]
    assert changes_announced(shop) == [
        ("product.changed", {"productId": product, "productVersion": 1})
    ]


def test_product_without_stock_is_accepted(shop: ShopHarness, staff: Person) -> None:
    answer = staff.post("/products", new_product(stockQuantity=0))

    assert (answer.status, answer.json["stockQuantity"]) == (201, 0)
    product = answer.json["id"]
    assert shop.sql("select * from shop.stock_moves where product_id = %s", product) == []


def test_repeated_key_adds_one_product(shop: ShopHarness, staff: Person) -> None:
    first = staff.post("/products", new_product(), key=KEY)
    again = staff.post("/products", new_product(), key=KEY)

    assert (again.status, again.body) == (201, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert len(changes_announced(shop)) == 1
    other = staff.post("/products", new_product(price=1), key=KEY)
    assert other.status == 422


def test_valid_name_reads_back_unchanged(shop: ShopHarness, staff: Person) -> None:
    odd = ["👍 emoji", "İstanbul ß", "é", "Việt ế", "%_\\", '"quoted"']
    hostile = ["' OR 1=1--", "<script>", "../../etc/passwd", "${jndi:x}", "{{7*7}}", "$$"]
    for name in ["테스트 상품 A", "a", "가" * 200, *odd, *hostile]:
        answer = staff.post("/products", new_product(name=name))

        assert answer.status == 201, answer.body
        assert shop.call("GET", f"/products/{answer.json['id']}").json["name"] == name


def test_decomposed_product_name_is_composed_before_its_length_is_checked(
    shop: ShopHarness, staff: Person
) -> None:
    name = "한글" * 100
    answer = staff.post("/products", new_product(name=unicodedata.normalize("NFD", name)))

    assert answer.status == 201
    assert shop.call("GET", f"/products/{answer.json['id']}").json["name"] == name


SPACES = ["", " ", "\u3000", " a", "a ", "a\n", "a\u00a0"]
CONTROLS = ["a\tb", "a\0b", "a\x7fb", "a\x85b", "a\r\nX-Y: 1", "a\u2028b"]
FORMATS = ["a\u202eb", "a\u2066b", "a\u200bb", "a\u200db", "a\ufeffb", "a\u00adb", "a\U000e0041b"]
NO_CHARACTERS = ["a\ufffeb", "a\U0010ffffb", "a\ufdd0b", "a\ue000b"]
STACKED = ["a" + "\u0335" * 9]


def test_unreadable_name_gets_422(shop: ShopHarness, staff: Person) -> None:
    before = state(shop)

    for name in [
        *SPACES,
        *CONTROLS,
        *FORMATS,
        *NO_CHARACTERS,
        *STACKED,
        "가" * 201,
    ]:
        for field in ("name", "category"):
            assert staff.post("/products", new_product(**{field: name})).status == 422, ascii(name)
            assert patch(staff, 1, {field: name}).status == 422, ascii(name)
        assert staff.post("/categories", {"name": name}).status == 422, ascii(name)
    assert state(shop) == before


NO_PRODUCTS: list[Any] = [
    new_product(name=...),
    new_product(category=...),
    new_product(price=...),
    new_product(stockQuantity=...),
    new_product(name=None),
    new_product(name=["a"]),
    new_product(description=None),
    new_product(description="a" * 2001),
    new_product(description="a\u202eb"),
    new_product(description="a\r\nb"),
    new_product(price=0),
    new_product(price=-1),
    new_product(price=1_000_000_001),
    new_product(price=2**63),
    new_product(price="1"),
    new_product(price=1.0),
    new_product(price=1.5),
    new_product(price=True),
    new_product(price=None),
    new_product(price=[1]),
    new_product(price={"$gt": 0}),
    new_product(stockQuantity=-1),
    new_product(stockQuantity=1_000_001),
    new_product(stockQuantity=1.0),
    new_product(currency="krw"),
    new_product(currency="USD"),
    new_product(currency=""),
    new_product(category="없는"),
    new_product(id=1),
    new_product(version=9),
    new_product(active=True),
    new_product(price_minor=1),
    new_product(stock_quantity=1),
    new_product(__proto__={}),
    [],
    "text",
    None,
]


def test_invalid_product_gets_422(shop: ShopHarness, staff: Person) -> None:
    before = state(shop)

    for body in NO_PRODUCTS:
        answer = shop.call("POST", "/products", raw=json.dumps(body).encode(), token=staff.token)
        assert answer.status == 422, (body, answer.body)
    assert state(shop) == before


@pytest.mark.parametrize(("price", "stock"), [(1, 0), (1_000_000_000, 1_000_000)])
def test_smallest_and_largest_values_are_accepted(staff: Person, price: int, stock: int) -> None:
    answer = staff.post("/products", new_product(price=price, stockQuantity=stock, currency="KRW"))

    assert (answer.status, answer.json["price"]) == (201, price)
    assert answer.json["stockQuantity"] == stock


# ---------------------------------------------------------------- changing


def test_each_change_increments_the_version(shop: ShopHarness, staff: Person) -> None:
    product = shop.product(price=100, stock=4)

    first = patch(staff, product, {"price": 200}, '"1.4"')
    second = patch(staff, product, {"name": "새 이름", "category": "다른"}, first.headers["etag"])

    assert (first.status, first.headers["etag"]) == (200, '"2.4"')
    assert (second.status, second.headers["etag"]) == (200, '"3.4"')
    assert second.json == {
        "id": product,
        "name": "새 이름",
        "description": "",
        "category": "다른",
        "price": 200,
        "currency": "KRW",
        "stockQuantity": 4,
        "active": True,
        "flashSale": False,
        "images": [],
        "translations": {},
        "group": None,
    }
    assert changes_announced(shop) == [
        ("product.changed", {"productId": product, "productVersion": 2}),
        ("product.changed", {"productId": product, "productVersion": 3}),
    ]


def test_sale_does_not_change_the_version(shop: ShopHarness, staff: Person) -> None:
    product = shop.product(stock=4)
    shop.sql("update shop.stock set reserved = 3 where product_id = %s", product)

    assert patch(staff, product, {"price": 200}, '"1.4"').status == 200


def test_change_without_the_current_version_gets_an_error(shop: ShopHarness, staff: Person) -> None:
    product = shop.product()
    before = state(shop)

    missing = patch(staff, product, {"price": 200}, None)
    assert (missing.status, missing.error) == (428, "PRECONDITION_REQUIRED")
    for stale in ('"2.10"', '"0.10"', 'W/"1.10"', '"1"', "", '"99999999999.1"'):
        answer = patch(staff, product, {"price": 200}, stale)
        assert (answer.status, answer.error) == (412, "PRECONDITION_FAILED"), stale
    for malformed in ("1.10", "garbage"):
        assert patch(staff, product, {"price": 200}, malformed).status == 400, malformed
    assert state(shop) == before

    assert patch(staff, product, {"price": 200}, '"7.1", "1.10"').status == 200


def test_concurrent_changes_of_one_version_succeed_once(shop: ShopHarness, staff: Person) -> None:
    product, start = shop.product(), threading.Barrier(4)
    answers: list[int] = []

    def change(price: int) -> None:
        start.wait()
        answers.append(patch(staff, product, {"price": price}, '"1.10"').status)

    changers = [threading.Thread(target=change, args=(price,)) for price in (1, 2, 3, 4)]
    for changer in changers:
        changer.start()
    for changer in changers:
        changer.join()

    assert sorted(answers) == [200, 412, 412, 412]
    assert len(changes_announced(shop)) == 1


def test_flash_sale_of_a_product_begins_and_ends(shop: ShopHarness, staff: Person) -> None:
    product = shop.product()

    begun = patch(staff, product, {"flashSale": True})
    ended = patch(staff, product, {"flashSale": False})

    assert (begun.status, begun.json["flashSale"]) == (200, True)
    assert (ended.status, ended.json["flashSale"]) == (200, False)
    assert patch(staff, product, {"flashSale": None}).status == 422


def test_withdrawn_product_can_be_restored(shop: ShopHarness, staff: Person) -> None:
    product = shop.product()

    assert patch(staff, product, {"active": False}).json["active"] is False
    assert shop.call("GET", f"/products/{product}").status == 404
    assert patch(staff, product, {"active": True}).json["active"] is True
    assert shop.call("GET", f"/products/{product}").status == 200


def test_withdrawn_product_is_shown_and_listed_to_operators_only(
    shop: ShopHarness, staff: Person
) -> None:
    first, withdrawn, last = (shop.product(stock=4) for _ in range(3))
    patch(staff, withdrawn, {"active": False})

    for role in ("staff", "support", "finance"):
        operator = shop.person(role)
        shown = operator.get(f"/admin/products/{withdrawn}")
        assert (shown.status, shown.json["active"]) == (200, False)
        assert shown.headers["etag"] == '"2.4"'
        etag = {"if-none-match": shown.headers["etag"]}
        assert operator.get(f"/admin/products/{withdrawn}", headers=etag).status == 304
        assert _listed(operator, "?active=false") == [withdrawn]
        assert _listed(operator, "?active=true")[:2] == [last, first]
        assert _listed(operator, "")[:3] == [last, withdrawn, first]
    missing = staff.get("/admin/products/999999")
    assert (missing.status, missing.error) == (404, "NOT_FOUND")
    customers = shop.call("GET", "/products").json
    assert [product["id"] for product in customers][-2:] == [first, last]


def test_pages_of_all_products_have_each_one_once(shop: ShopHarness, staff: Person) -> None:
    products = [shop.product() for _ in range(3)]

    for product in products:
        patch(staff, product, {"active": False})
    first = staff.get("/admin/products?active=false&limit=2")
    second = staff.get(first.headers["link"].partition("<")[2].partition(">")[0])

    found = [product["id"] for page in (first, second) for product in page.json]
    assert (found, "link" in second.headers) == (products[::-1], False)


@pytest.mark.parametrize("query", ["active=yes", "active=", "active=1", "limit=0", "cursor=0"])
def test_invalid_parameter_of_the_list_is_400(staff: Person, query: str) -> None:
    answer = staff.get(f"/admin/products?{query}")

    assert (answer.status, answer.error) == (400, "BAD_QUERY")
    assert [error["field"] for error in answer.json["errors"]] == [query.partition("=")[0]]


def test_withdrawal_leaves_orders_and_carts_and_ends_new_orders(
    flow: FlowHarness,
) -> None:
    shop = flow.shop
    staff, buyer, product = shop.person("staff"), shop.person(), shop.product(stock=9)
    placed = buyer.order(product)["id"]
    buyer.post("/cart/items", {"productId": product, "quantity": 2})

    assert patch(staff, product, {"active": False}, '"1.8"').status == 200
    flow.run_until_idle()

    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    refused = buyer.post("/orders", body)
    assert (refused.status, refused.error) == (422, "UNKNOWN_PRODUCT")
    missing, withdrawn = (buyer.get(f"/products/{number}") for number in (999999, product))
    assert withdrawn.status == missing.status == 404
    assert withdrawn.json["detail"] == missing.json["detail"]
    assert buyer.get(f"/orders/{placed}").json["status"] == "PAID"
    assert [item["available"] for item in buyer.get("/cart").json] == [False]
    assert staff.post(f"/products/{product}/stock", {"quantity": 1}).status == 200

    assert patch(staff, product, {"active": True}, '"2.9"').status == 200
    assert [item["available"] for item in buyer.get("/cart").json] == [True]
    assert buyer.post("/orders", body).status == 201


def _listed(operator: Person, query: str) -> list[int]:
    answer = operator.get(f"/admin/products{query}")
    assert answer.status == 200, answer.body
    return [product["id"] for product in answer.json]


NO_CHANGES: list[tuple[str, Any, str, int]] = [
    ("0", {"price": 1}, "*", 404),
    ("abc", {"price": 1}, "*", 404),
    (str(2**63), {"price": 1}, "*", 404),
    ("999999", {"price": 1}, '"1.1"', 404),
    ("1", {"category": "없는"}, "*", 422),
    ("1", {"category": "없는"}, '"9.1"', 412),
    ("1", {}, "*", 422),
    ("1", {"price": None}, "*", 422),
    ("1", {"price": 0}, "*", 422),
    ("1", {"active": "no"}, "*", 422),
    ("1", {"active": 0}, "*", 422),
    ("1", {"stockQuantity": 5}, "*", 422),
    ("1", {"currency": "USD"}, "*", 422),
    ("1", {"version": 5}, "*", 422),
]


def test_invalid_change_gets_422(shop: ShopHarness, staff: Person) -> None:
    before = state(shop)

    for product, body, etag, status in NO_CHANGES:
        answer = staff.patch(f"/products/{product}", body, headers={"if-match": etag})
        assert answer.status == status, (product, body, etag, answer.body)
    assert state(shop) == before


def test_tags_are_compared_as_rfc_9110_requires(shop: ShopHarness, staff: Person) -> None:
    product = shop.product(stock=4)
    many = ", ".join(f'"{number}.4"' for number in range(21))
    none_match = {"if-match": "*", "if-none-match": 'W/"1.4"'}
    before = state(shop)

    for etag, status in (('W/"1.4"', 412), ('"1.4" x', 400), (many, 400), ('"9.4", "8.4"', 412)):
        assert patch(staff, product, {"price": 5}, etag).status == status, etag
    known = staff.patch(f"/products/{product}", {"price": 5}, headers=none_match)

    assert (known.status, state(shop)) == (412, before)
    assert patch(staff, product, {"price": 5}, '"9.9", "1.4-gzip"').headers["etag"] == '"2.4"'


# ---------------------------------------------------------------- restocking


def test_restock_adds_stock_with_a_move_and_an_event(shop: ShopHarness, staff: Person) -> None:
    product = shop.product(stock=4)

    answer = staff.post(f"/products/{product}/stock", {"quantity": 6}, key=KEY)
    again = staff.post(f"/products/{product}/stock", {"quantity": 6}, key=KEY)

    assert (answer.status, answer.json["stockQuantity"]) == (200, 10)
    assert answer.headers["etag"] == '"1.10"', "stock is counted, not edited: the same version"
    assert again.body == answer.body
    moves = shop.sql(
        "select kind, qty from shop.stock_moves where product_id = %s order by seq", product
    )
    assert moves == [{"kind": "INITIAL", "qty": 4}, {"kind": "RESTOCK", "qty": 6}]
    assert changes_announced(shop) == [
        ("product.changed", {"productId": product, "productVersion": 1})
    ]


NO_RESTOCKS: list[tuple[str, Any, int]] = [
    ("999999", 1, 404),
    ("x", 1, 404),
    ("1", 0, 422),
    ("1", -1, 422),
    ("1", 1_000_001, 422),
    ("1", 1.0, 422),
    ("1", "1", 422),
    ("1", True, 422),
    ("1", None, 422),
]


def test_invalid_restock_gets_an_error(shop: ShopHarness, staff: Person) -> None:
    before = state(shop)

    for product, quantity, status in NO_RESTOCKS:
        answer = staff.post(f"/products/{product}/stock", {"quantity": quantity})
        assert answer.status == status, (product, quantity)
    assert state(shop) == before


def test_restock_above_the_limit_gets_an_error_and_returns_still_fit(
    shop: ShopHarness, staff: Person
) -> None:
    product = shop.product(stock=2_000_000_000 - 9)

    assert staff.post(f"/products/{product}/stock", {"quantity": 10}).status == 422
    assert staff.post(f"/products/{product}/stock", {"quantity": 9}).status == 200


# ---------------------------------------------------------------- categories


def test_duplicate_category_gets_an_error(shop: ShopHarness, staff: Person) -> None:
    name = f"분류 {new_uuid()}"[:50]

    assert staff.post("/categories", {"name": name}).status == 201
    taken = staff.post("/categories", {"name": name})

    assert (taken.status, taken.error) == (409, "CONFLICT")
    assert {"name": name} in shop.call("GET", "/categories").json
    assert staff.post("/products", new_product(category=name)).status == 201
