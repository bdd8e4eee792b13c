"""Texts of products in another language: set by staff, shown and found by Accept-Language."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.harness import MakeShop, Person, Response, ShopHarness

IMAGES = [
    {"url": "https://images.shop.kr/1.jpg", "alt": "앞면"},
    {"url": "https://images.shop.kr/2.jpg", "alt": "뒷면"},
]
CATEGORY = "번역"
LIST = f"/products?category={quote(CATEGORY)}"
ENGLISH = {"name": "Table Lamp", "description": "Warm light", "imageAlts": ["Front"]}


def add(staff: Person, name: str = "탁자 조명", **properties: Any) -> dict[str, Any]:
    """A new product."""
    body = {"name": name, "description": "따뜻한 빛", "category": CATEGORY, "price": 1000}
    staff.post("/categories", {"name": CATEGORY})
    answer = staff.post("/products", {**body, "stockQuantity": 5, **properties})
    assert answer.status == 201, answer.body
    return dict(answer.json)


def show(shop: ShopHarness, path: str, language: str | None = None, **headers: str) -> Response:
    sent = headers if language is None else {"accept-language": language, **headers}
    return shop.call("GET", path, headers={k.replace("_", "-"): v for k, v in sent.items()})


def names(response: Response) -> list[str]:
    return [product["name"] for product in response.json]


def test_page_is_in_the_language_asked_for_where_there_are_texts(shop: ShopHarness) -> None:
    product = add(shop.person("staff"), images=IMAGES, translations={"en": ENGLISH})
    path = f"/products/{product['id']}"

    english, own = show(shop, path, "en-GB,en;q=0.9"), show(shop, path)

    assert (english.json["name"], english.json["description"]) == ("Table Lamp", "Warm light")
    assert [image["alt"] for image in english.json["images"]] == ["Front", "뒷면"]
    texts = ("name", "description", "images")
    rest = {name: value for name, value in own.json.items() if name not in texts}
    assert {name: english.json[name] for name in rest} == rest
    assert (english.headers["content-language"], own.headers["content-language"]) == ("en", "ko")
    assert english.headers["vary"] == own.headers["vary"] == "Accept-Language"


@pytest.mark.parametrize("accept_language", [None, "*", "ko", "ko-KR,ko;q=0.9,en;q=0.8", "fr", ""])
def test_page_in_the_products_own_language_is_what_it_is_without_translations(
    shop: ShopHarness, accept_language: str | None
) -> None:
    staff = shop.person("staff")
    product = add(staff, images=IMAGES)
    path = f"/products/{product['id']}"
    before, list_before = show(shop, path), show(shop, LIST)
    patched = staff.patch(path, {"translations": {"en": ENGLISH}}, headers={"if-match": "*"})
    assert patched.status == 200

    after = show(shop, path, accept_language)
    listed = show(shop, LIST, accept_language)

    assert (after.body, listed.body) == (before.body, list_before.body)
    assert after.headers["content-language"] == listed.headers["content-language"] == "ko"


def test_product_without_texts_in_the_language_has_its_own_page_and_tag(shop: ShopHarness) -> None:
    product = add(shop.person("staff"))
    path = f"/products/{product['id']}"

    english, own = show(shop, path, "en"), show(shop, path)

    assert (english.body, english.headers["etag"]) == (own.body, own.headers["etag"])
    assert english.headers["content-language"] == "ko"


def test_each_language_has_a_tag_of_its_own_that_staff_can_change_with(shop: ShopHarness) -> None:
    staff = shop.person("staff")
    path = f"/products/{add(staff, translations={'en': ENGLISH})['id']}"
    english, own = (show(shop, path, each).headers["etag"] for each in ("en", "ko"))

    unchanged = [
        show(shop, path, language, if_none_match=tag).status
        for language, tag in (("en", english), ("en", own), ("ko", english), ("ko", own))
    ]
    changed = staff.patch(path, {"price": 2000}, headers={"if-match": english})
    stale = staff.patch(path, {"price": 3000}, headers={"if-match": english})

    assert unchanged == [304, 200, 200, 304]
    assert (changed.status, stale.status) == (200, 412)


def test_lists_in_two_languages_are_kept_apart_and_follow_changes_at_once(
    shop: ShopHarness,
) -> None:
    staff = shop.person("staff")
    path = f"/products/{add(staff, translations={'en': ENGLISH})['id']}"
    add(staff, "의자")
    sent = ("en", "ko", "en", "ko")

    lists = [show(shop, f"{LIST}&limit=1", language) for language in sent]
    change = {"translations": {"en": {**ENGLISH, "name": "Reading Lamp"}}}
    staff.patch(path, change, headers={"if-match": "*"})
    later = [show(shop, LIST, language) for language in ("en", "ko")]

    assert [names(page) for page in lists] == [["Table Lamp"], ["탁자 조명"]] * 2
    assert [page.headers["content-language"] for page in lists] == list(sent)
    assert lists[0].headers["link"] == lists[1].headers["link"]
    assert lists[0].headers["etag"] != lists[1].headers["etag"]
    assert [names(page) for page in later] == [["Reading Lamp", "의자"], ["탁자 조명", "의자"]]


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("en", "LAMP", ["Table Lamp"]),
        ("en", "l", ["Table Lamp"]),
        ("en", "조명", ["Table Lamp"]),
        ("en", "의자", ["의자"]),
        ("ko", "조명", ["탁자 조명"]),
        ("ko", "lamp", []),
        (None, "lamp", []),
        ("en", "warm", []),
    ],
)
@pytest.mark.parametrize("sort", ["id", "-name"])
def test_search_looks_at_names_in_the_language_and_at_own_names(
    shop: ShopHarness, language: str | None, text: str, found: list[str], sort: str
) -> None:
    staff = shop.person("staff")
    add(staff, translations={"en": ENGLISH})
    add(staff, "의자")

    page = show(shop, f"/products?name={text}&sort={sort}", language)

    assert names(page) == found


def test_search_pages_in_another_language_have_each_product_once(shop: ShopHarness) -> None:
    staff = shop.person("staff")
    ids = [
        add(staff, f"조명 {n}", translations={"en": {"name": f"Lamp {9 - n}"}})["id"]
        for n in range(5)
    ]
    found: list[int] = []
    path: str | None = "/products?name=lamp&sort=name&limit=2"
    while path:
        page = show(shop, path, "en")
        found += [product["id"] for product in page.json]
        link = page.headers.get("link", "")
        path = link.partition("<")[2].partition(">")[0] or None

    assert found == ids, "in the order of the products' own names"


def test_translations_are_replaced_as_a_whole_and_recorded(shop: ShopHarness) -> None:
    staff = shop.person("staff")
    product = add(staff, translations={"en": ENGLISH})
    path, shorter = f"/products/{product['id']}", {"en": {"name": "Lamp"}}

    changed = staff.patch(path, {"translations": shorter}, headers={"if-match": "*"})
    removed = staff.patch(path, {"translations": {}}, headers={"if-match": "*"})

    assert (product["translations"], changed.json["translations"]) == ({"en": ENGLISH}, shorter)
    assert removed.json["translations"] == {}
    entries = shop.sql(
        "select before, after from shop.audit_log where action = 'product.changed' order by seq"
    )
    assert [(row["before"], row["after"]) for row in entries] == [
        ({"translations": {"en": ENGLISH}}, {"translations": shorter}),
        ({"translations": shorter}, {"translations": {}}),
    ]


@pytest.mark.parametrize(
    "translations",
    [
        {"ko": {"name": "조명"}},
        {"fr": {"name": "Lampe"}},
        {"EN": {"name": "Lamp"}},
        {"en": {}},
        {"en": None},
        {"en": {"name": ""}},
        {"en": {"name": " Lamp"}},
        {"en": {"name": "Lamp\n"}},
        {"en": {"name": "L" * 201}},
        {"en": {"name": "Lamp", "description": None}},
        {"en": {"name": "Lamp", "imageAlts": [""]}},
        {"en": {"name": "Lamp", "imageAlts": ["a"] * 11}},
        {"en": {"name": "Lamp", "price": 1}},
        [],
        None,
    ],
)
def test_translations_of_another_form_are_422_and_change_nothing(
    shop: ShopHarness, translations: Any
) -> None:
    staff = shop.person("staff")
    product = add(staff, translations={"en": ENGLISH})
    path = f"/products/{product['id']}"

    answer = staff.patch(path, {"translations": translations}, headers={"if-match": "*"})

    assert (answer.status, answer.error) == (422, "INVALID")
    assert staff.get(f"/admin{path}").json == product


def test_shop_in_english_translates_into_korean(make_shop: MakeShop) -> None:
    shop = make_shop(shop_language="en")
    texts = {"ko": {"name": "탁자 조명"}}
    product = add(shop.person("staff"), "Table Lamp", translations=texts)
    path = f"/products/{product['id']}"

    shown = {language: show(shop, path, language) for language in ("ko", "en", "*")}

    assert {language: page.json["name"] for language, page in shown.items()} == {
        "ko": "탁자 조명",
        "en": "Table Lamp",
        "*": "Table Lamp",
    }
    languages = [page.headers["content-language"] for page in shown.values()]
    assert languages == ["ko", "en", "en"]
