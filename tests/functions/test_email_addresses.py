"""account, register, login, place_order: addresses are verified and changed by one-time links."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from shop.login_failures import SOURCE_FAILURES_MAX
from shop.one_time_links import ADDRESS_LINKS_MAX, token_of
from shop.primitives.ids import new_uuid
from tests.harness import PASSWORD, MakeShop, Person, Response, ShopHarness, run_concurrently

CONFIRM = "/auth/email-verification/confirm"
VERIFICATION = "user.email-verification-requested"
CHANGE = "user.email-change-requested"


def new_address() -> str:
    return f"lee.{uuid4().hex[:12]}@example.kr"


def registered(shop: ShopHarness, email: str = "") -> Person:
    """A new account, signed in."""
    email = email or new_address()
    assert shop.register(email).status == 201
    return signed_in(shop, email)


def signed_in(shop: ShopHarness, email: str, password: str = PASSWORD) -> Person:
    token = shop.log_in(email, password).json["accessToken"]
    return Person(shop, shop.call("GET", "/users/me", token=token).json["id"], token)


def events(shop: ShopHarness, name: str) -> list[dict[str, Any]]:
    """The data of the announced events of a type, oldest first."""
    return [event["data"] for event in shop.outbox(undone=False) if event["type"] == name]


def token_in(shop: ShopHarness, name: str) -> str:
    """The token of the link that was announced last, as its sender computes it."""
    return token_of(UUID(events(shop, name)[-1]["linkId"]), shop.secrets.link_key)


def confirm(shop: ShopHarness, token: str) -> Response:
    return shop.call("POST", CONFIRM, {"token": token})


def request_change(person: Person, email: str, password: str = PASSWORD) -> Response:
    return person.post("/users/me/email", {"email": email, "password": password})


def change_token(person: Person, email: str) -> str:
    """The token of a newly requested link to another address."""
    assert request_change(person, email).status == 202
    return token_in(person.shop, CHANGE)


# ---------------------------------------------------------------- verification


def test_used_link_verifies_the_address_and_then_is_403(shop: ShopHarness) -> None:
    person = registered(shop)
    assert person.get("/users/me").json["emailVerified"] is False

    requested = person.post("/users/me/email-verification")
    token = token_in(shop, VERIFICATION)
    answers = [confirm(shop, token) for _ in range(2)]

    assert (requested.status, requested.body) == (202, b"")
    assert [answer.status for answer in answers] == [204, 403]
    assert answers[1].error == "INVALID_LINK"
    assert person.get("/users/me").json["emailVerified"] is True
    again = person.post("/users/me/email-verification")
    assert (again.status, again.error) == (409, "EMAIL_VERIFIED")


def test_address_gets_three_links_an_hour(shop: ShopHarness) -> None:
    person = registered(shop)
    before = len(events(shop, VERIFICATION))

    answers = run_concurrently(
        *[lambda: person.post("/users/me/email-verification")] * (ADDRESS_LINKS_MAX + 2)
    )

    assert {answer.status for answer in answers} == {202}
    assert len(events(shop, VERIFICATION)) - before == ADDRESS_LINKS_MAX


def test_link_of_another_purpose_is_403(shop: ShopHarness) -> None:
    email = new_address()
    person = registered(shop, email)
    person.post("/users/me/email-verification")
    verifying = token_in(shop, VERIFICATION)
    assert shop.call("POST", "/auth/password-reset", {"email": email}).status == 202
    resetting = token_in(shop, "user.password-reset-requested")
    path, body = "/auth/password-reset/confirm", {"newPassword": PASSWORD}

    assert shop.call("POST", path, {**body, "token": verifying}).status == 403
    assert confirm(shop, resetting).status == 403
    assert confirm(shop, verifying).status == 204
    assert shop.call("POST", path, {**body, "token": resetting}).status == 204


def test_expired_forged_and_unknown_tokens_get_the_same_403(shop: ShopHarness) -> None:
    person = registered(shop)
    person.post("/users/me/email-verification")
    expired = token_in(shop, VERIFICATION)
    shop.sql("update shop.one_time_links set expires_at = now() where user_id = %s", person.user_id)

    unknown = token_of(new_uuid(), shop.secrets.link_key)
    answers = [confirm(shop, token) for token in (expired, unknown, "A" * 64)]

    assert [(answer.status, answer.error) for answer in answers] == [(403, "INVALID_LINK")] * 3
    assert person.get("/users/me").json["emailVerified"] is False


def test_disabled_account_is_not_verified(shop: ShopHarness) -> None:
    person = registered(shop)
    person.post("/users/me/email-verification")
    shop.sql(
        "update shop.users set active = false, state = 'DISABLED' where user_id = %s returning 1",
        person.user_id,
    )

    assert confirm(shop, token_in(shop, VERIFICATION)).status == 403


def test_reset_of_the_password_verifies_the_address(shop: ShopHarness) -> None:
    email = new_address()
    registered(shop, email)
    shop.call("POST", "/auth/password-reset", {"email": email})
    token = token_in(shop, "user.password-reset-requested")

    body = {"token": token, "newPassword": PASSWORD}
    assert shop.call("POST", "/auth/password-reset/confirm", body).status == 204

    assert signed_in(shop, email).get("/users/me").json["emailVerified"] is True


# ---------------------------------------------------------------- the policy


def test_registration_makes_a_link_only_under_a_policy(
    shop: ShopHarness, make_shop: MakeShop
) -> None:
    registered(shop)
    assert events(shop, VERIFICATION) == []

    strict = make_shop(email_verification="order")
    person = registered(strict)

    assert confirm(strict, token_in(strict, VERIFICATION)).status == 204
    assert person.get("/users/me").json["emailVerified"] is True


@pytest.mark.parametrize("policy", ["order", "login"])
def test_unverified_customer_places_no_order_under_a_policy(
    make_shop: MakeShop, policy: str
) -> None:
    shop = make_shop(email_verification=policy)
    product = shop.product(stock=3)
    customer = shop.person()
    body = {"productId": product, "quantity": 1, "paymentMethod": "CARD"}
    shop.call("POST", "/cart/items", {"productId": product, "quantity": 1}, token=customer.token)

    refused = customer.post("/orders", body, key="key-of-the-order")
    from_cart = customer.post("/orders/from-cart", {"paymentMethod": "CARD"})

    assert [(a.status, a.error) for a in (refused, from_cart)] == [(403, "EMAIL_NOT_VERIFIED")] * 2
    assert shop.stock_of(product) == (3, 0)
    assert [line["productId"] for line in customer.get("/cart").json] == [product]
    # the same key, since the response was not stored
    shop.sql("update shop.users set email_verified_at = now() where user_id = %s", customer.user_id)
    assert customer.post("/orders", body, key="key-of-the-order").status == 201
    assert shop.person("staff").post("/orders", body).status == 201


def test_unverified_customer_places_orders_without_a_policy(shop: ShopHarness) -> None:
    body = {"productId": shop.product(), "quantity": 1, "paymentMethod": "CARD"}

    assert registered(shop).post("/orders", body).status == 201


def test_unverified_customer_opens_no_session_under_the_policy_of_log_in(
    make_shop: MakeShop,
) -> None:
    shop = make_shop(email_verification="login")
    email = new_address()
    assert shop.register(email).status == 201

    right = shop.log_in(email)
    wrong, unknown = shop.log_in(email, "not the password"), shop.log_in(new_address())

    assert (right.status, right.error) == (403, "EMAIL_NOT_VERIFIED")
    assert [(a.status, a.error) for a in (wrong, unknown)] == [(401, "INVALID_CREDENTIALS")] * 2
    assert wrong.json["detail"] == unknown.json["detail"]
    assert shop.sql("select 1 as one from shop.sessions") == []
    assert confirm(shop, token_in(shop, VERIFICATION)).status == 204
    assert shop.log_in(email).status == 200


def test_unverified_operator_logs_in_under_the_policy(make_shop: MakeShop) -> None:
    shop = make_shop(email_verification="login")
    staff = shop.person("staff")
    (account,) = shop.sql("select email from shop.users where user_id = %s", staff.user_id)

    assert shop.log_in(account["email"]).status == 200


def test_right_password_beyond_the_limit_is_429_also_when_unverified(make_shop: MakeShop) -> None:
    shop = make_shop(email_verification="login")
    email = new_address()
    assert shop.register(email).status == 201
    for number in range(SOURCE_FAILURES_MAX):
        assert shop.log_in(email, f"guess number {number}").status == 401

    assert shop.log_in(email).status == 429


# ---------------------------------------------------------------- change of the address


def test_confirmed_change_replaces_the_address_and_keeps_the_sessions(shop: ShopHarness) -> None:
    old, new = new_address(), f"New.{uuid4().hex[:8]}@Example.kr"
    person = registered(shop, old)

    answer = request_change(person, new)
    request = events(shop, CHANGE)[-1]
    assert person.get("/users/me").json["email"] == old
    assert confirm(shop, token_in(shop, CHANGE)).status == 204

    assert (answer.status, answer.body) == (202, b"")
    assert request["userId"] == person.user_id
    account = person.get("/users/me").json
    assert (account["email"], account["emailVerified"]) == (new, True)
    assert [shop.log_in(each).status for each in (old, new)] == [401, 200]
    changed = events(shop, "user.email-changed")[-1]
    assert changed == {"userId": person.user_id, "linkId": request["linkId"]}
    (link,) = shop.sql(
        "select email, email_before from shop.one_time_links where link_id = %s",
        UUID(changed["linkId"]),
    )
    assert link == {"email": new, "email_before": old}


def test_wrong_password_is_403_counted_and_changes_nothing(shop: ShopHarness) -> None:
    person = registered(shop)

    guesses = [
        request_change(person, new_address(), f"guess number {n}")
        for n in range(SOURCE_FAILURES_MAX + 1)
    ]

    statuses = [guess.status for guess in guesses]
    assert statuses == [403] * SOURCE_FAILURES_MAX + [429]
    assert guesses[0].error == "WRONG_PASSWORD"
    assert events(shop, CHANGE) == []


def test_address_of_another_account_gets_the_same_answer_and_the_same_rows(
    shop: ShopHarness,
) -> None:
    taken, free = new_address(), new_address()
    registered(shop, taken)
    person = registered(shop)

    answers = [request_change(person, each) for each in (free, taken.upper())]
    token = token_in(shop, CHANGE)

    assert [(answer.status, answer.body) for answer in answers] == [(202, b"")] * 2
    assert answers[0].headers.keys() == answers[1].headers.keys()
    for name in (CHANGE, "user.email-change-started"):
        assert [data["userId"] for data in events(shop, name)] == [person.user_id] * 2
    free_link, taken_link = person.post("/users/me/export").json["oneTimeLinks"][-2:]
    assert free_link.keys() == taken_link.keys()
    assert [free_link["email"], taken_link["email"]] == [free, taken.upper()]
    assert confirm(shop, token).status == 403


def test_address_that_another_account_got_meanwhile_is_403(shop: ShopHarness) -> None:
    address = new_address()
    person = registered(shop)
    token = change_token(person, address)
    registered(shop, address)

    answer = confirm(shop, token)

    assert (answer.status, answer.error) == (403, "INVALID_LINK")
    assert person.get("/users/me").json["email"] != address


def test_of_concurrent_changes_to_one_address_one_succeeds(shop: ShopHarness) -> None:
    address = new_address()
    people = [registered(shop) for _ in range(4)]
    tokens: list[str] = []
    for person in people:
        shop.sql("update shop.one_time_links set created_at = now() - interval '1 day'")
        tokens.append(change_token(person, address))

    answers = run_concurrently(*[lambda t=token: confirm(shop, t) for token in tokens])

    assert sorted(answer.status for answer in answers) == [204, 403, 403, 403]
    (row,) = shop.sql("select count(*) as n from shop.users where email = %s", address)
    assert row["n"] == 1


def test_own_address_is_409(shop: ShopHarness) -> None:
    email = new_address()
    person = registered(shop, email)

    answer = request_change(person, email.upper())

    assert (answer.status, answer.error) == (409, "SAME_EMAIL")


def test_change_ends_links_that_were_sent_to_the_address_before(shop: ShopHarness) -> None:
    old = new_address()
    person = registered(shop, old)
    person.post("/users/me/email-verification")
    verifying = token_in(shop, VERIFICATION)
    shop.call("POST", "/auth/password-reset", {"email": old})
    resetting = token_in(shop, "user.password-reset-requested")
    changing = change_token(person, new_address())

    assert confirm(shop, changing).status == 204

    assert confirm(shop, verifying).status == 403
    body = {"token": resetting, "newPassword": PASSWORD}
    assert shop.call("POST", "/auth/password-reset/confirm", body).status == 403


@pytest.mark.parametrize("by_link", [False, True])
def test_change_of_the_password_ends_a_pending_change_of_the_address(
    shop: ShopHarness, *, by_link: bool
) -> None:
    email = new_address()
    person = registered(shop, email)
    changing = change_token(person, new_address())

    if by_link:
        shop.call("POST", "/auth/password-reset", {"email": email})
        token = token_in(shop, "user.password-reset-requested")
        body = {"token": token, "newPassword": "another long pass phrase"}
        answer = shop.call("POST", "/auth/password-reset/confirm", body)
    else:
        body = {"currentPassword": PASSWORD, "newPassword": "another long pass phrase"}
        answer = person.post("/users/me/password", body)

    assert answer.status == 204
    assert confirm(shop, changing).status == 403


# ---------------------------------------------------------------- the profile


def test_profile_changes_with_the_etag_that_was_read(shop: ShopHarness) -> None:
    person = registered(shop)
    seen = person.get("/users/me")
    headers = {"if-match": seen.headers["etag"]}

    changed = person.patch("/users/me", {"language": "en"}, headers=headers)
    stale = person.patch("/users/me", {"name": "Kim"}, headers=headers)

    assert (changed.status, changed.json) == (200, {**seen.json, "language": "en"})
    assert changed.headers["etag"] == person.get("/users/me").headers["etag"]
    assert (stale.status, stale.error) == (412, "PRECONDITION_FAILED")
    again = person.patch("/users/me", {"name": "Kim"}, headers={"if-match": "*"})
    assert (again.json["name"], again.json["language"]) == ("Kim", "en")


def test_known_account_is_304(shop: ShopHarness) -> None:
    person = registered(shop)
    etag = person.get("/users/me").headers["etag"]

    answer = shop.call("GET", "/users/me", token=person.token, headers={"if-none-match": etag})

    assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)


@pytest.mark.parametrize(
    "body", [{}, {"language": "fr"}, {"language": None}, {"name": ""}, {"role": "admin"}]
)
def test_invalid_profile_is_422(shop: ShopHarness, body: dict[str, object]) -> None:
    person = registered(shop)

    assert person.patch("/users/me", body, headers={"if-match": "*"}).status == 422


def test_profile_without_if_match_is_428(shop: ShopHarness) -> None:
    answer = registered(shop).patch("/users/me", {"language": "en"})

    assert (answer.status, answer.error) == (428, "PRECONDITION_REQUIRED")


def test_of_concurrent_changes_with_one_etag_one_succeeds(shop: ShopHarness) -> None:
    person = registered(shop)
    headers = {"if-match": person.get("/users/me").headers["etag"]}

    answers = run_concurrently(
        *[
            lambda n=number: person.patch("/users/me", {"name": f"Kim {n}"}, headers=headers)
            for number in range(4)
        ]
    )

    assert sorted(answer.status for answer in answers) == [200, 412, 412, 412]
