"""account and place_order: customers save addresses, and name one of them in an order."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.harness import MakeShop, Person, Response, ShopHarness, run_concurrently
from tests.sample_requests import ADDRESS

PATH = "/users/me/addresses"
KOREAN = ADDRESS | {"country": "KR"}
ABROAD = {
    "recipient": "Kim Bo-ram",
    "phone": "+1 212 555 0100",
    "country": "US",
    "city": "New York",
    "line1": "1 Main Street",
}


def save(person: Person, address: dict[str, str] = KOREAN, **fields: Any) -> str:
    added = person.post(PATH, {"address": address, **fields})
    assert added.status == 201, added.body
    assert added.headers["location"] == f"{PATH}/{added.json['id']}"
    return str(added.json["id"])


def place(person: Person, product: int, **fields: Any) -> Response:
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD", **fields}
    return person.post("/orders", body)


def defaults(person: Person) -> list[str]:
    return [each["id"] for each in person.get(PATH).json if each["isDefault"]]


def rows(shop: ShopHarness) -> int:
    (row,) = shop.sql("select count(*) as number from shop.saved_addresses")
    return int(row["number"])


def test_saved_address_is_listed_read_and_exported(shop: ShopHarness) -> None:
    person = shop.person()
    saved = save(person)

    read = person.get(f"{PATH}/{saved}")

    assert read.status == 200
    assert read.json["address"] == KOREAN
    assert read.json["isDefault"] is True
    assert person.get(PATH).json == [read.json]
    (exported,) = person.post("/users/me/export").json["savedAddresses"]
    assert (exported["addressId"], exported["line1"]) == (saved, KOREAN["line1"])


def test_address_that_was_chosen_last_is_the_default_and_else_the_oldest(shop: ShopHarness) -> None:
    person = shop.person()
    first, second, third = (save(person) for _ in range(3))
    assert defaults(person) == [first]

    chosen = person.patch(f"{PATH}/{second}", {"isDefault": True}, headers={"if-match": "*"})
    assert (chosen.status, defaults(person)) == (204, [second])
    fourth = save(person, isDefault=True)
    assert defaults(person) == [fourth]
    assert [each["id"] for each in person.get(PATH).json] == [fourth, second, first, third]
    assert person.delete(f"{PATH}/{fourth}").status == 204
    assert defaults(person) == [second]


def test_change_needs_the_present_etag_and_replaces_the_whole_address(shop: ShopHarness) -> None:
    person = shop.person()
    saved = save(person, KOREAN | {"line2": "3층"})
    path, body = f"{PATH}/{saved}", {"address": ABROAD}
    etag = person.get(path).headers["etag"]

    assert person.patch(path, body).status == 428
    assert person.patch(path, body, headers={"if-match": '"other"'}).status == 412
    changed = person.patch(path, body, headers={"if-match": etag})
    assert changed.status == 204
    read = person.get(path)
    assert (read.json["address"], read.headers["etag"]) == (ABROAD, changed.headers["etag"])
    assert person.patch(path, body, headers={"if-match": etag}).status == 412
    assert person.delete(path, headers={"if-match": etag}).status == 412


def test_another_default_changes_the_etag_of_the_one_before(shop: ShopHarness) -> None:
    person = shop.person()
    first = save(person)
    etag = person.get(f"{PATH}/{first}").headers["etag"]

    save(person, isDefault=True)

    outdated = person.patch(f"{PATH}/{first}", {"isDefault": True}, headers={"if-match": etag})
    assert outdated.status == 412


def test_of_two_changes_of_one_state_one_is_made(shop: ShopHarness) -> None:
    person = shop.person()
    path = f"{PATH}/{save(person)}"
    headers = {"if-match": person.get(path).headers["etag"]}
    bodies = [{"address": KOREAN | {"line2": f"{floor}층"}} for floor in range(2)]

    answers = run_concurrently(
        *(partial(person.patch, path, body, headers=headers) for body in bodies)
    )

    assert sorted(answer.status for answer in answers) == [204, 412]


def test_twenty_first_address_is_rejected(shop: ShopHarness) -> None:
    person = shop.person()
    kept = [save(person) for _ in range(20)]

    answer = person.post(PATH, {"address": KOREAN})

    assert (answer.status, answer.error) == (409, "ADDRESS_BOOK_FULL")
    assert rows(shop) == 20
    assert person.delete(f"{PATH}/{kept[0]}").status == 204
    save(person)


def test_simultaneous_additions_do_not_exceed_the_limit(shop: ShopHarness) -> None:
    person = shop.person()
    for _ in range(17):
        save(person)

    answers = run_concurrently(*[partial(person.post, PATH, {"address": KOREAN})] * 6)

    assert sorted(answer.status for answer in answers) == [201] * 3 + [409] * 3
    assert rows(shop) == 20


def test_repeated_addition_adds_one_address_and_its_stored_response_has_none(
    shop: ShopHarness,
) -> None:
    person, key = shop.person(), uuid4().hex

    first, second = (person.post(PATH, {"address": KOREAN}, key=key) for _ in range(2))

    assert (first.status, first.body) == (second.status, second.body)
    assert rows(shop) == 1
    (stored,) = shop.sql("select convert_from(body, 'UTF8') as body from shop.idempotency")
    assert stored["body"] == first.body.decode()
    assert KOREAN["recipient"] not in stored["body"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
def test_foreign_missing_and_malformed_ids_have_one_answer(shop: ShopHarness, method: str) -> None:
    foreign, person = save(shop.person()), shop.person()
    body = {"isDefault": True} if method == "PATCH" else None
    headers = {"if-match": "*"}

    answers = [
        shop.call(method, f"{PATH}/{each}", body, token=person.token, headers=headers)
        for each in (foreign, uuid4(), "x")
    ]

    assert [answer.status for answer in answers] == [404] * 3
    problems = [answer.json | {"instance": ""} for answer in answers]
    assert problems == [problems[0]] * 3
    assert rows(shop) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"address": KOREAN | {"postcode": "1"}},
        {"address": KOREAN | {"colour": "red"}},
        {"address": None},
        {"address": KOREAN, "isDefault": "yes"},
        KOREAN,
    ],
)
def test_invalid_address_is_rejected_and_nothing_saved(
    shop: ShopHarness, body: dict[str, Any]
) -> None:
    assert shop.person().post(PATH, body).status == 422
    assert rows(shop) == 0


@pytest.mark.parametrize("body", [{}, {"isDefault": False}, {"isDefault": None}, {"address": None}])
def test_change_of_nothing_is_rejected(shop: ShopHarness, body: dict[str, Any]) -> None:
    person = shop.person()
    saved = save(person)

    answer = person.patch(f"{PATH}/{saved}", body, headers={"if-match": "*"})

    assert answer.status == 422


@pytest.mark.parametrize("is_from_cart", [False, True])
def test_order_has_a_copy_of_the_address_that_it_names(
    shop: ShopHarness, is_from_cart: bool
) -> None:
    person, product = shop.person(), shop.product()
    saved = save(person)
    if is_from_cart:
        assert person.post("/cart/items", {"productId": product, "quantity": 1}).status == 201
        placed = person.post("/orders/from-cart", {"addressId": saved})
    else:
        placed = place(person, product, addressId=saved)
    assert placed.status == 201, placed.body

    assert person.delete(f"{PATH}/{saved}").status == 204

    seen = person.get(f"/orders/{placed.json['id']}").json
    assert seen["shippingAddress"] == KOREAN


def test_order_to_a_foreign_or_missing_address_is_rejected_and_nothing_written(
    shop: ShopHarness,
) -> None:
    foreign, person, product = save(shop.person()), shop.person(), shop.product()

    answers = [place(person, product, addressId=each) for each in (foreign, str(uuid4()))]

    assert [(each.status, each.error) for each in answers] == [(422, "UNKNOWN_ADDRESS")] * 2
    assert len({each.body for each in answers}) == 1
    assert [error["field"] for error in answers[0].json["errors"]] == ["addressId"]
    assert place(person, product, addressId="x").error == "INVALID"
    assert place(person, product, addressId=foreign, shippingAddress=KOREAN).error == "INVALID"
    assert shop.sql("select order_id from shop.orders") == []
    assert shop.sql("select order_id from shop.order_addresses") == []


def test_saved_address_satisfies_a_shop_that_requires_one_and_its_countries(
    make_shop: MakeShop,
) -> None:
    shop = make_shop(shipping_address="required")
    person, product = shop.person(), shop.product()
    korean, abroad = save(person), save(person, ABROAD)

    assert place(person, product, addressId=korean).status == 201
    rejected = place(person, product, addressId=abroad)
    assert rejected.status == 422
    assert [error["field"] for error in rejected.json["errors"]] == ["addressId"]


def test_customers_see_only_their_own_book_in_the_database_too(shop: ShopHarness) -> None:
    save(shop.person())
    stranger = shop.person()
    for role in ("identity", "ordering"):
        with psycopg.connect(shop.role_url(role)) as connection:
            connection.execute(
                "select set_config('shop.user_id', %s, false)", (str(stranger.user_id),)
            )
            found = connection.execute("select address_id from shop.saved_addresses").fetchall()
            assert found == []
