"""Images of products, groups of products that differ in options, and the search for operators."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import quote

import pytest

from tests.harness import Person, Response, ShopHarness

IF_ANY = {"if-match": "*"}
IMAGE = {"url": "https://images.example.kr/a.webp?w=640", "alt": "상자에 든 사과"}


def change(person: Person, product: int, body: dict[str, Any], *, if_match: str = "*") -> Response:
    return person.patch(f"/products/{product}", body, headers={"if-match": if_match})


def add_group(staff: Person, *options: str) -> int:
    answer = staff.post("/admin/product-groups", {"name": "셔츠", "options": list(options)})
    assert answer.status == 201, answer.body
    group: int = answer.json["id"]
    return group


def join(staff: Person, product: int, group: int, **options: str) -> Response:
    return change(staff, product, {"group": {"id": group, "options": options}})


def shown_group(shop: ShopHarness, product: int) -> dict[str, Any] | None:
    group: dict[str, Any] | None = shop.call("GET", f"/products/{product}").json["group"]
    return group


# ---------------------------------------------------------------- images


def test_images_are_shown_in_their_order(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product()
    images = [IMAGE, {"url": "https://images.example.kr/b.webp", "alt": "뒷면"}]

    answer = change(staff, product, {"images": images})

    assert (answer.status, answer.json["images"]) == (200, images), answer.body
    assert shop.call("GET", f"/products/{product}").json["images"] == images
    assert shop.call("GET", "/products?category=" + quote("시험")).json[0]["images"] == images
    (entry,) = shop.sql("select before, after from shop.audit_log where action = 'product.changed'")
    assert (entry["before"], entry["after"]) == ({"images": []}, {"images": images})
    assert change(staff, product, {"price": 5}).json["images"] == images
    assert change(staff, product, {"images": []}).json["images"] == []


def test_product_is_added_with_images(shop: ShopHarness) -> None:
    staff = shop.person("staff")
    shop.product()
    body = {"name": "사과", "category": "시험", "price": 100, "stockQuantity": 1, "images": [IMAGE]}

    answer = staff.post("/products", body)

    assert (answer.status, answer.json["images"]) == (201, [IMAGE])


@pytest.mark.parametrize(
    "images",
    [
        None,
        {},
        [IMAGE] * 11,
        [{"url": IMAGE["url"]}],
        [{"alt": IMAGE["alt"]}],
        [IMAGE | {"alt": ""}],
        [IMAGE | {"alt": " "}],
        [IMAGE | {"alt": "a\nb"}],
        [IMAGE | {"alt": "x" * 301}],
        [IMAGE | {"width": 1}],
        [IMAGE | {"url": "http://images.example.kr/a.webp"}],
        [IMAGE | {"url": "https://user@images.example.kr/a.webp"}],
        [IMAGE | {"url": "https://images.example.kr"}],
        [IMAGE | {"url": "https://images.example.kr:8443/a.webp"}],
        [IMAGE | {"url": "https://images.example.kr/a b"}],
        [IMAGE | {"url": 'https://images.example.kr/"onerror='}],
        [IMAGE | {"url": "https://images.example.kr/<b>"}],
        [IMAGE | {"url": "javascript:alert(1)"}],
        [IMAGE | {"url": "https://images.example.kr/" + "a" * 2_000}],
    ],
)
def test_invalid_images_are_422(shop: ShopHarness, images: object) -> None:
    staff, product = shop.person("staff"), shop.product()

    answer = change(staff, product, {"images": images})

    assert answer.status == 422, answer.body
    assert shop.sql("select version, images from shop.products where product_id = %s", product) == [
        {"version": 1, "images": []}
    ]


# ---------------------------------------------------------------- groups


def test_pages_of_products_show_the_other_members(shop: ShopHarness) -> None:
    staff, first, second = shop.person("staff"), shop.product(), shop.product()
    group = add_group(staff, "색", "크기")

    joined = join(staff, first, group, 크기="L", 색="검정")
    join(staff, second, group, 크기="M", 색="검정")

    assert (joined.status, joined.json["group"]) == (
        200,
        {"id": group, "options": {"색": "검정", "크기": "L"}},
    )
    assert shown_group(shop, first) == {
        "id": group,
        "name": "셔츠",
        "options": {"색": "검정", "크기": "L"},
        "members": [
            {"productId": first, "options": {"색": "검정", "크기": "L"}},
            {"productId": second, "options": {"색": "검정", "크기": "M"}},
        ],
    }
    listed = shop.call("GET", "/products?category=" + quote("시험")).json
    assert [item["group"]["options"]["크기"] for item in listed] == ["L", "M"]
    found = shop.call("GET", f"/admin/product-groups/{group}", token=staff.token)
    assert (found.status, found.headers["etag"]) == (200, '"3"')
    assert [member["active"] for member in found.json["members"]] == [True, True]


def test_tag_of_a_page_changes_with_the_group(shop: ShopHarness) -> None:
    staff, first, second = shop.person("staff"), shop.product(), shop.product()
    group = add_group(staff, "색")
    tags = [shop.call("GET", f"/products/{first}").headers["etag"]]

    def seen() -> bool:
        page = shop.call("GET", f"/products/{first}", headers={"if-none-match": tags[-1]})
        tags.append(page.headers["etag"])
        return page.status == 304

    join(staff, first, group, 색="검정")
    assert not seen() and seen()
    join(staff, second, group, 색="하양")
    assert not seen() and seen()
    change(staff, second, {"active": False})
    assert not seen() and seen()
    staff.patch(f"/admin/product-groups/{group}", {"name": "바지"}, headers=IF_ANY)
    assert not seen() and seen()
    change(staff, second, {"name": "이름"})
    assert seen(), "its name is not on this page"
    assert shown_group(shop, first) == {
        "id": group,
        "name": "바지",
        "options": {"색": "검정"},
        "members": [{"productId": first, "options": {"색": "검정"}}],
    }
    assert change(staff, first, {"price": 7}, if_match=tags[-1]).status == 200


def test_product_leaves_its_group(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product()
    group, other = add_group(staff, "색"), add_group(staff, "크기")
    join(staff, product, group, 색="검정")

    moved, left = join(staff, product, other, 크기="L"), change(staff, product, {"group": None})

    assert moved.json["group"] == {"id": other, "options": {"크기": "L"}}
    assert (left.status, left.json["group"], left.headers["etag"]) == (200, None, '"4.10"')
    versions = shop.sql("select version from shop.product_groups order by group_id")
    assert [row["version"] for row in versions] == [3, 3]
    entries = shop.sql(
        "select before, after from shop.audit_log where action = 'product.changed' order by seq"
    )
    assert entries[-1] == {
        "before": {"group": {"id": other, "options": {"크기": "L"}}},
        "after": {"group": None},
    }


def test_options_of_another_member_are_409_and_name_it(shop: ShopHarness) -> None:
    staff, first, second = shop.person("staff"), shop.product(), shop.product()
    group = add_group(staff, "색")
    join(staff, first, group, 색="검정")

    answer = join(staff, second, group, 색="검정")

    assert (answer.status, answer.error) == (409, "OPTIONS_TAKEN")
    assert answer.json["productId"] == first
    assert shown_group(shop, second) is None
    assert join(staff, first, group, 색="검정").status == 200, "its own options"


def test_concurrent_members_with_the_same_options_join_once(shop: ShopHarness) -> None:
    staff, group = shop.person("staff"), add_group(shop.person("staff"), "색")
    products, start = [shop.product() for _ in range(4)], threading.Barrier(4)
    answers: list[int] = []

    def send(product: int) -> None:
        start.wait()
        answers.append(join(staff, product, group, 색="검정").status)

    threads = [threading.Thread(target=send, args=(product,)) for product in products]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == [200, 409, 409, 409]


@pytest.mark.parametrize(
    ("membership", "code"),
    [
        ({"id": 999, "options": {"색": "검정"}}, "UNKNOWN_GROUP"),
        ({"options": {"크기": "L"}}, "INVALID"),
        ({"options": {}}, "INVALID"),
        ({"options": {"색": "검정", "크기": "L"}}, "INVALID"),
        ({"options": {"색": ""}}, "INVALID"),
        ({"options": {"색": 1}}, "INVALID"),
        ({"id": "1"}, "INVALID"),
        ({"id": 0}, "INVALID"),
        ({"name": "x"}, "INVALID"),
    ],
)
def test_invalid_membership_is_422(
    shop: ShopHarness, membership: dict[str, object], code: str
) -> None:
    staff, product = shop.person("staff"), shop.product()
    valid = {"id": add_group(staff, "색"), "options": {"색": "검정"}}

    answer = change(staff, product, {"group": valid | membership})

    assert (answer.status, answer.error) == (422, code), answer.body
    assert shop.sql(
        "select version, group_id from shop.products where product_id = %s", product
    ) == [{"version": 1, "group_id": None}]
    assert change(staff, product, {"group": valid}, if_match='"9.9"').status == 412
    assert change(staff, 999_999, {"group": valid}).status == 404


def test_group_is_renamed_with_its_options(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product()
    group = add_group(staff, "색")
    join(staff, product, group, 색="검정")
    path = f"/admin/product-groups/{group}"
    tag = shop.call("GET", path, token=staff.token).headers["etag"]

    missing = staff.patch(path, {"options": ["색상"]})
    changed = staff.patch(path, {"options": ["색상"]}, headers={"if-match": tag})
    stale = staff.patch(path, {"options": ["빛깔"]}, headers={"if-match": tag})
    longer = staff.patch(path, {"options": ["색상", "크기"]}, headers=IF_ANY)

    assert [missing.status, stale.status] == [428, 412]
    assert (longer.status, longer.error) == (409, "GROUP_HAS_PRODUCTS")
    assert (changed.status, changed.headers["etag"]) == (200, '"3"')
    assert changed.json["members"] == [
        {"productId": product, "options": {"색상": "검정"}, "active": True}
    ]
    events = shop.sql("select data from shop.outbox where type = 'product.changed'")
    assert events[-1]["data"] == {"productId": product, "productVersion": 2}
    (entry,) = shop.sql(
        "select before, after from shop.audit_log where action = 'product_group.changed'"
    )
    assert entry == {"before": {"options": ["색"]}, "after": {"options": ["색상"]}}
    assert staff.patch("/admin/product-groups/999", {"name": "x"}, headers=IF_ANY).status == 404
    assert shop.call("GET", "/admin/product-groups/x", token=staff.token).status == 404


@pytest.mark.parametrize(
    "body",
    [
        {"name": "", "options": ["색"]},
        {"name": "옷", "options": []},
        {"name": "옷", "options": ["색", "색"]},
        {"name": "옷", "options": ["1", "2", "3", "4", "5", "6"]},
        {"name": "옷", "options": ["x" * 51]},
        {"name": "옷", "options": [1]},
        {"name": "옷"},
        {"options": ["색"]},
    ],
)
def test_invalid_group_is_422(shop: ShopHarness, body: dict[str, object]) -> None:
    answer = shop.person("staff").post("/admin/product-groups", body)

    assert answer.status == 422, answer.body
    assert shop.sql("select 1 as n from shop.product_groups") == []


def test_group_of_a_hundred_products_is_full(shop: ShopHarness) -> None:
    staff, product = shop.person("staff"), shop.product()
    group = add_group(staff, "색")
    shop.sql(
        "insert into shop.products (name, category, price_minor, currency, group_id, "
        "option_values) select 'x', '시험', 1, 'KRW', %s, array[n::text] "
        "from generate_series(1, 100) n",
        group,
    )

    answer = join(staff, product, group, 색="검정")

    assert (answer.status, answer.error) == (409, "GROUP_FULL")


def test_pages_of_groups_have_each_group_once(shop: ShopHarness) -> None:
    staff = shop.person("staff")
    groups = [add_group(staff, "색") for _ in range(3)]

    first = shop.call("GET", "/admin/product-groups?limit=2", token=staff.token)
    following = first.headers["link"].partition("<")[2].partition(">")[0]
    second = shop.call("GET", following, token=staff.token)

    listed = [group["id"] for group in (*first.json, *second.json)]
    assert listed == groups[::-1]
    assert "link" not in second.headers


# ---------------------------------------------------------------- search


def test_operators_find_products_by_name_for_sale_or_withdrawn(shop: ShopHarness) -> None:
    staff = shop.person("staff")
    products = [shop.product(name=name) for name in ("사과 상자", "배 상자", "사과 잼", "50% 사과")]
    change(staff, products[2], {"active": False})

    def found(query: str) -> list[int]:
        answer = shop.call("GET", f"/admin/products?{query}", token=staff.token)
        assert answer.status == 200, answer.body
        return [product["id"] for product in answer.json]

    apples = quote("사과")
    assert found(f"name={apples}") == [products[3], products[2], products[0]]
    assert found(f"name={apples}&active=false") == [products[2]]
    assert found(f"name={apples}&active=true") == [products[3], products[0]]
    assert found("name=%25") == [products[3]], "a character is no pattern"
    assert found(f"name={quote('자')}") == [products[1], products[0]]
    assert found("name=pear") == []
    page = shop.call("GET", f"/admin/products?name={apples}&limit=2", token=staff.token)
    following = page.headers["link"].partition("<")[2].partition(">")[0]
    assert [p["id"] for p in shop.call("GET", following, token=staff.token).json] == [products[0]]
